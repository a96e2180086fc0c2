//! The Docker backend: each agent is a container on an engine beside the server, spoken to over the Engine API.

mod engine;
mod host;
mod limits;
mod ports;
mod request;
mod start;
#[cfg(test)]
pub(crate) mod testing;

use std::error::Error;
use std::io::Read;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use mws_models::WorkspaceId;
use tokio::sync::Mutex;

use self::engine::{Engine, Filters, within};
pub use self::limits::{LimitOverride, LimitOverrides};
use crate::backend::{BackendKind, InstanceFiles, Liveness, Provisioner, StopMode};
use crate::error::{EngineError, FileError, ListError, StartError, StopError, StorageError};
use crate::labels;
use crate::names::{
    NAME_PREFIX, configs_volume, container_name, sessions_volume, short_id_of, workspace_volume,
};
use crate::spec::{InstanceRef, StartSpec, Started};

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
const DEFAULT_NETWORK: &str = "molecule-monorepo-net";
/// The oldest Engine API that has all we use.
const OLDEST_API: (usize, usize) = (1, 41);
/// 2.R6.
const PING: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(5);
/// 2.R54, in bytes.
const MAX_READ: usize = 10 * 1024 * 1024;
/// Headers and padding around one file in a tar archive.
const TAR_OVERHEAD: usize = 64 * 1024;

/// How to reach the engine and what to call things on it.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// `unix://…` or `tcp://…`; `None` for `unix:///var/run/docker.sock`.
    pub docker_host: Option<String>,
    /// The network that agents share (2.R27).
    pub network: String,
    /// Marks what belongs to this installation, so that several can share an engine (2.R26).
    pub instance: Option<String>,
    /// Replaces limits of tiers (2.R40).
    pub limits: LimitOverrides,
    /// Whether the server runs in a container of the engine; `None` to find out (2.R31).
    pub in_container: Option<bool>,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            docker_host: None,
            network: DEFAULT_NETWORK.to_owned(),
            instance: None,
            limits: LimitOverrides::default(),
            in_container: None,
        }
    }
}

/// Why there is no usable engine.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers, or not in time.
    #[error("no container engine answers")]
    Unreachable(#[source] EngineError),
    /// The engine's API is older than 1.41.
    #[error("the container engine is too old: its API is {major}.{minor}, 1.41 is needed")]
    TooOld {
        /// Before the dot.
        major: usize,
        /// After the dot.
        minor: usize,
    },
}

/// What [`DockerBackend::purge_instance`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Containers, running or not.
    pub containers: usize,
    /// Named volumes.
    pub volumes: usize,
    /// Networks.
    pub networks: usize,
}

/// Agents as containers on one engine.
pub struct DockerBackend {
    engine: Engine,
    config: DockerConfig,
    engine_cpus: Option<i64>,
    in_container: bool,
    network_gate: Mutex<()>,
}

impl DockerBackend {
    /// Connects, agrees on an API version and learns what the engine has. May be dropped at any point.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]. Answers within about 20 seconds, and within 2 when nothing is there.
    pub async fn connect(config: DockerConfig) -> Result<Self, ConnectError> {
        let host = config.docker_host.as_deref().map(str::trim).filter(|host| !host.is_empty());
        let client = Docker::connect_with_host(host.unwrap_or(DEFAULT_HOST))
            .map_err(|error| ConnectError::Unreachable(EngineError::new("connect", None, error)))?;
        within("ping", PING, client.ping()).await.map_err(ConnectError::Unreachable)?;
        let client = within("negotiate the API version", HANDSHAKE, client.negotiate_version())
            .await
            .map_err(ConnectError::Unreachable)?;
        let version = client.client_version();
        if (version.major_version, version.minor_version) < OLDEST_API {
            return Err(ConnectError::TooOld { major: version.major_version, minor: version.minor_version });
        }
        let info =
            within("describe itself", HANDSHAKE, client.info()).await.map_err(ConnectError::Unreachable)?;

        let engine = Engine::new(client);
        let in_container = match config.in_container {
            Some(told) => told,
            None => host::runs_in_container_of(&engine).await,
        };
        Ok(Self { engine, config, engine_cpus: info.ncpu, in_container, network_gate: Mutex::new(()) })
    }

