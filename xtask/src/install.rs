//! What a fresh machine lacks: said first, then installed with apt-get on Debian and Ubuntu.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{self, Engine};
use crate::steps::{self, say};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Postgres,
    Busybox,
    Engine,
}

impl Need {
    fn package(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Busybox => "busybox-static",
            Self::Engine => "docker.io",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Postgres => {
                "the server keeps its data in a private Postgres; no system-wide cluster is made"
            }
            Self::Busybox => {
                "the sample agent's image takes its `sh` and `rm` from it, so that no registry is needed"
            }
            Self::Engine => "agents run in containers: the Docker engine and its command line",
        }
    }
}

/// What `ensure` had to do beyond installing packages.
#[derive(Default)]
pub(crate) struct Ensured {
    pub(crate) engine_started: bool,
}

impl Ensured {
    /// An engine that was started stays, because others may use it by then; so its owner hears of it.
    pub(crate) fn name_what_stays(&self) {
        if self.engine_started {
            say(format_args!(
                "the Docker engine that had to be started stays: `{}` ends it",
                engine::stop_hint()
            ));
        }
    }
}

pub(crate) fn ensure(needs: &[Need], no_install: bool) -> Result<Ensured, String> {
    let engine = if needs.contains(&Need::Engine) { engine::probe() } else { Engine::Answers };
    if matches!(engine, Engine::Forbidden) {
        return Err(engine::forbidden());
    }
    let engine_answers = matches!(engine, Engine::Answers);

    let missing: Vec<Need> = needs
        .iter()
        .copied()
        .filter(|need| match need {
            Need::Postgres => postgres_bin().is_none(),
            Need::Busybox => static_busybox().is_none(),
            Need::Engine => {
                find_program("docker").is_none() || !engine_answers && find_program("dockerd").is_none()
            }
        })
        .collect();
    if !missing.is_empty() {
        install(&missing, no_install)?;
    }

    // Packages with a service of their own may have started it.
    if engine_answers || matches!(engine::probe(), Engine::Answers) {
        return Ok(Ensured::default());
    }
    if no_install {
        return Err(
            "no Docker engine answers, and --no-install starts none: run `dockerd` (or `systemctl start \
                    docker`) as root"
                .to_owned(),
        );
    }
    engine::start()?;
    Ok(Ensured { engine_started: true })
}

fn install(missing: &[Need], no_install: bool) -> Result<(), String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !is_debian_like(&release) || find_program("apt-get").is_none() {
        return Err(other_system(missing));
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package()).collect();
    let sudo = if is_root() { "" } else { "sudo " };
    let by_hand = format!("{sudo}apt-get install -y {}", packages.join(" "));
    if no_install {
        return Err(format!("missing: {}; run `{by_hand}`", packages.join(", ")));
    }

    say(format_args!("Missing on this machine, and now installed with apt-get:"));
    for need in missing {
        say(format_args!("  {:<15} {}", need.package(), need.reason()));
    }
    steps::run("Refresh the package lists", &mut apt(["update"]))?;
    let without_cluster = missing.contains(&Need::Postgres).then(NoMainCluster::set).transpose()?;
    // Newer releases have the command line in a package of its own.
    if missing.contains(&Need::Engine)
        && steps::output(Command::new("apt-cache").args(["show", "docker-cli"])).is_ok()
    {
        packages.push("docker-cli");
    }
    let installed = steps::run("Install packages", &mut apt(["install", "-y"].iter().chain(&packages)));
    if let Some(setting) = without_cluster {
        setting.unset()?;
    }
    installed.map_err(|error| format!("{error}; by hand: `{by_hand}`"))
}

