//! `up` and `down`: everything up to the first container is made here, the rest is `workspace-server demo`.

use std::process::Command;

use crate::install::{self, Need};
use crate::{image, server, steps};

pub(crate) const IMAGE: &str = "mws-sample-agent:local";

pub(crate) fn up(once: bool, no_install: bool) -> Result<(), String> {
    let ensured = install::ensure(&[Need::Postgres, Need::Busybox, Need::Engine], no_install)?;
    let ready = server::build().and_then(|binary| image::build(IMAGE).map(|()| binary));
    let binary = ready.inspect_err(|_| ensured.name_what_stays())?;

    let mut command = Command::new(binary);
    command.args(["demo", "--image", IMAGE]);
    command.arg("--templates").arg(steps::root().join("workspace-configs-templates"));
    if once {
        command.arg("--once");
    }
    if ensured.engine_started {
        command.arg("--engine-started");
        ensured.name_what_stays();
    }
    server::exec(command)
}

pub(crate) fn down() -> Result<(), String> {
    server::exec_dev("down", &[])
}
