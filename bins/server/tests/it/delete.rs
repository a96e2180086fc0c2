//! `DELETE /workspaces/:id` (contract 1 §7).

use mws_models::WorkspaceId;
use mws_provisioner::StopMode;
use mws_provisioner::mock::Call;
use mws_registry_sweepers::sweeps::TeardownReaper;
use mws_tasks::Sweep;
use serde_json::json;

use crate::support::{Setup, TestServer};

async fn delete(server: &TestServer, id: WorkspaceId, query: &str) -> crate::support::Reply {
    server.delete(&format!("/workspaces/{id}{query}")).await
}

/// How often a workspace's agent was stopped by force.
fn stops(server: &TestServer, id: WorkspaceId) -> usize {
    server.mock.calls().iter().filter(|call| **call == Call::Stop(id, StopMode::Force)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn live_children_ask_for_confirmation() {
    // 1.R108
    let server = Setup::default().start().await;
    let root = server.create("Root", None).await;
    let (a, b) = (server.create("A", Some(root)).await, server.create("B", Some(root)).await);
    for query in ["", "?confirm=TRUE", "?confirm=1"] {
        let reply = delete(&server, root, query).await;
        assert_eq!(reply.status, 409);
        let body = reply.json();
        assert_eq!(body["status"], "confirmation_required");
        assert_eq!(body["children"], json!([{"id": a, "name": "A"}, {"id": b, "name": "B"}]));
        assert_eq!(body["children_count"], 2);
        assert!(body["error"].is_string() && body["message"].is_string());
    }
    assert_eq!(server.status(root).await, "provisioning");
    assert_eq!(delete(&server, a, "").await.ok(), json!({"status": "removed", "cascade_deleted": 0}));
    assert_eq!(delete(&server, b, "").await.ok()["cascade_deleted"], 0);
    assert_eq!(delete(&server, root, "").await.ok(), json!({"status": "removed", "cascade_deleted": 0}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_takes_everything_below_out_of_service() {
    // 1.R109, 1.R110, 1.R111, 1.R115, 5.R17, 7.R188, 2.R38, 2.R51
    let server = Setup::default().start().await;
    let root = server.create("Root", None).await;
    let child = server.create("Child", Some(root)).await;
    let grandchild = server.create("Grandchild", Some(child)).await;
    let bystander = server.create("Bystander", None).await;
    for id in [root, child, grandchild, bystander] {
        server.started(id).await;
    }
    server.database.execute(&format!(
        "INSERT INTO workspace_schedules (workspace_id, cron_expr, prompt) VALUES ('{child}', '* * * * *', 'x'), ('{bystander}', '* * * * *', 'x');
         INSERT INTO workspace_channels (workspace_id, channel_type) VALUES ('{child}', 'slack');
         INSERT INTO approval_requests (workspace_id, action) VALUES ('{child}', 'x');
         INSERT INTO a2a_queue (workspace_id, body) VALUES ('{grandchild}', '{{}}')")).await;
    assert_eq!(
        delete(&server, root, "?confirm=true").await.ok(),
        json!({"status": "removed", "cascade_deleted": 2})
    );
    for id in [root, child, grandchild] {
        assert_eq!(server.field(id, "status").await.as_deref(), Some("removed"));
        assert_eq!(server.field(id, "teardown_pending").await.as_deref(), Some("false"));
        assert_eq!(server.field(id, "platform_inbound_secret").await, None);
        assert_eq!(stops(&server, id), 1);
        assert!(!server.mock.has_storage(id));
    }
    assert_eq!(server.status(bystander).await, "provisioning");
    assert_eq!(stops(&server, bystander), 0);
    let one = async |sql: &str| server.database.value(sql).await.unwrap();
    assert_eq!(one("SELECT count(*)::text FROM workspace_auth_tokens WHERE revoked_at IS NULL").await, "1");
    assert_eq!(one("SELECT count(*)::text FROM canvas_layouts").await, "1");
    assert_eq!(
        one("SELECT string_agg(enabled::text, ',' ORDER BY enabled) FROM workspace_schedules").await,
        "false,true"
    );
    assert_eq!(one("SELECT enabled::text FROM workspace_channels").await, "false");
    assert_eq!(
        one("SELECT status || ' ' || decided_by FROM approval_requests").await,
        "denied workspace-removed"
    );
    assert_eq!(one("SELECT status FROM a2a_queue").await, "dropped");
    let removed = |events: Vec<(String, serde_json::Value)>| {
        events.into_iter().filter(|e| e.0 == "WORKSPACE_REMOVED").collect::<Vec<_>>()
    };
    assert_eq!(removed(server.events(child).await), [("WORKSPACE_REMOVED".to_owned(), json!({}))]);
    assert_eq!(
        removed(server.events(root).await),
        [("WORKSPACE_REMOVED".to_owned(), json!({"cascade_deleted": 2}))]
    );
    // Repeating it is harmless and tells nothing twice.
    assert_eq!(delete(&server, root, "").await.ok(), json!({"status": "removed", "cascade_deleted": 0}));
    assert_eq!(removed(server.events(root).await).len(), 1);
    assert_eq!(stops(&server, root), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_fails_is_told_kept_and_tried_again() {
    // 1.R112, 1.R113, 1.R4, 2.R52
    let server = Setup::default().start().await;
    let root = server.create("Root", None).await;
    let child = server.create("Child", Some(root)).await;
    for id in [root, child] {
        server.started(id).await;
    }
    server.mock.fail_stops(2);
    let reply = delete(&server, root, "?confirm=true").await;
    reply.is_error(500, "workspace marked removed, but 2 stop call(s) failed — please retry");
    let body = reply.json();
    assert_eq!((&body["removed_count"], &body["stop_failures"]), (&json!(2), &json!(2)));
    let mut failed: Vec<_> =
        body["failed_ids"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect();
    failed.sort();
    let mut expected = [root.to_string(), child.to_string()];
    expected.sort();
    assert_eq!(failed, expected);
    assert!(server.mock.has_storage(child), "storage stays while the agent may run");
    assert_eq!(
        server.field(child, "status || ' ' || teardown_pending").await.as_deref(),
        Some("removed true")
    );
    // The repeated delete reaches the child as well, although it is not the root.
    server.mock.fail_stops(0);
    assert_eq!(delete(&server, root, "").await.ok(), json!({"status": "removed", "cascade_deleted": 0}));
    assert_eq!(server.field(child, "teardown_pending").await.as_deref(), Some("false"));
    assert!(!server.mock.has_storage(child));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reaper_takes_failed_teardowns_up_again_with_doubling_pauses() {
    // 1.R113
    let server = Setup::default().start().await;
    let id = server.create("W", None).await;
    server.started(id).await;
    server.mock.fail_stops(2);
    assert_eq!(delete(&server, id, "").await.status, 500);
    let app = server.app();
    let reaper = TeardownReaper::new(app.db.clone(), app.lifecycle.clone());
    let age = async |seconds: i32| {
        let sql = format!(
            "UPDATE workspace_jobs SET finished_at = now() - interval '{seconds} seconds' WHERE state = 'failed'"
        );
        server.database.execute(&sql).await;
    };
    age(59).await;
    assert!(reaper.run_once().await.unwrap().acted.is_empty());
    age(61).await;
    assert_eq!(reaper.run_once().await.unwrap().acted, [id]);
    let failed = "SELECT count(*)::text FROM workspace_jobs WHERE state = 'failed' AND attempts = 2";
    mws_testkit::wait_until("the second failure", async || {
        server.database.value(failed).await.as_deref() == Some("1")
    })
    .await;
    age(119).await;
    assert!(reaper.run_once().await.unwrap().acted.is_empty());
    age(121).await;
    assert_eq!(reaper.run_once().await.unwrap().acted, [id]);
    mws_testkit::wait_until("the teardown", async || {
        server.field(id, "teardown_pending").await.as_deref() == Some("false")
    })
    .await;
    age(100_000).await;
    assert!(reaper.run_once().await.unwrap().acted.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_backend_only_what_shows_nothing_to_stop_is_done() {
    // 1.R112, 2.R64
    let server = Setup::default().without_backend().start().await;
    let nothing = server.create("Nothing", None).await;
    assert_eq!(delete(&server, nothing, "").await.ok(), json!({"status": "removed", "cascade_deleted": 0}));
    let shown = server.row(&[("url_provisioned", "true"), ("status", "'online'")]).await;
    let reply = delete(&server, shown, "").await;
    assert_eq!((reply.status, &reply.json()["failed_ids"]), (500, &json!([shown])));
    assert_eq!(server.field(shown, "teardown_pending").await.as_deref(), Some("true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_workspace_is_never_stopped() {
    // 1.R114, 1.R66
    let server = Setup::default().start().await;
    let id =
        server.row(&[("runtime", "'kimi'"), ("status", "'online'"), ("url", "'http://agent.example'")]).await;
    assert_eq!(delete(&server, id, "").await.ok()["status"], "removed");
    assert_eq!(server.field(id, "teardown_pending").await.as_deref(), Some("false"));
    assert!(!server.mock.calls().iter().any(|call| matches!(call, Call::Stop(..))));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_purges_change_nothing() {
    // 1.R15
    let server = Setup::default().start().await;
    delete(&server, WorkspaceId::random(), "").await.is_error(404, "workspace not found");
    server.delete("/workspaces/nonsense").await.is_error(400, "invalid workspace ID");
    let id = server.create("W", None).await;
    let reply = delete(&server, id, "?purge=true").await;
    assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("NOT_AVAILABLE")));
    assert_ne!(server.status(id).await, "removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_child_slips_into_a_subtree_that_goes() {
    // 1 §7 "Do better", 1.R46
    let server = Setup::default().start().await;
    let root = server.create("Root", None).await;
    let body = json!({"name": "Child", "runtime": "sample", "model": "a/b", "parent_id": root});
    let path = format!("/workspaces/{root}?confirm=true");
    let creates = futures_util::future::join_all((0..8).map(|_| server.post("/workspaces", &body)));
    let (created, removed) = tokio::join!(creates, server.delete(&path));
    removed.ok();
    for reply in created.iter().filter(|reply| reply.status != 201) {
        reply.is_error(400, "invalid parent_id");
    }
    let alive =
        format!("SELECT count(*)::text FROM workspaces WHERE parent_id = '{root}' AND status <> 'removed'");
    assert_eq!(server.database.value(&alive).await.as_deref(), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_during_a_start_stops_what_was_started() {
    // 2.R79, 2.R112
    let server = Setup::default().start().await;
    server.mock.set_start_delay(std::time::Duration::from_millis(700));
    let id = server.create("W", None).await;
    mws_testkit::wait_until("the start", async || server.mock.calls().contains(&Call::Start(id))).await;
    delete(&server, id, "").await.ok();
    assert!(server.mock.spec_of(id).is_none(), "nothing runs without a row");
    assert!(!server.mock.has_storage(id));
    assert_eq!(server.field(id, "url_provisioned").await.as_deref(), Some("false"));
}
