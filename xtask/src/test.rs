//! `test`: what the tests need is set up, used and taken down again.

use crate::image;
use crate::install::{self, Need};
use crate::steps::{self, say};

const IMAGE: &str = "mws-sample-agent:test";

#[derive(Default)]
pub(crate) struct Options {
    pub(crate) no_docker: bool,
    pub(crate) no_install: bool,
    pub(crate) cargo_args: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let needs: &[Need] =
        if options.no_docker { &[Need::Postgres] } else { &[Need::Postgres, Need::Busybox, Need::Engine] };
    let ensured = install::ensure(needs, options.no_install)?;
    let result = tests(options);
    ensured.name_what_stays();
    if options.no_docker {
        say(format_args!(
            "left out by --no-docker: the tests that start containers (the Docker backend, agents that boot and \
             answer, the kill tests around a container, `up`)"
        ));
    }
    result
}

fn tests(options: &Options) -> Result<(), String> {
    // Documentation tests are part of it: cargo runs them whenever no target is picked.
    let mut cargo = steps::cargo(["test", "--workspace", "--locked"]);
    cargo.args(&options.cargo_args);
    if options.no_docker {
        cargo.env("MWS_TEST_NO_DOCKER", "1");
    } else {
        image::build(IMAGE)?;
        cargo.env("MWS_TEST_AGENT_IMAGE", IMAGE);
    }
    steps::run("Run the tests", &mut cargo)
}
