//! How long provisioning may take, by runtime (6.R33–R35, 1.R31, 3.R78).

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::folders::{CONFIG_FILE, Templates};
use crate::manifest::bare_name;

/// How old what was read may be before it is compared with the folder again (6.R35).
const AGE_MAX: Duration = Duration::from_secs(5);
/// When neither operator nor template says otherwise (3.R78).
const DEFAULT_LIMIT: Duration = Duration::from_secs(600);
/// The same for `hermes`, which builds much at its first start (3.R78).
const HERMES_LIMIT: Duration = Duration::from_secs(1800);

/// The limits that templates declare, cached. The list, the reply for one workspace and the sweep all ask here, so
/// that they never disagree (6.R34).
#[derive(Debug)]
pub struct ProvisionTimeouts {
    templates: Templates,
    operators: Option<Duration>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    seconds: HashMap<String, u32>,
    stamps: Vec<Stamp>,
    checked: Option<Instant>,
}

/// What changes when a `config.yaml` does.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    folder: OsString,
    modified: Option<SystemTime>,
    length: u64,
}

impl ProvisionTimeouts {
    /// Reads nothing yet. `operators` is `PROVISION_TIMEOUT_SECONDS`, which overrides every runtime's limit.
    #[must_use]
    pub fn new(templates: Templates, operators: Option<Duration>) -> Self {
        Self { templates, operators, cache: Mutex::default() }
    }

    /// The largest limit in seconds that a template declares for the runtime, in either of its spellings. Looks at
    /// the folder when the last look is more than 5 s ago; a folder that cannot be listed changes nothing.
    #[must_use]
    pub fn declared(&self, runtime: &str) -> Option<u32> {
        self.declared_at(runtime, Instant::now())
    }

    /// How long provisioning of the runtime may take: the operator's limit, else the declared one, else 1800 s for
    /// `hermes`, else 600 s (3.R78).
    #[must_use]
    pub fn limit(&self, runtime: &str) -> Duration {
        if let Some(limit) = self.operators {
            return limit;
        }
        match self.declared(runtime) {
            Some(seconds) => Duration::from_secs(seconds.into()),
            None if bare_name(runtime) == "hermes" => HERMES_LIMIT,
            None => DEFAULT_LIMIT,
        }
    }

