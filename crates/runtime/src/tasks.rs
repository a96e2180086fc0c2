//! The supervised spawner: the only place that starts tasks.
//!
//! Two kinds of work run beside the requests. *Detached* work was set off by a request and must outlive it: a
//! client that hangs up cancels none of it (4.R9). *Supervised* tasks run as long as the process does and are
//! restarted when they fail (1.R158, 3.R60).

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::shutdown::Shutdown;

/// The delay before the first restart (1.R158).
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay between two restarts (1.R158).
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Running this long counts as normal: the next delay is the first one again (1.R158).
const NORMAL_RUN: Duration = Duration::from_secs(60);
/// The longest error text that is kept for operators, in bytes.
const ERROR_TEXT_MAX: usize = 300;

/// Starts, names, tracks and drains tasks. Cheap to clone.
#[derive(Clone)]
pub struct Spawner(Arc<Inner>);

struct Inner {
    shutdown: Shutdown,
    tracker: TaskTracker,
    supervised: Mutex<Vec<SupervisedStatus>>,
    on_failure: OnceLock<FailureHook>,
}

type FailureHook = Box<dyn Fn(&SupervisedStatus) + Send + Sync>;

/// How a supervised task has fared in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisedStatus {
    /// The name it was started under.
    pub name: &'static str,
    /// How often it ended without being asked to, and was or will be started again.
    pub restarts: u64,
    /// Why it last ended: the error's own text, without its sources, or one of `panicked` and
    /// `ended unexpectedly`. It may be shown to an operator.
    pub last_error: Option<String>,
    /// False while it waits for its restart, and after the shutdown.
    pub running: bool,
}

/// Detached work that gave no result: it panicked, or the runtime ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {name} did not finish")]
pub struct TaskFailed {
    /// The name of the task.
    pub name: &'static str,
}

/// The result of detached work, to be awaited or dropped; dropping it does not stop the work.
#[derive(Debug)]
#[must_use = "dropping the handle leaves the work running; say so with `.detach()`"]
pub struct TaskHandle<T> {
    name: &'static str,
    result: oneshot::Receiver<T>,
}

impl<T> TaskHandle<T> {
    /// Lets the work run on without anybody waiting for it.
    pub fn detach(self) {}
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.result).poll(context).map_err(|_| TaskFailed { name })
    }
}

impl Spawner {
    /// A spawner whose supervised tasks end when `shutdown` is triggered.
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Self {
        Self(Arc::new(Inner {
            shutdown,
            tracker: TaskTracker::new(),
            supervised: Mutex::default(),
            on_failure: OnceLock::new(),
        }))
    }

    /// The token that ends the supervised tasks.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// Runs `work` apart from the caller, under the caller's tracing span. A panic in it is caught and logged.
    /// It is never cancelled; give it its own deadlines. Must be called inside a tokio runtime.
    pub fn spawn<T, F>(&self, name: &'static str, work: F) -> TaskHandle<T>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let (send, result) = oneshot::channel();
        let span = tracing::info_span!("task", task = name);
        let run = async move {
            match AssertUnwindSafe(work).catch_unwind().await {
                // An error means that nobody waits for the result.
                Ok(value) => drop(send.send(value)),
                Err(panic) => tracing::error!(panic = panic_text(&*panic), "task panicked"),
            }
        };
        self.0.tracker.spawn(run.instrument(span));
        TaskHandle { name, result }
    }

    /// Keeps a task running until shutdown: whenever what `factory` makes panics, fails or ends, it is logged and
    /// made anew after 1 s, doubling to 30 s, back to 1 s after 60 s of normal running (1.R158, 3.R60).
    ///
    /// At shutdown the task is not cancelled: it has its token, and is expected to end by it within the drain.
    /// The error's `Display` must be fit for an operator's eyes; its sources go to the log alone.
    pub fn supervise<E, F, Fut>(&self, name: &'static str, factory: F)
    where
        F: Fn(Shutdown) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + 'static,
    {
        let index = {
            let mut all = self.supervised_lock();
            all.push(SupervisedStatus { name, restarts: 0, last_error: None, running: true });
            all.len() - 1
        };
        let spawner = self.clone();
        let run = async move { spawner.keep_running(index, factory).await };
        self.0.tracker.spawn(run.instrument(tracing::info_span!(parent: None, "task", task = name)));
    }

    /// Calls `hook` after each failure of a supervised task, before its restart, so that it can be recorded
    /// elsewhere. It must not block. Only the first hook counts.
    pub fn on_failure(&self, hook: impl Fn(&SupervisedStatus) + Send + Sync + 'static) {
        if self.0.on_failure.set(Box::new(hook)).is_err() {
            tracing::warn!("a second failure hook was ignored");
        }
    }

    /// How the supervised tasks of this process fare, in the order of their start.
    #[must_use]
    pub fn supervised(&self) -> Vec<SupervisedStatus> {
        self.supervised_lock().clone()
    }

    /// How many tasks are running or waiting for their restart.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.tracker.len()
    }

