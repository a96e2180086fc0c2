//! The automatic restart of a dead agent: how it is asked for, and how an agent is found dead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mws_db::Tx;
use mws_db::jobs::{JobKind, JobOptions, NewJob};
use mws_db::transitions::Lost;
use mws_models::{OfflineReason, WorkspaceId, WorkspaceStatus, is_external_like};
use mws_provisioner::{InstanceRef, Liveness};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::Lifecycle;

/// Automatic restarts without a heartbeat in between before the runner gives up (3.R102).
const MAX_FRUITLESS_RESTARTS: i64 = 6;
/// The pause before the first of them; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(600);
/// How long the backend may take to say whether an agent runs (4.R63).
const CHECK_DEADLINE: Duration = Duration::from_secs(5);

const GAVE_UP: &str = "automatic restart gave up after 6 attempts";

/// What a check of an agent found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It runs, or nobody can say that it does not.
    Alive,
    /// It is gone; a restart is under way or was asked for.
    Dead,
}

/// Checks under way, so that concurrent failures of one workspace share one (4.R65).
#[derive(Default)]
pub(crate) struct Checks {
    running: Mutex<HashMap<WorkspaceId, Arc<OnceCell<Verdict>>>>,
}

impl Checks {
    fn join(&self, id: WorkspaceId) -> Arc<OnceCell<Verdict>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().clone()
    }

    /// Ends a check. One that was begun meanwhile stays.
    fn leave(&self, id: WorkspaceId, check: &Arc<OnceCell<Verdict>>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&id).is_some_and(|current| Arc::ptr_eq(current, check)) {
            running.remove(&id);
        }
    }

    pub(crate) fn forget(&self, id: WorkspaceId) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// The pause before the `nth` automatic restart within ten minutes, counted from 1.
fn pause_before(nth: i64) -> Duration {
    let doublings = u32::try_from(nth - 1).unwrap_or(0).min(10);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE)
}

impl Lifecycle {
    /// Asks, in the transaction that found the agent gone, for its restart; or gives up on it. A caller who
    /// waits (`eager`) is not made to wait for the first one within ten minutes.
    ///
    /// # Errors
    /// Those of the database; the caller's transaction must not be committed then.
    pub async fn request_restart(
        &self,
        tx: &mut Tx,
        id: WorkspaceId,
        reason: OfflineReason,
        eager: bool,
    ) -> Result<(), mws_db::Error> {
        let history = tx.restart_history(id).await?;
        if history.without_heartbeat >= MAX_FRUITLESS_RESTARTS {
            tx.gave_up(id, GAVE_UP).await?;
            return Ok(());
        }
        let nth = history.recent + 1;
        let delay = if eager && nth == 1 { Duration::ZERO } else { pause_before(nth) };
        tx.enqueue(&NewJob {
            workspace_id: id,
            kind: JobKind::Restart,
            reason: reason.as_str(),
            automatic: true,
            options: JobOptions::default(),
            delay,
        })
        .await
    }

    /// A dispatch to this workspace failed: asks its backend whether it still runs and, if not, takes it
    /// offline and requests its restart (4.R63, 4.R64). Any doubt is "alive".
    pub async fn check_unreachable(&self, id: WorkspaceId) -> Verdict {
        let check = self.inner.checks.join(id);
        let verdict = *check.get_or_init(|| self.check_once(id)).await;
        self.inner.checks.leave(id, &check);
        verdict
    }

    async fn check_once(&self, id: WorkspaceId) -> Verdict {
        let found = async {
            let Some(state) = self.db().workspace_state(id).await? else { return Ok(Verdict::Alive) };
            if is_external_like(&state.runtime) || !self.is_not_running(id, state.instance_id).await {
                return Ok(Verdict::Alive);
            }
            self.take_offline(id, state.status).await
        };
        found.await.unwrap_or_else(|error: mws_db::Error| {
            tracing::warn!(workspace_id = %id, error = &error as &dyn std::error::Error, "liveness check inconclusive");
            Verdict::Alive
        })
    }

    async fn is_not_running(&self, id: WorkspaceId, instance_id: Option<String>) -> bool {
        let Some(backend) = self.backends().current().await else { return false };
        let instance = InstanceRef { workspace_id: id, instance_id };
        matches!(timeout(CHECK_DEADLINE, backend.liveness(&instance)).await, Ok(Liveness::NotRunning))
    }

    async fn take_offline(&self, id: WorkspaceId, status: WorkspaceStatus) -> Result<Verdict, mws_db::Error> {
        match status {
            WorkspaceStatus::Provisioning => return Ok(Verdict::Dead),
            WorkspaceStatus::Online | WorkspaceStatus::Degraded | WorkspaceStatus::Offline => {}
            _ => return Ok(Verdict::Alive),
        }
        let mut tx = self.db().begin().await?;
        let ask = if status == WorkspaceStatus::Offline {
            !tx.has_open_job(id).await?
        } else {
            !tx.agents_lost(Lost::Gone(id), OfflineReason::Unreachable).await?.is_empty()
        };
        if ask {
            self.request_restart(&mut tx, id, OfflineReason::Unreachable, true).await?;
        }
        tx.commit().await?;
        if ask {
            self.job_enqueued();
            return Ok(Verdict::Dead);
        }
        // Somebody else changed the row, or a booting agent looks like this.
        let now = self.db().workspace_status(id).await?;
        let restarting = matches!(now, Some(WorkspaceStatus::Offline | WorkspaceStatus::Provisioning));
        Ok(if restarting { Verdict::Dead } else { Verdict::Alive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_ten_minutes() {
        // 3.R102
        let seconds: Vec<_> = (1..=8).map(|nth| pause_before(nth).as_secs()).collect();
        assert_eq!(seconds, [15, 30, 60, 120, 240, 480, 600, 600]);
    }
}
