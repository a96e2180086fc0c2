//! The frame of background sweeps (contract 3.10): one process at a time runs a given sweep's tick, which has a
//! deadline, is recorded, and never overlaps itself. Correctness does not rest on the lease: every sweep acts
//! through conditional transitions, so that two at once do no harm (3.R95).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mws_db::Db;
use mws_db::background::TickReport;
use mws_models::WorkspaceId;
use mws_runtime::shutdown::Shutdown;
use mws_runtime::tasks::Spawner;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

/// The shortest deadline of a tick, and the shortest lease.
const MIN_DEADLINE: Duration = Duration::from_secs(30);
/// How often a long tick shows that it is alive (3.R66).
const PULSE: Duration = Duration::from_secs(10);

/// What a tick did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows looked at.
    pub examined: usize,
    /// The workspaces acted on.
    pub acted: Vec<WorkspaceId>,
}

/// A periodic task over the database: it takes no input, reads all its state, is bounded and idempotent. The
/// next tick is its retry.
#[async_trait]
pub trait Sweep: Send + Sync + 'static {
    /// Its name at `/admin/liveness`.
    fn name(&self) -> &'static str;

    /// The time between ticks.
    fn every(&self) -> Duration;

    /// Whether the first tick comes at the start instead of after one interval.
    fn at_start(&self) -> bool {
        false
    }

    /// Called instead of a tick that another process holds the lease for.
    ///
    /// # Errors
    /// Any; it is logged, and nothing else follows.
    async fn passed_over(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// One tick.
    ///
    /// # Errors
    /// Any; it is logged, shown as a safe sentence, and the next tick tries again.
    async fn run_once(&self) -> Result<Report, Box<dyn Error + Send + Sync>>;
}

/// Starts sweeps in this process.
#[derive(Clone)]
pub struct Frame {
    db: Db,
    holder: Arc<str>,
    spawner: Spawner,
}

impl Frame {
    /// A frame for the process `holder`.
    #[must_use]
    pub fn new(db: Db, holder: &str, spawner: Spawner) -> Self {
        Self { db, holder: holder.into(), spawner }
    }

    /// Runs a sweep, supervised, until shutdown.
    pub fn start(&self, sweep: Arc<dyn Sweep>) {
        let frame = self.clone();
        self.spawner.supervise(sweep.name(), move |shutdown| {
            let (frame, sweep) = (frame.clone(), sweep.clone());
            async move { frame.run(sweep.as_ref(), shutdown).await }
        });
    }

    async fn run(&self, sweep: &dyn Sweep, shutdown: Shutdown) -> Result<(), mws_db::Error> {
        let every = sweep.every();
        self.db.note_alive(sweep.name(), &self.holder, every).await?;
        let first = if sweep.at_start() { Instant::now() } else { Instant::now() + every };
        let mut ticks = interval_at(first, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            if self.lease(sweep).await? {
                self.tick(sweep).await?;
            } else if let Err(error) = sweep.passed_over().await {
                tracing::warn!(
                    sweep = sweep.name(),
                    error = &*error as &dyn Error,
                    "sweep not told to stand by"
                );
            }
        }
    }

    /// Takes or keeps the lease: two intervals, at least 30 s, so that a crashed holder is soon replaced.
    async fn lease(&self, sweep: &dyn Sweep) -> Result<bool, mws_db::Error> {
        let lease = (sweep.every() * 2).max(MIN_DEADLINE);
        self.db.lease_task(sweep.name(), &self.holder, sweep.every(), lease).await
    }

    /// Shows that a long tick is alive. A pulse that fails ends no tick: the lease only saves work.
    async fn pulse(&self, sweep: &dyn Sweep) {
        match self.lease(sweep).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(sweep = sweep.name(), "another process took the lease during the tick")
            }
            Err(error) => {
                tracing::warn!(
                    sweep = sweep.name(),
                    error = &error as &dyn Error,
                    "sweep pulse not recorded"
                );
            }
        }
    }

    async fn tick(&self, sweep: &dyn Sweep) -> Result<(), mws_db::Error> {
        let started = Instant::now();
        let work = timeout(sweep.every().max(MIN_DEADLINE), sweep.run_once());
        tokio::pin!(work);
        let mut pulse = interval(PULSE);
        pulse.tick().await;
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                _ = pulse.tick() => self.pulse(sweep).await,
            }
        };
        let error = match &outcome {
            Ok(Ok(report)) => {
                if !report.acted.is_empty() {
                    tracing::info!(
                        sweep = sweep.name(),
                        examined = report.examined,
                        acted = report.acted.len(),
                        "sweep acted"
                    );
                }
                None
            }
            Ok(Err(error)) => {
                tracing::warn!(sweep = sweep.name(), error = &**error as &dyn Error, "sweep failed");
                Some("the tick failed; the log has the cause")
            }
            Err(_) => {
                tracing::warn!(sweep = sweep.name(), "sweep over its deadline");
                Some("the tick took longer than its deadline")
            }
        };
        self.db.record_tick(sweep.name(), &TickReport { duration: started.elapsed(), error }).await
    }
}
