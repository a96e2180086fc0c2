//! The abstraction that every caller holds.

use async_trait::async_trait;

use crate::error::{EngineError, FileError, ListError, StartError, StopError, StorageError};
use crate::spec::{InstanceRef, StartSpec, Started};

/// Which implementation is behind a [`Provisioner`]. For logs and answers; no caller branches on it to choose
/// behaviour that the trait has a method for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// Containers on an engine beside the server.
    Docker,
    /// Cloud boxes made by the control plane.
    ControlPlane,
    /// In memory, for tests.
    Mock,
}

impl BackendKind {
    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::ControlPlane => "controlplane",
            Self::Mock => "mock",
        }
    }
}

/// How an agent is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopMode {
    /// SIGTERM, 10 seconds of grace, then removal: restart, pause, hibernate.
    Graceful,
    /// Removal at once: delete, collapse, orphans.
    Force,
}

/// Whether an agent runs. Only [`Liveness::NotRunning`] may lead to anything destructive.
#[derive(Debug)]
pub enum Liveness {
    /// The backend says that it runs.
    Running,
    /// The backend says that it does not run, or does not exist.
    NotRunning,
    /// The backend could not tell. Counts as alive; the error is for the log.
    Unknown(EngineError),
}

/// One backend that runs agents.
///
/// Every method has a deadline of its own. Unless its documentation says otherwise, a method's future may be
/// dropped at any point: what was asked of the backend then happens or not, and each method may be called again.
#[async_trait]
pub trait Provisioner: Send + Sync {
    /// Which implementation this is.
    fn kind(&self) -> BackendKind;

    /// Whether the server runs in a container beside its agents, so that loopback host URLs do not reach them
    /// and their internal URLs do (2.R31).
    fn in_container(&self) -> bool {
        false
    }

    /// Starts an agent with its files in place, replacing what was left of an earlier one of the same workspace.
    ///
    /// Must not be dropped half-way: a created but not started container would stay. Use
    /// [`StartSpec::cancel`], which is looked at between the steps. May take minutes on a slow engine.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Nothing of this start is left running.
    async fn start(&self, spec: StartSpec) -> Result<Started, StartError>;

    /// Stops and removes an agent; its storage stays. Success also when there is nothing to stop.
    ///
    /// # Errors
    ///
    /// The agent may still be running.
    async fn stop(&self, instance: &InstanceRef, how: StopMode) -> Result<(), StopError>;

    /// Whether an agent runs.
    async fn liveness(&self, instance: &InstanceRef) -> Liveness;

    /// The addresses of an agent that runs; `None` when there is none of ours or it does not run.
    ///
    /// # Errors
    ///
    /// [`ListError::Unsupported`], or the backend failed and nothing is known.
    async fn running_instance(&self, instance: &InstanceRef) -> Result<Option<Started>, ListError>;

    /// Removes an agent's named storage, never a host folder. Only after [`Provisioner::stop`] succeeded. Absent
    /// storage is success.
    ///
    /// # Errors
    ///
    /// Some storage is still there. The rest was removed.
    async fn remove_storage(&self, instance: &InstanceRef) -> Result<(), StorageError>;

    /// The short ids of all instances that carry the platform's mark, running or not.
    ///
    /// # Errors
    ///
    /// [`ListError::Unsupported`], or the backend failed: never to be read as an empty list.
    async fn list_managed(&self) -> Result<Vec<String>, ListError>;

    /// The short ids of all instances whose name looks like ours, marked or not, running or not.
    ///
    /// # Errors
    ///
    /// As for [`Provisioner::list_managed`].
    async fn list_by_name_prefix(&self) -> Result<Vec<String>, ListError>;

    /// The files of instances, where the backend can reach them.
    fn files(&self) -> Option<&dyn InstanceFiles> {
        None
    }
}

/// The files of an instance, running or stopped. Paths are absolute, as the agent sees them.
#[async_trait]
pub trait InstanceFiles: Send + Sync {
    /// Whether a regular file is there. A missing instance has no files.
    ///
    /// # Errors
    ///
    /// The backend failed: not to be read as "absent".
    async fn has_file(&self, instance: &InstanceRef, path: &str) -> Result<bool, EngineError>;

    /// A regular file's bytes, at most 10 MiB.
    ///
    /// # Errors
    ///
    /// See [`FileError`].
    async fn read_file(&self, instance: &InstanceRef, path: &str) -> Result<Vec<u8>, FileError>;
}
