//! The row of a workspace: reads, and the writes of a create.

use mws_models::{Timestamp, WorkspaceId, WorkspaceStatus};
use serde_json::Value;

use crate::error::bounded;
use crate::{Db, Result, StoredJson, Tx};

/// The unique index that keeps names apart among the live children of one parent.
pub const NAME_INDEX: &str = "workspaces_parent_name_uniq";

/// One workspace as the API shows it, its layout included.
#[derive(Debug)]
pub struct WorkspaceRecord {
    pub id: WorkspaceId,
    pub name: String,
    pub role: Option<String>,
    pub tier: i32,
    pub status: WorkspaceStatus,
    pub agent_card: Option<StoredJson>,
    pub url: Option<String>,
    pub parent_id: Option<WorkspaceId>,
    pub active_tasks: i32,
    pub max_concurrent_tasks: i32,
    pub last_error_rate: f64,
    pub last_sample_error: Option<String>,
    pub uptime_seconds: i32,
    pub current_task: Option<String>,
    pub runtime: String,
    pub workspace_dir: Option<String>,
    pub monthly_spend: i64,
    pub budget_limit: Option<i64>,
    pub x: f64,
    pub y: f64,
    pub collapsed: bool,
    pub broadcast_enabled: bool,
    pub talk_to_user_enabled: bool,
    pub compute: StoredJson,
    pub last_outbound_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

/// A row about to be created. `id` is chosen by the caller.
#[derive(Debug)]
pub struct NewWorkspace<'a> {
    pub id: WorkspaceId,
    pub name: &'a str,
    pub role: Option<&'a str>,
    pub tier: i32,
    pub runtime: &'a str,
    pub workspace_dir: Option<&'a str>,
    pub workspace_access: &'a str,
    pub delivery_mode: Option<&'a str>,
    pub parent_id: Option<WorkspaceId>,
    pub budget_limit: Option<i64>,
    pub max_concurrent_tasks: i32,
    pub position: (f64, f64),
}

/// What a provisioning run reads of the row (2.R82).
#[derive(Debug)]
pub struct ProvisionRow {
    pub name: String,
    pub role: Option<String>,
    pub tier: i32,
    pub runtime: String,
    pub status: WorkspaceStatus,
    pub parent_id: Option<WorkspaceId>,
    pub workspace_dir: Option<String>,
    pub workspace_access: String,
    pub instance_id: Option<String>,
    pub url_provisioned: bool,
    pub generation: i64,
}

/// Where a workspace stands, as much as small decisions need.
#[derive(Debug, Clone)]
pub struct StateRow {
    pub name: String,
    pub runtime: String,
    pub status: WorkspaceStatus,
    pub instance_id: Option<String>,
    pub url_provisioned: bool,
    /// The nearest ancestor that is paused, if any, within 64 steps.
    pub paused_ancestor: Option<String>,
}

/// A peer as `GET /registry/:id/peers` lists it.
#[derive(Debug)]
pub struct PeerRow {
    pub id: WorkspaceId,
    pub name: String,
    pub role: Option<String>,
    pub tier: i32,
    pub status: WorkspaceStatus,
    pub agent_card: Option<StoredJson>,
    pub url: Option<String>,
    pub parent_id: Option<WorkspaceId>,
    pub active_tasks: i32,
}

/// A row in `provisioning` without a job, and the run that left it there.
#[derive(Debug, Clone, Copy)]
pub struct UnownedStart {
    pub id: WorkspaceId,
    pub generation: i64,
}

/// A direct child in the answer to an unconfirmed delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildRow {
    pub id: WorkspaceId,
    pub name: String,
}

/// A checked query for [`WorkspaceRecord`]s, with its condition.
macro_rules! workspace_records {
    ($rest:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            WorkspaceRecord,
            r#"SELECT w.id AS "id: WorkspaceId", w.name, w.role, w.tier,
                      w.status AS "status: WorkspaceStatus",
                      w.agent_card AS "agent_card: StoredJson", w.url,
                      w.parent_id AS "parent_id: WorkspaceId", w.active_tasks, w.max_concurrent_tasks,
                      w.last_error_rate, w.last_sample_error, w.uptime_seconds, w.current_task, w.runtime,
                      w.workspace_dir, w.monthly_spend, w.budget_limit,
                      COALESCE(l.x, 0) AS "x!", COALESCE(l.y, 0) AS "y!",
                      COALESCE(l.collapsed, false) AS "collapsed!",
                      w.broadcast_enabled, w.talk_to_user_enabled,
                      w.compute AS "compute: StoredJson",
                      w.last_outbound_at AS "last_outbound_at: Timestamp",
                      w.updated_at AS "updated_at: Timestamp"
               FROM workspaces w LEFT JOIN canvas_layouts l ON l.workspace_id = w.id
               "# + $rest
            $(, $argument)*
        )
    };
}

