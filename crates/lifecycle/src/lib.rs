//! The workspace service: every entry point that creates, starts, restarts or removes a workspace calls these
//! functions, whoever asks.
//!
//! Nothing here waits for a container inside a request but [`Lifecycle::delete`]: work is a row of
//! `workspace_jobs`, and [`JobRunner`] carries it out in any process that has a backend.

mod create;
mod environment;
mod failure;
mod fields;
mod inbound;
mod pipeline;
pub mod provider;
mod recover;
mod remove;
mod restart;
mod runner;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mws_db::Db;
use mws_egress::AgentGuard;
use mws_provisioner::{Backends, ImageResolver};
use mws_runtime::tasks::Spawner;
use mws_secrets::KeyRing;
use mws_templates::{KnownRuntimes, ProvisionTimeouts, Templates};
use tokio::sync::Notify;

pub use create::CreateError;
pub use failure::Failure;
pub use inbound::InboundSecret;
pub use remove::{Removal, RemoveError};
pub use restart::Verdict;
pub use runner::{JobRunner, RunnerOptions};

/// What the service is told about its installation.
#[derive(Debug, Clone)]
pub struct LifecycleOptions {
    /// What agents dial.
    pub platform_url: String,
    /// Handed to agents with their namespace.
    pub awareness_url: Option<String>,
    /// Host folder for workspaces that name none.
    pub workspace_dir: Option<PathBuf>,
    /// The control plane is the backend: every workspace is tier 4 (1.R48).
    pub control_plane: bool,
    /// How long `delete` waits for its stops.
    pub teardown_deadline: Duration,
}

/// The parts the service works with.
pub struct Parts {
    pub db: Db,
    pub backends: Arc<Backends>,
    pub images: ImageResolver,
    pub keys: KeyRing,
    pub guard: AgentGuard,
    pub templates: Templates,
    pub runtimes: KnownRuntimes,
    pub timeouts: Arc<ProvisionTimeouts>,
    pub spawner: Spawner,
    pub options: LifecycleOptions,
}

struct Inner {
    parts: Parts,
    /// Wakes the runner of this process: a job was committed.
    job_enqueued: Notify,
    /// Wakes deletes of this process: a job ended.
    job_ended: Notify,
    checks: restart::Checks,
}

/// The workspace service. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

impl Lifecycle {
    /// Builds the service.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                parts,
                job_enqueued: Notify::new(),
                job_ended: Notify::new(),
                checks: restart::Checks::default(),
            }),
        }
    }

    fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    fn db(&self) -> &Db {
        &self.inner.parts.db
    }

    /// Tells this process's runner that a job was committed. Without the hint its poll finds it.
    pub fn job_enqueued(&self) {
        self.inner.job_enqueued.notify_one();
    }

    /// The provisioning limits by runtime, shared with the timeout sweep and the workspace object (1.R31).
    #[must_use]
    pub fn timeouts(&self) -> &Arc<ProvisionTimeouts> {
        &self.parts().timeouts
    }

    /// The backends of this installation.
    #[must_use]
    pub fn backends(&self) -> &Backends {
        &self.parts().backends
    }
}
