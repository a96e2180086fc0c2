//! The sweeps, run directly: silent agents and starts that never end (contract 3.10).

use mws_models::WorkspaceId;
use mws_registry_sweepers::sweeps::{LivenessSweep, ProvisionTimeoutSweep};
use mws_tasks::{Report, Sweep};
use serde_json::json;

use crate::support::{Setup, TestServer, templates};

fn quiet() -> Setup {
    Setup::default().env("MWS_SWEEPS", "off")
}

fn liveness(server: &TestServer) -> LivenessSweep {
    LivenessSweep::new(server.app().db.clone(), server.app().lifecycle.clone(), "test")
}

fn timeouts(server: &TestServer) -> ProvisionTimeoutSweep {
    ProvisionTimeoutSweep::new(server.app().db.clone(), server.app().lifecycle.clone())
}

async fn run(sweep: &dyn Sweep) -> Vec<WorkspaceId> {
    let Report { examined, acted } = sweep.run_once().await.unwrap();
    assert!(examined >= acted.len());
    acted
}

async fn aged(
    server: &TestServer,
    status: &str,
    runtime: &str,
    beat: Option<u32>,
    updated: u32,
) -> WorkspaceId {
    let ago = |seconds: u32| format!("now() - interval '{seconds} seconds'");
    let beat = beat.map_or("NULL".to_owned(), ago);
    server
        .row(&[
            ("status", &format!("'{status}'")),
            ("runtime", &format!("'{runtime}'")),
            ("last_heartbeat_at", &beat),
            ("updated_at", &ago(updated)),
            ("degraded_reason", if status == "degraded" { "'wedged'" } else { "NULL" }),
        ])
        .await
}

