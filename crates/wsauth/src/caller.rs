//! Who asks.

use std::fmt;

use mws_models::{OrgTokenId, TokenId, WorkspaceId};

/// The principal of a request or of work done inside the process; resolved once, then passed as a value.
///
/// Service functions take it and cannot be called without one. Control-plane sessions (`Session`) and the
/// canvas recognised by its origin (`SameOrigin`, `CanvasOrigin`) are further principals of the contract; they
/// come together with session verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody proved anything, and the class allows that: a workspace that holds no token yet.
    Anonymous,
    /// A fresh install without `ADMIN_TOKEN` and without any live token.
    Bootstrap,
    /// A developer's server: `MOLECULE_ENV` is development and `ADMIN_TOKEN` is empty.
    DevOpen,
    /// The holder of `ADMIN_TOKEN`.
    Admin,
    /// The holder of an organisation token.
    OrgToken {
        /// Its row.
        id: OrgTokenId,
        /// The first 8 characters of its plaintext.
        prefix: String,
        /// The organisation it is anchored to. `None` is an unanchored token, which owns no organisation; it
        /// never means "not an org token" (5.R36).
        org_id: Option<WorkspaceId>,
    },
    /// A workspace, by its own token.
    Workspace {
        /// The workspace.
        workspace_id: WorkspaceId,
        /// The token's row.
        token_id: TokenId,
    },
    /// The anonymous canvas class of the messaging routes and of the socket.
    Canvas,
    /// The server itself. Never made from anything that arrived over the network (5.R59).
    System {
        /// What for, as a fixed label: `sweep:liveness`, `job:provision`, `channel:slack`.
        reason: &'static str,
    },
}

impl Caller {
    /// Whether the caller may act for the whole installation, and so may change what a workspace must not
    /// change about itself (5.B7). The server's own work counts as such.
    #[must_use]
    pub const fn is_operator(&self) -> bool {
        match self {
            Self::Bootstrap | Self::DevOpen | Self::Admin | Self::OrgToken { .. } | Self::System { .. } => {
                true
            }
            Self::Anonymous | Self::Workspace { .. } | Self::Canvas => false,
        }
    }

    /// The workspace that proved itself, if it was one.
    #[must_use]
    pub const fn workspace(&self) -> Option<WorkspaceId> {
        match self {
            Self::Workspace { workspace_id, .. } => Some(*workspace_id),
            _ => None,
        }
    }

    /// A label for logs and provenance (5.R38). Holds ids and prefixes, never a secret; nothing decides by it.
    #[must_use]
    pub fn actor(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Admin | Self::Bootstrap | Self::DevOpen => f.write_str("admin-token"),
            Self::OrgToken { prefix, .. } => write!(f, "org-token:{prefix}"),
            Self::Workspace { workspace_id, .. } => write!(f, "workspace:{workspace_id}"),
            Self::Canvas => f.write_str("canvas"),
            Self::System { reason } => write!(f, "system:{reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_principal_has_its_rights_and_its_label() {
        // 5.R38, 5.B7
        let id = WorkspaceId::random();
        let org = Caller::OrgToken { id: OrgTokenId::random(), prefix: "abcdefgh".into(), org_id: None };
        let workspace = Caller::Workspace { workspace_id: id, token_id: TokenId::random() };
        let table = [
            (Caller::Anonymous, false, "anonymous".to_owned()),
            (Caller::Bootstrap, true, "admin-token".to_owned()),
            (Caller::DevOpen, true, "admin-token".to_owned()),
            (Caller::Admin, true, "admin-token".to_owned()),
            (org, true, "org-token:abcdefgh".to_owned()),
            (workspace.clone(), false, format!("workspace:{id}")),
            (Caller::Canvas, false, "canvas".to_owned()),
            (Caller::System { reason: "sweep:liveness" }, true, "system:sweep:liveness".to_owned()),
        ];
        for (caller, operator, actor) in table {
            assert_eq!(caller.is_operator(), operator, "{caller:?}");
            assert_eq!(caller.actor(), actor);
            assert_eq!(caller.workspace(), (caller == workspace).then_some(id));
        }
    }
}
