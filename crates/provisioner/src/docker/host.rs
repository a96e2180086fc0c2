//! Whether the server itself runs in a container of the engine it talks to (2.R31).

use std::collections::BTreeSet;
use std::path::Path;

use super::engine::Engine;

/// An engine's full container id.
const ID_LENGTH: usize = 64;

/// `/.dockerenv` alone proves nothing: a sandbox whose engine runs beside the server has it too. The engine must
/// also know this very container.
pub(super) async fn runs_in_container_of(engine: &Engine) -> bool {
    if !tokio::fs::try_exists(Path::new("/.dockerenv")).await.unwrap_or(false) {
        return false;
    }
    let mut names = BTreeSet::new();
    for file in ["/proc/self/cgroup", "/proc/self/mountinfo"] {
        if let Ok(text) = tokio::fs::read_to_string(file).await {
            names.extend(container_ids(&text));
        }
    }
    if let Ok(name) = tokio::fs::read_to_string("/proc/sys/kernel/hostname").await {
        let name = name.trim();
        if is_container_reference(name) {
            names.insert(name.to_owned());
        }
    }
    for name in names {
        match engine.inspect(&name).await {
            Ok(Some(_)) => return true,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not look for the server's own container"
                );
                return false;
            }
        }
    }
    false
}

/// Full ids in `/proc/self/cgroup` or `/proc/self/mountinfo`.
fn container_ids(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() == ID_LENGTH && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_owned)
}

/// What may stand in a path of the engine's API.
fn is_container_reference(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_both_files() {
        // 2.R31
        let id = "3f".repeat(32);
        let cgroup = format!("12:cpu:/docker/{id}\n0::/system.slice/docker-{id}.scope\n");
        assert_eq!(container_ids(&cgroup).collect::<Vec<_>>(), [id.clone(), id.clone()]);
        let mountinfo = format!("612 589 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw\n");
        assert_eq!(container_ids(&mountinfo).collect::<Vec<_>>(), [id]);
        assert_eq!(container_ids("0::/init.scope\n").count(), 0);
    }

    #[test]
    fn only_clean_names_are_asked_for() {
        assert!(is_container_reference("3f3f3f3f3f3f") && is_container_reference("my-host.local"));
        for bad in ["", "../info", "a b", "-x", "a/b"] {
            assert!(!is_container_reference(bad), "{bad}");
        }
    }
}
