//! The create request of an agent's container. Pure, so that tests can hold it against the contract tier by tier
//! also where the engine at hand would refuse the tier.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig, PortBinding,
    RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use mws_models::Tier;

use super::limits::Limits;
use crate::environment::{CONFIGS_PATH, container_env};
use crate::labels;
use crate::names::{AGENT_PORT, configs_volume, container_name, sessions_volume, workspace_volume};
use crate::spec::{StartSpec, WorkspaceMount};

pub(super) const HOST_GATEWAY_NAME: &str = "host.docker.internal";
const ENGINE_SOCKET: &str = "/var/run/docker.sock";
const SESSIONS_PATH: &str = "/root/.claude/sessions";
const SANDBOX_TMP: &str = "rw,noexec,nosuid,size=64m";

/// Where the container is reachable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach<'a> {
    /// On the platform's network, published on a loopback port of the host.
    Published {
        /// Name or id of the network.
        network: &'a str,
        host_port: u16,
    },
    /// On the host's own network.
    Host,
}

/// `8000/tcp`.
pub(super) fn port_key() -> String {
    format!("{AGENT_PORT}/tcp")
}

pub(super) fn uses_sessions(spec: &StartSpec) -> bool {
    spec.runtime == "claude-code" && spec.tier != Tier::Sandboxed
}

fn uses_workspace(spec: &StartSpec) -> bool {
    spec.tier != Tier::Sandboxed
}

/// The named volumes to create before the container, labelled.
pub(super) fn volume_requests(spec: &StartSpec, instance: Option<&str>) -> Vec<VolumeCreateRequest> {
    let mut names = vec![configs_volume(spec.workspace_id)];
    if uses_workspace(spec) && spec.workspace_mount == WorkspaceMount::Volume {
        names.push(workspace_volume(spec.workspace_id));
    }
    if uses_sessions(spec) {
        names.push(sessions_volume(spec.workspace_id));
    }
    names
        .into_iter()
        .map(|name| VolumeCreateRequest {
            name: Some(name),
            labels: Some(labels::workspace(spec.workspace_id, &spec.runtime, spec.tier, instance)),
            ..VolumeCreateRequest::default()
        })
        .collect()
}

fn binds(spec: &StartSpec) -> Vec<String> {
    let id = spec.workspace_id;
    let mut binds = vec![format!("{}:{CONFIGS_PATH}:rw", configs_volume(id))];
    if uses_workspace(spec) {
        binds.push(match &spec.workspace_mount {
            WorkspaceMount::Volume => format!("{}:/workspace:rw", workspace_volume(id)),
            WorkspaceMount::Bind { path, read_only } => {
                let access = if *read_only { "ro" } else { "rw" };
                format!("{}:/workspace:{access}", path.display())
            }
        });
    }
    if uses_sessions(spec) {
        binds.push(format!("{}:{SESSIONS_PATH}:rw", sessions_volume(id)));
    }
    if spec.tier == Tier::FullHost {
        binds.push(format!("{ENGINE_SOCKET}:{ENGINE_SOCKET}"));
    }
    binds
}

/// The host of a URL's authority. Enough for `PLATFORM_URL`, which the configuration has already checked.
fn url_host(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host_port.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host_port.split(':').next().unwrap_or_default(),
    }
}

