//! Lifecycle jobs: provisioning, automatic restart, recovery (contract 2 §6, §7; 3.R100 to R103, R127).

use std::time::Duration;

use mws_db::jobs::{JobKind, JobOptions, NewJob};
use mws_models::{OfflineReason, WorkspaceId};
use mws_provisioner::StopMode;
use mws_provisioner::mock::{Call, LivenessAnswer, StartFailure};
use mws_testkit::wait_until;
use serde_json::{Value, json};

use crate::support::{Setup, TestServer, templates};

async fn jobs(server: &TestServer, id: WorkspaceId, state: &str) -> i64 {
    let sql = format!(
        "SELECT count(*)::text FROM workspace_jobs WHERE workspace_id = '{id}' AND state = '{state}'"
    );
    server.database.value(&sql).await.unwrap().parse().unwrap()
}

async fn failure(server: &TestServer, id: WorkspaceId) -> Value {
    server.wait_status(id, "failed").await;
    let events = server.events(id).await;
    let failed: Vec<_> = events.into_iter().filter(|event| event.0 == "WORKSPACE_PROVISION_FAILED").collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(server.field(id, "last_sample_error").await.as_deref(), failed[0].1["error"].as_str());
    failed[0].1.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_started_agent_waits_in_provisioning_until_it_speaks() {
    // 2.R29, 2.R30, 2.R79, 2.R105, 6.8
    let server = Setup::default().start().await;
    let id = server.create("Lead", None).await;
    let started = server.started(id).await;
    wait_until("the published address", async || {
        server.field(id, "url_provisioned").await.as_deref() == Some("true")
    })
    .await;
    assert_eq!(server.status(id).await, "provisioning");
    assert_eq!(server.field(id, "provision_generation").await.as_deref(), Some("1"));
    assert!(server.field(id, "runtime_image_digest").await.unwrap().starts_with("sha256:"));
    // The token on the agent's volume is the only live one, and only its hash is stored.
    let hash = format!(
        "SELECT (token_hash = sha256('{}'))::text FROM workspace_auth_tokens WHERE workspace_id = '{id}' AND revoked_at IS NULL",
        started.token.unwrap()
    );
    assert_eq!(server.database.value(&hash).await.as_deref(), Some("true"));
    assert_eq!(jobs(&server, id, "done").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_says_why_in_fixed_words() {
    // 2.R24, 2.R84, 2.R85, 2.R86, 5.R172
    let server = Setup::default().start().await;
    for (cause, code, text) in [
        (
            StartFailure::ImageMissing,
            "PROVISION_IMAGE_UNAVAILABLE",
            "container image for runtime \"sample\" is not available",
        ),
        (StartFailure::ConfigMissing, "PROVISION_CONFIG_MISSING", "no configuration for this workspace"),
        (StartFailure::NameTaken, "PROVISION_START_FAILED", "workspace start failed"),
        (StartFailure::Engine, "PROVISION_START_FAILED", "workspace start failed"),
    ] {
        server.mock.fail_starts([cause]);
        let id = server.create(code, None).await;
        assert_eq!(failure(&server, id).await, json!({"error": text, "code": code}));
        wait_until("the job's end", async || jobs(&server, id, "failed").await == 1).await;
        let listed = server.get("/admin/jobs").await.ok();
        let job =
            listed["jobs"].as_array().unwrap().iter().find(|job| job["workspace_id"] == json!(id)).unwrap();
        assert_eq!(
            (&job["state"], &job["kind"], &job["last_error"]),
            (&json!("failed"), &json!("provision"), &json!(text))
        );
        // It is not tried again by itself.
        assert_eq!(jobs(&server, id, "pending").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_start_is_that_start_s_alone() {
    // 2.R81, 2.R116
    let server = Setup::default().start().await;
    server.mock.fail_starts([StartFailure::Panic]);
    let id = server.create("Crashed", None).await;
    let (text, code) = ("provisioning crashed", "PROVISION_PANIC");
    assert_eq!(failure(&server, id).await, json!({"error": text, "code": code}));
    wait_until("the job's end", async || jobs(&server, id, "failed").await == 1).await;

    let next = server.create("Fine", None).await;
    server.started(next).await;
    server.delete(&format!("/workspaces/{id}?confirm=true")).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecryptable_secret_fails_the_start_without_a_word_about_it() {
    // 2.R87, 5.R232, 2.T21
    let server = Setup::default().start().await;
    server.database.execute("INSERT INTO global_secrets (key, encrypted_value, encryption_version) VALUES ('PLANTED_KEY', '\\x0201020304', 2)").await;
    let id = server.create("W", None).await;
    assert_eq!(
        failure(&server, id).await,
        json!({"error": "failed to decrypt global secret", "code": "PROVISION_SECRET_DECRYPT"})
    );
    assert!(!server.mock.calls().contains(&Call::Start(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_variables_are_named_before_anything_starts() {
    // 2.R103, 6.R29
    let (_folder, path) = templates(&[(
        "t/config.yaml",
        "runtime: sample\nmodel: m\nruntime_config:\n  required_env: [SET, B_KEY, A_KEY, EMPTY]\n",
    )]);
    let server = Setup::default().env("CONFIGS_DIR", path.to_str().unwrap()).start().await;
    let body = json!({"name": "W", "template": "t", "secrets": {"SET": "x", "EMPTY": ""}});
    let id: WorkspaceId =
        server.post("/workspaces", &body).await.ok()["id"].as_str().unwrap().parse().unwrap();
    let failed = failure(&server, id).await;
    assert_eq!(failed["missing"], json!(["B_KEY", "A_KEY", "EMPTY"]));
    assert_eq!(failed["code"], "PROVISION_MISSING_ENV");
    assert!(failed["error"].as_str().unwrap().starts_with("missing required env vars B_KEY, A_KEY, EMPTY"));
    assert!(!server.mock.calls().contains(&Call::Start(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_assembled_from_the_row() {
    // 2.R82, 2.R88, 2.R89, 2.R94
    let server = Setup::default().start().await;
    server.database.execute("INSERT INTO global_secrets (key, encrypted_value) VALUES ('BOTH', 'global'), ('GLOBAL', 'g'), ('GIT_AUTHOR_NAME', 'Somebody')").await;
    let parent = server.create("Parent", None).await;
    let body = json!({"name": "Dev Lead", "runtime": "hermes", "model": "a/b", "role": "dev-lead", "parent_id": parent,
                      "secrets": {"BOTH": "own"}});
    let id: WorkspaceId =
        server.post("/workspaces", &body).await.ok()["id"].as_str().unwrap().parse().unwrap();
    let env = server.started(id).await.env;
    for (name, value) in [
        ("BOTH", "own"),
        ("GLOBAL", "g"),
        ("MODEL", "a/b"),
        ("MOLECULE_MODEL", "a/b"),
        ("HERMES_DEFAULT_MODEL", "a/b"),
        ("MOLECULE_AGENT_ROLE", "dev-lead"),
        ("PARENT_ID", &parent.to_string()),
        ("GIT_AUTHOR_NAME", "Somebody"),
        ("GIT_COMMITTER_NAME", "Molecule AI Dev Lead"),
        ("GIT_AUTHOR_EMAIL", "dev-lead@agents.moleculesai.app"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!server.started(parent).await.env.contains_key("PARENT_ID"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_went_missing_is_stood_in_for() {
    // 2.R101, 6.R24, 2.R102
    let (_folder, path) = templates(&[("sample-default/config.yaml", "runtime: sample\nname: stand-in\n")]);
    let server = Setup::default().env("CONFIGS_DIR", path.to_str().unwrap()).start().await;
    let body = json!({"name": "A", "template": "gone", "runtime": "sample", "model": "a/b"});
    let id: WorkspaceId =
        server.post("/workspaces", &body).await.ok()["id"].as_str().unwrap().parse().unwrap();
    assert!(server.started(id).await.config_yaml.unwrap().contains("stand-in"));
    let generated = server.create("B", None).await;
    let yaml = server.started(generated).await.config_yaml.unwrap();
    assert!(yaml.contains("version: '1.0.0'") && yaml.contains("model: 'sample/echo'"), "{yaml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_agent_is_restarted_from_its_volume_with_new_credentials() {
    // 2.R106, 2.R110, 2.R115, 2.R118, 2.R121, 2.R123, 3.R64, 3.R65, 4.R64, 5.R19
    let server = Setup::default().start().await;
    let (id, old_token) = server.online("Lead", None, "http://127.0.0.1:9").await;
    server.mock.crash(id);
    assert_eq!(server.app().lifecycle.check_unreachable(id).await, mws_lifecycle::Verdict::Dead);
    wait_until("the second start", async || server.starts(id) == 2).await;
    let started = server.started(id).await;
    assert_eq!(started.config_yaml, None, "the volume is kept");
    assert!(started.has_recovery, "an empty volume could be recovered");
    assert_ne!(started.token.as_deref(), Some(old_token.as_str()));
    let beat = json!({"workspace_id": id});
    server
        .agent_posts("/registry/heartbeat", Some(&old_token), &beat)
        .await
        .is_error(401, "invalid workspace auth token");
    let names: Vec<_> = server.events(id).await.into_iter().map(|event| event.0).collect();
    assert_eq!(
        names,
        ["WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE", "WORKSPACE_OFFLINE", "WORKSPACE_PROVISIONING"]
    );
    // The old container was stopped in good order before the new one was started.
    let calls = server.mock.calls();
    let stop = calls.iter().position(|call| *call == Call::Stop(id, StopMode::Graceful)).unwrap();
    let start = calls.iter().rposition(|call| *call == Call::Start(id)).unwrap();
    assert!(stop < start);
    server.agent_posts("/registry/heartbeat", started.token.as_deref(), &beat).await.ok();
    assert_eq!(server.status(id).await, "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn doubt_never_restarts() {
    // 2.R3, 4.R63, 3.T4
    let server = Setup::default().start().await;
    let (id, _) = server.online("Lead", None, "http://127.0.0.1:9").await;
    for answer in [LivenessAnswer::Unknown, LivenessAnswer::Running] {
        server.mock.set_liveness(id, Some(answer));
        assert_eq!(server.app().lifecycle.check_unreachable(id).await, mws_lifecycle::Verdict::Alive);
    }
    assert_eq!(server.status(id).await, "online");
    let external = server.row(&[("runtime", "'external'"), ("status", "'online'")]).await;
    assert_eq!(server.app().lifecycle.check_unreachable(external).await, mws_lifecycle::Verdict::Alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_tried_three_times_and_the_restart_goes_on() {
    // 2.R106, 2.R108
    let server = Setup::default().start().await;
    let (id, _) = server.online("Lead", None, "http://127.0.0.1:9").await;
    server.mock.crash(id);
    server.mock.fail_stops(3);
    server.app().lifecycle.check_unreachable(id).await;
    wait_until("the second start", async || server.starts(id) == 2).await;
    let stops =
        server.mock.calls().iter().filter(|call| **call == Call::Stop(id, StopMode::Graceful)).count();
    assert_eq!(stops, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_failures_share_one_check_and_one_restart() {
    // 4.R65, 2.R113
    let server = Setup::default().start().await;
    let (id, _) = server.online("Lead", None, "http://127.0.0.1:9").await;
    server.mock.crash(id);
    let lifecycle = &server.app().lifecycle;
    let verdicts = futures_util::future::join_all((0..20).map(|_| lifecycle.check_unreachable(id))).await;
    assert!(verdicts.iter().all(|verdict| *verdict == mws_lifecycle::Verdict::Dead));
    wait_until("the second start", async || server.starts(id) == 2).await;
    let offline = server.events(id).await.into_iter().filter(|event| event.0 == "WORKSPACE_OFFLINE").count();
    assert_eq!(offline, 1);
}

async fn ask_for_restart(server: &TestServer, id: WorkspaceId) {
    let app = server.app();
    let mut tx = app.db.begin().await.unwrap();
    app.lifecycle.request_restart(&mut tx, id, OfflineReason::TtlExpired, false).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_by_sweeps_are_paced_and_given_up() {
    // 3.R102
    let server = Setup::default().start().await;
    let id = server
        .row(&[
            ("status", "'offline'"),
            ("runtime", "'sample'"),
            ("last_heartbeat_at", "now() - interval '1 hour'"),
        ])
        .await;
    let delay = "SELECT round(extract(epoch FROM not_before - requested_at))::text FROM workspace_jobs WHERE state = 'pending'";
    for seconds in ["15", "30", "60", "120", "240", "480"] {
        ask_for_restart(&server, id).await;
        assert_eq!(server.database.value(delay).await.as_deref(), Some(seconds));
        server.database.execute("UPDATE workspace_jobs SET state = 'done', finished_at = now()").await;
    }
    ask_for_restart(&server, id).await;
    assert_eq!(server.field(id, "status").await.as_deref(), Some("failed"));
    let failed = server.events(id).await.pop().unwrap();
    assert_eq!(
        failed.1,
        json!({"error": "automatic restart gave up after 6 attempts", "source": "auto_restart"})
    );
    // A heartbeat in between starts the count of fruitless ones anew, ten quiet minutes that of the pauses.
    let beating =
        server.row(&[("status", "'offline'"), ("runtime", "'sample'"), ("last_heartbeat_at", "now()")]).await;
    server
        .database
        .execute(&format!(
            "INSERT INTO workspace_jobs (workspace_id, kind, reason, state, automatic, requested_at, finished_at)
             SELECT '{beating}', 'restart', 'ttl_expired', 'done', true, now() - interval '11 minutes', now()
             FROM generate_series(1, 6)"
        ))
        .await;
    ask_for_restart(&server, beating).await;
    assert_eq!(server.field(beating, "status").await.as_deref(), Some("offline"));
    assert_eq!(server.database.value(delay).await.as_deref(), Some("15"));
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_what_must_not_restart_are_dropped() {
    // 2.R118, 3.R101
    let server = Setup::default().start().await;
    let paused_parent = server.row(&[("status", "'paused'")]).await;
    let parent = format!("'{paused_parent}'");
    let stale = server.row(&[("status", "'offline'")]).await;
    let rows = [
        server.row(&[("status", "'paused'")]).await,
        server.row(&[("status", "'hibernated'")]).await,
        server.row(&[("status", "'offline'"), ("runtime", "'kimi'")]).await,
        server.row(&[("status", "'offline'"), ("parent_id", &parent)]).await,
        stale,
    ];
    for id in rows {
        let age = if id == stale { "now() - interval '16 minutes'" } else { "now()" };
        server.database.execute(&format!(
            "INSERT INTO workspace_jobs (workspace_id, kind, reason, automatic, requested_at) VALUES ('{id}', 'restart', 'ttl_expired', true, {age})")).await;
    }
    server.app().lifecycle.job_enqueued();
    for id in rows {
        wait_until("the job's end", async || jobs(&server, id, "done").await == 1).await;
        assert_eq!(server.starts(id), 0);
        assert!(server.events(id).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_run_is_taken_over_when_its_lease_ends() {
    // 2.R165, 3.R100, 3.R127
    let server = Setup::default().start().await;
    let gone = server.row(&[("runtime", "'sample'")]).await;
    let runs = server.create("Runs", None).await;
    server.started(runs).await;
    wait_until("the first run's end", async || jobs(&server, runs, "done").await == 1).await;
    server
        .database
        .execute(&format!("UPDATE workspaces SET url = NULL, url_provisioned = false WHERE id = '{runs}'"))
        .await;
    for id in [gone, runs] {
        server.database.execute(&format!(
            "INSERT INTO workspace_jobs (workspace_id, kind, reason, state, holder, token, attempts, started_at, lease_until, options)
             VALUES ('{id}', 'provision', 'create', 'running', 'dead', nextval('workspace_job_tokens'), 1, now(), now() - interval '1 second',
                     '{{\"model\": \"a/b\"}}')")).await;
    }
    server.app().lifecycle.job_enqueued();
    wait_until("the pipeline once more", async || server.starts(gone) == 1).await;
    wait_until("the adopted address", async || {
        server.field(runs, "url_provisioned").await.as_deref() == Some("true")
    })
    .await;
    assert_eq!(server.starts(runs), 1, "an agent that runs is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_looks_after_rows_that_nobody_owns() {
    // 2.R165
    let server = Setup::default().start().await;
    let nothing = server.row(&[("runtime", "'sample'")]).await;
    let unknown = server.row(&[("runtime", "'sample'")]).await;
    let external = server.row(&[("runtime", "'external'")]).await;
    server.mock.set_liveness(unknown, Some(LivenessAnswer::Unknown));
    assert_eq!(server.app().lifecycle.reconcile().await.unwrap(), 1);
    wait_until("the start", async || server.starts(nothing) == 1).await;
    assert_eq!(server.started(nothing).await.config_yaml, None, "what the volume holds is kept");
    for id in [unknown, external] {
        assert_eq!((server.starts(id), server.status(id).await.as_str()), (0, "provisioning"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_merge_and_a_stale_holder_completes_nothing() {
    // 2.R113, 2.R114, 3.R100, 3.R127
    let server = Setup::default().without_backend().start().await;
    let id = server.row(&[("runtime", "'sample'")]).await;
    let db = &server.app().db;
    let ask = async |kind: JobKind, options: JobOptions| {
        let mut tx = db.begin().await.unwrap();
        let job = NewJob {
            workspace_id: id,
            kind,
            reason: kind.as_str(),
            automatic: false,
            options,
            delay: Duration::ZERO,
        };
        tx.enqueue(&job).await.unwrap();
        tx.commit().await.unwrap();
    };
    ask(JobKind::Provision, JobOptions { template: Some("a".into()), reset: true, ..JobOptions::default() })
        .await;
    ask(JobKind::Teardown, JobOptions::default()).await;
    ask(JobKind::Restart, JobOptions { template: Some("b".into()), ..JobOptions::default() }).await;
    let kinds = [JobKind::Provision, JobKind::Restart, JobKind::Teardown];
    let first = db.claim_job("one", Duration::from_secs(30), &kinds).await.unwrap().unwrap();
    assert_eq!((first.kind, first.reason.as_str()), (JobKind::Teardown, "teardown"));
    assert_eq!(
        first.options,
        JobOptions { template: Some("b".into()), reset: true, ..JobOptions::default() }
    );
    // While it runs, further requests make one more job, which has to wait.
    ask(JobKind::Restart, JobOptions::default()).await;
    ask(JobKind::Restart, JobOptions::default()).await;
    assert!(db.claim_job("two", Duration::from_secs(30), &kinds).await.unwrap().is_none());
    assert_eq!(jobs(&server, id, "pending").await, 1);
    // A second holder takes over when the lease ended; the first one's token is worth nothing then.
    server
        .database
        .execute(
            "UPDATE workspace_jobs SET lease_until = now() - interval '1 second' WHERE state = 'running'",
        )
        .await;
    let second = db.claim_job("two", Duration::from_secs(30), &kinds).await.unwrap().unwrap();
    assert!(second.recovered && second.token > first.token && second.attempts == 2);
    assert!(!db.renew_job(&first, Duration::from_secs(30)).await.unwrap());
    assert!(!db.finish_job(&first, None).await.unwrap());
    assert!(!db.begin().await.unwrap().holds_job(&first).await.unwrap());
    assert!(db.finish_job(&second, None).await.unwrap());
    assert_eq!(jobs(&server, id, "done").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_database_start_an_agent_once() {
    // 3.R95, 3.R100
    let one = Setup::default().start().await;
    let two = Setup::default().start_on(one.database.clone()).await;
    let ids: Vec<_> = futures_util::future::join_all((0..6).map(|n| {
        let server = if n % 2 == 0 { &one } else { &two };
        async move { server.create(&format!("W{n}"), None).await }
    }))
    .await;
    for id in ids {
        wait_until("the run's end", async || jobs(&one, id, "done").await == 1).await;
        assert_eq!(one.starts(id) + two.starts(id), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_starts_three_at_a_time_and_all_come_to_an_end() {
    // 2.R83
    let server = Setup::default().start().await;
    server.mock.set_start_delay(Duration::from_millis(50));
    let ids = futures_util::future::join_all((0..20).map(|n| {
        let server = &server;
        async move { server.create(&format!("W{n}"), None).await }
    }))
    .await;
    let running = "SELECT count(*)::text FROM workspace_jobs WHERE state = 'running'";
    let open = "SELECT count(*)::text FROM workspace_jobs WHERE state IN ('running', 'pending')";
    wait_until("the end of all starts", async || {
        let now: i64 = server.database.value(running).await.unwrap().parse().unwrap();
        assert!(now <= 3, "{now} at a time");
        server.database.value(open).await.as_deref() == Some("0")
    })
    .await;
    for id in ids {
        assert_eq!(server.starts(id), 1);
    }
}
