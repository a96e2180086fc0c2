//! Every function that changes a status, from every status (contract 1 §8).

use mws_db::transitions::{FullHeartbeat, HeartbeatWrite, Lost, Registration};
use mws_db::{Result, Tx};
use mws_models::{Cause, DeliveryMode, OfflineReason, WorkspaceId, WorkspaceStatus};
use serde_json::{Map, json};

use crate::support::Fixture;

use WorkspaceStatus::{AwaitingAgent, Degraded, Failed, Offline, Online, Provisioning, Removed};

/// A cause, the status it leads to, and the function that makes the change.
struct Change {
    cause: Cause,
    to: WorkspaceStatus,
    runtime: &'static str,
}

const fn change(cause: Cause, to: WorkspaceStatus, runtime: &'static str) -> Change {
    Change { cause, to, runtime }
}

const CHANGES: [Change; 9] = [
    change(Cause::Register, Online, "sample"),
    change(Cause::Heartbeat, Online, "sample"),
    change(Cause::Heartbeat, Degraded, "sample"),
    change(Cause::ProvisionFailed, Failed, "sample"),
    change(Cause::SpawnedLost, Offline, "sample"),
    change(Cause::ExternalLost, AwaitingAgent, "kimi"),
    change(Cause::GaveUp, Failed, "sample"),
    change(Cause::AutoRestart, Provisioning, "sample"),
    change(Cause::Remove, Removed, "sample"),
];

async fn apply(tx: &mut Tx, change: &Change, id: WorkspaceId, from: WorkspaceStatus) -> Result<()> {
    match change.cause {
        Cause::Register => {
            let card = json!({});
            let registration =
                Registration { agent_card: &card, delivery_mode: DeliveryMode::Push, url: None };
            tx.register(id, &registration).await.map(drop)
        }
        // Its evaluation asks for no change outside the machine; what it may ask for is bound by the models.
        Cause::Heartbeat if !change.cause.sources(change.to).contains(&from) => Ok(()),
        Cause::Heartbeat => {
            let full =
                FullHeartbeat { error_rate: 0.7, sample_error: "", uptime_seconds: 1, declaration: None };
            let write = HeartbeatWrite {
                active_tasks: 0,
                current_task: "",
                monthly_spend: 0,
                full: Some(full),
                status: change.to,
                degraded_reason: (change.to == Degraded).then_some("error_rate"),
            };
            tx.heartbeat(id, from, &write).await.map(drop)
        }
        Cause::ProvisionFailed => tx.provision_failed(id, None, "x", Map::new()).await.map(drop),
        Cause::SpawnedLost | Cause::ExternalLost => {
            tx.agents_lost(Lost::SilentFor { seconds: 180.0 }, OfflineReason::TtlExpired).await.map(drop)
        }
        Cause::GaveUp => tx.gave_up(id, "x").await.map(drop),
        Cause::AutoRestart => tx.auto_restart(id).await.map(drop),
        Cause::Remove => tx.remove(id, true).await.map(drop),
        other => panic!("{other:?} has no function"),
    }
}

#[tokio::test]
async fn each_cause_takes_its_edges_and_no_other() {
    // 1.R27, 1.R115, 1.R119, 1.R121, 1.R122, 1.R123, 3.R65: whatever the status before, a change is one of the
    // machine's edges, and an event is told exactly when a row changed.
    let fixture = Fixture::new().await;
    for change in &CHANGES {
        let sources = change.cause.sources(change.to);
        for from in WorkspaceStatus::ALL {
            let case = format!("{:?}: {from} to {}", change.cause, change.to);
            let id = fixture
                .row(&[
                    ("status", &format!("'{from}'")),
                    ("runtime", &format!("'{}'", change.runtime)),
                    ("updated_at", "now() - interval '1 hour'"),
                ])
                .await;
            let mut tx = fixture.db.begin().await.unwrap();
            apply(&mut tx, change, id, from).await.unwrap();
            tx.commit().await.unwrap();

            let taken = sources.contains(&from);
            let expected = if taken { change.to } else { from };
            assert_eq!(fixture.field(id, "status").await.as_deref(), Some(expected.as_str()), "{case}");
            let events = fixture.count("structure_events", &format!("workspace_id = '{id}'")).await;
            // A registration tells its card even where it may not lift the status; a silent external agent
            // makes two events.
            let told = match change.cause {
                Cause::Register if from == Removed => 0,
                Cause::Register => 1,
                Cause::ExternalLost if taken => 2,
                _ => u64::from(taken),
            };
            assert_eq!(events, told, "{case}");
            if from == Removed {
                let untouched = fixture.field(id, "updated_at < now() - interval '50 minutes'").await;
                assert_eq!(untouched.as_deref(), Some("true"), "{case}");
            }
            fixture.database.execute(&format!("DELETE FROM workspaces WHERE id = '{id}'")).await;
        }
    }
}

