//! Finding the Postgres server that is installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::account::Account;
use super::cluster;
use super::command::first_line;
use super::error::PrivateError;
use super::folders::Folders;

/// The oldest major version that the schema and the tests are written for.
const MINIMUM_MAJOR: u32 = 15;

/// Where Debian and the PostgreSQL project's own packages put one folder per major version.
const VERSIONED: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// What printing a version or a path may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The folder of one installed Postgres server.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    folder: PathBuf,
    major: u32,
}

impl Binaries {
    /// The server that fits the cluster; for a new cluster the first one found: what `pg_config` names, the
    /// newest of the versioned folders, what PATH has.
    pub(super) fn choose(folders: &Folders, account: &Account) -> Result<Self, PrivateError> {
        let installed: Vec<Self> = candidates()
            .into_iter()
            .filter_map(Self::look_at)
            .filter(|server| server.major >= MINIMUM_MAJOR)
            .collect();
        let wanted = cluster::major_of(&folders.cluster)?;
        let fits = |server: &&Self| wanted.is_none_or(|wanted| wanted == server.major);
        if let Some(server) = installed.iter().find(fits) {
            return Ok(server.clone());
        }
        match (wanted, installed.iter().map(|server| server.major).max()) {
            (Some(found), Some(installed)) => Err(PrivateError::OtherMajor {
                cluster: folders.cluster.clone(),
                found,
                installed,
                dump: dump_command(folders, account, found),
            }),
            _ => Err(PrivateError::NoBinaries { install: install_command(), minimum: MINIMUM_MAJOR }),
        }
    }

    fn look_at(folder: PathBuf) -> Option<Self> {
        if !["postgres", "initdb", "pg_ctl"].iter().all(|tool| folder.join(tool).is_file()) {
            return None;
        }
        let mut version = Command::new(folder.join("postgres"));
        version.env_clear().arg("--version");
        let major = parse_major(&first_line(version, DEADLINE)?)?;
        Some(Self { folder, major })
    }

    pub(super) fn tool(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Folders that may hold a server, best first, each once.
fn candidates() -> Vec<PathBuf> {
    let mut pg_config = Command::new("pg_config");
    pg_config.arg("--bindir");
    let named = first_line(pg_config, DEADLINE).map(PathBuf::from);

    // The shell's own search, so that PATH is not read here.
    let mut which = Command::new("/bin/sh");
    which.args(["-c", "command -v postgres"]);
    let on_path = first_line(which, DEADLINE)
        .and_then(|postgres| fs::canonicalize(postgres).ok())
        .and_then(|postgres| postgres.parent().map(Path::to_owned));

    let mut seen = BTreeSet::new();
    named
        .into_iter()
        .chain(versioned_folders())
        .chain(on_path)
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .filter(|folder| seen.insert(folder.clone()))
        .collect()
}

/// The versioned folders, newest first.
fn versioned_folders() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = VERSIONED
        .iter()
        .flat_map(|(parent, prefix)| {
            let entries = fs::read_dir(parent).into_iter().flatten().flatten();
            entries.filter_map(move |entry| {
                let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((major, entry.path().join("bin")))
            })
        })
        .collect();
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The major version in `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)` or `… 18beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The command that installs a server on this kind of system.
fn install_command() -> &'static str {
    let known = [
        ("/usr/bin/apt-get", "apt-get install -y postgresql"),
        ("/usr/bin/dnf", "dnf install -y postgresql-server"),
        ("/sbin/apk", "apk add postgresql"),
        ("/usr/bin/pacman", "pacman -S --noconfirm postgresql"),
        ("/usr/bin/zypper", "zypper install -y postgresql-server"),
        ("/opt/homebrew/bin/brew", "brew install postgresql"),
    ];
    known
        .into_iter()
        .find(|(manager, _)| Path::new(manager).exists())
        .map_or("apt-get install -y postgresql", |(_, install)| install)
}

/// A shell command that starts the cluster with the server that made it, where Debian puts that, and writes
/// all of its data to a file in the current folder.
fn dump_command(folders: &Folders, account: &Account, major: u32) -> String {
    let bin = format!("/usr/lib/postgresql/{major}/bin");
    let cluster = shell_quote(&folders.cluster.to_string_lossy());
    let socket = folders.socket.to_string_lossy();
    let options = shell_quote(&format!("-c listen_addresses= -k {}", shell_quote(&socket)));
    let script = format!(
        "{bin}/pg_ctl -D {cluster} -o {options} -w start >&2 && {{ {bin}/pg_dumpall -h {} -U {}; code=$?; \
         {bin}/pg_ctl -D {cluster} -m fast -w stop >&2; exit $code; }}",
        shell_quote(&socket),
        cluster::SUPERUSER,
    );
    let user = if account.dropped_to {
        format!("runuser -u {} -- ", shell_quote(&account.name))
    } else {
        String::new()
    };
    format!("{user}sh -c {} > mws-postgres-{major}.sql", shell_quote(&script))
}

/// The text as one word of a POSIX shell.
fn shell_quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/=:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 17"), Some(17));
        assert_eq!(parse_major("mysqld 8"), None);
        assert_eq!(parse_major(""), None);
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        for text in ["plain", "with space", "it's", "", "$HOME `id` \"x\""] {
            let mut echo = Command::new("/bin/sh");
            echo.args(["-c", &format!("printf %s {}; echo .", shell_quote(text))]);
            assert_eq!(first_line(echo, DEADLINE), Some(format!("{text}.")));
        }
    }
}
