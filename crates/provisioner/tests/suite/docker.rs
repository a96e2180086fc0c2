//! What only a real engine can show.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use mws_models::{Tier, WorkspaceId};
use mws_provisioner::{
    InstanceRef, Liveness, Provisioner, Purged, StartError, StartSpec, StopMode, container_name,
};

use crate::harness::{DockerHarness, spec};

async fn inspect(harness: &DockerHarness, id: WorkspaceId) -> ContainerInspectResponse {
    harness.client.inspect_container(&container_name(id), None).await.unwrap()
}

/// The agent of these tests notes the token that it could read.
async fn wait_for_file(harness: &DockerHarness, id: WorkspaceId, path: &str) -> Vec<u8> {
    let files = harness.backend.files().unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match files.read_file(&InstanceRef::from(id), path).await {
                Ok(bytes) if !bytes.is_empty() => return bytes,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{path} did not appear"))
}

#[tokio::test]
async fn the_engine_takes_the_request_as_the_contract_says() {
    let Some(harness) = DockerHarness::new().await else { return };
    let mut spec = spec(&harness);
    spec.env.insert("API_KEY".into(), "k".into());
    let id = spec.workspace_id;
    let started = harness.backend.start(spec).await.unwrap();
    let found = inspect(&harness, id).await;

    // 2.R25, 2.R26
    let config = found.config.unwrap();
    assert_eq!(config.hostname.unwrap(), container_name(id));
    let labels = config.labels.unwrap();
    assert_eq!(labels["molecule.platform.managed"], "true");
    assert_eq!(labels["molecule.platform.instance"], harness.instance);
    assert_eq!(labels["molecule.workspace.id"], id.to_string());
    assert!(config.env.unwrap().contains(&"API_KEY=k".to_owned()));
    // 2.R27
    let settings = found.network_settings.unwrap();
    let networks = settings.networks.unwrap();
    assert_eq!(networks.keys().collect::<Vec<_>>(), [&harness.instance]);
    assert!(networks[&harness.instance].aliases.as_ref().unwrap().contains(&container_name(id)));
    // 2.R28
    let binding = settings.ports.unwrap()["8000/tcp"].clone().unwrap()[0].clone();
    assert_eq!(binding.host_ip.unwrap(), "127.0.0.1");
    assert_eq!(started.host_url, Some(format!("http://127.0.0.1:{}", binding.host_port.unwrap())));
    // 2.R32
    assert_eq!(found.host_config.unwrap().extra_hosts.unwrap(), ["host.docker.internal:host-gateway"]);
    // 2.R49: the unprivileged user reads a 0600 file
    assert_eq!(wait_for_file(&harness, id, "/configs/token-read").await, b"first");
}

#[tokio::test]
async fn the_host_port_survives_a_restart_of_the_container() {
    // 2.R28
    let Some(harness) = DockerHarness::new().await else { return };
    let spec = spec(&harness);
    let id = spec.workspace_id;
    let started = harness.backend.start(spec).await.unwrap();
    harness.client.restart_container(&container_name(id), None).await.unwrap();
    let again = harness.backend.running_instance(&InstanceRef::from(id)).await.unwrap().unwrap();
    assert_eq!(again.host_url, started.host_url);
}

fn port_of(url: Option<String>) -> u16 {
    url.unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_taken_port_is_left_to_its_owner() {
    // 2.R28: once as seen before the create, and once as only the engine sees it
    for blind in [false, true] {
        let Some(harness) = DockerHarness::with(|config| config.in_container = Some(blind)).await else {
            return;
        };
        let spec = spec(&harness);
        let instance = InstanceRef::from(spec.workspace_id);
        let usual = port_of(harness.backend.start(spec.clone()).await.unwrap().host_url);
        harness.backend.stop(&instance, StopMode::Force).await.unwrap();
        let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, usual)).unwrap();
        let other = port_of(harness.backend.start(spec).await.unwrap().host_url);
        assert_ne!(other, usual, "blind: {blind}");
    }
}

#[tokio::test]
async fn only_a_graceful_stop_lets_the_agent_save() {
    // 2.R51
    let Some(harness) = DockerHarness::new().await else { return };
    let saved = async |how| {
        let spec = spec(&harness);
        let instance = InstanceRef::from(spec.workspace_id);
        harness.backend.start(spec.clone()).await.unwrap();
        // The trap is set once the token was read.
        wait_for_file(&harness, spec.workspace_id, "/configs/token-read").await;
        harness.backend.stop(&instance, how).await.unwrap();
        harness.backend.start(spec).await.unwrap();
        harness.backend.files().unwrap().has_file(&instance, "/configs/snapshot").await.unwrap()
    };
    assert!(saved(StopMode::Graceful).await);
    assert!(!saved(StopMode::Force).await);
}

