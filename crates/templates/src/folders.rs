//! The folder of templates: finding it, listing it, and resolving names inside it (6 §1, 6.R7, 6.R24).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::config::TemplateConfig;
use crate::manifest::KnownRuntimes;
use crate::yaml::{CONFIG_MAX, Malformed};

/// The file that makes a folder a template.
pub const CONFIG_FILE: &str = "config.yaml";
/// The name of the folder that is looked for.
const ROOT_NAME: &str = "workspace-configs-templates";
/// The most sub-folders that count as templates; the rest is left out with a warning.
const TEMPLATES_MAX: usize = 1000;
/// The longest name of a template, in bytes, as for every path (6.R5).
const NAME_MAX: usize = 1024;

/// The folder of templates. Cheap to clone; nothing is cached.
#[derive(Clone, Debug)]
pub struct Templates {
    root: PathBuf,
}

/// A template name that leads out of the folder of templates, or cannot name anything in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid template")]
pub struct InvalidTemplate;

/// A `config.yaml` that is there and cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its content is at fault.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The file system is.
    #[error("the template cannot be read")]
    Io(#[from] io::Error),
}

/// The folder of templates: `configs_dir` when given, else the nearest `workspace-configs-templates`, in `cwd` or up
/// to two levels above, with at least one template in it; else that name in `cwd`, which need not exist.
#[must_use]
pub fn find_root(configs_dir: Option<&Path>, cwd: &Path) -> PathBuf {
    if let Some(folder) = configs_dir {
        return cwd.join(folder);
    }
    let holds_a_template = |root: &PathBuf| {
        let templates = Templates::new(root.clone());
        templates.folders().is_ok_and(|folders| folders.iter().any(|folder| templates.has_config(folder)))
    };
    ["", "..", "../.."]
        .iter()
        .map(|up| cwd.join(up).join(ROOT_NAME))
        .find(holds_a_template)
        .unwrap_or_else(|| cwd.join(ROOT_NAME))
}

impl Templates {
    /// The templates in `root`, which need not exist.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder that the templates are in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the template that a user named, or none when there is no such folder (6.R7, 1.R36). No part of
    /// it is a symlink. Hidden folders are no templates (6.R9).
    ///
    /// # Errors
    /// When the name is empty or absolute, or leads out of the folder of templates as text or through a symlink.
    pub fn resolve(&self, name: &str) -> Result<Option<PathBuf>, InvalidTemplate> {
        let relative = lexical(name)?;
        if relative.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".")) {
            return Ok(None);
        }
        let Ok(root) = self.root.canonicalize() else { return Ok(None) };
        for existing in relative.ancestors() {
            let expected = root.join(existing);
            match expected.canonicalize() {
                // A symlink on the way makes the canonical path another one.
                Ok(canonical) if canonical != expected => return Err(InvalidTemplate),
                Ok(canonical) => return Ok((existing == relative && canonical.is_dir()).then_some(canonical)),
                // A dangling symlink exists as well.
                Err(_) if expected.is_symlink() => return Err(InvalidTemplate),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// The template of a runtime: `<runtime>-default`, else `<runtime>`, with a `config.yaml` in it; the runtime is
    /// sanitised first (6.R24, 6.R26, 2.R101, 2.R104).
    #[must_use]
    pub fn for_runtime(&self, known: &KnownRuntimes, runtime: &str) -> Option<PathBuf> {
        let runtime = known.sanitise(runtime);
        [format!("{runtime}-default"), runtime.into_owned()]
            .iter()
            .filter_map(|name| self.resolve(name).ok().flatten())
            .find(|folder| self.has_config(folder))
    }

    /// The direct sub-folders in ascending byte order, without hidden ones and symlinks (6.R9), with their paths.
    ///
    /// # Errors
    /// When the folder of templates cannot be listed; it may be missing.
    pub fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
        folders.sort();
        if folders.len() > TEMPLATES_MAX {
            tracing::warn!(
                found = folders.len(),
                used = TEMPLATES_MAX,
                "too many templates; leaving some out"
            );
            folders.truncate(TEMPLATES_MAX);
        }
        Ok(folders)
    }

    /// Whether the folder holds a `config.yaml` that is a regular file (2.R100).
    #[must_use]
    pub fn has_config(&self, folder: &Path) -> bool {
        fs::symlink_metadata(folder.join(CONFIG_FILE)).is_ok_and(|metadata| metadata.is_file())
    }

    /// The text of the folder's `config.yaml`; none when there is no such regular file.
    ///
    /// # Errors
    /// When it cannot be read, is larger than [`CONFIG_MAX`] or not UTF-8.
    pub fn config_text(&self, folder: &Path) -> Result<Option<String>, ReadError> {
        let file = match open_regular(&folder.join(CONFIG_FILE)) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(CONFIG_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > CONFIG_MAX {
            return Err(Malformed::new("larger than 1 MiB").into());
        }
        String::from_utf8(bytes).map(Some).map_err(|_| Malformed::new("not UTF-8").into())
    }

    /// The folder's `config.yaml`; none when there is no such regular file.
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub fn config(&self, folder: &Path) -> Result<Option<TemplateConfig>, ReadError> {
        let text = self.config_text(folder)?;
        text.map(|text| TemplateConfig::parse(&text)).transpose().map_err(ReadError::from)
    }
}

/// The name as a path of plain components, with `..` resolved as text; never the root itself.
fn lexical(name: &str) -> Result<PathBuf, InvalidTemplate> {
    if name.len() > NAME_MAX || name.contains(|c: char| c == '\\' || c.is_control()) {
        return Err(InvalidTemplate);
    }
    let mut parts: Vec<&OsStr> = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop().ok_or(InvalidTemplate)?),
            Component::RootDir | Component::Prefix(_) => return Err(InvalidTemplate),
        }
    }
    if parts.is_empty() { Err(InvalidTemplate) } else { Ok(parts.iter().collect()) }
}

