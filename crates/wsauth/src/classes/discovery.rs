//! Class D: discover and peers.

use mws_models::{WorkspaceId, WorkspaceStatus};

use super::Authenticator;
use super::registry::refusal;
use crate::{Caller, Credentials, Denied};

/// Which of the two routes asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiscoveryRoute {
    /// `GET /registry/discover/:id`: the calling workspace is the one that `X-Workspace-ID` names.
    Discover,
    /// `GET /registry/:id/peers`: the calling workspace is the path's.
    Peers,
}

/// How a request passed the discovery gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryPass {
    /// Go on as this caller.
    Pass(Caller),
    /// Peers of a workspace that is unknown or removed: 404 `workspace not found`, whoever asks (3.R47, 3.7).
    NoSuchWorkspace,
}

impl Authenticator {
    /// Class D for a calling workspace. The hierarchy is not looked at: discover's caller does that next.
    ///
    /// # Errors
    /// `MissingWorkspaceToken` and `InvalidWorkspaceToken`, at discover for a removed caller too; `Unavailable`.
    pub async fn discovery(
        &self,
        credentials: &Credentials<'_>,
        workspace: WorkspaceId,
        route: DiscoveryRoute,
    ) -> Result<DiscoveryPass, Denied> {
        let row = self.lookups.gate(workspace).await?;
        let removed = row.is_some_and(|row| row.status == WorkspaceStatus::Removed);
        if route == DiscoveryRoute::Peers && (removed || row.is_none()) {
            return Ok(DiscoveryPass::NoSuchWorkspace);
        }
        if removed {
            return Err(refusal(credentials));
        }
        if !row.is_some_and(|row| row.has_live_token) {
            return Ok(DiscoveryPass::Pass(Caller::Anonymous));
        }
        if self.dev_open(credentials) {
            return Ok(DiscoveryPass::Pass(Caller::DevOpen));
        }
        let bearer = credentials.bearer.ok_or(Denied::MissingWorkspaceToken)?;
        if self.policy.is_admin(bearer) {
            return Ok(DiscoveryPass::Pass(Caller::Admin));
        }
        if let Some(token) = self.lookups.workspace_bearer(bearer).await?
            && token.workspace_id == workspace
        {
            return Ok(DiscoveryPass::Pass(self.lookups.admit_workspace(token)));
        }
        let org = self.lookups.org_caller(bearer).await?;
        org.map(DiscoveryPass::Pass).ok_or(Denied::InvalidWorkspaceToken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, LIVE, creds, far, hosted, with};
    use super::DiscoveryRoute::{Discover, Peers};
    use super::*;
    use crate::{AuthPolicy, Environment};

    #[tokio::test]
    async fn the_table() {
        let fake = Fake::default();
        let (enrolled, other, fresh) = (fake.workspace(LIVE), fake.workspace(LIVE), fake.workspace(LIVE));
        let removed = fake.workspace(WorkspaceStatus::Removed);
        let (own, others, dead) = (fake.token(enrolled), fake.token(other), fake.token(removed));
        let org = fake.org_token(None);
        let auth = fake.authenticator(hosted());
        let pass = DiscoveryPass::Pass;

        for route in [Discover, Peers] {
            let ask = |id, bearer| auth.discovery(with(&creds(), bearer), id, route);
            // D3
            assert_eq!(auth.discovery(&creds(), fresh, route).await, Ok(pass(Caller::Anonymous)));
            assert_eq!(ask(fresh, &others).await, Ok(pass(Caller::Anonymous)));
            // D6, 5.R68
            assert_eq!(ask(enrolled, &own).await, Ok(pass(fake.workspace_caller(&own))));
            assert_eq!(ask(enrolled, "admin-secret").await, Ok(pass(Caller::Admin)));
            assert_eq!(ask(enrolled, &org).await, Ok(pass(fake.org_caller(&org))));
            // D7
            for bearer in [&others, &dead, "junk"] {
                assert_eq!(ask(enrolled, bearer).await, Err(Denied::InvalidWorkspaceToken));
            }
            // D9
            let answer = auth.discovery(&creds(), enrolled, route).await;
            assert_eq!(answer, Err(Denied::MissingWorkspaceToken));
        }

        // D2a, 3.R47
        let ask = |bearer| auth.discovery(with(&creds(), bearer), removed, Discover);
        assert_eq!(ask("admin-secret").await, Err(Denied::InvalidWorkspaceToken));
        assert_eq!(ask(&dead).await, Err(Denied::InvalidWorkspaceToken));
        let answer = auth.discovery(&creds(), removed, Discover).await;
        assert_eq!(answer, Err(Denied::MissingWorkspaceToken));
        let unknown = WorkspaceId::random();
        for gone in [removed, unknown] {
            let answer = auth.discovery(&creds(), gone, Peers).await;
            assert_eq!(answer, Ok(DiscoveryPass::NoSuchWorkspace));
        }
        let answer = auth.discovery(&creds(), unknown, Discover).await;
        assert_eq!(answer, Ok(pass(Caller::Anonymous)));
    }

    #[tokio::test]
    async fn dev_open_passes_whatever_bearer_came() {
        // D4, 5.R68, 5.R82
        let fake = Fake::default();
        let (id, other) = (fake.workspace(LIVE), fake.workspace(LIVE));
        fake.token(id);
        let others = fake.token(other);
        let dev = AuthPolicy { environment: Environment::Development, ..AuthPolicy::default() };
        let auth = fake.authenticator(dev);
        let open = Ok(DiscoveryPass::Pass(Caller::DevOpen));
        assert_eq!(auth.discovery(&creds(), id, Discover).await, open);
        assert_eq!(auth.discovery(with(&creds(), &others), id, Discover).await, open);
        let answer = auth.discovery(&far(), id, Discover).await;
        assert_eq!(answer, Err(Denied::MissingWorkspaceToken));
        let answer = auth.discovery(with(&far(), &others), id, Discover).await;
        assert_eq!(answer, Err(Denied::InvalidWorkspaceToken));
    }

    #[tokio::test]
    async fn a_store_failure_is_503() {
        // D2, 5.B6
        let fake = Fake::default();
        let id = fake.workspace(LIVE);
        let own = fake.token(id);
        let auth = fake.authenticator(hosted());
        let ask = |bearer| auth.discovery(with(&creds(), bearer), id, Peers);
        fake.break_gate();
        assert_eq!(auth.discovery(&creds(), id, Peers).await, Err(Denied::Unavailable));
        assert_eq!(ask("admin-secret").await, Err(Denied::Unavailable));
        fake.mend();
        fake.break_workspace_tokens();
        assert_eq!(ask(&own).await, Err(Denied::Unavailable));
        fake.mend();
        fake.break_org_tokens();
        assert_eq!(ask("junk").await, Err(Denied::Unavailable));
    }
}
