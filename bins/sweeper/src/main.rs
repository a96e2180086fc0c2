//! `workspace-sweeper`: the same wiring as the server's, running the sweeps and the jobs (3.R93).

use std::process::ExitCode;

use clap::Parser;
use mws_runtime::config::{Config, Loaded};
use mws_runtime::shutdown::{Shutdown, Signals, on_signal};
use mws_runtime::tasks::Spawner;
use mws_runtime::telemetry;

#[derive(Parser)]
#[command(name = "workspace-sweeper", version, about = "Runs the workspace server's sweeps and jobs")]
struct Cli {
    /// Read the configuration, say what is in effect, and exit.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            say(&format!("workspace-sweeper: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let Loaded { mut config, warnings } = Config::from_process()?;
    // Leaving the sweeps to sweepers is for servers; this is one.
    config.sweeps = true;
    if cli.check_config {
        config.summary().iter().for_each(|(name, value)| say(&format!("{name}={value}")));
        warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
        return Ok(());
    }
    telemetry::init(telemetry::Format::for_stderr(), config.log_filter.as_deref(), mws_secrets::redact)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(sweep(&config))
}

async fn sweep(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let shutdown = Shutdown::new();
    let app = mws_app::start(config, Spawner::new(shutdown.clone())).await?;
    tracing::info!("sweeping");
    on_signal(&mut signals, &shutdown).await;
    app.stop().await;
    Ok(())
}

#[expect(clippy::print_stderr, reason = "what an operator asked for on a command line")]
fn say(line: &str) {
    eprintln!("{line}");
}
