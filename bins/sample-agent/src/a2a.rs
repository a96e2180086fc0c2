//! A2A over JSON-RPC 2.0, as far as this agent speaks it.

use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const PARSE_ERROR: i32 = -32700;
pub(crate) const INVALID_REQUEST: i32 = -32600;
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
pub(crate) const INVALID_PARAMS: i32 = -32602;

/// A call that can be answered, or the error that answers it.
pub(crate) enum Incoming {
    Message { id: Value, text: String },
    Refused { id: Value, code: i32, reason: &'static str },
}

pub(crate) fn parse(body: &[u8]) -> Incoming {
    let Ok(call) = serde_json::from_slice::<Value>(body) else {
        return Incoming::Refused { id: Value::Null, code: PARSE_ERROR, reason: "parse error" };
    };
    let id = match call.get("id") {
        Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
        _ => Value::Null,
    };
    let refuse = |code, reason| Incoming::Refused { id: id.clone(), code, reason };
    let Some(method) = call.get("method").and_then(Value::as_str) else {
        return refuse(INVALID_REQUEST, "invalid request");
    };
    if method != "message/send" {
        return refuse(METHOD_NOT_FOUND, "method not found");
    }
    match call.pointer("/params/message/parts").and_then(text_of_parts) {
        Some(text) => Incoming::Message { id, text },
        None => refuse(INVALID_PARAMS, "no message parts"),
    }
}

/// The text parts, joined by line breaks.
fn text_of_parts(parts: &Value) -> Option<String> {
    let texts: Vec<&str> =
        parts.as_array()?.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
    Some(texts.join("\n"))
}

pub(crate) fn result(id: &Value, text: &str) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": id,
        "result": {
            "kind": "message",
            "role": "agent",
            "messageId": Uuid::new_v4().to_string(),
            "parts": [{"kind": "text", "text": text}],
        },
    })
}

pub(crate) fn error(id: &Value, code: i32, reason: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": reason}})
}

pub(crate) fn message_send(text: &str) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": Uuid::new_v4().to_string(),
        "method": "message/send",
        "params": {
            "message": {
                "kind": "message",
                "role": "user",
                "messageId": Uuid::new_v4().to_string(),
                "parts": [{"kind": "text", "text": text}],
            },
        },
    })
}

/// The text of a reply: a message, or the status message or the first artifact of a task.
pub(crate) fn reply_text(answer: &Value) -> Option<String> {
    let result = answer.get("result")?;
    ["/parts", "/status/message/parts", "/artifacts/0/parts"]
        .iter()
        .find_map(|path| result.pointer(path).and_then(text_of_parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> (Value, i32) {
        match parse(body.as_bytes()) {
            Incoming::Refused { id, code, .. } => (id, code),
            Incoming::Message { text, .. } => panic!("accepted: {text}"),
        }
    }

    #[test]
    fn a_message_is_read() {
        // 13.3
        let call = json!({"jsonrpc": "2.0", "id": 7, "method": "message/send", "params": {"message": {
            "role": "user", "parts": [{"kind": "text", "text": "a"}, {"kind": "file"}, {"type": "text", "text": "b"}],
        }}});
        match parse(call.to_string().as_bytes()) {
            Incoming::Message { id, text } => assert_eq!((id, text.as_str()), (json!(7), "a\nb")),
            Incoming::Refused { code, .. } => panic!("{code}"),
        }
    }

    #[test]
    fn refusals_have_their_codes() {
        // 13.3
        assert_eq!(refusal("{"), (Value::Null, PARSE_ERROR));
        assert_eq!(refusal("[]"), (Value::Null, INVALID_REQUEST));
        assert_eq!(refusal(r#"{"id":"x"}"#), (json!("x"), INVALID_REQUEST));
        assert_eq!(refusal(r#"{"id":"x","method":"tasks/get"}"#), (json!("x"), METHOD_NOT_FOUND));
        assert_eq!(refusal(r#"{"id":{},"method":"message/send"}"#), (Value::Null, INVALID_PARAMS));
    }

    #[test]
    fn what_is_sent_can_be_read() {
        match parse(message_send("hi").to_string().as_bytes()) {
            Incoming::Message { text, .. } => assert_eq!(text, "hi"),
            Incoming::Refused { code, .. } => panic!("{code}"),
        }
        assert_eq!(reply_text(&result(&json!(1), "there")).as_deref(), Some("there"));
        assert_eq!(reply_text(&error(&json!(1), METHOD_NOT_FOUND, "x")), None);
        let task = json!({"result": {"kind": "task", "artifacts": [{"parts": [{"text": "done"}]}]}});
        assert_eq!(reply_text(&task).as_deref(), Some("done"));
    }
}
