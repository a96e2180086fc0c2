//! Background tasks as rows: the lease that saves double work (3.R96), and the ticks that operators see.

use std::time::Duration;

use mws_models::Timestamp;

use crate::error::bounded;
use crate::{Db, Result};

/// A task as `GET /admin/liveness` shows it.
#[derive(Debug)]
pub struct TaskRow {
    pub name: String,
    pub holder: Option<String>,
    pub interval_ms: Option<i64>,
    pub last_tick_at: Option<Timestamp>,
    pub seconds_ago: Option<i64>,
    pub restarts: i64,
    pub last_error: Option<String>,
}

/// How one tick ended.
#[derive(Debug, Clone)]
pub struct TickReport<'a> {
    pub duration: Duration,
    /// A safe sentence when it failed.
    pub error: Option<&'a str>,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Db {
    /// Takes or keeps the lease of a task; `false` when another process holds it.
    pub async fn lease_task(
        &self,
        name: &str,
        holder: &str,
        interval: Duration,
        lease: Duration,
    ) -> Result<bool> {
        let done = bounded(
            sqlx::query!(
                "INSERT INTO background_tasks (name, holder, interval_ms, lease_until, last_tick_at)
                 VALUES ($1, $2, $3, now() + make_interval(secs => $4), now())
                 ON CONFLICT (name) DO UPDATE SET
                     holder = EXCLUDED.holder, interval_ms = EXCLUDED.interval_ms,
                     lease_until = EXCLUDED.lease_until, last_tick_at = now()
                 WHERE background_tasks.holder = $2 OR background_tasks.lease_until IS NULL
                    OR background_tasks.lease_until < now()",
                name,
                holder,
                millis(interval),
                lease.as_secs_f64(),
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Shows that a task is at work or idle, without taking its lease: at its start, and for tasks that run in
    /// every process. Where another process holds the lease that one's ticks count, and nothing is written.
    pub async fn note_alive(&self, name: &str, holder: &str, interval: Duration) -> Result<()> {
        bounded(
            sqlx::query!(
                "INSERT INTO background_tasks (name, holder, interval_ms, last_tick_at) VALUES ($1, $2, $3, now())
                 ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, interval_ms = EXCLUDED.interval_ms,
                     last_tick_at = now()
                 WHERE background_tasks.holder = $2 OR background_tasks.lease_until IS NULL
                    OR background_tasks.lease_until < now()",
                name,
                holder,
                millis(interval),
            )
            .execute(&self.pool),
        )
        .await
        .map(|_| ())
    }

    /// Records a finished tick.
    pub async fn record_tick(&self, name: &str, report: &TickReport<'_>) -> Result<()> {
        bounded(
            sqlx::query!(
                "UPDATE background_tasks SET ticks = ticks + 1, last_tick_at = now(), last_duration_ms = $2,
                        last_error = $3, last_ok_at = CASE WHEN $3::text IS NULL THEN now() ELSE last_ok_at END
                 WHERE name = $1",
                name,
                millis(report.duration),
                report.error,
            )
            .execute(&self.pool),
        )
        .await
        .map(|_| ())
    }

    /// Counts a restart of a task by its supervisor.
    pub async fn count_restart(&self, name: &str, error: &str) -> Result<()> {
        bounded(
            sqlx::query!(
                "UPDATE background_tasks SET restarts = restarts + 1, last_error = $2 WHERE name = $1",
                name,
                error
            )
            .execute(&self.pool),
        )
        .await
        .map(|_| ())
    }

    /// Gives up every lease of this process, so that another takes over at once.
    pub async fn release_tasks(&self, holder: &str) -> Result<()> {
        bounded(
            sqlx::query!("UPDATE background_tasks SET lease_until = NULL WHERE holder = $1", holder)
                .execute(&self.pool),
        )
        .await
        .map(|_| ())
    }

    /// Whether another process has ticked this task within the last `window` (3.R71).
    pub async fn ticked_elsewhere(&self, name: &str, holder: &str, window: Duration) -> Result<bool> {
        bounded(
            sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT 1 FROM background_tasks
                       WHERE name = $1 AND holder <> $2 AND last_tick_at > now() - make_interval(secs => $3))
                       AS "ticked!""#,
                name,
                holder,
                window.as_secs_f64(),
            )
            .fetch_one(&self.pool),
        )
        .await
    }

    /// Every task of the deployment, by name.
    pub async fn list_tasks(&self) -> Result<Vec<TaskRow>> {
        bounded(
            sqlx::query_as!(
                TaskRow,
                r#"SELECT name, holder, interval_ms, last_tick_at AS "last_tick_at: Timestamp",
                          EXTRACT(EPOCH FROM now() - last_tick_at)::bigint AS seconds_ago, restarts, last_error
                   FROM background_tasks ORDER BY name LIMIT 200"#
            )
            .fetch_all(&self.pool),
        )
        .await
    }
}
