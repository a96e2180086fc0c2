//! The one way to the engine: every call has a deadline and a failure by type.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as BollardError;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerSummary, ContainerUpdateBody,
    NetworkCreateRequest, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder,
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder, StopContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::error::{EngineError, FileError};

/// A lookup answers from the engine's memory.
const LOOKUP: Duration = Duration::from_secs(10);
/// Creating, starting and removing touch the disk, the network and the kernel.
const CHANGE: Duration = Duration::from_secs(30);
/// Up to 64 MiB go into a container.
const COPY: Duration = Duration::from_secs(60);
/// From SIGTERM to SIGKILL in a graceful stop (2.R51), in seconds.
const GRACE_SECONDS: i32 = 10;
/// The grace, and what the engine itself needs afterwards.
const STOP: Duration = Duration::from_secs(GRACE_SECONDS as u64 + 20);

/// Cheap to clone; the connection pool is shared.
#[derive(Clone)]
pub(super) struct Engine {
    client: Docker,
}

/// A network as far as we need it.
pub(super) struct FoundNetwork {
    pub(super) id: String,
    pub(super) name: String,
}

/// Filters of a listing: name of the filter, its values.
pub(super) type Filters = HashMap<&'static str, Vec<String>>;

pub(super) async fn within<T>(
    operation: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<T, BollardError>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map_err(|error| classify(operation, error)),
        Err(_) => Err(EngineError::deadline(operation, deadline)),
    }
}

fn classify(operation: &'static str, error: BollardError) -> EngineError {
    let status = match &error {
        BollardError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    };
    EngineError::new(operation, status, error)
}

impl Engine {
    pub(super) fn new(client: Docker) -> Self {
        Self { client }
    }

    /// `None` when there is no such container.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        absent_is_none(within("inspect a container", LOOKUP, self.client.inspect_container(name, None)).await)
    }

    pub(super) async fn create(
        &self,
        name: &str,
        request: ContainerCreateBody,
    ) -> Result<String, EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let created =
            within("create a container", CHANGE, self.client.create_container(Some(options), request))
                .await?;
        Ok(created.id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), EngineError> {
        within("start a container", CHANGE, self.client.start_container(id, None)).await
    }

    /// Kills and removes in one call, anonymous volumes too. Success by the rule of 2.R52.
    pub(super) async fn force_remove(&self, name: &str) -> Result<(), EngineError> {
        let operation = "remove a container";
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let call = self.client.remove_container(name, Some(options));
        match tokio::time::timeout(CHANGE, call).await {
            Err(_) => Err(EngineError::deadline(operation, CHANGE)),
            Ok(Err(error)) if !counts_as_removed(&error) => Err(classify(operation, error)),
            Ok(_) => Ok(()),
        }
    }

    /// So that the engine does not revive what is about to be stopped.
    pub(super) async fn forbid_restarts(&self, name: &str) -> Result<(), EngineError> {
        let update = ContainerUpdateBody {
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..ContainerUpdateBody::default()
        };
        within("update a container", LOOKUP, self.client.update_container(name, update)).await
    }

    pub(super) async fn stop(&self, name: &str) -> Result<(), EngineError> {
        let options = StopContainerOptionsBuilder::default().t(GRACE_SECONDS).build();
        within("stop a container", STOP, self.client.stop_container(name, Some(options))).await
    }

    /// All containers, stopped ones too, unless `running_only`.
    pub(super) async fn containers(
        &self,
        filters: &Filters,
        running_only: bool,
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        let options = ListContainersOptionsBuilder::default().all(!running_only).filters(filters).build();
        within("list containers", LOOKUP, self.client.list_containers(Some(options))).await
    }

    /// Unpacks a tar archive in a folder of a container, running or not.
    pub(super) async fn copy_into(
        &self,
        id: &str,
        folder: &str,
        archive: Vec<u8>,
    ) -> Result<(), EngineError> {
        let options = UploadToContainerOptionsBuilder::default().path(folder).build();
        let body = bollard::body_full(Bytes::from(archive));
        within("copy files into a container", COPY, self.client.upload_to_container(id, Some(options), body))
            .await
    }

    /// Whether a regular file is at `path`; a missing container has no files.
    pub(super) async fn has_file(&self, name: &str, path: &str) -> Result<bool, EngineError> {
        /// Go's `os.ModeType`: the bits that are clear for a regular file only.
        const NOT_REGULAR: u32 = 0x8f28_0000;
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        let call = self.client.get_container_archive_info(name, Some(options));
        let found = absent_is_none(within("look for a file", LOOKUP, call).await)?;
        Ok(found.is_some_and(|stat| stat.file_mode & NOT_REGULAR == 0))
    }

    /// The tar archive of one path, at most `cap` bytes of it.
    pub(super) async fn archive_of(&self, name: &str, path: &str, cap: usize) -> Result<Vec<u8>, FileError> {
        let operation = "read a file";
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let stream = self.client.download_from_container(name, Some(options));
        match tokio::time::timeout(COPY, collect(stream, cap)).await {
            Err(_) => Err(FileError::Engine(EngineError::deadline(operation, COPY))),
            Ok(Ok(Some(bytes))) => Ok(bytes),
            Ok(Ok(None)) => Err(FileError::TooLarge),
            Ok(Err(error)) => {
                let error = classify(operation, error);
                Err(if error.is(404) { FileError::NotFound } else { FileError::Engine(error) })
            }
        }
    }

    /// Idempotent.
    pub(super) async fn create_volume(&self, request: VolumeCreateRequest) -> Result<(), EngineError> {
        within("create a volume", CHANGE, self.client.create_volume(request)).await.map(drop)
    }

    /// An absent volume is success.
    pub(super) async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveVolumeOptionsBuilder::default().build();
        let call = self.client.remove_volume(name, Some(options));
        absent_is_none(within("remove a volume", CHANGE, call).await).map(drop)
    }

    pub(super) async fn volumes(&self, filters: &Filters) -> Result<Vec<String>, EngineError> {
        let options = ListVolumesOptionsBuilder::default().filters(filters).build();
        let list = within("list volumes", LOOKUP, self.client.list_volumes(Some(options))).await?;
        Ok(list.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect())
    }

    pub(super) async fn networks(&self, filters: &Filters) -> Result<Vec<FoundNetwork>, EngineError> {
        let options = ListNetworksOptionsBuilder::default().filters(filters).build();
        let list = within("list networks", LOOKUP, self.client.list_networks(Some(options))).await?;
        Ok(list
            .into_iter()
            .filter_map(|network| Some(FoundNetwork { id: network.id?, name: network.name? }))
            .collect())
    }

    /// Answers the new network's id.
    pub(super) async fn create_network(
        &self,
        name: &str,
        labels: HashMap<String, String>,
    ) -> Result<String, EngineError> {
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        Ok(within("create a network", CHANGE, self.client.create_network(request)).await?.id)
    }

    /// An absent network is success.
    pub(super) async fn remove_network(&self, id: &str) -> Result<(), EngineError> {
        absent_is_none(within("remove a network", CHANGE, self.client.remove_network(id)).await).map(drop)
    }

    pub(super) async fn has_image(&self, reference: &str) -> Result<bool, EngineError> {
        let call = self.client.inspect_image(reference);
        absent_is_none(within("inspect an image", LOOKUP, call).await).map(|found| found.is_some())
    }

    /// Registry digests of an image; empty for one that was made locally.
    pub(super) async fn image_digests(&self, image: &str) -> Result<Vec<String>, EngineError> {
        let image = within("inspect an image", LOOKUP, self.client.inspect_image(image)).await?;
        Ok(image.repo_digests.unwrap_or_default())
    }
}

