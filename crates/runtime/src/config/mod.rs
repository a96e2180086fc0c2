//! Typed configuration, read from the environment once and frozen (5.R118).

mod http_url;
mod reader;
mod variables;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

pub use http_url::HttpUrl;
use reader::Reader;
pub use variables::{UNSET, VARIABLES, Variable};

/// A token shorter than this many characters can be guessed (5.R127).
const ADMIN_TOKEN_MIN: usize = 16;

/// What the server was told by its environment. `Debug` and [`summary`](Self::summary) show no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens, what it is called from outside, where it keeps its data.
    pub server: ServerConfig,
    /// Who may do what without or with which credential.
    pub access: AccessConfig,
    /// Keys of the secrets at rest.
    pub secrets: SecretsConfig,
    /// Where templates and the runtime manifest lie.
    pub templates: TemplatesConfig,
    /// How agents are run.
    pub provisioner: ProvisionerConfig,
    /// Limits of the message proxy.
    pub a2a: A2aConfig,
    /// Whether this process runs the sweeps (3.R93).
    pub sweeps: bool,
    /// WebSocket clients that this process serves at a time (3.R121).
    pub ws_max_clients: usize,
    /// Filter of the log, in the syntax of `RUST_LOG`.
    pub log_filter: Option<String>,
}

/// Where the server listens, what it is called from outside, where it keeps its data.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// TCP port, on every interface.
    pub port: u16,
    /// What managed agents dial.
    pub platform_url: HttpUrl,
    /// Public base URL for external agents (1.R72).
    pub external_platform_url: Option<HttpUrl>,
    /// Postgres; none means a private one. Secret, for it holds a password.
    pub database_url: Option<SecretString>,
    /// Absolute. The private Postgres and what else the server keeps.
    pub data_dir: PathBuf,
}

/// Who may do what without or with which credential.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// What kind of install this is.
    pub env_class: EnvClass,
    /// SaaS mode for the SSRF guard and the orphan sweep (5.R163). Which backend runs the agents is another
    /// question: [`org_id`](Self::org_id) (2.R5).
    pub saas: bool,
    /// The organisation of a hosted install.
    pub org_id: Option<String>,
    /// The admin bearer, trimmed and never empty.
    pub admin_token: Option<SecretString>,
    /// A fresh production install may be opened without an admin token (5.R83).
    pub bootstrap_open: bool,
    /// Host names, in lower case and without port, under which the open tiers answer besides local ones: those of
    /// the platform URLs and the operator's own (5.R82).
    pub allowed_hosts: Vec<String>,
    /// The origins of 5.R95, those of the platform URLs included; to be matched exactly.
    pub allowed_origins: Vec<String>,
    /// An unknown id may register itself (3.R19).
    pub allow_self_registration: bool,
}

/// Keys of the secrets at rest, unparsed: `mws-secrets` knows their forms (5.R129).
#[derive(Clone, Debug)]
pub struct SecretsConfig {
    /// The primary key.
    pub key: Option<SecretString>,
    /// A comma-separated list of keys for reading only.
    pub old_keys: Option<SecretString>,
}

/// Where templates and the runtime manifest lie, as far as the operator said so.
#[derive(Clone, Debug)]
pub struct TemplatesConfig {
    /// Folder of the workspace templates; none means the nearest (6 §1).
    pub configs_dir: Option<PathBuf>,
    /// File of known runtimes; none means the nearest (6 §5).
    pub manifest_path: Option<PathBuf>,
}

