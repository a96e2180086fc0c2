//! Class A: the operator's routes.

use super::Authenticator;
use crate::{Caller, Credentials, Denied};

impl Authenticator {
    /// Class A. `Origin` plays no part in it (5.R50).
    ///
    /// # Errors
    /// The refusals of the table: `AdminRequired`, `InvalidAdminToken`, `Unavailable`. In dev-open, too, a
    /// bearer that cannot be looked up is `Unavailable`: it may belong to a workspace, which must not become
    /// an operator because the store is down.
    pub async fn admin(&self, credentials: &Credentials<'_>) -> Result<Caller, Denied> {
        if self.policy.admin_token.is_some() {
            return self.admin_closed(credentials).await;
        }
        if !self.lookups.any_live_token().await?
            && self.policy.bootstrap_permitted()
            && self.policy.open_tier_allowed(credentials)
        {
            return Ok(Caller::Bootstrap);
        }
        let by_bearer = self.admin_without_token(credentials).await;
        match by_bearer {
            Err(Denied::AdminRequired | Denied::InvalidAdminToken) if self.dev_open(credentials) => {
                Ok(Caller::DevOpen)
            }
            decided => decided,
        }
    }

    async fn admin_closed(&self, credentials: &Credentials<'_>) -> Result<Caller, Denied> {
        let bearer = credentials.bearer.ok_or(Denied::AdminRequired)?;
        if self.policy.is_admin(bearer) {
            return Ok(Caller::Admin);
        }
        self.lookups.org_caller(bearer).await?.ok_or(Denied::InvalidAdminToken)
    }

    /// Without `ADMIN_TOKEN` any workspace's token still opens class A: the deprecated tier (A10).
    async fn admin_without_token(&self, credentials: &Credentials<'_>) -> Result<Caller, Denied> {
        let bearer = credentials.bearer.ok_or(Denied::AdminRequired)?;
        if let Some(caller) = self.lookups.org_caller(bearer).await? {
            return Ok(caller);
        }
        let token = self.lookups.workspace_bearer(bearer).await?.ok_or(Denied::InvalidAdminToken)?;
        Ok(self.lookups.admit_workspace(token))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, LIVE, creds, far, hosted, with};
    use super::*;
    use crate::{AuthPolicy, Environment};
    use mws_models::WorkspaceStatus;

    fn dev() -> AuthPolicy {
        AuthPolicy { environment: Environment::Development, ..AuthPolicy::default() }
    }

    #[tokio::test]
    async fn with_an_admin_token_only_operators_pass() {
        let fake = Fake::default();
        let auth = fake.authenticator(hosted());
        // 5.R48, 5.R209: closed even with no token anywhere
        assert_eq!(auth.admin(&creds()).await, Err(Denied::AdminRequired)); // A5
        assert_eq!(fake.lookups(), 0);

        let id = fake.workspace(LIVE);
        let (own, org) = (fake.token(id), fake.org_token(Some(id)));
        let ask = |bearer| auth.admin(with(&creds(), bearer));
        assert_eq!(ask("admin-secret").await, Ok(Caller::Admin)); // A6, 5.R211
        assert_eq!(ask(&org).await, Ok(fake.org_caller(&org))); // A7
        assert_eq!(ask(&own).await, Err(Denied::InvalidAdminToken)); // A9, 5.R49, 5.R211
        assert_eq!(ask("wrong").await, Err(Denied::InvalidAdminToken)); // 5.R211
        assert_eq!(auth.admin(&creds()).await, Err(Denied::AdminRequired)); // 5.R210

        fake.break_org_tokens();
        assert_eq!(ask(&org).await, Err(Denied::Unavailable)); // A8, 5.R216
        assert_eq!(ask("admin-secret").await, Ok(Caller::Admin));
    }

    #[tokio::test]
    async fn a_fresh_install_is_open_to_those_nearby() {
        // A2, 5.R82, 5.R83, 5.R209
        let fake = Fake::default();
        let auth = fake.authenticator(AuthPolicy::default());
        assert_eq!(auth.admin(&creds()).await, Ok(Caller::Bootstrap));
        assert_eq!(auth.admin(with(&creds(), "whatever")).await, Ok(Caller::Bootstrap));
        assert_eq!(auth.admin(&far()).await, Err(Denied::AdminRequired));
        let rebound = Credentials { host: Some("evil.example"), ..creds() };
        assert_eq!(auth.admin(&rebound).await, Err(Denied::AdminRequired));
        let production = AuthPolicy { environment: Environment::Production, ..AuthPolicy::default() };
        let auth = fake.authenticator(production.clone());
        assert_eq!(auth.admin(&creds()).await, Err(Denied::AdminRequired));
        let auth = fake.authenticator(AuthPolicy { bootstrap_open: true, ..production });
        assert_eq!(auth.admin(&creds()).await, Ok(Caller::Bootstrap));
        assert_eq!(auth.admin(&far()).await, Err(Denied::AdminRequired));
    }

