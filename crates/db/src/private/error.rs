//! Why the private Postgres is not there.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the private Postgres could not be started or stopped. What Postgres itself said is in the log file
/// that the message names, never in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// No folder holds `postgres`, `initdb` and `pg_ctl`.
    #[error(
        "no PostgreSQL server (version {minimum} or newer) is installed; install one with `{install}`, or set \
         DATABASE_URL"
    )]
    NoBinaries {
        /// The one command to run.
        install: &'static str,
        /// The oldest major version that works.
        minimum: u32,
    },

    /// The cluster belongs to a major version that is not installed.
    #[error(
        "the database in {} was made by PostgreSQL {found}, but only PostgreSQL {installed} is installed; \
         install PostgreSQL {found} beside it, save the data with `{dump}`, move {} away, start again and \
         load the file with psql", cluster.display(), cluster.display()
    )]
    OtherMajor {
        /// The cluster's folder.
        cluster: PathBuf,
        /// The major version that made it.
        found: u32,
        /// The newest major version installed.
        installed: u32,
        /// A shell command that writes everything to a file.
        dump: String,
    },

    /// The cluster's folder holds something else.
    #[error("{} is not empty and holds no PostgreSQL cluster", .0.display())]
    NotACluster(PathBuf),

    /// The account that runs Postgres may not pass a parent of the data folder.
    #[error(
        "the account {account}, which runs Postgres, may not enter {}; run `chmod o+x` on it or choose another \
         data folder with MWS_DATA_DIR", path.display()
    )]
    NotTraversable {
        /// The first folder on the way that it cannot pass.
        path: PathBuf,
        /// Its name.
        account: String,
    },

    /// A folder belongs to another account than the one that runs Postgres.
    #[error("{} does not belong to the account {account}, which runs Postgres", path.display())]
    NotOwner {
        /// The folder.
        path: PathBuf,
        /// The account's name.
        account: String,
    },

    /// Started as root on a system that has neither a `postgres` nor a `nobody` account.
    #[error("Postgres does not run as root, and there is neither an account `postgres` nor `nobody`")]
    NoAccount,

    /// Another process has been starting or stopping the cluster for too long.
    #[error("another process has been starting or stopping this database for {}s", .0.as_secs())]
    Busy(Duration),

    /// A file operation failed.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried, such as `cannot create`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// A tool of Postgres failed.
    #[error("{tool} failed; see {}", log.display())]
    Tool {
        /// Which one.
        tool: &'static str,
        /// Where its output is.
        log: PathBuf,
    },

    /// A tool of Postgres took too long and was killed.
    #[error("{tool} did not finish within {}s; see {}", deadline.as_secs(), log.display())]
    Deadline {
        /// Which one.
        tool: &'static str,
        /// What it was given.
        deadline: Duration,
        /// Where its output is.
        log: PathBuf,
    },

    /// The start or stop was cut off by the end of the runtime, or panicked.
    #[error("the start or stop of the private Postgres was interrupted")]
    Interrupted,
}

impl PrivateError {
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
