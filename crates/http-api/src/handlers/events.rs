//! The event log (3.15).

use axum::response::Response;
use mws_db::events::EventFilter;
use mws_models::{EventId, Timestamp, WorkspaceId};
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::route::Request;
use crate::{Api, ApiError, reply};

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 500;

#[derive(Serialize)]
struct Entry<'a> {
    id: EventId,
    event_type: &'a str,
    workspace_id: Option<WorkspaceId>,
    payload: &'a RawValue,
    created_at: Timestamp,
}

/// `GET /events` and `GET /events/:workspaceId` (3.R125).
pub(crate) async fn list(api: Api, request: Request) -> Result<Response, ApiError> {
    let filter = filter(&request)?;
    let rows = api.db().list_events(&filter).await?;
    let entries: Vec<_> = rows
        .iter()
        .map(|row| Entry {
            id: row.id,
            event_type: &row.event_type,
            workspace_id: row.workspace_id,
            payload: row.payload.raw(),
            created_at: row.created_at,
        })
        .collect();
    Ok(reply::ok(&entries))
}

fn filter(request: &Request) -> Result<EventFilter, ApiError> {
    let query = request.query();
    let limit = match query.get("limit")? {
        None | Some("") => DEFAULT_LIMIT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| ApiError::bad_request("limit must be 1 to 500"))?,
    };
    let before = match query.get("before")? {
        None | Some("") => None,
        Some(text) => Some(
            OffsetDateTime::parse(text, &Rfc3339)
                .map_err(|_| ApiError::bad_request("before must be RFC 3339 (e.g. 2026-04-17T00:00:00Z)"))?
                .into(),
        ),
    };
    let event_type = query.get("event_type")?.filter(|name| !name.is_empty()).map(str::to_owned);
    Ok(EventFilter { workspace_id: request.maybe_id(), event_type, before, limit })
}
