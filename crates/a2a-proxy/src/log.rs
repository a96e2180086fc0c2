//! The activity row of a call, and the broadcasts that go with it (4 §1.11, 4.R116).

use std::sync::Arc;
use std::time::Duration;

use mws_db::activity::{ActivityLog, Appended, NewActivity};
use mws_events::Hub;
use mws_models::repair::{self, Nul};
use mws_models::{Event, EventKind, WorkspaceId};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The most of a body that is no JSON that is kept (4.R6).
const MAX_RAW: usize = 65_536;
/// Digits of an exponent that is stored as a number.
const MAX_EXPONENT_DIGITS: usize = 3;
/// Bodies larger than this stay out of broadcasts (4.R116).
const MAX_BROADCAST_BODY: usize = 262_144;

/// How a call ended, for its row.
pub(crate) enum End<'a> {
    /// Stored for an agent that polls.
    Stored,
    /// The agent answered.
    Answered {
        body: &'a [u8],
        /// `None` when all is well, else the agent's error.
        error: Option<String>,
        tool_trace: Option<String>,
    },
    /// There is no answer.
    Failed {
        /// A fixed word of 4.R67.
        reason: &'a str,
        /// The message was accepted all the same (4.R56).
        delivered: bool,
    },
}

/// What a row says about the call itself.
pub(crate) struct Entry<'a> {
    pub(crate) target: WorkspaceId,
    pub(crate) target_name: &'a str,
    pub(crate) source: Option<WorkspaceId>,
    pub(crate) method: Option<&'a str>,
    pub(crate) request: &'a [u8],
    pub(crate) duration: Option<Duration>,
}

/// JSON text that Postgres takes: repaired, or wrapped when it is no JSON.
fn storable(body: &[u8]) -> String {
    let repaired = repair::json(body, Nul::Repair);
    if serde_json::from_str::<&RawValue>(&repaired).is_ok() && !has_bomb(&repaired) {
        return repaired.into_owned();
    }
    wrapped(&repaired)
}

