//! The route table: every route with its method, path, class, body cap and the sentence of its 500. The router
//! is built from it, and tests compare it with contract 00 §4.

use http::Method;

use crate::handlers::{a2a, events, operation, registry, socket, workspaces};
use crate::route::{
    Handler, Route, admin, discovery, open, peer, registry as gated, socket as upgrade, workspace,
};

/// The default cap of a JSON body (5.R110).
const MIB: usize = 1 << 20;

fn route(method: Method, path: &'static str, handler: Handler, failure: &'static str) -> Route {
    Route { method, path, body_cap: MIB, failure, handler }
}

/// Every route of this server.
#[must_use]
pub fn table() -> Vec<Route> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    vec![
        route(GET, "/health", open(operation::health), "internal error"),
        route(GET, "/buildinfo", open(operation::buildinfo), "internal error"),
        route(GET, "/admin/liveness", admin(operation::liveness), "query failed"),
        route(GET, "/admin/jobs", admin(operation::jobs), "query failed"),
        route(GET, "/workspaces", admin(workspaces::list), "query failed"),
        route(POST, "/workspaces", admin(workspaces::create), "failed to create workspace"),
        route(GET, "/workspaces/:id", open(workspaces::get), "query failed"),
        route(DELETE, "/workspaces/:id", admin(workspaces::delete), "failed to remove workspace"),
        route(
            GET,
            "/workspaces/:id/state",
            workspace(workspaces::state_of_removed, workspaces::state),
            "query failed",
        ),
        route(POST, "/workspaces/:id/a2a", peer(a2a::send), "failed to create proxy request"),
        route(POST, "/registry/register", gated(registry::register), "registration failed"),
        route(POST, "/registry/heartbeat", gated(registry::heartbeat), "failed to update"),
        route(GET, "/registry/:id/peers", discovery(registry::peers), "query failed"),
        route(GET, "/ws", upgrade(socket::connect), "internal error"),
        route(GET, "/events", admin(events::list), "query failed"),
        route(GET, "/events/:workspaceId", admin(events::list), "query failed"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Method and path → class letter, from the tables of contract 00 §4.
    fn contract() -> BTreeMap<(String, String), String> {
        let text = include_str!("../../../docs/contract/00-README.md");
        let section = text.split("## 4. Routes").nth(1).unwrap().split("\n## 5.").next().unwrap();
        let mut routes = BTreeMap::new();
        for row in section.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let (methods, paths, class) = (cells[0], cells[1], cells[2]);
            let paths: Vec<_> = paths.split('`').filter(|part| part.starts_with('/')).collect();
            for method in methods.split(',').map(str::trim) {
                for path in &paths {
                    routes.insert((method.to_owned(), (*path).to_owned()), class.to_owned());
                }
            }
        }
        routes
    }

    #[test]
    fn every_route_is_the_contracts_with_its_class() {
        // 5.R62
        let contract = contract();
        assert!(contract.len() > 100, "the tables were not read: {}", contract.len());
        for route in table() {
            let key = (route.method().to_string(), route.path().to_owned());
            let class = contract.get(&key).unwrap_or_else(|| panic!("{key:?} is not in contract 00"));
            assert_eq!(*class, route.class().letter().to_string(), "{key:?}");
        }
    }

    #[test]
    fn no_route_stands_twice() {
        let table = table();
        let keys: std::collections::BTreeSet<_> =
            table.iter().map(|route| (route.method().to_string(), route.path())).collect();
        assert_eq!(keys.len(), table.len());
    }
}
