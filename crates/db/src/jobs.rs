//! Lifecycle jobs: durable requests, per workspace at most one running and one pending (3.R100, 3.R127).
//!
//! A holder proves that a job is still its own by the fencing token of its claim; a row whose token moved on
//! completes nothing.

use std::time::Duration;

use mws_models::{JobId, Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::error::bounded;
use crate::{Db, Result, Tx};

/// What a job does, the weakest first: of two requests that meet, the stronger kind stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobKind {
    Provision,
    Wake,
    Restart,
    Stop,
    ProviderSwitch,
    Teardown,
}

impl JobKind {
    const BY_STRENGTH: [(Self, &'static str); 6] = [
        (Self::Provision, "provision"),
        (Self::Wake, "wake"),
        (Self::Restart, "restart"),
        (Self::Stop, "stop"),
        (Self::ProviderSwitch, "provider_switch"),
        (Self::Teardown, "teardown"),
    ];

    /// The stored name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::BY_STRENGTH[self as usize].1
    }

    fn from_stored(text: &str) -> Option<Self> {
        Self::BY_STRENGTH.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind)
    }
}

/// Options of a job. Ids and switches only, never a secret. What is not set is not stored, so that merging two
/// requests keeps the last template and ORs the switches (2.R114).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOptions {
    /// Template folder to start with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The model that the create named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Start with what the configuration volume holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_config: bool,
    /// Discard the session volume.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
}

/// A request for a job.
#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    pub workspace_id: WorkspaceId,
    pub kind: JobKind,
    /// Why, in a fixed word or two; shown to operators.
    pub reason: &'a str,
    /// Whether the platform asked by itself: such jobs are paced, and dropped when stale.
    pub automatic: bool,
    pub options: JobOptions,
    /// How long to wait before it may run.
    pub delay: Duration,
}

/// A job that this process now holds.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    pub id: JobId,
    pub workspace_id: WorkspaceId,
    pub kind: JobKind,
    pub reason: String,
    pub automatic: bool,
    pub options: JobOptions,
    /// Claims of this job so far, this one included.
    pub attempts: i32,
    pub token: i64,
    /// Its previous holder's lease ended before it finished.
    pub recovered: bool,
    /// Seconds since the newest request for it.
    pub age_seconds: f64,
}

/// A job as operators see it.
#[derive(Debug)]
pub struct JobRow {
    pub workspace_id: WorkspaceId,
    pub kind: String,
    pub state: String,
    pub reason: String,
    pub attempts: i32,
    pub not_before: Timestamp,
    pub holder: Option<String>,
    pub lease_until: Option<Timestamp>,
    pub requested_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// Automatic restarts of a workspace so far, as their pacing counts them (3.R102).
#[derive(Debug, Clone, Copy)]
pub struct RestartHistory {
    /// Within the last 10 minutes and since a person last restarted it.
    pub recent: i64,
    /// Since its last heartbeat and since a person last restarted it.
    pub without_heartbeat: i64,
}

impl Tx {
    /// Enqueues a job or merges it into the pending one.
    pub async fn enqueue(&mut self, job: &NewJob<'_>) -> Result<()> {
        let strength: Vec<_> = JobKind::BY_STRENGTH.iter().map(|(_, name)| (*name).to_owned()).collect();
        bounded(
            sqlx::query!(
                "INSERT INTO workspace_jobs AS j (workspace_id, kind, reason, automatic, options, not_before)
                 VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
                 ON CONFLICT (workspace_id) WHERE state = 'pending' DO UPDATE SET
                     kind = CASE WHEN array_position($7, EXCLUDED.kind) > array_position($7, j.kind)
                                 THEN EXCLUDED.kind ELSE j.kind END,
                     reason = CASE WHEN array_position($7, EXCLUDED.kind) >= array_position($7, j.kind)
                                   THEN EXCLUDED.reason ELSE j.reason END,
                     automatic = j.automatic AND EXCLUDED.automatic,
                     options = j.options || EXCLUDED.options,
                     not_before = LEAST(j.not_before, EXCLUDED.not_before),
                     requested_at = now()",
                job.workspace_id.uuid(),
                job.kind.as_str(),
                job.reason,
                job.automatic,
                Json(&job.options) as Json<&JobOptions>,
                job.delay.as_secs_f64(),
                &strength,
            )
            .execute(self.connection()),
        )
        .await
        .map(|_| ())
    }

