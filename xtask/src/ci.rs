//! `ci`: what gates a change, cheapest first. The first failure ends it.

use std::process::Command;

use crate::install::{self, Need};
use crate::steps::{self, cargo};
use crate::{sqlx, test};

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run(no_docker: bool, no_install: bool) -> Result<(), String> {
    steps::run("Format", &mut cargo(["fmt", "--all", "--check"]))?;
    steps::run(
        "Lints",
        &mut cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    )?;
    deny(no_install)?;
    install::ensure(&[Need::Postgres], no_install)?;
    steps::step("Checked SQL", sqlx::check)?;
    // One broken test must not hide the others.
    let cargo_args = vec!["--no-fail-fast".to_owned()];
    test::run(&test::Options { no_docker, no_install, cargo_args })
}

fn deny(no_install: bool) -> Result<(), String> {
    let installed = Command::new("cargo").args(["deny", "--version"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        let version = format!("cargo-deny@{CARGO_DENY}");
        if no_install {
            return Err(format!("cargo-deny is missing; run `cargo install --locked {version}`"));
        }
        steps::run("Install cargo-deny", &mut cargo(["install", "--locked", &version]))?;
    }
    steps::run("Dependency rules", &mut cargo(["deny", "--locked", "check", "bans", "licenses", "sources"]))
}
