//! The folders of the private Postgres: where they are, whose they are, who may enter.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};

use super::account::Account;
use super::error::PrivateError;

/// The cluster's folder inside the data folder.
pub(super) const CLUSTER: &str = "postgres";

/// What the socket file is called: Postgres names it by the port.
pub(super) const SOCKET_FILE: &str = ".s.PGSQL.5432";

/// The longest socket path we use. `sockaddr_un` holds 108 bytes on Linux and 104 on BSD and macOS.
const SOCKET_PATH_MAX: usize = 99;

/// A log beyond this is set aside at the next start; one old log is kept.
const LOG_MAX_BYTES: u64 = 10 * 1024 * 1024;

/// The data folder: `MWS_DATA_DIR`, else `/var/lib/mws` for root, else `mws` in the user's data home, which is
/// `XDG_DATA_HOME` or `~/.local/share` (contract 2 §17). `None` when a user has neither home.
///
/// Values are taken from the caller, who has read the environment; empty ones count as unset, and so does a
/// relative `XDG_DATA_HOME`, as its specification asks.
#[must_use]
pub fn default_data_dir(
    mws_data_dir: Option<&OsStr>,
    is_root: bool,
    xdg_data_home: Option<&OsStr>,
    home: Option<&OsStr>,
) -> Option<PathBuf> {
    let given = |value: Option<&OsStr>| value.filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(chosen) = given(mws_data_dir) {
        return Some(chosen);
    }
    if is_root {
        return Some(PathBuf::from("/var/lib/mws"));
    }
    given(xdg_data_home)
        .filter(|path| path.is_absolute())
        .or_else(|| given(home).map(|home| home.join(".local/share")))
        .map(|data_home| data_home.join("mws"))
}

/// Makes the data folder and its missing parents, and answers its canonical path, so that every name of one
/// folder leads to the same locks.
pub(super) fn ensure_data_dir(data_dir: &Path) -> Result<PathBuf, PrivateError> {
    // Root's folders let the unprivileged account pass; a user's are his own.
    let mode = if geteuid().is_root() { 0o755 } else { 0o700 };
    let absolute = std::path::absolute(data_dir).map_err(PrivateError::io("cannot resolve", data_dir))?;
    let ancestors: Vec<&Path> = absolute.ancestors().collect();
    for folder in ancestors.into_iter().rev() {
        match fs::create_dir(folder) {
            // Not by the builder's mode, which the umask cuts.
            Ok(()) => fs::set_permissions(folder, Permissions::from_mode(mode))
                .map_err(PrivateError::io("cannot set the mode of", folder))?,
            Err(_) if folder.is_dir() => {}
            Err(error) => return Err(PrivateError::io("cannot create", folder)(error)),
        }
    }
    fs::canonicalize(&absolute).map_err(PrivateError::io("cannot resolve", absolute))
}

/// The folders, made and checked.
#[derive(Debug)]
pub(super) struct Folders {
    /// The data folder itself.
    pub(super) data: PathBuf,
    /// The cluster. May not exist yet.
    pub(super) cluster: PathBuf,
    /// Where a cluster is made before it gets its name.
    pub(super) unfinished: PathBuf,
    /// Where the socket is.
    pub(super) socket: PathBuf,
    /// What Postgres and its tools say.
    pub(super) log: PathBuf,
}

impl Folders {
    pub(super) fn prepare(data: PathBuf, account: &Account) -> Result<Self, PrivateError> {
        // Our own account learns from the system what it may; another's way is looked at beforehand.
        for folder in data.ancestors().filter(|_| account.dropped_to) {
            let metadata = fs::metadata(folder).map_err(PrivateError::io("cannot look at", folder))?;
            if !account.may_enter(&metadata) {
                return Err(PrivateError::NotTraversable {
                    path: folder.to_owned(),
                    account: account.name.clone(),
                });
            }
        }
        let cluster = data.join(CLUSTER);
        if let Ok(metadata) = fs::symlink_metadata(&cluster)
            && !account.dropped_to
            && metadata.uid() != account.uid
        {
            return Err(PrivateError::NotOwner { path: cluster, account: account.name.clone() });
        }
        let socket = socket_dir(&data, geteuid().is_root() && Path::new("/run").is_dir());
        own_folder(&socket, account)?;
        let unfinished = data.join("postgres.unfinished");
        let log = data.join("postgres.log");
        Ok(Self { data, cluster, unfinished, socket, log })
    }

