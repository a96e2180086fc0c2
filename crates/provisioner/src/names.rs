//! Names of containers, volumes and addresses, and how a short id is read back from one.

use mws_models::WorkspaceId;

/// The container port that every agent listens on.
pub const AGENT_PORT: u16 = 8000;

/// Begins the name of every container and volume.
pub(crate) const NAME_PREFIX: &str = "ws-";

/// `ws-<short id>`: the container's name, its hostname and its alias on the network.
#[must_use]
pub fn container_name(id: WorkspaceId) -> String {
    format!("{NAME_PREFIX}{}", id.short())
}

/// `http://ws-<short id>:8000`: where agents on the platform's network reach this one.
#[must_use]
pub fn internal_url(id: WorkspaceId) -> String {
    format!("http://{}:{AGENT_PORT}", container_name(id))
}

pub(crate) fn configs_volume(id: WorkspaceId) -> String {
    format!("{NAME_PREFIX}{}-configs", id.short())
}

pub(crate) fn workspace_volume(id: WorkspaceId) -> String {
    format!("{NAME_PREFIX}{id}-workspace")
}

pub(crate) fn sessions_volume(id: WorkspaceId) -> String {
    format!("{NAME_PREFIX}{}-claude-sessions", id.short())
}

/// The short id in a container's name as the engine lists it. `None` for names without the prefix, and for ids
/// with a character that an id cannot have: such a text never reaches SQL (2.R57).
pub(crate) fn short_id_of(listed: &str) -> Option<&str> {
    let id = listed.strip_prefix('/').unwrap_or(listed).strip_prefix(NAME_PREFIX)?;
    let plausible = !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    plausible.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_short_id() {
        // 2.R25, 2.R29, 4.3
        let id: WorkspaceId = "eeb99b5d-6071-4a3e-9d1e-000000000001".parse().unwrap();
        assert_eq!(container_name(id), "ws-eeb99b5d-607");
        assert_eq!(internal_url(id), "http://ws-eeb99b5d-607:8000");
        assert_eq!(configs_volume(id), "ws-eeb99b5d-607-configs");
        assert_eq!(workspace_volume(id), "ws-eeb99b5d-6071-4a3e-9d1e-000000000001-workspace");
        assert_eq!(sessions_volume(id), "ws-eeb99b5d-607-claude-sessions");
    }

    #[test]
    fn only_plausible_ids_are_read_back() {
        // 2.R56: the prefix is re-checked; 2.R57: no character outside an id's
        assert_eq!(short_id_of("/ws-eeb99b5d-607"), Some("eeb99b5d-607"));
        assert_eq!(short_id_of("ws-EEB99B5D-607"), Some("EEB99B5D-607"));
        for other in
            ["/news-eeb99b5d-607", "/ws-", "/ws-%", "/ws-ee_9", "/ws-eeb99b5d-607'", "//ws-ee", "/db"]
        {
            assert_eq!(short_id_of(other), None, "{other}");
        }
    }
}
