//! Events: the typed list of names (contract 3.16) and the payloads of those this server emits.

use serde_json::{Map, Value, json};

use crate::{DeliveryMode, Tier, WorkspaceId, WorkspaceStatus};

macro_rules! kinds {
    ($($variant:ident = $name:literal $recorded:ident,)+) => {
        /// The name of an event. No event outside this list is emitted (3.R126).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $(#[doc = concat!("`", $name, "`")] $variant,)+
        }

        impl EventKind {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The wire name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether it is recorded in `structure_events`; the others are broadcast only.
            #[must_use]
            pub const fn is_recorded(self) -> bool {
                match self { $(Self::$variant => kinds!(@$recorded),)+ }
            }
        }
    };
    (@P) => { true };
    (@B) => { false };
}

kinds! {
    WorkspaceProvisioning = "WORKSPACE_PROVISIONING" P,
    WorkspaceAwaitingAgent = "WORKSPACE_AWAITING_AGENT" P,
    WorkspaceOnline = "WORKSPACE_ONLINE" P,
    WorkspaceOffline = "WORKSPACE_OFFLINE" P,
    WorkspaceDegraded = "WORKSPACE_DEGRADED" P,
    WorkspaceProvisionFailed = "WORKSPACE_PROVISION_FAILED" P,
    WorkspacePaused = "WORKSPACE_PAUSED" P,
    WorkspaceHibernated = "WORKSPACE_HIBERNATED" P,
    WorkspaceRemoved = "WORKSPACE_REMOVED" P,
    WorkspaceMoved = "WORKSPACE_MOVED" P,
    WorkspaceExpanded = "WORKSPACE_EXPANDED" P,
    WorkspaceCollapsed = "WORKSPACE_COLLAPSED" P,
    AgentCardUpdated = "AGENT_CARD_UPDATED" P,
    AgentAssigned = "AGENT_ASSIGNED" P,
    AgentReplaced = "AGENT_REPLACED" P,
    AgentRemoved = "AGENT_REMOVED" P,
    AgentMoved = "AGENT_MOVED" P,
    ApprovalRequested = "APPROVAL_REQUESTED" P,
    ApprovalEscalated = "APPROVAL_ESCALATED" P,
    ApprovalApproved = "APPROVAL_APPROVED" P,
    ApprovalDenied = "APPROVAL_DENIED" P,
    ApprovalDecided = "APPROVAL_DECIDED" B,
    DelegationSent = "DELEGATION_SENT" P,
    DelegationStatus = "DELEGATION_STATUS" P,
    DelegationComplete = "DELEGATION_COMPLETE" P,
    DelegationFailed = "DELEGATION_FAILED" P,
    CronExecuted = "CRON_EXECUTED" P,
    CronSkipped = "CRON_SKIPPED" P,
    ChannelMessage = "CHANNEL_MESSAGE" P,
    TaskUpdated = "TASK_UPDATED" B,
    WorkspaceHeartbeat = "WORKSPACE_HEARTBEAT" B,
    ActivityLogged = "ACTIVITY_LOGGED" B,
    AgentMessage = "AGENT_MESSAGE" B,
    A2aResponse = "A2A_RESPONSE" B,
}

/// Why an agent is held to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OfflineReason {
    /// No heartbeat within the liveness window.
    TtlExpired,
    /// The backend says that its container or box does not run.
    ContainerGone,
    /// An external agent stopped beating.
    HeartbeatStale,
    /// A dispatch failed and the backend says that it does not run.
    Unreachable,
}

impl OfflineReason {
    /// The wire name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TtlExpired => "ttl_expired",
            Self::ContainerGone => "container_gone",
            Self::HeartbeatStale => "heartbeat_stale",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Something that happened to a workspace. The payload is always a JSON object.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name.
    pub kind: EventKind,
    /// The workspace concerned.
    pub workspace_id: WorkspaceId,
    /// What is told about it. Never internal error text, a credential, a host path (3.R110).
    pub payload: Map<String, Value>,
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

impl Event {
    /// An event with a payload; anything but a JSON object becomes `{}`.
    #[must_use]
    pub fn new(kind: EventKind, workspace_id: WorkspaceId, payload: Value) -> Self {
        Self { kind, workspace_id, payload: object(payload) }
    }

    /// A start was requested: create, restart, resume, wake.
    #[must_use]
    pub fn provisioning(id: WorkspaceId, name: &str, tier: Tier, runtime: &str) -> Self {
        Self::new(
            EventKind::WorkspaceProvisioning,
            id,
            json!({"name": name, "tier": tier, "runtime": runtime}),
        )
    }

