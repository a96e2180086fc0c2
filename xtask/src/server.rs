//! The server's own subcommands, built first and then run in our place.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::steps;

const PACKAGE: &str = "mws-server";
const BINARY: &str = "workspace-server";

/// Builds the server with the profile that xtask itself was built with, and returns its path.
pub(crate) fn build() -> Result<PathBuf, String> {
    steps::run("Build the server", &mut steps::cargo(["build", "--locked", "--package", PACKAGE]))?;
    // cargo puts the binaries of one profile side by side.
    let own = std::env::current_exe().map_err(|error| format!("cannot find the build folder: {error}"))?;
    Ok(own.with_file_name(BINARY))
}

/// Becomes `workspace-server <subcommand> <args>`, so that Ctrl-C and the exit code are the server's own.
pub(crate) fn exec_dev(subcommand: &str, args: &[String]) -> Result<(), String> {
    let mut command = Command::new(build()?);
    command.arg(subcommand).args(args);
    exec(command)
}

/// The same with the release build.
pub(crate) fn exec_release(subcommand: &str, args: &[String]) -> Result<(), String> {
    let cargo = ["run", "--release", "--locked", "--package", PACKAGE, "--bin", BINARY, "--", subcommand];
    let mut command = steps::cargo(cargo);
    command.args(args);
    exec(command)
}

pub(crate) fn exec(mut command: Command) -> Result<(), String> {
    let error = command.exec();
    Err(format!("cannot run {}: {error}", command.get_program().to_string_lossy()))
}
