//! Registration, heartbeat, peers.

use axum::response::Response;
use mws_db::StoredJson;
use mws_models::api::{Heartbeat, Peer, Register};
use mws_models::{DeliveryMode, WorkspaceId, repair};
use mws_registry_sweepers::{HeartbeatError, RegisterError};
use mws_wsauth::{Denied, RegistryPass};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::intake::Fields;
use crate::route::{DiscoveryRequest, RegistryBody, RegistryRequest};
use crate::{Api, ApiError, reply};

/// Bytes of a serialised agent card at most.
const MAX_CARD: usize = 256 * 1024;
/// Characters of an agent's address at most.
const MAX_URL: usize = 2048;
/// Cents of a month at most.
const MAX_SPEND: i64 = 1_000_000_000_000;

/// An id is refused, never repaired (3.R2).
fn workspace_id(fields: &Fields, name: &str) -> Result<WorkspaceId, ApiError> {
    fields.required_text(name)?.parse().map_err(|_| fields.malformed())
}

impl RegistryBody for Register {
    fn read(fields: &Fields) -> Result<Self, ApiError> {
        let id = workspace_id(fields, "id")?;
        let agent_card = fields.object("agent_card")?.ok_or_else(|| fields.malformed())?.clone();
        let card_bytes = serde_json::to_vec(&agent_card).map_err(|_| fields.malformed())?.len();
        let url = fields.text("url")?.unwrap_or_default().to_owned();
        if card_bytes > MAX_CARD || url.chars().count() > MAX_URL {
            return Err(fields.malformed());
        }
        let delivery_mode = match fields.text("delivery_mode")?.unwrap_or_default() {
            "" => None,
            mode => Some(
                DeliveryMode::parse(mode)
                    .ok_or_else(|| ApiError::bad_request("delivery_mode must be 'push' or 'poll'"))?,
            ),
        };
        Ok(Self { id, agent_card, url, delivery_mode })
    }

    fn workspace(&self) -> WorkspaceId {
        self.id
    }
}

impl RegistryBody for Heartbeat {
    fn read(fields: &Fields) -> Result<Self, ApiError> {
        let text =
            |name, max| fields.text(name).map(|t| repair::prefix(t.unwrap_or_default(), max).to_owned());
        let count = |name| {
            fields.integer(name).map(|n| i32::try_from(n.unwrap_or_default().max(0)).unwrap_or(i32::MAX))
        };
        Ok(Self {
            workspace_id: workspace_id(fields, "workspace_id")?,
            error_rate: fields.number("error_rate")?.unwrap_or_default().clamp(0.0, 1.0),
            sample_error: text("sample_error", 8192)?,
            active_tasks: count("active_tasks")?,
            uptime_seconds: count("uptime_seconds")?,
            current_task: text("current_task", 4096)?,
            monthly_spend: fields.integer("monthly_spend")?.unwrap_or_default().clamp(0, MAX_SPEND),
            runtime_state: text("runtime_state", 64)?,
            runtime_metadata: fields.raw("runtime_metadata").cloned(),
        })
    }

    fn workspace(&self) -> WorkspaceId {
        self.workspace_id
    }
}

/// The gate's 401, found out after the gate (3.R14).
fn refused(has_bearer: bool) -> ApiError {
    if has_bearer { Denied::InvalidWorkspaceToken.into() } else { Denied::MissingWorkspaceToken.into() }
}

/// `POST /registry/register` (3.1).
pub(crate) async fn register(api: Api, request: RegistryRequest<Register>) -> Result<Response, ApiError> {
    let registered = api.parts().registry.register(&request.pass, &request.body, request.dev_open).await;
    match registered {
        Ok(registered) => Ok(reply::no_store(reply::ok(&registered))),
        Err(RegisterError::Refused) => Err(refused(request.has_bearer)),
        Err(RegisterError::NotFound) => Err(ApiError::not_found("workspace not found")),
        Err(RegisterError::UrlRequired) => Err(ApiError::bad_request("url is required")),
        Err(RegisterError::UnsafeUrl(refusal)) => Err(ApiError::bad_request(refusal.to_string())),
        Err(RegisterError::Store(error)) => Err(error.into()),
        Err(RegisterError::Mint(_)) => Err(ApiError::failed()),
    }
}

/// `POST /registry/heartbeat` (3.2).
pub(crate) async fn heartbeat(api: Api, request: RegistryRequest<Heartbeat>) -> Result<Response, ApiError> {
    if let RegistryPass::Unknown(denied) = request.pass {
        return Err(denied.into());
    }
    match api.parts().registry.heartbeat(&request.pass, &request.body).await {
        Ok(None) => Ok(reply::ok(&json!({"status": "ok"}))),
        Ok(Some(secret)) => {
            let body = json!({"status": "ok", "platform_inbound_secret": secret.expose_secret()});
            Ok(reply::no_store(reply::ok(&body)))
        }
        Err(HeartbeatError::Refused) => Err(refused(request.has_bearer)),
        Err(HeartbeatError::Store(error)) => Err(error.into()),
    }
}

/// `GET /registry/:id/peers` (3.7).
pub(crate) async fn peers(api: Api, request: DiscoveryRequest) -> Result<Response, ApiError> {
    let needle = request.query.get("q")?.unwrap_or_default().trim().to_lowercase();
    let rows = api.db().peers(request.id).await.map_err(|error| {
        // A shortened list would hide peers: any failure says "not now" (3.R54).
        tracing::error!(error = &error as &dyn std::error::Error, "peers not read");
        ApiError::platform_unavailable()
    })?;
    let rows = rows.ok_or_else(|| ApiError::not_found("workspace not found"))?;
    let matches = |text: &str| text.to_lowercase().contains(&needle);
    let peers: Vec<_> = rows
        .iter()
        .filter(|row| needle.is_empty() || matches(&row.name) || row.role.as_deref().is_some_and(matches))
        .map(|row| Peer {
            id: row.id,
            name: &row.name,
            role: row.role.as_deref().filter(|role| !role.is_empty()),
            tier: row.tier,
            status: row.status,
            agent_card: row.agent_card.as_ref().map(StoredJson::raw),
            url: row.url.as_deref().unwrap_or_default(),
            parent_id: row.parent_id,
            active_tasks: row.active_tasks,
        })
        .collect();
    Ok(reply::ok(&peers))
}
