//! Create: validation in the contract's order (1 §2.2), then one transaction.

use std::path::PathBuf;
use std::time::Duration;

use mws_db::Tx;
use mws_db::jobs::{JobKind, JobOptions, NewJob};
use mws_db::workspaces::NewWorkspace;
use mws_models::api::{CreateWorkspace, CreatedWorkspace};
use mws_models::{
    DEFAULT_RUNTIME, DeliveryMode, Event, Tier, WorkspaceId, WorkspaceStatus, is_external_like,
};
use mws_secrets::Binding;
use mws_wsauth::Caller;
use serde_json::json;

use crate::{Failure, Lifecycle, fields, provider};

/// The last suffix that a taken name is tried with.
const LAST_SUFFIX: u32 = 20;

/// Why a workspace was not created. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is missing or blank.
    #[error("invalid workspace payload")]
    InvalidPayload,
    /// A field is out of bounds.
    #[error("invalid workspace fields: {detail}")]
    InvalidFields {
        /// What is wrong, in words made from the caller's own input.
        detail: String,
    },
    /// The template's name leaves the templates root.
    #[error("invalid template")]
    InvalidTemplate,
    /// A template was named and no runtime could be read from it.
    #[error("the runtime of template {template:?} could not be resolved")]
    RuntimeUnresolved {
        /// As sent.
        template: String,
    },
    /// A spawned workspace needs a model.
    #[error("a model is required for runtime {runtime:?}")]
    ModelRequired {
        /// The resolved runtime.
        runtime: String,
        /// As sent, empty if none.
        template: String,
    },
    /// The host folder may not be mounted.
    #[error("invalid workspace directory")]
    InvalidDirectory,
    /// The access is unknown or needs a folder.
    #[error("invalid workspace access")]
    InvalidAccess,
    /// The address is not one that this server would dial.
    #[error("unsafe workspace URL: {0}")]
    UnsafeUrl(mws_egress::Refusal),
    /// Neither `push` nor `poll`.
    #[error("delivery_mode must be 'push' or 'poll'")]
    InvalidDeliveryMode,
    /// Malformed, unknown or removed.
    #[error("invalid parent_id")]
    InvalidParent,
    /// Every suffix of the name is taken.
    #[error("workspace name already in use; please pick a different name")]
    NameExhausted,
    /// The request asks for what this server does not offer.
    #[error("{0} is not available on this server")]
    NotAvailable(&'static str),
    /// The database refused or was away.
    #[error("failed to create workspace")]
    Store(#[from] mws_db::Error),
}

/// A request that passed every check that needs no database.
struct Checked {
    name: String,
    role: Option<String>,
    tier: Tier,
    runtime: String,
    model: String,
    template: Option<String>,
    workspace_dir: Option<String>,
    workspace_access: &'static str,
    delivery_mode: DeliveryMode,
    parent_id: Option<WorkspaceId>,
    budget_limit: Option<i64>,
    max_concurrent_tasks: i32,
    position: (f64, f64),
    warnings: Vec<String>,
}

fn absent_if_empty(value: Option<&str>) -> Option<String> {
    value.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn detail(detail: String) -> CreateError {
    CreateError::InvalidFields { detail }
}

impl Lifecycle {
    /// Creates a spawned workspace and requests its start.
    ///
    /// # Errors
    /// See [`CreateError`]; nothing is left behind.
    pub async fn create(
        &self,
        caller: &Caller,
        request: &CreateWorkspace,
    ) -> Result<CreatedWorkspace, CreateError> {
        let checked = self.check(request).await?;
        let backend = self.backends().current().await.is_some();
        let id = WorkspaceId::random();

        let mut tx = self.db().begin().await?;
        tx.patient().await?;
        if let Some(parent) = checked.parent_id
            && !tx.lock_parent(parent).await?
        {
            return Err(CreateError::InvalidParent);
        }
        for (key, value) in &request.secrets {
            fields::secret_key(key).and_then(|()| fields::secret_value(key, value)).map_err(detail)?;
        }
        let name = insert_under_free_name(&mut tx, id, &checked).await?;
        self.store_secrets(&mut tx, id, &checked, &request.secrets).await?;
        let template = checked.template.clone().unwrap_or_default();
        let config = json!({
            "name": name, "runtime": checked.runtime, "tier": checked.tier,
            "template": template, "model": checked.model,
        });
        tx.put_config(id, &config).await?;
        tx.record(Event::provisioning(id, &name, checked.tier, &checked.runtime));
        if backend {
            let options = JobOptions {
                template: checked.template.clone(),
                model: Some(checked.model.clone()),
                ..JobOptions::default()
            };
            tx.enqueue(&NewJob {
                workspace_id: id,
                kind: JobKind::Provision,
                reason: "create",
                automatic: false,
                options,
                delay: Duration::ZERO,
            })
            .await?;
        } else {
            let failure = Failure::NoBackend;
            tx.provision_failed(id, None, &failure.text(), failure.extra()).await?;
        }
        tx.commit().await?;
        tracing::info!(workspace_id = %id, actor = caller.actor(), runtime = %checked.runtime, backend, "workspace created");
        self.job_enqueued();
        Ok(CreatedWorkspace {
            id,
            status: WorkspaceStatus::Provisioning,
            workspace_access: checked.workspace_access.to_owned(),
            name,
            runtime: checked.runtime,
            tier: checked.tier,
            warnings: checked.warnings,
        })
    }

    /// Every check of 1 §2.2 but those of the parent's row and of the secrets, in order.
    async fn check(&self, request: &CreateWorkspace) -> Result<Checked, CreateError> {
        if request.name.trim().is_empty() {
            return Err(CreateError::InvalidPayload);
        }
        check_bounds(request)?;
        let resolved = self.resolve(request).await?;
        if request.external || is_external_like(&resolved.runtime) {
            return Err(CreateError::NotAvailable("an external workspace"));
        }
        if resolved.model.is_empty() {
            return Err(CreateError::ModelRequired {
                runtime: resolved.runtime,
                template: resolved.template.unwrap_or_default(),
            });
        }
        let workspace_dir = absent_if_empty(request.workspace_dir.as_deref());
        if workspace_dir.as_deref().is_some_and(|dir| !fields::workspace_dir(dir)) {
            return Err(CreateError::InvalidDirectory);
        }
        let workspace_access = match request.workspace_access.as_deref().unwrap_or_default() {
            "" | "none" => "none",
            "read_only" if workspace_dir.is_some() => "read_only",
            "read_write" if workspace_dir.is_some() => "read_write",
            _ => return Err(CreateError::InvalidAccess),
        };
        if request.has_compute {
            return Err(CreateError::NotAvailable("compute"));
        }
        if let Some(url) = request.url.as_deref().filter(|url| !url.is_empty()) {
            self.parts().guard.check_registration(url).await.map_err(CreateError::UnsafeUrl)?;
        }
        let delivery_mode = match request.delivery_mode.as_deref().unwrap_or_default() {
            "" => DeliveryMode::Push,
            mode => DeliveryMode::parse(mode).ok_or(CreateError::InvalidDeliveryMode)?,
        };
        let parent_id = match request.parent_id.as_deref().unwrap_or_default() {
            "" => None,
            text => Some(text.parse().map_err(|_| CreateError::InvalidParent)?),
        };
        if request.initial_memories > 0 {
            return Err(CreateError::NotAvailable("initial_memories"));
        }
        let known = self.parts().runtimes.is_known(&resolved.runtime);
        let warnings = if known {
            Vec::new()
        } else {
            vec![format!("runtime \"{}\" is not known to this server", resolved.runtime)]
        };
        let tier = match request.tier {
            _ if self.parts().options.control_plane => Tier::FullHost,
            0 => Tier::DEFAULT,
            number => Tier::from_stored(i32::try_from(number).unwrap_or_default()),
        };
        Ok(Checked {
            name: request.name.trim().to_owned(),
            role: request.role.as_deref().filter(|role| !role.is_empty()).map(str::to_owned),
            tier,
            runtime: resolved.runtime,
            model: resolved.model,
            template: resolved.template,
            workspace_dir,
            workspace_access,
            delivery_mode,
            parent_id,
            budget_limit: request.budget_limit,
            // Bounds: 1 to 1000.
            max_concurrent_tasks: request
                .max_concurrent_tasks
                .and_then(|n| i32::try_from(n).ok())
                .map_or(1, |n| n.max(1)),
            position: request.canvas,
            warnings,
        })
    }

    /// Runtime and model from the request, else from the template (1.R36–R40).
    async fn resolve(&self, request: &CreateWorkspace) -> Result<Resolved, CreateError> {
        let template = absent_if_empty(request.template.as_deref());
        let mut runtime = absent_if_empty(request.runtime.as_deref());
        let secret_model =
            request.secrets.iter().rev().find(|(key, value)| key == "MODEL" && !value.is_empty());
        let sent_model = absent_if_empty(request.model.as_deref());
        let mut model = sent_model.clone().or_else(|| secret_model.map(|(_, value)| value.clone()));
        if let Some(name) = &template {
            let folder = self.template_folder(name.clone()).await?;
            if runtime.is_none() || sent_model.is_none() {
                let config = match folder {
                    Some(folder) => self.template_config(folder).await,
                    None => None,
                };
                if let Some(config) = config {
                    runtime = runtime.or_else(|| absent_if_empty(config.runtime.as_deref()));
                    model = model.or_else(|| absent_if_empty(config.model.as_deref()));
                }
            }
            if runtime.is_none() {
                return Err(CreateError::RuntimeUnresolved { template: name.clone() });
            }
        }
        let runtime = runtime.unwrap_or_else(|| DEFAULT_RUNTIME.to_owned());
        fields::runtime(&runtime).map_err(detail)?;
        let model = model.unwrap_or_default();
        fields::model(&model).map_err(detail)?;
        Ok(Resolved { runtime, model, template })
    }

    async fn template_folder(&self, name: String) -> Result<Option<PathBuf>, CreateError> {
        let templates = self.parts().templates.clone();
        tokio::task::spawn_blocking(move || templates.resolve(&name))
            .await
            .map_err(|_| CreateError::InvalidTemplate)?
            .map_err(|_| CreateError::InvalidTemplate)
    }

    async fn template_config(&self, folder: PathBuf) -> Option<mws_templates::TemplateConfig> {
        let templates = self.parts().templates.clone();
        let config = tokio::task::spawn_blocking(move || templates.config(&folder)).await.ok()?;
        config
            .inspect_err(|error| {
                tracing::warn!(error = error as &dyn std::error::Error, "template unreadable")
            })
            .ok()
            .flatten()
    }

    async fn store_secrets(
        &self,
        tx: &mut Tx,
        id: WorkspaceId,
        checked: &Checked,
        secrets: &[(String, String)],
    ) -> Result<(), CreateError> {
        let owner = id.to_string();
        let derived = provider::derive(&checked.model).map(|slug| ("LLM_PROVIDER", slug));
        let model = [("MODEL", checked.model.as_str())];
        // What the caller set by hand comes after what is derived, and the resolved model last.
        let sent = secrets.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        for (key, value) in derived.into_iter().chain(sent).chain(model) {
            let sealed = self.parts().keys.seal(&Binding::workspace(&owner, key), value.as_bytes()).map_err(
                |error| {
                    tracing::error!(error = &error as &dyn std::error::Error, "a secret could not be sealed");
                    mws_db::Error::Unavailable(None)
                },
            )?;
            tx.put_secret(id, key, &sealed.bytes, sealed.version).await?;
        }
        Ok(())
    }
}

struct Resolved {
    runtime: String,
    model: String,
    template: Option<String>,
}

/// The bounds of 1.R35, all of them, before anything else is looked at.
fn check_bounds(request: &CreateWorkspace) -> Result<(), CreateError> {
    fields::name(&request.name).map_err(detail)?;
    for (check, value) in [
        (fields::role as fn(&str) -> Result<(), String>, &request.role),
        (fields::model, &request.model),
        (fields::runtime, &request.runtime),
    ] {
        value.as_deref().map_or(Ok(()), check).map_err(detail)?;
    }
    if !(0..=4).contains(&request.tier) {
        return Err(detail("tier must be 0 to 4".into()));
    }
    if request.budget_limit.is_some_and(|limit| limit < 0) {
        return Err(detail("budget_limit must be >= 0".into()));
    }
    if request.max_concurrent_tasks.is_some_and(|n| n > fields::MAX_CONCURRENT_TASKS) {
        return Err(detail(format!("max_concurrent_tasks must be at most {}", fields::MAX_CONCURRENT_TASKS)));
    }
    if !(request.canvas.0.is_finite() && request.canvas.1.is_finite()) {
        return Err(detail("canvas coordinates must be finite".into()));
    }
    Ok(())
}

/// Inserts the row under the name, or under the first free suffix of it (1.R50), and returns the stored name.
async fn insert_under_free_name(
    tx: &mut Tx,
    id: WorkspaceId,
    checked: &Checked,
) -> Result<String, CreateError> {
    for suffix in 1..=LAST_SUFFIX {
        let name = if suffix == 1 { checked.name.clone() } else { format!("{} ({suffix})", checked.name) };
        let row = NewWorkspace {
            id,
            name: &name,
            role: checked.role.as_deref(),
            tier: checked.tier.number(),
            runtime: &checked.runtime,
            workspace_dir: checked.workspace_dir.as_deref(),
            workspace_access: checked.workspace_access,
            delivery_mode: Some(checked.delivery_mode.as_str()),
            parent_id: checked.parent_id,
            budget_limit: checked.budget_limit,
            max_concurrent_tasks: checked.max_concurrent_tasks,
            position: checked.position,
        };
        if tx.insert_workspace(&row).await? {
            return Ok(name);
        }
    }
    Err(CreateError::NameExhausted)
}
