//! Class W: `/workspaces/:id/*`.

use mws_models::WorkspaceId;

use super::Authenticator;
use crate::{Bearer, Caller, Credentials, Denied};

impl Authenticator {
    /// Class W for the workspace that the path names, as text: a name that is no UUID is the handler's 400, but
    /// only for those who get in (5.R5).
    ///
    /// Neither the workspace's existence nor its status is looked at; without a bearer nothing is looked up.
    ///
    /// # Errors
    /// The refusals of the table: `MissingWorkspaceId`, `MissingWorkspaceToken`, `InvalidWorkspaceToken`,
    /// `Unavailable`.
    pub async fn workspace(&self, credentials: &Credentials<'_>, id: &str) -> Result<Caller, Denied> {
        if id.is_empty() {
            return Err(Denied::MissingWorkspaceId);
        }
        match credentials.bearer {
            // A bearer that does not validate is final: no open tier is tried after it (5.R44).
            Some(bearer) => self.workspace_by_bearer(bearer, id.parse().ok()).await,
            None if self.dev_open(credentials) => Ok(Caller::DevOpen),
            None => Err(Denied::MissingWorkspaceToken),
        }
    }

    async fn workspace_by_bearer(
        &self,
        bearer: Bearer<'_>,
        id: Option<WorkspaceId>,
    ) -> Result<Caller, Denied> {
        if self.policy.is_admin(bearer) {
            return Ok(Caller::Admin);
        }
        // Agents outnumber integrations, so the workspace's token is looked up first; no token is both.
        let own = match id {
            Some(id) => self
                .lookups
                .workspace_bearer(bearer)
                .await
                .map(|token| token.filter(|token| token.workspace_id == id)),
            None => Ok(None),
        };
        if let Ok(Some(token)) = own {
            return Ok(self.lookups.admit_workspace(token));
        }
        if let Some(caller) = self.lookups.org_caller(bearer).await? {
            return Ok(caller);
        }
        own.and(Err(Denied::InvalidWorkspaceToken))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, LIVE, creds, far, hosted, with};
    use super::*;
    use crate::{AuthPolicy, Environment};

    #[tokio::test]
    async fn the_table_with_an_admin_token() {
        let fake = Fake::default();
        let (a, b) = (fake.workspace(LIVE), fake.workspace(LIVE));
        let (own, other) = (fake.token(a), fake.token(b));
        let org = fake.org_token(Some(b));
        let auth = fake.authenticator(hosted());
        let id = a.to_string();
        let ask = |bearer| auth.workspace(with(&creds(), bearer), &id);

        assert_eq!(auth.workspace(&creds(), "").await, Err(Denied::MissingWorkspaceId)); // W1
        assert_eq!(ask("admin-secret").await, Ok(Caller::Admin)); // W2
        assert_eq!(ask(&org).await, Ok(fake.org_caller(&org))); // W3, 5.R205
        assert_eq!(ask(&own).await, Ok(fake.workspace_caller(&own))); // W4, 5.R208
        assert_eq!(ask(&other).await, Err(Denied::InvalidWorkspaceToken)); // W6, 5.R12, 5.R208
        assert_eq!(ask("unknown").await, Err(Denied::InvalidWorkspaceToken));
        assert_eq!(ask("admin-secre").await, Err(Denied::InvalidWorkspaceToken));
        fake.revoke(&own);
        assert_eq!(ask(&own).await, Err(Denied::InvalidWorkspaceToken)); // 5.R13
    }

    #[tokio::test]
    async fn tokens_of_removed_workspaces_open_nothing() {
        // 5.R9, 5.R13, 5.R17
        let fake = Fake::default();
        let removed = fake.workspace(mws_models::WorkspaceStatus::Removed);
        let token = fake.token(removed);
        let auth = fake.authenticator(hosted());
        let answer = auth.workspace(with(&creds(), &token), &removed.to_string()).await;
        assert_eq!(answer, Err(Denied::InvalidWorkspaceToken));
    }

    #[tokio::test]
    async fn ids_are_compared_as_uuids() {
        // 5.R5
        let fake = Fake::default();
        let id = fake.workspace(LIVE);
        let own = fake.token(id);
        let auth = fake.authenticator(hosted());
        let upper = id.to_string().to_uppercase();
        assert_eq!(auth.workspace(with(&creds(), &own), &upper).await, Ok(fake.workspace_caller(&own)));
        let bare = id.to_string().replace('-', "");
        assert_eq!(auth.workspace(with(&creds(), &own), &bare).await, Err(Denied::InvalidWorkspaceToken));
        assert_eq!(auth.workspace(with(&creds(), "admin-secret"), "no-uuid").await, Ok(Caller::Admin));
    }

