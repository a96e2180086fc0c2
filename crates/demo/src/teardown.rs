//! Nothing is left: no agent, server, container, volume or network.

use std::collections::HashSet;
use std::path::PathBuf;

use mws_models::WorkspaceId;
use mws_provisioner::DockerBackend;

use crate::api::{Api, ApiError, Workspace};
use crate::out::Out;
use crate::process::{Ending, Server};
use crate::{DemoError, DemoOptions, StopError};

/// Does every part, also after one has failed.
pub(crate) async fn clean_up(
    options: &DemoOptions,
    server: Option<Server>,
    api: Option<&Api>,
    stop_postgres: impl AsyncFnOnce(PathBuf) -> Result<(), StopError>,
    out: Out,
) -> Result<(), DemoError> {
    let mut failures = Vec::new();
    if let Some(api) = api
        && let Err(error) = delete_all(api).await
    {
        // The purge below takes the containers; the rows stay until the next start.
        out.line(format_args!("  the team could not be deleted over the API: {error}"));
    }
    let ending = match server {
        Some(server) => server.stop().await,
        None => Ending::Orderly,
    };
    release(options, ending, stop_postgres, &mut failures).await;
    conclude(failures)
}

/// What the server would have done at its end, and what it never does: remove its network.
pub(crate) async fn release(
    options: &DemoOptions,
    ending: Ending,
    stop_postgres: impl AsyncFnOnce(PathBuf) -> Result<(), StopError>,
    failures: &mut Vec<String>,
) {
    if ending == Ending::Killed
        && let Err(error) = stop_postgres(options.folder()).await
    {
        failures.push(format!("the private Postgres: {error}"));
    }
    if let Err(error) = purge(options).await {
        failures.push(error);
    }
}

pub(crate) fn conclude(failures: Vec<String>) -> Result<(), DemoError> {
    if failures.is_empty() { Ok(()) } else { Err(DemoError::CleanUp(failures.join("; "))) }
}

/// Deletes every workspace of this installation, which is the demo's alone: each tree by its root. Returns how
/// many trees there were.
pub(crate) async fn delete_all(api: &Api) -> Result<usize, ApiError> {
    let roots = roots(&api.workspaces().await?);
    for root in &roots {
        api.delete(*root).await?;
    }
    Ok(roots.len())
}

async fn purge(options: &DemoOptions) -> Result<(), String> {
    let engine = DockerBackend::connect(options.engine()).await.map_err(|error| error.to_string())?;
    engine.purge_instance(&options.instance).await.map(drop).map_err(|error| error.to_string())
}

fn roots(workspaces: &[Workspace]) -> Vec<WorkspaceId> {
    let known: HashSet<WorkspaceId> = workspaces.iter().map(|one| one.id).collect();
    workspaces
        .iter()
        .filter(|one| one.parent_id.is_none_or(|parent| !known.contains(&parent)))
        .map(|one| one.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_deleted_by_its_root() {
        let one = |id: &str, parent: Option<&str>| Workspace {
            id: id.parse().unwrap(),
            name: String::new(),
            status: String::new(),
            parent_id: parent.map(|parent| parent.parse().unwrap()),
            last_sample_error: None,
        };
        let [a, b, c, gone] = ["1", "2", "3", "4"].map(|n| format!("00000000-0000-4000-8000-00000000000{n}"));
        let found = roots(&[one(&a, None), one(&b, Some(&a)), one(&c, Some(&gone))]);
        assert_eq!(found, [a.parse().unwrap(), c.parse().unwrap()]);
    }
}
