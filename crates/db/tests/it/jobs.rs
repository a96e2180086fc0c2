//! Jobs as rows: merging, claiming, fencing, giving back (3.R100, 3.R127).

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use mws_db::jobs::{ClaimedJob, JobKind, JobOptions, NewJob};
use mws_models::WorkspaceId;

use crate::support::Fixture;

const LEASE: Duration = Duration::from_secs(30);
const KINDS: [JobKind; 3] = [JobKind::Provision, JobKind::Restart, JobKind::Teardown];

impl Fixture {
    async fn ask(&self, id: WorkspaceId, kind: JobKind) {
        self.ask_with(id, kind, false, Duration::ZERO, JobOptions::default()).await;
    }

    async fn ask_with(
        &self,
        workspace_id: WorkspaceId,
        kind: JobKind,
        automatic: bool,
        delay: Duration,
        options: JobOptions,
    ) {
        let mut tx = self.db.begin().await.unwrap();
        let reason = kind.as_str();
        tx.enqueue(&NewJob { workspace_id, kind, reason, automatic, options, delay }).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn claim(&self, holder: &str) -> Option<ClaimedJob> {
        self.db.claim_job(holder, LEASE, &KINDS).await.unwrap()
    }

    async fn expire(&self, job: &ClaimedJob) {
        let sql =
            format!("UPDATE workspace_jobs SET lease_until = now() - interval '1 s' WHERE id = '{}'", job.id);
        self.database.execute(&sql).await;
    }

    async fn jobs(&self, condition: &str) -> u64 {
        self.count("workspace_jobs", condition).await
    }
}

#[tokio::test]
async fn of_two_requests_the_stronger_kind_and_every_option_stay() {
    // 2.R114, 3.R127: in either order.
    let fixture = Fixture::new().await;
    let by_strength = ["provision", "wake", "restart", "stop", "provider_switch", "teardown"];
    let kinds = [
        JobKind::Provision,
        JobKind::Wake,
        JobKind::Restart,
        JobKind::Stop,
        JobKind::ProviderSwitch,
        JobKind::Teardown,
    ];
    for (first, first_kind) in kinds.into_iter().enumerate() {
        for (second, second_kind) in kinds.into_iter().enumerate() {
            let id = fixture.row(&[]).await;
            let template = |t: &str| JobOptions { template: Some(t.into()), ..JobOptions::default() };
            let kept = JobOptions { reset: true, ..template("first") };
            fixture.ask_with(id, first_kind, true, Duration::from_secs(60), kept).await;
            fixture.ask_with(id, second_kind, true, Duration::from_secs(90), template("last")).await;
            let job = format!(
                "SELECT kind || ' ' || reason || ' ' || automatic || ' ' || options::text || ' '
                        || round(extract(epoch FROM not_before - now()))
                 FROM workspace_jobs WHERE workspace_id = '{id}'"
            );
            let job = fixture.database.value(&job).await.unwrap();
            let stronger = by_strength[first.max(second)];
            let options = r#"{"reset": true, "template": "last"}"#;
            let (head, delay) = job.rsplit_once(' ').unwrap();
            assert_eq!(
                head,
                format!("{stronger} {stronger} true {options}"),
                "{first_kind:?}, {second_kind:?}"
            );
            assert!((50..=60).contains(&delay.parse::<u32>().unwrap()), "the earlier of the two: {delay}");
        }
    }
}

#[tokio::test]
async fn a_person_is_not_made_to_wait_for_what_a_sweep_asked() {
    // 3.R102
    let fixture = Fixture::new().await;
    let id = fixture.row(&[]).await;
    let later = Duration::from_secs(480);
    fixture.ask_with(id, JobKind::Restart, true, later, JobOptions::default()).await;
    assert!(fixture.claim("one").await.is_none());
    fixture.ask(id, JobKind::Restart).await;
    assert_eq!(fixture.jobs("NOT automatic AND not_before <= now()").await, 1);
    assert!(fixture.claim("one").await.is_some());
    // It resets the count, too.
    let mut tx = fixture.db.begin().await.unwrap();
    assert_eq!(tx.restart_history(id).await.unwrap().recent, 0);
}

#[tokio::test]
async fn every_job_is_claimed_once_and_one_of_a_workspace_runs_at_a_time() {
    // 2.R112, 3.R100
    let fixture = Fixture::new().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let id = fixture.row(&[]).await;
        fixture.ask(id, JobKind::Provision).await;
        ids.push(id);
    }
    let claimers = (0..12).map(|n| {
        let db = fixture.db.clone();
        tokio::spawn(async move {
            let mut claimed = Vec::new();
            // The winner of a race leaves the loser with nothing for once; there is more.
            for _ in 0..6 {
                claimed.extend(db.claim_job(&format!("holder {n}"), LEASE, &KINDS).await.unwrap());
            }
            claimed
        })
    });
    let claimed: Vec<_> = join_all(claimers).await.into_iter().flat_map(Result::unwrap).collect();
    let workspaces: BTreeSet<_> = claimed.iter().map(|job| job.workspace_id).collect();
    let tokens: BTreeSet<_> = claimed.iter().map(|job| job.token).collect();
    assert_eq!((claimed.len(), workspaces.len(), tokens.len()), (20, 20, 20));

