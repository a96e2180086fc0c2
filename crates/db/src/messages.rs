//! What the message proxy reads: the target and, in the same query, whether the caller may talk to it.

use mws_models::{DeliveryMode, RuntimeDeclaration, WorkspaceId, WorkspaceStatus};
use sqlx::types::Json;

use crate::error::bounded;
use crate::{Db, Result};

/// Steps beyond the parent that the hierarchy is searched (3.R42).
const MAX_STEPS: i32 = 32;

/// A target as one call finds it; never served from a cache (4.R21).
#[derive(Debug)]
pub struct TargetRow {
    pub name: String,
    pub status: WorkspaceStatus,
    pub runtime: String,
    pub url: Option<String>,
    pub url_provisioned: bool,
    pub delivery_mode: Option<String>,
    pub budget_limit: Option<i64>,
    pub monthly_spend: i64,
    pub declaration: Option<Json<RuntimeDeclaration>>,
    pub instance_id: Option<String>,
}

impl TargetRow {
    /// Whether messages are stored for it instead of dispatched. Anything but `poll` is push (4.R37).
    #[must_use]
    pub fn polls(&self) -> bool {
        self.delivery_mode.as_deref() == Some(DeliveryMode::Poll.as_str())
    }
}

/// The target of a call, and the hierarchy's verdict on its caller.
#[derive(Debug)]
pub struct CallRow {
    /// `None` when there is no such workspace.
    pub target: Option<TargetRow>,
    /// Whether the caller may talk to it (3.R41); true when no caller was named. A removed caller counts as
    /// unknown (4.R19).
    pub allowed: bool,
}

impl Db {
    /// Reads target and verdict in one query.
    pub async fn call_target(&self, target: WorkspaceId, caller: Option<WorkspaceId>) -> Result<CallRow> {
        let Some(caller) = caller.filter(|caller| *caller != target) else {
            let target = self.target(target).await?;
            return Ok(CallRow { target, allowed: true });
        };
        let row = bounded(
            sqlx::query!(
                r#"WITH RECURSIVE up AS (
                       SELECT s.start, w.id, w.parent_id, 0 AS steps
                       FROM (VALUES ($1::uuid), ($2::uuid)) AS s (start) JOIN workspaces w ON w.id = s.start
                       UNION ALL
                       SELECT up.start, p.id, p.parent_id, up.steps + 1
                       FROM up JOIN workspaces p ON p.id = up.parent_id WHERE up.steps <= $3
                   ) CYCLE id SET looped USING path
                   SELECT t.name, t.status AS "status: WorkspaceStatus", t.runtime, t.url, t.url_provisioned,
                          t.delivery_mode, t.budget_limit, t.monthly_spend,
                          t.runtime_metadata AS "declaration: Json<RuntimeDeclaration>", t.instance_id,
                          COALESCE(c.status <> 'removed' AND (
                              c.parent_id IS NOT DISTINCT FROM t.parent_id
                              OR EXISTS (SELECT 1 FROM up WHERE start = t.id AND id = c.id)
                              OR EXISTS (SELECT 1 FROM up WHERE start = c.id AND id = t.id)), false) AS "allowed!"
                   FROM workspaces t LEFT JOIN workspaces c ON c.id = $2
                   WHERE t.id = $1"#,
                target.uuid(),
                caller.uuid(),
                MAX_STEPS,
            )
            .fetch_optional(&self.pool),
        )
        .await?;
        let allowed = row.as_ref().is_some_and(|row| row.allowed);
        let target = row.map(|row| TargetRow {
            name: row.name,
            status: row.status,
            runtime: row.runtime,
            url: row.url,
            url_provisioned: row.url_provisioned,
            delivery_mode: row.delivery_mode,
            budget_limit: row.budget_limit,
            monthly_spend: row.monthly_spend,
            declaration: row.declaration,
            instance_id: row.instance_id,
        });
        Ok(CallRow { target, allowed })
    }

    async fn target(&self, id: WorkspaceId) -> Result<Option<TargetRow>> {
        bounded(
            sqlx::query_as!(
                TargetRow,
                r#"SELECT name, status AS "status: WorkspaceStatus", runtime, url, url_provisioned, delivery_mode,
                          budget_limit, monthly_spend,
                          runtime_metadata AS "declaration: Json<RuntimeDeclaration>", instance_id
                   FROM workspaces WHERE id = $1"#,
                id.uuid()
            )
            .fetch_optional(&self.pool),
        )
        .await
    }
}
