use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use mws_db::Db;
use mws_lifecycle::Lifecycle;
use mws_models::WorkspaceId;
use mws_tasks::{Report, Sweep};

/// Fails what has waited in `provisioning` beyond its runtime's limit (contract 3.10.4).
pub struct ProvisionTimeoutSweep {
    db: Db,
    lifecycle: Lifecycle,
}

/// The sentence of 3.R80.
const TIMED_OUT: &str = "provisioning timed out — container started but never called /registry/register. \
    Check container logs and network connectivity to the platform.";

impl ProvisionTimeoutSweep {
    /// A sweep over this installation's rows, by the limits that the workspace object shows.
    #[must_use]
    pub fn new(db: Db, lifecycle: Lifecycle) -> Self {
        Self { db, lifecycle }
    }

    async fn fail(&self, id: WorkspaceId, seconds: u32) -> Result<bool, mws_db::Error> {
        let mut tx = self.db.begin().await?;
        let changed = tx.provision_timed_out(id, seconds, TIMED_OUT).await?;
        if changed {
            tx.commit().await?;
        }
        Ok(changed)
    }
}

#[async_trait]
impl Sweep for ProvisionTimeoutSweep {
    fn name(&self) -> &'static str {
        "provision-timeout-sweep"
    }

    fn every(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn run_once(&self) -> Result<Report, Box<dyn Error + Send + Sync>> {
        let waiting = self.db.provisioning_rows().await?;
        let examined = waiting.len();
        let mut acted = Vec::new();
        let mut failed = None;
        for row in waiting {
            let timeouts = self.lifecycle.timeouts().clone();
            let runtime = row.runtime.clone();
            let limit = tokio::task::spawn_blocking(move || timeouts.limit(&runtime)).await?;
            if row.age_seconds < limit.as_secs_f64() {
                continue;
            }
            let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
            match self.fail(row.id, seconds).await {
                Ok(true) => acted.push(row.id),
                Ok(false) => {}
                Err(error) => {
                    // The others are not kept waiting by one row (3.R61).
                    tracing::warn!(workspace_id = %row.id, error = &error as &dyn Error, "row not failed");
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(Report { examined, acted }),
        }
    }
}
