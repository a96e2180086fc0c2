//! Normalisation of a request (contract 4 §1.4): as little as a receiver needs, and byte for byte the sender's
//! text where that is nothing.

use std::borrow::Cow;

use bytes::Bytes;
use mws_models::repair::{self, Nul};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::members::{Members, raw};

/// A generation of the A2A protocol; decided by the method, never by the shape of the parameters (4.R22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// v0.2 and v0.3.
    V0,
    /// v1.0.
    V1,
}

/// A request that may be delivered.
#[derive(Debug, Clone)]
pub struct Normalised {
    /// What is sent to the agent.
    pub body: Bytes,
    /// The JSON-RPC method; `None` when absent or not a string.
    pub method: Option<String>,
    /// The request's id as JSON text.
    pub id: String,
    /// Decides the version header.
    pub generation: Generation,
}

/// Why a request is not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not a JSON object.
    #[error("invalid JSON")]
    InvalidJson,
    /// `params.message` has no usable parts (4.R31).
    #[error("params.message.parts is missing or not a list")]
    MissingParts {
        /// The sender's id as JSON text, `null` when there is none.
        id: String,
    },
}

fn is_kind(value: Option<&RawValue>, first: char) -> bool {
    value.is_some_and(|value| value.get().starts_with(first))
}

/// Which generation a method belongs to; without a method the version header decides.
fn generation(method: Option<&str>, version_header: Option<&str>) -> Generation {
    let is_v1 = match method {
        Some(method) => {
            method.starts_with(|c: char| c.is_ascii_uppercase())
                && method.chars().all(|c| c.is_ascii_alphabetic())
        }
        None => version_header
            .and_then(|version| version.trim().split('.').next()?.parse::<u32>().ok())
            .is_some_and(|major| major >= 1),
    };
    if is_v1 { Generation::V1 } else { Generation::V0 }
}

fn is_id(value: &RawValue) -> bool {
    value.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
}

/// Normalises one request.
///
/// # Errors
/// See [`Rejection`]; nothing was delivered.
pub fn normalise(body: Bytes, version_header: Option<&str>) -> Result<Normalised, Rejection> {
    let repaired = repair::json(&body, Nul::Keep);
    let mut envelope = Members::parse(&repaired).ok_or(Rejection::InvalidJson)?;
    let method = envelope.text("method");
    let generation = generation(method.as_deref(), version_header);
    let sent_id = envelope.get("id").filter(|id| is_id(id)).map(|id| id.get().to_owned());
    let mut changed = false;

    if envelope.get("jsonrpc").is_none() {
        changed = true;
        let fresh = Uuid::new_v4().to_string();
        let mut wrapped = Members::default();
        wrapped.put("jsonrpc", raw(&"2.0").ok_or(Rejection::InvalidJson)?);
        let id = envelope.find("id").filter(|id| is_id(id)).cloned();
        wrapped.put("id", id.or_else(|| raw(&fresh)).ok_or(Rejection::InvalidJson)?);
        for key in ["method", "params"] {
            if let Some(value) = envelope.find(key) {
                wrapped.put(key, value.clone());
            }
        }
        envelope = wrapped;
    } else if envelope.get("id").is_none() {
        changed = true;
        envelope.put("id", raw(&Uuid::new_v4().to_string()).ok_or(Rejection::InvalidJson)?);
    }

    let params_text = envelope.get("params").map(|params| params.get().to_owned());
    if let Some(params) =
        params_text.as_deref().and_then(|params| normalise_params(params, generation).transpose())
    {
        let params = params.map_err(|MissingParts| Rejection::MissingParts {
            id: sent_id.unwrap_or_else(|| "null".to_owned()),
        })?;
        changed = true;
        envelope.put("params", Cow::Owned(params));
    }

    let id = envelope.get("id").map_or_else(|| "null".to_owned(), |id| id.get().to_owned());
    let body = if changed {
        Bytes::from(serde_json::to_vec(&envelope).map_err(|_| Rejection::InvalidJson)?)
    } else {
        match repaired {
            Cow::Borrowed(_) => body,
            Cow::Owned(text) => Bytes::from(text),
        }
    };
    Ok(Normalised { body, method, id, generation })
}

struct MissingParts;

