//! The labels that mark what belongs to the platform.

use std::collections::HashMap;
use std::hash::BuildHasher;

use mws_models::{Tier, WorkspaceId};

pub(crate) const MANAGED: &str = "molecule.platform.managed";
pub(crate) const INSTANCE: &str = "molecule.platform.instance";
pub(crate) const WORKSPACE: &str = "molecule.workspace.id";
pub(crate) const RUNTIME: &str = "molecule.runtime";
pub(crate) const TIER: &str = "molecule.tier";

/// The labels of things that belong to the whole installation, such as the network.
pub(crate) fn platform(instance: Option<&str>) -> HashMap<String, String> {
    let mut labels = HashMap::from([(MANAGED.to_owned(), "true".to_owned())]);
    if let Some(instance) = instance {
        labels.insert(INSTANCE.to_owned(), instance.to_owned());
    }
    labels
}

/// The labels of one workspace's container and volumes.
pub(crate) fn workspace(
    id: WorkspaceId,
    runtime: &str,
    tier: Tier,
    instance: Option<&str>,
) -> HashMap<String, String> {
    let mut labels = platform(instance);
    labels.insert(WORKSPACE.to_owned(), id.to_string());
    labels.insert(RUNTIME.to_owned(), runtime.to_owned());
    labels.insert(TIER.to_owned(), tier.number().to_string());
    labels
}

/// Whether a container may be removed in the name of workspace `id`: it is that workspace's, or it carries the
/// mark of this installation. Another installation on the same engine is not this one.
pub(crate) fn is_ours<S: BuildHasher>(
    labels: &HashMap<String, String, S>,
    id: WorkspaceId,
    instance: Option<&str>,
) -> bool {
    let label = |name: &str| labels.get(name).map(String::as_str);
    if label(WORKSPACE).is_some_and(|text| text.eq_ignore_ascii_case(&id.to_string())) {
        return true;
    }
    let same_installation = match (instance, label(INSTANCE)) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => true,
    };
    label(MANAGED) == Some("true") && same_installation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workspace_label_is_set() {
        // 2.R26
        let id = WorkspaceId::random();
        let labels = workspace(id, "sample", Tier::Standard, Some("blue"));
        let expected = HashMap::from(
            [
                ("molecule.platform.managed", "true".to_owned()),
                ("molecule.platform.instance", "blue".to_owned()),
                ("molecule.workspace.id", id.to_string()),
                ("molecule.runtime", "sample".to_owned()),
                ("molecule.tier", "2".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        assert_eq!(labels, expected);
        assert!(!workspace(id, "sample", Tier::Standard, None).contains_key(INSTANCE));
    }

    #[test]
    fn foreign_containers_are_left_alone() {
        // 2.R43 (3)
        let id = WorkspaceId::random();
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<HashMap<_, _>>()
        };
        assert!(!is_ours(&labels(&[]), id, None));
        assert!(!is_ours(&labels(&[(MANAGED, "false")]), id, None));
        assert!(!is_ours(&labels(&[(MANAGED, "true"), (INSTANCE, "green")]), id, Some("blue")));
        assert!(is_ours(&labels(&[(MANAGED, "true")]), id, Some("blue")));
        assert!(is_ours(&labels(&[(MANAGED, "true"), (INSTANCE, "blue")]), id, Some("blue")));
        assert!(is_ours(&labels(&[(WORKSPACE, &id.to_string())]), id, Some("blue")));
    }
}
