//! What every backend promises. Each check runs against the mock and against the real engine.

use mws_models::WorkspaceId;
use mws_provisioner::{FileError, InstanceRef, Liveness, StartError, StopMode};
use secrecy::SecretString;

use crate::harness::{DockerHarness, Harness, MockHarness, file, spec};

macro_rules! for_each_backend {
    ($($check:ident),* $(,)?) => {
        mod mock {
            use super::*;
            $(#[tokio::test] async fn $check() { super::$check(&MockHarness::new()).await; })*
        }
        mod docker {
            use super::*;
            $(#[tokio::test] async fn $check() {
                if let Some(harness) = DockerHarness::new().await {
                    super::$check(&harness).await;
                }
            })*
        }
    };
}

for_each_backend!(
    a_life_from_start_to_removal,
    a_restart_keeps_the_storage_and_replaces_the_credentials,
    a_start_replaces_what_is_left,
    a_missing_image_is_told_apart,
    no_configuration_at_all_is_a_failure,
    recovery_is_for_an_empty_volume_only,
    a_cancelled_start_leaves_nothing,
    what_is_not_ours_stays,
    nothing_to_stop_or_remove_is_success,
);

async fn is_running(harness: &impl Harness, instance: &InstanceRef) -> bool {
    matches!(harness.backend().liveness(instance).await, Liveness::Running)
}

async fn listed(harness: &impl Harness, id: WorkspaceId) -> bool {
    harness.backend().list_managed().await.unwrap().contains(&id.short())
}