    /// A start failed. `error` is a fixed, safe sentence; `extra` holds the further fields of its class.
    #[must_use]
    pub fn provision_failed(id: WorkspaceId, error: &str, extra: Map<String, Value>) -> Self {
        let mut payload = object(json!({"error": error}));
        payload.extend(extra);
        Self { kind: EventKind::WorkspaceProvisionFailed, workspace_id: id, payload }
    }

    /// An agent registered and is online.
    #[must_use]
    pub fn registered(id: WorkspaceId, url: &str, card: &Value, mode: DeliveryMode) -> Self {
        Self::new(
            EventKind::WorkspaceOnline,
            id,
            json!({"url": url, "agent_card": card, "delivery_mode": mode}),
        )
    }

    /// A heartbeat brought a workspace back online.
    #[must_use]
    pub fn recovered(id: WorkspaceId, from: WorkspaceStatus) -> Self {
        Self::new(EventKind::WorkspaceOnline, id, json!({"recovered_from": from}))
    }

    /// The agent of a held workspace registered: only its card is news.
    #[must_use]
    pub fn card_updated(id: WorkspaceId, card: &Value) -> Self {
        Self::new(EventKind::AgentCardUpdated, id, json!({"agent_card": card}))
    }

    /// A heartbeat degraded a workspace; `wedged` adds the runtime's own report.
    #[must_use]
    pub fn degraded(id: WorkspaceId, error_rate: f64, sample_error: &str, wedged: bool) -> Self {
        let mut payload = object(json!({"error_rate": error_rate, "sample_error": sample_error}));
        if wedged {
            payload.insert("runtime_state".into(), "wedged".into());
        }
        Self { kind: EventKind::WorkspaceDegraded, workspace_id: id, payload }
    }

    /// A spawned agent was found gone.
    #[must_use]
    pub fn offline(id: WorkspaceId, reason: OfflineReason) -> Self {
        Self::new(EventKind::WorkspaceOffline, id, json!({"reason": reason.as_str()}))
    }

    /// An external agent was lost; [`Event::awaiting_agent`] follows it.
    #[must_use]
    pub fn external_offline(id: WorkspaceId, reason: OfflineReason) -> Self {
        Self::new(
            EventKind::WorkspaceOffline,
            id,
            json!({"status": WorkspaceStatus::AwaitingAgent, "reason": reason.as_str()}),
        )
    }

    /// An external agent is expected.
    #[must_use]
    pub fn awaiting_agent(id: WorkspaceId, name: &str) -> Self {
        Self::new(EventKind::WorkspaceAwaitingAgent, id, json!({"name": name, "external": true}))
    }

    /// A workspace was removed; the root of a delete carries the number of its removed descendants.
    #[must_use]
    pub fn removed(id: WorkspaceId, cascade_deleted: Option<usize>) -> Self {
        let payload = cascade_deleted.map_or_else(|| json!({}), |n| json!({"cascade_deleted": n}));
        Self::new(EventKind::WorkspaceRemoved, id, payload)
    }

    /// The current task of an agent changed.
    #[must_use]
    pub fn task_updated(id: WorkspaceId, current_task: &str, active_tasks: i32) -> Self {
        Self::new(
            EventKind::TaskUpdated,
            id,
            json!({"current_task": current_task, "active_tasks": active_tasks}),
        )
    }

    /// A heartbeat was accepted.
    #[must_use]
    pub fn heartbeat(id: WorkspaceId, active_tasks: i32, uptime_seconds: i32) -> Self {
        Self::new(
            EventKind::WorkspaceHeartbeat,
            id,
            json!({"active_tasks": active_tasks, "uptime_seconds": uptime_seconds}),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_contracts() {
        // 3.R111, 3.R126: every row of the table in contract 3.16 and no other, with its mark.
        let contract = include_str!("../../../docs/contract/03-registry-sweepers-events.md");
        let table = contract.split("## 3.16 Every event").nth(1).unwrap().split("\n---").next().unwrap();
        let mut expected = Vec::new();
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let (names, mark) = (cells.next().unwrap(), cells.next().unwrap());
            for name in names.split(',') {
                expected.push((name.trim().trim_matches('`').to_owned(), mark == "P"));
            }
        }
        let actual: Vec<_> =
            EventKind::ALL.iter().map(|kind| (kind.name().to_owned(), kind.is_recorded())).collect();
        assert_eq!(actual, expected);
    }

    #[test]
    fn a_payload_is_always_an_object() {
        // 3.R105
        let id = WorkspaceId::random();
        assert!(Event::new(EventKind::TaskUpdated, id, json!([1])).payload.is_empty());
        assert_eq!(Value::Object(Event::removed(id, None).payload), json!({}));
        assert_eq!(Value::Object(Event::removed(id, Some(2)).payload), json!({"cascade_deleted": 2}));
    }
}