    /// Counts the automatic restarts that pacing goes by.
    pub async fn restart_history(&mut self, id: WorkspaceId) -> Result<RestartHistory> {
        bounded(
            sqlx::query_as!(
                RestartHistory,
                r#"SELECT count(*) FILTER (WHERE j.requested_at > now() - interval '10 minutes') AS "recent!",
                          count(*) FILTER (WHERE j.requested_at > COALESCE(w.last_heartbeat_at, '-infinity'))
                              AS "without_heartbeat!"
                   FROM workspaces w JOIN workspace_jobs j ON j.workspace_id = w.id
                   WHERE w.id = $1 AND j.automatic AND j.kind = 'restart'
                     AND j.requested_at > COALESCE(
                         (SELECT max(m.requested_at) FROM workspace_jobs m
                          WHERE m.workspace_id = w.id AND m.kind = 'restart' AND NOT m.automatic), '-infinity')"#,
                id.uuid()
            )
            .fetch_one(self.connection()),
        )
        .await
    }

    /// Whether a job of this workspace waits or runs.
    pub async fn has_open_job(&mut self, id: WorkspaceId) -> Result<bool> {
        bounded(
            sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT 1 FROM workspace_jobs
                                  WHERE workspace_id = $1 AND state IN ('pending', 'running')) AS "open!""#,
                id.uuid()
            )
            .fetch_one(self.connection()),
        )
        .await
    }

    /// Locks a claimed job and tells whether it is still this claim's. To be asked in the transaction of every
    /// outside effect's bookkeeping.
    pub async fn holds_job(&mut self, job: &ClaimedJob) -> Result<bool> {
        let held = bounded(
            sqlx::query_scalar!(
                "SELECT 1 FROM workspace_jobs WHERE id = $1 AND token = $2 AND state = 'running' FOR UPDATE",
                job.id.uuid(),
                job.token
            )
            .fetch_optional(self.connection()),
        )
        .await?;
        Ok(held.is_some())
    }

    /// The same for a provisioning run: also locks the row, and tells whether `generation` still owns it.
    pub async fn holds_run(&mut self, job: &ClaimedJob, generation: i64) -> Result<bool> {
        if !self.holds_job(job).await? {
            return Ok(false);
        }
        let owned = bounded(
            sqlx::query_scalar!(
                "SELECT 1 FROM workspaces WHERE id = $1 AND provision_generation = $2
                     AND status NOT IN ('removed', 'paused', 'hibernating', 'hibernated') FOR NO KEY UPDATE",
                job.workspace_id.uuid(),
                generation
            )
            .fetch_optional(self.connection()),
        )
        .await?;
        Ok(owned.is_some())
    }
}

