//! Files that are copied into `/configs`, as one tar archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use secrecy::ExposeSecret;

use crate::spec::Credentials;

/// What one start may copy into `/configs`, in bytes of content (2.R48).
pub const MAX_CONFIG_BYTES: usize = 64 * 1024 * 1024;

/// The unprivileged user of the agent images.
const AGENT_UID: u64 = 1000;
const AGENT_GID: u64 = 1000;

/// The file that no agent boots without.
pub(crate) const CONFIG_YAML: &str = "config.yaml";
pub(crate) const AUTH_TOKEN: &str = ".auth_token";
pub(crate) const INBOUND_SECRET: &str = ".platform_inbound_secret";

/// A file or a set of files that may not be copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfigFile {
    /// Not relative, or with an empty, `.` or `..` component, or with a NUL.
    #[error("a configuration file has an unsafe name")]
    Name,
    /// One name is a file and also the folder of another.
    #[error("two configuration files contradict each other")]
    Conflict,
    /// More than [`MAX_CONFIG_BYTES`] in all.
    #[error("the configuration files are too large")]
    TooLarge,
}

/// One file of `/configs`. `Debug` shows its size, not its contents.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigFile {
    path: String,
    contents: Vec<u8>,
}

impl ConfigFile {
    /// `path` is relative to `/configs`, with `/` between its components.
    ///
    /// # Errors
    ///
    /// [`InvalidConfigFile::Name`] (2.R50).
    pub fn new(path: impl Into<String>, contents: Vec<u8>) -> Result<Self, InvalidConfigFile> {
        let path = path.into();
        let safe = path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0');
        if safe { Ok(Self { path, contents }) } else { Err(InvalidConfigFile::Name) }
    }

    /// Relative to `/configs`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The bytes.
    #[must_use]
    pub fn contents(&self) -> &[u8] {
        &self.contents
    }
}

impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} bytes)", self.path, self.contents.len())
    }
}

/// Files by path, the last one given for a path.
#[derive(Default)]
pub(crate) struct FileSet<'a> {
    files: BTreeMap<&'a str, Entry<'a>>,
}

struct Entry<'a> {
    contents: &'a [u8],
    mode: u32,
}

impl<'a> FileSet<'a> {
    pub(crate) fn add_files(&mut self, files: &'a [ConfigFile]) {
        for file in files {
            self.files.insert(&file.path, Entry { contents: &file.contents, mode: 0o644 });
        }
    }

    pub(crate) fn add_credentials(&mut self, credentials: &'a Credentials) {
        let secrets = [(AUTH_TOKEN, &credentials.auth_token), (INBOUND_SECRET, &credentials.inbound_secret)];
        for (path, secret) in secrets {
            if let Some(secret) = secret {
                let contents = secret.expose_secret().as_bytes();
                self.files.insert(path, Entry { contents, mode: 0o600 });
            }
        }
    }

    pub(crate) fn has_config(&self) -> bool {
        self.files.contains_key(CONFIG_YAML)
    }

