//! Host ports for agents, picked by us so that they survive a restart of the container or the engine (2.R28).

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use mws_models::WorkspaceId;

/// Below the range that Linux takes outgoing connections' ports from (32768 on), so that no such connection can
/// hold the port at the moment when the engine restarts the container.
const HOST_PORTS: Range<u16> = 20_000..32_768;

/// Ports to try for a workspace, in order: the whole range once, from a place that depends on the workspace, so
/// that it usually gets the same port again and two workspaces rarely compete.
fn candidates(id: WorkspaceId) -> impl Iterator<Item = u16> {
    let size = u128::from(HOST_PORTS.end - HOST_PORTS.start);
    let offset = u16::try_from(id.uuid().as_u128() % size).unwrap_or_default();
    let start = HOST_PORTS.start + offset;
    (start..HOST_PORTS.end).chain(HOST_PORTS.start..start)
}

/// Whether nothing listens there on this machine. Without meaning, but harmless, when the engine is elsewhere.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether the host's own network has the port free on every address, which an agent on it needs (2.R42).
pub(super) fn is_free_everywhere(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// A port that is neither in `taken` nor in use here.
pub(super) fn pick(id: WorkspaceId, taken: &HashSet<u16>, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    candidates(id).find(|port| !taken.contains(port) && is_free(*port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_range_is_tried_once() {
        let all: Vec<_> = candidates(WorkspaceId::random()).collect();
        assert_eq!(all.len(), HOST_PORTS.len());
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), HOST_PORTS.len());
        assert!(all.iter().all(|port| HOST_PORTS.contains(port)));
    }

    #[test]
    fn a_workspace_keeps_its_port_unless_it_is_taken() {
        // 2.R28
        let id = WorkspaceId::random();
        let first = pick(id, &HashSet::new(), |_| true).unwrap();
        assert_eq!(pick(id, &HashSet::new(), |_| true), Some(first));
        assert_ne!(pick(id, &HashSet::from([first]), |_| true), Some(first));
        assert_ne!(pick(id, &HashSet::new(), |port| port != first), Some(first));
        assert_eq!(pick(id, &HashSet::new(), |_| false), None);
    }

    #[test]
    fn a_listener_makes_a_port_taken() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port) && !is_free_everywhere(port));
    }
}
