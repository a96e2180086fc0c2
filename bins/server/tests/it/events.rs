//! Events: how they are recorded, told and listed (contract 3.12, 3.15).

use http::Method;
use mws_models::{DeliveryMode, Event, EventKind, WorkspaceId};
use serde_json::{Value, json};

use crate::support::{Setup, TestServer};

async fn quiet() -> TestServer {
    Setup::default().env("MWS_SWEEPS", "off").start().await
}

async fn record(server: &TestServer, events: Vec<Event>) {
    let mut tx = server.app().db.begin().await.unwrap();
    for event in events {
        tx.record(event);
    }
    tx.commit().await.unwrap();
}

fn card(id: WorkspaceId, n: usize) -> Event {
    Event::card_updated(id, &json!({"n": n}))
}

async fn numbers(server: &TestServer, path: &str) -> Vec<u64> {
    let listed = server.get(path).await.ok();
    listed
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["payload"]["agent_card"]["n"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_event_is_a_row_and_a_message_with_the_same_time() {
    // 3.R105, 3.R106, 3.R125
    let server = quiet().await;
    let mut feed = server.app().hub.subscribe();
    let id = server.row(&[]).await;
    record(&server, vec![Event::registered(id, "http://a", &json!({"k": 1}), DeliveryMode::Push)]).await;
    let published = feed.next().await.unwrap();
    let message: Value = serde_json::from_slice(published.text()).unwrap();
    let listed = server.get("/events").await.ok();
    let payload = json!({"url": "http://a", "agent_card": {"k": 1}, "delivery_mode": "push"});
    assert_eq!(
        listed,
        json!([{"id": published.id(), "event_type": "WORKSPACE_ONLINE", "workspace_id": id, "payload": payload,
                "created_at": message["timestamp"]}])
    );
    assert_eq!(
        message,
        json!({"event": "WORKSPACE_ONLINE", "workspace_id": id, "timestamp": message["timestamp"],
               "payload": payload})
    );
    let at = message["timestamp"].as_str().unwrap();
    assert!(at.ends_with('Z') && at.as_bytes()[10] == b'T', "{at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_is_never_told() {
    // 3.R106
    let server = quiet().await;
    let mut feed = server.app().hub.subscribe();
    let id = server.row(&[]).await;
    let mut dropped = server.app().db.begin().await.unwrap();
    dropped.record(card(id, 1));
    drop(dropped);
    // A row that the log refuses takes the whole transaction with it.
    server
        .database
        .execute("ALTER TABLE structure_events ADD CHECK (payload->'agent_card'->>'n' <> '2')")
        .await;
    let sent = json!({"id": id, "agent_card": {"n": 2}, "url": "http://93.184.216.34"});
    let reply = server.agent_posts("/registry/register", None, &sent).await;
    reply.is_error(500, "registration failed");
    assert_eq!(server.field(id, "agent_card IS NULL").await.unwrap(), "true");
    record(&server, vec![card(id, 3)]).await;
    let told: Value = serde_json::from_slice(feed.next().await.unwrap().text()).unwrap();
    assert_eq!(told["payload"]["agent_card"]["n"], 3);
    assert_eq!(numbers(&server, "/events").await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broadcast_only_leaves_no_row() {
    // 3.R107
    let server = quiet().await;
    let mut feed = server.app().hub.subscribe();
    let id = server.row(&[]).await;
    server.app().hub.broadcast(Event::new(EventKind::TaskUpdated, id, json!({"current_task": "x"})));
    let told: Value = serde_json::from_slice(feed.next().await.unwrap().text()).unwrap();
    assert_eq!((&told["event"], &told["payload"]), (&json!("TASK_UPDATED"), &json!({"current_task": "x"})));
    assert_eq!(server.get("/events").await.ok(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_listed_newest_first_and_bounded() {
    // 3.R125
    let server = quiet().await;
    let (one, two) = (server.row(&[]).await, server.row(&[]).await);
    record(&server, (0..120).map(|n| card(one, n)).collect()).await;
    record(&server, vec![card(two, 500), Event::removed(two, None)]).await;

    let all = server.get("/events").await.ok();
    assert_eq!(all.as_array().unwrap().len(), 100);
    assert_eq!(all[0]["event_type"], "WORKSPACE_REMOVED");
    assert_eq!(numbers(&server, &format!("/events/{one}?limit=3")).await, [119, 118, 117]);
    let whole = numbers(&server, &format!("/events/{one}?limit=500")).await;
    assert_eq!(whole, (0..120).rev().collect::<Vec<_>>());
    assert_eq!(numbers(&server, "/events?event_type=AGENT_CARD_UPDATED&limit=2").await, [500, 119]);
    assert_eq!(server.get("/events?event_type=NO_SUCH").await.ok(), json!([]));

    // The same instant is told apart by the sequence; `before` excludes its own instant.
    server.database.execute("UPDATE structure_events SET created_at = '2026-01-02T03:04:05.000001Z'").await;
    assert_eq!(numbers(&server, &format!("/events/{one}?limit=2")).await, [119, 118]);
    let before = |at: &str| format!("/events?before={at}&limit=1&event_type=AGENT_CARD_UPDATED");
    assert_eq!(numbers(&server, &before("2026-01-02T03:04:05.000002Z")).await, [500]);
    assert_eq!(numbers(&server, &before("2026-01-02T05:04:05.000002%2B02:00")).await, [500]);
    assert!(numbers(&server, &before("2026-01-02T03:04:05.000001Z")).await.is_empty());
    let listed = server.get("/events?limit=1").await.ok();
    assert_eq!(listed[0]["created_at"], "2026-01-02T03:04:05.000001Z");

    for bad in [
        "limit=0",
        "limit=501",
        "limit=x",
        "limit=-1",
        "limit=1.0",
        "before=yesterday",
        "before=2026-01-02",
        "event_type=%00",
    ] {
        assert_eq!(server.get(&format!("/events?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_workspace_outlives_it() {
    // 3.R125, 3.17
    let server = quiet().await;
    let id = server.row(&[]).await;
    record(&server, vec![card(id, 1)]).await;
    server.database.execute("INSERT INTO structure_events (event_type) VALUES ('WORKSPACE_ONLINE')").await;
    server.database.execute(&format!("DELETE FROM workspaces WHERE id = '{id}'")).await;
    assert_eq!(numbers(&server, &format!("/events/{id}")).await, [1]);
    let listed = server.get("/events").await.ok();
    assert_eq!((&listed[0]["workspace_id"], &listed[0]["payload"]), (&Value::Null, &json!({})));
    assert_eq!(server.get(&format!("/events/{}", WorkspaceId::random())).await.ok(), json!([]));
    server.get("/events/x").await.is_error(400, "invalid workspace ID");
    for path in ["/events", "/events/x"] {
        assert_eq!(server.request(Method::GET, path).send().await.status, 401);
    }
}
