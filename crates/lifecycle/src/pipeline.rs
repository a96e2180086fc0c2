//! The provisioning pipeline (2 §6): from a row to a started agent, or to a row that says in safe words why
//! not. One path for every backend.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mws_db::jobs::ClaimedJob;
use mws_db::tokens::IssuedBy;
use mws_db::workspaces::ProvisionRow;
use mws_models::{Tier, WorkspaceId};
use mws_provisioner::{
    ConfigFile, ConfigSource, Credentials, InstanceRef, Provisioner, StartError, StartSpec, Started,
    StopMode, WorkspaceMount,
};
use mws_templates::{GeneratedConfig, generated_config, required_env};
use mws_wsauth::NewToken;
use secrecy::SecretString;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::environment::Environment;
use crate::{Failure, Lifecycle};

/// What a run may take, image pulls excluded (contract 2 §18).
const PIPELINE_DEADLINE: Duration = Duration::from_secs(180);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// The agent is started; its registration or first heartbeat makes it online.
    Started,
    /// Something else took the row: what was started is stopped again.
    LostRow,
    /// The row says why.
    Failed(Failure),
}

/// What distinguishes one start from another.
#[derive(Debug, Clone, Default)]
pub(crate) struct StartOptions {
    /// Template folder to lay on the configuration volume; `None` keeps what the volume holds.
    pub(crate) config: ConfigChoice,
    pub(crate) model: Option<String>,
    pub(crate) reset_session: bool,
    /// Cancelled when the job is no longer this process's.
    pub(crate) cancel: CancellationToken,
}

/// Where the configuration comes from (2.R100).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ConfigChoice {
    /// A first start: the named template, or what stands in for it, or a generated configuration.
    Create(Option<String>),
    /// The existing volume, recovered only when it is empty.
    #[default]
    Volume,
}

impl Lifecycle {
    /// One run. Everything outside the process happens only while the job is still held and the row still
    /// this generation's.
    pub(crate) async fn provision(
        &self,
        job: &ClaimedJob,
        backend: Arc<dyn Provisioner>,
        options: &StartOptions,
    ) -> RunEnd {
        let id = job.workspace_id;
        let row = match self.db().begin_provision_run(id).await {
            Ok(Some(row)) => row,
            Ok(None) => return RunEnd::LostRow,
            Err(error) => {
                tracing::error!(workspace_id = %id, error = &error as &dyn std::error::Error, "run not begun");
                return RunEnd::Failed(Failure::StartFailed);
            }
        };
        let started_at = Instant::now();
        tracing::info!(workspace_id = %id, runtime = %row.runtime, backend = ?backend.kind(),
            generation = row.generation, "provisioning begins");
        let steps = self.steps(job, &row, backend.as_ref(), options);
        let end = match timeout(PIPELINE_DEADLINE, Box::pin(steps)).await {
            Ok(end) => end,
            Err(_) => Err(Failure::StartFailed),
        };
        let end = match end {
            Ok(end) => end,
            Err(failure) => {
                self.mark_failed(id, Some(row.generation), &failure).await;
                RunEnd::Failed(failure)
            }
        };
        tracing::info!(workspace_id = %id, generation = row.generation, outcome = ?end,
            seconds = started_at.elapsed().as_secs_f64(), "provisioning ends");
        end
    }

    async fn steps(
        &self,
        job: &ClaimedJob,
        row: &ProvisionRow,
        backend: &dyn Provisioner,
        options: &StartOptions,
    ) -> Result<RunEnd, Failure> {
        let id = job.workspace_id;
        let secrets = self.db().secrets_for_start(id).await.map_err(|error| {
            tracing::error!(workspace_id = %id, error = &error as &dyn std::error::Error, "secrets not loaded");
            Failure::SecretsUnavailable
        })?;
        let env = Environment::assemble(id, row, &secrets, &self.parts().keys, options.model.as_deref())?;
        drop(secrets);
        let config = self.config_source(row, &env, &options.config).await?;
        preflight(&config, &env.vars)?;
        let credentials = self.mint_credentials(id, row.generation).await;
        if !self.owns(job, row.generation).await {
            return Ok(RunEnd::LostRow);
        }
        let instance = InstanceRef { workspace_id: id, instance_id: row.instance_id.clone() };
        let spec = self.start_spec(id, row, env, config, credentials, options);
        let started = backend.start(spec).await.map_err(|error| start_failure(id, &row.runtime, &error))?;
        if self.book(job, row.generation, &started).await {
            return Ok(RunEnd::Started);
        }
        // The row went to somebody else while the agent was being started.
        if let Err(error) = backend.stop(&instance, StopMode::Force).await {
            tracing::error!(workspace_id = %id, error = &error as &dyn std::error::Error,
                "LEAK-SUSPECT an agent without a row could not be stopped");
        }
        Ok(RunEnd::LostRow)
    }

