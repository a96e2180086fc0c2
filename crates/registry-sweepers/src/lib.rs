//! How agents announce themselves and prove that they live, and the sweeps that act when they do not.

mod address;
mod evaluate;
mod heartbeat;
mod register;
pub mod sweeps;

use std::sync::Arc;

use mws_db::Db;
use mws_egress::AgentGuard;
use mws_events::Hub;
use mws_lifecycle::Lifecycle;

pub use evaluate::{Before, Decision, evaluate};
pub use heartbeat::HeartbeatError;
pub use register::RegisterError;

/// The registry service. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<RegistryParts>,
}

/// The parts the registry works with.
pub struct RegistryParts {
    pub db: Db,
    pub lifecycle: Lifecycle,
    pub guard: AgentGuard,
    pub hub: Hub,
    /// An unknown id may register itself (3.R19).
    pub self_registration: bool,
}

impl Registry {
    /// Builds the service.
    #[must_use]
    pub fn new(parts: RegistryParts) -> Self {
        Self { inner: Arc::new(parts) }
    }

    fn parts(&self) -> &RegistryParts {
        &self.inner
    }
}
