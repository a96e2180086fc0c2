//! Which runtimes this server knows (6 §5, 2.R13–R15).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use mws_models::{DEFAULT_RUNTIME, EXTERNAL_LIKE_RUNTIMES};
use serde::Deserialize;

/// What is known without a usable manifest, besides the external-like runtimes (6.R31).
pub const BUILT_IN_RUNTIMES: [&str; 4] = ["claude-code", "hermes", "openclaw", "codex"];

/// The largest manifest that is read, in bytes.
const MANIFEST_MAX: u64 = 1024 * 1024;

/// The runtimes that this server knows. A name with and without a trailing `-default` is one runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRuntimes(BTreeSet<String>);

/// Where the known runtimes come from; its `Display` is the line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestSource {
    /// A manifest, with the number of runtimes in it.
    File {
        /// The file.
        path: PathBuf,
        /// How many runtimes it names.
        entries: usize,
    },
    /// The built-in set: to be logged as a warning.
    BuiltIn {
        /// What was wrong with the manifest.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Manifest {
    workspace_templates: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    name: Option<String>,
}

impl KnownRuntimes {
    /// Reads the manifest: `explicit`, else the first that exists of `/app/manifest.json` and `manifest.json` in
    /// `cwd` or up to two levels above. Never fails: without a usable one the built-in set is known (6.R31).
    #[must_use]
    pub fn load(explicit: Option<&Path>, cwd: &Path) -> (Self, ManifestSource) {
        let candidates = match explicit {
            Some(path) => vec![cwd.join(path)],
            None => ["/app/manifest.json", "manifest.json", "../manifest.json", "../../manifest.json"]
                .map(|path| cwd.join(path))
                .to_vec(),
        };
        let Some(path) = candidates.iter().find(|path| path.is_file()) else {
            return Self::built_in("no manifest.json was found");
        };
        match read(path) {
            Ok(names) if names.is_empty() => Self::built_in("the manifest names no workspace template"),
            Ok(names) => {
                let source = ManifestSource::File { path: path.clone(), entries: names.len() };
                (Self::of(names), source)
            }
            Err(error) => Self::built_in(&format!("{}: {error}", path.display())),
        }
    }

    fn built_in(reason: &str) -> (Self, ManifestSource) {
        let names = BUILT_IN_RUNTIMES.iter().map(|name| (*name).to_owned()).collect();
        (Self::of(names), ManifestSource::BuiltIn { reason: reason.to_owned() })
    }

    fn of(mut names: BTreeSet<String>) -> Self {
        names.extend(EXTERNAL_LIKE_RUNTIMES.iter().map(|name| (*name).to_owned()));
        Self(names)
    }

    /// Whether the runtime is known, in either spelling.
    #[must_use]
    pub fn is_known(&self, runtime: &str) -> bool {
        self.0.contains(bare_name(runtime))
    }

    /// The runtime as a path component, image name or value of a generated configuration: trimmed, without
    /// `-default`; the default runtime when it is empty or, with a warning in the log, unknown (6.R30).
    #[must_use]
    pub fn sanitise<'a>(&self, runtime: &'a str) -> Cow<'a, str> {
        let name = bare_name(runtime);
        if self.0.contains(name) {
            return Cow::Borrowed(name);
        }
        if !name.is_empty() {
            tracing::warn!(?runtime, default = DEFAULT_RUNTIME, "unknown runtime; the default stands in");
        }
        Cow::Borrowed(DEFAULT_RUNTIME)
    }

    /// All names, without `-default`, in ascending order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for ManifestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, entries } => write!(f, "{entries} runtimes from {}", path.display()),
            Self::BuiltIn { reason } => {
                write!(f, "{} built-in runtimes: {reason}", BUILT_IN_RUNTIMES.len())
            }
        }
    }
}

/// A runtime's name, trimmed and without one trailing `-default`.
pub(crate) fn bare_name(runtime: &str) -> &str {
    let runtime = runtime.trim();
    runtime.strip_suffix("-default").unwrap_or(runtime)
}