async fn read(harness: &impl Harness, instance: &InstanceRef, path: &str) -> String {
    let bytes = harness.backend().files().unwrap().read_file(instance, path).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn a_life_from_start_to_removal(harness: &impl Harness) {
    let backend = harness.backend();
    let spec = spec(harness);
    let id = spec.workspace_id;
    let instance = InstanceRef::from(id);

    // 2.R53: absent is not running
    assert!(matches!(backend.liveness(&instance).await, Liveness::NotRunning));
    assert_eq!(backend.running_instance(&instance).await.unwrap(), None);

    let started = backend.start(spec).await.unwrap();
    assert!(started.host_url.as_deref().is_some_and(|url| url.starts_with("http://")));
    assert_eq!(started.internal_url, Some(format!("http://ws-{}:8000", id.short())));
    assert!(started.image_digest.as_deref().is_some_and(|digest| digest.starts_with("sha256:")));
    assert!(is_running(harness, &instance).await);
    // 2.R165 needs the same answer afterwards.
    assert_eq!(backend.running_instance(&instance).await.unwrap(), Some(started));
    // 2.R56
    assert!(listed(harness, id).await);
    assert!(backend.list_by_name_prefix().await.unwrap().contains(&id.short()));

    // 2.R54, 2.R55
    let files = backend.files().unwrap();
    assert!(files.has_file(&instance, "/configs/config.yaml").await.unwrap());
    assert!(!files.has_file(&instance, "/configs/absent").await.unwrap());
    assert_eq!(read(harness, &instance, "/configs/config.yaml").await, "name: Test\n");
    assert_eq!(read(harness, &instance, "/configs/.auth_token").await, "first");
    assert_eq!(read(harness, &instance, "/configs/.platform_inbound_secret").await, "inbound");
    assert!(matches!(files.read_file(&instance, "/configs/absent").await, Err(FileError::NotFound)));

    // 2.R38: storage is not removed from under an agent
    assert!(backend.remove_storage(&instance).await.is_err());

    // 2.R51
    backend.stop(&instance, StopMode::Force).await.unwrap();
    assert!(matches!(backend.liveness(&instance).await, Liveness::NotRunning));
    assert!(!listed(harness, id).await);
    backend.remove_storage(&instance).await.unwrap();
}

async fn a_restart_keeps_the_storage_and_replaces_the_credentials(harness: &impl Harness) {
    let backend = harness.backend();
    let mut first = spec(harness);
    first.config.files.push(file("notes/mine.md", "kept"));
    let instance = InstanceRef::from(first.workspace_id);
    let mut second = first.clone();
    backend.start(first).await.unwrap();
    backend.stop(&instance, StopMode::Graceful).await.unwrap();

    // 2.R123, 2.R45: the plain restart brings no files, but a new bearer
    second.config.files.clear();
    second.credentials.auth_token = Some(SecretString::from("second"));
    second.credentials.inbound_secret = None;
    backend.start(second).await.unwrap();
    assert!(is_running(harness, &instance).await);
    assert_eq!(read(harness, &instance, "/configs/notes/mine.md").await, "kept");
    assert_eq!(read(harness, &instance, "/configs/.auth_token").await, "second");
    assert_eq!(read(harness, &instance, "/configs/.platform_inbound_secret").await, "inbound");
    backend.stop(&instance, StopMode::Force).await.unwrap();
}

async fn a_start_replaces_what_is_left(harness: &impl Harness) {
    // 2.R43 (3)
    let backend = harness.backend();
    let spec = spec(harness);
    let instance = InstanceRef::from(spec.workspace_id);
    backend.start(spec.clone()).await.unwrap();
    backend.start(spec.clone()).await.unwrap();
    assert!(is_running(harness, &instance).await);
    let copies = backend.list_managed().await.unwrap();
    assert_eq!(copies.iter().filter(|short| **short == spec.workspace_id.short()).count(), 1);
}

async fn a_missing_image_is_told_apart(harness: &impl Harness) {
    // 2.R24
    let mut spec = spec(harness);
    spec.image = harness.missing_image();
    let (id, image) = (spec.workspace_id, spec.image.clone());
    match harness.backend().start(spec).await {
        Err(StartError::ImageMissing { reference, .. }) => assert_eq!(reference, image),
        other => panic!("{other:?}"),
    }
    assert!(!listed(harness, id).await);
}

async fn no_configuration_at_all_is_a_failure(harness: &impl Harness) {
    // 2.R104
    let mut spec = spec(harness);
    spec.config.files = vec![file("other.md", "x")];
    let id = spec.workspace_id;
    assert!(matches!(harness.backend().start(spec).await, Err(StartError::ConfigMissing)));
    // 2.R45
    assert!(!listed(harness, id).await);
}

async fn recovery_is_for_an_empty_volume_only(harness: &impl Harness) {
    // 2.R104
    let backend = harness.backend();
    let mut spec = spec(harness);
    let instance = InstanceRef::from(spec.workspace_id);
    spec.config.files = vec![file("prompt.md", "chosen")];
    spec.config.recovery = vec![file("config.yaml", "name: Recovered\n"), file("prompt.md", "default")];
    backend.start(spec.clone()).await.unwrap();
    assert_eq!(read(harness, &instance, "/configs/config.yaml").await, "name: Recovered\n");
    assert_eq!(read(harness, &instance, "/configs/prompt.md").await, "chosen");

    spec.config.recovery = vec![file("config.yaml", "name: Again\n")];
    backend.start(spec).await.unwrap();
    assert_eq!(read(harness, &instance, "/configs/config.yaml").await, "name: Recovered\n");
}

async fn a_cancelled_start_leaves_nothing(harness: &impl Harness) {
    let spec = spec(harness);
    spec.cancel.cancel();
    let id = spec.workspace_id;
    assert!(matches!(harness.backend().start(spec).await, Err(StartError::Cancelled)));
    assert!(!listed(harness, id).await);
}

async fn what_is_not_ours_stays(harness: &impl Harness) {
    // 2.R43 (3)
    let backend = harness.backend();
    let spec = spec(harness);
    let id = spec.workspace_id;
    let instance = InstanceRef::from(id);
    harness.plant_foreign(id).await;
    assert!(matches!(backend.start(spec).await, Err(StartError::NameTaken)));
    backend.stop(&instance, StopMode::Force).await.unwrap();
    assert_eq!(backend.running_instance(&instance).await.unwrap(), None);
    assert!(!listed(harness, id).await);
    assert!(backend.list_by_name_prefix().await.unwrap().contains(&id.short()), "the container is gone");
}

async fn nothing_to_stop_or_remove_is_success(harness: &impl Harness) {
    // 2.R52, 2.R38
    let instance = InstanceRef::from(WorkspaceId::random());
    harness.backend().stop(&instance, StopMode::Graceful).await.unwrap();
    harness.backend().stop(&instance, StopMode::Force).await.unwrap();
    harness.backend().remove_storage(&instance).await.unwrap();
}
