//! What the decisions need to know from a database.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use mws_models::{OrgTokenId, TokenId, WorkspaceId, WorkspaceStatus};

use crate::TokenHash;

/// A lookup that answered neither "yes" nor "no": refused, pool exhausted, deadline passed, query failed.
///
/// `Debug` and `Display` hold nothing of the cause; [`Error::source`] does, for the log alone.
pub struct StoreFailure(Box<dyn Error + Send + Sync>);

impl StoreFailure {
    /// Wraps the cause.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Debug for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreFailure")
    }
}

impl fmt::Display for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token store did not answer")
    }
}

impl Error for StoreFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// A usable workspace token: live, and its workspace is not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkspaceToken {
    /// Its row.
    pub token_id: TokenId,
    /// The one workspace that it proves.
    pub workspace_id: WorkspaceId,
}

/// A usable organisation token: live and not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrgToken {
    /// Its row.
    pub id: OrgTokenId,
    /// The first 8 characters of its plaintext.
    pub prefix: String,
    /// The organisation it is anchored to, if any.
    pub org_id: Option<WorkspaceId>,
}

/// What the gate of a workspace depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateRow {
    /// The workspace's status.
    pub status: WorkspaceStatus,
    /// Whether it has a token that is not revoked; its status plays no part (5.R15).
    pub has_live_token: bool,
}

/// The row of a token that has just opened something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UsedToken {
    /// A workspace's.
    Workspace(TokenId),
    /// An organisation's.
    Org(OrgTokenId),
}

/// The lookups that the classes make. Each answers found, not found, or [`StoreFailure`], which are never
/// mixed up (5.R10).
///
/// The [`Authenticator`](crate::Authenticator) drops a lookup's future when its deadline passes, so each must
/// be safe to cancel at any await. An implementation may answer from a cache only if revocation, removal and
/// expiry, by whomever, invalidate it before it answers again (5.T4).
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// The usable workspace token with this hash: live, of a workspace that is not removed (5.R9).
    async fn usable_workspace_token(&self, hash: &TokenHash) -> Result<Option<WorkspaceToken>, StoreFailure>;

    /// The usable organisation token with this hash: live and not expired (5.R34).
    async fn usable_org_token(&self, hash: &TokenHash) -> Result<Option<OrgToken>, StoreFailure>;

    /// Whether any live workspace token or usable organisation token exists (5.R15).
    async fn any_live_token(&self) -> Result<bool, StoreFailure>;

    /// Status and token state of a workspace, in one query; `None` when there is no such row.
    async fn registry_gate(&self, workspace: WorkspaceId) -> Result<Option<GateRow>, StoreFailure>;

    /// A token opened something now: `last_used_at` may be refreshed, best effort and off the request's path
    /// (5.R14, 5.B1). Must return at once.
    fn used(&self, token: UsedToken);
}
