//! Class S: who may open `GET /ws`. Everything is answered before the upgrade.

use std::fmt;

use mws_models::{WorkspaceId, WorkspaceStatus};

use super::Authenticator;
use super::registry::{RegistryPass, refusal};
use crate::{Caller, Credentials, Denied, Environment, TokenHash, origin_allowed};

/// An agent that was let in, with what it takes to ask again later whether it still may stay.
#[derive(Clone)]
pub struct SocketAgent {
    workspace: WorkspaceId,
    token: Option<TokenHash>,
}

impl SocketAgent {
    /// The workspace whose view of the events this client gets.
    #[must_use]
    pub const fn workspace(&self) -> WorkspaceId {
        self.workspace
    }
}

impl fmt::Debug for SocketAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proven = self.token.is_some();
        f.debug_struct("SocketAgent").field("workspace", &self.workspace).field("proven", &proven).finish()
    }
}

impl Authenticator {
    /// An agent client, which names its workspace (3.R113): the origin rule, then class R's table, the unknown
    /// workspace refused. No open tier and no operator: only the workspace's own token counts.
    ///
    /// # Errors
    /// `OriginNotAllowed`, `MissingWorkspaceToken`, `InvalidWorkspaceToken`, `Unavailable`.
    pub async fn socket_agent(
        &self,
        credentials: &Credentials<'_>,
        claimed: &str,
    ) -> Result<SocketAgent, Denied> {
        self.check_origin(credentials)?;
        let Ok(workspace) = claimed.parse() else { return Err(refusal(credentials)) };
        match self.registry(credentials, workspace).await? {
            RegistryPass::Proven(_) => {
                Ok(SocketAgent { workspace, token: credentials.bearer.map(TokenHash::from) })
            }
            RegistryPass::Unproven => Ok(SocketAgent { workspace, token: None }),
            RegistryPass::Unknown(refusal) => Err(refusal),
        }
    }

    /// Whether an agent client may stay: neither its workspace was removed nor its token revoked (3.R119).
    ///
    /// # Errors
    /// `Unavailable` when that cannot be told now, which is no reason to drop it.
    pub async fn socket_agent_may_stay(&self, agent: &SocketAgent) -> Result<bool, Denied> {
        match &agent.token {
            Some(hash) => {
                // A token never changes its workspace, so that it is still usable says all.
                Ok(self.lookups.workspace_token(hash).await?.is_some())
            }
            None => {
                let row = self.lookups.gate(agent.workspace).await?;
                Ok(row.is_some_and(|row| row.status != WorkspaceStatus::Removed))
            }
        }
    }

    /// A canvas client, which names no workspace and receives every event (3.R115).
    ///
    /// # Errors
    /// `OriginNotAllowed`, `AdminRequired`, `Unavailable`: nobody is admitted on a store failure.
    pub async fn socket_canvas(&self, credentials: &Credentials<'_>) -> Result<Caller, Denied> {
        self.check_origin(credentials)?;
        // Development alone opens the feed, also where ADMIN_TOKEN is set, within the limits of 5.R82.
        let nearby = self.policy.open_tier_allowed(credentials);
        if self.policy.environment == Environment::Development && nearby {
            return Ok(Caller::Canvas);
        }
        // A browser cannot put a bearer on an upgrade; that its page is ours was checked above.
        if credentials.origin.is_some() {
            return Ok(Caller::Canvas);
        }
        if let Some(bearer) = credentials.bearer {
            if self.policy.is_admin(bearer) {
                return Ok(Caller::Admin);
            }
            if let Some(caller) = self.lookups.org_caller(bearer).await? {
                return Ok(caller);
            }
        }
        if self.policy.bootstrap_permitted() && nearby && !self.lookups.any_live_token().await? {
            return Ok(Caller::Bootstrap);
        }
        Err(Denied::AdminRequired)
    }

