//! The project's own commands. Thin on purpose: each one installs or builds what is missing and hands over to
//! cargo or to the binaries' own subcommands.

mod ci;
mod contract;
mod engine;
mod image;
mod install;
mod postgres;
mod server;
mod sqlx;
mod steps;
mod test;
mod up;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a server and a team of three agents in containers, and show them at work
    Up {
        /// Stop and tear everything down once the team has answered
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        install: Install,
    },
    /// Remove what an `up` that was killed left behind
    Down,
    /// Set up all that the tests need and run them
    Test {
        /// Leave out the tests that need a Docker engine
        #[arg(long)]
        no_docker: bool,
        #[command(flatten)]
        install: Install,
        /// Further arguments for `cargo test`
        #[arg(last = true)]
        cargo_args: Vec<String>,
    },
    /// Everything that gates a change: format, lints, dependency rules, checked SQL, tests
    Ci {
        /// Leave out the tests that need a Docker engine
        #[arg(long)]
        no_docker: bool,
        #[command(flatten)]
        install: Install,
    },
    /// Apply the migrations to the database that the server's configuration names
    Migrate {
        /// Arguments for `workspace-server migrate`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Write the `.sqlx` folder anew after a change to a query or a migration
    SqlxPrepare {
        #[command(flatten)]
        install: Install,
    },
    /// Measure the release build: `bench a2a`
    Bench {
        /// Arguments for `workspace-server bench`
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the sample agent's image
    Image {
        /// Name of the image
        #[arg(long, default_value = up::IMAGE)]
        tag: String,
    },
    /// Count the contract's rules and list those that no test cites
    Contract {
        /// Only this area, 1 to 7
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=7))]
        area: Option<u8>,
    },
}

#[derive(Args)]
struct Install {
    /// Install nothing: name the command that would, and end
    #[arg(long)]
    no_install: bool,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            steps::say(format_args!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<(), String> {
    match command {
        Command::Up { once, install } => up::up(once, install.no_install),
        Command::Down => up::down(),
        Command::Test { no_docker, install, cargo_args } => {
            test::run(&test::Options { no_docker, no_install: install.no_install, cargo_args })
        }
        Command::Ci { no_docker, install } => ci::run(no_docker, install.no_install),
        Command::Migrate { args } => server::exec_dev("migrate", &args),
        Command::SqlxPrepare { install } => sqlx::prepare(install.no_install),
        Command::Bench { args } => server::exec_release("bench", &args),
        Command::Image { tag } => image::build(&tag),
        Command::Contract { area } => contract::report(area),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