    async fn owns(&self, job: &ClaimedJob, generation: i64) -> bool {
        let owns = async {
            let mut tx = self.db().begin().await?;
            let held = tx.holds_job(job).await?;
            drop(tx);
            Ok::<_, mws_db::Error>(held && self.db().owns_provision_run(job.workspace_id, generation).await?)
        };
        owns.await.unwrap_or(false)
    }

    /// Writes the address of the started agent; `false` when the row is no longer this run's.
    async fn book(&self, job: &ClaimedJob, generation: i64, started: &Started) -> bool {
        let Some(url) = started.host_url.as_deref().or(started.internal_url.as_deref()) else {
            return self.owns(job, generation).await;
        };
        let digest = started.image_digest.as_deref();
        // The agent runs: a database that is away for a moment must not make it an orphan.
        for pause in [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)] {
            match self.db().set_provisioned_url(job.workspace_id, generation, url, digest).await {
                Ok(booked) => return booked,
                Err(error) => {
                    tracing::warn!(workspace_id = %job.workspace_id, error = &error as &dyn std::error::Error,
                        "the agent's address was not stored");
                    tokio::time::sleep(pause).await;
                }
            }
        }
        false
    }

    /// Revokes and mints what the agent will prove itself with (2.R105). A failure leaves the old ones alone:
    /// the run goes on, and the agent's file on the volume still holds what the database knows.
    async fn mint_credentials(&self, id: WorkspaceId, generation: i64) -> Credentials {
        let auth_token = self
            .rotate_token(id)
            .await
            .inspect_err(|error| {
                tracing::error!(workspace_id = %id, generation, error = error as &dyn std::error::Error,
                    "the agent's token was not rotated");
            })
            .ok()
            .flatten();
        let inbound_secret = self.rotate_inbound_secret(id).await;
        Credentials { auth_token, inbound_secret }
    }

    async fn rotate_token(&self, id: WorkspaceId) -> Result<Option<SecretString>, mws_db::Error> {
        let token = NewToken::mint().map_err(|_| mws_db::Error::Unavailable(None))?;
        let mut tx = self.db().begin().await?;
        tx.revoke_tokens(id).await?;
        if !tx.issue_token(id, &token, IssuedBy::Provision).await? {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(SecretString::from(token.token.expose().to_owned())))
    }

    fn start_spec(
        &self,
        id: WorkspaceId,
        row: &ProvisionRow,
        env: Environment,
        config: ConfigSource,
        credentials: Credentials,
        options: &StartOptions,
    ) -> StartSpec {
        let parts = self.parts();
        let runtime = parts.runtimes.sanitise(&row.runtime).into_owned();
        let image = parts.images.resolve(&row.runtime, |name| parts.runtimes.is_known(name));
        if image.substituted {
            tracing::warn!(workspace_id = %id, runtime = %row.runtime, "unknown runtime; the default one runs in its place");
        }
        StartSpec {
            workspace_id: id,
            name: Some(row.name.clone()),
            image: image.reference,
            runtime,
            tier: Tier::from_stored(row.tier),
            env: env.vars,
            platform_url: parts.options.platform_url.clone(),
            awareness_url: parts.options.awareness_url.clone(),
            workspace_mount: self.workspace_mount(row),
            config,
            credentials,
            reset_session: options.reset_session,
            cancel: options.cancel.clone(),
        }
    }

    /// The host folder in effect (2.R161).
    fn workspace_mount(&self, row: &ProvisionRow) -> WorkspaceMount {
        let folder = row
            .workspace_dir
            .as_ref()
            .map(PathBuf::from)
            .or_else(|| self.parts().options.workspace_dir.clone());
        match (row.workspace_access.as_str(), folder) {
            ("read_only", Some(path)) => WorkspaceMount::Bind { path, read_only: true },
            ("read_write", Some(path)) => WorkspaceMount::Bind { path, read_only: false },
            _ => WorkspaceMount::Volume,
        }
    }

    /// 2.R101 and 2.R104: what to lay on the volume, and what to recover an empty one with.
    async fn config_source(
        &self,
        row: &ProvisionRow,
        env: &Environment,
        choice: &ConfigChoice,
    ) -> Result<ConfigSource, Failure> {
        let templates = self.parts().templates.clone();
        let runtime = self.parts().runtimes.sanitise(&row.runtime).into_owned();
        let generated = generated_config(&GeneratedConfig {
            name: &row.name,
            role: row.role.as_deref().unwrap_or_default(),
            tier: Tier::from_stored(row.tier).number(),
            runtime: &runtime,
            model: env.model(),
        });
        let generated = generated
            .map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>)
            .and_then(|yaml| Ok(ConfigFile::new("config.yaml", yaml.into_bytes())?))
            .map_err(|error| {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "no configuration could be generated"
                );
                Failure::StartFailed
            })?;
        let runtimes = self.parts().runtimes.clone();
        let choice = choice.clone();
        tokio::task::spawn_blocking(move || {
            let folder = match &choice {
                ConfigChoice::Create(None) => None,
                ConfigChoice::Create(Some(name)) => templates
                    .resolve(name)
                    .ok()
                    .flatten()
                    .or_else(|| templates.for_runtime(&runtimes, &runtime)),
                ConfigChoice::Volume => templates.for_runtime(&runtimes, &runtime),
            };
            let files = match folder.map(|folder| read_template(&templates, folder)) {
                Some(Ok(files)) => files,
                Some(Err(failure)) => return Err(failure),
                None => vec![generated],
            };
            Ok(match choice {
                ConfigChoice::Create(_) => ConfigSource { files, recovery: Vec::new() },
                ConfigChoice::Volume => ConfigSource { files: Vec::new(), recovery: files },
            })
        })
        .await
        .map_err(|_| Failure::StartFailed)?
    }

    /// Marks a row failed and tells it, both or neither (2.R86). The caller's run may be the broken thing, so
    /// this one has its own deadline.
    pub(crate) async fn mark_failed(&self, id: WorkspaceId, generation: Option<i64>, failure: &Failure) {
        let write = async {
            let mut tx = self.db().begin().await?;
            let changed = tx.provision_failed(id, generation, &failure.text(), failure.extra()).await?;
            tx.commit().await?;
            Ok::<_, mws_db::Error>(changed)
        };
        match timeout(Duration::from_secs(10), write).await {
            Ok(Ok(changed)) => {
                tracing::warn!(workspace_id = %id, code = failure.code(), changed, "provisioning failed");
            }
            Ok(Err(error)) => {
                tracing::error!(workspace_id = %id, code = failure.code(), error = &error as &dyn std::error::Error,
                    "a failed start could not be marked");
            }
            Err(_) => {
                tracing::error!(workspace_id = %id, code = failure.code(), "marking a failed start timed out");
            }
        }
    }
}

