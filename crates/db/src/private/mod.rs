//! The private Postgres: the database server that the workspace server runs for itself when no
//! `DATABASE_URL` is given.
//!
//! Everything lives in one data folder:
//!
//! | entry | what | whose |
//! |---|---|---|
//! | `postgres/` | the cluster, 0700 | the account that runs Postgres |
//! | `socket/` | the Unix socket, 0700; elsewhere when the path would be too long | the same |
//! | `postgres.log` | what Postgres and its tools say, 0600 | the process |
//! | `start.lock` | held while somebody starts or stops the cluster | the process |
//! | `users.lock` | held shared by every process that uses the cluster | the process |
//!
//! The postmaster is no child that dies with its parent: a server killed with `kill -9` leaves it running,
//! and the next start attaches. The last user to leave stops it.

mod account;
mod binaries;
mod cluster;
mod command;
mod error;
mod folders;
mod lock;
mod postmaster;
mod probe;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Handle;

use account::Account;
use binaries::Binaries;
use cluster::Cluster;
pub use error::PrivateError;
use folders::Folders;
pub use folders::default_data_dir;
use lock::{StartLock, UsersLock};

/// The role of the workspace server in its private cluster. It may create databases, which the tests do, and
/// is no superuser.
const ROLE: &str = "mws";

/// The database that [`PrivatePostgres::url`] names.
const DATABASE: &str = "mws";

/// How long a started postmaster may take until it answers, crash recovery included.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long a fast shutdown may take.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How the cluster trades durability for speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// What was committed survives a power cut.
    Production,
    /// A crash of the machine may cost the cluster. For test databases only.
    Tests,
}

/// What [`PrivatePostgres::start`] needs to know. The account that runs Postgres follows from it: the
/// process's own, or as root the owner of the cluster, else `postgres`, else `nobody`.
#[derive(Debug, Clone)]
pub struct PrivateConfig {
    /// The data folder; made when missing. See [`default_data_dir`].
    pub data_dir: PathBuf,
    /// Applied when this call starts the cluster; a cluster that already runs keeps its own.
    pub tuning: Tuning,
}

/// One use of the private Postgres of a data folder. While any is alive, in any process, the cluster runs.
///
/// Dropping it does what [`release`](Self::release) does, on the dropping thread, and logs what fails.
#[derive(Debug)]
pub struct PrivatePostgres {
    session: Option<Session>,
    url: String,
}

/// What it takes to leave: who else is there, and how to stop the cluster.
#[derive(Debug)]
struct Session {
    users: UsersLock,
    cluster: Cluster,
}

impl PrivatePostgres {
    /// Attaches to the running cluster of the data folder, or starts it, or makes it first.
    ///
    /// Callers in this and other processes wait for each other. May be cancelled: the start then goes on in
    /// the background and is released at its end.
    ///
    /// # Errors
    /// See [`PrivateError`]: no server binaries, a folder that the account cannot reach, a cluster of another
    /// major version, or a server that did not come up within 30 s.
    pub async fn start(config: PrivateConfig) -> Result<Self, PrivateError> {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || Self::start_blocking(&config, &runtime))
            .await
            .map_err(|_| PrivateError::Interrupted)?
    }

    fn start_blocking(config: &PrivateConfig, runtime: &Handle) -> Result<Self, PrivateError> {
        let data_dir = folders::ensure_data_dir(&config.data_dir)?;
        let _starting = StartLock::acquire(&data_dir)?;

        let account = Account::choose(&data_dir)?;
        let folders = Folders::prepare(data_dir, &account)?;
        let binaries = Binaries::choose(&folders, &account)?;
        let cluster = Cluster { folders, account, binaries };
        cluster.ensure_made(config.tuning)?;

        let users = UsersLock::share(&cluster.folders.data)?;
        postmaster::ensure_running(&cluster, config.tuning, runtime)?;
        let url = url_of(&cluster.folders.socket);
        Ok(Self { session: Some(Session { users, cluster }), url })
    }

    /// `postgres://mws@localhost/mws?host=<socket folder>`: no secret, since the folder's permissions are
    /// what guards the socket.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Ends this use; the last one to leave stops the cluster with a fast shutdown, which disconnects
    /// whoever is still connected. Close pools first.
    ///
    /// May be cancelled: the stop then goes on in the background.
    ///
    /// # Errors
    /// When the locks cannot be taken, or Postgres did not stop within 30 s.
    pub async fn release(mut self) -> Result<(), PrivateError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        tokio::task::spawn_blocking(move || session.leave()).await.map_err(|_| PrivateError::Interrupted)?
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = session.leave()
        {
            tracing::warn!(%error, "the private Postgres could not be released");
        }
    }
}

impl Session {
    fn leave(self) -> Result<(), PrivateError> {
        // Under this lock nobody attaches between the question and the stop.
        let _stopping = StartLock::acquire(&self.cluster.folders.data)?;
        match self.users.try_exclusive()? {
            Some(_last) => postmaster::stop(&self.cluster),
            None => Ok(()),
        }
    }
}

fn url_of(socket: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;

    let mut url = format!("postgres://{ROLE}@localhost/{DATABASE}?host=");
    for &byte in socket.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_the_socket_folder() {
        assert_eq!(
            url_of(Path::new("/var/lib/my data/socket")),
            "postgres://mws@localhost/mws?host=%2Fvar%2Flib%2Fmy%20data%2Fsocket"
        );
    }
}
