//! The workspace resource.

use axum::response::Response;
use http::StatusCode;
use mws_db::StoredJson;
use mws_db::workspaces::WorkspaceRecord;
use mws_lifecycle::{CreateError, Removal, RemoveError};
use mws_models::api::{CreateWorkspace, WorkspaceDetail, WorkspaceSummary};
use mws_models::{DEFAULT_RUNTIME, WorkspaceId, WorkspaceStatus};
use mws_wsauth::TokenHash;
use serde_json::{Value, json};

use crate::intake::Fields;
use crate::route::Request;
use crate::{Api, ApiError, reply};

const INVALID: &str = "invalid workspace payload";

/// `GET /workspaces` (1.R76).
pub(crate) async fn list(api: Api, _: Request) -> Result<Response, ApiError> {
    let rows = api.db().list_workspaces().await?;
    let declared = declared_timeouts(&api, rows.iter()).await;
    let summaries: Vec<_> = rows
        .iter()
        .zip(declared)
        .map(|(row, timeout)| WorkspaceSummary {
            detail: detail(row, timeout, false),
            last_sample_error: row.last_sample_error.as_deref().unwrap_or_default(),
            current_task: row.current_task.as_deref().unwrap_or_default(),
            workspace_dir: row.workspace_dir.as_deref(),
            monthly_spend: row.monthly_spend,
            budget_limit: row.budget_limit,
            budget_used: row.monthly_spend,
        })
        .collect();
    Ok(reply::ok(&summaries))
}

/// `GET /workspaces/:id` (1.R77 to R80): open, so it withholds what 1.R30 names from everybody.
pub(crate) async fn get(api: Api, request: Request) -> Result<Response, ApiError> {
    let id = request.id()?;
    let row = api.db().workspace(id).await?.ok_or_else(|| ApiError::not_found("workspace not found"))?;
    if row.status == WorkspaceStatus::Removed && !request.query().is_true("include_removed") {
        return Err(ApiError::new(StatusCode::GONE, "workspace removed")
            .with("id", id.to_string())
            .with("removed_at", row.updated_at.to_string())
            .with("hint", "this workspace was removed; create it and its token anew from the canvas"));
    }
    let timeout = declared_timeouts(&api, std::iter::once(&row)).await.into_iter().next().flatten();
    Ok(reply::ok(&detail(&row, timeout, true)))
}

fn runtime_of(row: &WorkspaceRecord) -> &str {
    if row.runtime.is_empty() { DEFAULT_RUNTIME } else { &row.runtime }
}

fn detail(row: &WorkspaceRecord, timeout_ms: Option<u64>, single: bool) -> WorkspaceDetail<'_> {
    WorkspaceDetail {
        id: row.id,
        name: &row.name,
        role: row.role.as_deref().filter(|role| !role.is_empty()),
        tier: row.tier,
        status: row.status,
        agent_card: row.agent_card.as_ref().map(StoredJson::raw),
        url: row.url.as_deref().unwrap_or_default(),
        parent_id: row.parent_id,
        active_tasks: row.active_tasks,
        max_concurrent_tasks: row.max_concurrent_tasks,
        last_error_rate: row.last_error_rate,
        uptime_seconds: row.uptime_seconds,
        runtime: runtime_of(row),
        x: row.x,
        y: row.y,
        collapsed: row.collapsed,
        broadcast_enabled: row.broadcast_enabled,
        talk_to_user_enabled: row.talk_to_user_enabled,
        compute: row.compute.raw(),
        provision_timeout_ms: timeout_ms,
        last_outbound_at: single.then_some(row.last_outbound_at),
    }
}

/// The declared limits of these rows' runtimes, in milliseconds; the lookup reads files.
async fn declared_timeouts<'a>(
    api: &Api,
    rows: impl Iterator<Item = &'a WorkspaceRecord>,
) -> Vec<Option<u64>> {
    let runtimes: Vec<_> = rows.map(|row| runtime_of(row).to_owned()).collect();
    let (timeouts, count) = (api.parts().lifecycle.timeouts().clone(), runtimes.len());
    let declared =
        move || runtimes.iter().map(|r| timeouts.declared(r).map(|s| u64::from(s) * 1000)).collect();
    tokio::task::spawn_blocking(declared).await.unwrap_or_else(|_| vec![None; count])
}

/// `POST /workspaces` (1 §2).
pub(crate) async fn create(api: Api, mut request: Request) -> Result<Response, ApiError> {
    let body = read_create(&request.fields(INVALID).await?)?;
    let created = api.parts().lifecycle.create(&request.caller, &body).await?;
    Ok(reply::json(StatusCode::CREATED, &created))
}

