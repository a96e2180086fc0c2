//! Boot, in the order of 2.R163.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mws_a2a_proxy::{Proxy, ProxyOptions, ProxyParts};
use mws_db::activity::ActivityLog;
use mws_db::private::{PrivateConfig, PrivateError, PrivatePostgres, Tuning};
use mws_db::stamps::Stamps;
use mws_db::tokens::Tokens;
use mws_db::{Db, DbOptions};
use mws_egress::{AgentClient, AgentGuard, GuardMode};
use mws_events::{Hub, ParentMap};
use mws_lifecycle::{JobRunner, Lifecycle, LifecycleOptions, Parts, RunnerOptions};
use mws_provisioner::{
    BackendSetting, Backends, DockerConfig, ImageResolver, LimitOverride, LimitOverrides, Route,
};
use mws_registry_sweepers::sweeps::{LivenessSweep, ProvisionTimeoutSweep, TeardownReaper};
use mws_registry_sweepers::{Registry, RegistryParts};
use mws_runtime::config::{BackendChoice, Config, EnvClass, TierLimits};
use mws_runtime::tasks::Spawner;
use mws_secrets::KeyRing;
use mws_tasks::Frame;
use mws_templates::{KnownRuntimes, ManifestSource, ProvisionTimeouts, Templates, find_root};
use mws_wsauth::{AdminToken, AuthPolicy, Authenticator, Environment};
use secrecy::{ExposeSecret, SecretString};

