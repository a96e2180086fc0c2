//! Tokens: the one lookup by hash, issuing, revoking.

use async_trait::async_trait;
use mws_models::{OrgTokenId, TokenId, WorkspaceId, WorkspaceStatus};
use mws_wsauth::{
    GateRow, NewToken, OrgToken, StoreFailure, TokenHash, TokenStore, UsedToken, WorkspaceToken,
};

use crate::error::bounded;
use crate::stamps::Stamps;
use crate::{Db, Result, Tx};

/// Who issued a token; only the stale-token sweep reads it (3.R86).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuedBy {
    Provision,
    Register,
}

impl IssuedBy {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Register => "register",
        }
    }
}

/// The token rows as authentication asks for them.
#[derive(Clone)]
pub struct Tokens {
    db: Db,
    stamps: Stamps,
}

impl Tokens {
    /// Lookups on `db`; uses are noted through `stamps`.
    #[must_use]
    pub fn new(db: Db, stamps: Stamps) -> Self {
        Self { db, stamps }
    }
}

#[async_trait]
impl TokenStore for Tokens {
    async fn usable_workspace_token(&self, hash: &TokenHash) -> Result<Option<WorkspaceToken>, StoreFailure> {
        let row = bounded(
            sqlx::query!(
                r#"SELECT t.id AS "id: TokenId", t.workspace_id AS "workspace_id: WorkspaceId"
                   FROM workspace_auth_tokens t JOIN workspaces w ON w.id = t.workspace_id
                   WHERE t.token_hash = $1 AND t.revoked_at IS NULL AND w.status <> 'removed'"#,
                hash.as_bytes()
            )
            .fetch_optional(&self.db.pool),
        )
        .await
        .map_err(StoreFailure::new)?;
        Ok(row.map(|row| WorkspaceToken { token_id: row.id, workspace_id: row.workspace_id }))
    }

    async fn usable_org_token(&self, hash: &TokenHash) -> Result<Option<OrgToken>, StoreFailure> {
        let row = bounded(
            sqlx::query!(
                r#"SELECT id AS "id: OrgTokenId", prefix, org_id AS "org_id: WorkspaceId"
                   FROM org_api_tokens
                   WHERE token_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"#,
                hash.as_bytes()
            )
            .fetch_optional(&self.db.pool),
        )
        .await
        .map_err(StoreFailure::new)?;
        Ok(row.map(|row| OrgToken { id: row.id, prefix: row.prefix, org_id: row.org_id }))
    }

    async fn any_live_token(&self) -> Result<bool, StoreFailure> {
        bounded(
            sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT 1 FROM workspace_auth_tokens WHERE revoked_at IS NULL)
                       OR EXISTS (SELECT 1 FROM org_api_tokens WHERE revoked_at IS NULL
                                  AND (expires_at IS NULL OR expires_at > now())) AS "any!""#
            )
            .fetch_one(&self.db.pool),
        )
        .await
        .map_err(StoreFailure::new)
    }

    async fn registry_gate(&self, id: WorkspaceId) -> Result<Option<GateRow>, StoreFailure> {
        let row = bounded(
            sqlx::query!(
                r#"SELECT status AS "status: WorkspaceStatus",
                          EXISTS (SELECT 1 FROM workspace_auth_tokens t
                                  WHERE t.workspace_id = w.id AND t.revoked_at IS NULL) AS "has_live_token!"
                   FROM workspaces w WHERE id = $1"#,
                id.uuid()
            )
            .fetch_optional(&self.db.pool),
        )
        .await
        .map_err(StoreFailure::new)?;
        Ok(row.map(|row| GateRow { status: row.status, has_live_token: row.has_live_token }))
    }

    fn used(&self, token: UsedToken) {
        match token {
            UsedToken::Workspace(id) => self.stamps.token_used(id),
            UsedToken::Org(id) => self.stamps.org_token_used(id),
        }
    }
}

impl Tx {
    /// Issues a token; `false` when the workspace does not exist or is removed (5.R7). Waits for a removal under
    /// way, which would not see this row among those that it revokes.
    pub async fn issue_token(&mut self, id: WorkspaceId, token: &NewToken, by: IssuedBy) -> Result<bool> {
        let done = bounded(
            sqlx::query!(
                "INSERT INTO workspace_auth_tokens (workspace_id, token_hash, prefix, issued_by)
                 SELECT id, $2, $3, $4 FROM workspaces WHERE id = $1 AND status <> 'removed' FOR SHARE",
                id.uuid(),
                token.hash.as_bytes(),
                token.prefix,
                by.as_str(),
            )
            .execute(self.connection()),
        )
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Revokes every live token of a workspace; returns how many.
    pub async fn revoke_tokens(&mut self, id: WorkspaceId) -> Result<u64> {
        let done = bounded(
            sqlx::query!(
                "UPDATE workspace_auth_tokens SET revoked_at = now() WHERE workspace_id = $1 AND revoked_at IS NULL",
                id.uuid()
            )
            .execute(self.connection()),
        )
        .await?;
        Ok(done.rows_affected())
    }
}

impl Db {
    /// The one question that may meet a revoked token: whether this hash belongs to any token row of this
    /// workspace (1.R83, `/state` of a removed workspace).
    pub async fn token_ever_belonged(&self, id: WorkspaceId, hash: &TokenHash) -> Result<bool> {
        bounded(
            sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT 1 FROM workspace_auth_tokens
                                  WHERE workspace_id = $1 AND token_hash = $2) AS "known!""#,
                id.uuid(),
                hash.as_bytes()
            )
            .fetch_one(&self.pool),
        )
        .await
    }
}