/// Whether JSON text holds a number that Postgres would print with thousands of digits, for each few bytes of
/// it: `1e99999` comes back a hundred kilobytes long.
fn has_bomb(json: &str) -> bool {
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = end_of_string(bytes, at),
            // Outside strings there is one more `e`: that of `true` and `false`, which no digit follows.
            b'e' | b'E' => {
                let sign = usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
                let digits = bytes[at + sign..].iter().take_while(|byte| byte.is_ascii_digit());
                if digits.skip_while(|digit| **digit == b'0').count() > MAX_EXPONENT_DIGITS {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// Where the string that begins at `at` ends.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    bytes.len()
}

fn wrapped(text: &str) -> String {
    json!({"raw": repair::cut(&repair::text(text), MAX_RAW)}).to_string()
}

fn row(entry: &Entry<'_>, end: &End<'_>) -> NewActivity {
    let method = entry.method.unwrap_or_default();
    let (status, error_detail) = match end {
        End::Stored | End::Answered { error: None, .. } | End::Failed { delivered: true, .. } => ("ok", None),
        End::Answered { error: Some(error), .. } => ("error", Some(error.clone())),
        End::Failed { reason, .. } => ("error", Some((*reason).to_owned())),
    };
    let summary = match end {
        End::Stored | End::Answered { .. } => format!("{method} → {}", entry.target_name),
        End::Failed { reason, .. } => format!("A2A request to {} failed: {reason}", entry.target_name),
    };
    let (response_body, tool_trace) = match end {
        End::Answered { body, tool_trace, .. } => {
            (Some(storable(body)), tool_trace.as_deref().map(|trace| storable(trace.as_bytes())))
        }
        _ => (None, None),
    };
    NewActivity {
        workspace_id: entry.target,
        activity_type: "a2a_receive",
        source_id: entry.source,
        source_label: None,
        target_id: Some(entry.target),
        method: entry.method.map(|method| repair::text(method).into_owned()),
        summary: Some(repair::text(&summary).into_owned()),
        request_body: Some(storable(entry.request)),
        response_body,
        tool_trace,
        duration_ms: entry.duration.map(|d| i32::try_from(d.as_millis()).unwrap_or(i32::MAX)),
        status,
        error_detail: error_detail.map(|detail| repair::text(&detail).into_owned()),
    }
}

/// Stores the row, then tells it. `None` when it could not be stored; the log says so.
pub(crate) async fn record(
    log: &ActivityLog,
    hub: &Hub,
    entry: &Entry<'_>,
    end: &End<'_>,
) -> Result<Appended, mws_db::Error> {
    let mut new = Arc::new(row(entry, end));
    let appended = match log.append(new.clone()).await {
        Err(error) if !error.is_unavailable() => {
            // JSON that Postgres refuses (nested too deeply, say) is kept as text.
            let row = Arc::make_mut(&mut new);
            row.request_body = row.request_body.as_deref().map(wrapped);
            row.response_body = row.response_body.as_deref().map(wrapped);
            row.tool_trace = None;
            log.append(new.clone()).await?
        }
        other => other?,
    };
    if hub.has_listeners() {
        hub.broadcast(activity_logged(&new, appended));
    } else {
        hub.touch(new.workspace_id);
    }
    Ok(appended)
}

fn activity_logged(row: &NewActivity, appended: Appended) -> Event {
    let mut payload = Map::new();
    let mut put = |key: &str, value: Value| {
        payload.insert(key.to_owned(), value);
    };
    put("activity_type", row.activity_type.into());
    put("method", row.method.clone().into());
    put("summary", row.summary.clone().into());
    put("status", row.status.into());
    put("source_id", row.source_id.map(|id| id.to_string()).into());
    put("target_id", row.target_id.map(|id| id.to_string()).into());
    put("duration_ms", row.duration_ms.into());
    put("id", appended.id.to_string().into());
    put("created_at", appended.created_at.to_string().into());
    if let Some(error) = &row.error_detail {
        put("error_detail", error.clone().into());
    }
    let bodies = [
        ("request_body", &row.request_body),
        ("response_body", &row.response_body),
        ("tool_trace", &row.tool_trace),
    ];
    for (key, body) in bodies {
        match body.as_deref() {
            None => {}
            Some(text) if text.len() > MAX_BROADCAST_BODY => put("bodies_omitted", true.into()),
            Some(text) => match serde_json::from_str(text) {
                Ok(body) => put(key, body),
                // Nested more deeply than can be told.
                Err(_) => put("bodies_omitted", true.into()),
            },
        }
    }
    Event::new(EventKind::ActivityLogged, row.workspace_id, Value::Object(payload))
}

/// The user's screen gets the answer at once (4.R69).
pub(crate) fn tell_canvas(hub: &Hub, target: WorkspaceId, method: Option<&str>, body: &[u8], took: Duration) {
    if !hub.has_listeners() {
        return;
    }
    let body: Value = serde_json::from_str(&storable(body)).unwrap_or(Value::Null);
    let payload = json!({
        "response_body": body, "method": method.unwrap_or_default(),
        "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    });
    hub.broadcast(Event::new(EventKind::A2aResponse, target, payload));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_made_storable() {
        // 4.R6
        assert_eq!(storable(br#"{"a":"\u0000\ud83d"}"#), r#"{"a":"\ufffd\ufffd"}"#);
        for bomb in ["[1e1000]", "{\"a\":-1.5E+0099999}", "[true,1e-1000]"] {
            assert!(storable(bomb.as_bytes()).starts_with("{\"raw\""), "{bomb}");
        }
        for kept in ["[1e999,true,1E-09]", r#"{"1e9999":"a\"1e9999"}"#] {
            assert_eq!(storable(kept.as_bytes()), kept);
        }
        assert_eq!(storable(b"plain \xff text"), "{\"raw\":\"plain \u{fffd} text\"}");
        let long = storable("ü".repeat(MAX_RAW).as_bytes());
        assert!(long.len() < MAX_RAW + 20 && long.ends_with("...\"}"));
    }

    #[test]
    fn rows_say_what_happened() {
        // 4.R56, 4.R66
        let id = WorkspaceId::random();
        let entry = Entry {
            target: id,
            target_name: "Lead",
            source: None,
            method: Some("message/send"),
            request: b"{}",
            duration: Some(Duration::from_millis(7)),
        };
        let ok = row(&entry, &End::Answered { body: b"{}", error: None, tool_trace: None });
        assert_eq!(
            (ok.status, ok.summary.as_deref(), ok.duration_ms),
            ("ok", Some("message/send → Lead"), Some(7))
        );
        let lost = row(&entry, &End::Failed { reason: "connection reset", delivered: false });
        assert_eq!(lost.status, "error");
        assert_eq!(lost.summary.as_deref(), Some("A2A request to Lead failed: connection reset"));
        assert_eq!(lost.error_detail.as_deref(), Some("connection reset"));
        assert_eq!(row(&entry, &End::Failed { reason: "x", delivered: true }).status, "ok");
    }

    #[test]
    fn large_bodies_stay_out_of_the_broadcast() {
        // 4.R116
        let entry = Entry {
            target: WorkspaceId::random(),
            target_name: "x",
            source: None,
            method: None,
            request: b"{\"a\":1}",
            duration: None,
        };
        let big = format!("\"{}\"", "x".repeat(MAX_BROADCAST_BODY));
        let stored = row(&entry, &End::Answered { body: big.as_bytes(), error: None, tool_trace: None });
        let appended =
            Appended { id: mws_models::ActivityId::random(), created_at: mws_models::Timestamp(time_zero()) };
        let event = activity_logged(&stored, appended);
        assert_eq!(event.payload["bodies_omitted"], true);
        assert!(!event.payload.contains_key("response_body"));
        assert_eq!(event.payload["request_body"], json!({"a": 1}));
        assert_eq!(event.payload["duration_ms"], Value::Null);
    }

    fn time_zero() -> time::OffsetDateTime {
        time::OffsetDateTime::UNIX_EPOCH
    }
}
