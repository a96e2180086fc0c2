//! What an agent's adapter declares about itself, and the short beats that leave it alone (contract 3.3, 3.R27).

use mws_models::WorkspaceId;
use serde_json::{Value, json};

use crate::support::{Setup, TestServer};

async fn quiet() -> TestServer {
    Setup::default().env("MWS_SWEEPS", "off").start().await
}

async fn beat(server: &TestServer, id: WorkspaceId, members: Value) {
    let mut sent = members;
    sent["workspace_id"] = json!(id);
    server.agent_posts("/registry/heartbeat", None, &sent).await.ok();
}

async fn declared(server: &TestServer, id: WorkspaceId) -> Value {
    let stored = server.field(id, "runtime_metadata").await;
    stored.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_is_stored_whole_replaced_and_cleared() {
    // 3.R37, 3.R38, 3.R39
    let server = quiet().await;
    let id = server.row(&[("status", "'online'")]).await;
    let bystander = server
        .row(&[("status", "'online'"), ("runtime_metadata", r#"'{"capabilities": {"retry": true}}'"#)])
        .await;
    let full = json!({"capabilities": {"session": true, "scheduler": false, "brand_new": true},
                      "idle_timeout_seconds": 999_999});
    let stored = json!({"capabilities": {"session": true, "scheduler": false, "brand_new": true},
                        "idle_timeout_seconds": 86400});
    beat(&server, id, json!({"runtime_metadata": full, "uptime_seconds": 1})).await;
    assert_eq!(declared(&server, id).await, stored);
    // Malformed blocks leave it and never fail the beat.
    for malformed in [
        json!("x"),
        json!([]),
        json!(5),
        json!({"capabilities": {"session": "yes"}}),
        json!({"capabilities": 1}),
        json!({"idle_timeout_seconds": "soon"}),
    ] {
        beat(&server, id, json!({"runtime_metadata": malformed, "uptime_seconds": 2})).await;
        assert_eq!(declared(&server, id).await, stored, "{malformed}");
        assert_eq!(server.field(id, "uptime_seconds").await.unwrap(), "2");
    }
    beat(
        &server,
        id,
        json!({"runtime_metadata": {"capabilities": {"retry": true}, "idle_timeout_seconds": 0}}),
    )
    .await;
    assert_eq!(declared(&server, id).await, json!({"capabilities": {"retry": true}}));
    for clearing in [
        json!({"runtime_metadata": {}}),
        json!({"uptime_seconds": 9}),
        json!({"runtime_metadata": null, "uptime_seconds": 3}),
    ] {
        beat(&server, id, json!({"runtime_metadata": full})).await;
        assert_eq!(declared(&server, id).await, stored);
        beat(&server, id, clearing).await;
        assert_eq!(declared(&server, id).await, Value::Null);
    }
    assert_eq!(declared(&server, bystander).await, json!({"capabilities": {"retry": true}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_push_touches_only_the_task() {
    // 3.R27, 3.R37
    let server = quiet().await;
    let row = "concat_ws('|', status, degraded_reason, uptime_seconds, last_error_rate, last_sample_error,
               runtime_metadata, active_tasks, current_task, monthly_spend)";
    let rest = r#"60|0.9|boom|{"capabilities": {"session": true}}"#;
    let push = json!({"active_tasks": 2, "current_task": "write", "monthly_spend": 12});
    let given = |status: &'static str, reason: &'static str| {
        [
            ("status", status),
            ("degraded_reason", reason),
            ("uptime_seconds", "60"),
            ("last_error_rate", "0.9"),
            ("last_sample_error", "'boom'"),
            ("runtime_metadata", r#"'{"capabilities": {"session": true}}'"#),
        ]
    };
    // It neither recovers nor degrades, but the other rows of 3.R28 apply.
    for (status, reason, after) in [
        ("'degraded'", "'wedged'", "degraded|wedged|"),
        ("'degraded'", "'error_rate'", "degraded|error_rate|"),
        ("'online'", "NULL", "online|"),
        ("'offline'", "NULL", "online|"),
        ("'paused'", "NULL", "paused|"),
    ] {
        let id = server.row(&given(status, reason)).await;
        beat(&server, id, push.clone()).await;
        assert_eq!(server.field(id, row).await.unwrap(), format!("{after}{rest}|2|write|12"), "{status}");
    }
    // One more member makes it a full one.
    for member in [
        json!({"uptime_seconds": 1}),
        json!({"sample_error": "x"}),
        json!({"error_rate": 0.01}),
        json!({"runtime_metadata": {}}),
    ] {
        let id = server.row(&given("'degraded'", "'error_rate'")).await;
        beat(&server, id, member.clone()).await;
        let full = "concat_ws(' ', status, runtime_metadata IS NULL)";
        assert_eq!(server.field(id, full).await.unwrap(), "online t", "{member}");
    }
    // Without a declaration on file there is nothing to protect.
    let bare = server
        .row(&[("status", "'degraded'"), ("degraded_reason", "'error_rate'"), ("uptime_seconds", "60")])
        .await;
    beat(&server, bare, push).await;
    assert_eq!(server.field(bare, "concat_ws(' ', status, uptime_seconds)").await.unwrap(), "online 0");
}