/// How agents are run.
#[derive(Clone, Debug)]
pub struct ProvisionerConfig {
    /// Which backend the operator chose (2.R8).
    pub backend: BackendChoice,
    /// Address of the container engine: `unix://`, `tcp://`, `http://` or `https://` (2.R6).
    pub docker_host: String,
    /// The agents' network (2.R27).
    pub network: String,
    /// Tells installations that share one engine apart (2.R26, 3.R85).
    pub instance_id: Option<String>,
    /// Whether the server runs in a container; none means that it has to be detected (2.R31).
    pub in_docker: Option<bool>,
    /// Image references by runtime name, without a trailing `-default` (2 §3.2).
    pub image_overrides: BTreeMap<String, String>,
    /// Registry and path of the runtimes' images, without a trailing slash.
    pub image_registry: String,
    /// Image starts at a time, at least 1 (2.R83).
    pub concurrency: u32,
    /// Overrides every runtime's limit for provisioning (3.R78).
    pub timeout: Option<Duration>,
    /// Limits of the tiers 2, 3 and 4 (2.R40).
    pub tiers: TierConfig,
    /// Default host folder for `/workspace`: absolute, without `..` (2.R161).
    pub workspace_dir: Option<PathBuf>,
    /// Handed to agents with their namespace.
    pub awareness_url: Option<HttpUrl>,
}

/// Limits of the tiers that have any (2.R40).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierConfig {
    /// Standard.
    pub tier2: TierLimits,
    /// Privileged.
    pub tier3: TierLimits,
    /// Full host.
    pub tier4: TierLimits,
}

/// What a container may use; both above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierLimits {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// CPU; 1024 shares are one CPU.
    pub cpu_shares: u32,
}

/// Limits of the message proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct A2aConfig {
    /// Silence that ends a dispatch (4.R49).
    pub idle_timeout: Duration,
    /// How long a silent agent may keep its response headers back (4.R50).
    pub response_header_timeout: Duration,
    /// Anonymous calls are refused (4.R17).
    pub require_caller_auth: bool,
}

/// What kind of install this is (5 §0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvClass {
    /// Guards are strict, the secrets key is required.
    Production,
    /// Guards may be relaxed.
    Development,
    /// Neither was said.
    Other,
}

impl EnvClass {
    /// Reads `MOLECULE_ENV`: trimmed, in any case; `staging`, `devel` and the like are [`Other`](Self::Other).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.trim().to_ascii_lowercase().as_str() {
            "production" | "prod" => Self::Production,
            "development" | "dev" => Self::Development,
            _ => Self::Other,
        }
    }
}

/// Which backend runs the agents (2.R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendChoice {
    /// The control plane when there is an organisation, else a container engine when one answers, else none.
    Auto,
    /// The container engine.
    Docker,
    /// The control plane.
    ControlPlane,
    /// External agents only.
    None,
}

/// What the configuration needs to know of the machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// The process runs as root.
    pub root: bool,
    /// What a relative data folder is relative to.
    pub current_dir: PathBuf,
    /// `XDG_DATA_HOME`, when set.
    pub data_home: Option<PathBuf>,
    /// `HOME`, when set.
    pub home: Option<PathBuf>,
}

/// A configuration with what had to be overlooked to make it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line per value that was set but could not be used, and per setting that is unsafe. Free of secrets.
    pub warnings: Vec<String>,
}

/// No configuration can be made that the operator would recognise as meant.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Starting on an empty private database instead would look like a loss of all data.
    #[error("DATABASE_URL is not a postgres:// or postgresql:// URL")]
    DatabaseUrl,
    /// Neither `MWS_DATA_DIR` nor a home to put it in.
    #[error("there is no folder to keep data in: set MWS_DATA_DIR")]
    NoDataDir,
    /// The current directory is gone or unreadable.
    #[error("the current directory cannot be read")]
    CurrentDir(#[source] std::io::Error),
}

impl Host {
    /// Asks the operating system.
    ///
    /// # Errors
    /// When the current directory cannot be read.
    #[expect(clippy::disallowed_methods, reason = "this is the one home of environment reads")]
    pub fn current() -> Result<Self, ConfigError> {
        let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Ok(Self {
            root: nix::unistd::geteuid().is_root(),
            current_dir: std::env::current_dir().map_err(ConfigError::CurrentDir)?,
            data_home: folder("XDG_DATA_HOME"),
            home: folder("HOME"),
        })
    }