#[tokio::test]
async fn the_sandboxed_tier_boots_with_a_read_only_root() {
    // 4.4, 2.R43 (5)
    let Some(harness) = DockerHarness::new().await else { return };
    let spec = StartSpec { tier: Tier::Sandboxed, ..spec(&harness) };
    let id = spec.workspace_id;
    harness.backend.start(spec).await.unwrap();
    wait_for_file(&harness, id, "/configs/token-read").await;
    let host = inspect(&harness, id).await.host_config.unwrap();
    assert_eq!(host.readonly_rootfs, Some(true));
    assert!(matches!(harness.backend.liveness(&InstanceRef::from(id)).await, Liveness::Running));
}

#[tokio::test]
async fn a_failed_start_removes_its_container() {
    // 2.R45
    let Some(harness) = DockerHarness::new().await else { return };
    harness.import_image("broken", r#"["/no-such-program"]"#).await;
    let spec = StartSpec { image: harness.tag("broken"), ..spec(&harness) };
    let id = spec.workspace_id;
    assert!(matches!(harness.backend.start(spec).await, Err(StartError::Engine(_))));
    assert!(harness.client.inspect_container(&container_name(id), None).await.is_err());
}

#[tokio::test]
async fn the_host_port_of_the_full_host_tier_is_never_shared() {
    // 2.R42
    let Some(harness) = DockerHarness::new().await else { return };
    // Taken either by us or by somebody else.
    let _holder = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8000));
    let spec = StartSpec { tier: Tier::FullHost, ..spec(&harness) };
    assert!(matches!(harness.backend.start(spec).await, Err(StartError::HostPortTaken)));
}

#[tokio::test]
async fn a_session_reset_empties_the_session_volume() {
    // 2.R37
    let Some(harness) = DockerHarness::new().await else { return };
    let mut spec = StartSpec { runtime: "claude-code".into(), ..spec(&harness) };
    let instance = InstanceRef::from(spec.workspace_id);
    harness.backend.start(spec.clone()).await.unwrap();

    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    archive.append_data(&mut header, "talk", &b"x"[..]).unwrap();
    let options = UploadToContainerOptionsBuilder::default().path("/root/.claude/sessions").build();
    let body = bollard::body_full(archive.into_inner().unwrap().into());
    let name = container_name(spec.workspace_id);
    harness.client.upload_to_container(&name, Some(options), body).await.unwrap();

    let has_talk = async || {
        harness.backend.files().unwrap().has_file(&instance, "/root/.claude/sessions/talk").await.unwrap()
    };
    harness.backend.start(spec.clone()).await.unwrap();
    assert!(has_talk().await, "a plain restart keeps the session");
    spec.reset_session = true;
    harness.backend.start(spec).await.unwrap();
    assert!(!has_talk().await);
}

#[tokio::test]
async fn concurrent_first_starts_share_one_network() {
    // 2.R27: the engine itself would accept twins
    let Some(harness) = DockerHarness::new().await else { return };
    let (one, two) = (spec(&harness), spec(&harness));
    let (one, two) = tokio::join!(harness.backend.start(one), harness.backend.start(two));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    let purged = harness.backend.purge_instance(&harness.instance).await.unwrap();
    assert_eq!(purged, Purged { containers: 2, volumes: 4, networks: 1 });
}

#[tokio::test]
async fn two_installations_share_an_engine() {
    // 2.R26, 2.R43 (3), 2.R56
    let Some(blue) = DockerHarness::new().await else { return };
    let Some(green) = DockerHarness::new().await else { return };
    let spec = spec(&blue);
    let id = spec.workspace_id;
    blue.backend.start(spec).await.unwrap();
    assert!(blue.backend.list_managed().await.unwrap().contains(&id.short()));
    assert!(!green.backend.list_managed().await.unwrap().contains(&id.short()));
    assert_eq!(green.backend.purge_instance(&green.instance).await.unwrap(), Purged::default());
    assert!(matches!(blue.backend.liveness(&InstanceRef::from(id)).await, Liveness::Running));
}

#[tokio::test]
async fn removed_storage_is_gone_and_a_host_folder_stays() {
    // 2.R38
    let Some(harness) = DockerHarness::new().await else { return };
    let spec = spec(&harness);
    let instance = InstanceRef::from(spec.workspace_id);
    let volume = format!("ws-{}-workspace", spec.workspace_id);
    harness.backend.start(spec).await.unwrap();
    assert!(harness.client.inspect_volume(&volume).await.is_ok());
    harness.backend.stop(&instance, StopMode::Force).await.unwrap();
    harness.backend.remove_storage(&instance).await.unwrap();
    assert!(harness.client.inspect_volume(&volume).await.is_err());
    let purged = harness.backend.purge_instance(&harness.instance).await.unwrap();
    assert_eq!(purged, Purged { networks: 1, ..Purged::default() });
}
