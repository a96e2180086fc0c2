//! The job runner: claims lifecycle jobs and carries them out, in any process that has a backend (3.R100).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mws_db::jobs::{ClaimedJob, JobKind};
use mws_models::{WorkspaceStatus, is_external_like};
use mws_provisioner::{InstanceRef, Provisioner, StopMode};
use mws_runtime::shutdown::Shutdown;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::pipeline::{ConfigChoice, RunEnd, StartOptions};
use crate::recover::Found;
use crate::{Failure, Lifecycle};

/// The name of the task, as `GET /admin/liveness` lists it.
const TASK: &str = "restart-runner";
/// Teardowns of this process at a time (1.R111).
const MAX_TEARDOWNS: usize = 8;
/// Pauses between the attempts of a stop (2.R106).
const STOP_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// Automatic requests older than this are history (3.R101).
const MAX_AUTOMATIC_AGE_SECONDS: f64 = 900.0;
/// A start that took its process down this often is not tried again.
const MAX_CLAIMS: i32 = 3;
/// How often rows that wait for their turn are kept from timing out.
const TOUCH_EVERY: Duration = Duration::from_secs(30);
/// How often finished jobs are dropped.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// How a runner works.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// Who holds what it claims: unique per process.
    pub holder: String,
    /// Starts at a time (2.R83).
    pub starts: usize,
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// How often it looks for itself.
    pub poll: Duration,
}

impl RunnerOptions {
    /// The contract's numbers: a lease of 30 s, a look every 2 s.
    #[must_use]
    pub fn new(holder: impl Into<String>, starts: usize) -> Self {
        Self { holder: holder.into(), starts, lease: Duration::from_secs(30), poll: Duration::from_secs(2) }
    }
}

#[derive(Default)]
struct Running {
    starts: AtomicUsize,
    teardowns: AtomicUsize,
    ended: Notify,
}

/// Counts a run for as long as it lives.
struct Slot {
    running: Arc<Running>,
    teardown: bool,
}

impl Slot {
    fn take(running: &Arc<Running>, kind: JobKind) -> Self {
        let teardown = kind == JobKind::Teardown;
        if teardown { &running.teardowns } else { &running.starts }.fetch_add(1, Ordering::AcqRel);
        Self { running: running.clone(), teardown }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.teardown { &self.running.teardowns } else { &self.running.starts }
            .fetch_sub(1, Ordering::AcqRel);
        self.running.ended.notify_one();
    }
}

/// Claims jobs and runs them.
#[derive(Clone)]
pub struct JobRunner {
    lifecycle: Lifecycle,
    options: RunnerOptions,
    running: Arc<Running>,
}

impl JobRunner {
    /// A runner for this process.
    #[must_use]
    pub fn new(lifecycle: Lifecycle, options: RunnerOptions) -> Self {
        Self { lifecycle, options, running: Arc::default() }
    }

