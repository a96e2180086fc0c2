//! A small real agent, written against the boot contract of an agent container.
//!
//! It registers, beats, and answers `message/send`:
//! `ask <name>: text` asks a peer through the server, `sleep N` takes its time, `fail` answers 500, `crash` ends
//! the process; anything else is echoed. Speaks plain HTTP only, so that it stays small and static.

mod a2a;
mod behaviour;
mod boot;
mod credentials;
mod files;
mod http;
mod log;
mod platform;
mod server;
mod state;
mod uploads;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::boot::{BootError, Settings};
use crate::platform::Platform;
use crate::state::Agent;

/// The server only ever dials this port.
const PORT: u16 = 8000;

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the agent's one read of its environment")]
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log::line(&format!("no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(&env));
    // Requests that still run end with the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::line(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

async fn run(env: &BTreeMap<String, String>) -> Result<(), BootError> {
    // First of all: as the first process of a container it has no default action for the signal.
    let mut terminate = signal(SignalKind::terminate()).map_err(BootError::Io)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(BootError::Io)?;

    let settings = Settings::read(env)?;
    let config = boot::load_config(&settings, env)?;
    let listener = TcpListener::bind(settings.listen).await.map_err(BootError::Io)?;
    log::line(&format!("{} listens on {}", config.name, settings.listen));

    let agent = Arc::new(Agent::new(settings, config));
    let platform = Arc::new(Platform::new(Arc::clone(&agent)));
    let mut background = JoinSet::new();
    background.spawn(server::serve(listener, Arc::clone(&agent), Arc::clone(&platform)));
    background.spawn(talk(Arc::clone(&agent), Arc::clone(&platform)));

    tokio::select! {
        _ = terminate.recv() => log::line("SIGTERM, leaving"),
        _ = interrupt.recv() => log::line("SIGINT, leaving"),
    }
    agent.save_snapshot().await;
    Ok(())
}

/// Registers, then beats for ever; each change of the tasks is pushed between the regular beats.
async fn talk(agent: Arc<Agent>, platform: Arc<Platform>) {
    if let Err(error) = platform.register().await {
        // The heartbeat alone also brings the workspace online.
        log::line(&format!("registration failed, going on: {error}"));
    }
    let mut first_prompt = JoinSet::new();
    let mut begun = false;
    let mut tasks = agent.watch_tasks();
    let mut beat = tokio::time::interval(agent.settings.heartbeat_every);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let outcome = tokio::select! {
            _ = beat.tick() => platform.heartbeat().await,
            changed = tasks.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = tasks.borrow_and_update().clone();
                platform.push_tasks(now).await
            }
        };
        if let Err(error) = outcome {
            log::line(&format!("heartbeat failed: {error}"));
        }
        if !begun {
            begun = true;
            let (agent, platform) = (Arc::clone(&agent), Arc::clone(&platform));
            first_prompt.spawn(async move { send_initial_prompt(&agent, &platform).await });
        }
    }
}

/// On the first boot only; the marker comes first, so that a crash cannot send the prompt twice.
async fn send_initial_prompt(agent: &Agent, platform: &Platform) {
    let Some(prompt) = &agent.config.initial_prompt else { return };
    let marker = agent.settings.configs.join(".initial_prompt_done");
    match tokio::fs::OpenOptions::new().write(true).create_new(true).open(&marker).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return,
        Err(error) => return log::line(&format!("no initial prompt, its marker failed: {error}")),
    }
    let itself = agent.settings.workspace_id.clone();
    for wait in [1, 2, 4, 8, 16] {
        match platform.send_message(&itself, prompt).await {
            Ok(_) => return,
            Err(error) => log::line(&format!("initial prompt not delivered: {error}")),
        }
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
}
