//! `POST /workspaces` and the workspace object.

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Tier, Timestamp, WorkspaceId, WorkspaceStatus};

/// Stored JSON that is passed on as it is.
pub type RawObject = RawValue;

/// The body of `POST /workspaces`, typed but not yet judged (contract 1 §2.1).
#[derive(Clone, Default)]
pub struct CreateWorkspace {
    /// 1 to 255 characters after trimming.
    pub name: String,
    /// At most 1000 characters.
    pub role: Option<String>,
    /// A folder under the templates root.
    pub template: Option<String>,
    /// 0 (the default) to 4.
    pub tier: i64,
    /// At most 100 characters.
    pub model: Option<String>,
    /// At most 100 characters.
    pub runtime: Option<String>,
    /// Whether the agent runs elsewhere.
    pub external: bool,
    /// The agent's address, for one that runs elsewhere.
    pub url: Option<String>,
    /// A host folder.
    pub workspace_dir: Option<String>,
    /// `none`, `read_only` or `read_write`.
    pub workspace_access: Option<String>,
    /// The parent's id, as sent.
    pub parent_id: Option<String>,
    /// Cents, at least 0.
    pub budget_limit: Option<i64>,
    /// Name and value of each secret. Not shown by `Debug`.
    pub secrets: Vec<(String, String)>,
    /// At most 1000; 0 and less mean 1.
    pub max_concurrent_tasks: Option<i64>,
    /// `push` or `poll`.
    pub delivery_mode: Option<String>,
    /// Whether a non-empty `compute` was sent.
    pub has_compute: bool,
    /// Where the node stands on the canvas.
    pub canvas: (f64, f64),
    /// How many memories were sent along.
    pub initial_memories: usize,
}

impl fmt::Debug for CreateWorkspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateWorkspace")
            .field("name", &self.name)
            .field("template", &self.template)
            .field("runtime", &self.runtime)
            .field("parent_id", &self.parent_id)
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

/// The 201 of a spawned create.
#[derive(Debug, Clone, Serialize)]
pub struct CreatedWorkspace {
    /// The new workspace.
    pub id: WorkspaceId,
    /// `provisioning`.
    pub status: WorkspaceStatus,
    /// The effective access to a host folder.
    pub workspace_access: String,
    /// The name as stored, perhaps with a suffix.
    pub name: String,
    /// The runtime as stored.
    pub runtime: String,
    /// The tier as stored.
    pub tier: Tier,
    /// Left out when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What every read of a workspace shows (contract 1 §1): the body of the open `GET /workspaces/:id`.
#[derive(Debug, Serialize)]
pub struct WorkspaceDetail<'a> {
    /// The workspace.
    pub id: WorkspaceId,
    /// Display name.
    pub name: &'a str,
    /// Null when it has none.
    pub role: Option<&'a str>,
    /// 1 to 4.
    pub tier: i32,
    /// Where it stands.
    pub status: WorkspaceStatus,
    /// The registered card, verbatim.
    pub agent_card: Option<&'a RawObject>,
    /// Empty when there is none.
    pub url: &'a str,
    /// Null for a root.
    pub parent_id: Option<WorkspaceId>,
    /// From heartbeats.
    pub active_tasks: i32,
    /// At least 1.
    pub max_concurrent_tasks: i32,
    /// 0 to 1.
    pub last_error_rate: f64,
    /// Seconds.
    pub uptime_seconds: i32,
    /// The runtime's name.
    pub runtime: &'a str,
    /// Canvas position.
    pub x: f64,
    /// Canvas position.
    pub y: f64,
    /// Canvas flag.
    pub collapsed: bool,
    /// Whether it may fan messages out.
    pub broadcast_enabled: bool,
    /// Whether it may speak to the user.
    pub talk_to_user_enabled: bool,
    /// `{}` when none.
    pub compute: &'a RawObject,
    /// Milliseconds; left out when the runtime declares none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provision_timeout_ms: Option<u64>,
    /// Left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_outbound_at: Option<Option<Timestamp>>,
}

/// The full object of `GET /workspaces`: what the open read withholds comes on top.
#[derive(Debug, Serialize)]
pub struct WorkspaceSummary<'a> {
    /// What every read shows.
    #[serde(flatten)]
    pub detail: WorkspaceDetail<'a>,
    /// Empty when none.
    pub last_sample_error: &'a str,
    /// Empty when none.
    pub current_task: &'a str,
    /// Host path.
    pub workspace_dir: Option<&'a str>,
    /// Cents.
    pub monthly_spend: i64,
    /// Cents; null for no limit.
    pub budget_limit: Option<i64>,
    /// The same as `monthly_spend`, under the name the canvas reads.
    pub budget_used: i64,
}
