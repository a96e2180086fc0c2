//! The Docker engine: whether one answers, and how to start the one that is installed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{install, steps};

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// A first start on a slow disk sets up its storage.
const START_TIMEOUT: Duration = Duration::from_secs(90);

pub(crate) enum Engine {
    Answers,
    Absent,
    /// One is there, and this user may not talk to it.
    Forbidden,
}

pub(crate) fn probe() -> Engine {
    match ping(&host()) {
        Ok(true) => Engine::Answers,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Engine::Forbidden,
        Ok(false) | Err(_) => Engine::Absent,
    }
}

/// Starts the installed engine and waits until it answers.
pub(crate) fn start() -> Result<(), String> {
    let host = host();
    if host != DEFAULT_HOST {
        return Err(format!("no Docker engine answers at DOCKER_HOST={host}"));
    }
    steps::step("Start the Docker engine", || {
        let mut daemon = None;
        if Path::new("/run/systemd/system").is_dir() {
            steps::checked(&mut install::as_root("systemctl", ["start", "docker"]))?;
        } else {
            let log = steps::root().join("target/dockerd.log");
            let file =
                File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
            let errors = file.try_clone().map_err(|error| error.to_string())?;
            // Its own process group: Ctrl-C is for us, the engine stays.
            let child = install::as_root("dockerd", [] as [&str; 0])
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(file)
                .stderr(errors)
                .process_group(0)
                .spawn()
                .map_err(|error| format!("cannot run dockerd: {error}"))?;
            daemon = Some((child, log));
        }
        steps::wait_until("the Docker engine", START_TIMEOUT, || {
            if let Some((child, log)) = &mut daemon
                && let Some(status) = child.try_wait().map_err(|error| error.to_string())?
            {
                return Err(format!("dockerd ended with {status}; see {}", log.display()));
            }
            match probe() {
                Engine::Answers => Ok(true),
                Engine::Forbidden => Err(forbidden()),
                Engine::Absent => Ok(false),
            }
        })
    })
}

pub(crate) fn forbidden() -> String {
    "a Docker engine is there, but this user may not talk to it: run `sudo usermod -aG docker $USER`, log in \
     again, and repeat the command"
        .to_owned()
}

/// How to end an engine that `start` started.
pub(crate) fn stop_hint() -> String {
    if Path::new("/run/systemd/system").is_dir() {
        "systemctl stop docker".to_owned()
    } else {
        let pid = std::fs::read_to_string("/var/run/docker.pid").unwrap_or_default();
        format!("kill {}", if pid.trim().is_empty() { "<pid of dockerd>" } else { pid.trim() })
    }
}

#[expect(clippy::disallowed_methods, reason = "the server's typed configuration is out of xtask's reach")]
fn host() -> String {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()).unwrap_or(DEFAULT_HOST.to_owned())
}

fn ping(host: &str) -> io::Result<bool> {
    if let Some(path) = host.strip_prefix("unix://") {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PING_TIMEOUT))?;
        stream.set_write_timeout(Some(PING_TIMEOUT))?;
        answers(stream)
    } else if let Some(address) = host.strip_prefix("tcp://") {
        let stream = TcpStream::connect(address.trim_end_matches('/'))?;
        stream.set_read_timeout(Some(PING_TIMEOUT))?;
        stream.set_write_timeout(Some(PING_TIMEOUT))?;
        answers(stream)
    } else {
        // Left to the docker command, which knows every kind of host.
        Ok(Command::new("docker").args(["version"]).output().is_ok_and(|output| output.status.success()))
    }
}

fn answers(mut stream: impl Read + Write) -> io::Result<bool> {
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    Ok(&start[..7] == b"HTTP/1." && &start[8..] == b" 200")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Played<'a>(&'a [u8]);

    impl Read for Played<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Played<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_good_ping_counts_as_an_engine() {
        assert!(answers(Played(b"HTTP/1.1 200 OK\r\n\r\nOK")).unwrap());
        assert!(!answers(Played(b"HTTP/1.1 503 Service Unavailable\r\n")).unwrap());
        assert!(answers(Played(b"")).is_err());
        assert!(ping("unix:///nowhere/docker.sock").is_err());
    }
}
