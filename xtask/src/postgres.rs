//! A throwaway Postgres for one command: fast, on a Unix socket, gone afterwards.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{install, steps};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const DATABASE: &str = "mws";

/// Data that dies with the command may be unsafe, and is several times faster for it.
const SETTINGS: [&str; 9] = [
    "listen_addresses=",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "jit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "shared_buffers=64MB",
];

pub(crate) struct Throwaway {
    bin: PathBuf,
    folder: PathBuf,
    owner: Option<(u32, u32)>,
    // In our process group: on Ctrl-C the terminal sends it SIGINT too, Postgres' word for a fast shutdown.
    server: Child,
}

impl Throwaway {
    pub(crate) fn start() -> Result<Self, String> {
        let bin = install::postgres_bin().ok_or("no Postgres server is installed")?;
        let owner = if install::is_root() { Some(postgres_user()?) } else { None };
        let folder = private_folder(owner)?;

        let initialised =
            steps::output(as_owner(&bin.join("initdb"), owner).arg("-D").arg(folder.join("data")).args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ]));
        if let Err(error) = initialised {
            let _ = fs::remove_dir_all(&folder);
            return Err(error);
        }

        let log = fs::File::create(folder.join("log")).map_err(|error| error.to_string())?;
        let mut command = as_owner(&bin.join("postgres"), owner);
        command.arg("-D").arg(folder.join("data")).arg("-k").arg(&folder);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot run postgres: {error}"))?;

        let mut throwaway = Self { bin, folder, owner, server };
        throwaway.wait_ready()?;
        steps::output(throwaway.client("createdb").arg(DATABASE))?;
        Ok(throwaway)
    }

    /// Applies every migration in order, each in a transaction of its own.
    pub(crate) fn migrate(&self) -> Result<(), String> {
        for file in migrations()? {
            let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let mut psql = self.client("psql");
            psql.args(["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname", DATABASE]);
            if !text.starts_with("-- no-transaction") {
                psql.arg("--single-transaction");
            }
            steps::output(psql.arg("--file").arg(&file))?;
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@localhost/{DATABASE}?host={}", self.folder.display())
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let mut ready = self.client("pg_isready");
        ready.stdout(Stdio::null()).stderr(Stdio::null());
        let (server, folder) = (&mut self.server, &self.folder);
        steps::wait_until("Postgres", START_TIMEOUT, || {
            if let Some(status) = server.try_wait().map_err(|error| error.to_string())? {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(format!("postgres ended with {status}\n{log}"));
            }
            Ok(ready.status().is_ok_and(|status| status.success()))
        })
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("--host").arg(&self.folder).arg("--username=postgres");
        command
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let stopped = steps::output(
            as_owner(&self.bin.join("pg_ctl"), self.owner)
                .arg("stop")
                .arg("-D")
                .arg(self.folder.join("data"))
                .args(["--silent", "--mode=immediate"]),
        );
        if stopped.is_err() {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn migrations() -> Result<Vec<PathBuf>, String> {
    let folder = steps::root().join("migrations");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    Ok(files)
}

/// Postgres refuses to run as root, so root's cluster belongs to the user that the package made.
fn postgres_user() -> Result<(u32, u32), String> {
    let id = |flag| -> Result<u32, String> {
        let text = steps::output(Command::new("id").args([flag, "postgres"]))?;
        text.trim().parse().map_err(|_| format!("`id {flag} postgres` said {text:?}"))
    };
    Ok((id("-u")?, id("-g")?))
}

/// A new folder that nobody else may enter, on a path short enough for a socket's name (107 bytes).
fn private_folder(owner: Option<(u32, u32)>) -> Result<PathBuf, String> {
    let process = std::process::id();
    for attempt in 0..100 {
        let folder = PathBuf::from(format!("/tmp/mws-xtask-{process}-{attempt}"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {
                if let Some((user, group)) = owner {
                    chown(&folder, Some(user), Some(group)).map_err(|error| error.to_string())?;
                }
                return Ok(folder);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot make {}: {error}", folder.display())),
        }
    }
    Err("no free folder name under /tmp".to_owned())
}

fn as_owner(program: &Path, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throwaway_cluster_answers_and_leaves_nothing() {
        let postgres = Throwaway::start().unwrap();
        let folder = postgres.folder.clone();
        let answer = steps::output(postgres.client("psql").args([
            "--dbname",
            DATABASE,
            "-Atc",
            "SHOW server_encoding",
        ]));
        assert_eq!(answer.as_deref().map(str::trim), Ok("UTF8"));
        drop(postgres);
        assert!(!folder.exists());
    }
}
