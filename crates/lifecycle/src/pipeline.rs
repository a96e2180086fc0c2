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
/// What a run beyond that may take to undo what it began.
const UNDO_DEADLINE: Duration = Duration::from_secs(30);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// The agent is started; its registration or first heartbeat makes it online.
    Started,
    /// Something else took the row: what was started is stopped again.
    LostRow,
    /// The database was away. Whoever takes the job over finds out what was reached (2.R165).
    Interrupted,
    /// The row says why.
    Failed(Failure),
}

/// Whether a run still owns its job and its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owned {
    Yes,
    No,
    /// The database was away.
    Unknown,
}

impl From<Result<bool, mws_db::Error>> for Owned {
    fn from(answer: Result<bool, mws_db::Error>) -> Self {
        match answer {
            Ok(true) => Self::Yes,
            Ok(false) => Self::No,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "not known whether the run owns its row"
                );
                Self::Unknown
            }
        }
    }
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
                return RunEnd::Interrupted;
            }
        };
        let started_at = Instant::now();
        tracing::info!(workspace_id = %id, runtime = %row.runtime, backend = ?backend.kind(),
            generation = row.generation, "provisioning begins");
        let end = match self.within_deadline(job, &row, backend.as_ref(), options).await {
            Ok(end) => end,
            Err(failure) => {
                self.mark_failed(job, Some(row.generation), &failure).await;
                RunEnd::Failed(failure)
            }
        };
        tracing::info!(workspace_id = %id, generation = row.generation, outcome = ?end,
            seconds = started_at.elapsed().as_secs_f64(), "provisioning ends");
        end
    }

    /// The steps within their deadline. A start that is cut off is told so first, and undoes what it created.
    async fn within_deadline(
        &self,
        job: &ClaimedJob,
        row: &ProvisionRow,
        backend: &dyn Provisioner,
        options: &StartOptions,
    ) -> Result<RunEnd, Failure> {
        let cancel = options.cancel.child_token();
        let mut steps = Box::pin(self.steps(job, row, backend, options, cancel.clone()));
        if let Ok(end) = timeout(PIPELINE_DEADLINE, &mut steps).await {
            return end;
        }
        tracing::error!(workspace_id = %job.workspace_id, "the run takes too long");
        cancel.cancel();
        if let Ok(end) = timeout(UNDO_DEADLINE, &mut steps).await {
            return end;
        }
        drop(steps);
        self.stop_stray(job, row, backend).await;
        Err(Failure::StartFailed)
    }

    async fn steps(
        &self,
        job: &ClaimedJob,
        row: &ProvisionRow,
        backend: &dyn Provisioner,
        options: &StartOptions,
        cancel: CancellationToken,
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
        let credentials = self.mint_credentials(job, row.generation).await;
        match self.owns(job, row.generation).await {
            Owned::Yes => {}
            Owned::No => return Ok(RunEnd::LostRow),
            Owned::Unknown => return Ok(RunEnd::Interrupted),
        }
        let spec = self.start_spec(id, row, env, config, credentials, options, cancel);
        let started = match backend.start(spec).await {
            Ok(started) => started,
            // Not a failure of the agent's: the job is somebody else's now.
            Err(StartError::Cancelled) if options.cancel.is_cancelled() => return Ok(RunEnd::LostRow),
            Err(error) => return Err(start_failure(id, &row.runtime, &error)),
        };
        match self.book(job, row.generation, &started).await {
            Owned::Yes => Ok(RunEnd::Started),
            Owned::No => {
                self.stop_stray(job, row, backend).await;
                Ok(RunEnd::LostRow)
            }
            // The agent runs: a database that is away must not cost it.
            Owned::Unknown => Ok(RunEnd::Interrupted),
        }
    }

    /// Stops what a run started that lost its row (2.R79). A later run's agent has the same name and is left
    /// alone: its start has replaced ours.
    async fn stop_stray(&self, job: &ClaimedJob, row: &ProvisionRow, backend: &dyn Provisioner) {
        let id = job.workspace_id;
        if self.db().is_superseded(id, row.generation).await.unwrap_or(false) {
            return;
        }
        let instance = InstanceRef { workspace_id: id, instance_id: row.instance_id.clone() };
        if let Err(error) = backend.stop(&instance, StopMode::Force).await {
            tracing::error!(workspace_id = %id, error = &error as &dyn std::error::Error,
                "LEAK-SUSPECT an agent without a row could not be stopped");
        }
    }

    async fn owns(&self, job: &ClaimedJob, generation: i64) -> Owned {
        let owns = async { self.db().begin().await?.holds_run(job, generation).await };
        Owned::from(owns.await)
    }

    /// Writes the address of the started agent.
    async fn book(&self, job: &ClaimedJob, generation: i64, started: &Started) -> Owned {
        let Some(url) = started.host_url.as_deref().or(started.internal_url.as_deref()) else {
            return self.owns(job, generation).await;
        };
        let digest = started.image_digest.as_deref();
        for pause in [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)] {
            match self.db().set_provisioned_url(job.workspace_id, generation, url, digest).await {
                Ok(booked) => return Owned::from(Ok(booked)),
                Err(error) => {
                    tracing::warn!(workspace_id = %job.workspace_id, error = &error as &dyn std::error::Error,
                        "the agent's address was not stored");
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Owned::Unknown
    }

    /// Revokes and mints what the agent will prove itself with (2.R105). A failure leaves the old ones alone:
    /// the run goes on, and the agent's file on the volume still holds what the database knows. A run that lost
    /// its row leaves them alone too: they are those of the agent that runs now.
    async fn mint_credentials(&self, job: &ClaimedJob, generation: i64) -> Credentials {
        let log = |error: &mws_db::Error| {
            tracing::error!(workspace_id = %job.workspace_id, generation, error = error as &dyn std::error::Error,
                "the agent's credentials were not rotated");
        };
        let auth_token = self.rotate_token(job, generation).await.inspect_err(log).ok().flatten();
        let inbound_secret =
            self.rotate_inbound_secret(job, generation).await.inspect_err(log).ok().flatten();
        Credentials { auth_token, inbound_secret }
    }

    async fn rotate_token(
        &self,
        job: &ClaimedJob,
        generation: i64,
    ) -> Result<Option<SecretString>, mws_db::Error> {
        let id = job.workspace_id;
        let token = NewToken::mint().map_err(|_| mws_db::Error::Unavailable(None))?;
        let mut tx = self.db().begin().await?;
        if !tx.holds_run(job, generation).await? {
            return Ok(None);
        }
        tx.revoke_tokens(id).await?;
        if !tx.issue_token(id, &token, IssuedBy::Provision).await? {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(SecretString::from(token.token.expose().to_owned())))
    }

    #[expect(clippy::too_many_arguments, reason = "one field of the spec each")]
    fn start_spec(
        &self,
        id: WorkspaceId,
        row: &ProvisionRow,
        env: Environment,
        config: ConfigSource,
        credentials: Credentials,
        options: &StartOptions,
        cancel: CancellationToken,
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
            cancel,
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

    /// Marks a row failed and tells it, both or neither, while the job is still held (2.R86). The caller's run
    /// may be the broken thing, so this one has its own deadline.
    pub(crate) async fn mark_failed(&self, job: &ClaimedJob, generation: Option<i64>, failure: &Failure) {
        let id = job.workspace_id;
        let write = async {
            let mut tx = self.db().begin().await?;
            let changed = tx.holds_job(job).await?
                && tx.provision_failed(id, generation, &failure.text(), failure.extra()).await?;
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