impl Db {
    /// Claims the next due job of these kinds, or one whose holder's lease ended. `None` when nothing is due.
    pub async fn claim_job(
        &self,
        holder: &str,
        lease: Duration,
        kinds: &[JobKind],
    ) -> Result<Option<ClaimedJob>> {
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
        let claimed = bounded(
            sqlx::query!(
                r#"WITH next AS (
                       SELECT id, state = 'running' AS recovered FROM workspace_jobs j
                       WHERE kind = ANY($3) AND ((state = 'running' AND lease_until < now())
                          OR (state = 'pending' AND not_before <= now()
                              AND NOT EXISTS (SELECT 1 FROM workspace_jobs r
                                              WHERE r.workspace_id = j.workspace_id AND r.state = 'running')))
                       ORDER BY kind = 'teardown' DESC, not_before, requested_at
                       LIMIT 1 FOR UPDATE SKIP LOCKED)
                   UPDATE workspace_jobs j SET
                       state = 'running', holder = $1, lease_until = now() + make_interval(secs => $2),
                       token = nextval('workspace_job_tokens'), attempts = attempts + 1, started_at = now()
                   FROM next WHERE j.id = next.id
                   RETURNING j.id AS "id: JobId", j.workspace_id AS "workspace_id: WorkspaceId", j.kind, j.reason,
                             j.automatic, j.options AS "options: Json<JobOptions>", j.attempts, j.token AS "token!",
                             next.recovered AS "recovered!",
                             EXTRACT(EPOCH FROM now() - j.requested_at)::float8 AS "age_seconds!""#,
                holder,
                lease.as_secs_f64(),
                &kinds,
            )
            .fetch_optional(&self.pool),
        )
        .await;
        let row = match claimed {
            Ok(row) => row,
            // Another process claimed a job of the same workspace in the same instant.
            Err(error) if error.is_constraint("workspace_jobs_one_running_uniq") => None,
            Err(error) => return Err(error),
        };
        Ok(row.and_then(|row| {
            Some(ClaimedJob {
                id: row.id,
                workspace_id: row.workspace_id,
                kind: JobKind::from_stored(&row.kind)?,
                reason: row.reason,
                automatic: row.automatic,
                options: row.options.0,
                attempts: row.attempts,
                token: row.token,
                recovered: row.recovered,
                age_seconds: row.age_seconds,
            })
        }))
    }

    /// Renews the lease; `false` when the job is no longer this claim's.
    pub async fn renew_job(&self, job: &ClaimedJob, lease: Duration) -> Result<bool> {
        let done = bounded(
            sqlx::query!(
                "UPDATE workspace_jobs SET lease_until = now() + make_interval(secs => $3)
                 WHERE id = $1 AND token = $2 AND state = 'running'",
                job.id.uuid(),
                job.token,
                lease.as_secs_f64()
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a job: done, or failed with a safe sentence. `false` when it is no longer this claim's.
    pub async fn finish_job(&self, job: &ClaimedJob, failure: Option<&str>) -> Result<bool> {
        let done = bounded(
            sqlx::query!(
                "UPDATE workspace_jobs SET
                     state = CASE WHEN $3::text IS NULL THEN 'done' ELSE 'failed' END,
                     last_error = $3, finished_at = now(), lease_until = NULL
                 WHERE id = $1 AND token = $2 AND state = 'running'",
                job.id.uuid(),
                job.token,
                failure
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives a claimed job back unrun: at shutdown. A request that came meanwhile takes its place.
    pub async fn release_job(&self, job: &ClaimedJob) -> Result<()> {
        let released = bounded(
            sqlx::query!(
                "UPDATE workspace_jobs SET state = 'pending', holder = NULL, lease_until = NULL
                 WHERE id = $1 AND token = $2 AND state = 'running'",
                job.id.uuid(),
                job.token
            )
            .execute(&self.pool),
        )
        .await;
        match released {
            Err(error) if error.is_constraint("workspace_jobs_one_pending_uniq") => {
                self.finish_job(job, None).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// The same for a process that ends: every job of this holder whose lease should not be waited for.
    pub async fn end_leases(&self, holder: &str) -> Result<u64> {
        let done = bounded(
            sqlx::query!(
                "UPDATE workspace_jobs SET lease_until = now() - interval '1 second'
                 WHERE state = 'running' AND holder = $1",
                holder
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(done.rows_affected())
    }

    /// Which of these removed workspaces still have something to stop.
    pub async fn teardowns_pending(&self, ids: &[WorkspaceId]) -> Result<Vec<TeardownRow>> {
        let ids: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
        bounded(
            sqlx::query_as!(
                TeardownRow,
                r#"SELECT w.id AS "id: WorkspaceId",
                          EXISTS (SELECT 1 FROM workspace_jobs j WHERE j.workspace_id = w.id
                                  AND j.kind = 'teardown' AND j.state IN ('pending', 'running')) AS "open!"
                   FROM workspaces w WHERE w.id = ANY($1) AND w.teardown_pending"#,
                &ids
            )
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Asks again for the teardown of a removed workspace and of its removed descendants, where it is still
    /// pending (1.R113). Returns their ids.
    pub async fn retry_teardowns_below(&self, root: WorkspaceId) -> Result<Vec<WorkspaceId>> {
        let mut tx = self.begin().await?;
        let ids = bounded(
            sqlx::query_scalar!(
                r#"WITH RECURSIVE tree AS (
                       SELECT id FROM workspaces WHERE id = $1
                       UNION
                       SELECT w.id FROM workspaces w JOIN tree ON w.parent_id = tree.id)
                   SELECT w.id AS "id: WorkspaceId" FROM workspaces w JOIN tree USING (id)
                   WHERE w.status = 'removed' AND w.teardown_pending ORDER BY w.id"#,
                root.uuid()
            )
            .fetch_all(tx.connection()),
        )
        .await?;
        for id in &ids {
            tx.requeue_teardown(*id, "delete repeated").await?;
        }
        tx.commit().await?;
        Ok(ids)
    }

    /// Pending teardowns that nobody works on and whose pause, doubling from 60 s to 15 min with every failed
    /// attempt, is over: enqueued again (1.R113).
    pub async fn requeue_due_teardowns(&self) -> Result<Vec<StuckTeardown>> {
        let mut tx = self.begin().await?;
        let stuck = bounded(
            sqlx::query_as!(
                StuckTeardown,
                r#"SELECT w.id AS "id: WorkspaceId", w.instance_id, w.compute ->> 'provider' AS provider,
                          COALESCE(max(j.attempts), 0) AS "attempts!"
                   FROM workspaces w LEFT JOIN workspace_jobs j ON j.workspace_id = w.id AND j.kind = 'teardown'
                   WHERE w.teardown_pending AND w.status = 'removed'
                   GROUP BY w.id
                   HAVING NOT COALESCE(bool_or(j.state IN ('pending', 'running')), false)
                      AND COALESCE(max(j.finished_at), '-infinity')
                          <= now() - make_interval(secs => LEAST(900, 60 * 2 ^ LEAST(10, GREATEST(0, COALESCE(max(j.attempts), 0) - 1))))
                   ORDER BY w.id LIMIT 500"#
            )
            .fetch_all(tx.connection()),
        )
        .await?;
        for row in &stuck {
            tx.requeue_teardown(row.id, "teardown-reaper").await?;
        }
        tx.commit().await?;
        Ok(stuck)
    }

    /// Keeps the provisioning-timeout clock of rows at bay whose start is due but waits its turn (2.R83).
    pub async fn touch_waiting_starts(&self) -> Result<u64> {
        let done = bounded(
            sqlx::query!(
                "UPDATE workspaces w SET updated_at = now() WHERE w.status = 'provisioning'
                     AND EXISTS (SELECT 1 FROM workspace_jobs j WHERE j.workspace_id = w.id
                                 AND j.state = 'pending' AND j.not_before <= now())"
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(done.rows_affected())
    }

    /// Drops finished jobs that nothing counts any more: done ones after an hour unless pacing may still count
    /// them, failed ones after a day (3.R127).
    pub async fn prune_jobs(&self) -> Result<u64> {
        let done = bounded(
            sqlx::query!(
                "DELETE FROM workspace_jobs j WHERE finished_at < now() - interval '24 hours'
                     AND state IN ('done', 'failed')
                     AND NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.id = j.workspace_id AND w.teardown_pending)
                  OR (state = 'done' AND kind <> 'restart' AND finished_at < now() - interval '1 hour')"
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(done.rows_affected())
    }

    /// Running, pending and, of the last 24 h, failed jobs, newest first, at most 200.
    pub async fn list_jobs(&self) -> Result<Vec<JobRow>> {
        bounded(
            sqlx::query_as!(
                JobRow,
                r#"SELECT workspace_id AS "workspace_id: WorkspaceId", kind, state, reason, attempts,
                          not_before AS "not_before: Timestamp", holder,
                          lease_until AS "lease_until: Timestamp", requested_at AS "requested_at: Timestamp",
                          started_at AS "started_at: Timestamp", last_error
                   FROM workspace_jobs
                   WHERE state IN ('running', 'pending')
                      OR (state = 'failed' AND finished_at > now() - interval '24 hours')
                   ORDER BY requested_at DESC, id LIMIT 200"#
            )
            .fetch_all(&self.pool),
        )
        .await
    }
}

impl Tx {
    /// A failed teardown job becomes pending again and keeps its count of attempts; without one, a new job.
    async fn requeue_teardown(&mut self, id: WorkspaceId, reason: &str) -> Result<()> {
        let again = bounded(
            sqlx::query!(
                "UPDATE workspace_jobs SET state = 'pending', reason = $2, not_before = now(), requested_at = now(),
                        holder = NULL, finished_at = NULL
                 WHERE state = 'failed' AND id = (SELECT id FROM workspace_jobs f
                             WHERE f.workspace_id = $1 AND f.kind = 'teardown' AND f.state = 'failed'
                               AND NOT EXISTS (SELECT 1 FROM workspace_jobs o
                                               WHERE o.workspace_id = $1 AND o.state IN ('pending', 'running'))
                             ORDER BY f.finished_at DESC LIMIT 1)",
                id.uuid(),
                reason
            )
            .execute(self.connection()),
        )
        .await?;
        if again.rows_affected() == 0 && !self.has_open_job(id).await? {
            self.enqueue(&NewJob {
                workspace_id: id,
                kind: JobKind::Teardown,
                reason,
                automatic: false,
                options: JobOptions::default(),
                delay: Duration::ZERO,
            })
            .await?;
        }
        Ok(())
    }
}

/// A removed workspace that still has something to stop.
#[derive(Debug, Clone)]
pub struct TeardownRow {
    pub id: WorkspaceId,
    /// A job for it waits or runs.
    pub open: bool,
}

/// A teardown that the reaper took up again.
#[derive(Debug, Clone)]
pub struct StuckTeardown {
    pub id: WorkspaceId,
    pub instance_id: Option<String>,
    pub provider: Option<String>,
    /// Attempts so far.
    pub attempts: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strength_is_the_contracts_order() {
        // 3.R127: teardown over provider switch over stop over restart over wake over provision.
        use JobKind::{ProviderSwitch, Provision, Restart, Stop, Teardown, Wake};
        let mut kinds = [Teardown, Stop, Provision, Wake, Restart, ProviderSwitch];
        kinds.sort();
        assert_eq!(kinds, [Provision, Wake, Restart, Stop, ProviderSwitch, Teardown]);
        for kind in kinds {
            assert_eq!(JobKind::from_stored(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn unset_options_are_not_stored() {
        // 2.R114: merging with `||` keeps what an earlier request set.
        assert_eq!(serde_json::to_value(JobOptions::default()).unwrap(), serde_json::json!({}));
    }
}
