//! The cluster's folder: making it so that a crash leaves either none or a whole one.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::account::Account;
use super::binaries::Binaries;
use super::command::run_logged;
use super::error::PrivateError;
use super::folders::{Folders, own_folder};
use super::{DATABASE, ROLE, Tuning};

/// The cluster's superuser, whom no connection of ours uses.
pub(super) const SUPERUSER: &str = "postgres";

/// What making a cluster may take: it is synced to a disk that may be slow.
const INIT_DEADLINE: Duration = Duration::from_secs(120);

/// A cluster, and what runs it.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) folders: Folders,
    pub(super) account: Account,
    pub(super) binaries: Binaries,
}

impl Cluster {
    /// Makes the cluster with its role and database unless it is there: beside its place first, and moved
    /// there when it is whole. Call it under the start lock.
    pub(super) fn ensure_made(&self, tuning: Tuning) -> Result<(), PrivateError> {
        let Folders { data, cluster, unfinished, .. } = &self.folders;
        if major_of(cluster)?.is_some() {
            return Ok(());
        }
        match fs::remove_dir_all(unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PrivateError::io("cannot remove", unfinished)(error));
            }
            _ => {}
        }
        own_folder(unfinished, &self.account)?;
        self.init(tuning)?;
        self.create_database(tuning)?;
        fs::rename(unfinished, cluster).map_err(PrivateError::io("cannot move into place", cluster))?;
        File::open(data).and_then(|folder| folder.sync_all()).map_err(PrivateError::io("cannot sync", data))
    }

    fn init(&self, tuning: Tuning) -> Result<(), PrivateError> {
        let mut initdb = self.account.command(&self.binaries.tool("initdb"));
        initdb
            .arg("--pgdata")
            .arg(&self.folders.unfinished)
            .args(["--encoding=UTF8", "--locale=C.UTF-8"])
            .arg(format!("--username={SUPERUSER}"))
            // `peer` would shut out either the server, when that is root, or the account itself. The socket
            // is in a 0700 folder of the account: whoever reaches it may as well read the cluster's files.
            .args(["--auth-local=trust", "--auth-host=reject"]);
        if tuning == Tuning::Tests {
            initdb.arg("--no-sync");
        }
        run_logged(initdb, "initdb", "", INIT_DEADLINE, &self.folders)
    }

    /// In single-user mode, so that a cluster never has its name without its database.
    fn create_database(&self, tuning: Tuning) -> Result<(), PrivateError> {
        let fsync = if tuning == Tuning::Tests { "off" } else { "on" };
        let mut single = self.account.command(&self.binaries.tool("postgres"));
        single
            .arg("--single")
            .arg("-D")
            .arg(&self.folders.unfinished)
            .args(["-c", "exit_on_error=on", "-c", "log_checkpoints=off", "-c"])
            .arg(format!("fsync={fsync}"))
            .arg("postgres");
        let statements =
            format!("CREATE ROLE {ROLE} LOGIN CREATEDB\nCREATE DATABASE {DATABASE} OWNER {ROLE}\n");
        run_logged(single, "postgres --single", &statements, INIT_DEADLINE, &self.folders)
    }
}

/// The major version of the cluster in this folder; `None` when there is none.
pub(super) fn major_of(cluster: &Path) -> Result<Option<u32>, PrivateError> {
    let file = cluster.join("PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(version) => match version.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => Err(PrivateError::NotACluster(cluster.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let empty = fs::read_dir(cluster).map_or(true, |mut entries| entries.next().is_none());
            if empty { Ok(None) } else { Err(PrivateError::NotACluster(cluster.to_owned())) }
        }
        Err(error) => Err(PrivateError::io("cannot read", file)(error)),
    }
}
