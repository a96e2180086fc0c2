//! An event on its way to subscribers, and as they get it.

use bytes::Bytes;
use mws_models::{Event, EventId, EventKind, Timestamp, WorkspaceId};
use serde::Serialize;
use serde_json::{Map, Value};

/// An event to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The id of its row in `structure_events`, or a random one for an event that is not recorded.
    pub id: EventId,
    /// When it happened.
    pub timestamp: Timestamp,
    /// What happened.
    pub event: Event,
    rearms_idle: bool,
}

impl Message {
    /// Wraps an event.
    #[must_use]
    pub const fn new(id: EventId, timestamp: Timestamp, event: Event) -> Self {
        Self { id, timestamp, event, rearms_idle: true }
    }

    /// The same, as no sign of life: what a heartbeat that reports itself wedged publishes (4.R49).
    #[must_use]
    pub const fn from_wedged(mut self) -> Self {
        self.rearms_idle = false;
        self
    }

    /// Whether it counts as activity of its workspace.
    #[must_use]
    pub const fn rearms_idle(&self) -> bool {
        self.rearms_idle
    }

    pub(crate) fn serialise(&self) -> Result<Published, serde_json::Error> {
        let frame = Frame {
            event: self.event.kind.name(),
            workspace_id: self.event.workspace_id,
            timestamp: self.timestamp,
            payload: &self.event.payload,
        };
        let text = Bytes::from(serde_json::to_vec(&frame)?);
        let Event { kind, workspace_id, .. } = self.event;
        Ok(Published { id: self.id, kind, workspace_id, text })
    }
}

/// The four keys that every client gets (3.R105).
#[derive(Serialize)]
struct Frame<'a> {
    event: &'static str,
    workspace_id: WorkspaceId,
    timestamp: Timestamp,
    payload: &'a Map<String, Value>,
}

/// An event as subscribers get it: serialised once, and shared by all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    id: EventId,
    kind: EventKind,
    workspace_id: WorkspaceId,
    text: Bytes,
}

impl Published {
    /// The id of its row in `structure_events` when it [is recorded](Self::is_recorded), else a random one.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        self.kind
    }

    /// The workspace concerned: what an agent's client is filtered by.
    #[must_use]
    pub const fn workspace_id(&self) -> WorkspaceId {
        self.workspace_id
    }

    /// Whether it stands in `structure_events`.
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        self.kind.is_recorded()
    }

    /// The JSON text `{"event","workspace_id","timestamp","payload"}`, always UTF-8. Cloning it copies nothing.
    #[must_use]
    pub const fn text(&self) -> &Bytes {
        &self.text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;
    use time::macros::datetime;

    pub(crate) fn message(kind: EventKind, workspace: WorkspaceId, payload: Value) -> Message {
        let at = Timestamp(datetime!(2026-01-02 03:04:05.678901 UTC));
        Message::new(EventId::random(), at, Event::new(kind, workspace, payload))
    }

    #[test]
    fn clients_see_exactly_four_keys() {
        // 3.R105
        let id: WorkspaceId = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        let published = message(EventKind::WorkspaceOnline, id, json!({})).serialise().unwrap();
        let expected = r#"{"event":"WORKSPACE_ONLINE","workspace_id":"550e8400-e29b-41d4-a716-446655440000","timestamp":"2026-01-02T03:04:05.678901Z","payload":{}}"#;
        assert_eq!(published.text(), expected);
        assert!(published.is_recorded());
        let published = message(EventKind::TaskUpdated, id, json!([])).serialise().unwrap();
        assert!(published.text().ends_with(br#""payload":{}}"#));
        assert!(!published.is_recorded());
    }
}
