//! The server's public API, as much as the demo uses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use mws_egress::{OperatorClient, OperatorError, OperatorRequest};
use mws_models::WorkspaceId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::out::plain;

const MAX_BODY: usize = 4 << 20;
const PROMPT: Duration = Duration::from_secs(10);
/// A delete stops every container of the tree first; the server gives that 30 s (1.R111).
const DELETE: Duration = Duration::from_secs(60);
/// Two agents answer in turn.
const MESSAGE: Duration = Duration::from_secs(60);

/// Why a call gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No complete answer.
    #[error(transparent)]
    Transport(#[from] OperatorError),
    /// A failure, in the server's words.
    #[error("HTTP {status}: {message}")]
    Status {
        /// The status code.
        status: u16,
        /// The reply's `error`.
        message: String,
    },
    /// Not what the API promises.
    #[error("the answer is not what the API promises")]
    Answer,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) id: WorkspaceId,
    pub(crate) name: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) parent_id: Option<WorkspaceId>,
    #[serde(default)]
    pub(crate) last_sample_error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EventRow {
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) workspace_id: Option<WorkspaceId>,
    pub(crate) payload: Value,
    pub(crate) created_at: String,
}

pub(crate) struct NewWorkspace<'a> {
    pub(crate) name: &'a str,
    pub(crate) role: &'a str,
    pub(crate) parent: Option<WorkspaceId>,
}

#[derive(Clone)]
pub(crate) struct Api {
    client: OperatorClient,
    base: Url,
    bearer: HeaderValue,
}

impl Api {
    pub(crate) fn new(port: u16, token: &str) -> Result<Self, ApiError> {
        let base = Url::parse(&format!("http://127.0.0.1:{port}/")).map_err(|_| ApiError::Answer)?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ApiError::Answer)?;
        bearer.set_sensitive(true);
        Ok(Self { client: OperatorClient::new()?, base, bearer })
    }

    pub(crate) async fn healthy(&self) -> bool {
        self.call::<Value>(Method::GET, "health", None, Duration::from_secs(2)).await.is_ok()
    }

    pub(crate) async fn workspaces(&self) -> Result<Vec<Workspace>, ApiError> {
        self.call(Method::GET, "workspaces", None, PROMPT).await
    }

    pub(crate) async fn create(&self, new: &NewWorkspace<'_>) -> Result<WorkspaceId, ApiError> {
        #[derive(Deserialize)]
        struct Created {
            id: WorkspaceId,
        }
        let body = json!({
            "name": new.name,
            "role": new.role,
            "template": "sample",
            "tier": 2,
            "parent_id": new.parent,
        });
        let created: Created = self.call(Method::POST, "workspaces", Some(body), PROMPT).await?;
        Ok(created.id)
    }

    pub(crate) async fn delete(&self, id: WorkspaceId) -> Result<(), ApiError> {
        let path = format!("workspaces/{id}?confirm=true");
        self.call::<Value>(Method::DELETE, &path, None, DELETE).await.map(drop)
    }

    /// Sends a message as the canvas does, and returns the text of the answer.
    pub(crate) async fn message(&self, to: WorkspaceId, text: &str) -> Result<String, ApiError> {
        let path = format!("workspaces/{to}/a2a");
        let answer: Value = self.call(Method::POST, &path, Some(message(text)), MESSAGE).await?;
        reply_text(&answer).ok_or(ApiError::Answer)
    }

    /// The newest events, newest first.
    pub(crate) async fn events(&self) -> Result<Vec<EventRow>, ApiError> {
        self.call(Method::GET, "events?limit=500", None, PROMPT).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        timeout: Duration,
    ) -> Result<T, ApiError> {
        let url = self.base.join(path).map_err(|_| ApiError::Answer)?;
        let mut headers = HeaderMap::from_iter([(AUTHORIZATION, self.bearer.clone())]);
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let body = body.map(|body| Bytes::from(body.to_string()));
        let request = OperatorRequest { method, url, headers, body, timeout, max_body: MAX_BODY };
        let response = self.client.send(request).await?;
        if response.status.is_success() {
            return serde_json::from_slice(&response.body).map_err(|_| ApiError::Answer);
        }
        let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let message = plain(answer["error"].as_str().unwrap_or("no error message"));
        Err(ApiError::Status { status: response.status.as_u16(), message })
    }
}

/// The A2A request that carries `text`.
fn message(text: &str) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "message/send",
        "params": { "message": {
            "kind": "message",
            "messageId": uuid::Uuid::new_v4().to_string(),
            "role": "user",
            "parts": [{ "kind": "text", "text": text }],
        } },
    })
}

/// The text parts of an answer's message or of its task's artifacts, joined with line breaks (4.R8).
fn reply_text(answer: &Value) -> Option<String> {
    let texts = |parts: &Value| -> Vec<String> {
        let parts = parts.as_array().map(Vec::as_slice).unwrap_or_default();
        parts.iter().filter_map(|part| Some(part["text"].as_str()?.to_owned())).collect()
    };
    let result = &answer["result"];
    let mut found = texts(&result["parts"]);
    for artifact in result["artifacts"].as_array().map(Vec::as_slice).unwrap_or_default() {
        found.extend(texts(&artifact["parts"]));
    }
    if found.is_empty() {
        found = texts(&result["status"]["message"]["parts"]);
    }
    (!found.is_empty()).then(|| found.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_message_and_of_a_task_is_found() {
        let part = |text: &str| json!({ "kind": "text", "text": text });
        let direct =
            json!({ "result": { "kind": "message", "parts": [part("a"), { "kind": "data" }, part("b")] } });
        assert_eq!(reply_text(&direct).as_deref(), Some("a\nb"));
        let task = json!({ "result": { "artifacts": [{ "parts": [part("c")] }] } });
        assert_eq!(reply_text(&task).as_deref(), Some("c"));
        let status = json!({ "result": { "status": { "message": { "parts": [part("d")] } } } });
        assert_eq!(reply_text(&status).as_deref(), Some("d"));
        assert_eq!(reply_text(&json!({ "error": { "code": -1, "message": "no" } })), None);
    }
}
