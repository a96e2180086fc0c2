//! Registration, heartbeat, peers.

use serde::Serialize;
use serde_json::{Map, Value};

use super::RawObject;
use crate::{DeliveryMode, WorkspaceId, WorkspaceStatus};

/// The body of `POST /registry/register` after its shape checks.
#[derive(Debug, Clone)]
pub struct Register {
    /// Who registers.
    pub id: WorkspaceId,
    /// A JSON object of at most 256 KiB.
    pub agent_card: Map<String, Value>,
    /// At most 2048 characters; empty when there is none.
    pub url: String,
    /// `None` leaves the choice to the server.
    pub delivery_mode: Option<DeliveryMode>,
}

/// The 200 of a registration.
#[derive(Debug, Serialize)]
pub struct Registered {
    /// `registered`.
    pub status: &'static str,
    /// The effective mode.
    pub delivery_mode: DeliveryMode,
    /// The bearer, in the one reply that minted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<String>,
    /// What the platform will present to the agent; only to a proven caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_inbound_secret: Option<String>,
}

/// The body of `POST /registry/heartbeat`, its numbers clamped and its texts cut (contract 3.2).
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// Who beats.
    pub workspace_id: WorkspaceId,
    /// 0 to 1.
    pub error_rate: f64,
    /// At most 8192 bytes.
    pub sample_error: String,
    /// At least 0.
    pub active_tasks: i32,
    /// At least 0.
    pub uptime_seconds: i32,
    /// At most 4096 bytes.
    pub current_task: String,
    /// Cents of the month, 0 to 10¹².
    pub monthly_spend: i64,
    /// `wedged`, empty, or a word of the future.
    pub runtime_state: String,
    /// The declaration block, if one was sent, sound or not.
    pub runtime_metadata: Option<Value>,
}

/// One element of `GET /registry/:id/peers`.
#[derive(Debug, Serialize)]
pub struct Peer<'a> {
    /// The peer.
    pub id: WorkspaceId,
    /// Display name.
    pub name: &'a str,
    /// Null when empty.
    pub role: Option<&'a str>,
    /// 1 to 4.
    pub tier: i32,
    /// Where it stands.
    pub status: WorkspaceStatus,
    /// The registered card, verbatim.
    pub agent_card: Option<&'a RawObject>,
    /// Empty when there is none.
    pub url: &'a str,
    /// Null for a root.
    pub parent_id: Option<WorkspaceId>,
    /// From heartbeats.
    pub active_tasks: i32,
}
