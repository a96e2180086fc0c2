//! The start sequence (contract 2 §4.5).

use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use mws_models::{Tier, WorkspaceId};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::engine::Filters;
use super::limits::limits;
use super::request::{HOST_GATEWAY_NAME, Reach, create_request, port_key, uses_sessions, volume_requests};
use super::{DockerBackend, ports};
use crate::config_files::{CONFIG_YAML, FileSet};
use crate::environment::{CONFIGS_PATH, resets_session};
use crate::error::{EngineError, StartError};
use crate::labels;
use crate::names::{AGENT_PORT, container_name, internal_url, sessions_volume};
use crate::spec::{StartSpec, Started};

/// How many host ports one start tries.
const PORT_ATTEMPTS: usize = 3;
/// How often, and how far apart, a started container is asked for its port (2.R28).
const PORT_LOOKUPS: u32 = 3;
const PORT_LOOKUP_EVERY: Duration = Duration::from_millis(500);
/// How long the name of a removed container may stay in use (2.R44).
const NAME_FREE_WITHIN: Duration = Duration::from_secs(10);
const NAME_POLL: Duration = Duration::from_millis(200);
/// Before the second look for a configuration in the volume (2.R104).
const CONFIG_RETRY: Duration = Duration::from_millis(500);

/// One attempt's failure.
enum Failed {
    /// The engine failed inside the start, as it does when the host port was taken meanwhile. Its message would
    /// tell that apart, but decides nothing (contract 2 §20.5): another port is tried in either case.
    MaybePortTaken(u16, EngineError),
    Because(StartError),
}

impl From<StartError> for Failed {
    fn from(error: StartError) -> Self {
        Self::Because(error)
    }
}

impl From<EngineError> for Failed {
    fn from(error: EngineError) -> Self {
        Self::Because(error.into())
    }
}

fn go_on(cancel: &CancellationToken) -> Result<(), StartError> {
    if cancel.is_cancelled() { Err(StartError::Cancelled) } else { Ok(()) }
}

impl DockerBackend {
    pub(super) async fn start_agent(&self, spec: &StartSpec) -> Result<Started, StartError> {
        let name = container_name(spec.workspace_id);
        // Before the engine is touched: a set of files that cannot be copied must not cost the old container.
        let mut files = FileSet::default();
        files.add_files(&spec.config.files);
        files.add_credentials(&spec.credentials);
        files.check()?;

        go_on(&spec.cancel)?;
        let network = if spec.tier == Tier::FullHost { None } else { Some(self.ensure_network().await?) };
        self.prepare_volumes(spec).await?;

        go_on(&spec.cancel)?;
        self.remove_leftover(&name, spec.workspace_id).await?;
        if spec.tier == Tier::FullHost {
            self.check_host_port().await?;
        }

        let mut taken = HashSet::new();
        let mut last_error = StartError::HostPortTaken;
        for _ in 0..PORT_ATTEMPTS {
            go_on(&spec.cancel)?;
            let reach = match &network {
                None => Reach::Host,
                Some(network) => {
                    taken.extend(self.published_ports().await?);
                    let host_port = ports::pick(spec.workspace_id, &taken, |port| self.looks_free(port))
                        .ok_or(StartError::HostPortTaken)?;
                    Reach::Published { network, host_port }
                }
            };
            match self.create_fill_start(spec, &name, &reach).await {
                Ok(id) => return self.started(spec, &id).await,
                Err(Failed::Because(error)) => return Err(error),
                Err(Failed::MaybePortTaken(port, error)) => {
                    tracing::info!(
                        workspace_id = %spec.workspace_id,
                        port,
                        error = &error as &dyn Error,
                        "start failed, trying another host port"
                    );
                    taken.insert(port);
                    last_error = error.into();
                }
            }
        }
        Err(last_error)
    }

