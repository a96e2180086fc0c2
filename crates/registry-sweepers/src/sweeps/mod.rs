//! The sweeps. Each lists its candidates completely, then acts on each row by one conditional transition.

mod liveness;
mod provision_timeout;
mod teardown;

pub use liveness::LivenessSweep;
pub use provision_timeout::ProvisionTimeoutSweep;
pub use teardown::TeardownReaper;