    fn default_data_dir(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/var/lib/mws"));
        }
        let data_home = self.data_home.clone();
        Some(data_home.or_else(|| Some(self.home.as_ref()?.join(".local/share")))?.join("mws"))
    }
}

impl Config {
    /// The configuration of this process, from its environment. The only place that reads it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[expect(clippy::disallowed_methods, reason = "this is the one home of environment reads")]
    pub fn from_process() -> Result<Loaded, ConfigError> {
        let mut unreadable = Vec::new();
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => environment.push((name, value)),
                Err(_) if VARIABLES.iter().any(|variable| variable.name == name) => {
                    unreadable.push(format!("{name} is not valid UTF-8; taking it as unset"));
                }
                Err(_) => {}
            }
        }
        let mut loaded = Self::load(environment, &Host::current()?)?;
        loaded.warnings.append(&mut unreadable);
        Ok(loaded)
    }

    /// Makes a configuration out of variables. Unknown names are ignored, an empty value is the same as none, an
    /// unusable one gives a warning and the default.
    ///
    /// # Errors
    /// When a default in the place of an unusable value would be dangerous, or there is none.
    pub fn load(
        environment: impl IntoIterator<Item = (String, String)>,
        host: &Host,
    ) -> Result<Loaded, ConfigError> {
        let mut reader = Reader::new(environment);
        let server = server(&mut reader, host)?;
        let config = Self {
            access: access(&mut reader, &server),
            secrets: SecretsConfig {
                key: reader.exact_secret("SECRETS_ENCRYPTION_KEY"),
                old_keys: reader.exact_secret("SECRETS_ENCRYPTION_KEYS_OLD"),
            },
            templates: TemplatesConfig {
                configs_dir: reader.text("CONFIGS_DIR").map(PathBuf::from),
                manifest_path: reader.text("WORKSPACE_MANIFEST_PATH").map(PathBuf::from),
            },
            provisioner: provisioner(&mut reader),
            a2a: A2aConfig {
                idle_timeout: seconds(&mut reader, "A2A_IDLE_TIMEOUT_SECONDS")
                    .unwrap_or(Duration::from_secs(300)),
                response_header_timeout: seconds(&mut reader, "A2A_RESPONSE_HEADER_TIMEOUT_SECONDS")
                    .unwrap_or(Duration::from_secs(60)),
                require_caller_auth: reader.boolean("A2A_REQUIRE_CALLER_AUTH").unwrap_or(false),
            },
            sweeps: reader.parse("MWS_SWEEPS", on_or_off).unwrap_or(true),
            ws_max_clients: reader.positive("WS_MAX_CLIENTS").unwrap_or(2000),
            log_filter: reader.string("RUST_LOG"),
            server,
        };
        Ok(Loaded { config, warnings: reader.warnings })
    }

    /// Whether requests without a credential pass as in open development (5 §0). The peer and the host name that
    /// 5.R82 asks for are the caller's to check.
    #[must_use]
    pub fn dev_open(&self) -> bool {
        self.access.admin_token.is_none() && self.access.env_class == EnvClass::Development
    }

    /// What is in effect, by variable and in the order of [`VARIABLES`]; of a secret only whether it is set.
    #[must_use]
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        VARIABLES.iter().map(|variable| (variable.name, self.shown(variable.name))).collect()
    }

    fn shown(&self, name: &str) -> String {
        let Self { server, access, secrets, templates, provisioner, a2a, .. } = self;
        let tiers = &provisioner.tiers;
        match name {
            "PORT" => server.port.to_string(),
            "DATABASE_URL" => is_set(server.database_url.as_ref()),
            "PLATFORM_URL" => server.platform_url.to_string(),
            "EXTERNAL_PLATFORM_URL" => or_unset(server.external_platform_url.as_ref()),
            "CONFIGS_DIR" => or_unset(templates.configs_dir.as_deref().map(Path::display)),
            "MWS_DATA_DIR" => server.data_dir.display().to_string(),
            "WORKSPACE_MANIFEST_PATH" => or_unset(templates.manifest_path.as_deref().map(Path::display)),
            "MOLECULE_ENV" => format!("{:?}", access.env_class).to_lowercase(),
            "MOLECULE_DEPLOY_MODE" => if access.saas { "saas" } else { "self-hosted" }.to_owned(),
            "MOLECULE_ORG_ID" => or_unset(access.org_id.as_ref()),
            "ADMIN_TOKEN" => is_set(access.admin_token.as_ref()),
            "MOLECULE_BOOTSTRAP_OPEN" => u8::from(access.bootstrap_open).to_string(),
            "MOLECULE_ALLOWED_HOSTS" => access.allowed_hosts.join(","),
            "CORS_ORIGINS" => access.allowed_origins.join(","),
            "SECRETS_ENCRYPTION_KEY" => is_set(secrets.key.as_ref()),
            "SECRETS_ENCRYPTION_KEYS_OLD" => is_set(secrets.old_keys.as_ref()),
            "PROVISIONER_BACKEND" => format!("{:?}", provisioner.backend).to_lowercase(),
            "DOCKER_HOST" => provisioner.docker_host.clone(),
            "MOLECULE_DOCKER_NETWORK" => provisioner.network.clone(),
            "MOLECULE_INSTANCE_ID" => or_unset(provisioner.instance_id.as_ref()),
            "MOLECULE_IN_DOCKER" => {
                provisioner.in_docker.map_or_else(|| "to be detected".to_owned(), |inside| inside.to_string())
            }
            "WORKSPACE_IMAGE_OVERRIDES" => {
                let pairs = provisioner.image_overrides.iter();
                let list: Vec<String> = pairs.map(|(runtime, image)| format!("{runtime}={image}")).collect();
                or_unset(Some(list.join(",")).filter(|list| !list.is_empty()))
            }
            "MOLECULE_IMAGE_REGISTRY" => provisioner.image_registry.clone(),
            "PROVISION_CONCURRENCY" => provisioner.concurrency.to_string(),
            "PROVISION_TIMEOUT_SECONDS" => or_unset(provisioner.timeout.map(|limit| limit.as_secs())),
            "TIER2_MEMORY_MB" => tiers.tier2.memory_mib.to_string(),
            "TIER2_CPU_SHARES" => tiers.tier2.cpu_shares.to_string(),
            "TIER3_MEMORY_MB" => tiers.tier3.memory_mib.to_string(),
            "TIER3_CPU_SHARES" => tiers.tier3.cpu_shares.to_string(),
            "TIER4_MEMORY_MB" => tiers.tier4.memory_mib.to_string(),
            "TIER4_CPU_SHARES" => tiers.tier4.cpu_shares.to_string(),
            "WORKSPACE_DIR" => or_unset(provisioner.workspace_dir.as_deref().map(Path::display)),
            "AWARENESS_URL" => or_unset(provisioner.awareness_url.as_ref()),
            "MWS_SWEEPS" => if self.sweeps { "on" } else { "off" }.to_owned(),
            "MWS_ALLOW_SELF_REGISTRATION" => access.allow_self_registration.to_string(),
            "WS_MAX_CLIENTS" => self.ws_max_clients.to_string(),
            "A2A_IDLE_TIMEOUT_SECONDS" => a2a.idle_timeout.as_secs().to_string(),
            "A2A_RESPONSE_HEADER_TIMEOUT_SECONDS" => a2a.response_header_timeout.as_secs().to_string(),
            "A2A_REQUIRE_CALLER_AUTH" => a2a.require_caller_auth.to_string(),
            "RUST_LOG" => or_unset(self.log_filter.as_ref()),
            _ => String::new(),
        }
    }
}

