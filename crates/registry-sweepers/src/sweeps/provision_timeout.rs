use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use mws_db::Db;
use mws_lifecycle::Lifecycle;
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
        for row in waiting {
            let timeouts = self.lifecycle.timeouts().clone();
            let runtime = row.runtime.clone();
            let limit = tokio::task::spawn_blocking(move || timeouts.limit(&runtime)).await?;
            if row.age_seconds < limit.as_secs_f64() {
                continue;
            }
            let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
            let mut tx = self.db.begin().await?;
            if tx.provision_timed_out(row.id, seconds, TIMED_OUT).await? {
                tx.commit().await?;
                acted.push(row.id);
            }
        }
        Ok(Report { examined, acted })
    }
}
