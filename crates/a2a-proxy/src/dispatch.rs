//! Sending one request and waiting for its answer, within the limits of 4.R48.

use std::time::Duration;

use mws_egress::{AgentClient, AgentRequest, AgentResponse, DispatchError};
use mws_events::ActivityWatch;
use tokio::time::{Instant, sleep_until};

/// How long one dispatch may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Silence of the target, its events included, that ends it.
    pub(crate) idle: Duration,
    /// How long a target that gives no sign of life may take to answer.
    pub(crate) header: Duration,
    /// The end, whatever happens.
    pub(crate) ceiling: Option<Duration>,
}

/// Why a dispatch has no answer, by cause (4.R59).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Unreachable,
    ConnectTimeout,
    HeaderTimeout,
    IdleTimeout,
    Reset,
    Deadline,
    Refused,
    NotSent,
}

impl Cause {
    /// The fixed word for the log; the canvas searches it (4.R67).
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Unreachable => "agent offline or unreachable",
            Self::ConnectTimeout => "connect timeout",
            Self::HeaderTimeout => "response timeout",
            Self::IdleTimeout => "idle timeout",
            Self::Reset => "connection reset",
            Self::Deadline => "deadline timeout",
            Self::Refused => "workspace URL is not publicly routable",
            Self::NotSent => "request could not be created",
        }
    }

    pub(crate) const fn is_busy(self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::HeaderTimeout | Self::IdleTimeout | Self::Reset)
    }
}

impl From<&DispatchError> for Cause {
    fn from(error: &DispatchError) -> Self {
        match error {
            DispatchError::Refused(_) => Self::Refused,
            DispatchError::Dns
            | DispatchError::ConnectRefused
            | DispatchError::Unreachable
            | DispatchError::Tls => Self::Unreachable,
            DispatchError::ConnectTimeout => Self::ConnectTimeout,
            DispatchError::Closed | DispatchError::Reset | DispatchError::Protocol => Self::Reset,
            DispatchError::Other => Self::NotSent,
        }
    }
}

/// Measures one dispatch against its limits.
pub(crate) struct Timer {
    started: Instant,
    limits: Limits,
    watch: ActivityWatch,
    last_chunk: Instant,
}

impl Timer {
    pub(crate) fn start(limits: Limits, watch: ActivityWatch) -> Self {
        let started = Instant::now();
        Self { started, limits, watch, last_chunk: started }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A chunk of the body is a sign of life as well (4.R49).
    pub(crate) fn saw_chunk(&mut self) {
        self.last_chunk = Instant::now();
    }

    /// Returns when the target has been silent too long, or the ceiling is reached.
    pub(crate) async fn expired(&self) -> Cause {
        let ceiling = self.limits.ceiling.map(|ceiling| self.started + ceiling);
        loop {
            let silent_at = self.watch.last_seen().max(self.last_chunk) + self.limits.idle;
            let wake = ceiling.map_or(silent_at, |ceiling| ceiling.min(silent_at));
            sleep_until(wake).await;
            if ceiling.is_some_and(|ceiling| Instant::now() >= ceiling) {
                return Cause::Deadline;
            }
            if self.watch.last_seen().max(self.last_chunk) + self.limits.idle <= Instant::now() {
                return Cause::IdleTimeout;
            }
        }
    }

    /// Returns when the headers are overdue and the target has shown no sign of life since the start; one that
    /// did is governed by its silence alone (4.R50).
    async fn headers_overdue(&self) {
        sleep_until(self.started + self.limits.header).await;
        if self.watch.seen_any() {
            std::future::pending::<()>().await;
        }
    }

    /// Sends and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        client: &AgentClient,
        request: AgentRequest<'_>,
    ) -> Result<AgentResponse, Cause> {
        tokio::select! {
            answer = client.post(request) => answer.map_err(|error| {
                tracing::debug!(error = &error as &dyn std::error::Error, "dispatch failed");
                Cause::from(&error)
            }),
            cause = self.expired() => Err(cause),
            () = self.headers_overdue() => Err(Cause::HeaderTimeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_carry_the_words_the_canvas_looks_for() {
        // 4.R67
        for cause in [Cause::ConnectTimeout, Cause::HeaderTimeout, Cause::IdleTimeout, Cause::Deadline] {
            assert!(cause.reason().contains("timeout"));
        }
        assert!(Cause::Reset.reason().contains("connection reset"));
        assert!(Cause::Unreachable.reason().contains("offline"));
    }

    #[test]
    fn busy_is_what_may_have_reached_the_agent() {
        // 4.R59
        let busy: Vec<_> = [
            Cause::Unreachable,
            Cause::ConnectTimeout,
            Cause::HeaderTimeout,
            Cause::IdleTimeout,
            Cause::Reset,
            Cause::Deadline,
            Cause::Refused,
            Cause::NotSent,
        ]
        .into_iter()
        .filter(|cause| cause.is_busy())
        .collect();
        assert_eq!(busy, [Cause::ConnectTimeout, Cause::HeaderTimeout, Cause::IdleTimeout, Cause::Reset]);
    }
}
