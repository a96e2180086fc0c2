//! Announced, timed steps. Everything a person reads goes to standard error; standard output is for data.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) fn say(text: fmt::Arguments<'_>) {
    // A closed terminal must not end a step half-way.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The workspace's root. xtask is always built inside the tree that it works on.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

pub(crate) fn cargo<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(root());
    command
}

/// Announces `title`, does the work and says how long it took.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    say(format_args!("==> {title}"));
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(_) => say(format_args!("    {title}: done in {seconds:.1} s")),
        Err(_) => say(format_args!("    {title}: FAILED after {seconds:.1} s")),
    }
    result
}

/// Runs a command that shows its own progress, as a step.
pub(crate) fn run(title: &str, command: &mut Command) -> Result<(), String> {
    step(title, || checked(command))
}

/// Runs a command on this terminal and fails unless it ends with success.
pub(crate) fn checked(command: &mut Command) -> Result<(), String> {
    let shown = shown(command);
    let status =
        command.stdin(Stdio::null()).status().map_err(|error| format!("cannot run `{shown}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}` ended with {status}")) }
}

/// Runs a command and returns what it wrote to standard output; its errors become the message.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let shown = shown(command);
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run `{shown}`: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{shown}` ended with {}\n{}", output.status, errors.trim_end()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks until the answer is yes; shows that it is still waiting, and gives up at the deadline.
pub(crate) fn wait_until(
    what: &str,
    deadline: Duration,
    mut ready: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    const POLL: Duration = Duration::from_millis(100);
    let start = Instant::now();
    let mut shown_seconds = 0;
    while !ready()? {
        let waited = start.elapsed();
        if waited >= deadline {
            return Err(format!("{what}: not within {} s", deadline.as_secs()));
        }
        if waited.as_secs() > shown_seconds {
            shown_seconds = waited.as_secs();
            say(format_args!("    waiting for {what} … {shown_seconds} s"));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// The command as a person would type it. Only ever shown, never run.
fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_with_its_errors() {
        let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("broken"), "{error}");
        let error = checked(&mut Command::new("/nowhere/at-all")).unwrap_err();
        assert!(error.contains("cannot run `/nowhere/at-all`"), "{error}");
    }

    #[test]
    fn waiting_ends_at_its_deadline_or_with_the_first_error() {
        let late = wait_until("nothing", Duration::from_millis(1), || Ok(false)).unwrap_err();
        assert!(late.contains("nothing"), "{late}");
        let failed = wait_until("nothing", Duration::from_secs(60), || Err("gone".to_owned()));
        assert_eq!(failed, Err("gone".to_owned()));
        assert_eq!(wait_until("all", Duration::ZERO, || Ok(true)), Ok(()));
    }
}
