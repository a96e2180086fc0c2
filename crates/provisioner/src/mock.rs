//! An in-memory backend with the behaviour of the real ones, and knobs to make it fail.
//!
//! The suite that the Docker backend passes runs against it too, so that tests of the crates above may trust it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mws_models::WorkspaceId;

use crate::backend::{BackendKind, InstanceFiles, Liveness, Provisioner, StopMode};
use crate::config_files::FileSet;
use crate::environment::CONFIGS_PATH;
use crate::error::{EngineError, FileError, ListError, StartError, StopError, StorageError};
use crate::names::internal_url;
use crate::spec::{InstanceRef, StartSpec, Started};

/// One call that the backend received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// [`Provisioner::start`].
    Start(WorkspaceId),
    /// [`Provisioner::stop`].
    Stop(WorkspaceId, StopMode),
    /// [`Provisioner::liveness`].
    Liveness(WorkspaceId),
    /// [`Provisioner::running_instance`].
    RunningInstance(WorkspaceId),
    /// [`Provisioner::remove_storage`].
    RemoveStorage(WorkspaceId),
    /// [`Provisioner::list_managed`] or [`Provisioner::list_by_name_prefix`].
    List,
}

/// What a start can be made to fail with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// [`StartError::ImageMissing`].
    ImageMissing,
    /// [`StartError::NameTaken`].
    NameTaken,
    /// [`StartError::HostPortTaken`].
    HostPortTaken,
    /// [`StartError::ConfigMissing`].
    ConfigMissing,
    /// [`StartError::Engine`].
    Engine,
    /// No error: the call panics.
    Panic,
}

/// What a liveness check can be made to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LivenessAnswer {
    /// [`Liveness::Running`].
    Running,
    /// [`Liveness::NotRunning`].
    NotRunning,
    /// [`Liveness::Unknown`].
    Unknown,
}

type OnStart = Box<dyn Fn(&StartSpec) -> Option<String> + Send + Sync>;

/// Agents in memory.
#[derive(Default)]
pub struct MockProvisioner {
    state: Mutex<State>,
    on_start: Option<OnStart>,
}

#[derive(Default)]
struct State {
    instances: HashMap<WorkspaceId, Instance>,
    volumes: HashMap<WorkspaceId, BTreeMap<String, Vec<u8>>>,
    calls: Vec<Call>,
    start_failures: Vec<StartFailure>,
    failing_stops: usize,
    failing_storage: usize,
    failing_lists: usize,
    liveness: HashMap<WorkspaceId, LivenessAnswer>,
    start_delay: Duration,
    missing_images: Vec<String>,
}

struct Instance {
    running: bool,
    /// `None` for a container that is not ours.
    started: Option<(Box<StartSpec>, Started)>,
}

fn failure(operation: &'static str) -> EngineError {
    EngineError::new(operation, Some(500), "the test asked for a failure")
}

fn take(count: &mut usize) -> bool {
    let left = *count > 0;
    *count = count.saturating_sub(1);
    left
}

