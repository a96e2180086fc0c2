//! The files of a template, as they are copied into `/configs` (2.R48, 6.R28).

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::folders::{Templates, open_regular};

/// How much a template may hold in all its files, in bytes (2.R48).
pub const TOTAL_MAX: u64 = 64 * 1024 * 1024;
/// How many files and folders a template may hold.
const ENTRIES_MAX: usize = 10_000;
/// How deep its folders may be nested.
const DEPTH_MAX: usize = 32;

/// What a template consists of, sorted by path; a folder comes before what is in it. All paths are relative to the
/// template, with `/` between components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateTree {
    /// To be made with mode 0755.
    pub folders: Vec<String>,
    /// To be written with mode 0644.
    pub files: Vec<TemplateFile>,
}

/// A file of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFile {
    /// Where it goes, relative to `/configs`.
    pub path: String,
    /// With the line ends that the container needs.
    pub contents: Vec<u8>,
}

/// Why a template cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The folder is a symlink or no folder.
    #[error("the template is not a folder")]
    NotAFolder,
    /// It holds more than 64 MiB, 10 000 entries or 32 levels.
    #[error("the template is too large")]
    TooLarge,
    /// The file system is at fault.
    #[error("the template cannot be read")]
    Io(#[from] io::Error),
}

impl Templates {
    /// Reads every regular file and folder of a template into memory. Left out are symlinks, special files, `.git`,
    /// `.env`, `.env.*` and names that are not UTF-8; `\r\n` becomes `\n` in `.sh`, `.py` and `.md`.
    ///
    /// # Errors
    /// When the folder is a symlink, too large or unreadable.
    pub fn files(&self, folder: &Path) -> Result<TemplateTree, FilesError> {
        read_tree(folder, TOTAL_MAX)
    }
}

fn read_tree(root: &Path, total_max: u64) -> Result<TemplateTree, FilesError> {
    if !fs::symlink_metadata(root)?.is_dir() {
        return Err(FilesError::NotAFolder);
    }
    let mut tree = TemplateTree::default();
    let mut left = total_max;
    let mut pending = vec![(root.to_owned(), String::new(), 1)];
    while let Some((folder, prefix, depth)) = pending.pop() {
        if depth > DEPTH_MAX {
            return Err(FilesError::TooLarge);
        }
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                tracing::warn!(path = %entry.path().display(), "a name in a template is not UTF-8; leaving it out");
                continue;
            };
            if stays_out(&name) {
                continue;
            }
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push((entry.path(), format!("{path}/"), depth + 1));
                tree.folders.push(path);
            } else if kind.is_file()
                && let Some(file) = open_regular(&entry.path())?
            {
                let mut contents = Vec::new();
                file.take(left + 1).read_to_end(&mut contents)?;
                left = left.checked_sub(contents.len() as u64).ok_or(FilesError::TooLarge)?;
                tree.files.push(TemplateFile { contents: with_line_feeds(&name, contents), path });
            }
            if tree.folders.len() + tree.files.len() > ENTRIES_MAX {
                return Err(FilesError::TooLarge);
            }
        }
    }
    tree.folders.sort();
    tree.files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(tree)
}

/// Version control and credentials.
fn stays_out(name: &str) -> bool {
    name == ".git" || name == ".env" || name.starts_with(".env.")
}

/// Scripts with carriage returns do not run in a Linux container.
fn with_line_feeds(name: &str, contents: Vec<u8>) -> Vec<u8> {
    let is_text = [".sh", ".py", ".md"].iter().any(|suffix| name.ends_with(suffix));
    if !is_text || !contents.contains(&b'\r') {
        return contents;
    }
    let mut bytes = contents.into_iter().peekable();
    let mut converted = Vec::with_capacity(bytes.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\r' || bytes.peek() != Some(&b'\n') {
            converted.push(byte);
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        folder
    }

    fn read(root: &Path) -> Result<TemplateTree, FilesError> {
        Templates::new(root.to_owned()).files(root)
    }

    // 2.R48, 6.R28
    #[test]
    fn files_and_folders_are_read_and_credentials_version_control_and_symlinks_stay_out() {
        let folder = folder_with(&[
            ("config.yaml", b"name: x\r\n"),
            ("skills/a/SKILL.md", b"one\r\ntwo\rthree\r\r\n"),
            ("run.sh", b"#!/bin/sh\r\n"),
            ("tool.py", b"pass\r\n"),
            ("data.bin", b"\r\n\xff"),
            (".env", b"SECRET=1"),
            (".env.local", b"SECRET=1"),
            ("skills/.env", b"SECRET=1"),
            (".git/config", b"x"),
            ("skills/.git", b"gitdir: x"),
            (".envrc", b"kept"),
            (".gitignore", b"kept"),
        ]);
        fs::create_dir(folder.path().join("empty")).unwrap();
        symlink("/etc/passwd", folder.path().join("link")).unwrap();
        symlink("/etc", folder.path().join("links")).unwrap();
        let tree = read(folder.path()).unwrap();
        assert_eq!(tree.folders, ["empty", "skills", "skills/a"]);
        let files: Vec<(&str, &[u8])> =
            tree.files.iter().map(|file| (file.path.as_str(), file.contents.as_slice())).collect();
        let expected: [(&str, &[u8]); 7] = [
            (".envrc", b"kept"),
            (".gitignore", b"kept"),
            ("config.yaml", b"name: x\r\n"),
            ("data.bin", b"\r\n\xff"),
            ("run.sh", b"#!/bin/sh\n"),
            ("skills/a/SKILL.md", b"one\ntwo\rthree\r\n"),
            ("tool.py", b"pass\n"),
        ];
        assert_eq!(files, expected);
    }

    // 2.R48
    #[test]
    fn a_root_that_is_a_symlink_is_refused() {
        let folder = folder_with(&[("t/config.yaml", b"")]);
        symlink(folder.path().join("t"), folder.path().join("link")).unwrap();
        assert!(matches!(read(&folder.path().join("link")), Err(FilesError::NotAFolder)));
        assert!(matches!(read(&folder.path().join("t/config.yaml")), Err(FilesError::NotAFolder)));
        assert!(matches!(read(&folder.path().join("missing")), Err(FilesError::Io(_))));
    }

    // 2.R48
    #[test]
    fn the_total_is_capped_over_all_files() {
        let folder = folder_with(&[("a", &[0; 60]), ("b/c", &[0; 40])]);
        assert!(read_tree(folder.path(), 100).is_ok());
        assert!(matches!(read_tree(folder.path(), 99), Err(FilesError::TooLarge)));
        assert_eq!(TOTAL_MAX, 67_108_864);
    }

    #[test]
    fn nesting_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("d/".repeat(DEPTH_MAX - 1))).unwrap();
        assert!(read(folder.path()).is_ok());
        fs::create_dir_all(folder.path().join("d/".repeat(DEPTH_MAX))).unwrap();
        assert!(matches!(read(folder.path()), Err(FilesError::TooLarge)));
    }

    #[test]
    fn special_files_are_skipped() {
        let folder = folder_with(&[("a", b"x")]);
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        assert_eq!(read(folder.path()).unwrap().files.len(), 1);
    }
}
