//! The database: the only crate that speaks SQL.
//!
//! [`Db`] holds the pool and answers reads; [`Tx`] is a transaction that carries its events: what it records
//! becomes rows with the change and is handed to the [`EventSink`] after the commit, so that no event is
//! forgotten, invented or seen before its change. Every status change is a function of [`transitions`].

pub mod activity;
pub mod background;
mod error;
pub mod events;
pub mod jobs;
mod json;
pub mod messages;
mod pool;
pub mod private;
pub mod registry;
pub mod secrets;
pub mod stamps;
pub mod tokens;
pub mod transitions;
mod tx;
pub mod workspaces;

pub use error::Error;
pub use json::StoredJson;
pub use pool::{Db, DbOptions, migrate, migrations_fingerprint};
pub use tx::{EventSink, Recorded, Tx};

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