    /// The id of the platform's network, which is made when it is absent. By id, because the engine accepts two
    /// networks of one name when two processes create it at once, and then finds the name ambiguous.
    async fn ensure_network(&self) -> Result<String, EngineError> {
        let _one_at_a_time = self.network_gate.lock().await;
        if let Some(id) = self.find_network().await? {
            return Ok(id);
        }
        let ours =
            self.engine.create_network(&self.config.network, labels::platform(self.instance())).await?;
        let survivor = self.find_network().await?.unwrap_or_else(|| ours.clone());
        if survivor != ours {
            self.engine.remove_network(&ours).await?;
        }
        Ok(survivor)
    }

    /// The engine's name filter matches substrings; of twins every process takes the same one.
    async fn find_network(&self) -> Result<Option<String>, EngineError> {
        let filters = Filters::from([("name", vec![self.config.network.clone()])]);
        let found = self.engine.networks(&filters).await?;
        Ok(found
            .into_iter()
            .filter(|network| network.name == self.config.network)
            .map(|network| network.id)
            .min())
    }

    async fn prepare_volumes(&self, spec: &StartSpec) -> Result<(), StartError> {
        if uses_sessions(spec) && resets_session(spec) {
            // The old container may still hold the volume.
            self.remove_leftover(&container_name(spec.workspace_id), spec.workspace_id).await?;
            if let Err(error) = self.engine.remove_volume(&sessions_volume(spec.workspace_id)).await {
                tracing::warn!(
                    workspace_id = %spec.workspace_id,
                    error = &error as &dyn Error,
                    "the session volume could not be reset"
                );
            }
        }
        for request in volume_requests(spec, self.instance()) {
            self.engine.create_volume(request).await?;
        }
        Ok(())
    }

    /// Removes a container of this name if it is ours.
    async fn remove_leftover(&self, name: &str, id: WorkspaceId) -> Result<(), StartError> {
        let Some(found) = self.engine.inspect(name).await? else {
            return Ok(());
        };
        if !self.is_ours(&found, id) {
            return Err(StartError::NameTaken);
        }
        Ok(self.engine.force_remove(name).await?)
    }

    /// A second agent on the host's network would fail to listen, and messages for it would reach the first
    /// (2.R42).
    async fn check_host_port(&self) -> Result<(), StartError> {
        let filters =
            Filters::from([("label", vec![format!("{}={}", labels::TIER, Tier::FullHost.number())])]);
        let another = !self.engine.containers(&filters, true).await?.is_empty();
        if another || (!self.in_container && !ports::is_free_everywhere(AGENT_PORT)) {
            return Err(StartError::HostPortTaken);
        }
        Ok(())
    }

    /// In a container, the server's own ports say nothing about the host's.
    fn looks_free(&self, port: u16) -> bool {
        self.in_container || ports::is_free(port)
    }

    async fn published_ports(&self) -> Result<HashSet<u16>, EngineError> {
        let running = self.engine.containers(&Filters::new(), true).await?;
        Ok(running
            .into_iter()
            .flat_map(|container| container.ports.unwrap_or_default())
            .filter_map(|port| port.public_port)
            .collect())
    }

    /// Steps 4 to 6. What was created is removed again when a later step fails.
    async fn create_fill_start(
        &self,
        spec: &StartSpec,
        name: &str,
        reach: &Reach<'_>,
    ) -> Result<String, Failed> {
        let id = self.create(spec, name, reach).await?;
        let result = self.fill_and_start(spec, &id, reach).await;
        if result.is_err()
            && let Err(error) = self.engine.force_remove(&id).await
        {
            tracing::error!(
                workspace_id = %spec.workspace_id,
                error = &error as &dyn Error,
                "a container whose start failed could not be removed"
            );
        }
        result.map(|()| id)
    }