    /// Works until shutdown. Runs under way go on detached; [`JobRunner::give_up_leases`] after they drained.
    ///
    /// # Errors
    /// Those of the database: the supervisor starts the loop again.
    pub async fn run(&self, shutdown: Shutdown) -> Result<(), mws_db::Error> {
        let (mut touched, mut pruned) = (Instant::now(), Instant::now());
        while !shutdown.is_cancelled() {
            let db = self.lifecycle.db();
            if let Some(backend) = self.lifecycle.backends().current().await {
                db.note_alive(TASK, &self.options.holder, self.options.poll).await?;
                self.claim_due(&backend, &shutdown).await?;
                // Without a backend nothing waits for its turn: such rows may time out.
                if touched.elapsed() >= TOUCH_EVERY {
                    db.touch_waiting_starts().await?;
                    touched = Instant::now();
                }
            }
            if pruned.elapsed() >= PRUNE_EVERY {
                db.prune_jobs().await?;
                pruned = Instant::now();
            }
            tokio::select! {
                () = self.lifecycle.inner.job_enqueued.notified() => {}
                () = self.running.ended.notified() => {}
                () = sleep(self.options.poll) => {}
                () = shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Lets another process take over at once what this one leaves unfinished.
    ///
    /// # Errors
    /// Those of the database; the leases then run out by themselves.
    pub async fn give_up_leases(&self) -> Result<(), mws_db::Error> {
        self.lifecycle.db().end_leases(&self.options.holder).await.map(|_| ())
    }

    fn claimable(&self) -> Vec<JobKind> {
        let mut kinds = Vec::new();
        if self.running.teardowns.load(Ordering::Acquire) < MAX_TEARDOWNS {
            kinds.push(JobKind::Teardown);
        }
        if self.running.starts.load(Ordering::Acquire) < self.options.starts {
            kinds.extend([JobKind::Provision, JobKind::Restart]);
        }
        kinds
    }

    async fn claim_due(
        &self,
        backend: &Arc<dyn Provisioner>,
        shutdown: &Shutdown,
    ) -> Result<(), mws_db::Error> {
        loop {
            let kinds = self.claimable();
            if kinds.is_empty() || shutdown.is_cancelled() {
                return Ok(());
            }
            let claimed =
                self.lifecycle.db().claim_job(&self.options.holder, self.options.lease, &kinds).await?;
            let Some(job) = claimed else { return Ok(()) };
            let slot = Slot::take(&self.running, job.kind);
            let (runner, backend, shutdown) = (self.clone(), backend.clone(), shutdown.clone());
            let run = async move {
                let _slot = slot;
                runner.run_to_end(job, backend, shutdown).await;
            };
            self.lifecycle.parts().spawner.spawn("lifecycle-job", run).detach();
        }
    }

    /// Runs one job under a renewed lease; a panic inside ends the run, not the runner (2.R81, 2.R116).
    async fn run_to_end(&self, job: ClaimedJob, backend: Arc<dyn Provisioner>, shutdown: Shutdown) {
        let (lifecycle, claimed) = (self.lifecycle.clone(), job.clone());
        let lost = CancellationToken::new();
        let cancel = lost.clone();
        let mut run = self.lifecycle.parts().spawner.spawn("lifecycle-run", async move {
            lifecycle.carry_out(&claimed, backend, &shutdown, cancel).await
        });
        let renewal = self.renew(&job);
        let outcome = tokio::select! {
            outcome = &mut run => outcome,
            () = renewal => {
                // The claim is somebody else's now. The run finds out at its next step and starts no other; until
                // then it keeps its place among those that run.
                tracing::warn!(workspace_id = %job.workspace_id, job_id = %job.id, "lease lost");
                lost.cancel();
                drop(run.await);
                return;
            }
        };
        let end = match outcome {
            Ok(end) => end,
            Err(_) => {
                self.lifecycle.mark_failed(&job, None, &Failure::Panic).await;
                JobEnd::Failed(Failure::Panic.text())
            }
        };
        let db = self.lifecycle.db();
        let stored = match &end {
            JobEnd::Done => db.finish_job(&job, None).await.map(drop),
            JobEnd::Failed(sentence) => db.finish_job(&job, Some(sentence)).await.map(drop),
            JobEnd::Released => db.release_job(&job).await,
            JobEnd::Interrupted => Ok(()),
        };
        if let Err(error) = stored {
            tracing::error!(job_id = %job.id, error = &error as &dyn std::error::Error, "job not finished; its lease will end");
        }
        self.lifecycle.inner.job_ended.notify_waiters();
    }

    /// Returns when the job is no longer this process's, or may no longer be.
    async fn renew(&self, job: &ClaimedJob) {
        let lease = self.options.lease;
        let mut ticks = interval(lease / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut ends = Instant::now() + lease;
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            match timeout_at(ends, self.lifecycle.db().renew_job(job, lease)).await {
                Ok(Ok(true)) => ends = asked + lease,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(job_id = %job.id, error = &error as &dyn std::error::Error, "lease not renewed");
                }
            }
        }
    }
}

impl Lifecycle {
    /// Does what a job asks.
    async fn carry_out(
        &self,
        job: &ClaimedJob,
        backend: Arc<dyn Provisioner>,
        shutdown: &Shutdown,
        cancel: CancellationToken,
    ) -> JobEnd {
        match job.kind {
            JobKind::Teardown => self.tear_down(job, backend.as_ref()).await,
            JobKind::Restart => self.restart_cycle(job, backend, shutdown, cancel).await,
            _ => self.provision_job(job, backend, cancel).await,
        }
    }

    async fn provision_job(
        &self,
        job: &ClaimedJob,
        backend: Arc<dyn Provisioner>,
        cancel: CancellationToken,
    ) -> JobEnd {
        if job.recovered {
            match self.inspect(job.workspace_id, &backend).await {
                Ok(Found::Running | Found::Unknown) => return JobEnd::Done,
                Ok(Found::Nothing) if job.attempts <= MAX_CLAIMS => {}
                Ok(Found::Nothing) => return self.crashed_too_often(job).await,
                Err(error) => return interrupted(&error),
            }
        }
        let config = if job.options.keep_config {
            ConfigChoice::Volume
        } else {
            ConfigChoice::Create(job.options.template.clone())
        };
        let options = StartOptions {
            config,
            model: job.options.model.clone(),
            reset_session: job.options.reset,
            cancel,
        };
        self.provision(job, backend, &options).await.into()
    }

    async fn crashed_too_often(&self, job: &ClaimedJob) -> JobEnd {
        self.mark_failed(job, None, &Failure::Panic).await;
        JobEnd::Failed(Failure::Panic.text())
    }

    /// The automatic restart (2.R118): skipped silently where the workspace is not to be restarted, or no longer
    /// needs it; else stop, mark, start with the existing configuration.
    async fn restart_cycle(
        &self,
        job: &ClaimedJob,
        backend: Arc<dyn Provisioner>,
        shutdown: &Shutdown,
        cancel: CancellationToken,
    ) -> JobEnd {
        let id = job.workspace_id;
        let state = match self.db().workspace_state(id).await {
            Ok(Some(state)) => state,
            Ok(None) => return JobEnd::Done,
            Err(error) => return interrupted(&error),
        };
        let refused = state.status == WorkspaceStatus::Removed
            || state.status.is_held()
            || is_external_like(&state.runtime)
            || state.paused_ancestor.is_some()
            || (job.automatic && job.age_seconds > MAX_AUTOMATIC_AGE_SECONDS && !job.recovered);
        if refused {
            tracing::info!(workspace_id = %id, status = %state.status, "restart dropped");
            return JobEnd::Done;
        }
        let restarting = job.recovered && state.status == WorkspaceStatus::Provisioning;
        // Asked for because the agent was gone: it spoke again meanwhile, or a crashed run had restarted it.
        let back = job.automatic && state.status.is_live();
        if restarting || back {
            match self.inspect(id, &backend).await {
                Ok(Found::Running) => {
                    tracing::info!(workspace_id = %id, status = %state.status, "the agent runs: restart dropped");
                    return JobEnd::Done;
                }
                Ok(_) if restarting && job.attempts > MAX_CLAIMS => return self.crashed_too_often(job).await,
                Ok(_) => {}
                Err(error) => return interrupted(&error),
            }
        }
        let held = async { self.db().begin().await?.holds_job(job).await };
        match held.await {
            Ok(true) => {}
            Ok(false) => return JobEnd::Done,
            Err(error) => return interrupted(&error),
        }
        let instance = InstanceRef { workspace_id: id, instance_id: state.instance_id };
        if self.stop_with_retry(backend.as_ref(), &instance, "restart", shutdown).await == Stopped::Cancelled
        {
            return JobEnd::Released;
        }
        let marked = async {
            let mut tx = self.db().begin().await?;
            let held = tx.holds_job(job).await?;
            let marked = held && tx.auto_restart(id).await?;
            tx.commit().await?;
            Ok::<_, mws_db::Error>(marked)
        };
        match marked.await {
            Ok(true) => {}
            Ok(false) => return JobEnd::Done,
            Err(error) => return interrupted(&error),
        }
        // A template is only there when a first start, which had not begun, was merged into this job.
        let config =
            job.options.template.clone().map_or(ConfigChoice::Volume, |t| ConfigChoice::Create(Some(t)));
        let options = StartOptions {
            config,
            model: job.options.model.clone(),
            reset_session: job.options.reset,
            cancel,
        };
        self.provision(job, backend, &options).await.into()
    }

    /// Stops and clears one removed workspace (1.R111). Its storage goes only after the stop succeeded.
    async fn tear_down(&self, job: &ClaimedJob, backend: &dyn Provisioner) -> JobEnd {
        let id = job.workspace_id;
        let state = match self.db().workspace_state(id).await {
            Ok(Some(state)) if state.status == WorkspaceStatus::Removed => state,
            Ok(_) => return JobEnd::Done,
            Err(error) => return interrupted(&error),
        };
        let instance = InstanceRef { workspace_id: id, instance_id: state.instance_id };
        let limit = self.parts().options.teardown_deadline;
        match timeout(limit, backend.stop(&instance, StopMode::Force)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(workspace_id = %id, attempt = job.attempts, error = &error as &dyn std::error::Error, "stop failed");
                return JobEnd::Failed("the agent could not be stopped".into());
            }
            Err(_) => return JobEnd::Failed("stopping the agent took too long".into()),
        }
        if let Err(error) = backend.remove_storage(&instance).await {
            tracing::warn!(workspace_id = %id, error = &error as &dyn std::error::Error, "storage not removed");
        }
        self.db().finish_teardown(id).await.map_or_else(|error| interrupted(&error), |()| JobEnd::Done)
    }

    /// At most three attempts, 1 s and 2 s apart; the last failure leaves a trace for the reconciler and is
    /// then the caller's to judge (2.R106, 2.R107).
    pub(crate) async fn stop_with_retry(
        &self,
        backend: &dyn Provisioner,
        instance: &InstanceRef,
        caller: &'static str,
        shutdown: &Shutdown,
    ) -> Stopped {
        let id = instance.workspace_id;
        for attempt in 1..=STOP_PAUSES.len() + 1 {
            match backend.stop(instance, StopMode::Graceful).await {
                Ok(()) => {
                    if attempt > 1 {
                        tracing::info!(workspace_id = %id, attempt, caller, "stopped after a retry");
                    }
                    return Stopped::Yes;
                }
                Err(error) => {
                    tracing::warn!(workspace_id = %id, attempt, caller, error = &error as &dyn std::error::Error, "stop failed");
                }
            }
            let Some(pause) = STOP_PAUSES.get(attempt - 1) else { break };
            tokio::select! {
                () = sleep(*pause) => {}
                () = shutdown.cancelled() => {
                    tracing::info!(workspace_id = %id, attempt, caller, "stop given up: shutting down");
                    return Stopped::Cancelled;
                }
            }
        }
        let box_name = instance.instance_id.clone().unwrap_or_else(|| format!("ws-{}", id.short()));
        tracing::error!("LEAK-SUSPECT workspace_id={id} instance={box_name} caller={caller} attempts=3");
        Stopped::No
    }
}

/// How a stop with retries ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    Yes,
    No,
    Cancelled,
}

/// What becomes of a job's row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum JobEnd {
    Done,
    /// With a safe sentence.
    Failed(String),
    /// This process shuts down: another one does it.
    Released,
    /// The database was away: the job is taken up again, as a crashed one, when its lease ends.
    Interrupted,
}

impl From<RunEnd> for JobEnd {
    fn from(end: RunEnd) -> Self {
        match end {
            RunEnd::Started | RunEnd::LostRow => Self::Done,
            RunEnd::Failed(failure) => Self::Failed(failure.text()),
            RunEnd::Interrupted => Self::Interrupted,
        }
    }
}

fn interrupted(error: &mws_db::Error) -> JobEnd {
    tracing::error!(error = error as &dyn std::error::Error, "job interrupted");
    JobEnd::Interrupted
}