async fn restarts(server: &TestServer, id: WorkspaceId) -> Vec<Option<String>> {
    let sql = format!(
        "SELECT concat_ws(' ', kind, reason, automatic) FROM workspace_jobs WHERE workspace_id = '{id}'"
    );
    server.database.column(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_goes_offline_and_is_restarted() {
    // 3.R63, 3.R65, 3.R69, 3.R71
    let server = quiet().start().await;
    let mut lost = vec![
        aged(&server, "online", "claude-code", Some(181), 5).await,
        aged(&server, "degraded", "sample", Some(4000), 5).await,
        // Never beat: its last change counts.
        aged(&server, "online", "sample", None, 181).await,
    ];
    let fresh = [
        aged(&server, "online", "sample", Some(170), 4000).await,
        aged(&server, "degraded", "external", Some(0), 4000).await,
        aged(&server, "online", "external", None, 100).await,
    ];
    let sweep = liveness(&server).without_grace();
    let mut acted = run(&sweep).await;
    acted.sort();
    lost.sort();
    assert_eq!(acted, lost);
    for id in &lost {
        assert_eq!(
            server.field(*id, "concat_ws(' ', status, degraded_reason IS NULL)").await.unwrap(),
            "offline t"
        );
        let offline = ("WORKSPACE_OFFLINE".to_owned(), json!({"reason": "ttl_expired"}));
        assert_eq!(server.events(*id).await, [offline]);
        assert_eq!(restarts(&server, *id).await, [Some("restart ttl_expired t".to_owned())]);
    }
    for id in fresh {
        assert_eq!(server.events(id).await, []);
        assert!(restarts(&server, id).await.is_empty());
    }
    assert!(run(&sweep).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_external_agent_is_awaited() {
    // 3.R65, 3.R71, 3.R76
    let server = quiet().start().await;
    for (status, runtime) in [("online", "external"), ("degraded", "kimi"), ("online", "kimi-cli")] {
        let id = aged(&server, status, runtime, Some(181), 0).await;
        let token = server.token(id).await;
        assert_eq!(run(&liveness(&server).without_grace()).await, [id]);
        assert_eq!(server.status(id).await, "awaiting_agent");
        let expected = [
            ("WORKSPACE_OFFLINE".to_owned(), json!({"status": "awaiting_agent", "reason": "ttl_expired"})),
            ("WORKSPACE_AWAITING_AGENT".to_owned(), json!({"name": format!("ws {id}"), "external": true})),
        ];
        assert_eq!(server.events(id).await, expected);
        assert!(restarts(&server, id).await.is_empty());
        // Its token is untouched, and its next beat brings it back.
        server.agent_posts("/registry/heartbeat", Some(&token), &json!({"workspace_id": id})).await.ok();
        assert_eq!(server.status(id).await, "online");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_status_is_left_alone() {
    // 3.R70, 1.R121, 1.R122
    let server = quiet().without_backend().start().await;
    let mut rows = Vec::new();
    for status in [
        "removed",
        "paused",
        "hibernating",
        "hibernated",
        "provisioning",
        "failed",
        "offline",
        "awaiting_agent",
    ] {
        for runtime in ["sample", "external"] {
            rows.push((status, aged(&server, status, runtime, Some(9000), 9000).await));
        }
    }
    assert!(run(&liveness(&server).without_grace()).await.is_empty());
    for (status, id) in rows {
        let row = "concat_ws(' ', status, now() - updated_at > interval '1 hour')";
        assert_eq!(server.field(id, row).await.unwrap(), format!("{status} t"));
        assert_eq!(server.events(id).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_down_declares_nobody_dead_at_once() {
    // 3.R71
    let server = quiet().start().await;
    let id = aged(&server, "online", "external", Some(4000), 4000).await;
    let other_ticked = |ago: &str| {
        format!(
            "INSERT INTO background_tasks (name, holder, last_tick_at)
             VALUES ('liveness-monitor', 'other', now() - interval '{ago}')
             ON CONFLICT (name) DO UPDATE SET holder = 'other', last_tick_at = EXCLUDED.last_tick_at"
        )
    };
    let sweep = liveness(&server);
    assert!(run(&sweep).await.is_empty());
    // What another process did before this one started says nothing.
    server.database.execute(&other_ticked("1 minute")).await;
    assert!(run(&sweep).await.is_empty());
    // One that ticked meanwhile has been listening; that holds when the row is this process's own afterwards.
    server.database.execute(&other_ticked("0 seconds")).await;
    sweep.passed_over().await.unwrap();
    server.database.execute("UPDATE background_tasks SET holder = 'test'").await;
    assert!(run(&liveness(&server)).await.is_empty());
    assert_eq!(run(&sweep).await, [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn transition_event_and_restart_are_one_transaction() {
    // 3.R64
    let server = quiet().start().await;
    let id = aged(&server, "online", "sample", Some(181), 5).await;
    let mut feed = server.app().hub.subscribe();
    server.database.execute("ALTER TABLE workspace_jobs ADD CONSTRAINT broken CHECK (false) NOT VALID").await;
    let sweep = liveness(&server).without_grace();
    sweep.run_once().await.unwrap_err();
    assert_eq!(server.status(id).await, "online");
    assert_eq!(server.events(id).await, []);
    server.database.execute("ALTER TABLE workspace_jobs DROP CONSTRAINT broken").await;
    assert_eq!(run(&sweep).await, [id]);
    // The first thing that was told is the one that holds.
    assert_eq!(feed.next().await.unwrap().workspace_id(), id);
    assert_eq!(server.events(id).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_sweeps_at_once_one_acts() {
    // 3.R63, 3.R95
    let one = quiet().start().await;
    let two = quiet().start_on(one.database.clone()).await;
    let mut lost = Vec::new();
    for n in 0..40 {
        let runtime = if n % 2 == 0 { "sample" } else { "external" };
        lost.push(aged(&one, "online", runtime, Some(181), 5).await);
    }
    let waiting = aged(&one, "provisioning", "sample", None, 700).await;
    let sweeps: Vec<Box<dyn Sweep>> = vec![
        Box::new(liveness(&one).without_grace()),
        Box::new(liveness(&two).without_grace()),
        Box::new(timeouts(&one)),
        Box::new(timeouts(&two)),
    ];
    let acted = futures_util::future::join_all(sweeps.iter().map(|sweep| run(sweep.as_ref()))).await;
    let mut acted = acted.concat();
    acted.sort();
    let mut expected = [lost.clone(), vec![waiting]].concat();
    expected.sort();
    assert_eq!(acted, expected);
    let twice = "SELECT count(*) FROM (SELECT workspace_id FROM structure_events
                 GROUP BY workspace_id, event_type HAVING count(*) > 1) AS twice";
    assert_eq!(one.database.value(twice).await.unwrap(), "0");
    let jobs = "SELECT count(*) FROM workspace_jobs";
    assert_eq!(one.database.value(jobs).await.unwrap(), "20");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_in_between_saves_the_agent() {
    // 3.R63
    let server = quiet().start().await;
    let id = aged(&server, "online", "sample", Some(181), 181).await;
    let beaten = format!("UPDATE workspaces SET last_heartbeat_at = now() WHERE id = '{id}'");
    let held = server.hold(&beaten, 0.5).await;
    assert!(run(&liveness(&server).without_grace()).await.is_empty());
    held.await.unwrap();
    assert!(run(&liveness(&server).without_grace()).await.is_empty());
    assert_eq!(server.status(id).await, "online");

    // The list says that it waits too long; when it is acted on it has come online.
    let slow = aged(&server, "provisioning", "sample", None, 700).await;
    let up = format!("UPDATE workspaces SET status = 'online', updated_at = now() WHERE id = '{slow}'");
    let held = server.hold(&up, 0.5).await;
    assert!(run(&timeouts(&server)).await.is_empty());
    held.await.unwrap();
    assert_eq!(server.status(slow).await, "online");
    // And one that was started again meanwhile has its full time.
    let again = aged(&server, "provisioning", "sample", None, 700).await;
    let held =
        server.hold(&format!("UPDATE workspaces SET updated_at = now() WHERE id = '{again}'"), 0.5).await;
    assert!(run(&timeouts(&server)).await.is_empty());
    held.await.unwrap();
    assert_eq!(server.status(again).await, "provisioning");
    for id in [id, slow, again] {
        assert_eq!(server.events(id).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_never_ends_fails_at_its_runtimes_limit() {
    // 3.R77, 3.R78, 3.R80, 3.R59
    let (_folder, configs) = templates(&[
        (
            "quick/config.yaml",
            "runtime: langgraph\nmodel: m\nruntime_config: {provision_timeout_seconds: 60}\n",
        ),
        (
            "slower/config.yaml",
            "runtime: langgraph\nmodel: m\nruntime_config: {provision_timeout_seconds: 90}\n",
        ),
        ("bad/config.yaml", "runtime: [\n"),
        (
            "undeclared/config.yaml",
            "runtime: codex\nmodel: m\nruntime_config: {provision_timeout_seconds: 0}\n",
        ),
    ]);
    let server = quiet().without_backend().env("CONFIGS_DIR", configs.to_str().unwrap()).start().await;
    let sweep = timeouts(&server);
    for (runtime, limit) in
        [("langgraph", 90), ("codex", 600), ("hermes", 1800), ("external", 600), ("sample", 600)]
    {
        let early = aged(&server, "provisioning", runtime, None, limit - 5).await;
        let late = aged(&server, "provisioning", runtime, None, limit + 1).await;
        let other = aged(&server, "failed", runtime, None, limit + 1).await;
        assert_eq!(run(&sweep).await, [late], "{runtime}");
        let error = "provisioning timed out — container started but never called /registry/register. Check \
                     container logs and network connectivity to the platform.";
        assert_eq!(server.status(late).await, "failed");
        assert_eq!(server.field(late, "last_sample_error").await.unwrap(), error);
        let payload = json!({"error": error, "timeout_secs": limit, "runtime": runtime,
                             "source": "provision_timeout_sweep"});
        assert_eq!(server.events(late).await, [("WORKSPACE_PROVISION_FAILED".to_owned(), payload)]);
        assert_eq!(server.status(early).await, "provisioning");
        assert_eq!(server.events(other).await, []);
        assert!(run(&sweep).await.is_empty());
        server.database.execute(&format!("DELETE FROM workspaces WHERE id = '{early}'")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_limit_holds_for_every_runtime() {
    // 3.R78 1
    let server = quiet().env("PROVISION_TIMEOUT_SECONDS", "30").start().await;
    for runtime in ["hermes", "sample", "external"] {
        let early = aged(&server, "provisioning", runtime, None, 20).await;
        let late = aged(&server, "provisioning", runtime, None, 31).await;
        assert_eq!(run(&timeouts(&server)).await, [late]);
        assert_eq!(server.events(late).await[0].1["timeout_secs"], 30);
        assert_eq!(server.status(early).await, "provisioning");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_counts_without_a_restart() {
    // 3.R79
    let config = "runtime: codex\nmodel: m\nruntime_config: {provision_timeout_seconds: 60}\n";
    let (folder, configs) = templates(&[("codex/config.yaml", config)]);
    let server = quiet().env("CONFIGS_DIR", configs.to_str().unwrap()).start().await;
    let id = aged(&server, "provisioning", "codex", None, 300).await;
    let longer = config.replace("60", "1000");
    std::fs::write(folder.path().join("codex/config.yaml"), longer).unwrap();
    assert!(run(&timeouts(&server)).await.is_empty());
    assert_eq!(server.status(id).await, "provisioning");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_keeps_no_other_waiting() {
    // 3.R61
    let server = quiet().start().await;
    let bad = aged(&server, "provisioning", "sample", None, 900).await;
    let good = aged(&server, "provisioning", "sample", None, 800).await;
    let refuse = format!("ALTER TABLE workspaces ADD CHECK (id <> '{bad}' OR status <> 'failed')");
    server.database.execute(&refuse).await;
    timeouts(&server).run_once().await.unwrap_err();
    assert_eq!(server.status(good).await, "failed");
    assert_eq!(server.status(bad).await, "provisioning");
}