    async fn create(&self, spec: &StartSpec, name: &str, reach: &Reach<'_>) -> Result<String, StartError> {
        let limits = limits(spec.tier, &self.config.limits, self.engine_cpus);
        let request = create_request(spec, reach, limits, self.instance());
        let answer = match self.engine.create(name, request.clone()).await {
            Err(error) if error.is(409) => {
                self.remove_leftover(name, spec.workspace_id).await?;
                self.wait_until_gone(name).await?;
                self.engine.create(name, request).await
            }
            answer => answer,
        };
        match answer {
            Ok(id) => Ok(id),
            Err(error) if error.is(409) => Err(StartError::NameTaken),
            // Newer engines also answer 404 for other things that the request names.
            Err(error) if error.is(404) && !self.engine.has_image(&spec.image).await.unwrap_or(true) => {
                Err(StartError::ImageMissing { reference: spec.image.clone(), source: error })
            }
            Err(error) => {
                if error.status().is_none() {
                    // No answer: the engine may have created it all the same.
                    self.remove_leftover(name, spec.workspace_id).await.unwrap_or_else(|error| {
                        tracing::error!(
                            workspace_id = %spec.workspace_id,
                            error = &error as &dyn Error,
                            "a container that may have been created could not be removed"
                        );
                    });
                }
                Err(StartError::Engine(error))
            }
        }
    }

    async fn wait_until_gone(&self, name: &str) -> Result<(), StartError> {
        let give_up = Instant::now() + NAME_FREE_WITHIN;
        while self.engine.inspect(name).await?.is_some() {
            if Instant::now() >= give_up {
                return Err(StartError::NameTaken);
            }
            sleep(NAME_POLL).await;
        }
        Ok(())
    }

