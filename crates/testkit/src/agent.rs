//! An HTTP service of a test's own: an agent, a vendor, a control plane.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::wait_for;

/// The longest request body that is read; a longer one is answered by closing the connection.
const BODY_MAX: usize = 64 * 1024 * 1024;

/// How many requests are remembered; later ones are answered only.
const RECEIVED_MAX: usize = 100_000;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Received {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// A header's value, if it was sent and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What a [`FakeAgent`] does with one request.
#[derive(Debug, Clone)]
pub struct Answer {
    delay: Duration,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    Reply { status: StatusCode, headers: HeaderMap, body: Bytes, end: End },
    Hang,
    Close,
}

/// How a body ends, by the number of bytes that are sent of it.
#[derive(Debug, Clone, Copy)]
enum End {
    Whole,
    Cut(usize),
    Stall(usize),
}

impl Answer {
    /// A reply with a status and no body.
    ///
    /// # Panics
    /// When it is no HTTP status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("an HTTP status");
        let act = Act::Reply { status, headers: HeaderMap::new(), body: Bytes::new(), end: End::Whole };
        Self { delay: Duration::ZERO, act }
    }

    /// A reply with a JSON body.
    ///
    /// # Panics
    /// When it is no HTTP status.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::status(status).header("content-type", "application/json").body(body.to_string())
    }

    /// No answer on an open connection.
    #[must_use]
    pub const fn hang() -> Self {
        Self { delay: Duration::ZERO, act: Act::Hang }
    }

    /// No answer on a connection that closes.
    #[must_use]
    pub const fn close() -> Self {
        Self { delay: Duration::ZERO, act: Act::Close }
    }

    /// With one more header.
    ///
    /// # Panics
    /// When it is no header, or this is no reply.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        let value = HeaderValue::from_str(value).expect("a header's value");
        self.reply(|headers, _, _| {
            headers.append(name, value);
        })
    }

    /// With this body.
    ///
    /// # Panics
    /// When this is no reply.
    #[must_use]
    pub fn body(self, content: impl Into<Bytes>) -> Self {
        self.reply(|_, body, _| *body = content.into())
    }

    /// The length of the whole body is announced, this many bytes of it are sent, and the connection closes.
    ///
    /// # Panics
    /// When this is no reply.
    #[must_use]
    pub fn cut_after(self, bytes: usize) -> Self {
        self.reply(|_, _, end| *end = End::Cut(bytes))
    }

    /// The length of the whole body is announced, this many bytes of it are sent, and nothing more comes.
    ///
    /// # Panics
    /// When this is no reply.
    #[must_use]
    pub fn stall_after(self, bytes: usize) -> Self {
        self.reply(|_, _, end| *end = End::Stall(bytes))
    }

    /// Only after this time.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    fn reply(mut self, change: impl FnOnce(&mut HeaderMap, &mut Bytes, &mut End)) -> Self {
        match &mut self.act {
            Act::Reply { headers, body, end, .. } => change(headers, body, end),
            Act::Hang | Act::Close => panic!("an answer that never comes has no headers and no body"),
        }
        self
    }
}

type Script = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

struct State {
    script: Script,
    received: Vec<Received>,
}

/// A service on `127.0.0.1` that answers by a script and remembers what it was asked. HTTP/1.1. It has a
/// thread and a clock of its own, so a test may block or pause tokio's; it ends with the value, open
/// connections too.
pub struct FakeAgent {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeAgent {
    /// Starts on a free port.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn start(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("the port's number");
        listener.set_nonblocking(true).expect("a listener for tokio");
        let state = Arc::new(Mutex::new(State { script: Arc::new(script), received: Vec::new() }));
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("fake-agent".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(serve(listener, served, stopped));
            })
            .expect("a thread");
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers by another script from the next request on.
    pub fn answer_with(&self, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) {
        lock(&self.state).script = Arc::new(script);
    }

    /// The requests so far, in the order in which their bodies were complete.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state).received.clone()
    }

    /// Waits until this many requests have come; all of them.
    ///
    /// # Panics
    /// When they do not come in time.
    pub async fn wait_received(&self, count: usize) -> Vec<Received> {
        wait_for(&format!("{count} requests at the fake agent"), async || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }
}

impl std::fmt::Debug for FakeAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeAgent").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            panic!("the fake agent's thread panicked");
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until the sender is dropped; connections end with it.
async fn serve(
    listener: std::net::TcpListener,
    state: Arc<Mutex<State>>,
    mut stopped: oneshot::Receiver<Infallible>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Connections that ended come before the end of all: a script's panic is not to be lost.
            biased;
            Some(ended) = connections.join_next() => {
                // A script that panicked, such as by an assertion on the request.
                if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
            _ = &mut stopped => return,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    // Ends in an error whenever the script closes or the client leaves.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }
    }
}

/// Makes hyper close the connection.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by the script")
    }
}

impl std::error::Error for Closed {}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<ScriptedBody>, Closed> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_MAX).collect().await.map_err(|_| Closed)?.to_bytes();
    let received = Received { method: head.method, uri: head.uri, headers: head.headers, body };
    let script = {
        let mut state = lock(&state);
        if state.received.len() < RECEIVED_MAX {
            state.received.push(received.clone());
        }
        Arc::clone(&state.script)
    };
    let Answer { delay, act } = script(&received);
    tokio::time::sleep(delay).await;
    match act {
        Act::Hang => std::future::pending().await,
        Act::Close => Err(Closed),
        Act::Reply { status, headers, body, end } => {
            let mut response = Response::new(ScriptedBody::new(body, end));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        }
    }
}

/// A body that announces its whole length and may end early.
struct ScriptedBody {
    length: usize,
    first: Option<Bytes>,
    end: End,
    flushed: bool,
}

impl ScriptedBody {
    fn new(body: Bytes, end: End) -> Self {
        let sent = match end {
            End::Whole => body.len(),
            End::Cut(bytes) | End::Stall(bytes) => bytes.min(body.len()),
        };
        let first = Some(body.slice(..sent)).filter(|first| !first.is_empty());
        Self { length: body.len(), first, end, flushed: false }
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            // What came before is written out while this waits; the error would drop it.
            End::Cut(_) if !self.flushed => {
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::Cut(_) => Poll::Ready(Some(Err(Closed))),
            End::Stall(_) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Whole) && self.first.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length as u64)
    }
}
