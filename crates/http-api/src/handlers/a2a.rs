//! `POST /workspaces/:id/a2a` (contract 4 §1).

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use mws_a2a_proxy::{Call, CallError, CallerClass, Outcome, Rejection, StreamReply};
use mws_models::WorkspaceStatus;
use mws_wsauth::PeerCaller;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::route::PeerRequest;
use crate::{Api, ApiError, reply};

/// The longest deadline that a caller may name, in seconds.
const MAX_DEADLINE: u64 = 86_400;
/// When a restarting or starting agent is worth another try.
const RETRY_SOON: u32 = 15;
/// When a busy one is.
const RETRY_BUSY: u32 = 30;

/// Delivers a message.
pub(crate) async fn send(api: Api, request: PeerRequest) -> Result<Response, ApiError> {
    let call = Call {
        target: request.target,
        caller: caller(&request),
        deadline: deadline(&request.headers),
        headers: request.headers,
        body: request.body,
    };
    match api.parts().proxy.call(call).await {
        Ok(Outcome::Answered(answer)) => {
            let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
            let content_type = HeaderValue::from_str(&answer.content_type)
                .unwrap_or(HeaderValue::from_static("application/octet-stream"));
            Ok(reply::with_bytes(status, content_type, answer.body))
        }
        Ok(Outcome::Streaming(answer)) => Ok(streaming(answer)),
        Ok(Outcome::Stored { method, activity_id }) => Ok(reply::ok(&json!({
            "status": "queued", "delivery_mode": "poll", "method": method, "activity_id": activity_id,
        }))),
        Err(CallError::Rejected(Rejection::MissingParts { id })) => Ok(missing_parts(&id)),
        Err(error) => Err(error.into()),
    }
}

fn caller(request: &PeerRequest) -> CallerClass {
    match &request.caller {
        PeerCaller::Canvas(_) => CallerClass::Canvas,
        PeerCaller::Itself(_) => CallerClass::Itself,
        PeerCaller::Workspace { id, .. } => CallerClass::Workspace(*id),
    }
}

/// `X-Timeout`: whole seconds; 0 for none; anything else is ignored.
fn deadline(headers: &HeaderMap) -> Option<Option<Duration>> {
    let seconds: u64 = headers.get("x-timeout")?.to_str().ok()?.trim().parse().ok()?;
    match seconds {
        0 => Some(None),
        1..=MAX_DEADLINE => Some(Some(Duration::from_secs(seconds))),
        _ => None,
    }
}

fn streaming(answer: StreamReply) -> Response {
    let chunks = stream::unfold(answer.chunks, |mut chunks: mpsc::Receiver<Bytes>| async move {
        chunks.recv().await.map(|chunk| (Ok::<_, Infallible>(chunk), chunks))
    });
    let content_type =
        HeaderValue::from_str(&answer.content_type).unwrap_or(HeaderValue::from_static("text/event-stream"));
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = reply::with_bytes(status, content_type, Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The JSON-RPC error of 4.R31, under the sender's own id.
fn missing_parts(id: &str) -> Response {
    let id = RawValue::from_string(id.to_owned()).ok();
    let error = json!({
        "code": -32602,
        "message": "params.message.parts is required: a list of message parts",
        "data": {"field": "params.message.parts"},
    });
    #[derive(serde::Serialize)]
    struct RpcError {
        jsonrpc: &'static str,
        id: Option<Box<RawValue>>,
        error: Value,
    }
    reply::json(StatusCode::BAD_REQUEST, &RpcError { jsonrpc: "2.0", id, error })
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let sentence = error.to_string();
        match error {
            CallError::Rejected(_) => Self::bad_request("invalid JSON"),
            CallError::AccessDenied => Self::new(
                StatusCode::FORBIDDEN,
                "access denied: workspaces cannot communicate per hierarchy rules",
            ),
            CallError::BudgetExceeded => {
                Self::new(StatusCode::PAYMENT_REQUIRED, "workspace budget limit exceeded")
            }
            CallError::NotFound => Self::not_found(sentence),
            CallError::NoUrl { status } => {
                let error = Self::unavailable(sentence).with("status", status.as_str());
                if status == WorkspaceStatus::Provisioning { error.retry_after(RETRY_SOON) } else { error }
            }
            CallError::UrlRefused | CallError::Unreachable => Self::new(StatusCode::BAD_GATEWAY, sentence),
            CallError::Restarting => Self::unavailable(sentence)
                .with("restarting", true)
                .with("retry_after", RETRY_SOON)
                .retry_after(RETRY_SOON),
            CallError::Busy { native_session } => {
                let error = Self::unavailable(sentence)
                    .with("busy", true)
                    .with("retry_after", RETRY_BUSY)
                    .retry_after(RETRY_BUSY);
                if native_session { error.with("native_session", true) } else { error }
            }
            CallError::TimedOut => Self::unavailable(sentence)
                .with("busy", true)
                .with("retry_after", RETRY_BUSY)
                .with("timed_out", true)
                .retry_after(RETRY_BUSY),
            CallError::AgentFailed { status, text, upstream } => {
                // What is no failure of HTTP's own is one of the agent's (4.R53).
                let reply = if (400..600).contains(&status) { status } else { 502 };
                let reply = StatusCode::from_u16(reply).unwrap_or(StatusCode::BAD_GATEWAY);
                let error = Self::new(reply, text).with("upstream_status", status);
                match upstream.and_then(|text| serde_json::from_str::<Value>(&text).ok()) {
                    Some(upstream) => error.with("upstream", upstream),
                    None => error,
                }
            }
            CallError::AnswerLost { delivered } => {
                Self::new(StatusCode::BAD_GATEWAY, sentence).with("delivery_confirmed", delivered)
            }
            CallError::AnswerTooLarge => {
                Self::new(StatusCode::BAD_GATEWAY, sentence).with("delivery_confirmed", true)
            }
            CallError::Internal => Self::new(StatusCode::INTERNAL_SERVER_ERROR, sentence),
            // Any failure to read or keep what a call depends on says "not now" (4.R3).
            CallError::Store(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "call not resolved");
                Self::platform_unavailable()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_deadline() {
        // 4 §1.1
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-timeout", HeaderValue::from_str(value).unwrap());
            deadline(&headers)
        };
        assert_eq!(read("0"), Some(None));
        assert_eq!(read("5"), Some(Some(Duration::from_secs(5))));
        assert_eq!(read("86400"), Some(Some(Duration::from_secs(86_400))));
        for ignored in ["86401", "-1", "1.5", "soon", ""] {
            assert_eq!(read(ignored), None, "{ignored}");
        }
        assert_eq!(deadline(&HeaderMap::new()), None);
    }
}