fn apt<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = as_root("env", ["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
    command.args(arguments);
    command
}

/// Debian's package makes and starts a cluster when installed, unless this setting is there meanwhile.
struct NoMainCluster;

impl NoMainCluster {
    const FOLDER: &str = "/etc/postgresql-common/createcluster.d";
    const FILE: &str = "/etc/postgresql-common/createcluster.d/workspace-server-install.conf";

    fn set() -> Result<Self, String> {
        let script =
            format!("mkdir -p {} && echo 'create_main_cluster = false' > {}", Self::FOLDER, Self::FILE);
        steps::checked(&mut as_root("sh", ["-c", &script]))?;
        Ok(Self)
    }

    fn unset(self) -> Result<(), String> {
        steps::checked(&mut as_root("rm", ["-f", Self::FILE]))
    }
}

fn other_system(missing: &[Need]) -> String {
    let names = |postgres, busybox, engine| {
        let name = |need: &Need| match need {
            Need::Postgres => postgres,
            Need::Busybox => busybox,
            Need::Engine => engine,
        };
        missing.iter().map(name).collect::<Vec<&str>>().join(" ")
    };
    let sudo = if is_root() { "" } else { "sudo " };
    let by_hand = if find_program("dnf").is_some() {
        format!("{sudo}dnf install -y {}", names("postgresql-server", "busybox", "moby-engine"))
    } else if find_program("pacman").is_some() {
        format!("{sudo}pacman -S --needed {}", names("postgresql", "busybox", "docker"))
    } else if find_program("apk").is_some() {
        format!("{sudo}apk add {}", names("postgresql", "busybox-static", "docker"))
    } else {
        let what = names("a Postgres server,", "a statically linked busybox,", "a Docker engine,");
        return format!("please install {} then repeat the command", what);
    };
    format!("packages are installed on Debian and Ubuntu only; here, run `{by_hand}` and repeat the command")
}

/// `program` with the rights of root: through sudo where we have not got them.
pub(crate) fn as_root<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = if is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    };
    command.args(arguments);
    command
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The folder that holds `initdb` and `postgres`: of the newest version installed.
pub(crate) fn postgres_bin() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").is_file() && bin.join("postgres").is_file())
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin).or_else(|| {
        let bin = find_program("initdb")?.parent()?.to_path_buf();
        bin.join("postgres").is_file().then_some(bin)
    })
}

fn static_busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/bin/busybox.static", "/usr/bin/busybox.static"]
        .iter()
        .map(PathBuf::from)
        .find(|path| fs::read(path).is_ok_and(|bytes| is_static_elf(&bytes)))
}

/// A 64-bit little-endian ELF file that asks for no interpreter (no PT_INTERP among its program headers).
fn is_static_elf(bytes: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, width: usize| -> Option<usize> {
        let field = bytes.get(at..at.checked_add(width)?)?;
        Some(field.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    let interpreter = || -> Option<bool> {
        let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        for index in 0..count {
            if number(table.checked_add(index * size)?, 4)? == PT_INTERP as usize {
                return Some(true);
            }
        }
        Some(false)
    };
    bytes.starts_with(b"\x7fELF\x02\x01") && interpreter() == Some(false)
}

fn is_debian_like(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
        .flat_map(|(_, value)| value.trim_matches('"').split_whitespace())
        .any(|id| matches!(id, "debian" | "ubuntu"))
}

fn find_program(name: &str) -> Option<PathBuf> {
    // Root's programs are not on every user's PATH, and the path of a user's shell is not ours to read.
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_recognised() {
        assert!(is_debian_like("NAME=x\nID=debian\n"));
        assert!(is_debian_like("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian_like("ID=fedora\nVARIANT=debian\n"));
        assert!(!is_debian_like(""));
    }

    #[test]
    fn a_dynamic_program_is_not_taken_for_a_static_one() {
        let mut elf = vec![0; 0x40 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x20] = 0x40;
        elf[0x36] = 56;
        elf[0x38] = 2;
        elf[0x40] = 1;
        assert!(is_static_elf(&elf));
        elf[0x40 + 56] = 3;
        assert!(!is_static_elf(&elf));
        assert!(!is_static_elf(&elf[..0x50]), "a cut file proves nothing");
        assert!(!is_static_elf(b"#!/bin/sh\n"));
    }
}
