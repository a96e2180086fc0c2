//! The environment variables of the server, as data: read by the loader and printed into the documentation.

/// One environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What holds when it is unset, as a reader would write it.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
}

/// What stands for "no value" in [`Variable::default`].
pub const UNSET: &str = "unset";

const fn open(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, secret: false }
}

const fn secret(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default: UNSET, meaning, secret: true }
}

/// Every variable that the configuration is made of, in the order of the documentation (contract 00 §6).
pub const VARIABLES: &[Variable] = &[
    open("PORT", "8080", "listen port"),
    secret("DATABASE_URL", "Postgres; unset, the server starts a private one"),
    open("PLATFORM_URL", "http://host.docker.internal:<PORT>", "what managed agents dial; an allowed origin"),
    open("EXTERNAL_PLATFORM_URL", UNSET, "public base URL for external agents; an allowed origin"),
    open("CONFIGS_DIR", "the nearest workspace-configs-templates", "folder of the workspace templates"),
    open(
        "MWS_DATA_DIR",
        "/var/lib/mws for root, else mws in the user's data home",
        "the private Postgres and what else the server keeps",
    ),
    open("WORKSPACE_MANIFEST_PATH", "/app/manifest.json, else the nearest manifest.json", "known runtimes"),
    open("MOLECULE_ENV", UNSET, "`production`, `development` or anything else"),
    open(
        "MOLECULE_DEPLOY_MODE",
        "saas if MOLECULE_ORG_ID is set, else self-hosted",
        "`saas` or `self-hosted`",
    ),
    open(
        "MOLECULE_ORG_ID",
        UNSET,
        "the organisation of a hosted install; selects the control plane as backend",
    ),
    secret("ADMIN_TOKEN", "admin bearer; closes open development and the bootstrap of a fresh install"),
    open("MOLECULE_BOOTSTRAP_OPEN", "0", "`1` lets a fresh production install open without ADMIN_TOKEN"),
    open("MOLECULE_ALLOWED_HOSTS", UNSET, "further Host names for the open tiers, separated by commas"),
    open(
        "CORS_ORIGINS",
        "http://localhost:3000,http://localhost:3001",
        "allowed origins beside those of the platform URLs, separated by commas",
    ),
    secret("SECRETS_ENCRYPTION_KEY", "primary key of the secrets at rest; required in production"),
    secret("SECRETS_ENCRYPTION_KEYS_OLD", "keys for reading only, separated by commas"),
    open("PROVISIONER_BACKEND", "auto", "`auto`, `docker`, `controlplane` or `none`"),
    open("DOCKER_HOST", "unix:///var/run/docker.sock", "container engine"),
    open("MOLECULE_DOCKER_NETWORK", "molecule-monorepo-net", "network of the agents' containers"),
    open("MOLECULE_INSTANCE_ID", UNSET, "tells installations that share one engine apart"),
    open("MOLECULE_IN_DOCKER", "detected", "whether the server itself runs in a container (a boolean)"),
    open("WORKSPACE_IMAGE_OVERRIDES", UNSET, "images by runtime: `runtime=reference`, separated by commas"),
    open("MOLECULE_IMAGE_REGISTRY", "ghcr.io/molecule-ai", "registry and path of the runtimes' images"),
    open("PROVISION_CONCURRENCY", "3", "image starts at a time"),
    open("PROVISION_TIMEOUT_SECONDS", UNSET, "overrides every runtime's limit for provisioning"),
    open("TIER2_MEMORY_MB", "512", "memory of a tier 2 container, MiB"),
    open("TIER2_CPU_SHARES", "1024", "CPU of a tier 2 container, 1024 = one CPU"),
    open("TIER3_MEMORY_MB", "2048", "memory of a tier 3 container, MiB"),
    open("TIER3_CPU_SHARES", "2048", "CPU of a tier 3 container, 1024 = one CPU"),
    open("TIER4_MEMORY_MB", "4096", "memory of a tier 4 container, MiB"),
    open("TIER4_CPU_SHARES", "4096", "CPU of a tier 4 container, 1024 = one CPU"),
    open("WORKSPACE_DIR", UNSET, "default host folder mounted as /workspace, absolute"),
    open("AWARENESS_URL", UNSET, "handed to agents together with their namespace"),
    open("MWS_SWEEPS", "on", "`off` leaves the sweeps to sweepers"),
    open("MWS_ALLOW_SELF_REGISTRATION", "false", "an unknown id may register itself"),
    open("WS_MAX_CLIENTS", "2000", "WebSocket clients per process"),
    open("A2A_IDLE_TIMEOUT_SECONDS", "300", "silence that ends a dispatch"),
    open("A2A_RESPONSE_HEADER_TIMEOUT_SECONDS", "60", "wait for the response headers of a silent agent"),
    open("A2A_REQUIRE_CALLER_AUTH", "false", "no anonymous calls to /a2a"),
    open("RUST_LOG", "info", "filter of the log"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_listed_once_and_explained() {
        for (index, variable) in VARIABLES.iter().enumerate() {
            assert!(!variable.meaning.is_empty() && !variable.default.is_empty(), "{}", variable.name);
            assert!(VARIABLES[..index].iter().all(|other| other.name != variable.name), "{}", variable.name);
        }
    }
}
