//! Requests to agents.

mod body;
mod connect;
mod error;
mod pool;
mod socket;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use url::{Position, Url};

pub use self::body::{AgentBody, BodyError};
pub use self::error::DispatchError;

use self::connect::Connector;
use self::pool::Pool;
use crate::{AgentGuard, Trust};

/// One POST to an agent.
pub struct AgentRequest<'a> {
    /// Dialled exactly as it is; a fragment is not sent.
    pub url: &'a Url,
    /// Who made the URL.
    pub trust: Trust,
    /// Sent as they are, apart from `Host` and what frames the body, which the client sets itself.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The head of an agent's answer, and its body as it arrives.
pub struct AgentResponse {
    /// Any status; redirects are not followed (5.R166).
    pub status: StatusCode,
    /// The agent's headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: AgentBody,
}

/// HTTP/1.1 client for agents, over kept-alive connections. Cheap to clone; clones share their connections.
///
/// The guard judges the URL of every request and, while connecting, every address of its host; connections made
/// under one [`Trust`] never carry a request of the other. At most 64 idle connections per agent and 1,024 in
/// all are kept, each for at most a minute.
///
/// A connection must be made within 10 s and its TLS handshake within another 10 s (4.R48). There is no other
/// time limit: how long an agent may think is for the caller to say.
#[derive(Clone)]
pub struct AgentClient {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    reported: Arc<Pool>,
    provisioned: Arc<Pool>,
}

impl AgentClient {
    /// A client behind a guard. Uses the system's trust store for https, read when first needed.
    #[must_use]
    pub fn new(guard: AgentGuard) -> Self {
        crate::install_crypto();
        Self::on(Connector::new(guard))
    }

    fn on(connector: Connector) -> Self {
        Self { inner: Arc::new(Inner { connector, reported: Arc::default(), provisioned: Arc::default() }) }
    }

    /// Sends one request and returns when the head of the answer is there.
    ///
    /// A kept connection that the agent has closed meanwhile is replaced without a trace (4.R51); a request of
    /// which a byte may have left is never sent twice. Needs a Tokio runtime. Dropping the future cancels the
    /// request and closes its connection.
    ///
    /// # Errors
    /// [`DispatchError`] by cause.
    pub async fn post(&self, request: AgentRequest<'_>) -> Result<AgentResponse, DispatchError> {
        let AgentRequest { url, trust, headers, body } = request;
        let Inner { connector, reported, provisioned } = &*self.inner;
        connector.guard().check_literal(url, trust)?;

        let pool = match trust {
            Trust::Reported => reported,
            Trust::PlatformProvisioned => provisioned,
        };
        let mut message = message(url, headers, body)?;
        loop {
            let idle = pool.checkout(&url[..Position::BeforePath]).await;
            let reused = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => connector.connect(url, trust).await?,
            };
            message.headers_mut().insert(HOST, connection.host.clone());
            match connection.sender.try_send_request(message).await {
                Ok(response) => {
                    let (head, incoming) = response.into_parts();
                    let body = AgentBody::new(incoming, connection, Arc::clone(pool));
                    return Ok(AgentResponse { status: head.status, headers: head.headers, body });
                }
                // hyper hands the message back only when nothing of it was sent.
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) if reused => message = unsent,
                    _ => return Err(error::classify(failure.error())),
                },
            }
        }
    }
}

fn message(url: &Url, mut headers: HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>, DispatchError> {
    for framing in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(framing);
    }
    let mut message = Request::new(Full::new(body));
    *message.method_mut() = Method::POST;
    *message.uri_mut() =
        Uri::try_from(&url[Position::BeforePath..Position::AfterQuery]).map_err(|_| DispatchError::Other)?;
    *message.headers_mut() = headers;
    Ok(message)
}