pub(super) fn create_request(
    spec: &StartSpec,
    reach: &Reach<'_>,
    limits: Limits,
    instance: Option<&str>,
) -> ContainerCreateBody {
    let name = container_name(spec.workspace_id);
    let sandboxed = spec.tier == Tier::Sandboxed;
    let privileged = matches!(spec.tier, Tier::Privileged | Tier::FullHost);
    // On Linux the name does not resolve by itself, and the agent could never register (2.R32).
    let extra_hosts = url_host(&spec.platform_url)
        .eq_ignore_ascii_case(HOST_GATEWAY_NAME)
        .then(|| vec![format!("{HOST_GATEWAY_NAME}:host-gateway")]);

    let (network_mode, port_bindings, networking_config) = match reach {
        Reach::Host => ("host".to_owned(), None, None),
        Reach::Published { network, host_port } => {
            let binding =
                PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(host_port.to_string()) };
            let endpoint =
                EndpointSettings { aliases: Some(vec![name.clone()]), ..EndpointSettings::default() };
            (
                (*network).to_owned(),
                Some(HashMap::from([(port_key(), Some(vec![binding]))])),
                Some(NetworkingConfig {
                    endpoints_config: Some(HashMap::from([((*network).to_owned(), endpoint)])),
                }),
            )
        }
    };

    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some(name),
        env: Some(container_env(spec).into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels::workspace(spec.workspace_id, &spec.runtime, spec.tier, instance)),
        exposed_ports: port_bindings.is_some().then(|| vec![port_key()]),
        host_config: Some(HostConfig {
            binds: Some(binds(spec)),
            network_mode: Some(network_mode),
            port_bindings,
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            extra_hosts,
            memory: limits.memory_bytes,
            nano_cpus: limits.nano_cpus,
            privileged: privileged.then_some(true),
            pid_mode: privileged.then(|| "host".to_owned()),
            readonly_rootfs: sandboxed.then_some(true),
            tmpfs: sandboxed.then(|| HashMap::from([("/tmp".to_owned(), SANDBOX_TMP.to_owned())])),
            // A chatty agent must not fill the host's disk.
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "10m".to_owned()),
                    ("max-file".to_owned(), "3".to_owned()),
                ])),
            }),
            ..HostConfig::default()
        }),
        networking_config,
        ..ContainerCreateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::limits::{LimitOverrides, limits};
    use crate::docker::testing::spec;

    fn request(spec: &StartSpec) -> (ContainerCreateBody, HostConfig) {
        let reach = if spec.tier == Tier::FullHost {
            Reach::Host
        } else {
            Reach::Published { network: "net", host_port: 23_456 }
        };
        let limits = limits(spec.tier, &LimitOverrides::default(), Some(2));
        let body = create_request(spec, &reach, limits, Some("blue"));
        let host = body.host_config.clone().unwrap();
        (body, host)
    }

    fn spec_of(tier: Tier) -> StartSpec {
        StartSpec { tier, runtime: "claude-code".into(), ..spec() }
    }

    #[test]
    fn tier_1_is_sandboxed() {
        // 4.4, 4.3, 2.R161
        let spec = spec_of(Tier::Sandboxed);
        let (_, host) = request(&spec);
        assert_eq!(host.binds.unwrap(), [format!("{}:/configs:rw", configs_volume(spec.workspace_id))]);
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.tmpfs.unwrap()["/tmp"], "rw,noexec,nosuid,size=64m");
        assert_eq!((host.privileged, host.pid_mode, host.memory, host.nano_cpus), (None, None, None, None));
        assert_eq!(host.network_mode.as_deref(), Some("net"));
        assert_eq!(volume_requests(&spec, None).len(), 1);
    }

    #[test]
    fn tier_2_is_capped_and_unprivileged() {
        // 4.4, 2.R27, 2.R28
        let spec = spec_of(Tier::Standard);
        let (body, host) = request(&spec);
        let id = spec.workspace_id;
        assert_eq!(
            host.binds.unwrap(),
            [
                format!("{}:/configs:rw", configs_volume(id)),
                format!("{}:/workspace:rw", workspace_volume(id)),
                format!("{}:/root/.claude/sessions:rw", sessions_volume(id)),
            ]
        );
        assert_eq!(
            (host.privileged, host.pid_mode, host.readonly_rootfs, host.tmpfs),
            (None, None, None, None)
        );
        assert_eq!((host.memory, host.nano_cpus), (Some(512 << 20), Some(1_000_000_000)));
        let binding = host.port_bindings.unwrap()["8000/tcp"].clone().unwrap();
        assert_eq!(binding[0].host_ip.as_deref(), Some("127.0.0.1"));
        assert_eq!(binding[0].host_port.as_deref(), Some("23456"));
        let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
        assert_eq!(endpoints["net"].aliases.as_deref(), Some(&[container_name(id)][..]));
    }

    #[test]
    fn tier_3_is_privileged_on_the_platform_network() {
        // 4.4
        let (_, host) = request(&spec_of(Tier::Privileged));
        assert_eq!((host.privileged, host.pid_mode.as_deref()), (Some(true), Some("host")));
        assert_eq!(host.network_mode.as_deref(), Some("net"));
        assert!(host.port_bindings.is_some());
        assert_eq!(host.memory, Some(2048 << 20));
        assert!(!host.binds.unwrap().iter().any(|bind| bind.contains("docker.sock")));
    }

    #[test]
    fn tier_4_has_the_host() {
        // 4.4, 2.R42: no platform network, no published port; 2.R40: capped by the engine
        let (body, host) = request(&spec_of(Tier::FullHost));
        assert_eq!((host.privileged, host.pid_mode.as_deref()), (Some(true), Some("host")));
        assert_eq!(host.network_mode.as_deref(), Some("host"));
        assert!(
            host.port_bindings.is_none() && body.networking_config.is_none() && body.exposed_ports.is_none()
        );
        assert!(host.binds.unwrap().contains(&"/var/run/docker.sock:/var/run/docker.sock".to_owned()));
        assert_eq!((host.memory, host.nano_cpus), (Some(4096 << 20), Some(2_000_000_000)));
    }

    #[test]
    fn what_every_tier_has() {
        // 2.R25, 2.R26, 2.R46
        for tier in [Tier::Sandboxed, Tier::Standard, Tier::Privileged, Tier::FullHost] {
            let spec = spec_of(tier);
            let (body, host) = request(&spec);
            assert_eq!(body.hostname.unwrap(), container_name(spec.workspace_id));
            assert_eq!(body.labels.unwrap()["molecule.workspace.id"], spec.workspace_id.to_string());
            assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::UNLESS_STOPPED));
            assert!(body.env.unwrap().contains(&format!("WORKSPACE_ID={}", spec.workspace_id)));
            assert_eq!(host.log_config.unwrap().config.unwrap()["max-size"], "10m");
        }
    }

    #[test]
    fn a_host_folder_replaces_the_volume() {
        // 4.3, 2.R161
        let mut spec = spec_of(Tier::Standard);
        for (read_only, access) in [(true, "ro"), (false, "rw")] {
            spec.workspace_mount = WorkspaceMount::Bind { path: "/srv/code".into(), read_only };
            assert!(request(&spec).1.binds.unwrap().contains(&format!("/srv/code:/workspace:{access}")));
        }
        let names: Vec<_> = volume_requests(&spec, None).into_iter().filter_map(|v| v.name).collect();
        assert!(!names.contains(&workspace_volume(spec.workspace_id)));
    }

    #[test]
    fn only_claude_code_keeps_sessions() {
        // 4.3
        let spec = StartSpec { runtime: "sample".into(), ..spec_of(Tier::Standard) };
        assert!(!request(&spec).1.binds.unwrap().iter().any(|bind| bind.contains("claude")));
        assert_eq!(volume_requests(&spec, None).len(), 2);
    }

    #[test]
    fn volumes_are_labelled() {
        // 2.R26, 2.R35
        for volume in volume_requests(&spec_of(Tier::Standard), Some("blue")) {
            let labels = volume.labels.unwrap();
            assert_eq!(labels["molecule.platform.managed"], "true");
            assert_eq!(labels["molecule.platform.instance"], "blue");
        }
    }

    #[test]
    fn the_host_gateway_is_added_for_its_name_only() {
        // 2.R32
        let mut spec = spec_of(Tier::Standard);
        for (url, expected) in [
            ("http://host.docker.internal:8080", true),
            ("http://HOST.docker.internal/x", true),
            ("http://u:p@host.docker.internal", true),
            ("http://host.docker.internal.evil:8080", false),
            ("http://10.0.0.1:8080/host.docker.internal", false),
            ("http://[::1]:8080", false),
        ] {
            spec.platform_url = url.into();
            let hosts = request(&spec).1.extra_hosts;
            assert_eq!(hosts.is_some(), expected, "{url}");
            if let Some(hosts) = hosts {
                assert_eq!(hosts, ["host.docker.internal:host-gateway"]);
            }
        }
    }
}
