//! The whole server in this process: real HTTP on a real Postgres, with a backend in memory. What needs the
//! container engine or the binary itself is in [`black_box`].
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "a test's own tasks need no supervisor")]

mod a2a;
mod auth;
mod black_box;
mod claims;
mod create;
mod declaration;
mod delete;
mod demo;
mod events;
mod frame;
mod gates;
mod heartbeat;
mod hostile;
mod jobs;
mod operation;
mod peers;
mod reads;
mod registry;
mod registry_address;
mod socket;
mod support;
mod sweeps;