fn is_set(secret: Option<&SecretString>) -> String {
    if secret.is_some() { "set" } else { UNSET }.to_owned()
}

fn or_unset(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNSET.to_owned(), |value| value.to_string())
}

fn server(reader: &mut Reader, host: &Host) -> Result<ServerConfig, ConfigError> {
    let database_url = reader.secret("DATABASE_URL");
    if let Some(url) = &database_url {
        let url = url.expose_secret();
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(ConfigError::DatabaseUrl);
        }
    }
    let port = reader.positive("PORT").unwrap_or(8080);
    let platform_url = match reader.parse("PLATFORM_URL", HttpUrl::parse) {
        Some(url) => url,
        None => HttpUrl::of_docker_host(port),
    };
    let data_dir = match reader.text("MWS_DATA_DIR") {
        Some(folder) => host.current_dir.join(folder),
        None => host.default_data_dir().ok_or(ConfigError::NoDataDir)?,
    };
    let external_platform_url = reader.parse("EXTERNAL_PLATFORM_URL", HttpUrl::parse);
    Ok(ServerConfig { port, platform_url, external_platform_url, database_url, data_dir })
}

fn access(reader: &mut Reader, server: &ServerConfig) -> AccessConfig {
    let env_class = EnvClass::parse(reader.text("MOLECULE_ENV").unwrap_or_default());
    let org_id = reader.string("MOLECULE_ORG_ID");
    let admin_token = reader.secret("ADMIN_TOKEN");
    match &admin_token {
        Some(token) if token.expose_secret().chars().count() < ADMIN_TOKEN_MIN => {
            reader.warn("ADMIN_TOKEN", "is shorter than 16 characters: it can be guessed");
        }
        None if env_class == EnvClass::Production => {
            reader.warn("ADMIN_TOKEN", "is not set in production: it is needed to administer this install");
        }
        _ => {}
    }
    let platform_urls = || std::iter::once(&server.platform_url).chain(&server.external_platform_url);
    let mut allowed_hosts = reader.list("MOLECULE_ALLOWED_HOSTS", host_name).unwrap_or_default();
    allowed_hosts.extend(platform_urls().map(|url| url.host().to_owned()));
    let mut allowed_origins = reader
        .list("CORS_ORIGINS", origin)
        .unwrap_or_else(|| vec!["http://localhost:3000".to_owned(), "http://localhost:3001".to_owned()]);
    allowed_origins.extend(platform_urls().map(|url| url.origin().to_owned()));
    AccessConfig {
        saas: saas(reader, org_id.as_deref()),
        env_class,
        org_id,
        admin_token,
        bootstrap_open: reader.parse("MOLECULE_BOOTSTRAP_OPEN", one_or_zero).unwrap_or(false),
        allowed_hosts: without_repeats(allowed_hosts),
        allowed_origins: without_repeats(allowed_origins),
        allow_self_registration: reader.boolean("MWS_ALLOW_SELF_REGISTRATION").unwrap_or(false),
    }
}

