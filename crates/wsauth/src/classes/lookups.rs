//! The store's lookups, each with its deadline; a failure is logged here and becomes the one refusal for it.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mws_models::WorkspaceId;

use crate::{
    Bearer, Caller, Denied, GateRow, OrgToken, StoreFailure, TokenHash, TokenStore, UsedToken, WorkspaceToken,
};

/// How long a lookup may take, waiting for a connection included (contract 5 §5).
pub const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", LOOKUP_DEADLINE.as_secs())]
struct DeadlinePassed;

#[derive(Clone)]
pub(super) struct Lookups {
    store: Arc<dyn TokenStore>,
}

async fn timed<T>(
    lookup: &'static str,
    answer: impl Future<Output = Result<T, StoreFailure>>,
) -> Result<T, Denied> {
    let answer = match tokio::time::timeout(LOOKUP_DEADLINE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreFailure::new(DeadlinePassed)),
    };
    answer.map_err(|failure| {
        let causes = std::iter::successors(failure.source(), |&cause| cause.source());
        let cause = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        tracing::error!(lookup, cause, "{failure}");
        Denied::Unavailable
    })
}

impl Lookups {
    pub(super) fn new(store: Arc<dyn TokenStore>) -> Self {
        Self { store }
    }

    pub(super) async fn workspace_token(&self, hash: &TokenHash) -> Result<Option<WorkspaceToken>, Denied> {
        timed("usable_workspace_token", self.store.usable_workspace_token(hash)).await
    }

    pub(super) async fn org_token(&self, hash: &TokenHash) -> Result<Option<OrgToken>, Denied> {
        timed("usable_org_token", self.store.usable_org_token(hash)).await
    }

    pub(super) async fn any_live_token(&self) -> Result<bool, Denied> {
        timed("any_live_token", self.store.any_live_token()).await
    }

    pub(super) async fn gate(&self, workspace: WorkspaceId) -> Result<Option<GateRow>, Denied> {
        timed("registry_gate", self.store.registry_gate(workspace)).await
    }

    /// The workspace token that a bearer is, usable or not at all.
    pub(super) async fn workspace_bearer(
        &self,
        bearer: Bearer<'_>,
    ) -> Result<Option<WorkspaceToken>, Denied> {
        self.workspace_token(&bearer.into()).await
    }

    /// The caller that an organisation token makes of its bearer.
    pub(super) async fn org_caller(&self, bearer: Bearer<'_>) -> Result<Option<Caller>, Denied> {
        Ok(self.org_token(&bearer.into()).await?.map(|token| self.admit_org(token)))
    }

    /// Makes the caller of a workspace token that has opened something, and notes its use.
    pub(super) fn admit_workspace(&self, token: WorkspaceToken) -> Caller {
        self.store.used(UsedToken::Workspace(token.token_id));
        Caller::Workspace { workspace_id: token.workspace_id, token_id: token.token_id }
    }

    fn admit_org(&self, token: OrgToken) -> Caller {
        self.store.used(UsedToken::Org(token.id));
        Caller::OrgToken { id: token.id, prefix: token.prefix, org_id: token.org_id }
    }
}
