//! What a job's claim protects: a process that lost it, or ends, or cannot reach the database, leaves neither a
//! stray agent nor a lost request (3.R100, 3.R127, 2.R79, 2.R165, 2.R166).

use std::time::Duration;

use mws_models::WorkspaceId;
use mws_provisioner::StopMode;
use mws_provisioner::mock::Call;
use mws_testkit::wait_until;
use serde_json::{Value, json};

use crate::support::{Setup, TestServer, templates};

/// The one value of the workspace's job.
async fn job(server: &TestServer, id: WorkspaceId, expression: &str) -> Option<String> {
    let sql = format!("SELECT ({expression})::text FROM workspace_jobs WHERE workspace_id = '{id}'");
    server.database.value(&sql).await
}

async fn wait_job(server: &TestServer, id: WorkspaceId, state: &str) {
    wait_until(state, async || job(server, id, "state").await.as_deref() == Some(state)).await;
}

/// Requests a job by SQL, with further columns.
async fn request(server: &TestServer, id: WorkspaceId, kind: &str, columns: &str, values: &str) {
    server
        .database
        .execute(&format!(
            "INSERT INTO workspace_jobs (workspace_id, kind, reason{columns}) VALUES ('{id}', '{kind}', 'test'{values})"
        ))
        .await;
    server.app().lifecycle.job_enqueued();
}

/// As if another process had claimed the job after its lease ended.
fn claimed_by_another(id: WorkspaceId) -> String {
    format!(
        "UPDATE workspace_jobs SET token = nextval('workspace_job_tokens'), holder = 'another',
                lease_until = now() + interval '1 hour' WHERE workspace_id = '{id}'"
    )
}

fn forced_stops(server: &TestServer, id: WorkspaceId) -> usize {
    server.mock.calls().iter().filter(|call| **call == Call::Stop(id, StopMode::Force)).count()
}

/// How many tasks the server runs. A job that ends without a trace in its row is seen by this alone.
fn tasks(server: &TestServer) -> usize {
    server.app().spawner.running()
}