impl MockProvisioner {
    /// No agents, nothing fails.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Called in each start that succeeds; what it answers is the host URL. Lets a test serve the agent itself.
    #[must_use]
    pub fn on_start(mut self, hook: impl Fn(&StartSpec) -> Option<String> + Send + Sync + 'static) -> Self {
        self.on_start = Some(Box::new(hook));
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next starts fail, one by one, with these.
    pub fn fail_starts(&self, failures: impl IntoIterator<Item = StartFailure>) {
        self.state().start_failures.extend(failures);
    }

    /// The next `count` stops fail.
    pub fn fail_stops(&self, count: usize) {
        self.state().failing_stops = count;
    }

    /// The next `count` removals of storage fail.
    pub fn fail_storage(&self, count: usize) {
        self.state().failing_storage = count;
    }

    /// The next `count` listings and lookups fail.
    pub fn fail_lists(&self, count: usize) {
        self.state().failing_lists = count;
    }

    /// Every start takes this long.
    pub fn set_start_delay(&self, delay: Duration) {
        self.state().start_delay = delay;
    }

    /// Starts with this image fail as on an engine that does not have it.
    pub fn forget_image(&self, reference: &str) {
        self.state().missing_images.push(reference.to_owned());
    }

    /// What liveness checks answer, whatever is the case; `None` for the truth.
    pub fn set_liveness(&self, id: WorkspaceId, answer: Option<LivenessAnswer>) {
        let mut state = self.state();
        match answer {
            Some(answer) => state.liveness.insert(id, answer),
            None => state.liveness.remove(&id),
        };
    }

    /// The agent exits by itself and is not revived.
    pub fn crash(&self, id: WorkspaceId) {
        if let Some(instance) = self.state().instances.get_mut(&id) {
            instance.running = false;
        }
    }

    /// Puts a container that is not ours under the workspace's name.
    pub fn plant_foreign(&self, id: WorkspaceId) {
        self.state().instances.insert(id, Instance { running: true, started: None });
    }

    /// All calls so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// What the agent that now exists was started with.
    #[must_use]
    pub fn spec_of(&self, id: WorkspaceId) -> Option<StartSpec> {
        let state = self.state();
        state.instances.get(&id)?.started.as_ref().map(|(spec, _)| (**spec).clone())
    }

    /// Whether the workspace has storage.
    #[must_use]
    pub fn has_storage(&self, id: WorkspaceId) -> bool {
        self.state().volumes.contains_key(&id)
    }

    fn begin_start(&self, spec: &StartSpec) -> Result<Duration, StartError> {
        let mut files = FileSet::default();
        files.add_files(&spec.config.files);
        files.add_credentials(&spec.credentials);
        files.check()?;

        let mut state = self.state();
        state.calls.push(Call::Start(spec.workspace_id));
        if spec.cancel.is_cancelled() {
            return Err(StartError::Cancelled);
        }
        let image_missing = || StartError::ImageMissing {
            reference: spec.image.clone(),
            source: failure("create a container"),
        };
        if !state.start_failures.is_empty() {
            return Err(match state.start_failures.remove(0) {
                StartFailure::ImageMissing => image_missing(),
                StartFailure::NameTaken => StartError::NameTaken,
                StartFailure::HostPortTaken => StartError::HostPortTaken,
                StartFailure::ConfigMissing => StartError::ConfigMissing,
                StartFailure::Engine => StartError::Engine(failure("start a container")),
                #[expect(clippy::panic, reason = "it is what the test asked for")]
                StartFailure::Panic => panic!("the test asked for a panic"),
            });
        }
        if state.instances.get(&spec.workspace_id).is_some_and(|instance| instance.started.is_none()) {
            return Err(StartError::NameTaken);
        }
        state.instances.remove(&spec.workspace_id);
        if state.missing_images.contains(&spec.image) {
            return Err(image_missing());
        }
        Ok(state.start_delay)
    }

    fn finish_start(&self, spec: StartSpec) -> Result<Started, StartError> {
        let id = spec.workspace_id;
        {
            let mut state = self.state();
            let volume = state.volumes.entry(id).or_default();
            let mut files = FileSet::default();
            files.add_files(&spec.config.files);
            if !files.has_config() && !volume.contains_key(crate::config_files::CONFIG_YAML) {
                if spec.config.recovery.is_empty() {
                    return Err(StartError::ConfigMissing);
                }
                files = FileSet::default();
                files.add_files(&spec.config.recovery);
                files.add_files(&spec.config.files);
            }
            files.add_credentials(&spec.credentials);
            for (path, contents) in files.iter() {
                volume.insert(path.to_owned(), contents.to_vec());
            }
        }
        let host_url = self.on_start.as_ref().and_then(|hook| hook(&spec));
        let started = Started {
            host_url: Some(host_url.unwrap_or_else(|| internal_url(id))),
            internal_url: Some(internal_url(id)),
            instance_id: None,
            image_digest: Some(format!("sha256:{}", "0".repeat(64))),
        };
        let instance = Instance { running: true, started: Some((Box::new(spec), started.clone())) };
        self.state().instances.insert(id, instance);
        Ok(started)
    }

    fn list(&self) -> Result<Vec<(WorkspaceId, bool)>, ListError> {
        let mut state = self.state();
        state.calls.push(Call::List);
        if take(&mut state.failing_lists) {
            return Err(failure("list containers").into());
        }
        Ok(state.instances.iter().map(|(id, instance)| (*id, instance.started.is_some())).collect())
    }

    fn file(&self, instance: &InstanceRef, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.instances.get(&instance.workspace_id)?;
        let path = path.strip_prefix(CONFIGS_PATH)?.strip_prefix('/')?;
        state.volumes.get(&instance.workspace_id)?.get(path).cloned()
    }
}

#[async_trait]
impl Provisioner for MockProvisioner {
    fn kind(&self) -> BackendKind {
        BackendKind::Mock
    }

