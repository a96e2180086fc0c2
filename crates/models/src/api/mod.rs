//! Requests and replies of the HTTP API, apart from the domain types: a domain type never becomes JSON by a
//! derive of its own.

mod registry;
mod workspaces;

pub use registry::{Heartbeat, Peer, Register, Registered};
pub use workspaces::{CreateWorkspace, CreatedWorkspace, RawObject, WorkspaceDetail, WorkspaceSummary};