impl Db {
    /// Every workspace that is not removed, oldest first.
    pub async fn list_workspaces(&self) -> Result<Vec<WorkspaceRecord>> {
        bounded(
            workspace_records!("WHERE w.status <> 'removed' ORDER BY w.created_at, w.id")
                .fetch_all(&self.pool),
        )
        .await
    }

    /// One workspace, removed or not.
    pub async fn workspace(&self, id: WorkspaceId) -> Result<Option<WorkspaceRecord>> {
        bounded(workspace_records!("WHERE w.id = $1", id.uuid()).fetch_optional(&self.pool)).await
    }

    /// The status alone; `None` for no row.
    pub async fn workspace_status(&self, id: WorkspaceId) -> Result<Option<WorkspaceStatus>> {
        bounded(
            sqlx::query_scalar!(
                r#"SELECT status AS "status: WorkspaceStatus" FROM workspaces WHERE id = $1"#,
                id.uuid()
            )
            .fetch_optional(&self.pool),
        )
        .await
    }

    /// What a restart, a liveness check or a reconcile decides by.
    pub async fn workspace_state(&self, id: WorkspaceId) -> Result<Option<StateRow>> {
        bounded(
            sqlx::query_as!(
                StateRow,
                r#"SELECT w.name, w.runtime, w.status AS "status: WorkspaceStatus", w.instance_id, w.url_provisioned,
                          (WITH RECURSIVE up AS (
                               SELECT p.id, p.parent_id, p.name, p.status, 1 AS depth
                               FROM workspaces p WHERE p.id = w.parent_id
                               UNION ALL
                               SELECT p.id, p.parent_id, p.name, p.status, up.depth + 1
                               FROM workspaces p JOIN up ON p.id = up.parent_id WHERE up.depth < 64
                           ) CYCLE id SET looped USING path
                           SELECT name FROM up WHERE status = 'paused' AND NOT looped
                           ORDER BY depth LIMIT 1) AS paused_ancestor
                   FROM workspaces w WHERE w.id = $1"#,
                id.uuid()
            )
            .fetch_optional(&self.pool),
        )
        .await
    }

    /// Siblings, children, parent of a workspace, in this order; `None` when it is unknown or removed.
    pub async fn peers(&self, id: WorkspaceId) -> Result<Option<Vec<PeerRow>>> {
        let peers = bounded(
            sqlx::query_as!(
                PeerRow,
                r#"WITH me AS (SELECT id, parent_id FROM workspaces WHERE id = $1 AND status <> 'removed')
                   SELECT w.id AS "id: WorkspaceId", w.name, w.role, w.tier,
                          w.status AS "status: WorkspaceStatus",
                          w.agent_card AS "agent_card: StoredJson", w.url,
                          w.parent_id AS "parent_id: WorkspaceId", w.active_tasks
                   FROM workspaces w, me
                   WHERE w.id <> me.id AND w.status <> 'removed'
                     AND (w.parent_id IS NOT DISTINCT FROM me.parent_id OR w.parent_id = me.id OR w.id = me.parent_id)
                   ORDER BY CASE WHEN w.parent_id IS NOT DISTINCT FROM me.parent_id THEN 0
                                 WHEN w.parent_id = me.id THEN 1 ELSE 2 END,
                            w.created_at, w.id"#,
                id.uuid()
            )
            .fetch_all(&self.pool),
        )
        .await?;
        if peers.is_empty() {
            let status = self.workspace_status(id).await?;
            return Ok(status.filter(|s| *s != WorkspaceStatus::Removed).map(|_| peers));
        }
        Ok(Some(peers))
    }