    #[tokio::test]
    async fn the_first_token_closes_and_the_last_one_reopens() {
        // 5.R52, 5.R210, 5.R15
        let fake = Fake::default();
        let auth = fake.authenticator(AuthPolicy::default());
        let own = fake.token(fake.workspace(LIVE));
        assert_eq!(auth.admin(&creds()).await, Err(Denied::AdminRequired));
        fake.revoke(&own);
        assert_eq!(auth.admin(&creds()).await, Ok(Caller::Bootstrap));
        fake.org_token(None);
        assert_eq!(auth.admin(&creds()).await, Err(Denied::AdminRequired));
    }

    #[tokio::test]
    async fn without_an_admin_token_a_workspaces_token_passes() {
        // A10, A11, 5.R212
        let fake = Fake::default();
        let own = fake.token(fake.workspace(LIVE));
        let dead = fake.token(fake.workspace(WorkspaceStatus::Removed));
        let org = fake.org_token(None);
        let auth = fake.authenticator(AuthPolicy::default());
        let ask = |bearer| auth.admin(with(&creds(), bearer));
        assert_eq!(ask(&own).await, Ok(fake.workspace_caller(&own)));
        assert_eq!(ask(&org).await, Ok(fake.org_caller(&org)));
        assert_eq!(ask(&dead).await, Err(Denied::InvalidAdminToken));
        assert_eq!(ask("unknown").await, Err(Denied::InvalidAdminToken));
        fake.break_workspace_tokens();
        assert_eq!(ask(&own).await, Err(Denied::Unavailable));
        fake.mend();
        fake.break_org_tokens();
        assert_eq!(ask(&own).await, Err(Denied::Unavailable)); // A8 stands above A10
    }

    #[tokio::test]
    async fn a_failed_probe_is_503_in_every_open_tier() {
        // A1, 5.R216
        let fake = Fake::default();
        fake.break_probe();
        for policy in [AuthPolicy::default(), dev()] {
            let auth = fake.authenticator(policy);
            assert_eq!(auth.admin(&creds()).await, Err(Denied::Unavailable));
            assert_eq!(auth.admin(with(&creds(), "x")).await, Err(Denied::Unavailable));
        }
    }

    #[tokio::test]
    async fn dev_open_takes_the_bearers_own_principal_if_it_resolves() {
        // A3, 5.R82, 5.R214
        let fake = Fake::default();
        let (own, org) = (fake.token(fake.workspace(LIVE)), fake.org_token(None));
        let auth = fake.authenticator(dev());
        let ask = |bearer| auth.admin(with(&creds(), bearer));
        assert_eq!(auth.admin(&creds()).await, Ok(Caller::DevOpen));
        assert_eq!(ask("unknown").await, Ok(Caller::DevOpen));
        assert_eq!(ask(&own).await, Ok(fake.workspace_caller(&own)));
        assert_eq!(ask(&org).await, Ok(fake.org_caller(&org)));
        assert_eq!(auth.admin(&far()).await, Err(Denied::AdminRequired));
        assert_eq!(auth.admin(with(&far(), "unknown")).await, Err(Denied::InvalidAdminToken));
        fake.break_workspace_tokens();
        assert_eq!(ask(&own).await, Err(Denied::Unavailable));

        fake.mend();
        let auth = fake.authenticator(AuthPolicy { admin_token: hosted().admin_token, ..dev() });
        assert_eq!(auth.admin(&creds()).await, Err(Denied::AdminRequired));
    }

    #[tokio::test]
    async fn an_origin_is_no_credential() {
        // 5.R50, 5.R213
        let fake = Fake::default();
        let policy = AuthPolicy { allowed_origins: vec!["http://localhost:3000".into()], ..hosted() };
        let auth = fake.authenticator(policy);
        let forged = Credentials { origin: Some("http://localhost:3000"), ..creds() };
        assert_eq!(auth.admin(&forged).await, Err(Denied::AdminRequired));
        assert_eq!(auth.admin(with(&forged, "admin-secret")).await, Ok(Caller::Admin));
    }
}
