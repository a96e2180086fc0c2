//! Which image a runtime runs as.

use std::collections::BTreeMap;

use mws_models::DEFAULT_RUNTIME;

/// Where the platform's own images are.
pub const DEFAULT_REGISTRY: &str = "ghcr.io/molecule-ai";

/// An entry of an override list that is not `runtime=reference`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image override {0:?} is not runtime=reference")]
pub struct MalformedOverride(pub String);

/// Reads a comma-separated list `runtime=reference`. Blank entries are skipped; of two for one runtime the later
/// counts.
///
/// # Errors
///
/// The first entry without a runtime or without a reference.
pub fn parse_overrides(list: &str) -> Result<BTreeMap<String, String>, MalformedOverride> {
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let (runtime, reference) = entry.split_once('=').unwrap_or((entry, ""));
            let (runtime, reference) = (runtime.trim(), reference.trim());
            if runtime.is_empty() || reference.is_empty() {
                return Err(MalformedOverride(entry.to_owned()));
            }
            Ok((runtime.to_owned(), reference.to_owned()))
        })
        .collect()
}

/// Resolves runtimes to image references (contract 2 §3.2). Pure.
#[derive(Debug, Clone)]
pub struct ImageResolver {
    overrides: BTreeMap<String, String>,
    registry: String,
}

/// The image of one runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The complete reference.
    pub reference: String,
    /// The runtime is not known and the default one's image stands in for it. The caller must say so (2.R18).
    pub substituted: bool,
}

impl ImageResolver {
    /// `registry` without a trailing slash; empty or `None` for [`DEFAULT_REGISTRY`].
    #[must_use]
    pub fn new(overrides: BTreeMap<String, String>, registry: Option<&str>) -> Self {
        let registry = registry.map(|r| r.trim().trim_end_matches('/')).filter(|r| !r.is_empty());
        Self { overrides, registry: registry.unwrap_or(DEFAULT_REGISTRY).to_owned() }
    }

    /// The image of a runtime as it stands on the row. An unknown runtime runs as the default one, unless an
    /// override names exactly it. No other substitution is ever made.
    #[must_use]
    pub fn resolve(&self, runtime: &str, is_known: impl Fn(&str) -> bool) -> ResolvedImage {
        let runtime = match runtime.trim() {
            "" => DEFAULT_RUNTIME,
            name => name,
        };
        let overridden = self.overrides.contains_key(runtime);
        let substituted = !overridden && !is_known(runtime) && runtime != DEFAULT_RUNTIME;
        let effective = if substituted { DEFAULT_RUNTIME } else { runtime };
        let reference = match self.overrides.get(effective) {
            Some(reference) => reference.clone(),
            None => format!("{}/workspace-template-{effective}:latest", self.registry),
        };
        ResolvedImage { reference, substituted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(runtime: &str) -> bool {
        ["claude-code", "sample"].contains(&runtime)
    }

    fn resolve(overrides: &str, runtime: &str) -> (String, bool) {
        let resolved = ImageResolver::new(parse_overrides(overrides).unwrap(), None).resolve(runtime, known);
        (resolved.reference, resolved.substituted)
    }

    #[test]
    fn overrides_come_first_then_the_moving_tag() {
        // 3.2 items 1 and 4
        let moving = "ghcr.io/molecule-ai/workspace-template-sample:latest".to_owned();
        assert_eq!(resolve("", "sample"), (moving.clone(), false));
        assert_eq!(resolve("sample=my:dev", "sample"), ("my:dev".to_owned(), false));
        assert_eq!(resolve("samples=my:dev", "sample"), (moving, false));
        let private = ImageResolver::new(BTreeMap::new(), Some("localhost:5000/team/"));
        assert_eq!(
            private.resolve("sample", known).reference,
            "localhost:5000/team/workspace-template-sample:latest"
        );
    }

    #[test]
    fn an_unknown_runtime_never_names_an_image() {
        // 2.R15, 2.R18
        let default = "ghcr.io/molecule-ai/workspace-template-claude-code:latest".to_owned();
        for crafted in ["nope", "../evil", "a\nb", "sample ext"] {
            assert_eq!(resolve("", crafted), (default.clone(), true), "{crafted}");
        }
        assert_eq!(resolve("", " "), (default, false));
        assert_eq!(resolve("claude-code=cc:1", "nope"), ("cc:1".to_owned(), true));
        assert_eq!(resolve("nope=n:1,claude-code=cc:1", "nope"), ("n:1".to_owned(), false));
    }

    #[test]
    fn override_lists_are_read_strictly() {
        assert_eq!(
            parse_overrides(" a=b , c=reg:5000/d@sha256:e=f ,").unwrap(),
            BTreeMap::from([("a".into(), "b".into()), ("c".into(), "reg:5000/d@sha256:e=f".into())])
        );
        for bad in ["a", "a=", "=b"] {
            assert_eq!(parse_overrides(bad), Err(MalformedOverride(bad.into())));
        }
    }
}
