//! Every change of a workspace's status. No other statement of this crate writes the column (a test greps).
//!
//! One function per family of edges. The statuses it may act on come from [`mws_models::EDGES`], the change is
//! one conditional statement, and the event is recorded in the same transaction exactly when a row changed.

use mws_models::{
    Cause, DeliveryMode, Event, OfflineReason, RuntimeDeclaration, Tier, WorkspaceId, WorkspaceStatus,
};
use serde_json::{Map, Value, json};
use sqlx::types::Json;

use crate::error::bounded;
use crate::{Db, Result, Tx};

/// What a registration writes (3.R15).
#[derive(Debug)]
pub struct Registration<'a> {
    pub agent_card: &'a Value,
    pub delivery_mode: DeliveryMode,
    /// The address to store; `None` keeps the stored one. A platform-provisioned one is kept in any case: the
    /// mark may have been set after the address was judged (2.R30).
    pub url: Option<&'a str>,
}

/// What a heartbeat writes (3.R26). `full` is `None` for a task push (3.R27).
#[derive(Debug)]
pub struct HeartbeatWrite<'a> {
    pub active_tasks: i32,
    pub current_task: &'a str,
    /// Cents of the month; 0 leaves the stored spend alone.
    pub monthly_spend: i64,
    pub full: Option<FullHeartbeat<'a>>,
    /// The status after evaluation.
    pub status: WorkspaceStatus,
    /// `wedged` or `error_rate` while degraded.
    pub degraded_reason: Option<&'a str>,
}

/// The fields that only a full heartbeat carries.
#[derive(Debug)]
pub struct FullHeartbeat<'a> {
    pub error_rate: f64,
    pub sample_error: &'a str,
    pub uptime_seconds: i32,
    /// `Some(None)` clears the declaration, `None` leaves it.
    pub declaration: Option<Option<&'a RuntimeDeclaration>>,
}

/// A row that a removal took out of service.
#[derive(Debug, Clone)]
pub struct RemovedRow {
    pub id: WorkspaceId,
    /// Something of it may still run.
    pub teardown_pending: bool,
}

/// A workspace whose agent was found gone.
#[derive(Debug, Clone)]
pub struct LostRow {
    pub id: WorkspaceId,
    pub external: bool,
}

/// Which agents a liveness pass takes for lost.
#[derive(Debug, Clone, Copy)]
pub enum Lost {
    /// Every live row without a heartbeat for this many seconds.
    SilentFor {
        /// Seconds by the database's clock.
        seconds: f64,
    },
    /// This spawned one: its backend says that it does not run. Not while a restart of it runs, nor within
    /// 30 s of one's start: that is what a booting agent looks like (2.R120).
    Gone(WorkspaceId),
}

/// Ceiling on the rows that one pass takes; the rest follow in the next.
const PASS_LIMIT: i64 = 500;

impl Tx {
    /// Registers: writes the agent's data and, from the statuses a registration may lift, `online`. The row
    /// must be locked and not removed. Returns the status after.
    pub async fn register(
        &mut self,
        id: WorkspaceId,
        write: &Registration<'_>,
    ) -> Result<Option<WorkspaceStatus>> {
        let to = WorkspaceStatus::Online;
        let row = bounded(
            sqlx::query!(
                r#"UPDATE workspaces SET
                       status = CASE WHEN status = ANY($2) THEN $3 ELSE status END,
                       degraded_reason = CASE WHEN status = ANY($2) THEN NULL ELSE degraded_reason END,
                       agent_card = $4, delivery_mode = $5,
                       url = CASE WHEN url_provisioned AND NOT is_external_like(runtime) THEN url
                                  ELSE COALESCE($6, url) END,
                       url_provisioned = url_provisioned AND (NOT is_external_like(runtime) OR $6::text IS NULL),
                       last_heartbeat_at = now(), updated_at = now(), last_error_rate = 0,
                       last_sample_error = '', idle_since = now()
                   WHERE id = $1 AND status <> 'removed'
                   RETURNING status AS "status: WorkspaceStatus", COALESCE(url, '') AS "url!""#,
                id.uuid(),
                Cause::Register.sources(to) as Vec<WorkspaceStatus>,
                to as WorkspaceStatus,
                write.agent_card,
                write.delivery_mode.as_str(),
                write.url,
            )
            .fetch_optional(self.connection()),
        )
        .await?;
        Ok(row.map(|row| {
            self.record(if row.status == to {
                Event::registered(id, &row.url, write.agent_card, write.delivery_mode)
            } else {
                Event::card_updated(id, write.agent_card)
            });
            row.status
        }))
    }

