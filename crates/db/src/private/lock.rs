//! The two locks of a data folder: who starts or stops, and who uses. The kernel releases both when their
//! process dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::PrivateError;

/// How long to wait for another process: it may be making the cluster, starting it, or stopping it.
const WAIT: Duration = Duration::from_secs(180);

/// How often to ask again. `flock` has no deadline of its own.
const POLL: Duration = Duration::from_millis(20);

/// Held while a process starts or stops the cluster.
#[derive(Debug)]
pub(super) struct StartLock(File);

impl StartLock {
    pub(super) fn acquire(data: &Path) -> Result<Self, PrivateError> {
        let path = data.join("start.lock");
        let file = open(&path)?;
        let give_up = Instant::now() + WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => std::thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => return Err(PrivateError::Busy(WAIT)),
                Err(TryLockError::Error(error)) => return Err(PrivateError::io("cannot lock", path)(error)),
            }
        }
    }
}

impl Drop for StartLock {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

/// Held shared by every process that uses the cluster.
#[derive(Debug)]
pub(super) struct UsersLock {
    file: File,
    path: PathBuf,
}

impl UsersLock {
    /// Joins the users. Call it under the [`StartLock`], under which alone the lock is ever exclusive.
    pub(super) fn share(data: &Path) -> Result<Self, PrivateError> {
        let path = data.join("users.lock");
        let file = open(&path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => Err(PrivateError::Busy(Duration::ZERO)),
            Err(TryLockError::Error(error)) => Err(PrivateError::io("cannot lock", path)(error)),
        }
    }

    /// Leaves the users; the lock, now exclusive, if nobody else is there. Call it under the [`StartLock`].
    pub(super) fn try_exclusive(self) -> Result<Option<Self>, PrivateError> {
        match self.file.try_lock() {
            Ok(()) => Ok(Some(self)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(PrivateError::io("cannot lock", &self.path)(error)),
        }
    }
}

impl Drop for UsersLock {
    fn drop(&mut self) {
        unlock(&self.file);
    }
}

/// Closing is not enough: a child between fork and exec still has the descriptor, and with it the lock.
fn unlock(file: &File) {
    if let Err(error) = file.unlock() {
        tracing::warn!(%error, "a lock of the private Postgres could not be released");
    }
}

fn open(path: &Path) -> Result<File, PrivateError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(PrivateError::io("cannot open", path))
}
