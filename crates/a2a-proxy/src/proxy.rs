use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use mws_db::Db;
use mws_db::activity::ActivityLog;
use mws_db::messages::TargetRow;
use mws_db::stamps::Stamps;
use mws_egress::{AgentClient, AgentRequest, AgentResponse, Trust};
use mws_events::Hub;
use mws_models::{WorkspaceId, WorkspaceStatus, is_external_like};
use mws_runtime::tasks::Spawner;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use crate::AgentControl;
use crate::call::{AgentReply, Call, CallError, CallerClass, Outcome};
use crate::dispatch::{Cause, Limits, Timer};
use crate::log::{End, Entry, record, tell_canvas};
use crate::normalise::{Generation, Normalised, normalise};
use crate::reply::{Reading, error_text, is_dead_origin, upstream_json};

/// The most of an answer that is read (4.R52).
const MAX_ANSWER: usize = 10_485_760;
/// Dispatches to one target at a time (4.R51).
const MAX_DISPATCHES: usize = 64;
/// The ceiling of a call that names its caller and no deadline.
const CEILING: Duration = Duration::from_secs(1800);

/// Headers of the protocol, passed on as the caller sent them (4.R46).
const FORWARDED: [&str; 7] =
    ["a2a-version", "a2a-extensions", "x-a2a-extensions", "traceparent", "tracestate", "baggage", "accept"];

/// Limits and placement of this installation.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Silence that ends a dispatch, unless the target declares its own.
    pub idle_timeout: Duration,
    /// How long a target without a sign of life may take to answer.
    pub header_timeout: Duration,
}

/// The parts a proxy works with.
pub struct ProxyParts {
    /// Reads targets.
    pub db: Db,
    /// Dials agents.
    pub client: AgentClient,
    /// Keeps the rows of calls.
    pub log: ActivityLog,
    /// Keeps what may be written later.
    pub stamps: Stamps,
    /// Hears of every event and tells the screens.
    pub hub: Hub,
    /// Knows whether an agent still runs.
    pub agents: Arc<dyn AgentControl>,
    /// Runs what outlives a call.
    pub spawner: Spawner,
    /// This installation.
    pub options: ProxyOptions,
}

/// The proxy. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    parts: ProxyParts,
    slots: Slots,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("options", &self.inner.parts.options).finish_non_exhaustive()
    }
}

/// Dispatches under way, per target. An entry lives as long as somebody holds one of its permits.
#[derive(Default)]
struct Slots {
    targets: Mutex<HashMap<WorkspaceId, Arc<Semaphore>>>,
}

impl Slots {
    fn take(&self, target: WorkspaceId) -> Option<OwnedSemaphorePermit> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if targets.len() > 1024 {
            targets.retain(|_, slots| slots.available_permits() < MAX_DISPATCHES);
        }
        let slots = targets.entry(target).or_insert_with(|| Arc::new(Semaphore::new(MAX_DISPATCHES)));
        slots.clone().try_acquire_owned().ok()
    }
}

/// One call past its checks.
pub(crate) struct Prepared {
    pub(crate) call: Call,
    pub(crate) target: TargetRow,
    pub(crate) request: Normalised,
}

impl Prepared {
    fn entry(&self, duration: Option<Duration>) -> Entry<'_> {
        Entry {
            target: self.call.target,
            target_name: &self.target.name,
            source: self.call.caller.source(self.call.target),
            method: self.request.method.as_deref(),
            request: &self.request.body,
            duration,
        }
    }
}

impl Proxy {
    /// Builds a proxy.
    #[must_use]
    pub fn new(parts: ProxyParts) -> Self {
        Self { inner: Arc::new(Inner { parts, slots: Slots::default() }) }
    }

    pub(crate) fn parts(&self) -> &ProxyParts {
        &self.inner.parts
    }