fn read_create(fields: &Fields) -> Result<CreateWorkspace, ApiError> {
    let text = |name| fields.text(name).map(|text| text.map(str::to_owned));
    let canvas = match fields.nested("canvas")? {
        None => (0.0, 0.0),
        Some(canvas) => (canvas.number("x")?.unwrap_or_default(), canvas.number("y")?.unwrap_or_default()),
    };
    let mut secrets = Vec::new();
    if let Some(sent) = fields.nested("secrets")? {
        for key in fields.object("secrets")?.into_iter().flat_map(|map| map.keys()) {
            secrets.push((key.clone(), sent.text(key)?.unwrap_or_default().to_owned()));
        }
    }
    Ok(CreateWorkspace {
        name: fields.required_text("name")?.to_owned(),
        role: text("role")?,
        template: text("template")?,
        tier: fields.integer("tier")?.unwrap_or_default(),
        model: text("model")?,
        runtime: text("runtime")?,
        external: fields.flag("external")?.unwrap_or_default(),
        url: text("url")?,
        workspace_dir: text("workspace_dir")?,
        workspace_access: text("workspace_access")?,
        parent_id: text("parent_id")?,
        budget_limit: fields.integer("budget_limit")?,
        secrets,
        max_concurrent_tasks: fields.integer("max_concurrent_tasks")?,
        delivery_mode: text("delivery_mode")?,
        has_compute: fields.object("compute")?.is_some_and(|compute| !compute.is_empty()),
        canvas,
        initial_memories: fields.list("initial_memories")?.map_or(0, Vec::len),
    })
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        let sentence = error.to_string();
        match error {
            CreateError::InvalidPayload => Self::bad_request(INVALID),
            CreateError::InvalidFields { detail } => {
                Self::bad_request("invalid workspace fields").with("detail", detail)
            }
            CreateError::InvalidTemplate
            | CreateError::InvalidDirectory
            | CreateError::InvalidAccess
            | CreateError::UnsafeUrl(_)
            | CreateError::InvalidDeliveryMode
            | CreateError::InvalidParent => Self::bad_request(sentence),
            CreateError::RuntimeUnresolved { template } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)
                    .with("template", template)
                    .code("RUNTIME_UNRESOLVED")
            }
            CreateError::ModelRequired { runtime, template } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)
                    .with("runtime", runtime)
                    .with("template", template)
                    .code("MODEL_REQUIRED")
            }
            CreateError::NameExhausted => Self::new(StatusCode::CONFLICT, sentence).code("NAME_EXHAUSTED"),
            CreateError::NotAvailable(_) => Self::unavailable(sentence).code("NOT_AVAILABLE"),
            CreateError::Store(error) => error.into(),
        }
    }
}

/// `DELETE /workspaces/:id` (1 §7).
pub(crate) async fn delete(api: Api, request: Request) -> Result<Response, ApiError> {
    let (id, query) = (request.id()?, request.query());
    if query.is_true("purge") {
        return Err(ApiError::unavailable("purge is not available on this server").code("NOT_AVAILABLE"));
    }
    let removal = api.parts().lifecycle.delete(&request.caller, id, query.is_true("confirm")).await?;
    removed(&removal)
}

fn removed(removal: &Removal) -> Result<Response, ApiError> {
    let failures = removal.failed.len();
    if failures > 0 {
        let ids: Vec<_> = removal.failed.iter().map(|id| Value::from(id.to_string())).collect();
        let sentence = format!("workspace marked removed, but {failures} stop call(s) failed — please retry");
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
            .with("removed_count", removal.removed)
            .with("stop_failures", failures)
            .with("failed_ids", ids));
    }
    Ok(reply::ok(&json!({"status": "removed", "cascade_deleted": removal.removed.saturating_sub(1)})))
}

impl From<RemoveError> for ApiError {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::NotFound => Self::not_found("workspace not found"),
            RemoveError::ConfirmationRequired(children) => {
                let sentence = format!(
                    "the workspace has {} live children; repeat with confirm=true to remove them all",
                    children.len()
                );
                let list: Vec<_> =
                    children.iter().map(|child| json!({"id": child.id, "name": child.name})).collect();
                Self::new(StatusCode::CONFLICT, sentence.clone())
                    .with("status", "confirmation_required")
                    .with("message", sentence)
                    .with("children_count", list.len())
                    .with("children", list)
            }
            RemoveError::Store(error) => error.into(),
        }
    }
}

/// `GET /workspaces/:id/state`: the polling path of remote agents (1.R81, 1.R82).
pub(crate) async fn state(api: Api, request: Request) -> Result<Response, ApiError> {
    let id = request.id()?;
    match api.db().workspace_status(id).await? {
        Some(WorkspaceStatus::Removed) => Err(shut_down(id, Some(WorkspaceStatus::Removed))),
        None => Err(shut_down(id, None)),
        Some(status) => Ok(reply::ok(&json!({
            "workspace_id": id, "status": status,
            "paused": status == WorkspaceStatus::Paused, "deleted": false,
        }))),
    }
}

/// A removed workspace's own, revoked token still learns its fate (1.R83).
pub(crate) async fn state_of_removed(
    api: Api,
    id: WorkspaceId,
    bearer: Vec<u8>,
) -> Result<Option<Response>, ApiError> {
    if api.db().workspace_status(id).await? != Some(WorkspaceStatus::Removed) {
        return Ok(None);
    }
    if api.db().token_ever_belonged(id, &TokenHash::of(bearer)).await? {
        return Err(shut_down(id, Some(WorkspaceStatus::Removed)));
    }
    Ok(None)
}

fn shut_down(id: WorkspaceId, status: Option<WorkspaceStatus>) -> ApiError {
    let error =
        ApiError::not_found("workspace not found").with("workspace_id", id.to_string()).with("deleted", true);
    match status {
        Some(status) => error.with("status", status.as_str()),
        None => error,
    }
}
