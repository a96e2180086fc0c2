//! The live feed, `GET /ws` (contract 3.13).

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method};
use mws_models::{Event, EventKind, WorkspaceId};
use mws_testkit::wait_until;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{ADMIN, Setup, TestServer};

type Headers<'a> = &'a [(&'static str, &'a str)];
const PATIENCE: Duration = Duration::from_secs(20);

async fn quiet() -> TestServer {
    Setup::default().env("MWS_SWEEPS", "off").start().await
}

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    /// The client, or status and body of the refusal.
    async fn connect(server: &TestServer, headers: Headers<'_>) -> Result<Self, (u16, Value)> {
        let url = server.base.join("ws?unknown=1").unwrap().as_str().replace("http://", "ws://");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        match timeout(PATIENCE, connect_async(request)).await.unwrap() {
            Ok((client, response)) => {
                assert!(!response.headers().contains_key("sec-websocket-protocol"));
                Ok(Self(client))
            }
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err((response.status().as_u16(), serde_json::from_slice(body).unwrap_or_default()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn agent(server: &TestServer, id: WorkspaceId, bearer: Option<&str>) -> Result<Self, (u16, Value)> {
        let id = id.to_string();
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        match &bearer {
            Some(bearer) => {
                Self::connect(server, &[("x-workspace-id", &id), ("authorization", bearer)]).await
            }
            None => Self::connect(server, &[("x-workspace-id", &id)]).await,
        }
    }

    async fn canvas(server: &TestServer) -> Self {
        Self::connect(server, &[("authorization", &format!("Bearer {ADMIN}"))]).await.unwrap()
    }

    async fn message(&mut self) -> Option<Result<Message, Error>> {
        timeout(PATIENCE, self.0.next()).await.expect("a message")
    }

    async fn event(&mut self) -> Value {
        match self.message().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
            other => panic!("no event: {other:?}"),
        }
    }

    /// Reads up to the close frame; its code.
    async fn close_code(&mut self) -> u16 {
        loop {
            match self.message().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }
}

fn refused(outcome: Result<Client, (u16, Value)>) -> (u16, String) {
    let (status, body) = outcome.err().expect("a refusal");
    (status, body["error"].as_str().unwrap_or_default().to_owned())
}

fn is(status: u16, error: &str) -> (u16, String) {
    (status, error.to_owned())
}

fn tell(server: &TestServer, id: WorkspaceId, n: usize) {
    server.app().hub.broadcast(Event::new(EventKind::AgentMessage, id, json!({"n": n})));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canvas_gets_every_event_in_four_keys() {
    // 3.R105, 3.R109, 3.R115 4
    let server = quiet().await;
    let mut client = Client::canvas(&server).await;
    let (one, two) = (server.row(&[("runtime", "'external'")]).await, server.row(&[]).await);
    let registered = json!({"id": one, "agent_card": {"name": "a"}, "url": "http://93.184.216.34"});
    server.agent_posts("/registry/register", None, &registered).await.ok();
    let event = client.event().await;
    let keys: BTreeSet<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["event", "payload", "timestamp", "workspace_id"]));
    assert_eq!((&event["event"], &event["workspace_id"]), (&json!("WORKSPACE_ONLINE"), &json!(one)));
    assert_eq!(event["payload"]["url"], "http://93.184.216.34");
    assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
    for n in 0..100 {
        tell(&server, if n % 2 == 0 { one } else { two }, n);
    }
    for n in 0..100 {
        assert_eq!(client.event().await["payload"], json!({"n": n}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canvas_is_not_for_strangers() {
    // 3.R115, 1.R3
    let server = quiet().await;
    assert_eq!(refused(Client::connect(&server, &[]).await), is(401, "admin auth required"));
    let id = server.row(&[]).await;
    let own = server.token(id).await;
    for bearer in ["junk", &own] {
        let bearer = format!("Bearer {bearer}");
        let outcome = Client::connect(&server, &[("authorization", &bearer)]).await;
        assert_eq!(refused(outcome), is(401, "admin auth required"));
    }
    // Not an upgrade.
    assert_eq!(server.get("/ws").await.status, 400);

    // A fresh install is open until the first token exists.
    let fresh = Setup::default().env("MWS_SWEEPS", "off").without("ADMIN_TOKEN").start().await;
    Client::connect(&fresh, &[]).await.unwrap();
    let far = Client::connect(&fresh, &[("host", "evil.example")]).await;
    assert_eq!(refused(far), is(401, "admin auth required"));
    let id = fresh.row(&[]).await;
    fresh.token(id).await;
    assert_eq!(refused(Client::connect(&fresh, &[]).await), is(401, "admin auth required"));

    // 3.R115 2, 5.R82
    let dev = Setup::default().development().start().await;
    Client::connect(&dev, &[]).await.unwrap();
    let far = Client::connect(&dev, &[("host", "evil.example")]).await;
    assert_eq!(refused(far), is(401, "admin auth required"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_must_be_one_of_ours() {
    // 3.R115 1 and 3, 3.R116, 5.R95
    let canvas = "https://canvas.example.com";
    let hosted = Setup::default().env("CORS_ORIGINS", &format!("{canvas}, http://other:1")).start().await;
    let dev = Setup::default().env("CORS_ORIGINS", canvas).development().start().await;
    let bearer = format!("Bearer {ADMIN}");
    for server in [&hosted, &dev] {
        let same = format!("http://{}", server.base.authority());
        for origin in [canvas, "HTTPS://Canvas.Example.com", &same, &same.replace("http:", "https:")] {
            Client::connect(server, &[("origin", origin)]).await.unwrap();
        }
        let id = server.row(&[]).await;
        let own = server.token(id).await;
        let (claim, own) = (id.to_string(), format!("Bearer {own}"));
        for origin in [
            "https://evil.example",
            "null",
            "",
            "https://\u{fc}.example",
            "http://canvas.example.com",
            "https://canvas.example.com.evil",
        ] {
            for headers in [
                &[("origin", origin)][..],
                &[("origin", origin), ("authorization", &bearer)],
                &[("origin", origin), ("authorization", &own), ("x-workspace-id", &claim)],
            ] {
                assert_eq!(Client::connect(server, headers).await.err().unwrap().0, 403, "{origin}");
            }
        }
        // An agent without an origin is not locked out by the list, and one of ours is no pass for an agent.
        Client::agent(server, id, own.strip_prefix("Bearer ")).await.unwrap();
        let anonymous = Client::connect(server, &[("origin", canvas), ("x-workspace-id", &claim)]).await;
        assert_eq!(refused(anonymous), is(401, "missing workspace auth token"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_pass_by_their_own_token() {
    // 3.R113
    for setup in [Setup::default(), Setup::default().development().without("ADMIN_TOKEN")] {
        let server = setup.env("MWS_SWEEPS", "off").start().await;
        let (id, other, fresh) = (server.row(&[]).await, server.row(&[]).await, server.row(&[]).await);
        let removed = server.row(&[("status", "'removed'")]).await;
        let (own, others) = (server.token(id).await, server.token(other).await);
        Client::agent(&server, id, Some(&own)).await.unwrap();
        Client::agent(&server, fresh, None).await.unwrap();
        Client::agent(&server, fresh, Some("junk")).await.unwrap();
        let (missing, invalid) =
            (is(401, "missing workspace auth token"), is(401, "invalid workspace auth token"));
        assert_eq!(refused(Client::agent(&server, id, None).await), missing);
        for wrong in [others.as_str(), ADMIN, "junk"] {
            assert_eq!(refused(Client::agent(&server, id, Some(wrong)).await), invalid);
        }
        for gone in [removed, WorkspaceId::random()] {
            assert_eq!(refused(Client::agent(&server, gone, None).await), missing);
            assert_eq!(refused(Client::agent(&server, gone, Some(&own)).await), invalid);
        }
        for claim in ["system:scheduler", "x"] {
            let bearer = format!("Bearer {own}");
            let outcome =
                Client::connect(&server, &[("x-workspace-id", claim), ("authorization", &bearer)]).await;
            assert!(outcome.is_err(), "{claim}");
        }
        server.app().db.close().await;
        let outcome = Client::agent(&server, id, Some(&own)).await;
        assert_eq!(outcome.err().unwrap().0, 503);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_only_whom_it_may_talk_to() {
    // 3.R41, 3.R44, 3.R114
    let server = quiet().await;
    let child = async |parent: Option<WorkspaceId>, status: &str| {
        let parent = parent.map_or("NULL".to_owned(), |id| format!("'{id}'"));
        server.row(&[("parent_id", &parent), ("status", status)]).await
    };
    let lead = child(None, "'online'").await;
    let mid = child(Some(lead), "'removed'").await;
    let me = child(Some(mid), "'online'").await;
    let sibling = child(Some(mid), "'online'").await;
    let below = child(Some(me), "'online'").await;
    let far_below = child(Some(below), "'online'").await;
    let uncle = child(Some(lead), "'online'").await;
    let cousin = child(Some(uncle), "'online'").await;
    let nephew = child(Some(sibling), "'online'").await;
    let root = child(None, "'online'").await;

    let mut client = Client::agent(&server, me, None).await.unwrap();
    let mut canvas = Client::canvas(&server).await;
    let all = [uncle, lead, cousin, mid, nephew, me, root, sibling, WorkspaceId::random(), below, far_below];
    for (n, id) in all.into_iter().enumerate() {
        tell(&server, id, n);
    }
    for expected in [lead, mid, me, sibling, below, far_below] {
        assert_eq!(client.event().await["workspace_id"], json!(expected));
    }
    for id in all {
        assert_eq!(canvas.event().await["workspace_id"], json!(id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_is_read_anew_when_it_may_have_changed() {
    // 3.R120
    let server = quiet().await;
    let me = server.row(&[]).await;
    let mut client = Client::agent(&server, me, None).await.unwrap();
    tell(&server, me, 0);
    assert_eq!(client.event().await["payload"]["n"], 0);
    // Unknown until now.
    let child = server.row(&[("parent_id", &format!("'{me}'"))]).await;
    tell(&server, child, 1);
    assert_eq!(client.event().await["payload"]["n"], 1);
    // Moved out of sight: the event that says so is the first that is not seen.
    let stranger = server.row(&[]).await;
    let stranger_child = server.row(&[("parent_id", &format!("'{stranger}'"))]).await;
    let moved = format!("UPDATE workspaces SET parent_id = '{stranger_child}' WHERE id = '{child}'");
    server.database.execute(&moved).await;
    let mut tx = server.app().db.begin().await.unwrap();
    tx.record(Event::new(EventKind::WorkspaceMoved, child, json!({})));
    tx.commit().await.unwrap();
    tell(&server, child, 2);
    tell(&server, me, 3);
    assert_eq!(client.event().await["payload"]["n"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_cannot_be_filtered_sends_nothing() {
    // 3.R114
    let server = quiet().await;
    let me = server.row(&[]).await;
    let child = server.row(&[("parent_id", &format!("'{me}'"))]).await;
    let mut client = Client::agent(&server, me, None).await.unwrap();
    server.app().db.close().await;
    tell(&server, child, 1);
    tell(&server, me, 2);
    assert_eq!(client.event().await["payload"]["n"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_send() {
    // 3.R117
    let server = quiet().await;
    let id = server.row(&[]).await;
    let mut client = Client::canvas(&server).await;
    client.0.send(Message::Ping(Bytes::from_static(b"hello"))).await.unwrap();
    match client.message().await {
        Some(Ok(Message::Pong(echo))) => assert_eq!(&echo[..], b"hello"),
        other => panic!("no pong: {other:?}"),
    }
    // Data is ignored, up to the limit.
    client.0.send(Message::text("x".repeat(4096))).await.unwrap();
    client.0.send(Message::binary(vec![0; 4096])).await.unwrap();
    tell(&server, id, 1);
    assert_eq!(client.event().await["payload"]["n"], 1);

    for size in [4097, 1 << 20] {
        let mut client = Client::canvas(&server).await;
        // The server may hang up before all of it is written.
        client.0.send(Message::binary(vec![0; size])).await.ok();
        assert_eq!(client.close_code().await, 1009, "{size}");
    }
    let mut leaving = Client::canvas(&server).await;
    leaving.0.close(None).await.unwrap();
    drop(client);
    wait_until("every place to be free", async || server.app().hub.active() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_limited_and_freed() {
    // 3.R121
    let server = Setup::default().env("WS_MAX_CLIENTS", "2").env("MWS_SWEEPS", "off").start().await;
    let mut first = Client::canvas(&server).await;
    let second = Client::canvas(&server).await;
    let bearer = format!("Bearer {ADMIN}");
    let full = Client::connect(&server, &[("authorization", &bearer)]).await.err().unwrap();
    assert_eq!(full.0, 503);
    // A refused one takes no place, and one that vanishes frees its own.
    assert_eq!(server.app().hub.active(), 2);
    drop(second);
    wait_until("the place to be free", async || server.app().hub.active() == 1).await;
    Client::canvas(&server).await;
    let id = server.row(&[]).await;
    tell(&server, id, 1);
    assert_eq!(first.event().await["payload"]["n"], 1);
    assert_eq!(server.request(Method::GET, "/health").send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_so() {
    // 3.R104
    let server = quiet().await;
    let id = server.row(&[]).await;
    let mut canvas = Client::canvas(&server).await;
    let mut agent = Client::agent(&server, id, None).await.unwrap();
    let stop = tokio::spawn(server.stop());
    assert_eq!(canvas.close_code().await, 1001);
    assert_eq!(agent.close_code().await, 1001);
    stop.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cannot_keep_up_is_closed_and_delays_nobody() {
    // 3.R118, 3.R112
    let server = quiet().await;
    let id = server.row(&[]).await;
    let mut slow = Client::canvas(&server).await;
    let mut quick = Client::canvas(&server).await;
    let filler = "x".repeat(256 * 1024);
    // More than the kernel's buffers and the queue hold together.
    for n in 0..160 {
        let payload = json!({"n": n, "filler": filler});
        server.app().hub.broadcast(Event::new(EventKind::AgentMessage, id, payload));
        assert_eq!(quick.event().await["payload"]["n"], n);
    }
    assert_eq!(slow.close_code().await, 1013);
    tell(&server, id, 1000);
    assert_eq!(quick.event().await["payload"]["n"], 1000);
    wait_until("the place to be free", async || server.app().hub.active() == 1).await;
}
