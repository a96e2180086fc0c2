//! Who runs Postgres: it refuses to run as root.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, geteuid};

use super::error::PrivateError;
use super::folders;

/// The accounts that a root process drops to, in order of preference.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The account that runs Postgres and owns its folders.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether the process is root and must drop to this account.
    pub(super) dropped_to: bool,
}

impl Account {
    /// The process's own account; as root the owner of the cluster in `data_dir`, else the first of
    /// [`UNPRIVILEGED`] that exists.
    pub(super) fn choose(data_dir: &Path) -> Result<Self, PrivateError> {
        let own = geteuid();
        if !own.is_root() {
            let user = look_up(own);
            let (name, gid) =
                user.map_or_else(|| (own.to_string(), nix::unistd::getegid()), |user| (user.name, user.gid));
            return Ok(Self { name, uid: own.as_raw(), gid: gid.as_raw(), dropped_to: false });
        }
        // An account `postgres` may have appeared after the cluster was made by `nobody`.
        let owner = std::fs::metadata(data_dir.join(folders::CLUSTER))
            .ok()
            .map(|cluster| (Uid::from_raw(cluster.uid()), Gid::from_raw(cluster.gid())))
            .filter(|(uid, _)| !uid.is_root());
        if let Some((uid, gid)) = owner {
            let name = look_up(uid).map_or_else(|| uid.to_string(), |user| user.name);
            return Ok(Self { name, uid: uid.as_raw(), gid: gid.as_raw(), dropped_to: true });
        }
        UNPRIVILEGED
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self {
                name: user.name,
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                dropped_to: true,
            })
            .ok_or(PrivateError::NoAccount)
    }

    /// A command run by this account, with nothing of our environment and no folder that the account might
    /// not enter.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir("/");
        if self.dropped_to {
            // Setting the uid as root also drops the supplementary groups.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Whether this account, which is in no group but its own, may pass through the folder, as far as its mode says.
    pub(super) fn may_enter(&self, folder: &std::fs::Metadata) -> bool {
        let needed = if folder.uid() == self.uid {
            0o100
        } else if folder.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        folder.mode() & needed != 0
    }
}

fn look_up(uid: Uid) -> Option<User> {
    User::from_uid(uid).ok().flatten()
}
