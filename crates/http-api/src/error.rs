//! The one error of the API, and how it looks on the wire (1.R3, 5.R63, 5.R76).

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use mws_wsauth::Denied;
use serde_json::{Map, Value};

use crate::reply;

/// A refusal or failure, ready to be sent. Its text is fixed or made of the caller's own input, never of a
/// driver's, a host's or an upstream's words.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    /// `None`: the route's own sentence for "it failed".
    error: Option<Cow<'static, str>>,
    extra: Map<String, Value>,
    retry_after: Option<u32>,
}

impl ApiError {
    /// A reply with a sentence.
    pub fn new(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        Self { status, error: Some(error.into()), extra: Map::new(), retry_after: None }
    }

    /// 400 with a sentence.
    pub fn bad_request(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// 404 with a sentence.
    pub fn not_found(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// 503 with a sentence.
    pub fn unavailable(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    /// 500 with the sentence of the route.
    pub(crate) fn failed() -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, error: None, extra: Map::new(), retry_after: None }
    }

    /// The one answer when the database cannot be asked (5.R76).
    pub(crate) fn platform_unavailable() -> Self {
        Self::unavailable(Denied::Unavailable.message()).code("platform_unavailable").retry_after(5)
    }

    /// 413, of any body (1.R9).
    pub(crate) fn body_too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request body too large").code("BODY_TOO_LARGE")
    }

    /// Adds a stable code.
    #[must_use]
    pub fn code(self, code: &'static str) -> Self {
        self.with("code", code)
    }

    /// Adds a field to the body.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(field.to_owned(), value.into());
        self
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The same with the route's sentence where it has none of its own.
    pub(crate) fn or_sentence(mut self, sentence: &'static str) -> Self {
        self.error.get_or_insert(Cow::Borrowed(sentence));
        self
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let status = StatusCode::from_u16(denied.status()).unwrap_or(StatusCode::UNAUTHORIZED);
        let mut error = Self::new(status, denied.message());
        if let Some(code) = denied.code() {
            error = error.code(code);
        }
        error.retry_after = denied.retry_after();
        error
    }
}

impl From<mws_db::Error> for ApiError {
    fn from(error: mws_db::Error) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "database error");
        if error.is_unavailable() { Self::platform_unavailable() } else { Self::failed() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let sentence = self.error.unwrap_or(Cow::Borrowed("internal error"));
        let mut body = Map::new();
        body.insert("error".into(), sentence.into());
        body.extend(self.extra);
        let mut response = reply::json(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
