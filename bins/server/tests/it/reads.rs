//! `GET /workspaces`, `GET /workspaces/:id`, `GET /workspaces/:id/state` (contract 1 §1, §4).

use http::Method;
use mws_models::WorkspaceId;
use serde_json::{Value, json};

use crate::support::{Setup, templates};

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_read_withholds_what_the_list_shows() {
    // 1.R1, 1.R18, 1.R20, 1.R29, 1.R30, 1.R76, 1.R77, 5.R183
    // Without a backend the row soon changes no more.
    let server = Setup::default().without_backend().start().await;
    assert_eq!(server.get("/workspaces").await.bytes, "[]");
    let id = server.create("Lead", None).await;
    server.wait_status(id, "failed").await;
    server
        .database
        .execute(&format!(
            "UPDATE workspaces SET role = '', agent_card = '{{\"a\": [1, 2]}}' WHERE id = '{id}'"
        ))
        .await;
    let listed = server.get("/workspaces").await.json();
    let single = server.request(Method::GET, &format!("/workspaces/{id}")).send().await;
    let withheld = [
        "budget_limit",
        "budget_used",
        "current_task",
        "last_sample_error",
        "monthly_spend",
        "workspace_dir",
    ];
    let common = [
        "active_tasks",
        "agent_card",
        "broadcast_enabled",
        "collapsed",
        "compute",
        "id",
        "last_error_rate",
        "max_concurrent_tasks",
        "name",
        "parent_id",
        "role",
        "runtime",
        "status",
        "talk_to_user_enabled",
        "tier",
        "uptime_seconds",
        "url",
        "x",
        "y",
    ];
    let mut expected: Vec<_> = common.iter().chain(&withheld).copied().collect();
    expected.sort_unstable();
    assert_eq!(keys(&listed[0]), expected);
    let mut expected: Vec<_> = common.iter().chain(&["last_outbound_at"]).copied().collect();
    expected.sort_unstable();
    assert_eq!(keys(&single.json()), expected);
    assert_eq!((&single.json()["role"], &single.json()["last_outbound_at"]), (&Value::Null, &Value::Null));
    // Compact also where the database kept it otherwise.
    let text = String::from_utf8(single.bytes.to_vec()).unwrap();
    assert!(text.contains(r#""agent_card":{"a":[1,2]}"#) && !text.contains("\": "), "{text}");
    // A credential changes nothing, not even the admin's.
    assert_eq!(server.get(&format!("/workspaces/{id}")).await.bytes, single.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_comes_first_and_the_removed_not_at_all() {
    // 1.R76
    let server = Setup::default().start().await;
    let (a, b, c) =
        (server.create("A", None).await, server.create("B", None).await, server.create("C", None).await);
    server
        .database
        .execute(&format!("UPDATE workspaces SET created_at = now() - interval '1 day' WHERE id = '{c}'"))
        .await;
    server.delete(&format!("/workspaces/{b}")).await.ok();
    let listed = server.get("/workspaces").await.json();
    let ids: Vec<_> =
        listed.as_array().unwrap().iter().map(|w| w["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, [c.to_string(), a.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_workspace_is_gone_and_a_stranger_is_not_found() {
    // 1.R15, 1.R78, 1.R79, 1.R80
    let server = Setup::default().start().await;
    let id = server.create("Lead", None).await;
    server.delete(&format!("/workspaces/{id}")).await.ok();
    let gone = server.get(&format!("/workspaces/{id}?include_removed=TRUE")).await;
    gone.is_error(410, "workspace removed");
    assert_eq!(gone.json()["id"], json!(id));
    assert!(gone.json()["removed_at"].as_str().unwrap().ends_with('Z') && gone.json()["hint"].is_string());
    let kept = server.get(&format!("/workspaces/{id}?include_removed=true")).await.ok();
    assert_eq!(kept["status"], "removed");
    assert!(kept.get("budget_limit").is_none());
    server.get(&format!("/workspaces/{}", WorkspaceId::random())).await.is_error(404, "workspace not found");
    for bad in [
        "nonsense",
        "%2e%2e%2fetc",
        "{550e8400-e29b-41d4-a716-446655440000}",
        "550e8400e29b41d4a716446655440000",
    ] {
        let reply = server.request(Method::GET, &format!("/workspaces/{bad}")).send().await;
        reply.is_error(400, "invalid workspace ID");
    }
    // Protected routes ask who it is before they look at the id.
    let reply = server.request(Method::DELETE, "/workspaces/nonsense").send().await;
    reply.is_error(401, "admin auth required");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_timeout_shows_in_both_reads() {
    // 1.R31, 3.R78
    let (_folder, path) = templates(&[
        ("a/config.yaml", "runtime: sample\nmodel: m\nruntime_config: {provision_timeout_seconds: 700}\n"),
        ("b/config.yaml", "runtime: sample\nruntime_config: {provision_timeout_seconds: 720}\n"),
        ("c/config.yaml", "runtime: sample\nruntime_config: {provision_timeout_seconds: 0}\n"),
    ]);
    let server = Setup::default().env("CONFIGS_DIR", path.to_str().unwrap()).start().await;
    let id = server.create("Lead", None).await;
    assert_eq!(server.get("/workspaces").await.json()[0]["provision_timeout_ms"], 720_000);
    assert_eq!(server.get(&format!("/workspaces/{id}")).await.json()["provision_timeout_ms"], 720_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_polls_its_state_and_learns_of_its_end() {
    // 1.R21, 1.R22, 1.R81, 1.R82, 1.R83, 5.R9, 5.R13
    let server = Setup::default().start().await;
    let (id, token) = server.online("Lead", None, "http://127.0.0.1:9").await;
    let path = format!("/workspaces/{id}/state");
    let ask = async |token: &str| server.request(Method::GET, &path).bearer(token).send().await;
    let expected = json!({"workspace_id": id, "status": "online", "paused": false, "deleted": false});
    assert_eq!(ask(&token).await.ok(), expected);
    assert_eq!(server.get(&path).await.ok(), expected);
    server.database.execute(&format!("UPDATE workspaces SET status = 'paused' WHERE id = '{id}'")).await;
    assert_eq!(ask(&token).await.ok()["paused"], true);
    server.request(Method::GET, &path).send().await.is_error(401, "missing workspace auth token");
    ask("wrong").await.is_error(401, "invalid workspace auth token");

    server.delete(&format!("/workspaces/{id}")).await.ok();
    let own = ask(&token).await;
    assert_eq!(own.status, 404);
    let body = own.json();
    assert_eq!(
        (&body["deleted"], &body["status"], &body["workspace_id"]),
        (&json!(true), &json!("removed"), &json!(id))
    );
    ask("wrong").await.is_error(401, "invalid workspace auth token");
    assert_eq!(server.get(&path).await.json()["deleted"], true);
    // Only /state makes that exception.
    let beat = json!({"workspace_id": id});
    let reply = server.request(Method::POST, "/registry/heartbeat").bearer(&token).json(&beat).send().await;
    reply.is_error(401, "invalid workspace auth token");
    let nobody = server.get(&format!("/workspaces/{}/state", WorkspaceId::random())).await;
    assert_eq!((nobody.status, &nobody.json()["deleted"]), (404, &json!(true)));
    assert!(nobody.json().get("status").is_none());
}