#[tokio::test]
async fn the_first_of_three_who_end_a_start_wins() {
    // 1.R127: timeout sweep, failed run and registration at once; one changes the row, one event follows.
    let fixture = Fixture::new().await;
    for _ in 0..8 {
        let id = fixture.row(&[("updated_at", "now() - interval '1 hour'")]).await;
        let (sweep, run, agent) = (fixture.db.clone(), fixture.db.clone(), fixture.db.clone());
        let sweep = tokio::spawn(async move {
            let mut tx = sweep.begin().await.unwrap();
            let changed = tx.provision_timed_out(id, 600, "late").await.unwrap();
            tx.commit().await.unwrap();
            changed
        });
        let run = tokio::spawn(async move {
            let mut tx = run.begin().await.unwrap();
            let changed = tx.provision_failed(id, Some(0), "failed", Map::new()).await.unwrap();
            tx.commit().await.unwrap();
            changed
        });
        let agent = tokio::spawn(async move {
            let card = json!({});
            let registration =
                Registration { agent_card: &card, delivery_mode: DeliveryMode::Push, url: None };
            let mut tx = agent.begin().await.unwrap();
            tx.register(id, &registration).await.unwrap();
            tx.commit().await.unwrap();
        });
        let (swept, failed) = (sweep.await.unwrap(), run.await.unwrap());
        agent.await.unwrap();
        assert!(!(swept && failed));
        // Whoever failed it, the agent lifts it again; before the registration it stays failed for nobody.
        assert_eq!(fixture.field(id, "status").await.as_deref(), Some("online"));
        let failures = format!("workspace_id = '{id}' AND event_type = 'WORKSPACE_PROVISION_FAILED'");
        assert_eq!(fixture.count("structure_events", &failures).await, u64::from(swept || failed));
    }
}

#[tokio::test]
async fn a_later_run_is_not_failed_by_an_earlier_one() {
    // 2.R79, 2.R86, 1.R125
    let fixture = Fixture::new().await;
    let id = fixture.row(&[("provision_generation", "7")]).await;
    let fail = async |generation: i64| {
        let mut tx = fixture.db.begin().await.unwrap();
        let changed = tx.provision_failed(id, Some(generation), "why", Map::new()).await.unwrap();
        tx.commit().await.unwrap();
        changed
    };
    assert!(!fail(6).await);
    assert_eq!(fixture.field(id, "status").await.as_deref(), Some("provisioning"));
    assert!(fail(7).await);
    assert!(!fail(7).await, "once");
    assert_eq!(fixture.field(id, "last_sample_error").await.as_deref(), Some("why"));
}

#[tokio::test]
async fn what_booted_just_now_is_not_taken_for_gone() {
    // 2.R120
    let fixture = Fixture::new().await;
    for (state, started, lost) in
        [("running", "1 hour", 0), ("done", "29 seconds", 0), ("done", "31 seconds", 1), ("pending", "0", 1)]
    {
        let id = fixture.row(&[("status", "'online'"), ("runtime", "'sample'")]).await;
        fixture
            .database
            .execute(&format!(
                "INSERT INTO workspace_jobs (workspace_id, kind, reason, state, started_at)
                 VALUES ('{id}', 'restart', 'x', '{state}', now() - interval '{started}')"
            ))
            .await;
        if state == "pending" {
            fixture
                .database
                .execute("UPDATE workspace_jobs SET started_at = NULL WHERE state = 'pending'")
                .await;
        }
        let mut tx = fixture.db.begin().await.unwrap();
        let found = tx.agents_lost(Lost::Gone(id), OfflineReason::Unreachable).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(found.len(), lost, "{state} since {started}");
    }
    // The first start opens no such window.
    let id = fixture.row(&[("status", "'online'"), ("runtime", "'sample'")]).await;
    let sql = format!(
        "INSERT INTO workspace_jobs (workspace_id, kind, reason, state, started_at)
         VALUES ('{id}', 'provision', 'create', 'done', now())"
    );
    fixture.database.execute(&sql).await;
    let mut tx = fixture.db.begin().await.unwrap();
    assert_eq!(tx.agents_lost(Lost::Gone(id), OfflineReason::Unreachable).await.unwrap().len(), 1);
}
