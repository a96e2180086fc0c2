//! What strangers send: every route answers malformed, hostile and oversized input with a 4xx in the contract's
//! shape, never with a 5xx, a panic or silence.

use bytes::Bytes;
use http::Method;
use mws_http_api::routes;
use mws_models::WorkspaceId;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::{ADMIN, Reply, Setup, TestServer};

/// Bodies that have broken servers before.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = [
        "",
        " ",
        "null",
        "true",
        "0",
        "-1e999999",
        "\"\"",
        "[]",
        "{}",
        "{",
        "}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"name\":\"a\\u0000\"}",
        "{\"name\":\"\\ud800\"}",
        "{\"name\":\"\\udc00\\ud800\"}",
        "{\"id\":null}",
        "{\"id\":\"\\u0000\"}",
        "{\"id\":5,\"id\":[]}",
        "{\"workspace_id\":{}}",
        "{\"tier\":1e400}",
        "{\"tier\":99999999999999999999}",
        "{\"method\":5,\"params\":[]}",
        "{\"params\":{\"message\":{\"parts\":5}}}",
        "{\"jsonrpc\":null,\"id\":[]}",
        "{\"__proto__\":{\"x\":1}}",
        "{\"name\":\"'; DROP TABLE workspaces; --\"}",
        "\u{feff}{}",
        "{}{}",
        "{}\u{0}",
        "--boundary\r\nContent-Disposition: form-data\r\n\r\nx",
        "<xml/>",
        "a=b&c=d",
    ]
    .iter()
    .map(|body| body.as_bytes().to_vec())
    .collect();
    corpus.push(b"{\"name\":\"\xff\xfe\"}".to_vec());
    corpus.push(vec![0; 64]);
    corpus.push("[".repeat(100_000).into_bytes());
    corpus.push(format!("{}1{}", "{\"a\":".repeat(5_000), "}".repeat(5_000)).into_bytes());
    corpus.push(format!("{{\"name\":\"{}\"}}", "x".repeat(500_000)).into_bytes());
    corpus.push(
        format!("{{{}}}", (0..20_000).map(|n| format!("\"k{n}\":0")).collect::<Vec<_>>().join(","))
            .into_bytes(),
    );
    corpus
}

/// Values that a typed field may be given.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "[\\x00-\\x1f{}\\[\\]|>*&!/.]{0,10}".prop_map(Value::from),
        Just(json!("../../etc/passwd")),
        Just(json!("http://169.254.169.254/latest")),
        Just(json!("file:///etc/passwd")),
        Just(json!(WorkspaceId::random())),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field(), inner), 0..4).prop_map(object),
        ]
    })
}

