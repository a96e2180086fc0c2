//! Reconcile after a crash (2.R165): rows in `provisioning` that no run owns.

use std::sync::Arc;
use std::time::Duration;

use mws_db::jobs::{JobKind, JobOptions, NewJob};
use mws_models::WorkspaceId;
use mws_provisioner::{InstanceRef, Liveness, Provisioner};

use crate::Lifecycle;

/// What a crashed start left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The agent runs: its heartbeat decides from here.
    Running,
    /// Nothing runs: the pipeline has to run once more.
    Nothing,
    /// The backend could not say: the timeout sweep decides.
    Unknown,
}

impl Lifecycle {
    /// Looks after every row that a crash of this installation may have left in `provisioning`. Called once
    /// at boot.
    ///
    /// # Errors
    /// Those of the database; what was requested until then stays requested.
    pub async fn reconcile(&self) -> Result<usize, mws_db::Error> {
        let Some(backend) = self.backends().current().await else { return Ok(0) };
        let mut again = 0;
        for start in self.db().unowned_starts().await? {
            if self.inspect(start.id, &backend).await? != Found::Nothing {
                continue;
            }
            let mut tx = self.db().begin().await?;
            if !tx.lock_unowned_start(&start).await? {
                continue;
            }
            tx.enqueue(&NewJob {
                workspace_id: start.id,
                kind: JobKind::Provision,
                reason: "boot-reconcile",
                automatic: false,
                options: JobOptions { keep_config: true, ..JobOptions::default() },
                delay: Duration::ZERO,
            })
            .await?;
            tx.commit().await?;
            again += 1;
        }
        self.job_enqueued();
        Ok(again)
    }

    /// Asks the backend what a start left, and completes the bookkeeping of an agent that runs.
    pub(crate) async fn inspect(
        &self,
        id: WorkspaceId,
        backend: &Arc<dyn Provisioner>,
    ) -> Result<Found, mws_db::Error> {
        let Some(state) = self.db().workspace_state(id).await? else { return Ok(Found::Unknown) };
        let instance = InstanceRef { workspace_id: id, instance_id: state.instance_id };
        match backend.liveness(&instance).await {
            Liveness::NotRunning => Ok(Found::Nothing),
            Liveness::Unknown(error) => {
                tracing::warn!(workspace_id = %id, error = &error as &dyn std::error::Error, "left to the timeout sweep");
                Ok(Found::Unknown)
            }
            Liveness::Running => {
                if !state.url_provisioned
                    && let Ok(Some(running)) = backend.running_instance(&instance).await
                    && let Some(url) = running.host_url.as_deref().or(running.internal_url.as_deref())
                {
                    self.db().adopt_provisioned_url(id, url).await?;
                }
                Ok(Found::Running)
            }
        }
    }
}