    /// `id → parent_id` of at most `limit` workspaces, those that are not removed first.
    pub async fn parents(&self, limit: i64) -> Result<Vec<(WorkspaceId, Option<WorkspaceId>)>> {
        let rows = bounded(
            sqlx::query!(
                r#"SELECT id AS "id: WorkspaceId", parent_id AS "parent_id: WorkspaceId"
                   FROM workspaces ORDER BY status = 'removed', created_at DESC LIMIT $1"#,
                limit
            )
            .fetch_all(&self.pool),
        )
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.parent_id)).collect())
    }

    /// The same for these workspaces and up to 33 steps above them.
    pub async fn parent_chains(
        &self,
        ids: &[WorkspaceId],
    ) -> Result<Vec<(WorkspaceId, Option<WorkspaceId>)>> {
        let ids: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
        let rows = bounded(
            sqlx::query!(
                r#"WITH RECURSIVE up AS (
                       SELECT id, parent_id, 0 AS steps FROM workspaces WHERE id = ANY($1)
                       UNION ALL
                       SELECT p.id, p.parent_id, up.steps + 1
                       FROM workspaces p JOIN up ON p.id = up.parent_id WHERE up.steps < 33
                   ) CYCLE id SET looped USING path
                   SELECT DISTINCT id AS "id!: WorkspaceId", parent_id AS "parent_id: WorkspaceId" FROM up"#,
                &ids
            )
            .fetch_all(&self.pool),
        )
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.parent_id)).collect())
    }

    /// Rows in `provisioning` that no job owns (2.R165).
    pub async fn unowned_starts(&self) -> Result<Vec<UnownedStart>> {
        bounded(
            sqlx::query_as!(
                UnownedStart,
                r#"SELECT w.id AS "id: WorkspaceId", w.provision_generation AS generation
                   FROM workspaces w
                   WHERE w.status = 'provisioning'
                     AND NOT is_external_like(w.runtime)
                     AND NOT EXISTS (SELECT 1 FROM workspace_jobs j
                                     WHERE j.workspace_id = w.id AND j.state IN ('pending', 'running'))
                   ORDER BY w.created_at LIMIT 10000"#
            )
            .fetch_all(&self.pool),
        )
        .await
    }
}

impl Tx {
    /// Locks a parent against removal and tells whether it may have children now.
    pub async fn lock_parent(&mut self, parent: WorkspaceId) -> Result<bool> {
        // FOR SHARE, not FOR KEY SHARE: a delete changes no key column, and would not wait for the latter.
        let status = bounded(
            sqlx::query_scalar!(
                r#"SELECT status AS "status: WorkspaceStatus" FROM workspaces WHERE id = $1 FOR SHARE"#,
                parent.uuid()
            )
            .fetch_optional(self.connection()),
        )
        .await?;
        Ok(status.is_some_and(|status| status != WorkspaceStatus::Removed))
    }

    /// Locks a row that [`Db::unowned_starts`] found and tells whether it is still what it was: another process
    /// may have looked after it meanwhile.
    pub async fn lock_unowned_start(&mut self, start: &UnownedStart) -> Result<bool> {
        let locked = bounded(
            sqlx::query_scalar!(
                "SELECT 1 FROM workspaces WHERE id = $1 AND status = 'provisioning' AND provision_generation = $2
                 FOR NO KEY UPDATE",
                start.id.uuid(),
                start.generation
            )
            .fetch_optional(self.connection()),
        )
        .await?;
        // A statement of its own: it sees what was committed while the first one waited.
        Ok(locked.is_some() && !self.has_open_job(start.id).await?)
    }

    /// Inserts the row as `provisioning` with its layout; `false` when the name is taken (1.R49).
    pub async fn insert_workspace(&mut self, new: &NewWorkspace<'_>) -> Result<bool> {
        let (x, y) = new.position;
        let inserted = bounded(
            sqlx::query!(
                r#"WITH created AS (
                       INSERT INTO workspaces (id, name, role, tier, runtime, workspace_dir, workspace_access,
                                               delivery_mode, parent_id, budget_limit, max_concurrent_tasks)
                       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                       ON CONFLICT (COALESCE(parent_id, '00000000-0000-0000-0000-000000000000'::uuid), name)
                           WHERE status <> 'removed' DO NOTHING
                       RETURNING id)
                   INSERT INTO canvas_layouts (workspace_id, x, y) SELECT id, $12, $13 FROM created"#,
                new.id.uuid(),
                new.name,
                new.role,
                new.tier,
                new.runtime,
                new.workspace_dir,
                new.workspace_access,
                new.delivery_mode,
                new.parent_id.map(WorkspaceId::uuid),
                new.budget_limit,
                new.max_concurrent_tasks,
                x,
                y,
            )
            .execute(self.connection()),
        )
        .await?;
        Ok(inserted.rows_affected() == 1)
    }

    /// Replaces the stored config document.
    pub async fn put_config(&mut self, id: WorkspaceId, data: &Value) -> Result<()> {
        bounded(
            sqlx::query!(
                "INSERT INTO workspace_config (workspace_id, data) VALUES ($1, $2)
                 ON CONFLICT (workspace_id) DO UPDATE SET data = EXCLUDED.data, updated_at = now()",
                id.uuid(),
                data
            )
            .execute(self.connection()),
        )
        .await
        .map(|_| ())
    }

    /// Direct children that are not removed, oldest first.
    pub async fn live_children(&mut self, id: WorkspaceId) -> Result<Vec<ChildRow>> {
        bounded(
            sqlx::query_as!(
                ChildRow,
                r#"SELECT id AS "id: WorkspaceId", name FROM workspaces
                   WHERE parent_id = $1 AND status <> 'removed' ORDER BY created_at, id"#,
                id.uuid()
            )
            .fetch_all(self.connection()),
        )
        .await
    }
}

