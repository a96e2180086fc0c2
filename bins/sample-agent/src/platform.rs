//! The agent's side of the server's API.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::a2a;
use crate::credentials::{self, AUTH_TOKEN, INBOUND_SECRET};
use crate::http::{self, Call, HttpError};
use crate::log;
use crate::state::{Agent, Tasks};

/// For what the server answers by itself.
const PROMPT: Duration = Duration::from_secs(15);
/// For what a peer has to work on.
const PATIENT: Duration = Duration::from_secs(660);
const MAX_ANSWER: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlatformError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the server's answer is not understood")]
    Answer,
    #[error("no peer is called {0:?}")]
    NoPeer(String),
}

/// The secrets that answers of the server may carry.
#[derive(Default, Deserialize)]
struct Delivered {
    auth_token: Option<String>,
    platform_inbound_secret: Option<String>,
}

#[derive(Deserialize)]
struct Peer {
    id: String,
    name: String,
}

pub(crate) struct Platform {
    agent: Arc<Agent>,
}

impl Platform {
    pub(crate) fn new(agent: Arc<Agent>) -> Self {
        Self { agent }
    }

    pub(crate) async fn register(&self) -> Result<(), PlatformError> {
        let settings = &self.agent.settings;
        let body = json!({
            "id": settings.workspace_id,
            "url": settings.own_url,
            "agent_card": self.agent.card(),
        });
        self.report("/registry/register", &body).await
    }

    /// A full beat: health, tasks and the declaration.
    pub(crate) async fn heartbeat(&self) -> Result<(), PlatformError> {
        let tasks = self.agent.tasks();
        let body = json!({
            "workspace_id": self.agent.settings.workspace_id,
            "error_rate": 0.0,
            "sample_error": "",
            "active_tasks": tasks.active,
            "current_task": tasks.current,
            "uptime_seconds": self.agent.uptime_seconds(),
            "runtime_metadata": {"capabilities": {}},
        });
        self.report("/registry/heartbeat", &body).await
    }

    /// Nothing but the tasks, the moment they change.
    pub(crate) async fn push_tasks(&self, tasks: Tasks) -> Result<(), PlatformError> {
        let body = json!({
            "workspace_id": self.agent.settings.workspace_id,
            "active_tasks": tasks.active,
            "current_task": tasks.current,
        });
        self.report("/registry/heartbeat", &body).await
    }

    /// Asks the peer of this name, compared without regard to case, and answers what it said.
    pub(crate) async fn ask(&self, name: &str, text: &str) -> Result<String, PlatformError> {
        let path = format!("/registry/{}/peers", self.agent.settings.workspace_id);
        let (status, body) = self.call(Method::GET, &path, None, PROMPT).await?;
        if !status.is_success() {
            return Err(PlatformError::Status(status));
        }
        let peers: Vec<Peer> = serde_json::from_slice(&body).map_err(|_| PlatformError::Answer)?;
        let wanted = name.to_lowercase();
        let peer = peers
            .into_iter()
            .find(|peer| peer.name.to_lowercase() == wanted)
            .ok_or_else(|| PlatformError::NoPeer(name.to_owned()))?;
        let reply = self.send_message(&peer.id, text).await?;
        Ok(format!("{} says: {reply}", peer.name))
    }

    /// One A2A message through the server; answers the text of the reply.
    pub(crate) async fn send_message(&self, target: &str, text: &str) -> Result<String, PlatformError> {
        let path = format!("/workspaces/{target}/a2a");
        let body = Bytes::from(a2a::message_send(text).to_string());
        let (status, body) = self.call(Method::POST, &path, Some(body), PATIENT).await?;
        if !status.is_success() {
            return Err(PlatformError::Status(status));
        }
        let answer: Value = serde_json::from_slice(&body).map_err(|_| PlatformError::Answer)?;
        a2a::reply_text(&answer).ok_or(PlatformError::Answer)
    }

    async fn report(&self, path: &str, body: &Value) -> Result<(), PlatformError> {
        let body = Bytes::from(body.to_string());
        let (status, answer) = self.call(Method::POST, path, Some(body), PROMPT).await?;
        if !status.is_success() {
            return Err(PlatformError::Status(status));
        }
        self.keep(&serde_json::from_slice(&answer).unwrap_or_default()).await;
        Ok(())
    }

    async fn keep(&self, delivered: &Delivered) {
        let configs = &self.agent.settings.configs;
        let secrets =
            [(AUTH_TOKEN, &delivered.auth_token), (INBOUND_SECRET, &delivered.platform_inbound_secret)];
        for (name, secret) in secrets {
            let Some(secret) = secret.as_deref().filter(|secret| !secret.is_empty()) else { continue };
            if credentials::read(configs, name).await.as_deref() == Some(secret) {
                continue;
            }
            if let Err(error) = credentials::persist(configs, name, secret).await {
                log::line(&format!("{name} not kept: {error}"));
            }
        }
    }

    /// On 401 the token is read again and the call made once more: the file may have been replaced.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        deadline: Duration,
    ) -> Result<(StatusCode, Bytes), PlatformError> {
        let first = self.call_once(method.clone(), path, body.clone(), deadline).await?;
        if first.0 != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        self.call_once(method, path, body, deadline).await
    }

    async fn call_once(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        deadline: Duration,
    ) -> Result<(StatusCode, Bytes), PlatformError> {
        let settings = &self.agent.settings;
        let token = credentials::read(&settings.configs, AUTH_TOKEN).await;
        let call = Call {
            method,
            path,
            bearer: token.as_deref(),
            workspace: Some(&settings.workspace_id),
            body,
            deadline,
            cap: MAX_ANSWER,
        };
        Ok(http::send(&settings.platform, call).await?)
    }
}