/// 5.R163.
fn saas(reader: &mut Reader, org_id: Option<&str>) -> bool {
    let mode = reader.text("MOLECULE_DEPLOY_MODE").map(str::to_lowercase);
    match mode.as_deref() {
        None => org_id.is_some(),
        Some("saas") => true,
        Some("self-hosted" | "selfhosted" | "standalone") => false,
        Some(_) => {
            reader.warn("MOLECULE_DEPLOY_MODE", "is not usable; taking self-hosted");
            false
        }
    }
}

fn provisioner(reader: &mut Reader) -> ProvisionerConfig {
    ProvisionerConfig {
        backend: reader.parse("PROVISIONER_BACKEND", backend).unwrap_or(BackendChoice::Auto),
        docker_host: reader
            .parse("DOCKER_HOST", engine_address)
            .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()),
        network: reader
            .parse("MOLECULE_DOCKER_NETWORK", engine_name)
            .unwrap_or_else(|| "molecule-monorepo-net".to_owned()),
        instance_id: reader.string("MOLECULE_INSTANCE_ID"),
        in_docker: reader.boolean("MOLECULE_IN_DOCKER"),
        image_overrides: reader
            .list("WORKSPACE_IMAGE_OVERRIDES", image_override)
            .unwrap_or_default()
            .into_iter()
            .collect(),
        image_registry: reader
            .parse("MOLECULE_IMAGE_REGISTRY", image_registry)
            .unwrap_or_else(|| "ghcr.io/molecule-ai".to_owned()),
        concurrency: reader.positive("PROVISION_CONCURRENCY").unwrap_or(3),
        timeout: seconds(reader, "PROVISION_TIMEOUT_SECONDS"),
        tiers: TierConfig {
            tier2: tier(reader, "TIER2_MEMORY_MB", 512, "TIER2_CPU_SHARES", 1024),
            tier3: tier(reader, "TIER3_MEMORY_MB", 2048, "TIER3_CPU_SHARES", 2048),
            tier4: tier(reader, "TIER4_MEMORY_MB", 4096, "TIER4_CPU_SHARES", 4096),
        },
        workspace_dir: reader.parse("WORKSPACE_DIR", host_folder),
        awareness_url: reader.parse("AWARENESS_URL", HttpUrl::parse),
    }
}

