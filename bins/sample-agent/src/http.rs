//! One plain HTTP request over a connection of its own.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const CONNECT: Duration = Duration::from_secs(10);

/// Where the server is: `http://host[:port][/base]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    base: String,
}

impl Endpoint {
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        if uri.scheme_str() != Some("http") {
            return None;
        }
        Some(Self {
            host: uri.host().filter(|host| !host.is_empty())?.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.base)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("no answer in time")]
    Deadline,
    #[error("broken exchange: {0}")]
    Exchange(Box<dyn std::error::Error + Send + Sync>),
}

fn exchange(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HttpError {
    HttpError::Exchange(error.into())
}

pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Below the endpoint's base, with its leading `/`.
    pub(crate) path: &'a str,
    pub(crate) bearer: Option<&'a str>,
    pub(crate) workspace: Option<&'a str>,
    pub(crate) body: Option<Bytes>,
    /// For the whole exchange.
    pub(crate) deadline: Duration,
    /// Of the answer, in bytes.
    pub(crate) cap: usize,
}

/// Answers with any status are answers.
pub(crate) async fn send(endpoint: &Endpoint, call: Call<'_>) -> Result<(StatusCode, Bytes), HttpError> {
    tokio::time::timeout(call.deadline, send_now(endpoint, call)).await.map_err(|_| HttpError::Deadline)?
}

async fn send_now(endpoint: &Endpoint, call: Call<'_>) -> Result<(StatusCode, Bytes), HttpError> {
    let address = endpoint.authority();
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(&address))
        .await
        .map_err(|_| HttpError::Deadline)?
        .map_err(HttpError::Connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(exchange)?;

    let mut request = Request::builder()
        .method(call.method)
        .uri(format!("{}{}", endpoint.base, call.path))
        .header(HOST, &address);
    if let Some(token) = call.bearer {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(workspace) = call.workspace {
        request = request.header("X-Workspace-ID", workspace);
    }
    if call.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(call.body.unwrap_or_default())).map_err(exchange)?;

    let answer = async {
        let response = sender.send_request(request).await.map_err(exchange)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), call.cap).collect().await.map_err(exchange)?;
        Ok((status, body.to_bytes()))
    };
    // The connection's future moves the bytes; the exchange is over when the answer is whole.
    let mut answer = std::pin::pin!(answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        closed = &mut connection => {
            // What has arrived may still be read.
            let answer = answer.await;
            closed.map_err(exchange).and(answer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_plain_http() {
        let parsed = |url| Endpoint::parse(url).map(|endpoint| endpoint.to_string());
        assert_eq!(parsed("http://host:8080/").as_deref(), Some("http://host:8080"));
        assert_eq!(parsed("http://host/base/").as_deref(), Some("http://host:80/base"));
        for bad in ["https://host", "host:8080", "http://", "", "ftp://x"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
