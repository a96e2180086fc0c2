//! The router built from the table, and what every request passes: request id, log span, panic barrier.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodFilter;
use http::{HeaderValue, Method, StatusCode};
use tracing::Instrument;
use uuid::Uuid;

use crate::linger::LingeringBody;
use crate::route::{Incoming, Route};
use crate::{Api, ApiError, routes};

const REQUEST_ID: &str = "x-request-id";

/// The service of every route in the table, each with and without a trailing slash (1.R6). What is in no route
/// is 404, whatever the method (1.R5).
pub fn router(api: Api) -> Router {
    let mut router = Router::new();
    for route in routes::table() {
        let Some(filter) = method_filter(&route.method) else { continue };
        let pattern = route.pattern();
        let answer = move |State(api): State<Api>, request: Request| {
            let route = route.clone();
            async move { serve(api, &route, request).await }
        };
        let service = axum::routing::on(filter, answer);
        router = router.route(&format!("{pattern}/"), service.clone()).route(&pattern, service);
    }
    router.fallback(not_found).method_not_allowed_fallback(not_found).with_state(api)
}

fn method_filter(method: &Method) -> Option<MethodFilter> {
    MethodFilter::try_from(method.clone()).ok()
}

async fn not_found(State(api): State<Api>, request: Request) -> Response {
    let id = request_id(&request);
    drop(LingeringBody::new(request.into_body(), api.parts().spawner.clone()));
    tag(ApiError::not_found("not found").into_response(), &id)
}

/// Runs one request detached from its connection: a client that hangs up cancels nothing (1.R25), and a panic
/// ends this request alone (5.R174).
async fn serve(api: Api, route: &Route, request: Request<Body>) -> Response {
    let id = request_id(&request);
    let span = tracing::info_span!("request", request_id = %id, method = %route.method, route = route.path);
    let (parts, body) = request.into_parts();
    let spawner = api.parts().spawner.clone();
    let body = Some(LingeringBody::new(body, spawner.clone()));
    let incoming = Incoming { id: path_id(&parts.uri, route.path), parts, body, body_cap: route.body_cap };
    let answer = {
        let route = route.clone();
        async move { route.answer(api, incoming).await }.instrument(span.clone())
    };
    let response = match span.in_scope(|| spawner.spawn("request", answer)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(_) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_response(),
    };
    tag(response, &id)
}

/// The client's request id if it is one, else a new one (5.R102).
fn request_id(request: &Request<Body>) -> String {
    let sent = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let sound = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    sent.filter(sound).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

fn tag(mut response: Response, id: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The first parameter of the path, percent-decoded once.
fn path_id(uri: &http::Uri, pattern: &str) -> Option<String> {
    let at = pattern.split('/').position(|segment| segment.starts_with(':'))?;
    let raw = uri.path().split('/').nth(at)?;
    Some(percent_decode(raw))
}

fn percent_decode(raw: &str) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let decoded = (*first == b'%')
            .then(|| {
                std::str::from_utf8(tail.get(..2)?).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
            })
            .flatten();
        match decoded {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_first_parameter() {
        let id = |path: &str| path_id(&path.parse().unwrap(), "/workspaces/:id/a2a");
        assert_eq!(id("/workspaces/abc/a2a").as_deref(), Some("abc"));
        assert_eq!(id("/workspaces/%2e%2e%2fx/a2a/").as_deref(), Some("../x"));
        assert_eq!(path_id(&"/workspaces".parse().unwrap(), "/workspaces"), None);
    }

    #[test]
    fn request_ids_are_kept_only_when_sound() {
        // 5.R102
        let with =
            |id: &str| request_id(&Request::builder().header(REQUEST_ID, id).body(Body::empty()).unwrap());
        assert_eq!(with("abc-123"), "abc-123");
        for bad in ["", "a b", "a\u{e9}", &"x".repeat(65), "a_b"] {
            assert_ne!(with(bad), *bad);
        }
    }
}
