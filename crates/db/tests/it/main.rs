//! The database layer against a real Postgres.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "a test's own tasks need no supervisor")]

mod jobs;
mod private;
mod removal;
mod schema;
mod support;
mod transitions;
