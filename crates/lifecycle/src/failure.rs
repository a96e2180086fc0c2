//! Why a start failed: classes with a fixed, safe text (2.R84). The cause goes to the log alone.

use mws_templates::missing_env_message;
use serde_json::{Map, Value};

/// A class of provisioning failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// This installation can start nothing.
    NoBackend,
    /// The secrets could not be read.
    SecretsUnavailable,
    /// A global secret does not decrypt.
    GlobalSecretDecrypt,
    /// A secret of the workspace does not decrypt.
    WorkspaceSecretDecrypt,
    /// The configuration requires variables that are not set; names in the order declared.
    MissingEnv(Vec<String>),
    /// The engine has no image for the runtime.
    ImageUnavailable {
        /// The workspace's runtime.
        runtime: String,
    },
    /// Neither template, generated file nor volume holds a configuration.
    ConfigMissing,
    /// The backend refused or failed.
    StartFailed,
    /// The run crashed.
    Panic,
}

impl Failure {
    /// The stable code of the event.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoBackend => "PROVISION_NO_BACKEND",
            Self::SecretsUnavailable => "PROVISION_SECRETS_UNAVAILABLE",
            Self::GlobalSecretDecrypt | Self::WorkspaceSecretDecrypt => "PROVISION_SECRET_DECRYPT",
            Self::MissingEnv(_) => "PROVISION_MISSING_ENV",
            Self::ImageUnavailable { .. } => "PROVISION_IMAGE_UNAVAILABLE",
            Self::ConfigMissing => "PROVISION_CONFIG_MISSING",
            Self::StartFailed => "PROVISION_START_FAILED",
            Self::Panic => "PROVISION_PANIC",
        }
    }

    /// The sentence for the event and `last_sample_error`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::NoBackend => "no provisioning backend available".into(),
            Self::SecretsUnavailable => "failed to load secrets".into(),
            Self::GlobalSecretDecrypt => "failed to decrypt global secret".into(),
            Self::WorkspaceSecretDecrypt => "failed to decrypt workspace secret".into(),
            Self::MissingEnv(names) => missing_env_message(names),
            Self::ImageUnavailable { runtime } => {
                format!("container image for runtime \"{runtime}\" is not available")
            }
            Self::ConfigMissing => "no configuration for this workspace".into(),
            Self::StartFailed => "workspace start failed".into(),
            Self::Panic => "provisioning crashed".into(),
        }
    }

    /// The further fields of the event.
    #[must_use]
    pub fn extra(&self) -> Map<String, Value> {
        let mut extra = Map::new();
        extra.insert("code".into(), self.code().into());
        if let Self::MissingEnv(names) = self {
            extra.insert("missing".into(), names.clone().into());
        }
        extra
    }
}