/// A workspace whose start hangs long enough for the test to change the world under it.
async fn starting(server: &TestServer) -> WorkspaceId {
    server.mock.set_start_delay(Duration::from_millis(600));
    let id = server.create("W", None).await;
    wait_until("the start", async || server.mock.calls().contains(&Call::Start(id))).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_lost_its_row_stops_what_it_started() {
    // 2.R79
    let server = Setup::default().start().await;
    let id = starting(&server).await;
    server.database.execute(&format!("UPDATE workspaces SET status = 'paused' WHERE id = '{id}'")).await;
    wait_job(&server, id, "done").await;
    assert_eq!(forced_stops(&server, id), 1);
    assert!(server.mock.spec_of(id).is_none());
    assert_eq!(server.field(id, "status || ' ' || url_provisioned").await.as_deref(), Some("paused false"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_replaced_leaves_its_successors_agent_alone() {
    // 2.R79, 3.R127: both agents have one name; the later start has replaced the earlier.
    let server = Setup::default().start().await;
    let idle = tasks(&server);
    let id = starting(&server).await;
    let takeover = format!(
        "{}; UPDATE workspaces SET provision_generation = provision_generation + 1 WHERE id = '{id}'",
        claimed_by_another(id)
    );
    server.database.execute(&takeover).await;
    wait_until("the end of the start", async || server.starts(id) == 1).await;
    wait_until("the end of the run", async || tasks(&server) <= idle).await;
    assert_eq!(forced_stops(&server, id), 0);
    assert_eq!(
        server.field(id, "status || ' ' || url_provisioned").await.as_deref(),
        Some("provisioning false")
    );
    assert_eq!(job(&server, id, "state || ' ' || holder").await.as_deref(), Some("running another"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_lost_its_claim_takes_no_further_step() {
    // 3.R127, 2.R105: it revokes no token, starts no agent and fails nobody's row.
    let server = Setup::default().start().await;
    let id = server.row(&[("runtime", "'sample'")]).await;
    let token = server.token(id).await;
    let idle = tasks(&server);
    let locked = server.hold("LOCK TABLE global_secrets IN ACCESS EXCLUSIVE MODE", 1.0).await;
    request(&server, id, "provision", "", "").await;
    wait_until("the run", async || server.field(id, "provision_generation").await.as_deref() == Some("1"))
        .await;
    server.database.execute(&claimed_by_another(id)).await;
    assert!(tasks(&server) > idle);
    locked.await.unwrap();
    wait_until("the end of the run", async || tasks(&server) <= idle).await;
    assert!(!server.mock.calls().contains(&Call::Start(id)));
    assert_eq!(server.field(id, "status").await.as_deref(), Some("provisioning"));
    assert_eq!(server.field(id, "platform_inbound_secret").await, None);
    let live = format!(
        "SELECT (token_hash = sha256('{token}'))::text FROM workspace_auth_tokens WHERE revoked_at IS NULL"
    );
    assert_eq!(server.database.value(&live).await.as_deref(), Some("true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_reach_its_row_is_taken_up_again() {
    // 2.R165, 3.R100: the row is locked beyond the patience of a statement, as a database that is away would be.
    let server = Setup::default().start().await;
    let idle = tasks(&server);
    let id = server.row(&[("runtime", "'sample'")]).await;
    let locked =
        server.hold(&format!("SELECT 1 FROM workspaces WHERE id = '{id}' FOR NO KEY UPDATE"), 3.0).await;
    request(&server, id, "provision", "", "").await;
    wait_job(&server, id, "running").await;
    wait_until("the end of the run", async || tasks(&server) <= idle).await;
    assert_eq!(job(&server, id, "state").await.as_deref(), Some("running"), "nobody gave it up");
    assert_eq!(server.starts(id), 0);
    locked.await.unwrap();
    server.database.execute("UPDATE workspace_jobs SET lease_until = now() - interval '1 second'").await;
    server.app().lifecycle.job_enqueued();
    wait_until("the start", async || server.starts(id) == 1).await;
    wait_job(&server, id, "done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_a_shutdown_interrupts_is_done_by_another_process() {
    // 2.R107, 2.R166, 3.R100
    let one = Setup::default().start().await;
    let id = one.row(&[("runtime", "'sample'"), ("status", "'offline'")]).await;
    one.mock.fail_stops(usize::MAX);
    request(&one, id, "restart", ", automatic", ", true").await;
    wait_until("a stop that fails", async || one.mock.calls().contains(&Call::Stop(id, StopMode::Graceful)))
        .await;
    let database = one.database.clone();
    one.stop().await;
    let state = format!(
        "SELECT state || ' ' || COALESCE(holder, '-') || ' ' || COALESCE(last_error, '-')
         FROM workspace_jobs WHERE workspace_id = '{id}'"
    );
    assert_eq!(database.value(&state).await.as_deref(), Some("pending - -"));
    let two = Setup::default().start_on(database).await;
    wait_until("the start", async || two.starts(id) == 1).await;
    wait_job(&two, id, "done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_came_back_by_itself_is_not_restarted() {
    // 3.R101, 2.R3: its restart was asked for because it was gone.
    let server = Setup::default().start().await;
    let (id, token) = server.online("Lead", None, "http://127.0.0.1:9").await;
    let beat = json!({"workspace_id": id});
    let ask = format!(
        "UPDATE workspaces SET status = 'offline' WHERE id = '{id}'; DELETE FROM workspace_jobs;
         INSERT INTO workspace_jobs (workspace_id, kind, reason, automatic, not_before)
         VALUES ('{id}', 'restart', 'ttl_expired', true, now() + interval '1 hour')"
    );
    let due = "UPDATE workspace_jobs SET not_before = now() WHERE state = 'pending'";
    server.database.execute(&ask).await;
    server.agent_posts("/registry/heartbeat", Some(&token), &beat).await.ok();
    assert_eq!(server.status(id).await, "online");
    server.database.execute(due).await;
    server.app().lifecycle.job_enqueued();
    wait_job(&server, id, "done").await;
    assert_eq!((server.starts(id), server.status(id).await.as_str()), (1, "online"));
    // A last beat of one that is gone all the same saves nobody.
    server.database.execute(&ask).await;
    server.agent_posts("/registry/heartbeat", Some(&token), &beat).await.ok();
    server.mock.crash(id);
    server.database.execute(due).await;
    server.app().lifecycle.job_enqueued();
    wait_until("the second start", async || server.starts(id) == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_whose_process_died_is_finished_once() {
    // 2.R165, 3.R100: the previous holder had started the agent already.
    let server = Setup::default().start().await;
    let id = server.create("W", None).await;
    wait_job(&server, id, "done").await;
    server
        .database
        .execute(&format!(
            "DELETE FROM workspace_jobs;
             INSERT INTO workspace_jobs (workspace_id, kind, reason, automatic, state, holder, token, attempts, started_at, lease_until)
             VALUES ('{id}', 'restart', 'ttl_expired', true, 'running', 'dead', nextval('workspace_job_tokens'), 1, now(),
                     now() - interval '1 second')"
        ))
        .await;
    server.app().lifecycle.job_enqueued();
    wait_job(&server, id, "done").await;
    assert_eq!(server.starts(id), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_keeps_killing_its_process_is_given_up() {
    // 2.R81, 2.R84: the fourth claim finds nothing running and tries no more.
    let server = Setup::default().start().await;
    let columns = ", state, holder, token, attempts, started_at, lease_until";
    let dead = |attempts: u32| {
        format!(
            ", 'running', 'dead', nextval('workspace_job_tokens'), {attempts}, now(), now() - interval '1 second'"
        )
    };
    for (kind, status) in [("provision", "'provisioning'"), ("restart", "'provisioning'")] {
        let id = server.row(&[("runtime", "'sample'"), ("status", status)]).await;
        request(&server, id, kind, columns, &dead(3)).await;
        server.wait_status(id, "failed").await;
        wait_job(&server, id, "failed").await;
        assert_eq!(server.starts(id), 0);
        assert_eq!(job(&server, id, "last_error").await.as_deref(), Some("provisioning crashed"));
        let failed = server.events(id).await.pop().unwrap();
        assert_eq!(failed.1, json!({"error": "provisioning crashed", "code": "PROVISION_PANIC"}));
    }
    let again = server.row(&[("runtime", "'sample'")]).await;
    request(&server, again, "provision", columns, &dead(2)).await;
    wait_until("the start", async || server.starts(again) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_overtook_the_first_start_keeps_its_template() {
    // 3.R127, 2.R101, 2.R114
    let (_folder, path) = templates(&[("mine/config.yaml", "runtime: sample\nname: of the template\n")]);
    let server = Setup::default().env("CONFIGS_DIR", path.to_str().unwrap()).start().await;
    let id = server.row(&[("runtime", "'sample'")]).await;
    let options = r#", '{"template": "mine", "model": "a/b"}'"#;
    request(&server, id, "restart", ", options", options).await;
    let started = server.started(id).await;
    assert!(started.config_yaml.unwrap().contains("of the template"));
    assert_eq!(started.env["MODEL"], "a/b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_finds_it_removed_waits_for_the_stops_all_the_same() {
    // 1.R113
    let server = Setup::default().start().await;
    let id = starting(&server).await;
    let path = format!("/workspaces/{id}");
    let (first, second) = tokio::join!(server.delete(&path), server.delete(&path));
    for reply in [first, second] {
        assert_eq!(reply.ok(), json!({"status": "removed", "cascade_deleted": 0}));
    }
    assert!(server.mock.spec_of(id).is_none() && !server.mock.has_storage(id));
    let removed = server.events(id).await.iter().filter(|event| event.0 == "WORKSPACE_REMOVED").count();
    assert_eq!(removed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_jobs_in_the_contracts_shape() {
    // 3.R127
    let server = Setup::default().without_backend().start().await;
    assert_eq!(server.get("/admin/jobs").await.ok(), json!({"jobs": []}));
    let id = server.row(&[]).await;
    request(&server, id, "provision", ", not_before", ", '2999-01-01T00:00:00Z'").await;
    let listed = server.get("/admin/jobs").await.ok();
    let mut entry = listed["jobs"][0].clone();
    let requested_at = entry["requested_at"].take();
    assert!(requested_at.as_str().unwrap().ends_with('Z'));
    assert_eq!(
        entry,
        json!({"workspace_id": id, "kind": "provision", "state": "pending", "reason": "test", "attempts": 0,
               "not_before": "2999-01-01T00:00:00.000000Z", "holder": null, "lease_until": null,
               "requested_at": Value::Null, "started_at": null, "last_error": null})
    );
}
