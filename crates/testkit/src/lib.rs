//! What the tests of this workspace share. A dev-dependency only.
//!
//! - [`TestDatabase`]: a database of its own for each test, with the real schema on a real Postgres.
//! - [`wait_until`], [`wait_for`]: patience in place of sleeping.
//! - [`FakeAgent`]: an agent, or any HTTP service, that answers by a script and remembers what it was asked.
//!
//! A helper that cannot do its work panics: that fails the test that asked.

#![warn(missing_docs)]
#![allow(clippy::panic, clippy::expect_used, reason = "a failed helper fails the test that called it")]

mod agent;
mod database;
mod edges;
mod patience;
mod server;
mod sql;
mod template;

pub use agent::{Answer, FakeAgent, Received};
pub use database::TestDatabase;
pub use patience::{PATIENCE, wait_for, wait_until, wait_until_within};
