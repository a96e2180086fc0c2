//! What the agent serves: A2A, its card, and the routes that the server calls with a secret.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming as IncomingBody;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::a2a::{self, Incoming};
use crate::behaviour::Command;
use crate::credentials::{self, AUTH_TOKEN, INBOUND_SECRET};
use crate::platform::Platform;
use crate::state::Agent;
use crate::{files, log, uploads};

/// One client, the server, is the only intended caller.
const MAX_CONNECTIONS: usize = 128;
const MAX_MESSAGE: usize = 1024 * 1024;
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// What the process ends with when it is asked to crash.
const CRASH_CODE: i32 = 3;
/// A JSON-RPC code of the range that is left to servers.
const ASK_FAILED: i32 = -32000;

pub(crate) type Reply = Response<BoxBody<Bytes, io::Error>>;

pub(crate) async fn serve(listener: TcpListener, agent: Arc<Agent>, platform: Arc<Platform>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::line(&format!("no connection accepted: {error}"));
                // Out of descriptors, most likely: some must be closed first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (agent, platform) = (Arc::clone(&agent), Arc::clone(&platform));
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (agent, platform) = (Arc::clone(&agent), Arc::clone(&platform));
                async move { Ok::<_, Infallible>(route(request, agent, platform).await) }
            });
            // A client that hangs up is no event.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(slot);
        });
    }
}

async fn route(request: Request<IncomingBody>, agent: Arc<Agent>, platform: Arc<Platform>) -> Reply {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    match (method, path.as_str()) {
        (Method::POST, "/") => message(request, agent, platform).await,
        (Method::GET, "/.well-known/agent.json" | "/.well-known/agent-card.json") => {
            answer(StatusCode::OK, &agent.served_card())
        }
        (Method::POST, "/internal/chat/uploads/ingest") => {
            if !authorised(request.headers(), &agent, INBOUND_SECRET).await {
                return unauthorised();
            }
            uploads::ingest(request, &agent.settings.workspace).await
        }
        (Method::GET, "/internal/file/read") => {
            if !authorised(request.headers(), &agent, INBOUND_SECRET).await {
                return unauthorised();
            }
            files::read(request.uri().query().unwrap_or_default(), &agent.settings).await
        }
        (Method::GET, "/transcript") => {
            if !authorised(request.headers(), &agent, AUTH_TOKEN).await {
                return unauthorised();
            }
            answer(StatusCode::OK, &json!({"supported": false}))
        }
        _ => failure(StatusCode::NOT_FOUND, "not found"),
    }
}

async fn authorised(headers: &HeaderMap, agent: &Agent, secret: &str) -> bool {
    let presented = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let secret = credentials::read(&agent.settings.configs, secret).await;
    credentials::matches(presented, secret.as_deref())
}

fn unauthorised() -> Reply {
    failure(StatusCode::UNAUTHORIZED, "unauthorized")
}

async fn message(request: Request<IncomingBody>, agent: Arc<Agent>, platform: Arc<Platform>) -> Reply {
    let body = match collect(request.into_body(), MAX_MESSAGE, BODY_WITHIN).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let (id, text) = match a2a::parse(&body) {
        Incoming::Message { id, text } => (id, text),
        Incoming::Refused { id, code, reason } => {
            return answer(StatusCode::OK, &a2a::error(&id, code, reason));
        }
    };
    let _task = agent.begin_task(&text);
    match Command::parse(&text) {
        Command::Crash => std::process::exit(CRASH_CODE),
        Command::Fail => failure(StatusCode::INTERNAL_SERVER_ERROR, "asked to fail"),
        Command::Sleep(time) => {
            tokio::time::sleep(time).await;
            answer(StatusCode::OK, &a2a::result(&id, &format!("slept {} s", time.as_secs())))
        }
        Command::Echo(text) => answer(StatusCode::OK, &a2a::result(&id, &format!("echo: {text}"))),
        Command::Ask { name, text } => match platform.ask(name, text).await {
            Ok(reply) => answer(StatusCode::OK, &a2a::result(&id, &reply)),
            Err(error) => {
                log::line(&format!("could not ask {name:?}: {error}"));
                let reason = format!("could not ask {name}");
                answer(StatusCode::OK, &a2a::error(&id, ASK_FAILED, &reason))
            }
        },
    }
}

/// The whole body, or the answer to one that is too large, too slow or broken.
pub(crate) async fn collect(body: IncomingBody, cap: usize, within: Duration) -> Result<Bytes, Reply> {
    match tokio::time::timeout(within, Limited::new(body, cap).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(failure(StatusCode::PAYLOAD_TOO_LARGE, "request body too large"))
        }
        Ok(Err(_)) => Err(failure(StatusCode::BAD_REQUEST, "failed to read request body")),
        Err(_) => Err(failure(StatusCode::REQUEST_TIMEOUT, "request body too slow")),
    }
}

pub(crate) fn failure(status: StatusCode, reason: &str) -> Reply {
    answer(status, &json!({"error": reason}))
}

pub(crate) fn answer(status: StatusCode, body: &Value) -> Reply {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}