    /// Carries one call out, in the order of 4.R10 from the hierarchy on. Not to be cancelled: spawn it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&self, call: Call) -> Result<Outcome, CallError> {
        let caller = match call.caller {
            CallerClass::Workspace(id) => Some(id),
            CallerClass::Canvas | CallerClass::Itself => None,
        };
        let row = self.parts().db.call_target(call.target, caller).await?;
        if !row.allowed {
            return Err(CallError::AccessDenied);
        }
        let spent =
            row.target.as_ref().is_some_and(|t| t.budget_limit.is_some_and(|limit| t.monthly_spend >= limit));
        if spent {
            return Err(CallError::BudgetExceeded);
        }
        let version = call.headers.get("a2a-version").and_then(|value| value.to_str().ok());
        let request = normalise(call.body.clone(), version)?;
        let target = row
            .target
            .filter(|target| target.status != WorkspaceStatus::Removed)
            .ok_or(CallError::NotFound)?;
        let prepared = Prepared { call, target, request };
        if prepared.target.polls() {
            return self.store(&prepared).await;
        }
        self.deliver(prepared).await
    }

    /// Keeps the message for an agent that fetches it; committed before the answer (4.R35, 4.R36).
    async fn store(&self, prepared: &Prepared) -> Result<Outcome, CallError> {
        let parts = self.parts();
        let appended = record(&parts.log, &parts.hub, &prepared.entry(None), &End::Stored).await?;
        self.stamp(prepared);
        Ok(Outcome::Stored {
            method: prepared.request.method.clone().unwrap_or_default(),
            activity_id: appended.id,
        })
    }

    async fn deliver(&self, prepared: Prepared) -> Result<Outcome, CallError> {
        let (url, trust) = match self.address(&prepared).await {
            Ok(address) => address,
            Err(error) => {
                self.log_failure(&prepared, None, &refusal_reason(&error), false).await;
                return Err(error);
            }
        };
        let native_session =
            prepared.target.declaration.as_ref().is_some_and(|d| d.capabilities.has_native_session());
        let Some(permit) = self.inner.slots.take(prepared.call.target) else {
            self.log_failure(&prepared, None, "busy: too many dispatches", false).await;
            return Err(CallError::Busy { native_session });
        };
        let timer = Timer::start(self.limits(&prepared), self.parts().hub.watch(prepared.call.target));
        let headers = request_headers(&prepared);
        let request = AgentRequest { url: &url, trust, headers, body: prepared.request.body.clone() };
        match timer.send(&self.parts().client, request).await {
            Ok(response) => self.answered(prepared, response, timer, permit).await,
            Err(cause) => Err(self.no_answer(&prepared, cause, &timer, native_session).await),
        }
    }

    /// Where the target is dialled (4 §1.6).
    async fn address(&self, prepared: &Prepared) -> Result<(Url, Trust), CallError> {
        let target = &prepared.target;
        let stored = target.url.as_deref().unwrap_or_default();
        if target.status == WorkspaceStatus::Paused || stored.is_empty() {
            return Err(CallError::NoUrl { status: target.status });
        }
        let provisioned = target.url_provisioned && !is_external_like(&target.runtime);
        let trust = if provisioned { Trust::PlatformProvisioned } else { Trust::Reported };
        let published = provisioned && stored.starts_with("http://127.0.0.1:");
        let beside = published && self.parts().agents.reached_by_name().await;
        let url = if beside {
            Url::parse(&format!("http://ws-{}:8000", prepared.call.target.short()))
        } else {
            Url::parse(stored)
        };
        url.map(|url| (url, trust)).map_err(|_| CallError::UrlRefused)
    }

    fn limits(&self, prepared: &Prepared) -> Limits {
        let options = &self.parts().options;
        let declared = prepared.target.declaration.as_ref().and_then(|d| d.idle_timeout_seconds);
        let own_idle = declared.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let ceiling = match (prepared.call.deadline, prepared.call.caller) {
            (Some(deadline), _) => deadline,
            (None, CallerClass::Canvas) => None,
            (None, _) => Some(CEILING),
        };
        Limits {
            idle: own_idle.unwrap_or(options.idle_timeout),
            header: own_idle.map_or(options.header_timeout, |idle| idle.max(options.header_timeout)),
            ceiling,
        }
    }

    async fn answered(
        &self,
        prepared: Prepared,
        mut response: AgentResponse,
        mut timer: Timer,
        permit: OwnedSemaphorePermit,
    ) -> Result<Outcome, CallError> {
        let status = response.status;
        if is_dead_origin(status.as_u16()) && self.is_dead(&prepared).await {
            self.log_failure(&prepared, Some(timer.elapsed()), "agent offline: restarting", false).await;
            return Err(CallError::Restarting);
        }
        let content_type = content_type(&response.headers);
        if status.is_success() && is_event_stream(&content_type) {
            return Ok(Outcome::Streaming(self.stream(prepared, response, content_type, timer, permit)));
        }
        let body = collect(&mut response, &mut timer).await;
        drop(permit);
        let body = match body {
            Ok(body) => body,
            Err(lost) => return Err(self.lost(&prepared, status, lost, timer.elapsed()).await),
        };
        let took = timer.elapsed();
        if !status.is_success() {
            let text = error_text(status, &body);
            self.log_answer(&prepared, &body, Some(text.clone()), None, took).await;
            return Err(CallError::AgentFailed {
                status: status.as_u16(),
                text,
                upstream: upstream_json(&body),
            });
        }
        let Reading { is_json, rpc_error, tool_trace } = Reading::of(&body);
        let content_type = if is_json { "application/json".to_owned() } else { content_type };
        self.log_answer(&prepared, &body, rpc_error, tool_trace, took).await;
        self.delivered(&prepared, &body, took);
        Ok(Outcome::Answered(AgentReply { status: status.as_u16(), content_type, body }))
    }

    /// What follows a delivery, apart from its row.
    pub(crate) fn delivered(&self, prepared: &Prepared, body: &[u8], took: Duration) {
        self.note_delivery(prepared);
        if prepared.call.caller == CallerClass::Canvas {
            let method = prepared.request.method.as_deref();
            tell_canvas(&self.parts().hub, prepared.call.target, method, body, took);
        }
    }

    /// The target's idle clock starts again, and the caller has been heard of (4.R70).
    pub(crate) fn note_delivery(&self, prepared: &Prepared) {
        self.parts().stamps.delivered(prepared.call.target);
        self.stamp(prepared);
    }

    fn stamp(&self, prepared: &Prepared) {
        if let Some(caller) = prepared.call.caller.source(prepared.call.target) {
            self.parts().stamps.outbound(caller);
        }
    }

    async fn is_dead(&self, prepared: &Prepared) -> bool {
        !is_external_like(&prepared.target.runtime) && self.parts().agents.is_dead(prepared.call.target).await
    }

    /// A dispatch without an answer: container check, then the row, then the class (4.R58).
    async fn no_answer(
        &self,
        prepared: &Prepared,
        cause: Cause,
        timer: &Timer,
        native_session: bool,
    ) -> CallError {
        let checked = !matches!(cause, Cause::Refused | Cause::NotSent);
        let dead = checked && self.is_dead(prepared).await;
        let reason = if dead { "agent offline: restarting" } else { cause.reason() };
        self.log_failure(prepared, Some(timer.elapsed()), reason, false).await;
        match cause {
            _ if dead => CallError::Restarting,
            Cause::Refused => CallError::UrlRefused,
            Cause::NotSent => CallError::Internal,
            Cause::Deadline => CallError::TimedOut,
            cause if cause.is_busy() => CallError::Busy { native_session },
            _ => CallError::Unreachable,
        }
    }

    async fn lost(&self, prepared: &Prepared, status: StatusCode, lost: Lost, took: Duration) -> CallError {
        // Whatever became of its answer, the agent has taken the message (4.R56).
        let delivered = status.as_u16() < 400;
        let (reason, error) = match lost {
            Lost::TooLarge => ("agent response too large", CallError::AnswerTooLarge),
            Lost::Cause(cause) => (cause.reason(), CallError::AnswerLost { delivered }),
        };
        self.log_failure(prepared, Some(took), reason, delivered).await;
        if delivered {
            self.note_delivery(prepared);
        }
        error
    }

    pub(crate) async fn log_answer(
        &self,
        prepared: &Prepared,
        body: &[u8],
        error: Option<String>,
        tool_trace: Option<String>,
        took: Duration,
    ) {
        let end = End::Answered { body, error, tool_trace };
        self.log(prepared, Some(took), &end).await;
    }

    pub(crate) async fn log_failure(
        &self,
        prepared: &Prepared,
        took: Option<Duration>,
        reason: &str,
        delivered: bool,
    ) {
        self.log(prepared, took, &End::Failed { reason, delivered }).await;
    }

    async fn log(&self, prepared: &Prepared, took: Option<Duration>, end: &End<'_>) {
        let parts = self.parts();
        if let Err(error) = record(&parts.log, &parts.hub, &prepared.entry(took), end).await {
            tracing::error!(workspace_id = %prepared.call.target, error = &error as &dyn std::error::Error,
                "the row of a message was lost");
        }
    }
}

