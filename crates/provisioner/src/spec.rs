//! What a caller passes to a start, and what it gets back.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use mws_models::{Tier, WorkspaceId};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::config_files::ConfigFile;

/// One agent, as a backend finds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InstanceRef {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The control plane's id of the box. Docker has none: it goes by the workspace.
    pub instance_id: Option<String>,
}

impl From<WorkspaceId> for InstanceRef {
    fn from(workspace_id: WorkspaceId) -> Self {
        Self { workspace_id, instance_id: None }
    }
}

/// What is at `/workspace`. The sandboxed tier has none, whatever this says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceMount {
    /// A named volume of the workspace's own.
    Volume,
    /// A folder of the engine's host.
    Bind {
        /// Absolute path on the engine's host.
        path: PathBuf,
        /// Mounted `:ro`.
        read_only: bool,
    },
}

/// What fills `/configs` before the agent's first instruction.
#[derive(Debug, Clone, Default)]
pub struct ConfigSource {
    /// Copied in order, later files of the same path win: template files first, generated ones after them.
    /// May be empty: the volume keeps what it has.
    pub files: Vec<ConfigFile>,
    /// Copied only when neither `files` nor the volume has a `config.yaml` (2.R104).
    pub recovery: Vec<ConfigFile>,
}

/// What the agent and the server authenticate to each other with. Copied last, 0600. `None` leaves in the volume
/// what is there.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// `/configs/.auth_token`: the agent's bearer at the server.
    pub auth_token: Option<SecretString>,
    /// `/configs/.platform_inbound_secret`: what the server presents to the agent.
    pub inbound_secret: Option<SecretString>,
}

/// Everything a backend needs to start one agent.
#[derive(Clone)]
pub struct StartSpec {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Its display name, for logs.
    pub name: Option<String>,
    /// A known runtime (2.R15).
    pub runtime: String,
    /// The complete image reference, see [`crate::ImageResolver`].
    pub image: String,
    /// How much the agent may do.
    pub tier: Tier,
    /// The assembled environment (contract 2 §6.3). Values are secrets: `Debug` shows names only.
    pub env: BTreeMap<String, String>,
    /// Where the agent dials the server.
    pub platform_url: String,
    /// The awareness service, when the server has one.
    pub awareness_url: Option<String>,
    /// What is at `/workspace`.
    pub workspace_mount: WorkspaceMount,
    /// What is in `/configs`.
    pub config: ConfigSource,
    /// Copied after `config`.
    pub credentials: Credentials,
    /// Start with an empty session volume (2.R37).
    pub reset_session: bool,
    /// Looked at between the steps. A cancelled start undoes what it created and answers
    /// [`crate::StartError::Cancelled`].
    pub cancel: CancellationToken,
}

impl fmt::Debug for StartSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartSpec")
            .field("workspace_id", &self.workspace_id)
            .field("runtime", &self.runtime)
            .field("image", &self.image)
            .field("tier", &self.tier)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("workspace_mount", &self.workspace_mount)
            .field("config", &self.config)
            .field("credentials", &self.credentials)
            .field("reset_session", &self.reset_session)
            .finish_non_exhaustive()
    }
}

/// What a start produced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Started {
    /// Where the server, when it runs on the engine's host, dials the agent.
    pub host_url: Option<String>,
    /// Where other agents on the platform's network dial it.
    pub internal_url: Option<String>,
    /// The control plane's id of the box.
    pub instance_id: Option<String>,
    /// `sha256:…` of the image that runs; the registry's digest when the image came from one, else the image id.
    pub image_digest: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        // 2.R85
        let spec = StartSpec {
            workspace_id: WorkspaceId::random(),
            name: Some("Lead".into()),
            runtime: "sample".into(),
            image: "agent:1".into(),
            tier: Tier::Standard,
            env: BTreeMap::from([("API_KEY".into(), "hunter2".into())]),
            platform_url: "http://user:hunter2@host".into(),
            awareness_url: None,
            workspace_mount: WorkspaceMount::Volume,
            config: ConfigSource {
                files: vec![ConfigFile::new("config.yaml", b"token: hunter2".to_vec()).unwrap()],
                recovery: Vec::new(),
            },
            credentials: Credentials {
                auth_token: Some(SecretString::from("hunter2")),
                inbound_secret: Some(SecretString::from("hunter2")),
            },
            reset_session: false,
            cancel: CancellationToken::new(),
        };
        let text = format!("{spec:?}");
        assert!(text.contains("API_KEY") && text.contains("config.yaml"));
        assert!(!text.contains("hunter2") && !text.contains("104, 117, 110"), "{text}");
    }
}