    /// Removes every container, volume and network that carries the mark of installation `instance`, and nothing
    /// else. For clean-up after a demo or a test. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// The first failure; what could be removed is removed all the same.
    pub async fn purge_instance(&self, instance: &str) -> Result<Purged, EngineError> {
        let marks = vec![format!("{}=true", labels::MANAGED), format!("{}={instance}", labels::INSTANCE)];
        let filters = Filters::from([("label", marks)]);
        let mut purged = Purged::default();
        let mut failure = Ok(());
        for container in self.engine.containers(&filters, false).await? {
            if let Some(id) = container.id {
                note(&mut failure, &mut purged.containers, self.engine.force_remove(&id).await);
            }
        }
        for volume in self.engine.volumes(&filters).await? {
            note(&mut failure, &mut purged.volumes, self.engine.remove_volume(&volume).await);
        }
        for network in self.engine.networks(&filters).await? {
            note(&mut failure, &mut purged.networks, self.engine.remove_network(&network.id).await);
        }
        failure.map(|()| purged)
    }

    fn instance(&self) -> Option<&str> {
        self.config.instance.as_deref()
    }

    fn is_ours(&self, found: &ContainerInspectResponse, id: WorkspaceId) -> bool {
        found
            .config
            .as_ref()
            .and_then(|config| config.labels.as_ref())
            .is_some_and(|labels| labels::is_ours(labels, id, self.instance()))
    }

    async fn stop_agent(&self, id: WorkspaceId, how: StopMode) -> Result<(), EngineError> {
        let name = container_name(id);
        let Some(found) = self.engine.inspect(&name).await? else {
            return Ok(());
        };
        if !self.is_ours(&found, id) {
            tracing::warn!(workspace_id = %id, "a container of this name is not ours, nothing to stop");
            return Ok(());
        }
        if how == StopMode::Graceful {
            // The removal below decides; these two only give the agent its grace.
            for step in [self.engine.forbid_restarts(&name).await, self.engine.stop(&name).await] {
                if let Err(error) = step
                    && !error.is(404)
                {
                    tracing::warn!(workspace_id = %id, error = &error as &dyn Error, "graceful stop");
                }
            }
        }
        self.engine.force_remove(&name).await
    }

    async fn short_ids(&self, filters: Filters) -> Result<Vec<String>, ListError> {
        Ok(short_ids_of(&self.engine.containers(&filters, false).await?))
    }
}

fn note(failure: &mut Result<(), EngineError>, done: &mut usize, outcome: Result<(), EngineError>) {
    match outcome {
        Ok(()) => *done += 1,
        Err(error) if failure.is_ok() => *failure = Err(error),
        Err(error) => tracing::warn!(error = &error as &dyn Error, "clean-up"),
    }
}

fn short_ids_of(containers: &[ContainerSummary]) -> Vec<String> {
    containers
        .iter()
        .filter_map(|container| container.names.as_ref()?.iter().find_map(|name| short_id_of(name)))
        .map(str::to_owned)
        .collect()
}

#[async_trait]
impl Provisioner for DockerBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Docker
    }

    fn in_container(&self) -> bool {
        self.in_container
    }

    async fn start(&self, spec: StartSpec) -> Result<Started, StartError> {
        self.start_agent(&spec).await
    }

    async fn stop(&self, instance: &InstanceRef, how: StopMode) -> Result<(), StopError> {
        Ok(self.stop_agent(instance.workspace_id, how).await?)
    }

    async fn liveness(&self, instance: &InstanceRef) -> Liveness {
        match self.engine.inspect(&container_name(instance.workspace_id)).await {
            Err(error) => Liveness::Unknown(error),
            Ok(Some(found)) if is_running(&found) => Liveness::Running,
            Ok(_) => Liveness::NotRunning,
        }
    }

    async fn running_instance(&self, instance: &InstanceRef) -> Result<Option<Started>, ListError> {
        let id = instance.workspace_id;
        match self.engine.inspect(&container_name(id)).await? {
            Some(found) if is_running(&found) && self.is_ours(&found, id) => {
                Ok(Some(self.describe(id, &found).await))
            }
            _ => Ok(None),
        }
    }

    async fn remove_storage(&self, instance: &InstanceRef) -> Result<(), StorageError> {
        let id = instance.workspace_id;
        let mut failure = Ok(());
        let mut removed = 0;
        for volume in [configs_volume(id), sessions_volume(id), workspace_volume(id)] {
            note(&mut failure, &mut removed, self.engine.remove_volume(&volume).await);
        }
        Ok(failure?)
    }

    async fn list_managed(&self) -> Result<Vec<String>, ListError> {
        let mut marks = vec![format!("{}=true", labels::MANAGED)];
        if let Some(instance) = self.instance() {
            marks.push(format!("{}={instance}", labels::INSTANCE));
        }
        self.short_ids(Filters::from([("label", marks)])).await
    }

    async fn list_by_name_prefix(&self) -> Result<Vec<String>, ListError> {
        self.short_ids(Filters::from([("name", vec![NAME_PREFIX.to_owned()])])).await
    }

    fn files(&self) -> Option<&dyn InstanceFiles> {
        Some(self)
    }
}

