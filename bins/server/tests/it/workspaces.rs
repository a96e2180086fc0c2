//! The workspace resource (contract 1).

use mws_models::WorkspaceId;
use serde_json::json;

use crate::support::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn a_create_writes_everything_at_once() {
    // 1.R53, 1.R54, 1.R58, 1.R60, 2.R92
    let server = Setup::default().start().await;
    let reply = server
        .post(
            "/workspaces",
            &json!({"name": " Lead ", "template": "sample", "tier": 2, "secrets": {"K": "v"}}),
        )
        .await;
    assert_eq!(reply.status, 201);
    let created = reply.json();
    let id: WorkspaceId = created["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        created,
        json!({"id": id, "status": "provisioning", "workspace_access": "none", "name": "Lead",
               "runtime": "sample", "tier": 2})
    );
    let started = server.started(id).await;
    assert_eq!(started.env["K"], "v");
    assert_eq!(started.env["MODEL"], "sample/echo");
    let events = server.events(id).await;
    assert_eq!(events[0].0, "WORKSPACE_PROVISIONING");
    assert_eq!(events[0].1, json!({"name": "Lead", "tier": 2, "runtime": "sample"}));
}
