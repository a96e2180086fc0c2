//! The demo's own folder: the admin token, the server's log and its process id.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::DemoError;

const TOKEN_BYTES: usize = 32;

#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder with its missing parents.
    pub(crate) fn ensure(path: PathBuf) -> Result<Self, DemoError> {
        // Root's lets the account through that runs the private Postgres in it; a user's is his own.
        let mode = if nix::unistd::geteuid().is_root() { 0o755 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(&path).map_err(DemoError::file(&path))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.0.join("server.pid")
    }

    /// The admin token, made once and readable by its owner alone.
    pub(crate) fn admin_token(&self) -> Result<String, DemoError> {
        let path = self.0.join("admin-token");
        match fs::read_to_string(&path) {
            Ok(token) if token.trim().len() >= TOKEN_BYTES => return Ok(token.trim().to_owned()),
            // Cut short by a crash: made anew.
            Ok(_) => fs::remove_file(&path).map_err(DemoError::file(&path))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(DemoError::File { path, source }),
        }
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|_| DemoError::Random)?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(token.as_bytes()))
            .map_err(DemoError::file(&path))?;
        Ok(token)
    }

    pub(crate) fn write_pid(&self, pid: u32) -> Result<(), DemoError> {
        let path = self.pid_file();
        fs::write(&path, pid.to_string()).map_err(DemoError::file(&path))
    }

    pub(crate) fn read_pid(&self) -> Option<i32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
    }

    pub(crate) fn remove_pid(&self) {
        // One that stays names a process that is not ours, and is known for that.
        let _ = fs::remove_file(self.pid_file());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_made_once_and_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::ensure(parent.path().join("a/b")).unwrap();
        let token = folder.admin_token().unwrap();
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
        assert_eq!(folder.admin_token().unwrap(), token);
        let file = folder.path().join("admin-token");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(&file, "cut").unwrap();
        assert_eq!(folder.admin_token().unwrap().len(), 2 * TOKEN_BYTES);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn only_a_plausible_process_id_is_read() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::ensure(parent.path().to_owned()).unwrap();
        assert_eq!(folder.read_pid(), None);
        folder.write_pid(4711).unwrap();
        assert_eq!(folder.read_pid(), Some(4711));
        for bad in ["", "1", "0", "-5", "x"] {
            fs::write(folder.pid_file(), bad).unwrap();
            assert_eq!(folder.read_pid(), None, "{bad:?}");
        }
    }
}