    // What is asked meanwhile makes one more job each, however often, and it waits.
    for _ in 0..5 {
        fixture.ask(ids[0], JobKind::Restart).await;
    }
    assert_eq!(fixture.jobs("state = 'pending'").await, 1);
    assert!(fixture.claim("late").await.is_none());
    let running = claimed.iter().find(|job| job.workspace_id == ids[0]).unwrap();
    assert!(fixture.db.finish_job(running, None).await.unwrap());
    assert_eq!(fixture.claim("late").await.unwrap().kind, JobKind::Restart);
    // The lease of a crashed holder comes first; the request behind it still waits.
    fixture.ask(ids[1], JobKind::Restart).await;
    fixture.expire(claimed.iter().find(|job| job.workspace_id == ids[1]).unwrap()).await;
    let taken = fixture.claim("heir").await.unwrap();
    assert!(taken.recovered && taken.kind == JobKind::Provision && taken.attempts == 2);
    assert!(fixture.claim("heir").await.is_none());
}

#[tokio::test]
async fn teardowns_go_first_and_kinds_are_respected() {
    // 1.R111, 2.R83, 2.R112
    let fixture = Fixture::new().await;
    for kind in [JobKind::Provision, JobKind::Restart, JobKind::Teardown] {
        let id = fixture.row(&[]).await;
        fixture.ask(id, kind).await;
    }
    let only = fixture.db.claim_job("x", LEASE, &[JobKind::Restart]).await.unwrap().unwrap();
    assert_eq!(only.kind, JobKind::Restart);
    assert!(fixture.db.claim_job("x", LEASE, &[JobKind::Restart]).await.unwrap().is_none());
    assert_eq!(fixture.claim("x").await.unwrap().kind, JobKind::Teardown);
    assert_eq!(fixture.claim("x").await.unwrap().kind, JobKind::Provision);
}

#[tokio::test]
async fn a_token_that_moved_on_completes_nothing() {
    // 3.R127, 2.R79
    let fixture = Fixture::new().await;
    let id = fixture.row(&[]).await;
    fixture.ask(id, JobKind::Provision).await;
    let stale = fixture.claim("stale").await.unwrap();
    fixture.expire(&stale).await;
    let current = fixture.claim("current").await.unwrap();
    let holds = async |job: &ClaimedJob, generation: i64| {
        fixture.db.begin().await.unwrap().holds_run(job, generation).await.unwrap()
    };
    let run = fixture.db.begin_provision_run(id).await.unwrap().unwrap();
    assert!(!fixture.db.renew_job(&stale, LEASE).await.unwrap());
    assert!(!fixture.db.finish_job(&stale, Some("x")).await.unwrap());
    fixture.db.release_job(&stale).await.unwrap();
    assert_eq!(fixture.jobs("state = 'running' AND holder = 'current'").await, 1);
    assert!(!holds(&stale, run.generation).await);
    // The holder owns the row for as long as it is its generation's, and nobody took it out of service.
    assert!(holds(&current, run.generation).await);
    assert!(!holds(&current, run.generation - 1).await);
    assert!(fixture.db.is_superseded(id, run.generation - 1).await.unwrap());
    for status in ["paused", "hibernating", "hibernated", "removed"] {
        let other = fixture.row(&[("status", &format!("'{status}'"))]).await;
        fixture.ask(other, JobKind::Provision).await;
        let job = fixture.claim("x").await.unwrap();
        assert!(!holds(&job, 0).await, "{status}");
        assert!(
            !fixture.db.is_superseded(other, -1).await.unwrap(),
            "{status}: what runs there is to be stopped"
        );
        assert!(fixture.db.begin_provision_run(other).await.unwrap().is_none());
    }
    assert!(fixture.db.finish_job(&current, None).await.unwrap());
    assert!(!holds(&current, run.generation).await);
}

