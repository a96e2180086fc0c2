//! Starting, finding and stopping the postmaster of a cluster.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::cluster::Cluster;
use super::command::run_logged;
use super::error::PrivateError;
use super::probe::{Readiness, readiness};
use super::{START_DEADLINE, STOP_DEADLINE, Tuning};

/// How often to ask a postmaster that comes up.
const POLL: Duration = Duration::from_millis(10);

/// The pause before another attempt, when an earlier postmaster is not quite gone.
const RETRY: Duration = Duration::from_millis(200);

/// Attaches to the postmaster of the cluster or starts it; on return it takes connections. Call it under the
/// start lock.
pub(super) fn ensure_running(
    cluster: &Cluster,
    tuning: Tuning,
    runtime: &Handle,
) -> Result<(), PrivateError> {
    let socket = cluster.folders.socket_file();
    let give_up = Instant::now() + START_DEADLINE;
    let ready = || runtime.block_on(readiness(&socket));
    let mut rotated = false;
    loop {
        match ready() {
            Readiness::Ready => return Ok(()),
            Readiness::NotYet => std::thread::sleep(POLL),
            Readiness::Silent => {
                forget_dead_postmaster(&cluster.folders.cluster)?;
                if !rotated && !pid_file(&cluster.folders.cluster).exists() {
                    cluster.folders.rotate_log()?;
                    rotated = true;
                }
                let exit = launch(cluster, tuning)?;
                match wait_ready(&exit, give_up, ready) {
                    Launch::Ready => return Ok(()),
                    // It found another's pid file or shared memory: one that starts, stops or has just died.
                    Launch::Exited if pid_file(&cluster.folders.cluster).exists() => {
                        std::thread::sleep(RETRY)
                    }
                    Launch::Exited => {
                        let log = cluster.folders.log.clone();
                        return Err(PrivateError::Tool { tool: "postgres", log });
                    }
                    // Left to its recovery, which a kill would throw away: the next start attaches.
                    Launch::Late => {}
                }
            }
        }
        if Instant::now() >= give_up {
            return Err(PrivateError::Deadline {
                tool: "postgres",
                deadline: START_DEADLINE,
                log: cluster.folders.log.clone(),
            });
        }
    }
}

enum Launch {
    Ready,
    Exited,
    Late,
}

fn wait_ready(exit: &Receiver<ExitStatus>, give_up: Instant, ready: impl Fn() -> Readiness) -> Launch {
    while Instant::now() < give_up {
        match exit.recv_timeout(POLL) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Launch::Exited,
            Err(RecvTimeoutError::Timeout) if ready() == Readiness::Ready => return Launch::Ready,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    Launch::Late
}

/// Starts a postmaster that outlives this process; the receiver tells when it ends.
fn launch(cluster: &Cluster, tuning: Tuning) -> Result<Receiver<ExitStatus>, PrivateError> {
    let folders = &cluster.folders;
    let log = folders.open_log()?;
    let stdout = log.try_clone().map_err(PrivateError::io("cannot open", &folders.log))?;
    let program = cluster.binaries.tool("postgres");
    let mut postgres = cluster.account.command(&program);
    postgres
        .arg("-D")
        .arg(&folders.cluster)
        .arg("-k")
        .arg(socket_directory(&folders.socket))
        .args(settings(tuning).into_iter().flat_map(|setting| ["-c", setting]))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log)
        // Ctrl-C at our terminal is not for it.
        .process_group(0);
    let child = postgres.spawn().map_err(PrivateError::io("cannot run", &program))?;
    reap(child, &program)
}

/// Reaps the postmaster when it ends: as a zombie it would keep its process id, and with it its pid file,
/// looking alive.
fn reap(mut child: Child, program: &Path) -> Result<Receiver<ExitStatus>, PrivateError> {
    let (ended, exit) = sync_channel(1);
    std::thread::Builder::new()
        .name("postgres-reaper".into())
        .spawn(move || match child.wait() {
            Ok(status) => {
                tracing::info!(%status, "the private Postgres ended");
                let _ = ended.send(status);
            }
            Err(error) => tracing::warn!(%error, "the private Postgres could not be waited for"),
        })
        .map_err(PrivateError::io("cannot watch", program))?;
    Ok(exit)
}

/// `unix_socket_directories` is a list: quoted, a folder's name may hold a comma or a space.
fn socket_directory(socket: &Path) -> OsString {
    let mut quoted = vec![b'"'];
    for &byte in socket.as_os_str().as_bytes() {
        quoted.extend(std::iter::repeat_n(byte, if byte == b'"' { 2 } else { 1 }));
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

/// The settings that differ from the server's own. Statements and row values stay out of the log: they may
/// hold secrets, and a refused statement is the caller's to log.
fn settings(tuning: Tuning) -> Vec<&'static str> {
    let mut settings = vec![
        "listen_addresses=",
        "port=5432",
        "unix_socket_permissions=0700",
        "timezone=UTC",
        "log_timezone=UTC",
        "log_destination=stderr",
        "logging_collector=off",
        "log_min_messages=log",
        "log_min_error_statement=panic",
        "log_error_verbosity=terse",
        "log_checkpoints=off",
    ];
    settings.extend_from_slice(match tuning {
        Tuning::Production => &["fsync=on", "synchronous_commit=on", "full_page_writes=on"],
        Tuning::Tests => &[
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "autovacuum=off",
            "jit=off",
            "wal_level=minimal",
            "max_wal_senders=0",
            "shared_buffers=64MB",
            "max_connections=200",
        ],
    });
    settings
}

/// Stops the postmaster with a fast shutdown. Call it under the start lock, as the last user.
pub(super) fn stop(cluster: &Cluster) -> Result<(), PrivateError> {
    forget_dead_postmaster(&cluster.folders.cluster)?;
    if !pid_file(&cluster.folders.cluster).exists() {
        return Ok(());
    }
    let mut pg_ctl = cluster.account.command(&cluster.binaries.tool("pg_ctl"));
    pg_ctl
        .args(["stop", "--mode=fast", "--wait", "--silent"])
        .arg(format!("--timeout={}", STOP_DEADLINE.as_secs()))
        .arg("--pgdata")
        .arg(&cluster.folders.cluster);
    let margin = Duration::from_secs(5);
    run_logged(pg_ctl, "pg_ctl stop", "", STOP_DEADLINE + margin, &cluster.folders)
}

fn pid_file(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

/// Removes the pid file of a postmaster that is gone without a trace. Postgres does so itself unless the
/// process id has gone to another process of the same account, as after a restart of a container.
fn forget_dead_postmaster(cluster: &Path) -> Result<(), PrivateError> {
    let file = pid_file(cluster);
    if !file.exists() || in_use(cluster) {
        return Ok(());
    }
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PrivateError::io("cannot remove", file)(error))
        }
        _ => Ok(()),
    }
}

/// Whether any process works in the cluster's folder, as every process of its server does. `true` where
/// `/proc` cannot say.
fn in_use(cluster: &Path) -> bool {
    let (Ok(processes), Ok(cluster)) = (fs::read_dir("/proc"), fs::canonicalize(cluster)) else {
        return true;
    };
    let mut listed = false;
    for process in processes.flatten() {
        listed |= process.file_name() == "self";
        if fs::read_link(process.path().join("cwd")).is_ok_and(|folder| folder == cluster) {
            return true;
        }
    }
    !listed
}
