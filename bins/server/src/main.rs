//! `workspace-server`: configuration, wiring, serve. No logic.

use std::process::ExitCode;

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
    /// Apply the database migrations and exit.
    Migrate,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
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
    telemetry::init(
        telemetry::Format::for_stderr(),
        loaded.config.log_filter.as_deref(),
        mws_secrets::redact,
    )?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.command {
        None => runtime.block_on(mws_server::serve(&loaded.config)),
        Some(Command::Migrate) => Ok(runtime.block_on(mws_app::migrate(&loaded.config))?),
    }
}

#[expect(clippy::print_stderr, reason = "what an operator asked for on a command line")]
fn say(line: &str) {
    eprintln!("{line}");
}