/// The parameters with their message made whole; `None` when nothing changes.
fn normalise_params(text: &str, generation: Generation) -> Result<Option<Box<RawValue>>, MissingParts> {
    let Some(mut params) = Members::parse(text) else { return Ok(None) };
    let Some(message_text) = params.get("message").map(|message| message.get().to_owned()) else {
        return Ok(None);
    };
    let Some(mut message) = Members::parse(&message_text) else { return Ok(None) };
    let mut changed = false;

    if !is_kind(message.get("parts"), '[') {
        let parts = match (generation, message.set_value("parts"), message.get("content")) {
            (Generation::V0, None, content) if is_kind(content, '"') => {
                let text = message.text("content").ok_or(MissingParts)?;
                raw(&[serde_json::json!({"kind": "text", "text": text})])
            }
            (Generation::V0, None, content) if is_kind(content, '[') => {
                content.map(|c| Cow::Owned(c.to_owned()))
            }
            _ => return Err(MissingParts),
        };
        message.put("parts", parts.ok_or(MissingParts)?);
        message.remove("content");
        changed = true;
    }

    let usable = |key| message.set_value(key).is_some_and(|value| value.get() != "\"\"");
    if !usable("messageId") && !usable("message_id") {
        message.put("messageId", raw(&Uuid::new_v4().to_string()).ok_or(MissingParts)?);
        changed = true;
    }
    if !changed {
        return Ok(None);
    }
    params.put("message", raw(&message).ok_or(MissingParts)?);
    serde_json::value::to_raw_value(&params).map(Some).map_err(|_| MissingParts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn run(body: &str) -> Result<Normalised, Rejection> {
        normalise(Bytes::copy_from_slice(body.as_bytes()), None)
    }

    fn value(body: &str) -> Value {
        serde_json::from_slice(&run(body).unwrap().body).unwrap()
    }

    #[test]
    fn a_sound_request_passes_byte_for_byte() {
        // 4.R7, 4.R29, 4.R32
        for body in [
            r#"{ "jsonrpc":"2.0", "id": 1.0e2,"method":"message/send","params":{"message":{"messageId":"m","parts":[{"type":"text","text":"hi"},{"odd":123456789012345678901234567890}],"content":"kept"}}}"#,
            r#"{"jsonrpc":"2.0","id":"x","method":"tasks/get","params":{"id":"t","n":0.10}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"nobody/knows","params":[1]}"#,
            r#"{"jsonrpc":"2.0","id":7,"params":{"message":"text"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"SendMessage","params":{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hi \u0000"}]}}}"#,
        ] {
            assert_eq!(run(body).unwrap().body, body);
        }
    }

    #[test]
    fn a_bare_request_is_wrapped() {
        // 4.R25
        let wrapped = value(r#"{"method":"m","params":{"a":1},"id":7,"extra":true}"#);
        assert_eq!(wrapped, json!({"jsonrpc":"2.0","id":7,"method":"m","params":{"a":1}}));
        let wrapped = value(r#"{"method":"m","id":{"not":"an id"}}"#);
        assert!(wrapped["id"].as_str().unwrap().parse::<Uuid>().is_ok());
        assert!(wrapped.get("params").is_none());
    }

    #[test]
    fn a_missing_id_is_added() {
        // 4.R26
        assert!(value(r#"{"jsonrpc":"2.0","method":"m"}"#)["id"].as_str().unwrap().parse::<Uuid>().is_ok());
    }

    #[test]
    fn a_missing_message_id_is_added_and_an_existing_one_kept() {
        // 4.R27
        for missing in ["", r#""messageId":null,"#, r#""messageId":"","#] {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"message/send","params":{{"message":{{{missing}"parts":[]}}}}}}"#
            );
            let id = value(&body)["params"]["message"]["messageId"].as_str().unwrap().to_owned();
            assert!(id.parse::<Uuid>().is_ok());
        }
        let kept =
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"message":{"message_id":"m","parts":[]}}}"#;
        assert_eq!(run(kept).unwrap().body, kept);
    }

    #[test]
    fn content_becomes_parts_in_the_old_generation_only() {
        // 4.R28, 4.R30
        let sent = r#"{"jsonrpc":"2.0","id":1,"method":"message/send","params":{"message":{"messageId":"m","role":"user","content":"hé"},"big":12345678901234567890123}}"#;
        let out = run(sent).unwrap();
        assert_eq!(
            out.body,
            r#"{"jsonrpc":"2.0","id":1,"method":"message/send","params":{"message":{"messageId":"m","role":"user","parts":[{"kind":"text","text":"hé"}]},"big":12345678901234567890123}}"#
        );
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"message/send","params":{"message":{"messageId":"m","content":[{"x":1}]}}}"#;
        assert_eq!(value(list)["params"]["message"]["parts"], json!([{"x": 1}]));
        for method in ["SendMessage", "Anything"] {
            let sent = format!(
                r#"{{"jsonrpc":"2.0","id":"q","method":"{method}","params":{{"message":{{"content":"hi"}}}}}}"#
            );
            assert_eq!(run(&sent).unwrap_err(), Rejection::MissingParts { id: "\"q\"".into() });
        }
    }

    #[test]
    fn a_message_without_parts_is_refused_with_the_senders_id() {
        // 4.R28, 4.R29, 4.R31
        for message in [
            r#"{"content":5}"#,
            "{}",
            r#"{"parts":"no"}"#,
            r#"{"parts":null,"content":null}"#,
            r#"{"parts":{}}"#,
        ] {
            let sent = format!(
                r#"{{"jsonrpc":"2.0","id":42,"method":"message/send","params":{{"message":{message}}}}}"#
            );
            assert_eq!(run(&sent).unwrap_err(), Rejection::MissingParts { id: "42".into() }, "{message}");
        }
        let bare = r#"{"method":"message/send","params":{"message":{}}}"#;
        assert_eq!(run(bare).unwrap_err(), Rejection::MissingParts { id: "null".into() });
    }

    #[test]
    fn only_objects_are_requests() {
        // 4.R24
        for body in ["", "null", "[]", "5", "\"x\"", "{", "{}x", r#"{"a":}"#] {
            assert_eq!(run(body).unwrap_err(), Rejection::InvalidJson, "{body}");
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_counts() {
        // 4.R7: what the receiver will read is what was judged.
        let sent = r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","method":"message/send","params":{"message":{"parts":5,"messageId":"m","parts":[]}}}"#;
        let out = run(sent).unwrap();
        assert_eq!((out.generation, out.body), (Generation::V0, Bytes::from(sent)));
        let sent = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"message":{"messageId":"m","messageId":"","parts":[]}}}"#;
        let id = value(sent)["params"]["message"]["messageId"].as_str().unwrap().to_owned();
        assert!(id.parse::<Uuid>().is_ok());
    }

    #[test]
    fn many_members_cost_no_more_than_their_bytes() {
        // 4.R33
        let members: Vec<_> = (0..90_000).map(|n| format!("\"{n:x}\":{n}")).collect();
        let begun = std::time::Instant::now();
        assert!(run(&format!(r#"{{"jsonrpc":"2.0",{}}}"#, members.join(","))).is_ok());
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn damaged_text_is_repaired_not_refused() {
        // 4.R7, 4.T31
        let out = run(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"t":"\ud83d"}}"#).unwrap();
        assert_eq!(out.body, r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"t":"\ufffd"}}"#);
        assert!(
            normalise(Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"m\":\"\xff\"}"), None).is_ok()
        );
    }

    #[test]
    fn the_method_decides_the_generation() {
        // 4.R22
        for (method, expected) in [
            ("SendMessage", Generation::V1),
            ("FutureThing", Generation::V1),
            ("message/send", Generation::V0),
            ("Odd/Name", Generation::V0),
            ("", Generation::V0),
        ] {
            assert_eq!(generation(Some(method), Some("1.0")), expected, "{method}");
        }
        assert_eq!(generation(None, Some("1.0")), Generation::V1);
        assert_eq!(generation(None, Some("0.3")), Generation::V0);
        assert_eq!(generation(None, None), Generation::V0);
    }

    proptest! {
        #[test]
        fn junk_never_panics(body in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = normalise(Bytes::from(body), None);
        }

        #[test]
        fn normalising_twice_changes_nothing(content in ".*", id in any::<i64>()) {
            // 4.R33
            let sent = json!({"id": id, "method": "message/send", "params": {"message": {"content": content}}});
            let once = normalise(Bytes::from(sent.to_string()), None).unwrap();
            let twice = normalise(once.body.clone(), None).unwrap();
            prop_assert_eq!(once.body, twice.body);
        }
    }
}