use crate::App;
use crate::adapters::{Agents, HubSink, Tree, record_restarts};

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// 5.R124, 5.R125: the message names the variable, never a key.
    #[error("{0}")]
    SecretsKey(String),
    /// No private Postgres.
    #[error(transparent)]
    Postgres(#[from] PrivateError),
    /// The database is away, foreign, or of another version.
    #[error(transparent)]
    Database(#[from] mws_db::Error),
    /// The current directory cannot be read.
    #[error("the current directory cannot be read")]
    CurrentDir(#[source] std::io::Error),
}

/// Applies the migrations and does nothing else.
///
/// # Errors
/// See [`BootError`].
pub async fn migrate(config: &Config) -> Result<(), BootError> {
    let (postgres, url) = database(config).await?;
    let migrated = mws_db::migrate(url.expose_secret()).await;
    if let Some(postgres) = postgres {
        postgres.release().await?;
    }
    Ok(migrated?)
}

/// Builds and starts everything but HTTP. With `sweeps` off this process leaves them to others (3.R93).
///
/// # Errors
/// See [`BootError`]; nothing is left running.
pub async fn start(config: &Config, spawner: Spawner) -> Result<App, BootError> {
    start_on(config, spawner, backends(config)).await
}

/// The same on given backends.
///
/// # Errors
/// See [`BootError`]; nothing is left running.
pub async fn start_on(config: &Config, spawner: Spawner, backends: Backends) -> Result<App, BootError> {
    let keys = key_ring(config)?;
    let (postgres, url) = database(config).await?;
    mws_db::migrate(url.expose_secret()).await?;
    let hub = Hub::new(config.ws_max_clients);
    let db = Db::connect(&DbOptions::new(url.expose_secret()), Arc::new(HubSink(hub.clone()))).await?;
    db.check_status_labels().await?;
    warn_of_unreadable_secrets(&db, &keys).await?;
    record_restarts(&db, &spawner);

    let cwd = std::env::current_dir().map_err(BootError::CurrentDir)?;
    let templates = Templates::new(find_root(config.templates.configs_dir.as_deref(), &cwd));
    let runtimes = known_runtimes(config, &cwd);
    let backends = Arc::new(backends);
    announce_backend(&backends).await;
    let guard = AgentGuard::new(guard_mode(config), config.server.port);
    let lifecycle = Lifecycle::new(Parts {
        db: db.clone(),
        backends,
        images: ImageResolver::new(
            config.provisioner.image_overrides.clone(),
            Some(&config.provisioner.image_registry),
        ),
        keys,
        guard: guard.clone(),
        timeouts: Arc::new(ProvisionTimeouts::new(templates.clone(), config.provisioner.timeout)),
        templates,
        runtimes,
        spawner: spawner.clone(),
        options: LifecycleOptions {
            platform_url: config.server.platform_url.as_str().to_owned(),
            awareness_url: config.provisioner.awareness_url.as_ref().map(|url| url.as_str().to_owned()),
            workspace_dir: config.provisioner.workspace_dir.clone(),
            control_plane: route(config) == Route::ControlPlane,
            teardown_deadline: Duration::from_secs(30),
        },
    });
    let stamps = Stamps::start(db.clone(), &spawner);
    let tokens = Tokens::new(db.clone(), stamps.clone());
    let registry = Registry::new(RegistryParts {
        db: db.clone(),
        lifecycle: lifecycle.clone(),
        guard: guard.clone(),
        hub: hub.clone(),
        self_registration: config.access.allow_self_registration,
    });
    let proxy = Proxy::new(ProxyParts {
        db: db.clone(),
        client: AgentClient::new(guard),
        log: ActivityLog::new(db.clone(), spawner.clone()),
        stamps,
        hub: hub.clone(),
        agents: Arc::new(Agents(lifecycle.clone())),
        spawner: spawner.clone(),
        options: ProxyOptions {
            idle_timeout: config.a2a.idle_timeout,
            header_timeout: config.a2a.response_header_timeout,
        },
    });

    let holder = holder();
    let again = lifecycle.reconcile().await?;
    if again > 0 {
        tracing::info!(workspaces = again, "starts that a crash interrupted are requested again");
    }
    let starts = usize::try_from(config.provisioner.concurrency).unwrap_or(1);
    let runner = JobRunner::new(lifecycle.clone(), RunnerOptions::new(&holder, starts));
    start_background(&spawner, &db, &lifecycle, &runner, &holder, config.sweeps);

    Ok(App {
        parents: Arc::new(ParentMap::new(&hub, Arc::new(Tree(db.clone())))),
        auth: Authenticator::new(Arc::new(tokens.clone()), auth_policy(config)),
        db,
        lifecycle,
        registry,
        proxy,
        hub,
        tokens,
        spawner,
        holder,
        runner,
        postgres,
    })
}

fn start_background(
    spawner: &Spawner,
    db: &Db,
    lifecycle: &Lifecycle,
    runner: &JobRunner,
    holder: &str,
    sweeps: bool,
) {
    let runner = runner.clone();
    spawner.supervise("restart-runner", move |shutdown| {
        let runner = runner.clone();
        async move { runner.run(shutdown).await }
    });
    if !sweeps {
        tracing::info!("MWS_SWEEPS is off: the sweeps are left to sweepers");
        return;
    }
    let frame = Frame::new(db.clone(), holder, spawner.clone());
    frame.start(Arc::new(LivenessSweep::new(db.clone(), lifecycle.clone(), holder)));
    frame.start(Arc::new(ProvisionTimeoutSweep::new(db.clone(), lifecycle.clone())));
    frame.start(Arc::new(TeardownReaper::new(db.clone(), lifecycle.clone())));
}

async fn database(config: &Config) -> Result<(Option<PrivatePostgres>, SecretString), BootError> {
    if let Some(url) = &config.server.database_url {
        return Ok((None, url.clone()));
    }
    let data_dir = config.server.data_dir.clone();
    let postgres = PrivatePostgres::start(PrivateConfig { data_dir, tuning: Tuning::Production }).await?;
    let url = SecretString::from(postgres.url());
    Ok((Some(postgres), url))
}

/// The keys of secrets at rest, with the strictness of 5.R124 to R126.
fn key_ring(config: &Config) -> Result<KeyRing, BootError> {
    let expose = |secret: &Option<SecretString>| secret.as_ref().map(|s| s.expose_secret().to_owned());
    let (key, old) = (expose(&config.secrets.key), expose(&config.secrets.old_keys));
    let class = config.access.env_class;
    if key.is_none() && class == EnvClass::Production {
        return Err(BootError::SecretsKey("SECRETS_ENCRYPTION_KEY is required in production".into()));
    }
    match KeyRing::parse(key.as_deref(), old.as_deref()) {
        Ok(keys) => {
            if !keys.is_enabled() {
                tracing::warn!("SECRETS_ENCRYPTION_KEY is not set: secrets are stored unencrypted");
            }
            Ok(keys)
        }
        Err(error) if class == EnvClass::Development => {
            tracing::warn!("{error}: secrets are stored unencrypted");
            Ok(KeyRing::disabled())
        }
        Err(error) => Err(BootError::SecretsKey(error.to_string())),
    }
}

async fn warn_of_unreadable_secrets(db: &Db, keys: &KeyRing) -> Result<(), BootError> {
    if !keys.is_enabled() {
        let count = db.count_encrypted_secrets().await?;
        if count > 0 {
            tracing::warn!(
                count,
                "encrypted secrets are stored and no key is configured: they cannot be used"
            );
        }
    }
    Ok(())
}

fn known_runtimes(config: &Config, cwd: &Path) -> KnownRuntimes {
    let (runtimes, source) = KnownRuntimes::load(config.templates.manifest_path.as_deref(), cwd);
    match source {
        ManifestSource::BuiltIn { .. } => tracing::warn!("{source}"),
        _ => tracing::info!("{source}"),
    }
    runtimes
}

fn route(config: &Config) -> Route {
    let setting = match config.provisioner.backend {
        BackendChoice::Auto => BackendSetting::Auto,
        BackendChoice::Docker => BackendSetting::Docker,
        BackendChoice::ControlPlane => BackendSetting::ControlPlane,
        BackendChoice::None => BackendSetting::None,
    };
    Route::decide(setting, config.access.org_id.as_deref())
}

fn backends(config: &Config) -> Backends {
    let provisioner = &config.provisioner;
    let limits = |tier: TierLimits| LimitOverride {
        memory_mb: Some(tier.memory_mib),
        cpu_shares: Some(tier.cpu_shares),
    };
    let docker = DockerConfig {
        docker_host: Some(provisioner.docker_host.clone()),
        network: provisioner.network.clone(),
        instance: provisioner.instance_id.clone(),
        limits: LimitOverrides {
            standard: limits(provisioner.tiers.tier2),
            privileged: limits(provisioner.tiers.tier3),
            full_host: limits(provisioner.tiers.tier4),
        },
        in_container: provisioner.in_docker,
    };
    Backends::new(route(config), docker)
}

async fn announce_backend(backends: &Backends) {
    match backends.require().await {
        Ok(backend) => tracing::info!(backend = backend.kind().as_str(), "agents are run here"),
        Err(reason) => tracing::warn!(?reason, "no provisioning backend: external agents only, for now"),
    }
}

const fn guard_mode(config: &Config) -> GuardMode {
    GuardMode {
        saas: config.access.saas,
        development: matches!(config.access.env_class, EnvClass::Development),
    }
}

fn auth_policy(config: &Config) -> AuthPolicy {
    let access = &config.access;
    AuthPolicy {
        admin_token: access.admin_token.as_ref().and_then(|token| AdminToken::new(token.expose_secret())),
        environment: match access.env_class {
            EnvClass::Production => Environment::Production,
            EnvClass::Development => Environment::Development,
            EnvClass::Other => Environment::Other,
        },
        bootstrap_open: access.bootstrap_open,
        local_hosts: access.allowed_hosts.clone(),
        allowed_origins: access.allowed_origins.clone(),
        require_caller_auth: config.a2a.require_caller_auth,
    }
}

/// Host name, process id and a random suffix (3.R96).
fn holder() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}:{}:{}", host.as_deref().unwrap_or("host"), std::process::id(), &random[..8])
}