#[tokio::test]
async fn a_claim_waits_for_the_step_that_is_being_written() {
    // 3.R127: who holds the job while it writes cannot lose it in between.
    let fixture = Fixture::new().await;
    let id = fixture.row(&[]).await;
    fixture.ask(id, JobKind::Provision).await;
    let job = fixture.claim("one").await.unwrap();
    let mut step = fixture.db.begin().await.unwrap();
    assert!(step.holds_run(&job, 0).await.unwrap());
    fixture.expire_nowait(&job).await;
    assert!(fixture.claim("two").await.is_none(), "the row is locked");
    step.commit().await.unwrap();
}

impl Fixture {
    /// The lease of a locked row cannot be aged: the claim is asked to see it ended instead.
    async fn expire_nowait(&self, job: &ClaimedJob) {
        let sql = format!(
            "SET lock_timeout = '50ms'; UPDATE workspace_jobs SET lease_until = now() WHERE id = '{}'",
            job.id
        );
        let refused = self.database.try_execute(&sql).await.unwrap_err();
        assert!(refused.contains("lock timeout"), "{refused}");
    }
}

#[tokio::test]
async fn what_a_process_leaves_is_taken_up_at_once() {
    // 2.R166, 3.R104
    let fixture = Fixture::new().await;
    let (given_back, left) = (fixture.row(&[]).await, fixture.row(&[]).await);
    fixture.ask(given_back, JobKind::Restart).await;
    let job = fixture.claim("one").await.unwrap();
    fixture.db.release_job(&job).await.unwrap();
    let again = fixture.claim("two").await.unwrap();
    assert!(!again.recovered && again.workspace_id == given_back && again.token > job.token);

    fixture.ask(left, JobKind::Restart).await;
    fixture.claim("one").await.unwrap();
    assert!(fixture.claim("two").await.is_none());
    assert_eq!(fixture.db.end_leases("one").await.unwrap(), 1);
    assert!(fixture.claim("two").await.unwrap().recovered);

    // What is given back while the same was asked again is one request, not two.
    fixture.ask(given_back, JobKind::Restart).await;
    fixture.db.release_job(&again).await.unwrap();
    let of_it = |state: &str| format!("workspace_id = '{given_back}' AND state = '{state}'");
    assert_eq!(fixture.jobs(&of_it("pending")).await, 1);
    assert_eq!(fixture.jobs(&of_it("running")).await, 0);
}

#[tokio::test]
async fn a_failed_teardown_is_taken_up_once_however_many_ask() {
    // 1.R113, 3.R95
    let fixture = Fixture::new().await;
    for _ in 0..10 {
        let id = fixture.row(&[("status", "'removed'"), ("teardown_pending", "true")]).await;
        fixture.ask(id, JobKind::Teardown).await;
        let job = fixture.claim("one").await.unwrap();
        assert!(fixture.db.finish_job(&job, Some("it failed")).await.unwrap());
        let asking = (0..6).map(|_| {
            let db = fixture.db.clone();
            tokio::spawn(async move {
                db.retry_teardowns_below(id).await.unwrap();
                // Some ask while it runs already.
                db.claim_job("two", LEASE, &[JobKind::Teardown]).await.unwrap()
            })
        });
        let claimed: Vec<_> = join_all(asking).await.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].attempts, 2, "its attempts are counted on");
        let of_it = format!("workspace_id = '{id}' AND state IN ('pending', 'running')");
        assert_eq!(fixture.jobs(&of_it).await, 1);
        assert!(fixture.db.finish_job(&claimed[0], None).await.unwrap());
    }
}

