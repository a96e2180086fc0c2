//! Who a workspace may talk to, as `GET /registry/:id/peers` lists it (contract 3.7).

use http::Method;
use mws_models::WorkspaceId;
use serde_json::{Value, json};

use crate::support::{ADMIN, Reply, Setup, TestServer};

async fn quiet() -> TestServer {
    Setup::default().env("MWS_SWEEPS", "off").start().await
}

async fn member(server: &TestServer, name: &str, parent: Option<WorkspaceId>, second: u32) -> WorkspaceId {
    let parent = parent.map_or("NULL".to_owned(), |id| format!("'{id}'"));
    let created = format!("'2026-01-01T00:00:{second:02}Z'");
    server
        .row(&[
            ("name", &format!("'{name}'")),
            ("parent_id", &parent),
            ("created_at", &created),
            ("status", "'online'"),
        ])
        .await
}

async fn ask(server: &TestServer, id: WorkspaceId, query: &str) -> Reply {
    server.request(Method::GET, &format!("/registry/{id}/peers{query}")).send().await
}

async fn names(server: &TestServer, id: WorkspaceId, query: &str) -> Vec<String> {
    let listed = ask(server, id, query).await.ok();
    listed.as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_children_parent_in_this_order() {
    // 3.R52, 3.20 13
    let server = quiet().await;
    let lead = member(&server, "lead", None, 9).await;
    let other = member(&server, "other", None, 3).await;
    let late = member(&server, "late", Some(lead), 8).await;
    let early = member(&server, "early", Some(lead), 4).await;
    let me = member(&server, "me", Some(lead), 5).await;
    let second = member(&server, "second", Some(me), 7).await;
    member(&server, "first", Some(me), 6).await;
    member(&server, "grandchild", Some(second), 1).await;
    let gone = member(&server, "gone", Some(lead), 2).await;
    server.database.execute(&format!("UPDATE workspaces SET status = 'removed' WHERE id = '{gone}'")).await;

    assert_eq!(names(&server, me, "").await, ["early", "late", "first", "second", "lead"]);
    assert_eq!(names(&server, lead, "").await, ["other", "early", "me", "late"]);
    assert_eq!(names(&server, other, "").await, ["lead"]);
    assert_eq!(names(&server, late, "").await, ["early", "me", "lead"]);
    assert_eq!(names(&server, early, "").await, ["me", "late", "lead"]);

    let alone = Setup::default().start().await;
    let only = member(&alone, "only", None, 1).await;
    assert_eq!(ask(&alone, only, "").await.ok(), json!([]));
    assert_eq!(ask(&alone, only, "?q=x").await.ok(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_element_has_its_nine_members() {
    // 3.R52
    let server = quiet().await;
    let me = member(&server, "me", None, 1).await;
    let bare = member(&server, "bare", None, 2).await;
    let full = server
        .row(&[
            ("name", "'full'"),
            ("role", "'Writes'"),
            ("tier", "2"),
            ("status", "'degraded'"),
            ("agent_card", r#"'{"name": "f", "n": 1e2}'"#),
            ("url", "'http://93.184.216.34'"),
            ("parent_id", &format!("'{me}'")),
            ("active_tasks", "3"),
        ])
        .await;
    server.database.execute(&format!("UPDATE workspaces SET role = '' WHERE id = '{bare}'")).await;
    let expected = json!([
        {"id": bare, "name": "bare", "role": null, "tier": 3, "status": "online", "agent_card": null, "url": "",
         "parent_id": null, "active_tasks": 0},
        {"id": full, "name": "full", "role": "Writes", "tier": 2, "status": "degraded",
         "agent_card": {"name": "f", "n": 100}, "url": "http://93.184.216.34", "parent_id": me, "active_tasks": 3},
    ]);
    assert_eq!(ask(&server, me, "").await.ok(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_is_plain_text() {
    // 3.R53, 3.20 12, 1.R14
    let server = quiet().await;
    let me = member(&server, "me", None, 1).await;
    member(&server, "Ärger 100%", None, 2).await;
    member(&server, "a_b", None, 3).await;
    let role = server
        .row(&[("name", "'quiet'"), ("role", "'Senior EDITOR'"), ("created_at", "'2026-01-01T00:00:04Z'")])
        .await;
    for (query, expected) in [
        ("?q=", vec!["Ärger 100%", "a_b", "quiet"]),
        ("?q=%20%09", vec!["Ärger 100%", "a_b", "quiet"]),
        ("?q=%25", vec!["Ärger 100%"]),
        ("?q=_", vec!["a_b"]),
        ("?q=%C3%A4RGER", vec!["Ärger 100%"]),
        ("?q=%20editor%20", vec!["quiet"]),
        ("?q=a.b", vec![]),
        ("?q=senior&q=a_b", vec!["quiet"]),
    ] {
        assert_eq!(names(&server, me, query).await, expected, "{query}");
    }
    let listed = ask(&server, me, "?q=editor").await.ok();
    assert_eq!(listed[0]["id"], json!(role));
    assert_eq!(ask(&server, me, "?q=%00").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_discovery_gate_stands_before_the_list() {
    // 3.R47, 3.R1, 3.7
    let server = quiet().await;
    let me = member(&server, "me", None, 1).await;
    let peer = member(&server, "peer", None, 2).await;
    ask(&server, me, "").await.ok();
    let (own, others) = (server.token(me).await, server.token(peer).await);
    ask(&server, me, "").await.is_error(401, "missing workspace auth token");
    let path = format!("/registry/{me}/peers");
    for (bearer, status) in [(own.as_str(), 200), (ADMIN, 200), (&others, 401), ("junk", 401)] {
        let reply = server.request(Method::GET, &path).bearer(bearer).send().await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
    let removed = server.row(&[("status", "'removed'")]).await;
    for gone in [removed, WorkspaceId::random()] {
        server.get(&format!("/registry/{gone}/peers")).await.is_error(404, "workspace not found");
    }
    let bad: Value = server.get("/registry/nobody/peers").await.is_error(400, "invalid workspace ID").json();
    assert_eq!(bad, json!({"error": "invalid workspace ID"}));
}
