//! Class R: register and heartbeat, where only the workspace's own token counts.

use mws_models::{WorkspaceId, WorkspaceStatus};

use super::Authenticator;
use crate::{Caller, Credentials, Denied};

/// How a request passed the registry gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryPass {
    /// By the workspace's own token.
    Proven(Caller),
    /// The workspace holds no live token yet, so nothing was asked for. Such a caller never receives a secret
    /// that is not minted for it (5.R30).
    Unproven,
    /// No such workspace. The heartbeat answers with this refusal; register has its own rule.
    Unknown(Denied),
}

/// The refusal of a workspace's gate: which of the two depends on the request alone (3.R7).
pub(super) const fn refusal(credentials: &Credentials<'_>) -> Denied {
    match credentials.bearer {
        Some(_) => Denied::InvalidWorkspaceToken,
        None => Denied::MissingWorkspaceToken,
    }
}

impl Authenticator {
    /// Class R for the workspace that the body names. Runs after the shape checks and before anything that
    /// depends on the row or the network (5.R58). There is no operator and no open tier in it (5.R57).
    ///
    /// # Errors
    /// `MissingWorkspaceToken` and `InvalidWorkspaceToken`, for a removed workspace too; `Unavailable`.
    pub async fn registry(
        &self,
        credentials: &Credentials<'_>,
        workspace: WorkspaceId,
    ) -> Result<RegistryPass, Denied> {
        // A usable token of this workspace settles it at once: its workspace exists, is not removed and has a
        // live token. That spares the steady heartbeat the second query.
        let own = match credentials.bearer {
            Some(bearer) => self.lookups.workspace_bearer(bearer).await,
            None => Ok(None),
        };
        if let Ok(Some(token)) = own
            && token.workspace_id == workspace
        {
            return Ok(RegistryPass::Proven(self.lookups.admit_workspace(token)));
        }
        match self.lookups.gate(workspace).await? {
            None => Ok(RegistryPass::Unknown(refusal(credentials))),
            Some(row) if row.status == WorkspaceStatus::Removed => Err(refusal(credentials)),
            Some(row) if !row.has_live_token => Ok(RegistryPass::Unproven),
            Some(_) => own.and(Err(refusal(credentials))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, LIVE, creds, hosted, with};
    use super::*;
    use crate::{AuthPolicy, Environment};

    #[tokio::test]
    async fn the_table() {
        let fake = Fake::default();
        let (enrolled, other) = (fake.workspace(LIVE), fake.workspace(LIVE));
        let (fresh, removed) = (fake.workspace(LIVE), fake.workspace(WorkspaceStatus::Removed));
        let (own, second) = (fake.token(enrolled), fake.token(enrolled));
        let (others, dead) = (fake.token(other), fake.token(removed));
        let org = fake.org_token(None);
        let auth = fake.authenticator(hosted());
        let ask = |id, bearer| auth.registry(with(&creds(), bearer), id);

        // R2, 3.R7 1
        let unknown = WorkspaceId::random();
        let missing = RegistryPass::Unknown(Denied::MissingWorkspaceToken);
        assert_eq!(auth.registry(&creds(), unknown).await, Ok(missing));
        let invalid = RegistryPass::Unknown(Denied::InvalidWorkspaceToken);
        assert_eq!(ask(unknown, &own).await, Ok(invalid));
        // R3, 3.R7 2: whatever is presented
        assert_eq!(auth.registry(&creds(), removed).await, Err(Denied::MissingWorkspaceToken));
        for bearer in [&dead, &own, &org, "admin-secret"] {
            assert_eq!(ask(removed, bearer).await, Err(Denied::InvalidWorkspaceToken));
        }
        // R4, 3.R7 4: a presented bearer is ignored
        assert_eq!(auth.registry(&creds(), fresh).await, Ok(RegistryPass::Unproven));
        for bearer in [&own, "junk", "admin-secret"] {
            assert_eq!(ask(fresh, bearer).await, Ok(RegistryPass::Unproven));
        }
        // R5, R6, 3.R7 3, 5.R57
        assert_eq!(auth.registry(&creds(), enrolled).await, Err(Denied::MissingWorkspaceToken));
        for bearer in [&others, &dead, &org, "junk", "admin-secret"] {
            assert_eq!(ask(enrolled, bearer).await, Err(Denied::InvalidWorkspaceToken));
        }
        // R7, 5.R8
        for bearer in [&own, &second] {
            let proven = RegistryPass::Proven(fake.workspace_caller(bearer));
            assert_eq!(ask(enrolled, bearer).await, Ok(proven));
        }
        fake.revoke(&second);
        assert_eq!(ask(enrolled, &second).await, Err(Denied::InvalidWorkspaceToken));
    }

    #[tokio::test]
    async fn a_removed_workspace_with_no_live_token_is_refused_too() {
        // R3 stands above R4
        let fake = Fake::default();
        let removed = fake.workspace(WorkspaceStatus::Removed);
        let auth = fake.authenticator(hosted());
        assert_eq!(auth.registry(&creds(), removed).await, Err(Denied::MissingWorkspaceToken));
    }

    #[tokio::test]
    async fn no_open_tier() {
        // 5.R57
        let fake = Fake::default();
        let id = fake.workspace(LIVE);
        fake.token(id);
        let dev = AuthPolicy { environment: Environment::Development, ..AuthPolicy::default() };
        let auth = fake.authenticator(dev);
        assert_eq!(auth.registry(&creds(), id).await, Err(Denied::MissingWorkspaceToken));
    }

    #[tokio::test]
    async fn a_store_failure_is_503() {
        // R1, 5.R76, 5.B6
        let fake = Fake::default();
        let (id, fresh) = (fake.workspace(LIVE), fake.workspace(LIVE));
        let own = fake.token(id);
        let auth = fake.authenticator(hosted());
        fake.break_workspace_tokens();
        assert_eq!(auth.registry(with(&creds(), &own), id).await, Err(Denied::Unavailable));
        assert_eq!(auth.registry(with(&creds(), "x"), id).await, Err(Denied::Unavailable));
        fake.mend();
        fake.break_gate();
        assert_eq!(auth.registry(&creds(), id).await, Err(Denied::Unavailable));
        assert_eq!(auth.registry(&creds(), fresh).await, Err(Denied::Unavailable));
        assert_eq!(auth.registry(with(&creds(), "x"), fresh).await, Err(Denied::Unavailable));
    }

    #[tokio::test]
    async fn a_proven_beat_costs_one_lookup() {
        let fake = Fake::default();
        let id = fake.workspace(LIVE);
        let own = fake.token(id);
        let auth = fake.authenticator(hosted());
        auth.registry(with(&creds(), &own), id).await.unwrap();
        assert_eq!(fake.lookups(), 1);
    }
}