fn tier(reader: &mut Reader, memory: &'static str, mib: u32, cpu: &'static str, shares: u32) -> TierLimits {
    TierLimits {
        memory_mib: reader.positive(memory).unwrap_or(mib),
        cpu_shares: reader.positive(cpu).unwrap_or(shares),
    }
}

/// At most `u32::MAX` seconds, so that adding it to a time cannot overflow.
fn seconds(reader: &mut Reader, name: &'static str) -> Option<Duration> {
    reader.positive::<u32>(name).map(|seconds| Duration::from_secs(seconds.into()))
}

fn on_or_off(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// Opening an install takes exactly `1`.
fn one_or_zero(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

fn backend(text: &str) -> Option<BackendChoice> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Some(BackendChoice::Auto),
        "docker" => Some(BackendChoice::Docker),
        "controlplane" => Some(BackendChoice::ControlPlane),
        "none" => Some(BackendChoice::None),
        _ => None,
    }
}

/// The host of `name`, `name:port` or a URL.
fn host_name(entry: &str) -> Option<String> {
    let url = if entry.contains("://") { entry.to_owned() } else { format!("http://{entry}") };
    Some(HttpUrl::parse(&url)?.host().to_owned())
}

/// `scheme://host[:port]`, as a browser would send it. Wildcards would never match.
fn origin(entry: &str) -> Option<String> {
    let (scheme, host) = entry.split_once("://")?;
    let plain = |text: &str| !text.is_empty() && !text.contains(['*', '/', '?', '#', '@', ' ']);
    (plain(scheme) && plain(host)).then(|| entry.to_owned())
}

fn engine_address(text: &str) -> Option<String> {
    let known = ["unix://", "tcp://", "http://", "https://"];
    let usable = known.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    (usable && !text.contains('@')).then(|| text.to_owned())
}

/// What the engine accepts as the name of a network.
fn engine_name(text: &str) -> Option<String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let usable = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner);
    usable.then(|| text.to_owned())
}

fn image_override(entry: &str) -> Option<(String, String)> {
    let (runtime, image) = entry.split_once('=')?;
    let (runtime, image) = (runtime.trim(), image.trim());
    let runtime = runtime.strip_suffix("-default").unwrap_or(runtime);
    let usable = !runtime.is_empty() && is_reference(image);
    usable.then(|| (runtime.to_owned(), image.to_owned()))
}

fn image_registry(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    (is_reference(text) && !text.contains("://")).then(|| text.to_owned())
}

fn is_reference(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())
}

fn host_folder(text: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(text);
    let climbs = folder.components().any(|component| component == Component::ParentDir);
    (folder.is_absolute() && !climbs).then_some(folder)
}

fn without_repeats(list: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    list.into_iter().filter(|entry| seen.insert(entry.clone())).collect()
}

#[cfg(test)]
mod tests;