/// Opens a regular file; none when it is anything else. A symlink put in its place meanwhile is not followed
/// unnoticed: what was opened must be what was looked at.
pub(crate) fn open_regular(path: &Path) -> io::Result<Option<File>> {
    let seen = fs::symlink_metadata(path)?;
    if !seen.is_file() {
        return Ok(None);
    }
    let file = File::open(path)?;
    let opened = file.metadata()?;
    Ok(((seen.dev(), seen.ino()) == (opened.dev(), opened.ino())).then_some(file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        base: PathBuf,
        templates: Templates,
    }

    /// `<base>/foo` is the root; `<base>/foobar` and `<base>/outside` are not in it.
    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for path in ["foo/sample", "foo/a/nested", "foo/.hidden", "foobar/x", "outside"] {
            fs::create_dir_all(base.join(path)).unwrap();
        }
        fs::write(base.join("foo/sample/config.yaml"), "name: Sample\nruntime: sample\n").unwrap();
        fs::write(base.join("foo/file"), "").unwrap();
        Fixture { templates: Templates::new(base.join("foo")), base, _folder: folder }
    }

    // 6.R7, 1.R36
    #[test]
    fn names_inside_the_folder_resolve_or_are_absent() {
        let Fixture { base, templates, _folder } = fixture();
        for (name, path) in [
            ("sample", Some("foo/sample")),
            ("./sample/", Some("foo/sample")),
            ("a/nested", Some("foo/a/nested")),
            ("a/../sample", Some("foo/sample")),
            ("missing", None),
            ("missing/deeper", None),
            ("file", None),
            ("file/x", None),
            (".hidden", None),
        ] {
            assert_eq!(templates.resolve(name), Ok(path.map(|path| base.join(path))), "{name}");
        }
        assert_eq!(Templates::new(base.join("nowhere")).resolve("x"), Ok(None));
        assert_eq!(Templates::new(base.join("nowhere")).resolve("../x"), Err(InvalidTemplate));
    }

    // 6.R7, 1.R36
    #[test]
    fn names_that_lead_out_are_refused() {
        let Fixture { base, templates, _folder } = fixture();
        let sibling = base.join("foobar").display().to_string();
        let long = "a/".repeat(600);
        for name in [
            "",
            ".",
            "..",
            "a/..",
            "../foobar",
            "../foo/sample",
            "a/../../outside",
            "/etc",
            &sibling,
            "a\\b",
            "a\0",
            "a\n",
            &long,
        ] {
            assert_eq!(templates.resolve(name), Err(InvalidTemplate), "{name:?}");
        }
    }

    // 6.R6, 6.R7, 2.R48
    #[test]
    fn symlinks_are_refused_wherever_they_lead() {
        let Fixture { base, templates, _folder } = fixture();
        symlink(base.join("outside"), base.join("foo/out")).unwrap();
        symlink(base.join("foo/sample"), base.join("foo/in")).unwrap();
        symlink(base.join("nowhere"), base.join("foo/dangling")).unwrap();
        for name in ["out", "in", "dangling", "out/x", "in/x"] {
            assert_eq!(templates.resolve(name), Err(InvalidTemplate), "{name}");
        }
        // The operator may have put the whole folder elsewhere.
        symlink(base.join("foo"), base.join("link")).unwrap();
        assert_eq!(Templates::new(base.join("link")).resolve("sample"), Ok(Some(base.join("foo/sample"))));
    }

    proptest! {
        // 6.R7
        #[test]
        fn whatever_is_named_the_result_is_below_the_root(name in r"(\.\./|\./|/|a|nested|sample|foo|bar|\.|%2e|\\){0,8}") {
            let Fixture { base, templates, _folder } = fixture();
            if let Ok(Some(path)) = templates.resolve(&name) {
                prop_assert!(path.starts_with(base.join("foo")) && path != base.join("foo"));
            }
        }
    }

    // 6.R9
    #[test]
    fn only_direct_visible_sub_folders_are_listed_in_byte_order() {
        let Fixture { base, templates, _folder } = fixture();
        symlink(base.join("foo/sample"), base.join("foo/link")).unwrap();
        fs::create_dir(base.join("foo/Z")).unwrap();
        let folders = templates.folders().unwrap();
        assert_eq!(folders, [base.join("foo/Z"), base.join("foo/a"), base.join("foo/sample")]);
    }

    // 6.R24, 6.R26, 2.R101, 2.R104
    #[test]
    fn a_runtime_has_its_default_template_else_the_one_of_its_name() {
        let Fixture { base, templates, _folder } = fixture();
        let manifest = base.join("manifest.json");
        fs::write(&manifest, r#"{"workspace_templates":[{"name":"sample"},{"name":"..-default"}]}"#).unwrap();
        let (known, _) = KnownRuntimes::load(Some(&manifest), &base);
        assert_eq!(templates.for_runtime(&known, "sample"), Some(base.join("foo/sample")));
        let default = base.join("foo/sample-default");
        fs::create_dir(&default).unwrap();
        // A folder without a config.yaml is no source of one (2.R100).
        assert_eq!(templates.for_runtime(&known, "sample"), Some(base.join("foo/sample")));
        fs::write(default.join(CONFIG_FILE), "").unwrap();
        assert_eq!(templates.for_runtime(&known, "sample-default"), Some(default));
        fs::write(base.join("config.yaml"), "").unwrap();
        assert_eq!(templates.for_runtime(&known, ".."), None);
        // An unknown runtime is the default one, which has no template here.
        assert_eq!(templates.for_runtime(&known, "a/nested"), None);
    }

    // 6 §1
    #[test]
    fn the_nearest_folder_with_a_template_is_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        let deep = base.join("x/y");
        fs::create_dir_all(deep.join(ROOT_NAME).join("empty")).unwrap();
        assert_eq!(find_root(None, &deep), deep.join(ROOT_NAME));
        fs::create_dir_all(base.join(ROOT_NAME).join("t")).unwrap();
        fs::write(base.join(ROOT_NAME).join("t/config.yaml"), "").unwrap();
        assert_eq!(
            find_root(None, &deep).canonicalize().unwrap(),
            base.join(ROOT_NAME).canonicalize().unwrap()
        );
        assert_eq!(find_root(Some(Path::new("other")), &deep), deep.join("other"));
    }

    // 2.R100, 6.R16
    #[test]
    fn a_config_is_a_regular_file_within_bounds() {
        let Fixture { base, templates, _folder } = fixture();
        let (sample, other) = (base.join("foo/sample"), base.join("foo/a"));
        assert_eq!(templates.config(&sample).unwrap().unwrap().runtime.as_deref(), Some("sample"));
        assert!(templates.config(&other).unwrap().is_none());
        symlink(sample.join(CONFIG_FILE), other.join(CONFIG_FILE)).unwrap();
        assert!(templates.config(&other).unwrap().is_none() && !templates.has_config(&other));
        fs::write(sample.join(CONFIG_FILE), vec![b'#'; CONFIG_MAX + 1]).unwrap();
        assert!(matches!(templates.config(&sample), Err(ReadError::Malformed(_))));
        fs::write(sample.join(CONFIG_FILE), [0xff, 0xfe, 0x00]).unwrap();
        assert!(matches!(templates.config(&sample), Err(ReadError::Malformed(_))));
    }

    #[test]
    fn the_template_that_is_shipped_can_be_used() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(ROOT_NAME);
        let templates = Templates::new(root);
        let folder = templates.resolve("sample").unwrap().unwrap();
        let config = templates.config(&folder).unwrap().unwrap();
        assert_eq!(config.name.as_deref(), Some("Sample Agent"));
        assert_eq!(config.runtime.as_deref(), Some("sample"));
        assert_eq!(config.model.as_deref(), Some("sample/echo"));
        assert_eq!((config.tier, config.required_env.len()), (Some(2), 0));
    }
}
