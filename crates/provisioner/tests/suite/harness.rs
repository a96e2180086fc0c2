//! What the shared suite needs of a backend, for the mock and for a real engine.

use std::collections::BTreeMap;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use futures_util::StreamExt;
use mws_models::{Tier, WorkspaceId};
use mws_provisioner::mock::MockProvisioner;
use mws_provisioner::{
    ConfigFile, ConfigSource, Credentials, DockerBackend, DockerConfig, Provisioner, StartSpec,
    WorkspaceMount, container_name,
};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

/// Stands in for an agent: needs its files, saves a snapshot on SIGTERM.
const AGENT: &str = "test -s /configs/config.yaml || exit 7
if test -e /configs/.auth_token; then cat /configs/.auth_token > /configs/token-read || exit 8; fi
trap 'echo saved > /configs/snapshot; exit 0' TERM
while :; do sleep 3600 & wait $!; done";

pub(crate) trait Harness {
    fn backend(&self) -> &dyn Provisioner;
    fn image(&self) -> String;
    fn missing_image(&self) -> String;
    async fn plant_foreign(&self, id: WorkspaceId);
}

pub(crate) fn file(path: &str, contents: &str) -> ConfigFile {
    ConfigFile::new(path, contents.as_bytes().to_vec()).unwrap()
}

pub(crate) fn spec(harness: &impl Harness) -> StartSpec {
    StartSpec {
        workspace_id: WorkspaceId::random(),
        name: Some("Test".into()),
        runtime: "sample".into(),
        image: harness.image(),
        tier: Tier::Standard,
        env: BTreeMap::new(),
        platform_url: "http://host.docker.internal:8080".into(),
        awareness_url: None,
        workspace_mount: WorkspaceMount::Volume,
        config: ConfigSource { files: vec![file("config.yaml", "name: Test\n")], recovery: Vec::new() },
        credentials: Credentials {
            auth_token: Some(SecretString::from("first")),
            inbound_secret: Some(SecretString::from("inbound")),
        },
        reset_session: false,
        cancel: CancellationToken::new(),
    }
}

#[derive(Default)]
pub(crate) struct MockHarness(pub(crate) MockProvisioner);

impl MockHarness {
    pub(crate) fn new() -> Self {
        let mock = MockProvisioner::new();
        mock.forget_image("absent:1");
        Self(mock)
    }
}

impl Harness for MockHarness {
    fn backend(&self) -> &dyn Provisioner {
        &self.0
    }
    fn image(&self) -> String {
        "present:1".into()
    }
    fn missing_image(&self) -> String {
        "absent:1".into()
    }
    async fn plant_foreign(&self, id: WorkspaceId) {
        self.0.plant_foreign(id);
    }
}

/// A backend of its own on the real engine. All that carries its mark, and its images, go when it is dropped.
pub(crate) struct DockerHarness {
    pub(crate) backend: DockerBackend,
    pub(crate) client: Docker,
    pub(crate) instance: String,
}

impl DockerHarness {
    /// `None` when Docker tests are switched off.
    pub(crate) async fn new() -> Option<Self> {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adapt: impl FnOnce(&mut DockerConfig)) -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "the switch of the test run, not configuration")]
        let switched_off = std::env::var("MWS_TEST_NO_DOCKER").is_ok_and(|value| value == "1");
        if switched_off {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            println!("left out, MWS_TEST_NO_DOCKER=1: {test}");
            return None;
        }
        let instance = format!("mws-test-{}", WorkspaceId::random().short());
        let mut config = DockerConfig {
            network: instance.clone(),
            instance: Some(instance.clone()),
            in_container: Some(false),
            ..DockerConfig::default()
        };
        adapt(&mut config);
        let backend = DockerBackend::connect(config)
            .await
            .expect("these tests need a Docker engine; MWS_TEST_NO_DOCKER=1 leaves them out");
        let client = Docker::connect_with_socket_defaults().unwrap().negotiate_version().await.unwrap();
        let harness = Self { backend, client, instance };
        let entrypoint = serde_json::to_string(&["/bin/sh", "-c", AGENT]).unwrap();
        harness.import_image("agent", &entrypoint).await;
        Some(harness)
    }

    pub(crate) fn tag(&self, name: &str) -> String {
        format!("{}:{name}", self.instance)
    }

    pub(crate) async fn import_image(&self, tag: &str, entrypoint: &str) {
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(&self.instance)
            .tag(tag)
            .changes(vec![format!("ENTRYPOINT {entrypoint}"), "USER 1000".into()])
            .build();
        let body = bollard::body_full(root_filesystem().into());
        let mut progress = std::pin::pin!(self.client.create_image(Some(options), Some(body), None));
        while let Some(line) = progress.next().await {
            line.unwrap();
        }
    }
}

/// busybox, and the folders that an agent's image has.
fn root_filesystem() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind, mode, owner, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(data.len() as u64);
        archive.append_data(&mut header, path, data).unwrap();
    };
    add("bin/busybox", tar::EntryType::Regular, 0o755, 0, &busybox);
    add("configs/", tar::EntryType::Directory, 0o755, 1000, b"");
    add("workspace/", tar::EntryType::Directory, 0o755, 1000, b"");
    add("tmp/", tar::EntryType::Directory, 0o1777, 0, b"");
    for name in ["sh", "cat", "sleep", "test"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    archive.into_inner().unwrap()
}

impl Harness for DockerHarness {
    fn backend(&self) -> &dyn Provisioner {
        &self.backend
    }

    fn image(&self) -> String {
        self.tag("agent")
    }

    fn missing_image(&self) -> String {
        self.tag("absent")
    }

    async fn plant_foreign(&self, id: WorkspaceId) {
        let name = container_name(id);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let body = ContainerCreateBody { image: Some(self.image()), ..ContainerCreateBody::default() };
        self.client.create_container(Some(options), body).await.unwrap();
    }
}

impl Drop for DockerHarness {
    /// Also after a failed assertion, so on a thread and a runtime of its own.
    fn drop(&mut self) {
        let instance = self.instance.clone();
        let clean_up = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client =
                    Docker::connect_with_socket_defaults().unwrap().negotiate_version().await.unwrap();
                // Foreign containers that tests plant carry no mark: they go by image.
                let containers = client
                    .list_containers(Some(
                        bollard::query_parameters::ListContainersOptionsBuilder::default().all(true).build(),
                    ))
                    .await
                    .unwrap();
                for container in containers {
                    if container.image.is_some_and(|image| image.starts_with(&instance)) {
                        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                        let _ = client.remove_container(&container.id.unwrap(), Some(options)).await;
                    }
                }
                let backend = DockerBackend::connect(DockerConfig::default()).await.unwrap();
                backend.purge_instance(&instance).await.unwrap();
                for tag in ["agent", "broken"] {
                    let options = RemoveImageOptionsBuilder::default().force(true).build();
                    let _ = client.remove_image(&format!("{instance}:{tag}"), Some(options), None).await;
                }
            });
        });
        let cleaned = clean_up.join().is_ok();
        assert!(cleaned || std::thread::panicking(), "the engine was not left clean");
    }
}