fn read(path: &Path) -> io::Result<BTreeSet<String>> {
    let mut text = String::new();
    File::open(path)?.take(MANIFEST_MAX).read_to_string(&mut text)?;
    let manifest: Manifest = serde_json::from_str(text.trim_start_matches('\u{feff}'))?;
    let entries = manifest.workspace_templates.unwrap_or_default();
    let names = entries.iter().filter_map(|entry| entry.name.as_deref());
    Ok(names.map(bare_name).filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(manifest: &str) -> (KnownRuntimes, ManifestSource) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        fs::write(&path, manifest).unwrap();
        KnownRuntimes::load(Some(&path), folder.path())
    }

    // 6.R30, 2.R13, 1.R61
    #[test]
    fn names_of_the_manifest_lose_one_default_and_the_external_like_ones_are_always_known() {
        let (known, source) = load(
            r#"{"version":1,"plugins":[1],"workspace_templates":[{"name":" sample-default ","repo":"r","ref":"v1"},
               {"name":"x-default-default"},{"name":" "},{"name":null},{},{"name":"sample"}]}"#,
        );
        let names: Vec<&str> = known.names().collect();
        assert_eq!(names, ["external", "kimi", "kimi-cli", "sample", "x-default"]);
        assert!(matches!(source, ManifestSource::File { entries: 2, .. }), "{source}");
        for name in ["sample", "sample-default", " sample ", "kimi-cli"] {
            assert!(known.is_known(name), "{name}");
        }
        assert!(!known.is_known("claude-code") && !known.is_known(""));
    }

    // 6.R31, 2.R14
    #[test]
    fn without_a_usable_manifest_the_built_in_set_is_known() {
        let names = ["claude-code", "codex", "external", "hermes", "kimi", "kimi-cli", "openclaw"];
        for manifest in [
            "",
            "{",
            "[]",
            r#"{"workspace_templates":{}}"#,
            "{}",
            r#"{"workspace_templates":[]}"#,
            r#"{"workspace_templates":[{"name":"  "}]}"#,
            r#"{"workspace_templates":null}"#,
        ] {
            let (known, source) = load(manifest);
            assert_eq!(known.names().collect::<Vec<_>>(), names, "{manifest}");
            assert!(matches!(source, ManifestSource::BuiltIn { .. }), "{manifest}");
        }
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.json");
        assert!(matches!(
            KnownRuntimes::load(Some(&missing), folder.path()).1,
            ManifestSource::BuiltIn { .. }
        ));
    }

    // 2.R13
    #[test]
    fn the_manifest_is_looked_for_up_to_two_levels_above() {
        let folder = tempfile::tempdir().unwrap();
        let nested = folder.path().join("a/b/c");
        fs::create_dir_all(&nested).unwrap();
        fs::write(folder.path().join("manifest.json"), r#"{"workspace_templates":[{"name":"x"}]}"#).unwrap();
        assert!(KnownRuntimes::load(None, &folder.path().join("a/b")).0.is_known("x"));
        assert!(!KnownRuntimes::load(None, &nested).0.is_known("x"));
        fs::write(nested.join("manifest.json"), r#"{"workspace_templates":[{"name":"near"}]}"#).unwrap();
        assert!(KnownRuntimes::load(None, &nested).0.is_known("near"));
    }

    // 6.R30, 2.R15
    #[test]
    fn sanitising_yields_a_known_name_or_the_default() {
        let (known, _) = load(r#"{"workspace_templates":[{"name":"sample-default"}]}"#);
        for (runtime, sanitised) in [
            ("sample", "sample"),
            (" sample-default\n", "sample"),
            ("kimi", "kimi"),
            ("", "claude-code"),
            ("  ", "claude-code"),
            ("unknown", "claude-code"),
            ("../../etc", "claude-code"),
            ("sample\nrequired_env: [A]", "claude-code"),
            ("Sample", "claude-code"),
        ] {
            assert_eq!(known.sanitise(runtime), sanitised, "{runtime:?}");
        }
    }

    #[test]
    fn the_manifest_of_this_repository_is_usable() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (known, source) = KnownRuntimes::load(Some(Path::new("manifest.json")), &root);
        assert!(matches!(source, ManifestSource::File { entries: 5, .. }), "{source}");
        assert!(known.is_known("sample") && BUILT_IN_RUNTIMES.iter().all(|name| known.is_known(name)));
    }
}
