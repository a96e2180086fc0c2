//! Reading the event log.

use mws_models::{EventId, Timestamp, WorkspaceId};

use crate::error::bounded;
use crate::{Db, Result, StoredJson};

/// One recorded event as `GET /events` lists it.
#[derive(Debug)]
pub struct EventRow {
    pub id: EventId,
    pub event_type: String,
    pub workspace_id: Option<WorkspaceId>,
    pub payload: StoredJson,
    pub created_at: Timestamp,
}

/// What to list.
#[derive(Debug, Default)]
pub struct EventFilter {
    pub workspace_id: Option<WorkspaceId>,
    pub event_type: Option<String>,
    /// Only events recorded before this.
    pub before: Option<Timestamp>,
    pub limit: i64,
}

impl Db {
    /// Recorded events, newest first.
    pub async fn list_events(&self, filter: &EventFilter) -> Result<Vec<EventRow>> {
        bounded(
            sqlx::query_as!(
                EventRow,
                r#"SELECT id AS "id: EventId", event_type, workspace_id AS "workspace_id: WorkspaceId",
                          COALESCE(payload, '{}') AS "payload!: StoredJson",
                          created_at AS "created_at: Timestamp"
                   FROM structure_events
                   WHERE ($1::uuid IS NULL OR workspace_id = $1)
                     AND ($2::text IS NULL OR event_type = $2)
                     AND ($3::timestamptz IS NULL OR created_at < $3)
                   ORDER BY created_at DESC, seq DESC LIMIT $4"#,
                filter.workspace_id.map(WorkspaceId::uuid),
                filter.event_type,
                filter.before.map(|t| t.0),
                filter.limit,
            )
            .fetch_all(&self.pool),
        )
        .await
    }
}
