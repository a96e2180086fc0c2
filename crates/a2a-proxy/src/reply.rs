//! Reading an agent's answer: error texts, tool traces.

use http::StatusCode;
use serde_json::Value;

/// The most of an agent's error body that is passed on.
const MAX_UPSTREAM: usize = 65_536;

/// The text for a caller of an answer of 300 and above (4.R53); never empty.
pub(crate) fn error_text(status: StatusCode, body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let error = parsed.as_ref().and_then(|value| value.get("error"));
    let said = error
        .and_then(Value::as_str)
        .or_else(|| error.and_then(|e| e.get("message")).and_then(Value::as_str))
        .filter(|text| !text.is_empty());
    match (said, status.canonical_reason()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(reason)) => reason.to_owned(),
        (None, None) => format!("HTTP {}", status.as_u16()),
    }
}

/// The body as JSON text when it is JSON and small enough to pass on.
pub(crate) fn upstream_json(body: &[u8]) -> Option<String> {
    (body.len() <= MAX_UPSTREAM)
        .then(|| serde_json::from_slice::<Box<serde_json::value::RawValue>>(body).ok())
        .flatten()
        .map(|raw| raw.get().to_owned())
}

/// The message of a JSON-RPC error in an answer of 200 (4.R54).
pub(crate) fn rpc_error(body: &Value) -> Option<String> {
    let error = body.get("error").filter(|error| error.is_object())?;
    Some(error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned))
}

/// Where an agent leaves its tool trace (4.R71).
pub(crate) fn tool_trace(body: &Value) -> Option<&Value> {
    ["/result/metadata/tool_trace", "/result/message/metadata/tool_trace", "/result/task/metadata/tool_trace"]
        .into_iter()
        .find_map(|path| body.pointer(path))
        .filter(|trace| !trace.is_null())
}

/// An edge in front of a dead origin answers these (4.R55).
pub(crate) const fn is_dead_origin(status: u16) -> bool {
    matches!(status, 502 | 503 | 504 | 521 | 522 | 523 | 524)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_text_is_never_empty() {
        // 4.R53, 4.T4
        let text =
            |status: u16, body: &str| error_text(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(text(500, r#"{"error":"boom"}"#), "boom");
        assert_eq!(text(500, r#"{"error":{"message":"deep"}}"#), "deep");
        for body in ["", "<html>", r#"{"error":5}"#, r#"{"error":{}}"#, r#"{"error":""}"#, "{}"] {
            assert_eq!(text(502, body), "Bad Gateway", "{body}");
        }
        assert_eq!(text(599, ""), "HTTP 599");
    }

    #[test]
    fn dead_origin_statuses() {
        // 4.R55
        let dead: Vec<_> = (100..=599).filter(|status| is_dead_origin(*status)).collect();
        assert_eq!(dead, [502, 503, 504, 521, 522, 523, 524]);
    }

    #[test]
    fn traces_and_rpc_errors_are_found() {
        // 4.R54, 4.R71
        let trace = json!({"result": {"task": {"metadata": {"tool_trace": [1]}}}});
        assert_eq!(tool_trace(&trace), Some(&json!([1])));
        assert_eq!(tool_trace(&json!({"result": "text"})), None);
        assert_eq!(rpc_error(&json!({"error": {"message": "no"}})).unwrap(), "no");
        assert_eq!(rpc_error(&json!({"result": {}})), None);
    }
}
