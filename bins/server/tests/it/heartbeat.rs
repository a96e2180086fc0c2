//! Heartbeats and what they do to the status (contract 3.2).

use std::time::{Duration, Instant};

use http::Method;
use mws_events::Subscription;
use mws_models::WorkspaceId;
use serde_json::{Value, json};

use crate::support::{ADMIN, Setup, TestServer};

const BEAT: &str = "/registry/heartbeat";
const MISSING: &str = "missing workspace auth token";
const INVALID: &str = "invalid workspace auth token";

async fn quiet() -> TestServer {
    Setup::default().env("MWS_SWEEPS", "off").start().await
}

/// Beats with these members besides the id; the workspace holds no token.
async fn beat(server: &TestServer, id: WorkspaceId, members: Value) {
    let mut sent = members;
    sent["workspace_id"] = json!(id);
    assert_eq!(server.agent_posts(BEAT, None, &sent).await.ok(), json!({"status": "ok"}));
}

async fn online(server: &TestServer) -> WorkspaceId {
    server.row(&[("status", "'online'")]).await
}

async fn state(server: &TestServer, id: WorkspaceId) -> String {
    server.field(id, "concat_ws(' ', status, degraded_reason)").await.unwrap()
}

/// Everything that was told so far: name and payload.
async fn told(feed: &mut Subscription) -> Vec<(String, Value)> {
    let mut told = Vec::new();
    while let Ok(Ok(event)) = tokio::time::timeout(Duration::from_millis(50), feed.next()).await {
        let frame: Value = serde_json::from_slice(event.text()).unwrap();
        told.push((frame["event"].as_str().unwrap().to_owned(), frame["payload"].clone()));
    }
    told
}

