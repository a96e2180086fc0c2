//! What the registry reads under the row lock before it decides.

use mws_models::{DeliveryMode, RuntimeDeclaration, WorkspaceId, WorkspaceStatus};
use sqlx::types::Json;

use crate::error::bounded;
use crate::{Db, Result, Tx};

/// A workspace as its registration or heartbeat finds it, locked.
#[derive(Debug)]
pub struct RegistryRow {
    pub status: WorkspaceStatus,
    pub runtime: String,
    pub url: Option<String>,
    pub url_provisioned: bool,
    pub delivery_mode: Option<String>,
    pub has_card: bool,
    pub declaration: Option<Json<RuntimeDeclaration>>,
    pub current_task: Option<String>,
    pub degraded_reason: Option<String>,
    pub max_concurrent_tasks: i32,
}

impl RegistryRow {
    /// The stored delivery mode; `None` when nobody chose yet.
    #[must_use]
    pub fn mode(&self) -> Option<DeliveryMode> {
        self.delivery_mode.as_deref().and_then(DeliveryMode::parse)
    }
}

impl Tx {
    /// Locks the row. `None` when there is none.
    pub async fn lock_for_registry(&mut self, id: WorkspaceId) -> Result<Option<RegistryRow>> {
        bounded(
            sqlx::query_as!(
                RegistryRow,
                r#"SELECT status AS "status: WorkspaceStatus", runtime, url, url_provisioned, delivery_mode,
                          agent_card IS NOT NULL AS "has_card!",
                          runtime_metadata AS "declaration: Json<RuntimeDeclaration>",
                          current_task, degraded_reason, max_concurrent_tasks
                   FROM workspaces WHERE id = $1 FOR UPDATE"#,
                id.uuid()
            )
            .fetch_optional(self.connection()),
        )
        .await
    }

    /// Whether a workspace holds a live token. Asked after its row is locked, in a statement of its own: a
    /// statement that waited for the lock still sees every other table as it was before the wait.
    pub async fn has_live_token(&mut self, id: WorkspaceId) -> Result<bool> {
        bounded(
            sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT 1 FROM workspace_auth_tokens
                                  WHERE workspace_id = $1 AND revoked_at IS NULL) AS "live!""#,
                id.uuid()
            )
            .fetch_one(self.connection()),
        )
        .await
    }
}

impl Db {
    /// The same row without a lock: what resolving a registration's mode and address needs before the
    /// transaction, so that no lock is held across a name lookup.
    pub async fn registry_row(&self, id: WorkspaceId) -> Result<Option<RegistryRow>> {
        bounded(
            sqlx::query_as!(
                RegistryRow,
                r#"SELECT status AS "status: WorkspaceStatus", runtime, url, url_provisioned, delivery_mode,
                          agent_card IS NOT NULL AS "has_card!",
                          runtime_metadata AS "declaration: Json<RuntimeDeclaration>",
                          current_task, degraded_reason, max_concurrent_tasks
                   FROM workspaces WHERE id = $1"#,
                id.uuid()
            )
            .fetch_optional(&self.pool),
        )
        .await
    }
}