    async fn fill_and_start(&self, spec: &StartSpec, id: &str, reach: &Reach<'_>) -> Result<(), Failed> {
        go_on(&spec.cancel)?;
        let mut files = FileSet::default();
        files.add_files(&spec.config.files);
        if !files.has_config() && !self.volume_has_config(spec, id).await {
            if spec.config.recovery.is_empty() {
                return Err(StartError::ConfigMissing.into());
            }
            // Below what the caller gave: a recovered file must not replace a chosen one.
            files = FileSet::default();
            files.add_files(&spec.config.recovery);
            files.add_files(&spec.config.files);
        }
        files.add_credentials(&spec.credentials);
        files.check().map_err(StartError::from)?;
        let archive =
            files.to_tar().map_err(|error| EngineError::new("pack the configuration files", None, error))?;
        if let Some(archive) = archive {
            self.engine.copy_into(id, CONFIGS_PATH, archive).await?;
        }

        go_on(&spec.cancel)?;
        match (self.engine.start(id).await, reach) {
            (Ok(()), _) => Ok(()),
            (Err(error), Reach::Published { host_port, .. }) if error.is(500) => {
                Err(Failed::MaybePortTaken(*host_port, error))
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Whether the volume, seen through the created container, has a `config.yaml`. When the engine cannot tell,
    /// it counts as there (2.R104).
    async fn volume_has_config(&self, spec: &StartSpec, id: &str) -> bool {
        let path = format!("{CONFIGS_PATH}/{CONFIG_YAML}");
        if let Ok(found) = self.engine.has_file(id, &path).await {
            return found;
        }
        sleep(CONFIG_RETRY).await;
        self.engine.has_file(id, &path).await.unwrap_or_else(|error| {
            tracing::warn!(
                workspace_id = %spec.workspace_id,
                error = &error as &dyn Error,
                "could not look for a configuration in the volume, going on"
            );
            true
        })
    }

    /// Steps 7 and 8. The agent runs: nothing here fails the start.
    async fn started(&self, spec: &StartSpec, id: &str) -> Result<Started, StartError> {
        let mut last = None;
        for lookup in 0..PORT_LOOKUPS {
            if lookup > 0 {
                sleep(PORT_LOOKUP_EVERY).await;
            }
            match self.engine.inspect(id).await {
                Ok(Some(found)) => {
                    let bound = spec.tier == Tier::FullHost || published_url(&found).is_some();
                    last = Some(found);
                    if bound {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => tracing::warn!(
                    workspace_id = %spec.workspace_id,
                    error = &error as &dyn Error,
                    "could not look up the port of a started container"
                ),
            }
        }
        Ok(match last {
            Some(found) => self.describe(spec.workspace_id, &found).await,
            None => Started {
                host_url: Some(internal_url(spec.workspace_id)),
                internal_url: Some(internal_url(spec.workspace_id)),
                ..Started::default()
            },
        })
    }

    /// Addresses and image of a container.
    pub(super) async fn describe(&self, id: WorkspaceId, found: &ContainerInspectResponse) -> Started {
        let on_host_network =
            found.host_config.as_ref().and_then(|host| host.network_mode.as_deref()) == Some("host");
        let host_url = if on_host_network {
            let host = if self.in_container { HOST_GATEWAY_NAME } else { "127.0.0.1" };
            format!("http://{host}:{AGENT_PORT}")
        } else {
            published_url(found).unwrap_or_else(|| internal_url(id))
        };
        Started {
            host_url: Some(host_url),
            internal_url: Some(internal_url(id)),
            instance_id: None,
            image_digest: self.digest_of(found).await,
        }
    }

    async fn digest_of(&self, found: &ContainerInspectResponse) -> Option<String> {
        let image_id = found.image.clone()?;
        let reference = found.config.as_ref().and_then(|config| config.image.as_deref()).unwrap_or_default();
        match self.engine.image_digests(&image_id).await {
            Ok(digests) => Some(registry_digest(reference, &digests).unwrap_or(image_id)),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn Error,
                    "image not inspected, its id stands for its digest"
                );
                Some(image_id)
            }
        }
    }
}

/// The address that the engine published the agent on.
fn published_url(found: &ContainerInspectResponse) -> Option<String> {
    let ports = found.network_settings.as_ref()?.ports.as_ref()?;
    let binding = ports.get(&port_key())?.as_ref()?.first()?;
    let port = binding.host_port.as_deref().filter(|port| !port.is_empty())?;
    let host = binding.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("127.0.0.1");
    Some(format!("http://{host}:{port}"))
}

/// The digest under which the repository of `reference` has the image.
fn registry_digest(reference: &str, digests: &[String]) -> Option<String> {
    let repository = reference.split('@').next().unwrap_or_default();
    // A registry's port is not a tag (2.R16).
    let name_from = repository.rfind('/').map_or(0, |slash| slash + 1);
    let repository =
        repository[name_from..].find(':').map_or(repository, |colon| &repository[..name_from + colon]);
    digests
        .iter()
        .filter_map(|entry| entry.split_once('@'))
        .find(|(name, _)| *name == repository)
        .map(|(_, digest)| digest.to_owned())
}

#[cfg(test)]
mod tests {
    use bollard::models::{NetworkSettings, PortBinding};

    use super::*;

    fn bound(ip: Option<&str>, port: Option<&str>) -> ContainerInspectResponse {
        let binding = PortBinding { host_ip: ip.map(Into::into), host_port: port.map(Into::into) };
        ContainerInspectResponse {
            network_settings: Some(NetworkSettings {
                ports: Some([(port_key(), Some(vec![binding]))].into_iter().collect()),
                ..NetworkSettings::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn the_host_url_is_the_published_binding() {
        // 2.R28
        assert_eq!(
            published_url(&bound(Some("127.0.0.1"), Some("23456"))).unwrap(),
            "http://127.0.0.1:23456"
        );
        assert_eq!(published_url(&bound(Some(""), Some("23456"))).unwrap(), "http://127.0.0.1:23456");
        assert_eq!(published_url(&bound(None, Some(""))), None);
        assert_eq!(published_url(&ContainerInspectResponse::default()), None);
    }

    #[test]
    fn the_digest_is_that_of_the_same_repository() {
        // 2.R16
        let digests = ["other/x@sha256:1".to_owned(), "localhost:5000/x@sha256:2".to_owned()];
        assert_eq!(registry_digest("localhost:5000/x:latest", &digests).unwrap(), "sha256:2");
        assert_eq!(registry_digest("localhost:5000/x", &digests).unwrap(), "sha256:2");
        assert_eq!(registry_digest("localhost:5000/x@sha256:2", &digests).unwrap(), "sha256:2");
        assert_eq!(registry_digest("x:latest", &digests), None);
    }
}