    #[cfg(feature = "mock")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.files.iter().map(|(path, entry)| (*path, entry.contents))
    }

    pub(crate) fn check(&self) -> Result<(), InvalidConfigFile> {
        let total = self.files.values().map(|entry| entry.contents.len()).fold(0, usize::saturating_add);
        if total > MAX_CONFIG_BYTES {
            return Err(InvalidConfigFile::TooLarge);
        }
        if self.folders().iter().any(|folder| self.files.contains_key(folder)) {
            return Err(InvalidConfigFile::Conflict);
        }
        Ok(())
    }

    fn folders(&self) -> BTreeSet<&'a str> {
        self.files.keys().flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..at])).collect()
    }

    /// The archive to unpack at `/configs`; `None` when there is nothing to copy.
    pub(crate) fn to_tar(&self) -> io::Result<Option<Vec<u8>>> {
        if self.files.is_empty() {
            return Ok(None);
        }
        let mut archive = tar::Builder::new(Vec::new());
        for folder in self.folders() {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            archive.append_data(&mut header, format!("{folder}/"), io::empty())?;
        }
        for (path, entry) in &self.files {
            let size = u64::try_from(entry.contents.len()).map_err(io::Error::other)?;
            let mut header = header(tar::EntryType::Regular, entry.mode, size);
            archive.append_data(&mut header, path, entry.contents)?;
        }
        archive.into_inner().map(Some)
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(AGENT_UID);
    header.set_gid(AGENT_GID);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use secrecy::SecretString;

    use super::*;

    fn file(path: &str, contents: &str) -> ConfigFile {
        ConfigFile::new(path, contents.as_bytes().to_vec()).unwrap()
    }

    fn unpack(set: &FileSet<'_>) -> Vec<(String, u32, u64, u64, String)> {
        let bytes = set.to_tar().unwrap().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut contents = String::new();
                entry.read_to_string(&mut contents).unwrap();
                let header = entry.header();
                (
                    entry.path().unwrap().to_str().unwrap().to_owned(),
                    header.mode().unwrap(),
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    contents,
                )
            })
            .collect()
    }

    #[test]
    fn names_are_relative_and_clean() {
        // 2.R50
        for bad in ["", "/etc/passwd", "a//b", "../x", "a/../b", "a/..", "./a", "a/", "a\0b"] {
            assert_eq!(ConfigFile::new(bad, Vec::new()), Err(InvalidConfigFile::Name), "{bad:?}");
        }
        for good in ["config.yaml", "skills/x/SKILL.md", "..a", "a..b", ".hidden"] {
            assert!(ConfigFile::new(good, Vec::new()).is_ok(), "{good}");
        }
    }

    #[test]
    fn later_files_win_and_credentials_are_last() {
        // 2.R47, 2.R49
        let files = [
            file("config.yaml", "template"),
            file(".auth_token", "stale"),
            file("skills/x/SKILL.md", "skill"),
            file("config.yaml", "generated"),
        ];
        let credentials = Credentials { auth_token: Some(SecretString::from("fresh")), inbound_secret: None };
        let mut set = FileSet::default();
        set.add_files(&files);
        set.add_credentials(&credentials);
        let row = |path: &str, mode, contents: &str| (path.to_owned(), mode, 1000, 1000, contents.to_owned());
        assert_eq!(
            unpack(&set),
            vec![
                row("skills/", 0o755, ""),
                row("skills/x/", 0o755, ""),
                row(".auth_token", 0o600, "fresh"),
                row("config.yaml", 0o644, "generated"),
                row("skills/x/SKILL.md", 0o644, "skill"),
            ]
        );
    }

    #[test]
    fn long_names_survive() {
        let long = format!("{}/{}.md", "d".repeat(120), "f".repeat(120));
        let files = [file(&long, "x")];
        let mut set = FileSet::default();
        set.add_files(&files);
        assert_eq!(unpack(&set).last().unwrap().0, long);
    }

    #[test]
    fn contradicting_and_oversized_sets_are_refused() {
        // 2.R48: total cap
        let files = [file("a", ""), file("a/b", "")];
        let mut set = FileSet::default();
        set.add_files(&files);
        assert_eq!(set.check(), Err(InvalidConfigFile::Conflict));

        let big = vec![0; MAX_CONFIG_BYTES];
        let files = [ConfigFile::new("big", big).unwrap(), file("more", "x")];
        let mut set = FileSet::default();
        set.add_files(&files[..1]);
        assert_eq!(set.check(), Ok(()));
        set.add_files(&files[1..]);
        assert_eq!(set.check(), Err(InvalidConfigFile::TooLarge));
    }

    #[test]
    fn nothing_to_copy_is_no_archive() {
        assert!(FileSet::default().to_tar().unwrap().is_none());
    }
}
