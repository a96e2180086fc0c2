//! What `cargo xtask up` shows: a server of its own, a team of three agents in containers, their conversation.
//!
//! The demo is a client like any other. It knows the server by its public API and its process, and the container
//! engine only to make sure that nothing of the demo is left.

mod api;
mod conversation;
mod down;
mod error;
mod events;
mod folder;
mod guide;
mod out;
mod process;
mod run;
mod team;
mod teardown;

use std::error::Error;
use std::path::{Path, PathBuf};

use mws_provisioner::DockerConfig;

pub use down::down;
pub use error::DemoError;
pub use run::run;

/// The installation that `cargo xtask up` makes, unless it is told another name.
pub const INSTANCE: &str = "mws-up";

/// What the demo needs to know.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// End after the conversation instead of showing events until Ctrl-C.
    pub once: bool,
    /// The `workspace-server` to run.
    pub server_binary: PathBuf,
    /// The server's data folder. The demo keeps to a folder of its own in it, so that it never meets the
    /// workspaces of an installation in use.
    pub data_dir: PathBuf,
    /// The first port to try; the next free one is taken.
    pub port: u16,
    /// The sample agent's image.
    pub image: String,
    /// The folder of workspace templates; the runtime manifest lies beside it.
    pub templates: PathBuf,
    /// Name of the installation on the container engine.
    pub instance: String,
    /// The container engine's address; none means the local one.
    pub docker_host: Option<String>,
    /// The engine was started for this demo, and its owner should hear that it stays.
    pub engine_started: bool,
}

impl DemoOptions {
    pub(crate) fn folder(&self) -> PathBuf {
        self.data_dir.join("up")
    }

    pub(crate) fn network(&self) -> String {
        format!("{}-net", self.instance)
    }

    pub(crate) fn engine(&self) -> DockerConfig {
        DockerConfig {
            docker_host: self.docker_host.clone(),
            network: self.network(),
            instance: Some(self.instance.clone()),
            ..DockerConfig::default()
        }
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.templates.parent().unwrap_or(Path::new(".")).join("manifest.json")
    }
}

/// Why the private Postgres could not be stopped.
pub type StopError = Box<dyn Error + Send + Sync>;