    /// Makes the next question read all templates again, whatever their modification times say (6.R22).
    pub fn invalidate(&self) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.checked = None;
        cache.stamps.clear();
    }

    fn declared_at(&self, runtime: &str, now: Instant) -> Option<u32> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = cache.checked.is_some_and(|checked| now.saturating_duration_since(checked) <= AGE_MAX);
        if !fresh {
            cache.checked = Some(now);
            if let Err(error) = self.refresh(&mut cache)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "templates cannot be listed; keeping the known provision timeouts");
            }
        }
        cache.seconds.get(bare_name(runtime)).copied()
    }

    fn refresh(&self, cache: &mut Cache) -> io::Result<()> {
        let stamps = self.stamps()?;
        if stamps != cache.stamps || stamps.is_empty() {
            // Stamped before reading: a file that changes meanwhile is read again next time.
            cache.seconds = self.read()?;
            cache.stamps = stamps;
        }
        Ok(())
    }

    fn stamps(&self) -> io::Result<Vec<Stamp>> {
        let stamp = |folder: std::path::PathBuf| {
            let metadata = std::fs::symlink_metadata(folder.join(CONFIG_FILE)).ok();
            Stamp {
                folder: folder.into_os_string(),
                modified: metadata.as_ref().and_then(|metadata| metadata.modified().ok()),
                length: metadata.map_or(0, |metadata| metadata.len()),
            }
        };
        Ok(self.templates.folders()?.into_iter().map(stamp).collect())
    }

    fn read(&self) -> io::Result<HashMap<String, u32>> {
        let mut seconds = HashMap::new();
        for folder in self.templates.folders()? {
            let config = match self.templates.config(&folder) {
                Ok(Some(config)) => config,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(template = ?folder.file_name(), %error, "template ignored for provision timeouts");
                    continue;
                }
            };
            if let (Some(runtime), Some(declared)) = (config.runtime, config.provision_timeout_seconds) {
                let largest = seconds.entry(bare_name(&runtime).to_owned()).or_insert(declared);
                *largest = declared.max(*largest);
            }
        }
        Ok(seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn template(root: &Path, folder: &str, config: &str) {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder).join(CONFIG_FILE), config).unwrap();
    }

    fn declares(runtime: &str, seconds: &str) -> String {
        format!("runtime: {runtime}\nruntime_config: {{provision_timeout_seconds: {seconds}}}\n")
    }

    fn timeouts(root: &Path) -> ProvisionTimeouts {
        ProvisionTimeouts::new(Templates::new(root.to_owned()), None)
    }

    // 6.R33, 1.R31
    #[test]
    fn the_largest_declaration_for_a_runtime_counts_and_unusable_ones_break_nothing() {
        let root = tempfile::tempdir().unwrap();
        template(root.path(), "a", &declares("sample", "700"));
        template(root.path(), "b", &declares("sample-default", "900"));
        template(root.path(), "c", &declares("sample", "800"));
        template(root.path(), "d", &declares("zero", "0"));
        template(root.path(), "e", &declares("minus", "-1"));
        template(root.path(), "f", "runtime_config: {provision_timeout_seconds: 5}");
        template(root.path(), "g", "runtime: plain");
        template(root.path(), "h", "runtime: [");
        template(root.path(), ".hidden", &declares("sample", "9999"));
        let timeouts = timeouts(root.path());
        assert_eq!(timeouts.declared("sample"), Some(900));
        assert_eq!(timeouts.declared("sample-default"), Some(900));
        for runtime in ["zero", "minus", "plain", "", "unknown"] {
            assert_eq!(timeouts.declared(runtime), None, "{runtime}");
        }
    }

    // 6.R34, 3.R78
    #[test]
    fn the_limit_is_the_operators_else_the_declared_else_hermes_else_the_default() {
        let root = tempfile::tempdir().unwrap();
        template(root.path(), "a", &declares("sample", "700"));
        let limits = timeouts(root.path());
        assert_eq!(limits.limit("sample"), Duration::from_secs(700));
        assert_eq!(limits.limit("hermes"), Duration::from_secs(1800));
        assert_eq!(limits.limit("codex"), Duration::from_secs(600));
        template(root.path(), "h", &declares("hermes", "100"));
        limits.invalidate();
        assert_eq!(limits.limit("hermes"), Duration::from_secs(100));
        let operators = Some(Duration::from_secs(42));
        let limits = ProvisionTimeouts::new(Templates::new(root.path().to_owned()), operators);
        assert_eq!((limits.limit("sample"), limits.declared("sample")), (Duration::from_secs(42), Some(700)));
    }

    // 6.R35, 3.R79
    #[test]
    fn a_change_is_seen_after_five_seconds_and_at_once_when_invalidated() {
        let root = tempfile::tempdir().unwrap();
        template(root.path(), "a", &declares("sample", "700"));
        let timeouts = timeouts(root.path());
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(timeouts.declared_at("sample", start), Some(700));
        template(root.path(), "a", &declares("sample", "1700"));
        assert_eq!(timeouts.declared_at("sample", later(5)), Some(700));
        assert_eq!(timeouts.declared_at("sample", later(6)), Some(1700));
        template(root.path(), "b", &declares("sample", "1800"));
        assert_eq!(timeouts.declared_at("sample", later(7)), Some(1700));
        timeouts.invalidate();
        assert_eq!(timeouts.declared_at("sample", later(8)), Some(1800));
        fs::remove_dir_all(root.path().join("b")).unwrap();
        assert_eq!(timeouts.declared_at("sample", later(14)), Some(1700));
    }

    // 6.R35
    #[test]
    fn files_that_did_not_change_are_not_read_again() {
        let root = tempfile::tempdir().unwrap();
        template(root.path(), "a", &declares("sample", "700"));
        let timeouts = timeouts(root.path());
        let start = Instant::now();
        assert_eq!(timeouts.declared_at("sample", start), Some(700));
        let path = root.path().join("a").join(CONFIG_FILE);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, declares("sample", "800")).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(timeouts.declared_at("sample", start + Duration::from_secs(6)), Some(700));
        timeouts.invalidate();
        assert_eq!(timeouts.declared_at("sample", start + Duration::from_secs(7)), Some(800));
    }

    // 6.R35
    #[test]
    fn a_failed_refresh_keeps_what_was_known() {
        let root = tempfile::tempdir().unwrap();
        let templates = root.path().join("templates");
        template(&templates, "a", &declares("sample", "700"));
        let timeouts = timeouts(&templates);
        let start = Instant::now();
        assert_eq!(timeouts.declared_at("sample", start), Some(700));
        fs::rename(&templates, root.path().join("moved")).unwrap();
        assert_eq!(timeouts.declared_at("sample", start + Duration::from_secs(6)), Some(700));
        timeouts.invalidate();
        assert_eq!(timeouts.declared_at("sample", start + Duration::from_secs(7)), Some(700));
    }
}