    /// Waits until no task is left, for at most `deadline`; says whether that was reached. Trigger the shutdown
    /// first, or supervised tasks will use up the deadline. Work that is spawned meanwhile is waited for, too.
    /// May be cancelled and called again.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.0.tracker.close();
        let drained = tokio::time::timeout(deadline, self.0.tracker.wait()).await.is_ok();
        if !drained {
            tracing::warn!(left = self.running(), "tasks did not end within the drain");
        }
        drained
    }

    async fn keep_running<E, F, Fut>(&self, index: usize, factory: F)
    where
        F: Fn(Shutdown) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Error,
    {
        let shutdown = &self.0.shutdown;
        let mut delay = FIRST_DELAY;
        while !shutdown.is_cancelled() {
            self.update(index, |status| status.running = true);
            let started = Instant::now();
            // The factory runs inside, so that a panic while making the future is caught as well.
            let attempt = async { factory(shutdown.clone()).await };
            let outcome = AssertUnwindSafe(attempt).catch_unwind().await;
            let reason = match outcome {
                Ok(Ok(())) if shutdown.is_cancelled() => break,
                Ok(Ok(())) => {
                    tracing::error!("supervised task ended unexpectedly");
                    "ended unexpectedly".to_owned()
                }
                Ok(Err(error)) => {
                    tracing::error!(error = %Chain(&error), "supervised task failed");
                    shortened(&error.to_string())
                }
                Err(panic) => {
                    tracing::error!(panic = panic_text(&*panic), "supervised task panicked");
                    "panicked".to_owned()
                }
            };
            let status = self.update(index, |status| {
                status.running = false;
                status.last_error = Some(reason);
                status.restarts += u64::from(!shutdown.is_cancelled());
            });
            self.report(status);
            if started.elapsed() >= NORMAL_RUN {
                delay = FIRST_DELAY;
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(delay) => {}
            }
            delay = (delay * 2).min(LONGEST_DELAY);
        }
        self.update(index, |status| status.running = false);
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut SupervisedStatus)) -> Option<SupervisedStatus> {
        let mut all = self.supervised_lock();
        let status = all.get_mut(index)?;
        change(status);
        Some(status.clone())
    }

    fn report(&self, status: Option<SupervisedStatus>) {
        let (Some(hook), Some(status)) = (self.0.on_failure.get(), status) else { return };
        // A broken hook must not end the task that it reports about.
        if std::panic::catch_unwind(AssertUnwindSafe(|| hook(&status))).is_err() {
            tracing::error!("the failure hook panicked");
        }
    }

    fn supervised_lock(&self) -> std::sync::MutexGuard<'_, Vec<SupervisedStatus>> {
        self.0.supervised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").field("running", &self.running()).finish_non_exhaustive()
    }
}

/// An error with its sources, for the log.
struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}

fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(ERROR_TEXT_MAX);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the tick failed")]
    struct Failed(#[source] std::io::Error);

    fn failed() -> Failed {
        Failed(std::io::Error::other("password authentication failed for host db.internal"))
    }

    fn spawner() -> Spawner {
        Spawner::new(Shutdown::new())
    }

    // 4.R9
    #[tokio::test]
    async fn dropping_the_handle_does_not_cancel_the_work() {
        let spawner = spawner();
        let (go, wait) = oneshot::channel::<()>();
        let (done, ran) = oneshot::channel();
        spawner
            .spawn("log", async move {
                wait.await.unwrap();
                done.send(()).unwrap();
            })
            .detach();
        go.send(()).unwrap();
        ran.await.unwrap();
        assert!(spawner.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_result_comes_back_through_the_handle_and_a_panic_as_an_error() {
        let spawner = spawner();
        assert_eq!(spawner.spawn("sum", async { 1 + 1 }).await, Ok(2));
        let handle = spawner.spawn("boom", async { panic!("boom") });
        let result: Result<(), _> = handle.await;
        assert_eq!(result, Err(TaskFailed { name: "boom" }));
        assert_eq!(spawner.spawn("still alive", async { 3 }).await, Ok(3));
    }

    // 4.R9
    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_detached_work_but_not_beyond_its_deadline() {
        let spawner = spawner();
        spawner.spawn("slow", tokio::time::sleep(Duration::from_secs(20))).detach();
        assert!(!spawner.drain(Duration::from_secs(10)).await);
        assert!(spawner.drain(Duration::from_secs(30)).await);
        assert_eq!(spawner.running(), 0);
    }

    /// The pauses between the starts of a task of which each run takes `runs[n]` and then ends by `end`.
    async fn pauses(runs: Vec<u64>, end: fn() -> Result<(), Failed>) -> Vec<u64> {
        let spawner = spawner();
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let (length, attempt) = (runs.len(), Arc::new(AtomicU32::new(0)));
        let lasting = runs.clone();
        spawner.supervise("loop", move |shutdown| {
            started.send(Instant::now()).unwrap();
            let n = attempt.fetch_add(1, Ordering::Relaxed) as usize;
            let run = lasting.get(n).copied();
            async move {
                match run {
                    Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                    None => {
                        shutdown.cancelled().await;
                        return Ok(());
                    }
                }
                end()
            }
        });
        let mut pauses = Vec::new();
        let mut last = starts.recv().await.unwrap();
        for run in &runs {
            let next = starts.recv().await.unwrap();
            pauses.push((next - last).as_secs() - run);
            last = next;
        }
        assert_eq!(spawner.supervised()[0].restarts, length as u64);
        spawner.shutdown().trigger();
        assert!(spawner.drain(Duration::from_secs(1)).await);
        assert!(!spawner.supervised()[0].running);
        pauses
    }

    // 1.R158, 3.R60
    #[tokio::test(start_paused = true)]
    async fn restarts_wait_one_second_doubling_to_thirty_and_start_over_after_a_minute_of_running() {
        let expected = [1, 2, 4, 8, 16, 30, 30, 1, 2];
        for end in [|| Err(failed()), || Ok(()), || panic!("boom")] as [fn() -> Result<(), Failed>; 3] {
            assert_eq!(pauses(vec![0, 0, 0, 59, 0, 0, 0, 60, 0], end).await, expected);
        }
    }

    // 3.R60, 3.R66
    #[tokio::test(start_paused = true)]
    async fn the_status_counts_restarts_and_tells_nothing_of_an_errors_sources() {
        let spawner = spawner();
        let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
        spawner.on_failure(move |status| report.send(status.clone()).unwrap());
        let attempt = AtomicU32::new(0);
        spawner.supervise("sweep", move |shutdown| {
            let n = attempt.fetch_add(1, Ordering::Relaxed);
            assert!(n != 1, "the factory itself may panic");
            async move {
                match n {
                    0 => Err(failed()),
                    2 => Ok(()),
                    _ => {
                        shutdown.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        for (restarts, error) in [(1, "the tick failed"), (2, "panicked"), (3, "ended unexpectedly")] {
            let status = reports.recv().await.unwrap();
            let last_error = Some(error.to_owned());
            assert_eq!(status, SupervisedStatus { name: "sweep", restarts, last_error, running: false });
        }
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert!(spawner.supervised()[0].running);
    }

    // 3.R60
    #[tokio::test(start_paused = true)]
    async fn shutdown_ends_the_wait_for_a_restart_and_one_tasks_failure_leaves_the_others_alone() {
        let spawner = spawner();
        spawner.supervise("broken", |_| async { Err(failed()) });
        spawner.supervise("sound", |shutdown: Shutdown| async move {
            shutdown.cancelled().await;
            Ok::<_, Failed>(())
        });
        tokio::time::sleep(Duration::from_secs(100)).await;
        let status = spawner.supervised();
        assert!(status[0].restarts >= 6);
        assert_eq!((status[1].restarts, status[1].running), (0, true));
        let before = Instant::now();
        spawner.shutdown().trigger();
        assert!(spawner.drain(Duration::from_secs(30)).await);
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[test]
    fn error_texts_are_cut_at_a_character() {
        let text = "é".repeat(400);
        assert_eq!(shortened(&text), "é".repeat(150));
    }
}
