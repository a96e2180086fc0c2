//! `workspace-server`: configuration, wiring, serve. No logic.

mod demo;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mws_runtime::config::Config;
use mws_runtime::telemetry;

#[derive(Parser)]
#[command(name = "workspace-server", version, about = "Control plane for teams of AI agents")]
struct Cli {
    /// Read the configuration, say what is in effect, and exit.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show a server of its own with a team of three agents; what `cargo xtask up` ends in.
    Demo(demo::DemoArgs),
    /// Remove what a demo that was killed left behind.
    Down(demo::InstallationArgs),
    /// Apply the database migrations and exit.
    Migrate,
    /// Measure this binary over loopback, on a private Postgres of its own.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Proxied messages against the same load sent straight to the agent.
    A2a {
        /// Requests under way at a time.
        #[arg(long, default_value_t = 32)]
        connections: usize,
        /// Seconds of each measurement, after a warm-up of a fifth of it.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log is the server's; a command answers the person who gave it.
            if cli.command.is_none() {
                tracing::error!("{error:#}");
            }
            say(&format!("workspace-server: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let loaded = Config::from_process()?;
    if cli.check_config {
        for (name, value) in loaded.config.summary() {
            say(&format!("{name}={value}"));
        }
        loaded.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
        return Ok(());
    }
    // The demo speaks to a person; only what went wrong belongs between its lines.
    let quiet = matches!(cli.command, Some(Command::Demo(_) | Command::Down(_))).then_some("warn");
    telemetry::init(
        telemetry::Format::for_stderr(),
        loaded.config.log_filter.as_deref().or(quiet),
        mws_secrets::redact,
    )?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match &cli.command {
        None => runtime.block_on(mws_server::serve(&loaded.config)),
        Some(Command::Migrate) => Ok(runtime.block_on(mws_app::migrate(&loaded.config))?),
        Some(Command::Demo(args)) => runtime.block_on(demo::demo(&loaded.config, args)),
        Some(Command::Down(args)) => runtime.block_on(demo::down(&loaded.config, args)),
        Some(Command::Bench { what: Bench::A2a { connections, seconds } }) => {
            let options = mws_bench::Options {
                server: std::env::current_exe()?,
                connections: *connections,
                duration: Duration::from_secs(*seconds),
            };
            runtime.block_on(mws_bench::a2a(&options))
        }
    }
}

#[expect(clippy::print_stderr, reason = "what an operator asked for on a command line")]
fn say(line: &str) {
    eprintln!("{line}");
}
