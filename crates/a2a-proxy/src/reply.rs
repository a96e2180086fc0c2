//! Reading an agent's answer: what the log and the caller need of it, without building it.

use http::StatusCode;
use mws_models::repair::{self, Nul};
use serde::de::IgnoredAny;

use crate::members::Members;

/// The most of an agent's error body that is passed on.
const MAX_UPSTREAM: usize = 65_536;
/// The most of an agent's error text.
const MAX_TEXT: usize = 65_536;

/// An answer, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The whole body is JSON.
    pub(crate) is_json: bool,
    /// The message of a JSON-RPC error (4.R54).
    pub(crate) rpc_error: Option<String>,
    /// The tool trace as JSON text (4.R71).
    pub(crate) tool_trace: Option<String>,
}

impl Reading {
    pub(crate) fn of(body: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(body) else { return Self::default() };
        match Members::parse(text) {
            Some(answer) => {
                Self { is_json: true, rpc_error: rpc_error(&answer), tool_trace: tool_trace(&answer) }
            }
            None => Self { is_json: is_json(text), ..Self::default() },
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn rpc_error(answer: &Members<'_>) -> Option<String> {
    let error = answer.get("error")?.get();
    let members = Members::parse(error)?;
    let said = members.get("message").and_then(|message| text_of(message.get()));
    let said = said.unwrap_or_else(|| error.to_owned());
    Some(repair::cut(&said, MAX_TEXT).into_owned())
}

/// A JSON string's text, with what is no text in it repaired.
fn text_of(value: &str) -> Option<String> {
    serde_json::from_str(&repair::json(value.as_bytes(), Nul::Keep)).ok()
}

fn tool_trace(answer: &Members<'_>) -> Option<String> {
    let result = answer.object("result")?;
    let of = |holder: &Members<'_>| {
        let metadata = holder.object("metadata")?;
        metadata.set_value("tool_trace").map(|trace| trace.get().to_owned())
    };
    of(&result).or_else(|| ["message", "task"].into_iter().find_map(|key| of(&result.object(key)?)))
}

/// The text for a caller of an answer of 300 and above (4.R53); never empty.
pub(crate) fn error_text(status: StatusCode, body: &[u8]) -> String {
    let said = std::str::from_utf8(body).ok().and_then(Members::parse).and_then(|answer| {
        let error = answer.get("error")?.get();
        text_of(error).or_else(|| text_of(Members::parse(error)?.get("message")?.get()))
    });
    match (said.filter(|text| !text.is_empty()), status.canonical_reason()) {
        (Some(text), _) => repair::cut(&text, MAX_TEXT).into_owned(),
        (None, Some(reason)) => reason.to_owned(),
        (None, None) => format!("HTTP {}", status.as_u16()),
    }
}

/// The body as JSON text when it is JSON and small enough to pass on.
pub(crate) fn upstream_json(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_UPSTREAM)?;
    is_json(text).then(|| text.to_owned())
}

/// An edge in front of a dead origin answers these (4.R55).
pub(crate) const fn is_dead_origin(status: u16) -> bool {
    matches!(status, 502 | 503 | 504 | 521 | 522 | 523 | 524)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Reading {
        Reading::of(body.as_bytes())
    }

    #[test]
    fn an_error_text_is_never_empty() {
        // 4.R53, 4.T4
        let text =
            |status: u16, body: &str| error_text(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(text(500, r#"{"error":"boom"}"#), "boom");
        assert_eq!(text(500, r#"{"error":{"message":"deep"}}"#), "deep");
        assert_eq!(text(500, r#"{"error":"half \ud83d"}"#), "half \u{fffd}");
        for body in ["", "<html>", r#"{"error":5}"#, r#"{"error":{}}"#, r#"{"error":""}"#, "{}", "[]"] {
            assert_eq!(text(502, body), "Bad Gateway", "{body}");
        }
        assert_eq!(text(599, ""), "HTTP 599");
        let long = text(500, &format!(r#"{{"error":"{}"}}"#, "x".repeat(MAX_TEXT + 1)));
        assert_eq!(long.len(), MAX_TEXT + 3);
    }

    #[test]
    fn dead_origin_statuses() {
        // 4.R55
        let dead: Vec<_> = (100..=599).filter(|status| is_dead_origin(*status)).collect();
        assert_eq!(dead, [502, 503, 504, 521, 522, 523, 524]);
    }

    #[test]
    fn traces_are_found_in_all_three_places() {
        // 4.R71
        for (body, trace) in [
            (r#"{"result":{"metadata":{"tool_trace":[{"n": 1}]}}}"#, Some(r#"[{"n": 1}]"#)),
            (r#"{"result":{"message":{"metadata":{"tool_trace":1}}}}"#, Some("1")),
            (r#"{"result":{"metadata":{},"task":{"metadata":{"tool_trace":{}}}}}"#, Some("{}")),
            (r#"{"result":{"metadata":{"tool_trace":null}}}"#, None),
            (r#"{"result":"text"}"#, None),
        ] {
            assert_eq!(of(body).tool_trace.as_deref(), trace, "{body}");
        }
    }

    #[test]
    fn rpc_errors_are_found() {
        // 4.R54
        assert_eq!(of(r#"{"error":{"message":"no"}}"#).rpc_error.unwrap(), "no");
        assert_eq!(of(r#"{"error":{"code": 5}}"#).rpc_error.unwrap(), r#"{"code": 5}"#);
        for body in [r#"{"result":{}}"#, r#"{"error":null}"#, r#"{"error":"text"}"#] {
            assert_eq!(of(body).rpc_error, None, "{body}");
        }
    }

    #[test]
    fn json_is_what_parses_as_json() {
        // 4.R52: also what is nested deeper, or counts further, than this program's own types go.
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        for json in ["{}", "[1]", "\"x\"", "null", " 5 ", "{\"n\":1e400}", r#""\ud83d""#, &deep] {
            assert!(of(json).is_json, "{json}");
        }
        for other in ["", "hello", "{", "{}{}", "nul"] {
            assert!(!of(other).is_json, "{other}");
        }
        assert!(!Reading::of(b"\"\xff\"").is_json);
    }
}
