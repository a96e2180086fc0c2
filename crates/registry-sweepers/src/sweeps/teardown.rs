use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use mws_db::Db;
use mws_lifecycle::Lifecycle;
use mws_tasks::{Report, Sweep};

/// Attempts after which a stop that keeps failing is told as a suspected leak (1.R113).
const SUSPECT_AFTER: i32 = 5;

/// Takes up again the stops of removed workspaces that failed (1.R113).
pub struct TeardownReaper {
    db: Db,
    lifecycle: Lifecycle,
}

impl TeardownReaper {
    /// A reaper over this installation's rows.
    #[must_use]
    pub fn new(db: Db, lifecycle: Lifecycle) -> Self {
        Self { db, lifecycle }
    }
}

#[async_trait]
impl Sweep for TeardownReaper {
    fn name(&self) -> &'static str {
        "teardown-reaper"
    }

    fn every(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn run_once(&self) -> Result<Report, Box<dyn Error + Send + Sync>> {
        if self.lifecycle.backends().current().await.is_none() {
            return Ok(Report::default());
        }
        let stuck = self.db.requeue_due_teardowns().await?;
        for row in stuck.iter().filter(|row| row.attempts >= SUSPECT_AFTER) {
            tracing::error!(
                "LEAK-SUSPECT workspace_id={} provider={} instance={} attempts={}",
                row.id,
                row.provider.as_deref().unwrap_or("-"),
                row.instance_id.as_deref().unwrap_or("-"),
                row.attempts
            );
        }
        self.lifecycle.job_enqueued();
        Ok(Report { examined: stuck.len(), acted: stuck.into_iter().map(|row| row.id).collect() })
    }
}