fn read_template(templates: &mws_templates::Templates, folder: PathBuf) -> Result<Vec<ConfigFile>, Failure> {
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        tracing::error!(error, "a template could not be read");
        Failure::StartFailed
    };
    let tree = templates.files(&folder).map_err(|error| unusable(&error))?;
    tree.files
        .into_iter()
        .map(|file| ConfigFile::new(file.path, file.contents).map_err(|error| unusable(&error)))
        .collect()
}

/// 2.R103: the configuration that will land names the variables it needs. With none at hand the agent checks.
fn preflight(config: &ConfigSource, vars: &BTreeMap<String, String>) -> Result<(), Failure> {
    let Some(file) = config.files.iter().rev().find(|file| file.path() == "config.yaml") else {
        return Ok(());
    };
    let Ok(required) =
        std::str::from_utf8(file.contents()).map_err(|_| ()).and_then(|y| required_env(y).map_err(|_| ()))
    else {
        tracing::warn!("config.yaml does not parse; the agent will check what it needs");
        return Ok(());
    };
    let set = |name: &String| vars.get(name).is_some_and(|value| !value.is_empty());
    let missing: Vec<_> = required.into_iter().filter(|name| !set(name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(Failure::MissingEnv(missing)) }
}

fn start_failure(id: WorkspaceId, runtime: &str, error: &StartError) -> Failure {
    tracing::error!(workspace_id = %id, error = error as &dyn std::error::Error, "the backend did not start the agent");
    match error {
        StartError::ImageMissing { .. } => Failure::ImageUnavailable { runtime: runtime.to_owned() },
        StartError::ConfigMissing => Failure::ConfigMissing,
        _ => Failure::StartFailed,
    }
}