    #[tokio::test]
    async fn without_a_bearer_nothing_is_looked_up() {
        // W10, 5.R45, 5.R46, 5.R206, 5.R207
        let fake = Fake::default();
        let (enrolled, tokenless) = (fake.workspace(LIVE), fake.workspace(LIVE));
        fake.token(enrolled);
        let auth = fake.authenticator(AuthPolicy::default());
        for id in [enrolled, tokenless, WorkspaceId::random()] {
            let answer = auth.workspace(&creds(), &id.to_string()).await;
            assert_eq!(answer, Err(Denied::MissingWorkspaceToken));
        }
        assert_eq!(fake.lookups(), 0);
    }

    #[tokio::test]
    async fn dev_open_passes_only_without_a_bearer() {
        // W9, 5.R44, 5.R82, 5.R214
        let fake = Fake::default();
        let id = fake.workspace(LIVE);
        fake.token(id);
        let id = id.to_string();
        let dev = AuthPolicy { environment: Environment::Development, ..AuthPolicy::default() };
        let auth = fake.authenticator(dev.clone());
        assert_eq!(auth.workspace(&creds(), &id).await, Ok(Caller::DevOpen));
        assert_eq!(auth.workspace(&far(), &id).await, Err(Denied::MissingWorkspaceToken));
        let rebound = Credentials { host: Some("evil.example"), ..creds() };
        assert_eq!(auth.workspace(&rebound, &id).await, Err(Denied::MissingWorkspaceToken));
        assert_eq!(auth.workspace(with(&creds(), "stale"), &id).await, Err(Denied::InvalidWorkspaceToken));
        for policy in [
            AuthPolicy { admin_token: hosted().admin_token, ..dev },
            AuthPolicy { environment: Environment::Production, ..AuthPolicy::default() },
        ] {
            let auth = fake.authenticator(policy);
            assert_eq!(auth.workspace(&creds(), &id).await, Err(Denied::MissingWorkspaceToken));
        }
    }

    #[tokio::test]
    async fn a_store_failure_is_503_unless_the_answer_is_known() {
        // W5, 5.R10, 5.R76, 5.T1
        let fake = Fake::default();
        let id = fake.workspace(LIVE);
        let (own, org) = (fake.token(id), fake.org_token(None));
        let text = id.to_string();
        let auth = fake.authenticator(hosted());
        let ask = |bearer| auth.workspace(with(&creds(), bearer), &text);

        fake.break_org_tokens();
        assert_eq!(ask(&own).await, Ok(fake.workspace_caller(&own)));
        assert_eq!(ask(&org).await, Err(Denied::Unavailable));
        assert_eq!(ask("unknown").await, Err(Denied::Unavailable));
        fake.mend();
        fake.break_workspace_tokens();
        assert_eq!(ask(&org).await, Ok(fake.org_caller(&org)));
        assert_eq!(ask(&own).await, Err(Denied::Unavailable));
        assert_eq!(ask("unknown").await, Err(Denied::Unavailable));
        assert_eq!(ask("admin-secret").await, Ok(Caller::Admin));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_hangs_is_a_failure_after_its_deadline() {
        // 5 §5: acquire plus query within 5 s
        let fake = Fake::default();
        let id = fake.workspace(LIVE).to_string();
        let auth = fake.authenticator(hosted());
        fake.hang();
        let start = tokio::time::Instant::now();
        assert_eq!(auth.workspace(with(&creds(), "x"), &id).await, Err(Denied::Unavailable));
        assert!(start.elapsed() >= super::super::LOOKUP_DEADLINE);
    }

    #[tokio::test]
    async fn only_a_token_that_opened_something_counts_as_used() {
        // 5.R14
        let fake = Fake::default();
        let (a, b) = (fake.workspace(LIVE), fake.workspace(LIVE));
        let (own, other, org) = (fake.token(a), fake.token(b), fake.org_token(None));
        let auth = fake.authenticator(hosted());
        let text = a.to_string();
        for bearer in [&own, &other, &org] {
            let _ = auth.workspace(with(&creds(), bearer), &text).await;
        }
        assert_eq!(fake.used(), [fake.used_key(&own), fake.used_key(&org)]);
    }
}
