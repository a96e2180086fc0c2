//! A call and how it can end. Nothing here knows the server's own status codes.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use mws_models::{ActivityId, WorkspaceId, WorkspaceStatus};
use tokio::sync::mpsc;

use crate::Rejection;

/// On whose behalf a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerClass {
    /// The user at the canvas, or an operator's tool.
    Canvas,
    /// Another workspace: the hierarchy decides.
    Workspace(WorkspaceId),
    /// The target itself, waking itself.
    Itself,
}

impl CallerClass {
    /// The workspace that the call is recorded under; `None` for the canvas.
    #[must_use]
    pub const fn source(self, target: WorkspaceId) -> Option<WorkspaceId> {
        match self {
            Self::Canvas => None,
            Self::Workspace(id) => Some(id),
            Self::Itself => Some(target),
        }
    }
}

/// One message on its way to an agent.
#[derive(Debug, Clone)]
pub struct Call {
    /// The agent addressed.
    pub target: WorkspaceId,
    /// Proven by authentication.
    pub caller: CallerClass,
    /// The request as received, at most 1 MiB.
    pub body: Bytes,
    /// Protocol headers to pass on: `A2A-Version`, the extension and trace headers, `Accept`.
    pub headers: HeaderMap,
    /// The caller's own deadline: `None` when it named none, `Some(None)` for "no ceiling".
    pub deadline: Option<Option<Duration>>,
}

/// An agent's answer, whole.
#[derive(Debug, Clone)]
pub struct AgentReply {
    /// The agent's status, 200 to 299.
    pub status: u16,
    /// `application/json` when the body is JSON, else what the agent said.
    pub content_type: String,
    /// The agent's bytes.
    pub body: Bytes,
}

/// An agent's answer, as it comes (`text/event-stream`).
#[derive(Debug)]
pub struct StreamReply {
    /// The agent's status, 200 to 299.
    pub status: u16,
    /// As the agent said.
    pub content_type: String,
    /// The chunks, a comment after 15 s of silence, a last `event: error` if it broke off.
    pub chunks: mpsc::Receiver<Bytes>,
}

/// How a call that was accepted ended.
#[derive(Debug)]
pub enum Outcome {
    /// The agent answered.
    Answered(AgentReply),
    /// The agent answers in a stream.
    Streaming(StreamReply),
    /// Stored for an agent that polls; the agent has not answered.
    Stored {
        /// Of the request; empty when it has none.
        method: String,
        /// The row that the agent will fetch.
        activity_id: ActivityId,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request cannot be delivered as it is.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The hierarchy forbids it, or one of the two is unknown.
    #[error("access denied")]
    AccessDenied,
    /// The target's budget is spent.
    #[error("budget exceeded")]
    BudgetExceeded,
    /// No such workspace.
    #[error("workspace not found")]
    NotFound,
    /// The workspace has no address now.
    #[error("workspace has no URL")]
    NoUrl {
        /// Why.
        status: WorkspaceStatus,
    },
    /// Its address is not one that this server dials.
    #[error("workspace URL is not publicly routable")]
    UrlRefused,
    /// Not delivered: the agent could not be reached.
    #[error("failed to reach workspace agent")]
    Unreachable,
    /// Its container is gone; a restart was asked for.
    #[error("workspace agent unreachable — container restart triggered")]
    Restarting,
    /// The agent did not take or finish the message in time.
    #[error("workspace agent is busy")]
    Busy {
        /// The agent keeps its own queue.
        native_session: bool,
    },
    /// The caller's deadline, or the ceiling, ended it; the agent has the message.
    #[error("timeout waiting for the workspace agent")]
    TimedOut,
    /// The agent answered with a failure.
    #[error("the agent answered {status}")]
    AgentFailed {
        /// The agent's status: anything but 200 to 299.
        status: u16,
        /// The agent's own error text, or the standard phrase of the status.
        text: String,
        /// The agent's body as JSON text, when it is JSON of at most 64 KiB.
        upstream: Option<String>,
    },
    /// The agent's answer broke off.
    #[error("failed to read agent response")]
    AnswerLost {
        /// The agent had accepted the message.
        delivered: bool,
    },
    /// The agent's answer is over the limit.
    #[error("agent response too large")]
    AnswerTooLarge,
    /// The request could not be made.
    #[error("failed to create proxy request")]
    Internal,
    /// The database was away.
    #[error("the database is unavailable")]
    Store(#[from] mws_db::Error),
}

/// What the proxy needs of the life cycle.
#[async_trait]
pub trait AgentControl: Send + Sync {
    /// A dispatch to `target` failed: whether its backend says that it does not run, in which case its restart
    /// was requested. Any doubt is "no". Not to be cancelled half-way by the caller's connection.
    async fn is_dead(&self, target: WorkspaceId) -> bool;

    /// Whether this server runs in a container beside its agents, so that it reaches them by their names and
    /// not by their published ports (4.R40).
    async fn reached_by_name(&self) -> bool;
}
