//! Calls to services whose base URL the operator configured.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::tls;

/// Time for a connection, its TLS handshake included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection waits for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections kept per host.
const MAX_IDLE_PER_HOST: usize = 16;

/// One call. `Debug` shows no header value, no body and no URL: each may hold a credential.
pub struct OperatorRequest {
    /// The method.
    pub method: Method,
    /// Any http or https URL.
    pub url: Url,
    /// Sent as they are.
    pub headers: HeaderMap,
    /// The body, if any.
    pub body: Option<Bytes>,
    /// Time for the whole call, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of body that are read at most.
    pub max_body: usize,
}

impl fmt::Debug for OperatorRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorRequest")
            .field("method", &self.method)
            .field("headers", &HeaderNames(&self.headers))
            .field("body_len", &self.body.as_ref().map(Bytes::len))
            .field("timeout", &self.timeout)
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}

/// A whole answer. `Debug` shows no header value and no body.
#[derive(Clone)]
pub struct OperatorResponse {
    /// Any status; redirects are not followed.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most [`OperatorRequest::max_body`] bytes.
    pub body: Bytes,
}

impl fmt::Debug for OperatorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorResponse")
            .field("status", &self.status)
            .field("headers", &HeaderNames(&self.headers))
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

struct HeaderNames<'a>(&'a HeaderMap);

impl fmt::Debug for HeaderNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Why a call gave no (complete) answer. Carries no text of the service, its host or its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The URL or the request cannot be sent over HTTP. Nothing was sent.
    #[error("the request is not a valid HTTP request")]
    InvalidRequest,
    /// No connection: name, route, refusal or TLS. Nothing was sent.
    #[error("the service is unreachable")]
    Unreachable,
    /// No connection in time. Nothing was sent.
    #[error("timeout while connecting to the service")]
    ConnectTimeout,
    /// No complete answer in time. The service may have acted.
    #[error("timeout while waiting for the service")]
    Timeout,
    /// The connection ended or broke before the answer was complete. The service may have acted.
    #[error("the service broke off its answer")]
    Interrupted,
    /// The body is larger than the caller's limit. The service has acted.
    #[error("the answer of the service is too large")]
    TooLarge,
}

/// HTTP client for operator-configured services. Cheap to clone; clones share their connections.
///
/// Follows no redirects and uses no proxy.
#[derive(Clone)]
pub struct OperatorClient {
    http: reqwest::Client,
}

impl OperatorClient {
    /// A client on the system's trust store, which is read here (blocking).
    ///
    /// # Errors
    /// [`OperatorError::InvalidRequest`] when the HTTP stack cannot be set up.
    pub fn new() -> Result<Self, OperatorError> {
        #[expect(clippy::disallowed_methods, reason = "this crate is the home of outbound HTTP")]
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(&[b"h2", b"http/1.1"]))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_DEADLINE)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build()
            .map_err(|_| OperatorError::InvalidRequest)?;
        Ok(Self { http })
    }

    /// Makes one call and reads its whole answer. Dropping the future cancels the call.
    ///
    /// # Errors
    /// [`OperatorError`] by cause. A status of 400 or more is an answer, not an error.
    pub async fn send(&self, request: OperatorRequest) -> Result<OperatorResponse, OperatorError> {
        let OperatorRequest { method, url, headers, body, timeout, max_body } = request;
        let mut call = self.http.request(method, url).headers(headers).timeout(timeout);
        if let Some(body) = body {
            call = call.body(body);
        }
        let mut response = call.send().await.map_err(|error| classify(&error))?;

        let announced = response.content_length().unwrap_or(0);
        if usize::try_from(announced).map_or(true, |announced| announced > max_body) {
            return Err(OperatorError::TooLarge);
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if body.len() + chunk.len() > max_body {
                return Err(OperatorError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(OperatorResponse { status: response.status(), headers, body: body.freeze() })
    }
}

fn classify(error: &reqwest::Error) -> OperatorError {
    match (error.is_builder(), error.is_connect(), error.is_timeout()) {
        (true, _, _) => OperatorError::InvalidRequest,
        (_, true, true) => OperatorError::ConnectTimeout,
        (_, true, false) => OperatorError::Unreachable,
        (_, false, true) => OperatorError::Timeout,
        (_, false, false) => OperatorError::Interrupted,
    }
}

#[cfg(test)]
#[path = "operator_tests.rs"]
mod tests;