    fn check_origin(&self, credentials: &Credentials<'_>) -> Result<(), Denied> {
        match credentials.origin {
            Some(origin) if !origin_allowed(origin, credentials.host, &self.policy.allowed_origins) => {
                Err(Denied::OriginNotAllowed)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, LIVE, creds, far, hosted, with};
    use super::*;
    use crate::AuthPolicy;

    fn dev() -> AuthPolicy {
        AuthPolicy { environment: Environment::Development, ..AuthPolicy::default() }
    }

    #[tokio::test]
    async fn agents_pass_by_their_own_token_alone() {
        // 3.R113, 5 §5.9
        let fake = Fake::default();
        let (id, other, fresh) = (fake.workspace(LIVE), fake.workspace(LIVE), fake.workspace(LIVE));
        let removed = fake.workspace(WorkspaceStatus::Removed);
        let (own, others, org) = (fake.token(id), fake.token(other), fake.org_token(None));
        let (id, fresh, removed) = (id.to_string(), fresh.to_string(), removed.to_string());
        let unknown = WorkspaceId::random().to_string();
        for policy in [hosted(), dev()] {
            let auth = fake.authenticator(policy);
            let ask = async |claim: &str, bearer: &str| {
                auth.socket_agent(with(&creds(), bearer), claim).await.map(|a| a.workspace().to_string())
            };
            let none = async |claim: &str| {
                auth.socket_agent(&creds(), claim).await.map(|agent| agent.workspace().to_string())
            };
            assert_eq!(ask(&id, &own).await, Ok(id.clone()));
            assert_eq!(none(&fresh).await, Ok(fresh.clone()));
            for bearer in [&others, &org, "junk", "admin-secret"] {
                assert_eq!(ask(&id, bearer).await, Err(Denied::InvalidWorkspaceToken));
            }
            assert_eq!(none(&id).await, Err(Denied::MissingWorkspaceToken));
            for claim in [removed.as_str(), &unknown, "system:x", ""] {
                assert_eq!(none(claim).await, Err(Denied::MissingWorkspaceToken));
                assert_eq!(ask(claim, &own).await, Err(Denied::InvalidWorkspaceToken));
            }
        }
        let auth = fake.authenticator(hosted());
        fake.break_gate();
        assert_eq!(auth.socket_agent(&creds(), &fresh).await.unwrap_err(), Denied::Unavailable);
    }

    #[tokio::test]
    async fn an_agent_stays_until_its_token_or_workspace_goes() {
        // 3.R119
        let fake = Fake::default();
        let (id, fresh) = (fake.workspace(LIVE), fake.workspace(LIVE));
        let own = fake.token(id);
        let auth = fake.authenticator(hosted());
        let proven = auth.socket_agent(with(&creds(), &own), &id.to_string()).await.unwrap();
        let unproven = auth.socket_agent(&creds(), &fresh.to_string()).await.unwrap();
        for agent in [&proven, &unproven] {
            assert_eq!(auth.socket_agent_may_stay(agent).await, Ok(true));
        }
        fake.break_workspace_tokens();
        fake.break_gate();
        for agent in [&proven, &unproven] {
            assert_eq!(auth.socket_agent_may_stay(agent).await, Err(Denied::Unavailable));
        }
        fake.mend();
        fake.revoke(&own);
        fake.remove(fresh);
        for agent in [&proven, &unproven] {
            assert_eq!(auth.socket_agent_may_stay(agent).await, Ok(false));
        }
    }

    #[tokio::test]
    async fn a_foreign_page_is_refused_before_any_lookup() {
        // 3.R116, 3.R115 row 1
        let fake = Fake::default();
        let id = fake.workspace(LIVE);
        let own = fake.token(id);
        let foreign = Credentials { origin: Some("https://evil.example"), ..creds() };
        for policy in [hosted(), dev(), AuthPolicy::default()] {
            let auth = fake.authenticator(policy);
            for base in [foreign, *with(&foreign, "admin-secret"), *with(&foreign, &own)] {
                assert_eq!(auth.socket_canvas(&base).await, Err(Denied::OriginNotAllowed));
                let answer = auth.socket_agent(&base, &id.to_string()).await;
                assert_eq!(answer.unwrap_err(), Denied::OriginNotAllowed);
            }
        }
        assert_eq!(fake.lookups(), 0);
    }

    #[tokio::test]
    async fn the_canvas_list() {
        // 3.R115
        let fake = Fake::default();
        let policy = AuthPolicy { allowed_origins: vec!["https://canvas.example.com".into()], ..hosted() };
        let auth = fake.authenticator(policy);
        let id = fake.workspace(LIVE);
        let (own, org) = (fake.token(id), fake.org_token(None));
        // row 3
        for origin in ["https://canvas.example.com", "http://LOCALHOST:8080"] {
            let page = Credentials { origin: Some(origin), ..creds() };
            assert_eq!(auth.socket_canvas(&page).await, Ok(Caller::Canvas), "{origin}");
        }
        // row 4
        let ask = |bearer| auth.socket_canvas(with(&creds(), bearer));
        assert_eq!(ask("admin-secret").await, Ok(Caller::Admin));
        assert_eq!(ask(&org).await, Ok(fake.org_caller(&org)));
        // row 6
        assert_eq!(auth.socket_canvas(&creds()).await, Err(Denied::AdminRequired));
        for bearer in [&own, "junk"] {
            assert_eq!(ask(bearer).await, Err(Denied::AdminRequired));
        }
        fake.break_org_tokens();
        assert_eq!(ask("junk").await, Err(Denied::Unavailable));
    }

    #[tokio::test]
    async fn development_admits_those_nearby_whatever_admin_token_is_set() {
        // 3.R115 row 2, 3.0 "dev mode", 5.R82
        let fake = Fake::default();
        fake.token(fake.workspace(LIVE));
        for policy in [dev(), AuthPolicy { admin_token: hosted().admin_token, ..dev() }] {
            let auth = fake.authenticator(policy);
            assert_eq!(auth.socket_canvas(&creds()).await, Ok(Caller::Canvas));
            assert_eq!(auth.socket_canvas(&far()).await, Err(Denied::AdminRequired));
        }
    }

    #[tokio::test]
    async fn a_fresh_install_admits_those_nearby() {
        // 3.R115 row 5, 5.R82, 5.R83
        let fake = Fake::default();
        let auth = fake.authenticator(AuthPolicy::default());
        assert_eq!(auth.socket_canvas(&creds()).await, Ok(Caller::Bootstrap));
        assert_eq!(auth.socket_canvas(&far()).await, Err(Denied::AdminRequired));
        let production = AuthPolicy { environment: Environment::Production, ..AuthPolicy::default() };
        let answer = fake.authenticator(production).socket_canvas(&creds()).await;
        assert_eq!(answer, Err(Denied::AdminRequired));
        fake.break_probe();
        assert_eq!(auth.socket_canvas(&creds()).await, Err(Denied::Unavailable));
        fake.mend();
        fake.token(fake.workspace(LIVE));
        assert_eq!(auth.socket_canvas(&creds()).await, Err(Denied::AdminRequired));
    }
}
