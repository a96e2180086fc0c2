//! The server's process: started, recognised and ended.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mws_runtime::config::VARIABLES;
use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::api::Api;
use crate::folder::Folder;
use crate::{DemoError, DemoOptions};

const PORTS: u16 = 100;
const START: Duration = Duration::from_secs(30);
/// The server gives requests 30 s to end, and then its background work and Postgres a few more.
const STOP: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(100);
const TAIL_LINES: usize = 15;

/// The variables that the server takes from whoever starts the demo; all others are the demo's to decide.
const INHERITED: [&str; 2] = ["DOCKER_HOST", "RUST_LOG"];

/// A server that the demo started. Killed when dropped without `stop`.
pub(crate) struct Server {
    child: Child,
    folder: Folder,
}

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Orderly,
    /// By SIGKILL or a crash: what it cleans up at its end may be left.
    Killed,
}

/// The first port that nobody listens on.
pub(crate) fn free_port(first: u16) -> Result<u16, DemoError> {
    let last = first.saturating_add(PORTS - 1);
    (first..=last)
        .find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        .ok_or(DemoError::NoPort { first, last })
}

impl Server {
    pub(crate) fn start(
        options: &DemoOptions,
        folder: &Folder,
        port: u16,
        token: &str,
    ) -> Result<Self, DemoError> {
        let log = File::create(folder.log()).map_err(DemoError::file(folder.log()))?;
        let errors = log.try_clone().map_err(DemoError::file(folder.log()))?;
        let mut command = Command::new(&options.server_binary);
        for variable in VARIABLES.iter().filter(|variable| !INHERITED.contains(&variable.name)) {
            command.env_remove(variable.name);
        }
        let child = command
            .env("PORT", port.to_string())
            .env("MWS_DATA_DIR", folder.path())
            .env("ADMIN_TOKEN", token)
            .env("CONFIGS_DIR", &options.templates)
            .env("WORKSPACE_MANIFEST_PATH", options.manifest())
            .env("MOLECULE_INSTANCE_ID", &options.instance)
            .env("MOLECULE_DOCKER_NETWORK", options.network())
            .env("WORKSPACE_IMAGE_OVERRIDES", format!("sample={}", options.image))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C is the demo's to act on: the server ends after its workspaces.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(DemoError::file(&options.server_binary))?;
        let server = Self { child, folder: folder.clone() };
        if let Some(pid) = server.child.id() {
            folder.write_pid(pid)?;
        }
        Ok(server)
    }

    /// Waits until the server answers.
    pub(crate) async fn ready(&mut self, api: &Api) -> Result<(), DemoError> {
        let start = Instant::now();
        while start.elapsed() < START {
            self.check()?;
            if api.healthy().await {
                return Ok(());
            }
            sleep(POLL).await;
        }
        Err(DemoError::ServerSilent { seconds: START.as_secs(), log: self.folder.log() })
    }

    /// Fails when the server has ended on its own.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        let log = self.folder.log();
        match self.child.try_wait().map_err(DemoError::file(&log))? {
            None => Ok(()),
            Some(status) => Err(DemoError::ServerEnded { status, tail: tail(&log), log }),
        }
    }

    /// Ends the server in good order, or by force when that takes too long.
    pub(crate) async fn stop(mut self) -> Ending {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Gone already is as good.
            let _ = signal::kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let ending = match timeout(STOP, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ending::Orderly,
            Ok(_) => Ending::Killed,
            Err(_) => {
                // It fails only for a process that has ended.
                let _ = self.child.kill().await;
                Ending::Killed
            }
        };
        self.folder.remove_pid();
        ending
    }
}

/// The process of an earlier demo's server, if it still runs. A number that has passed on to another program, or
/// to a server of another folder, is not taken for it.
pub(crate) fn survivor(options: &DemoOptions, folder: &Folder) -> Option<i32> {
    folder.read_pid().filter(|pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        runs(&process, &options.server_binary) && serves(&process, folder.path())
    })
}

/// Ends a process that is nobody's child any more.
pub(crate) async fn end(pid: i32) -> Ending {
    let pid = Pid::from_raw(pid);
    let _ = signal::kill(pid, Signal::SIGTERM);
    if gone(pid, STOP).await {
        return Ending::Orderly;
    }
    let _ = signal::kill(pid, Signal::SIGKILL);
    // The kernel needs no longer than this to take down a process.
    gone(pid, Duration::from_secs(10)).await;
    Ending::Killed
}

async fn gone(pid: Pid, patience: Duration) -> bool {
    let start = Instant::now();
    loop {
        // Someone else's process by now, or none: either way ours is gone.
        if matches!(signal::kill(pid, None), Err(Errno::ESRCH | Errno::EPERM)) || is_zombie(pid) {
            return true;
        }
        if start.elapsed() >= patience {
            return false;
        }
        sleep(POLL).await;
    }
}

/// Ended, and only waiting for a parent that does not ask.
fn is_zombie(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn runs(process: &Path, binary: &Path) -> bool {
    let (Ok(exe), Ok(binary)) = (fs::read_link(process.join("exe")), binary.canonicalize()) else {
        return false;
    };
    // A build since then has replaced the file.
    let exe = exe.as_os_str().as_bytes();
    exe.strip_suffix(b" (deleted)").unwrap_or(exe) == binary.as_os_str().as_bytes()
}

fn serves(process: &Path, folder: &Path) -> bool {
    let mut wanted = b"MWS_DATA_DIR=".to_vec();
    wanted.extend_from_slice(folder.as_os_str().as_bytes());
    fs::read(process.join("environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == wanted))
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines[from..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(free_port(port).unwrap() > port);
    }

    #[test]
    fn only_the_same_program_on_the_same_folder_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let sleep = Path::new("/bin/sleep").canonicalize().unwrap();
        let mut child = std::process::Command::new(&sleep)
            .arg("60")
            .env_clear()
            .env("MWS_DATA_DIR", folder.path())
            .spawn()
            .unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        // The child's environment shows once it has become the other program.
        while !runs(&process, &sleep) {
            std::thread::yield_now();
        }
        assert!(serves(&process, folder.path()));
        assert!(!serves(&process, &folder.path().join("other")));
        assert!(!serves(&process, folder.path().parent().unwrap()));
        assert!(!runs(&process, Path::new("/bin/sh")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!runs(&process, &sleep) && !serves(&process, folder.path()));
    }

    #[tokio::test]
    async fn a_process_that_ignores_nothing_ends_in_order() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(end(i32::try_from(child.id()).unwrap()).await, Ending::Orderly);
        child.wait().unwrap();
    }

    #[test]
    fn the_tail_of_a_log_is_short() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        for line in 0..100 {
            writeln!(log, "line {line}").unwrap();
        }
        let tail = tail(log.path());
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("line 99"));
    }
}
