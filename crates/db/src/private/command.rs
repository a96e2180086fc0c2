//! Running a tool of Postgres to its end, under a deadline.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::error::PrivateError;
use super::folders::Folders;

/// How often to ask whether the tool is done.
const POLL: Duration = Duration::from_millis(5);

/// The most that is read of a tool's output; a version or a path is all we ask for.
const OUTPUT_MAX: u64 = 4096;

/// Runs a tool whose output goes to the log.
pub(super) fn run_logged(
    mut command: Command,
    tool: &'static str,
    input: &str,
    deadline: Duration,
    folders: &Folders,
) -> Result<(), PrivateError> {
    let log = folders.open_log()?;
    let stderr = log.try_clone().map_err(PrivateError::io("cannot open", &folders.log))?;
    command.stdin(Stdio::piped()).stdout(log).stderr(stderr);
    let program = Path::new(command.get_program()).to_owned();
    let mut child = command.spawn().map_err(PrivateError::io("cannot run", program))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ended early is told by its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    match wait(&mut child, deadline) {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(PrivateError::Tool { tool, log: folders.log.clone() }),
        None => Err(PrivateError::Deadline { tool, deadline, log: folders.log.clone() }),
    }
}

/// The first line that a short command prints, if it succeeds.
pub(super) fn first_line(mut command: Command, deadline: Duration) -> Option<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let finished = wait(&mut child, deadline)?;
    let mut output = String::new();
    child.stdout.take()?.take(OUTPUT_MAX).read_to_string(&mut output).ok()?;
    let line = output.lines().next()?.trim().to_owned();
    (finished.success() && !line.is_empty()).then_some(line)
}

/// The child's end; at the deadline it is killed and reaped.
fn wait(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let give_up = Instant::now() + deadline;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < give_up => std::thread::sleep(POLL),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_tool_that_hangs_is_killed() {
        let started = Instant::now();
        assert_eq!(first_line(shell("exec sleep 60"), Duration::from_millis(50)), None);
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn only_a_success_has_an_answer() {
        let soon = Duration::from_secs(30);
        assert_eq!(first_line(shell("echo one; echo two"), soon).as_deref(), Some("one"));
        assert_eq!(first_line(shell("echo one; exit 1"), soon), None);
        assert_eq!(first_line(shell("true"), soon), None);
    }
}
