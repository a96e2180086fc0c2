//! The wiring that both binaries share, without HTTP: who is built from what, in which order things start
//! (2.R163) and in which they stop (3.R104).

mod adapters;
mod boot;

use std::sync::Arc;
use std::time::Duration;

use mws_a2a_proxy::Proxy;
use mws_db::Db;
use mws_db::private::PrivatePostgres;
use mws_db::tokens::Tokens;
use mws_events::{Hub, ParentMap};
use mws_lifecycle::{JobRunner, Lifecycle};
use mws_registry_sweepers::Registry;
use mws_runtime::tasks::Spawner;
use mws_wsauth::Authenticator;

pub use boot::{BootError, migrate, start, start_on};

/// How long requests and jobs may take to end at shutdown (3.R104).
const DRAIN: Duration = Duration::from_secs(30);

/// A running installation: every service, wired.
pub struct App {
    pub db: Db,
    pub lifecycle: Lifecycle,
    pub registry: Registry,
    pub proxy: Proxy,
    pub hub: Hub,
    pub parents: Arc<ParentMap>,
    pub auth: Authenticator,
    pub tokens: Tokens,
    pub spawner: Spawner,
    /// Names this process in leases and claims.
    pub holder: String,
    runner: JobRunner,
    postgres: Option<PrivatePostgres>,
}

impl App {
    /// Stops: no ticks and claims any more, sockets closed, work under way finished within 30 s, leases given
    /// up, and the private Postgres with its last user.
    pub async fn stop(self) {
        self.spawner.shutdown().trigger();
        self.hub.shutdown();
        self.spawner.drain(DRAIN).await;
        if let Err(error) = self.runner.give_up_leases().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "job leases not given up");
        }
        if let Err(error) = self.db.release_tasks(&self.holder).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "task leases not given up");
        }
        self.db.close().await;
        if let Some(postgres) = self.postgres
            && let Err(error) = postgres.release().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the private Postgres was not released");
        }
    }
}