    /// Inserts a workspace that registers itself (3.R19): external, online.
    pub async fn self_register(&mut self, id: WorkspaceId, write: &Registration<'_>) -> Result<()> {
        bounded(
            sqlx::query!(
                "INSERT INTO workspaces (id, name, runtime, status, agent_card, delivery_mode, url,
                                         last_heartbeat_at, last_sample_error, idle_since)
                 VALUES ($1, $2, 'external', $3, $4, $5, $6, now(), '', now())",
                id.uuid(),
                id.to_string(),
                WorkspaceStatus::Online as WorkspaceStatus,
                write.agent_card,
                write.delivery_mode.as_str(),
                write.url.unwrap_or_default(),
            )
            .execute(self.connection()),
        )
        .await?;
        let url = write.url.unwrap_or_default();
        self.record(Event::registered(id, url, write.agent_card, write.delivery_mode));
        Ok(())
    }

    /// Writes an evaluated heartbeat in one statement. The row must be locked; `from` is the status read under
    /// that lock. `false` when the row is removed or its status is no longer `from`.
    pub async fn heartbeat(
        &mut self,
        id: WorkspaceId,
        from: WorkspaceStatus,
        write: &HeartbeatWrite<'_>,
    ) -> Result<bool> {
        debug_assert!(from == write.status || Cause::Heartbeat.sources(write.status).contains(&from));
        let full = write.full.as_ref();
        let done = bounded(
            sqlx::query!(
                r#"UPDATE workspaces SET
                       status = $3, degraded_reason = $4,
                       last_heartbeat_at = now(), updated_at = now(),
                       active_tasks = $5, current_task = $6,
                       idle_since = CASE WHEN $5 > 0 THEN NULL ELSE COALESCE(idle_since, now()) END,
                       monthly_spend = CASE
                           WHEN $7::bigint <= 0 THEN monthly_spend
                           WHEN spend_month IS DISTINCT FROM date_trunc('month', now())::date THEN $7
                           ELSE GREATEST(monthly_spend, $7) END,
                       spend_month = CASE WHEN $7 > 0 THEN date_trunc('month', now())::date ELSE spend_month END,
                       last_error_rate = CASE WHEN $8 THEN $9 ELSE last_error_rate END,
                       last_sample_error = CASE WHEN $8 THEN $10 ELSE last_sample_error END,
                       uptime_seconds = CASE WHEN $8 THEN $11 ELSE uptime_seconds END,
                       runtime_metadata = CASE WHEN $12 THEN $13 ELSE runtime_metadata END
                   WHERE id = $1 AND status = $2 AND status <> 'removed'"#,
                id.uuid(),
                from as WorkspaceStatus,
                write.status as WorkspaceStatus,
                write.degraded_reason,
                write.active_tasks,
                write.current_task,
                write.monthly_spend,
                full.is_some(),
                full.map_or(0.0, |f| f.error_rate),
                full.map_or("", |f| f.sample_error),
                full.map_or(0, |f| f.uptime_seconds),
                full.is_some_and(|f| f.declaration.is_some()),
                full.and_then(|f| f.declaration.flatten()).map(Json) as Option<Json<&RuntimeDeclaration>>,
            )
            .execute(self.connection()),
        )
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        if from != write.status {
            self.record(match (write.status, full) {
                (WorkspaceStatus::Degraded, Some(f)) => {
                    Event::degraded(id, f.error_rate, f.sample_error, write.degraded_reason == Some("wedged"))
                }
                _ => Event::recovered(id, from),
            });
        }
        Ok(true)
    }

    /// A provisioning run failed: `provisioning → failed` while `generation` (if given) still owns the row.
    /// `error` is a fixed, safe sentence; `extra` the further fields of the event.
    pub async fn provision_failed(
        &mut self,
        id: WorkspaceId,
        generation: Option<i64>,
        error: &str,
        extra: Map<String, Value>,
    ) -> Result<bool> {
        let to = WorkspaceStatus::Failed;
        let done = bounded(
            sqlx::query!(
                "UPDATE workspaces SET status = $2, last_sample_error = $3, updated_at = now()
                 WHERE id = $1 AND status = ANY($4) AND ($5::bigint IS NULL OR provision_generation = $5)",
                id.uuid(),
                to as WorkspaceStatus,
                error,
                Cause::ProvisionFailed.sources(to) as Vec<WorkspaceStatus>,
                generation,
            )
            .execute(self.connection()),
        )
        .await?;
        let changed = done.rows_affected() == 1;
        if changed {
            self.record(Event::provision_failed(id, error, extra));
        }
        Ok(changed)
    }

    /// The timeout sweep: fails a row that has sat in `provisioning` for `limit_seconds` (3.R80).
    pub async fn provision_timed_out(
        &mut self,
        id: WorkspaceId,
        limit_seconds: u32,
        error: &str,
    ) -> Result<bool> {
        let to = WorkspaceStatus::Failed;
        let runtime = bounded(
            sqlx::query_scalar!(
                "UPDATE workspaces SET status = $2, last_sample_error = $3, updated_at = now()
                 WHERE id = $1 AND status = ANY($4) AND updated_at <= now() - make_interval(secs => $5)
                 RETURNING runtime",
                id.uuid(),
                to as WorkspaceStatus,
                error,
                Cause::ProvisionFailed.sources(to) as Vec<WorkspaceStatus>,
                f64::from(limit_seconds),
            )
            .fetch_optional(self.connection()),
        )
        .await?;
        let Some(runtime) = runtime else { return Ok(false) };
        let extra = json!({
            "timeout_secs": limit_seconds, "runtime": runtime, "source": "provision_timeout_sweep"
        });
        let extra = if let Value::Object(map) = extra { map } else { Map::new() };
        self.record(Event::provision_failed(id, error, extra));
        Ok(true)
    }

    /// Agents found gone: spawned ones go `offline`, external-like ones back to `awaiting_agent` (3.R65).
    /// Restart requests for the spawned ones are the caller's, in this transaction.
    pub async fn agents_lost(&mut self, which: Lost, reason: OfflineReason) -> Result<Vec<LostRow>> {
        let (offline, awaiting) = (WorkspaceStatus::Offline, WorkspaceStatus::AwaitingAgent);
        let (only, silent_for) = match which {
            Lost::SilentFor { seconds } => (None, Some(seconds)),
            Lost::Gone(id) => (Some(id.uuid()), None),
        };
        let rows = bounded(
            sqlx::query!(
                r#"WITH lost AS (
                       SELECT id FROM workspaces
                       WHERE status = ANY(CASE WHEN is_external_like(runtime) THEN $4::workspace_status[] ELSE $3::workspace_status[] END)
                         AND ($5::uuid IS NULL OR (id = $5 AND NOT is_external_like(runtime)
                              AND NOT EXISTS (SELECT 1 FROM workspace_jobs j WHERE j.workspace_id = $5
                                  AND j.kind = 'restart' AND (j.state = 'running'
                                      OR j.started_at > now() - interval '30 seconds'))))
                         AND ($6::float8 IS NULL
                              OR COALESCE(last_heartbeat_at, updated_at) < now() - make_interval(secs => $6))
                       ORDER BY updated_at LIMIT $7
                       FOR UPDATE SKIP LOCKED)
                   UPDATE workspaces w SET
                       status = CASE WHEN is_external_like(w.runtime) THEN $2::workspace_status ELSE $1::workspace_status END,
                       degraded_reason = NULL, updated_at = now()
                   FROM lost WHERE w.id = lost.id
                   RETURNING w.id AS "id: WorkspaceId", w.name, is_external_like(w.runtime) AS "external!""#,
                offline as WorkspaceStatus,
                awaiting as WorkspaceStatus,
                Cause::SpawnedLost.sources(offline) as Vec<WorkspaceStatus>,
                Cause::ExternalLost.sources(awaiting) as Vec<WorkspaceStatus>,
                only,
                silent_for,
                PASS_LIMIT,
            )
            .fetch_all(self.connection()),
        )
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                if row.external {
                    self.record(Event::external_offline(row.id, reason));
                    self.record(Event::awaiting_agent(row.id, &row.name));
                } else {
                    self.record(Event::offline(row.id, reason));
                }
                LostRow { id: row.id, external: row.external }
            })
            .collect())
    }

    /// The restart runner gave up on an agent that keeps dying: `offline → failed` (3.R102).
    pub async fn gave_up(&mut self, id: WorkspaceId, error: &str) -> Result<bool> {
        let to = WorkspaceStatus::Failed;
        let done = bounded(
            sqlx::query!(
                "UPDATE workspaces SET status = $2, last_sample_error = $3, updated_at = now()
                 WHERE id = $1 AND status = ANY($4)",
                id.uuid(),
                to as WorkspaceStatus,
                error,
                Cause::GaveUp.sources(to) as Vec<WorkspaceStatus>,
            )
            .execute(self.connection()),
        )
        .await?;
        let changed = done.rows_affected() == 1;
        if changed {
            let mut extra = Map::new();
            extra.insert("source".into(), "auto_restart".into());
            self.record(Event::provision_failed(id, error, extra));
        }
        Ok(changed)
    }

    /// The platform restarts a spawned workspace: `provisioning`, no address (2.R110).
    pub async fn auto_restart(&mut self, id: WorkspaceId) -> Result<bool> {
        let to = WorkspaceStatus::Provisioning;
        let row = bounded(
            sqlx::query!(
                "UPDATE workspaces SET status = $2, url = '', url_provisioned = false, degraded_reason = NULL,
                        updated_at = now()
                 WHERE id = $1 AND status = ANY($3) AND NOT is_external_like(runtime)
                 RETURNING name, tier, runtime",
                id.uuid(),
                to as WorkspaceStatus,
                Cause::AutoRestart.sources(to) as Vec<WorkspaceStatus>,
            )
            .fetch_optional(self.connection()),
        )
        .await?;
        let Some(row) = row else { return Ok(false) };
        self.record(Event::provisioning(id, &row.name, Tier::from_stored(row.tier), &row.runtime));
        Ok(true)
    }

    /// Takes a workspace and all its live descendants out of service, with everything of 1.R110 in this
    /// transaction. `backend` tells whether this installation can stop anything: without one, rows that show
    /// nothing to stop are done at once (2.R64). Empty when the root was removed already.
    pub async fn remove(&mut self, root: WorkspaceId, backend: bool) -> Result<Vec<RemovedRow>> {
        let set = self.lock_subtree(root).await?;
        let to = WorkspaceStatus::Removed;
        let rows = bounded(
            sqlx::query!(
                r#"UPDATE workspaces SET
                       status = $2, updated_at = now(), platform_inbound_secret = NULL,
                       teardown_pending = NOT is_external_like(runtime)
                           AND ($4 OR url_provisioned OR instance_id IS NOT NULL)
                   WHERE id = ANY($1) AND status = ANY($3)
                   RETURNING id AS "id: WorkspaceId", teardown_pending"#,
                &set,
                to as WorkspaceStatus,
                Cause::Remove.sources(to) as Vec<WorkspaceStatus>,
                backend,
            )
            .fetch_all(self.connection()),
        )
        .await?;
        let removed: Vec<_> =
            rows.iter().map(|r| RemovedRow { id: r.id, teardown_pending: r.teardown_pending }).collect();
        if removed.is_empty() {
            return Ok(removed);
        }
        let ids: Vec<_> = removed.iter().map(|row| row.id.uuid()).collect();
        self.retire(&ids).await?;
        for row in removed.iter().filter(|row| row.id != root) {
            self.record(Event::removed(row.id, None));
        }
        if removed.iter().any(|row| row.id == root) {
            self.record(Event::removed(root, Some(removed.len() - 1)));
        }
        Ok(removed)
    }

    /// Locks the root and every descendant. A create below it waits for these locks and then finds its parent
    /// removed, so the set is taken again until it no longer grows.
    async fn lock_subtree(&mut self, root: WorkspaceId) -> Result<Vec<sqlx::types::Uuid>> {
        let mut known = 0;
        loop {
            let set = bounded(
                sqlx::query_scalar!(
                    r#"WITH RECURSIVE tree AS (
                           SELECT id FROM workspaces WHERE id = $1
                           UNION
                           SELECT w.id FROM workspaces w JOIN tree ON w.parent_id = tree.id)
                       SELECT w.id FROM workspaces w
                       WHERE w.id IN (SELECT id FROM tree) AND (w.status <> 'removed' OR w.id = $1)
                       ORDER BY w.id FOR UPDATE"#,
                    root.uuid()
                )
                .fetch_all(self.connection()),
            )
            .await?;
            if set.len() == known {
                return Ok(set);
            }
            known = set.len();
        }
    }

    /// What goes with removed rows: layouts, tokens, schedules, channels, approvals, queued messages.
    async fn retire(&mut self, ids: &[sqlx::types::Uuid]) -> Result<()> {
        bounded(
            sqlx::query!(
                "WITH layouts AS (DELETE FROM canvas_layouts WHERE workspace_id = ANY($1)),
                      tokens AS (UPDATE workspace_auth_tokens SET revoked_at = now()
                                 WHERE workspace_id = ANY($1) AND revoked_at IS NULL),
                      schedules AS (UPDATE workspace_schedules SET enabled = false, updated_at = now()
                                    WHERE workspace_id = ANY($1) AND enabled),
                      channels AS (UPDATE workspace_channels SET enabled = false, updated_at = now()
                                   WHERE workspace_id = ANY($1) AND enabled),
                      approvals AS (UPDATE approval_requests
                                    SET status = 'denied', decided_by = 'workspace-removed', decided_at = now()
                                    WHERE workspace_id = ANY($1) AND status = 'pending')
                 UPDATE a2a_queue SET status = 'dropped', last_error = 'workspace removed'
                 WHERE workspace_id = ANY($1) AND status = 'queued'",
                ids
            )
            .execute(self.connection()),
        )
        .await
        .map(|_| ())
    }
}

/// A row that waits in `provisioning`, and for how long.
#[derive(Debug, Clone)]
pub struct WaitingRow {
    pub id: WorkspaceId,
    pub runtime: String,
    /// Seconds since `updated_at`, by the database's clock.
    pub age_seconds: f64,
}

impl Db {
    /// Every row in `provisioning`, the longest waiting first (3.R77).
    pub async fn provisioning_rows(&self) -> Result<Vec<WaitingRow>> {
        bounded(
            sqlx::query_as!(
                WaitingRow,
                r#"SELECT id AS "id: WorkspaceId", runtime,
                          EXTRACT(EPOCH FROM now() - updated_at)::float8 AS "age_seconds!"
                   FROM workspaces WHERE status = 'provisioning' ORDER BY updated_at LIMIT 10000"#
            )
            .fetch_all(&self.pool),
        )
        .await
    }
}