#[tokio::test]
async fn an_abandoned_start_is_requested_by_one_of_two_processes() {
    // 2.R165, 3.R63, 3.R95
    let fixture = Fixture::new().await;
    let id = fixture.row(&[("runtime", "'sample'")]).await;
    let external = fixture.row(&[("runtime", "'kimi'")]).await;
    let found = fixture.db.unowned_starts().await.unwrap();
    assert_eq!(found.iter().map(|start| start.id).collect::<Vec<_>>(), [id], "not {external}");

    let mut first = fixture.db.begin().await.unwrap();
    assert!(first.lock_unowned_start(&found[0]).await.unwrap());
    let job = NewJob {
        workspace_id: id,
        kind: JobKind::Provision,
        reason: "boot-reconcile",
        automatic: false,
        options: JobOptions::default(),
        delay: Duration::ZERO,
    };
    first.enqueue(&job).await.unwrap();
    let (db, start) = (fixture.db.clone(), found[0]);
    let second =
        tokio::spawn(async move { db.begin().await.unwrap().lock_unowned_start(&start).await.unwrap() });
    fixture.waiting(1).await;
    first.commit().await.unwrap();
    assert!(!second.await.unwrap());

    // Nor once that run has come and gone.
    let claimed = fixture.claim("one").await.unwrap();
    fixture.db.begin_provision_run(id).await.unwrap().unwrap();
    fixture.db.finish_job(&claimed, None).await.unwrap();
    assert!(!fixture.db.begin().await.unwrap().lock_unowned_start(&found[0]).await.unwrap());
}

#[tokio::test]
async fn operators_see_what_runs_waits_and_lately_failed() {
    // 3.R127
    let fixture = Fixture::new().await;
    let id = fixture.row(&[]).await;
    fixture
        .database
        .execute(&format!(
            "INSERT INTO workspace_jobs (workspace_id, kind, reason, state, requested_at, finished_at)
             SELECT '{id}', 'restart', 'n' || n, 'failed', now() - make_interval(secs => n), now() - interval '23 hours'
             FROM generate_series(1, 300) n;
             INSERT INTO workspace_jobs (workspace_id, kind, reason, state, finished_at)
             VALUES ('{id}', 'restart', 'old', 'failed', now() - interval '25 hours'),
                    ('{id}', 'restart', 'done', 'done', now());
             INSERT INTO workspace_jobs (workspace_id, kind, reason, state) VALUES ('{id}', 'restart', 'now', 'pending')"
        ))
        .await;
    let listed = fixture.db.list_jobs().await.unwrap();
    assert_eq!(listed.len(), 200);
    assert_eq!((listed[0].reason.as_str(), listed[1].reason.as_str()), ("now", "n1"));
    assert!(listed.iter().all(|job| !["old", "done"].contains(&job.reason.as_str())));
}

#[tokio::test]
async fn finished_jobs_are_dropped_when_nothing_counts_them_any_more() {
    // 3.R102, 3.R127, 1.R113
    let fixture = Fixture::new().await;
    let id = fixture.row(&[]).await;
    let stuck = fixture.row(&[("status", "'removed'"), ("teardown_pending", "true")]).await;
    let job = |workspace: WorkspaceId, kind: &str, reason: &str, state: &str, age: &str| {
        format!("('{workspace}', '{kind}', '{reason}', '{state}', now() - interval '{age}')")
    };
    let rows = [
        job(id, "provision", "kept 1", "done", "59 minutes"),
        job(id, "provision", "dropped", "done", "61 minutes"),
        job(id, "restart", "kept 2", "done", "23 hours"),
        job(id, "restart", "dropped", "done", "25 hours"),
        job(id, "restart", "kept 3", "failed", "23 hours"),
        job(id, "restart", "dropped", "failed", "25 hours"),
        job(stuck, "teardown", "kept 4", "failed", "25 hours"),
    ];
    let rows = rows.join(", ");
    fixture
        .database
        .execute(&format!(
            "INSERT INTO workspace_jobs (workspace_id, kind, reason, state, finished_at) VALUES {rows}"
        ))
        .await;
    fixture.db.prune_jobs().await.unwrap();
    let kept = fixture.database.column("SELECT reason FROM workspace_jobs ORDER BY reason").await;
    let kept: Vec<_> = kept.into_iter().flatten().collect();
    assert_eq!(kept, ["kept 1", "kept 2", "kept 3", "kept 4"]);
}

#[tokio::test]
async fn who_waits_for_a_turn_does_not_time_out() {
    // 2.R83
    let fixture = Fixture::new().await;
    let old = [("updated_at", "now() - interval '1 hour'")];
    let (due, later, none) = (fixture.row(&old).await, fixture.row(&old).await, fixture.row(&old).await);
    fixture.ask(due, JobKind::Provision).await;
    fixture.ask_with(later, JobKind::Provision, true, Duration::from_secs(60), JobOptions::default()).await;
    assert_eq!(fixture.db.touch_waiting_starts().await.unwrap(), 1);
    for (id, fresh) in [(due, "true"), (later, "false"), (none, "false")] {
        let touched = fixture.field(id, "updated_at > now() - interval '1 minute'").await;
        assert_eq!(touched.as_deref(), Some(fresh));
    }
}