fn names(told: &[(String, Value)]) -> Vec<&str> {
    told.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_clamped_and_texts_cut() {
    // 3.R26, 3.R2, 1.R13
    let server = quiet().await;
    // member, column, sent as JSON, stored
    let table = [
        ("error_rate", "last_error_rate", "7", "1"),
        ("error_rate", "last_error_rate", "-0.5", "0"),
        ("error_rate", "last_error_rate", "0.25", "0.25"),
        ("error_rate", "last_error_rate", "null", "0"),
        ("active_tasks", "active_tasks", "-3", "0"),
        ("active_tasks", "active_tasks", "3.0", "3"),
        ("active_tasks", "active_tasks", "2147483648", "2147483647"),
        ("active_tasks", "active_tasks", "9e15", "2147483647"),
        ("uptime_seconds", "uptime_seconds", "-9223372036854775808", "0"),
        ("uptime_seconds", "uptime_seconds", "9223372036854775807", "2147483647"),
        ("monthly_spend", "monthly_spend", "-1", "0"),
        ("monthly_spend", "monthly_spend", "1000000000001", "1000000000000"),
        ("current_task", "current_task", "\"a\\ud83d\"", "a\u{fffd}"),
        ("current_task", "current_task", "\"a\\u0000b\"", "a\u{fffd}b"),
        ("sample_error", "last_sample_error", "\"\\udc00\"", "\u{fffd}"),
    ];
    for (member, column, sent, stored) in table {
        let id = online(&server).await;
        let sent = format!(r#"{{"workspace_id":"{id}","{member}":{sent}}}"#);
        server.request(Method::POST, BEAT).body(sent.clone()).send().await.ok();
        assert_eq!(server.field(id, column).await.unwrap(), stored, "{sent}");
    }
    let id = online(&server).await;
    beat(
        &server,
        id,
        json!({"sample_error": "ä".repeat(5000), "current_task": "€".repeat(2000),
               "runtime_state": format!("{}wedged", "x".repeat(64))}),
    )
    .await;
    let lengths = "concat_ws(' ', octet_length(last_sample_error), octet_length(current_task), status)";
    assert_eq!(server.field(id, lengths).await.unwrap(), "8192 4095 online");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_beats_change_nothing() {
    // 3.R1
    let server = quiet().await;
    let id = online(&server).await;
    let members = [
        r#""error_rate":"0""#,
        r#""error_rate":1e999"#,
        r#""active_tasks":1.5"#,
        r#""active_tasks":"1""#,
        r#""active_tasks":true"#,
        r#""uptime_seconds":{}"#,
        r#""monthly_spend":9223372036854775808"#,
        r#""current_task":1"#,
        r#""sample_error":[]"#,
        r#""runtime_state":0"#,
    ];
    for member in members {
        let sent = format!(r#"{{"workspace_id":"{id}",{member}}}"#);
        server.request(Method::POST, BEAT).body(sent).send().await.is_error(400, "invalid request body");
    }
    for sent in ["", "{}", "[]", r#"{"workspace_id":"x"}"#, r#"{"workspace_id":null}"#] {
        server.request(Method::POST, BEAT).body(sent).send().await.is_error(400, "invalid request body");
    }
    let reply = server.request(Method::POST, BEAT).body(vec![b'{'; (1 << 20) + 1]).send().await;
    reply.is_error(413, "request body too large");
    assert_eq!(server.field(id, "last_heartbeat_at IS NULL").await.unwrap(), "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_of_heartbeats() {
    // 3.R7, 3.R8, 3.R16, 3.R20, 3.R21, 3.R17
    let server = quiet().await;
    let id = online(&server).await;
    let other = online(&server).await;
    let sent = |id: WorkspaceId| json!({"workspace_id": id, "uptime_seconds": 5});
    let fresh = server.agent_posts(BEAT, Some("ignored"), &sent(id)).await;
    assert_eq!(fresh.ok(), json!({"status": "ok"}));

    let (own, others) = (server.token(id).await, server.token(other).await);
    server.agent_posts(BEAT, None, &sent(id)).await.is_error(401, MISSING);
    for wrong in ["junk", &others, ADMIN] {
        server.agent_posts(BEAT, Some(wrong), &sent(id)).await.is_error(401, INVALID);
    }
    let proven = server.agent_posts(BEAT, Some(&own), &sent(id)).await;
    assert_eq!(proven.header("cache-control"), Some("no-store"));
    let secret = proven.ok()["platform_inbound_secret"].clone();
    assert_eq!(secret.as_str().unwrap().len(), 43);
    assert_eq!(server.agent_posts(BEAT, Some(&own), &sent(id)).await.ok()["platform_inbound_secret"], secret);

    let removed = server.row(&[("status", "'removed'")]).await;
    for gone in [removed, WorkspaceId::random()] {
        server.agent_posts(BEAT, None, &sent(gone)).await.is_error(401, MISSING);
        server.agent_posts(BEAT, Some(&own), &sent(gone)).await.is_error(401, INVALID);
    }
    assert_eq!(
        server.field(removed, "last_heartbeat_at IS NULL AND uptime_seconds = 0").await.unwrap(),
        "true"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_beat_does_not_raise_the_dead() {
    // 3.R16, 3.R25, 1.R123
    let server = quiet().await;
    let id = online(&server).await;
    let held = server.hold(&format!("UPDATE workspaces SET status = 'removed' WHERE id = '{id}'"), 0.7).await;
    let sent = json!({"workspace_id": id});
    server.agent_posts(BEAT, None, &sent).await.is_error(401, MISSING);
    held.await.unwrap();
    assert_eq!(
        server.field(id, "concat_ws(' ', status, last_heartbeat_at IS NULL)").await.unwrap(),
        "removed t"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_stays_locked_is_503_within_its_time() {
    // 3.R25
    let server = quiet().await;
    let id = online(&server).await;
    let held = server.hold(&format!("SELECT 1 FROM workspaces WHERE id = '{id}' FOR UPDATE"), 4.0).await;
    let begun = Instant::now();
    let reply = server.agent_posts(BEAT, None, &json!({"workspace_id": id})).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.json()["code"], "platform_unavailable");
    let took = begun.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_millis(3500)).contains(&took), "{took:?}");
    held.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_rate_degrades_and_recovers_at_exact_bounds() {
    // 3.R28, 3.R29, 3.R30
    let server = quiet().await;
    let id = online(&server).await;
    let steps = [
        (0.49, "online"),
        (0.5, "degraded error_rate"),
        (0.9, "degraded error_rate"),
        (0.1, "degraded error_rate"),
        (0.09, "online"),
    ];
    for (rate, expected) in steps {
        beat(&server, id, json!({"error_rate": rate, "sample_error": "timeout", "uptime_seconds": 1})).await;
        assert_eq!(state(&server, id).await, expected, "{rate}");
    }
    let degraded = json!({"error_rate": 0.5, "sample_error": "timeout"});
    let expected = [
        ("WORKSPACE_DEGRADED".to_owned(), degraded),
        ("WORKSPACE_ONLINE".to_owned(), json!({"recovered_from": "degraded"})),
    ];
    assert_eq!(server.events(id).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wedge_holds_until_it_is_withdrawn() {
    // 3.R28, 3.R29, 3.R30
    let server = quiet().await;
    let id = online(&server).await;
    beat(&server, id, json!({"runtime_state": "wedged", "error_rate": 0.8, "sample_error": "stuck"})).await;
    assert_eq!(state(&server, id).await, "degraded wedged");
    for members in [
        json!({"runtime_state": "wedged", "error_rate": 0}),
        json!({"runtime_state": "draining", "error_rate": 0}),
        json!({"error_rate": 0.1}),
    ] {
        beat(&server, id, members).await;
        assert_eq!(state(&server, id).await, "degraded wedged");
    }
    beat(&server, id, json!({"error_rate": 0.0})).await;
    assert_eq!(state(&server, id).await, "online");
    let wedged = json!({"runtime_state": "wedged", "error_rate": 0.8, "sample_error": "stuck"});
    let expected = [
        ("WORKSPACE_DEGRADED".to_owned(), wedged),
        ("WORKSPACE_ONLINE".to_owned(), json!({"recovered_from": "degraded"})),
    ];
    assert_eq!(server.events(id).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_management_of_its_own_turns_the_inference_off() {
    // 3.R28, 3.R31
    let server = quiet().await;
    let native = json!({"capabilities": {"status_mgmt": true}});
    let id = online(&server).await;
    // Declared by this very heartbeat.
    beat(&server, id, json!({"error_rate": 0.9, "runtime_metadata": native})).await;
    assert_eq!(state(&server, id).await, "online");
    beat(&server, id, json!({"runtime_state": "wedged", "runtime_metadata": native})).await;
    assert_eq!(state(&server, id).await, "degraded wedged");
    beat(&server, id, json!({"error_rate": 0.9, "runtime_metadata": native})).await;
    assert_eq!(state(&server, id).await, "online");
    // Withdrawn by this very heartbeat.
    beat(&server, id, json!({"error_rate": 0.9})).await;
    assert_eq!(state(&server, id).await, "degraded error_rate");
    beat(&server, id, json!({"error_rate": 0.0, "runtime_metadata": native})).await;
    assert_eq!(state(&server, id).await, "degraded error_rate");
    server
        .agent_posts(
            "/registry/register",
            None,
            &json!({"id": id, "agent_card": {}, "url": "http://93.184.216.34"}),
        )
        .await
        .ok();
    assert_eq!(state(&server, id).await, "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_beat_revives_what_waits_and_none_what_is_held() {
    // 3.R28, 3.20 9, 1.R121
    let server = quiet().await;
    for from in ["offline", "provisioning", "awaiting_agent", "failed"] {
        let id = server.row(&[("status", &format!("'{from}'"))]).await;
        beat(&server, id, json!({"error_rate": 0.9})).await;
        assert_eq!(state(&server, id).await, "online", "{from}");
        let recovered = ("WORKSPACE_ONLINE".to_owned(), json!({"recovered_from": from}));
        assert_eq!(server.events(id).await, [recovered]);
    }
    for held in ["paused", "hibernating", "hibernated"] {
        let id = server.row(&[("status", &format!("'{held}'"))]).await;
        beat(&server, id, json!({"error_rate": 0.9, "uptime_seconds": 7})).await;
        let row = server.field(id, "concat_ws(' ', status, uptime_seconds, last_heartbeat_at IS NULL)").await;
        assert_eq!(row.unwrap(), format!("{held} 7 f"));
        assert_eq!(server.events(id).await, []);
    }
    let failed = server.row(&[("status", "'failed'")]).await;
    beat(&server, failed, json!({"runtime_state": "wedged"})).await;
    assert_eq!(state(&server, failed).await, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn beats_of_two_servers_make_one_transition() {
    // 3.R36, 3.R95
    let one = quiet().await;
    let two = Setup::default().env("MWS_SWEEPS", "off").start_on(one.database.clone()).await;
    let id = online(&one).await;
    let sent = json!({"workspace_id": id, "error_rate": 0.9});
    let servers = [&one, &two];
    let beats = (0..16).map(|n| servers[n % 2].agent_posts(BEAT, None, &sent));
    for reply in futures_util::future::join_all(beats).await {
        reply.ok();
    }
    let degraded = one.events(id).await;
    assert_eq!(names(&degraded), ["WORKSPACE_DEGRADED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_exactly_when_due_and_in_order() {
    // 3.R25, 3.R33, 3.R34, 3.R107, 3.R109
    let server = quiet().await;
    let id = online(&server).await;
    let mut feed = server.app().hub.subscribe();
    let pulse =
        |tasks: i32| ("WORKSPACE_HEARTBEAT".to_owned(), json!({"active_tasks": tasks, "uptime_seconds": 9}));
    let task = |text: &str, tasks: i32| {
        ("TASK_UPDATED".to_owned(), json!({"current_task": text, "active_tasks": tasks}))
    };
    let with =
        |text: &str, tasks: i32| json!({"current_task": text, "active_tasks": tasks, "uptime_seconds": 9});

    beat(&server, id, with("", 0)).await;
    assert_eq!(told(&mut feed).await, [pulse(0)]);
    beat(&server, id, with("write", 1)).await;
    assert_eq!(told(&mut feed).await, [task("write", 1), pulse(1)]);
    beat(&server, id, with("write", 2)).await;
    assert_eq!(told(&mut feed).await, [pulse(2)]);
    beat(&server, id, with("", 0)).await;
    assert_eq!(told(&mut feed).await, [task("", 0), pulse(0)]);
    let mut all = with("read", 1);
    all["error_rate"] = json!(0.7);
    beat(&server, id, all).await;
    assert_eq!(names(&told(&mut feed).await), ["WORKSPACE_DEGRADED", "TASK_UPDATED", "WORKSPACE_HEARTBEAT"]);
    // Refused beats tell nothing.
    server
        .agent_posts(BEAT, None, &json!({"workspace_id": WorkspaceId::random()}))
        .await
        .is_error(401, MISSING);
    assert_eq!(told(&mut feed).await, []);
    // Broadcast only: no row.
    let listed = server.events(id).await;
    assert_eq!(names(&listed), ["WORKSPACE_DEGRADED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_spend_only_grows_within_its_month() {
    // 3.R26
    let server = quiet().await;
    let id = online(&server).await;
    for (sent, stored) in [
        (json!(500), "500"),
        (json!(400), "500"),
        (json!(0), "500"),
        (json!(-7), "500"),
        (json!(null), "500"),
        (json!(501), "501"),
    ] {
        beat(&server, id, json!({"monthly_spend": sent, "uptime_seconds": 1})).await;
        assert_eq!(server.field(id, "monthly_spend").await.unwrap(), stored, "{sent}");
    }
    let past =
        format!("UPDATE workspaces SET spend_month = spend_month - interval '1 month' WHERE id = '{id}'");
    server.database.execute(&past).await;
    beat(&server, id, json!({"uptime_seconds": 1})).await;
    assert_eq!(server.field(id, "monthly_spend").await.unwrap(), "501");
    beat(&server, id, json!({"monthly_spend": 3})).await;
    let row = "concat_ws(' ', monthly_spend, spend_month = date_trunc('month', now()))";
    assert_eq!(server.field(id, row).await.unwrap(), "3 t");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_clock_runs_while_nothing_is_done() {
    // 3.R26
    let server = quiet().await;
    let id = online(&server).await;
    beat(&server, id, json!({"active_tasks": 1})).await;
    assert_eq!(server.field(id, "idle_since").await, None);
    beat(&server, id, json!({"active_tasks": 0})).await;
    let since = server.field(id, "idle_since").await.unwrap();
    beat(&server, id, json!({"active_tasks": 0})).await;
    assert_eq!(server.field(id, "idle_since").await.unwrap(), since);
}