fn absent_is_none<T>(answer: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// 404: nothing is there. 409 with both phrases: somebody else is removing it, and will finish. The one decision
/// on message text, because the engine uses 409 for other refusals too (2.R52).
fn counts_as_removed(error: &BollardError) -> bool {
    match error {
        BollardError::DockerResponseServerError { status_code: 404, .. } => true,
        BollardError::DockerResponseServerError { status_code: 409, message } => {
            message.contains("removal of container") && message.contains("already in progress")
        }
        _ => false,
    }
}

/// `None` when the stream is longer than `cap`.
async fn collect(
    mut stream: impl Stream<Item = Result<Bytes, BollardError>> + Unpin,
    cap: usize,
) -> Result<Option<Vec<u8>>, BollardError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if bytes.len() + chunk.len() > cap {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> BollardError {
        BollardError::DockerResponseServerError { status_code, message: message.into() }
    }

    #[test]
    fn what_counts_as_removed() {
        // 2.R52
        assert!(counts_as_removed(&answer(404, "No such container: ws-1")));
        assert!(counts_as_removed(&answer(409, "removal of container ws-1 is already in progress")));
        assert!(!counts_as_removed(&answer(409, "start of container ws-1 is already in progress")));
        assert!(!counts_as_removed(&answer(409, "removal of container ws-1 was refused")));
        assert!(!counts_as_removed(&answer(500, "removal of container ws-1 is already in progress")));
        assert!(!counts_as_removed(&BollardError::RequestTimeoutError));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_engine_is_a_failure_without_status() {
        let never = std::future::pending::<Result<(), BollardError>>();
        let error = within("inspect a container", LOOKUP, never).await.unwrap_err();
        assert_eq!(error.status(), None);
    }

    #[tokio::test]
    async fn a_long_stream_is_cut() {
        // 2.R54
        let chunks =
            || futures_util::stream::iter([Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"de"))]);
        assert_eq!(collect(chunks(), 5).await.unwrap().unwrap(), b"abcde");
        assert_eq!(collect(chunks(), 4).await.unwrap(), None);
    }
}