fn is_running(found: &ContainerInspectResponse) -> bool {
    found.state.as_ref().and_then(|state| state.running).unwrap_or(false)
}

#[async_trait]
impl InstanceFiles for DockerBackend {
    async fn has_file(&self, instance: &InstanceRef, path: &str) -> Result<bool, EngineError> {
        self.engine.has_file(&container_name(instance.workspace_id), path).await
    }

    async fn read_file(&self, instance: &InstanceRef, path: &str) -> Result<Vec<u8>, FileError> {
        let name = container_name(instance.workspace_id);
        let archive = self.engine.archive_of(&name, path, MAX_READ + TAR_OVERHEAD).await?;
        only_file(&archive)
    }
}

/// The contents of an archive that holds one regular file.
fn only_file(archive: &[u8]) -> Result<Vec<u8>, FileError> {
    let unreadable = |error: std::io::Error| FileError::Engine(EngineError::new("read a file", None, error));
    let mut archive = tar::Archive::new(archive);
    let Some(entry) = archive.entries().map_err(unreadable)?.next() else {
        return Err(FileError::NotFound);
    };
    let mut entry = entry.map_err(unreadable)?;
    if !entry.header().entry_type().is_file() {
        return Err(FileError::NotAFile);
    }
    if entry.size() > MAX_READ as u64 {
        return Err(FileError::TooLarge);
    }
    let mut contents = Vec::new();
    entry.read_to_end(&mut contents).map_err(unreadable)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> ContainerSummary {
        ContainerSummary {
            names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn the_engines_substring_filter_is_rechecked() {
        // 2.R56, 2.R57
        let containers = [
            listed(&["/ws-eeb99b5d-607"]),
            listed(&["/my-ws-eeb99b5d-607"]),
            listed(&["/ws-%"]),
            listed(&[]),
        ];
        assert_eq!(short_ids_of(&containers), ["eeb99b5d-607"]);
    }

    #[test]
    fn an_archive_of_a_folder_is_not_a_file() {
        // 2.R54
        let archive = |kind, data: &[u8]| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, "x", data).unwrap();
            builder.into_inner().unwrap()
        };
        assert_eq!(only_file(&archive(tar::EntryType::Regular, b"hello")).unwrap(), b"hello");
        assert!(matches!(only_file(&archive(tar::EntryType::Directory, b"")), Err(FileError::NotAFile)));
        assert!(matches!(only_file(&archive(tar::EntryType::Symlink, b"")), Err(FileError::NotAFile)));
        assert!(matches!(only_file(b""), Err(FileError::NotFound)));
    }

    #[tokio::test]
    async fn no_engine_is_an_error_within_its_deadline() {
        // 2.R6
        let nowhere = DockerConfig {
            docker_host: Some("unix:///nonexistent/docker.sock".into()),
            ..DockerConfig::default()
        };
        assert!(matches!(DockerBackend::connect(nowhere).await, Err(ConnectError::Unreachable(_))));

        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("tcp://{}", silent.local_addr().unwrap());
        let silent_engine = DockerConfig { docker_host: Some(host), ..DockerConfig::default() };
        let begun = tokio::time::Instant::now();
        assert!(matches!(DockerBackend::connect(silent_engine).await, Err(ConnectError::Unreachable(_))));
        assert!(begun.elapsed() < PING + Duration::from_secs(2));
    }
}