enum Lost {
    TooLarge,
    Cause(Cause),
}

async fn collect(response: &mut AgentResponse, timer: &mut Timer) -> Result<Bytes, Lost> {
    let mut whole: Vec<u8> = Vec::new();
    loop {
        let next = tokio::select! {
            next = response.body.next_chunk() => next,
            cause = timer.expired() => return Err(Lost::Cause(cause)),
        };
        match next {
            None => return Ok(Bytes::from(whole)),
            Some(Err(error)) => return Err(Lost::Cause(Cause::from(&error))),
            Some(Ok(chunk)) => {
                timer.saw_chunk();
                if whole.len() + chunk.len() > MAX_ANSWER {
                    return Err(Lost::TooLarge);
                }
                whole.extend_from_slice(&chunk);
            }
        }
    }
}

fn refusal_reason(error: &CallError) -> String {
    match error {
        CallError::NoUrl { status } => format!("agent offline: no URL ({status})"),
        _ => Cause::Refused.reason().to_owned(),
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or("application/octet-stream").to_owned()
}

fn is_event_stream(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("text/event-stream")
}

fn request_headers(prepared: &Prepared) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(FORWARDED.len() + 3);
    for name in FORWARDED {
        let name = HeaderName::from_static(name);
        for value in prepared.call.headers.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if prepared.request.generation == Generation::V1 && !headers.contains_key("a2a-version") {
        headers.insert("a2a-version", HeaderValue::from_static("1.0"));
    }
    if let CallerClass::Workspace(caller) = prepared.call.caller
        && let Ok(value) = HeaderValue::from_str(&caller.to_string())
    {
        headers.insert("x-workspace-id", value);
    }
    headers
}