    async fn start(&self, spec: StartSpec) -> Result<Started, StartError> {
        let delay = self.begin_start(&spec)?;
        if spec.cancel.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            return Err(StartError::Cancelled);
        }
        self.finish_start(spec)
    }

    async fn stop(&self, instance: &InstanceRef, how: StopMode) -> Result<(), StopError> {
        let mut state = self.state();
        state.calls.push(Call::Stop(instance.workspace_id, how));
        if take(&mut state.failing_stops) {
            return Err(failure("remove a container").into());
        }
        let ours = state.instances.get(&instance.workspace_id).is_some_and(|found| found.started.is_some());
        if ours {
            state.instances.remove(&instance.workspace_id);
        }
        Ok(())
    }

    async fn liveness(&self, instance: &InstanceRef) -> Liveness {
        let mut state = self.state();
        state.calls.push(Call::Liveness(instance.workspace_id));
        let truth = state.instances.get(&instance.workspace_id).is_some_and(|found| found.running);
        match state.liveness.get(&instance.workspace_id) {
            Some(LivenessAnswer::Unknown) => Liveness::Unknown(failure("inspect a container")),
            Some(LivenessAnswer::Running) => Liveness::Running,
            Some(LivenessAnswer::NotRunning) => Liveness::NotRunning,
            None if truth => Liveness::Running,
            None => Liveness::NotRunning,
        }
    }

    async fn running_instance(&self, instance: &InstanceRef) -> Result<Option<Started>, ListError> {
        let mut state = self.state();
        state.calls.push(Call::RunningInstance(instance.workspace_id));
        if take(&mut state.failing_lists) {
            return Err(failure("inspect a container").into());
        }
        let found = state.instances.get(&instance.workspace_id).filter(|found| found.running);
        Ok(found.and_then(|found| found.started.as_ref()).map(|(_, started)| started.clone()))
    }

    async fn remove_storage(&self, instance: &InstanceRef) -> Result<(), StorageError> {
        let mut state = self.state();
        state.calls.push(Call::RemoveStorage(instance.workspace_id));
        if take(&mut state.failing_storage) {
            return Err(failure("remove a volume").into());
        }
        let in_use = state.instances.get(&instance.workspace_id).is_some_and(|found| found.started.is_some());
        if in_use {
            return Err(EngineError::new("remove a volume", Some(409), "volume is in use").into());
        }
        state.volumes.remove(&instance.workspace_id);
        Ok(())
    }

    async fn list_managed(&self) -> Result<Vec<String>, ListError> {
        Ok(self.list()?.into_iter().filter(|(_, ours)| *ours).map(|(id, _)| id.short()).collect())
    }

    async fn list_by_name_prefix(&self) -> Result<Vec<String>, ListError> {
        Ok(self.list()?.into_iter().map(|(id, _)| id.short()).collect())
    }

    fn files(&self) -> Option<&dyn InstanceFiles> {
        Some(self)
    }
}

#[async_trait]
impl InstanceFiles for MockProvisioner {
    async fn has_file(&self, instance: &InstanceRef, path: &str) -> Result<bool, EngineError> {
        Ok(self.file(instance, path).is_some())
    }

    async fn read_file(&self, instance: &InstanceRef, path: &str) -> Result<Vec<u8>, FileError> {
        self.file(instance, path).ok_or(FileError::NotFound)
    }
}