fn object(members: Vec<(&'static str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Names that the routes look for.
fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "name",
        "role",
        "template",
        "tier",
        "model",
        "runtime",
        "external",
        "url",
        "workspace_dir",
        "workspace_access",
        "parent_id",
        "budget_limit",
        "secrets",
        "max_concurrent_tasks",
        "delivery_mode",
        "compute",
        "canvas",
        "initial_memories",
        "id",
        "agent_card",
        "workspace_id",
        "error_rate",
        "sample_error",
        "active_tasks",
        "uptime_seconds",
        "current_task",
        "monthly_spend",
        "runtime_state",
        "runtime_metadata",
        "capabilities",
        "idle_timeout_seconds",
        "jsonrpc",
        "method",
        "params",
        "message",
        "parts",
        "content",
        "messageId",
        "x",
        "y",
    ])
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let members = prop::collection::vec((field(), value()), 0..8);
    let object = members.prop_map(|members| object(members).to_string()).boxed();
    let cut = (object.clone(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
        let mut bytes = text.into_bytes();
        bytes.truncate(at.index(bytes.len() + 1));
        bytes
    });
    prop_oneof![
        4 => object.prop_map(String::into_bytes),
        1 => cut,
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// The answer is one that the contract knows: a 2xx, a 4xx in shape, or a 503 that says why.
#[track_caller]
fn assert_sound(route: &str, body: &[u8], reply: &Reply) {
    let shown = || format!("{route} {} → {reply:?}", String::from_utf8_lossy(&body[..body.len().min(300)]));
    let expected = matches!(reply.status, 200..=299 | 400..=499 | 503);
    assert!(expected, "{}", shown());
    assert!(reply.header("x-request-id").is_some(), "{}", shown());
    if reply.status >= 400 {
        let error = reply.json();
        let said =
            error["error"].as_str().is_some_and(|text| !text.is_empty()) || error["error"]["code"].is_i64();
        assert!(said, "{}", shown());
        assert_ne!(error["code"], "platform_unavailable", "the database was blamed: {}", shown());
    }
}

/// Every route with a workspace of its own in the path.
fn paths(id: WorkspaceId) -> Vec<(Method, String)> {
    let fill = |path: &str| path.replace(":workspaceId", &id.to_string()).replace(":id", &id.to_string());
    // A socket has no body to attack.
    routes::table()
        .iter()
        .filter(|r| r.path() != "/ws")
        .map(|r| (r.method().clone(), fill(r.path())))
        .collect()
}

async fn throw(server: &TestServer, routes: &[(Method, String)], body: &[u8]) {
    let sent = routes.iter().filter(|(method, _)| *method == Method::POST).map(|(method, path)| async move {
        let reply = server
            .request(method.clone(), path)
            .bearer(ADMIN)
            .body(Bytes::copy_from_slice(body))
            .send()
            .await;
        assert_sound(path, body, &reply);
    });
    futures_util::future::join_all(sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_corpus_breaks_no_route() {
    // 1.R3, 1.R7, 1.R11, 1.R13, 1.R14, 5.R171, 5.R174
    let server = Setup::default().without_backend().start().await;
    let id = server.row(&[("runtime", "'external'"), ("status", "'online'")]).await;
    let routes = paths(id);
    for body in corpus() {
        throw(&server, &routes, &body).await;
    }
    assert_eq!(server.get("/health").await.status, 200);
}

#[test]
fn thousands_of_generated_bodies_break_no_route() {
    // 1.R3, 1.R13, 3.R1, 3.R2, 4.R33, 5.R174
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = runtime.block_on(Setup::default().without_backend().start());
    let id = runtime.block_on(server.row(&[("runtime", "'external'"), ("status", "'online'")]));
    let routes = paths(id);
    // Four POST routes each: thousands of requests.
    let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
    runner
        .run(&body(), |body| {
            runtime.block_on(throw(&server, &routes, &body));
            Ok(())
        })
        .unwrap();
    assert_eq!(runtime.block_on(server.get("/health")).status, 200);
    runtime.block_on(server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_ids_queries_and_headers_are_refused_in_shape() {
    // 1.R5, 1.R14, 1.R15, 1.R19, 5.R240
    let server = Setup::default().without_backend().start().await;
    let ids = [
        "x",
        "%00",
        "%2e%2e%2f%2e%2e",
        "%ff",
        "..%5c",
        "00000000-0000-0000-0000-00000000000",
        "🦀",
        "00000000-0000-0000-0000-000000000000'",
        "%7B00000000-0000-0000-0000-000000000000%7D",
    ];
    for (method, path) in paths(WorkspaceId::random()) {
        let template = path
            .split('/')
            .map(|part| if part.len() == 36 { ":id" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        if !template.contains(":id") {
            continue;
        }
        for id in ids {
            let path = template.replace(":id", id);
            let reply = server.request(method.clone(), &path).bearer(ADMIN).send().await;
            assert_eq!(reply.status, 400, "{path}: {reply:?}");
            reply.is_error(400, "invalid workspace ID");
        }
    }
    for query in [
        "limit=0",
        "limit=501",
        "limit=x",
        "limit=1.5",
        "before=yesterday",
        "before=2026-13-01T00:00:00Z",
        "event_type=%00",
    ] {
        assert_eq!(server.get(&format!("/events?{query}")).await.status, 400, "{query}");
    }
    let long = "x".repeat(20_000);
    for (name, value) in [
        ("x-workspace-id", long.as_str()),
        ("x-timeout", "-1"),
        ("a2a-version", "nonsense"),
        ("x-request-id", "a b"),
        ("authorization", "Bearer"),
        ("authorization", "Basic eA=="),
        ("cookie", &long),
    ] {
        let path = format!("/workspaces/{}/a2a", WorkspaceId::random());
        let reply = server.request(Method::POST, &path).header(name, value).body("{}").send().await;
        assert!((400..500).contains(&reply.status), "{name}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_bodies_are_refused_everywhere() {
    // 1.R9, 5.R110
    let server = Setup::default().without_backend().start().await;
    let big = Bytes::from(vec![b' '; (1 << 20) + 1]);
    for (method, path) in
        paths(WorkspaceId::random()).into_iter().filter(|(method, _)| *method == Method::POST)
    {
        let reply = server.request(method, &path).bearer(ADMIN).body(big.clone()).send().await;
        reply.is_error(413, "request body too large");
        assert_eq!(reply.json()["code"], "BODY_TOO_LARGE", "{path}");
    }
}