    pub(super) fn socket_file(&self) -> PathBuf {
        self.socket.join(SOCKET_FILE)
    }

    /// The log, for appending.
    pub(super) fn open_log(&self) -> Result<File, PrivateError> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .map_err(PrivateError::io("cannot open", &self.log))
    }

    /// Sets a log aside that has grown too large. Only while no postmaster writes to it.
    pub(super) fn rotate_log(&self) -> Result<(), PrivateError> {
        match fs::metadata(&self.log) {
            Ok(log) if log.len() > LOG_MAX_BYTES => fs::rename(&self.log, self.log.with_extension("log.1"))
                .map_err(PrivateError::io("cannot rename", &self.log)),
            _ => Ok(()),
        }
    }
}

/// `<data>/socket`; when the socket's path would be too long, a folder named by the data folder's hash.
fn socket_dir(data: &Path, in_run: bool) -> PathBuf {
    let beside = data.join("socket");
    if beside.join(SOCKET_FILE).as_os_str().len() <= SOCKET_PATH_MAX {
        return beside;
    }
    let digest = Sha256::digest(data.as_os_str().as_bytes());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Path::new(if in_run { "/run" } else { "/tmp" }).join(format!("mws-{hash}"))
}

/// Makes a 0700 folder of the account. One that is there already must be its own: `/tmp` is everybody's.
pub(super) fn own_folder(path: &Path, account: &Account) -> Result<(), PrivateError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) if account.dropped_to => chown(path, Some(account.uid), Some(account.gid))
            .map_err(PrivateError::io("cannot change the owner of", path))?,
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(PrivateError::io("cannot create", path)(error)),
    }
    let metadata = fs::symlink_metadata(path).map_err(PrivateError::io("cannot look at", path))?;
    // Root's own: a start that was killed between the two steps above.
    if metadata.is_dir() && account.dropped_to && metadata.uid() == 0 {
        chown(path, Some(account.uid), Some(account.gid))
            .map_err(PrivateError::io("cannot change the owner of", path))?;
    } else if !metadata.is_dir() || metadata.uid() != account.uid {
        return Err(PrivateError::NotOwner { path: path.to_owned(), account: account.name.clone() });
    }
    if metadata.mode() & 0o777 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(PrivateError::io("cannot set the mode of", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_dir(chosen: &str, root: bool, xdg: &str, home: &str) -> Option<PathBuf> {
        default_data_dir(Some(chosen.as_ref()), root, Some(xdg.as_ref()), Some(home.as_ref()))
    }

    #[test]
    fn the_data_folder_follows_the_contract() {
        // Contract 2 §17, MWS_DATA_DIR.
        let is = |path: &str| Some(PathBuf::from(path));
        assert_eq!(data_dir("/srv/mws", true, "/x", "/h"), is("/srv/mws"));
        assert_eq!(data_dir("/srv/mws", false, "/x", "/h"), is("/srv/mws"));
        assert_eq!(data_dir("", true, "/x", "/h"), is("/var/lib/mws"));
        assert_eq!(data_dir("", false, "/x", "/h"), is("/x/mws"));
        assert_eq!(data_dir("", false, "relative", "/h"), is("/h/.local/share/mws"));
        assert_eq!(data_dir("", false, "", "/h"), is("/h/.local/share/mws"));
        assert_eq!(data_dir("", false, "", ""), None);
        assert_eq!(default_data_dir(None, false, None, None), None);
    }

    #[test]
    fn a_long_data_folder_gets_a_short_socket_path() {
        assert_eq!(socket_dir(Path::new("/var/lib/mws"), true), Path::new("/var/lib/mws/socket"));
        let long = PathBuf::from(format!("/var/lib/{}", "x".repeat(90)));
        for in_run in [true, false] {
            let socket = socket_dir(&long, in_run);
            assert!(socket.starts_with(if in_run { "/run" } else { "/tmp" }));
            assert!(socket.join(SOCKET_FILE).as_os_str().len() < 100);
            assert_eq!(socket, socket_dir(&long, in_run));
            assert_ne!(socket, socket_dir(&long.join("other"), in_run));
        }
    }
}
