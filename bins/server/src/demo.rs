//! The demo's options, and how its private Postgres is stopped when its server could not do it.

use std::path::PathBuf;

use clap::Args;
use mws_db::private::{PrivateConfig, PrivatePostgres, Tuning};
use mws_demo::{DemoOptions, StopError};
use mws_runtime::config::Config;

/// Options of `demo`, besides the configuration.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// End after the conversation instead of showing events until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// The sample agent's image.
    #[arg(long, default_value = "mws-sample-agent:local")]
    image: String,
    /// Folder of the workspace templates.
    #[arg(long, default_value = "workspace-configs-templates")]
    templates: PathBuf,
    /// The engine was started for this; say at the end that it stays.
    #[arg(long)]
    engine_started: bool,
    #[command(flatten)]
    installation: InstallationArgs,
}

/// Which installation is meant.
#[derive(Args)]
pub(crate) struct InstallationArgs {
    /// Its name on the container engine.
    #[arg(long, default_value = mws_demo::INSTANCE)]
    instance: String,
}

pub(crate) async fn demo(config: &Config, args: &DemoArgs) -> anyhow::Result<()> {
    let options = DemoOptions {
        once: args.once,
        image: args.image.clone(),
        templates: std::path::absolute(&args.templates)?,
        engine_started: args.engine_started,
        ..options(config, &args.installation)?
    };
    Ok(mws_demo::run(options, stop_postgres).await?)
}

pub(crate) async fn down(config: &Config, args: &InstallationArgs) -> anyhow::Result<()> {
    Ok(mws_demo::down(options(config, args)?, stop_postgres).await?)
}

fn options(config: &Config, args: &InstallationArgs) -> anyhow::Result<DemoOptions> {
    Ok(DemoOptions {
        once: false,
        server_binary: std::env::current_exe()?,
        data_dir: config.server.data_dir.clone(),
        port: config.server.port,
        image: String::new(),
        templates: PathBuf::new(),
        instance: args.instance.clone(),
        docker_host: Some(config.provisioner.docker_host.clone()),
        engine_started: false,
    })
}

/// The last use of a cluster to end stops it; so one more use, and its end.
async fn stop_postgres(data_dir: PathBuf) -> Result<(), StopError> {
    if !data_dir.join("postgres/postmaster.pid").exists() {
        return Ok(());
    }
    let postgres = PrivatePostgres::start(PrivateConfig { data_dir, tuning: Tuning::Production }).await?;
    Ok(postgres.release().await?)
}
