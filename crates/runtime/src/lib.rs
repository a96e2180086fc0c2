//! What every process of the workspace server stands on: typed configuration, the clock, supervised tasks,
//! shutdown and telemetry. Depends on none of the product's other crates.

#![warn(missing_docs)]

pub mod clock;
pub mod config;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
