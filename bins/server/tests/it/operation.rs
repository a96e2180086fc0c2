//! What holds for every route: errors, request ids, methods, a database that is away; and health, build.

use http::Method;
use mws_models::WorkspaceId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ADMIN, Setup, TestServer};

async fn quiet() -> TestServer {
    Setup::default().env("MWS_SWEEPS", "off").start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_build_need_nobody_and_nothing() {
    // 1.R155, 1.R156
    let server = quiet().await;
    server.app().db.close().await;
    let health = server.request(Method::GET, "/health").send().await;
    assert_eq!(health.ok(), json!({"status": "ok"}));
    assert_eq!(health.header("content-type"), Some("application/json; charset=utf-8"));
    let build = server.request(Method::GET, "/buildinfo").send().await.ok();
    let sha = option_env!("GIT_SHA").unwrap_or("dev");
    assert_eq!(build, json!({"git_sha": sha}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_route_is_404_whatever_the_method() {
    // 1.R5
    let server = quiet().await;
    let id = server.row(&[]).await;
    let unknown = [
        (Method::GET, "/".to_owned()),
        (Method::GET, "/nope".into()),
        (Method::GET, "//health".into()),
        (Method::GET, "/health//".into()),
        (Method::GET, "/health/debug".into()),
        (Method::POST, "/health".into()),
        (Method::PUT, "/workspaces".into()),
        (Method::PATCH, format!("/registry/{id}/peers")),
        (Method::GET, "/registry/register".into()),
        (Method::DELETE, "/registry/heartbeat".into()),
        (Method::GET, format!("/workspaces/{id}/a2a")),
        (Method::GET, format!("/workspaces/{id}/a2a/more")),
        (Method::POST, "/ws".into()),
    ];
    for (method, path) in unknown {
        let reply = server.request(method.clone(), &path).bearer(ADMIN).send().await;
        reply.is_error(404, "not found");
        assert_eq!(reply.json(), json!({"error": "not found"}), "{method} {path}");
        assert!(reply.header("x-request-id").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trailing_slash_changes_nothing() {
    // 1.R6
    let server = quiet().await;
    let id = server.row(&[("runtime", "'external'")]).await;
    for path in ["/health/", "/buildinfo/", "/workspaces/", "/events/", "/admin/liveness/", "/admin/jobs/"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    for path in
        [format!("/workspaces/{id}/"), format!("/registry/{id}/peers/"), format!("/events/{id}/?limit=1")]
    {
        assert_eq!(server.get(&path).await.status, 200, "{path}");
    }
    server.agent_posts("/registry/heartbeat/", None, &json!({"workspace_id": id})).await.ok();
    server.agent_posts("/registry/register/", None, &json!({"id": id, "agent_card": {}})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_carries_a_request_id() {
    // 5.R102, 1.R28
    let server = quiet().await;
    for (path, status) in
        [("/health", 200), ("/nope", 404), ("/workspaces", 401), ("/workspaces/x", 400), ("/ws", 401)]
    {
        let ask = |id: &str| server.request(Method::GET, path).header("x-request-id", id).send();
        let longest = "a-Z".repeat(21) + "9";
        assert_eq!(longest.len(), 64);
        for sound in ["abc-123", "-", &longest] {
            let reply = ask(sound).await;
            assert_eq!((reply.status, reply.header("x-request-id")), (status, Some(sound)));
        }
        for bad in ["", "a b", "a_b", "a.b", &format!("{longest}x")] {
            let reply = ask(bad).await;
            let given = reply.header("x-request-id").unwrap();
            assert_ne!(given, bad);
            given.parse::<WorkspaceId>().expect("a UUID");
        }
    }
    let one = server.request(Method::GET, "/health").send().await;
    let two = server.request(Method::GET, "/health").send().await;
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_one_shape() {
    // 1.R3, 5.R63
    let server = quiet().await;
    let cases = [
        (server.request(Method::GET, "/workspaces").send().await, 401),
        (server.request(Method::GET, "/workspaces/x").send().await, 400),
        (server.get(&format!("/workspaces/{}", WorkspaceId::random())).await, 404),
        (server.request(Method::POST, "/registry/register").body("{").send().await, 400),
        (server.request(Method::POST, "/registry/register").body(vec![0; 2 << 20]).send().await, 413),
        (server.get("/events?limit=x").await, 400),
    ];
    for (reply, status) in cases {
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
        let body = reply.json();
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_its_cap_is_refused_while_reading() {
    // 1.R9: declared, and undeclared
    let server = quiet().await;
    let exact = server.request(Method::POST, "/registry/register").body(vec![b' '; 1 << 20]).send().await;
    exact.is_error(400, "invalid request body");

    let mut stream = TcpStream::connect(server.base.authority()).await.unwrap();
    let head = "POST /registry/register HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // The end never comes: the answer does.
    for _ in 0..=16 {
        stream.write_all(b"10000\r\n").await.unwrap();
        stream.write_all(&[b' '; 0x10000]).await.unwrap();
        if stream.write_all(b"\r\n").await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let mut stream = TcpStream::connect(server.base.authority()).await.unwrap();
    let head = "POST /registry/register HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048577\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_first_still_gets_its_answer() {
    // 1.R9: the connection is not reset under what the client still sends
    let server = quiet().await;
    let body = vec![b' '; 16 << 20];
    for (path, status) in [("/registry/register", 413), ("/workspaces", 401), ("/nope", 404)] {
        let mut stream = TcpStream::connect(server.base.authority()).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_503_and_never_a_verdict() {
    // 3.R3, 3.R54, 5.R76
    let server = quiet().await;
    let id = server.row(&[("status", "'online'"), ("url", "'http://93.184.216.34'")]).await;
    let token = server.token(id).await;
    server.app().db.close().await;
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "message/send",
                         "params": {"message": {"role": "user", "parts": [{"kind": "text", "text": "hi"}]}}});
    let get = Method::GET;
    let post = Method::POST;
    let requests = [
        (&post, "/registry/register".to_owned(), json!({"id": id, "agent_card": {}})),
        (&post, "/registry/heartbeat".into(), json!({"workspace_id": id})),
        (&get, format!("/registry/{id}/peers"), Value::Null),
        (&get, "/workspaces".into(), Value::Null),
        (&get, format!("/workspaces/{id}"), Value::Null),
        (&get, format!("/workspaces/{id}/state"), Value::Null),
        (&post, "/workspaces".into(), json!({"name": "x", "runtime": "sample", "model": "m", "tier": 2})),
        (&Method::DELETE, format!("/workspaces/{id}?confirm=true"), Value::Null),
        (&post, format!("/workspaces/{id}/a2a"), message),
        (&get, "/events".into(), Value::Null),
        (&get, format!("/events/{id}"), Value::Null),
        (&get, "/admin/liveness".into(), Value::Null),
        (&get, "/admin/jobs".into(), Value::Null),
    ];
    for (method, path, body) in requests {
        for bearer in [Some(ADMIN), Some(token.as_str()), Some("junk"), None] {
            let mut request = server.request(method.clone(), &path);
            if let Some(bearer) = bearer {
                request = request.bearer(bearer);
            }
            if !body.is_null() {
                request = request.json(&body);
            }
            let reply = request.send().await;
            if reply.status == 401 {
                // Without a bearer there is nothing to look up on these routes.
                let gated = ["/registry", "/a2a"].iter().any(|part| path.contains(part));
                assert!(bearer.is_none() && !gated, "{path} {bearer:?}");
                continue;
            }
            let unavailable = json!({"error": "platform datastore unavailable — retry shortly",
                                     "code": "platform_unavailable"});
            assert_eq!((reply.status, reply.json()), (503, unavailable), "{method} {path} {bearer:?}");
            assert_eq!(reply.header("retry-after"), Some("5"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_tiers_are_local() {
    // 5.R82
    let open =
        [Setup::default().without("ADMIN_TOKEN"), Setup::default().without("ADMIN_TOKEN").development()];
    for setup in open {
        let server = setup
            .env("MOLECULE_ALLOWED_HOSTS", "box.lan, other.lan")
            .env("PLATFORM_URL", "http://platform.example:8080")
            .start()
            .await;
        let ask = async |host: &str| {
            server.request(Method::GET, "/workspaces").header("host", host).send().await.status
        };
        for local in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "10.0.0.7:80",
            "93.184.216.34",
            "[::1]:8080",
            "box",
            "host.docker.internal:8080",
            "platform.example",
            "box.lan:9",
            "Other.LAN",
        ] {
            assert_eq!(ask(local).await, 200, "{local}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "box.lan.evil.example",
            "a.localhost",
        ] {
            assert_eq!(ask(foreign).await, 401, "{foreign}");
        }
    }
}
