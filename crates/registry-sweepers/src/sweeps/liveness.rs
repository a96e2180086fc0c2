use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mws_db::Db;
use mws_db::transitions::Lost;
use mws_lifecycle::Lifecycle;
use mws_models::OfflineReason;
use mws_tasks::{Report, Sweep};
use tokio::time::Instant;

/// The liveness reconcile (3.R71): live agents that have been silent too long are lost.
pub struct LivenessSweep {
    db: Db,
    lifecycle: Lifecycle,
    holder: String,
    started: Instant,
    grace: Duration,
    /// Another process ticked this task while this one ran.
    watched: AtomicBool,
}

const NAME: &str = "liveness-monitor";
/// Six missed beats of 30 s.
const SILENT_SECONDS: f64 = 180.0;
/// A server that was down must not declare its agents dead before they had time to beat.
const GRACE: Duration = Duration::from_secs(90);
/// Without Redis there is no expiry to hear, so this pass runs twice as often (3.R5).
const EVERY: Duration = Duration::from_secs(15);

impl LivenessSweep {
    /// A sweep for the process `holder`, whose grace begins now.
    #[must_use]
    pub fn new(db: Db, lifecycle: Lifecycle, holder: &str) -> Self {
        Self {
            db,
            lifecycle,
            holder: holder.to_owned(),
            started: Instant::now(),
            grace: GRACE,
            watched: AtomicBool::new(false),
        }
    }

    /// The same without the grace after start.
    #[must_use]
    pub fn without_grace(mut self) -> Self {
        self.grace = Duration::ZERO;
        self
    }

    async fn is_too_early(&self) -> Result<bool, mws_db::Error> {
        Ok(self.started.elapsed() < self.grace && !self.is_watched().await?)
    }

    /// Whether another process has ticked since this one started. Remembered, because the row that tells it
    /// names this process as soon as it takes the lease.
    async fn is_watched(&self) -> Result<bool, mws_db::Error> {
        if !self.watched.load(Ordering::Acquire)
            && self.db.ticked_elsewhere(NAME, &self.holder, self.started.elapsed()).await?
        {
            self.watched.store(true, Ordering::Release);
        }
        Ok(self.watched.load(Ordering::Acquire))
    }
}

#[async_trait]
impl Sweep for LivenessSweep {
    fn name(&self) -> &'static str {
        NAME
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn at_start(&self) -> bool {
        true
    }

    async fn passed_over(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.is_watched().await?;
        Ok(())
    }

    async fn run_once(&self) -> Result<Report, Box<dyn Error + Send + Sync>> {
        if self.is_too_early().await? {
            return Ok(Report::default());
        }
        // Transition, events and restart requests are one transaction (3.R64).
        let mut tx = self.db.begin().await?;
        let lost =
            tx.agents_lost(Lost::SilentFor { seconds: SILENT_SECONDS }, OfflineReason::TtlExpired).await?;
        for row in lost.iter().filter(|row| !row.external) {
            self.lifecycle.request_restart(&mut tx, row.id, OfflineReason::TtlExpired, false).await?;
        }
        tx.commit().await?;
        self.lifecycle.job_enqueued();
        Ok(Report { examined: lost.len(), acted: lost.into_iter().map(|row| row.id).collect() })
    }
}