/// Writes of a provisioning run. Each holds only while the run still owns the row: same generation, and not
/// `removed` or held (2.R79).
impl Db {
    /// Takes the next generation of a workspace that is to be started; `None` when it no longer is. A last beat
    /// of the agent that was just stopped may have lifted the row to `online` again: that is still ours.
    pub async fn begin_provision_run(&self, id: WorkspaceId) -> Result<Option<ProvisionRow>> {
        bounded(
            sqlx::query_as!(
                ProvisionRow,
                r#"UPDATE workspaces SET provision_generation = provision_generation + 1, updated_at = now()
                   WHERE id = $1 AND status IN ('provisioning', 'online', 'degraded')
                   RETURNING name, role, tier, runtime, status AS "status: WorkspaceStatus",
                             parent_id AS "parent_id: WorkspaceId", workspace_dir, workspace_access,
                             instance_id, url_provisioned, provision_generation AS generation"#,
                id.uuid()
            )
            .fetch_optional(&self.pool),
        )
        .await
    }

    /// Whether a later run than `generation` has taken the row: what runs under its name is no longer ours.
    pub async fn is_superseded(&self, id: WorkspaceId, generation: i64) -> Result<bool> {
        bounded(
            sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT 1 FROM workspaces WHERE id = $1 AND provision_generation > $2
                       AND status NOT IN ('removed', 'paused', 'hibernating', 'hibernated')) AS "superseded!""#,
                id.uuid(),
                generation
            )
            .fetch_one(&self.pool),
        )
        .await
    }

    /// Writes the address that the backend published, with its mark; `false` when the run lost its row. The
    /// agent may have registered meanwhile: the published address wins (2.R30).
    pub async fn set_provisioned_url(
        &self,
        id: WorkspaceId,
        generation: i64,
        url: &str,
        image_digest: Option<&str>,
    ) -> Result<bool> {
        let done = bounded(
            sqlx::query!(
                "UPDATE workspaces SET url = $3, url_provisioned = true,
                        runtime_image_digest = COALESCE($4, runtime_image_digest), updated_at = now()
                 WHERE id = $1 AND provision_generation = $2
                   AND status NOT IN ('removed', 'paused', 'hibernating', 'hibernated')",
                id.uuid(),
                generation,
                url,
                image_digest
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Writes the address of an agent that a crashed run started, where none is marked yet (2.R165).
    pub async fn adopt_provisioned_url(&self, id: WorkspaceId, url: &str) -> Result<()> {
        bounded(
            sqlx::query!(
                "UPDATE workspaces SET url = $2, url_provisioned = true
                 WHERE id = $1 AND NOT url_provisioned
                   AND status IN ('provisioning', 'online', 'degraded')",
                id.uuid(),
                url
            )
            .execute(&self.pool),
        )
        .await
        .map(|_| ())
    }

    /// Notes that nothing of a removed workspace is left to stop.
    pub async fn finish_teardown(&self, id: WorkspaceId) -> Result<()> {
        // `updated_at` of a removed row is when it was removed: it stays (contract 1 §17).
        bounded(
            sqlx::query!(
                "UPDATE workspaces SET teardown_pending = false, instance_id = NULL
                 WHERE id = $1 AND status = 'removed'",
                id.uuid()
            )
            .execute(&self.pool),
        )
        .await
        .map(|_| ())
    }
}
