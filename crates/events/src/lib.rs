//! Event fan-out inside one process: a [`Hub`] that whoever changes something publishes to, bounded
//! [`Subscription`]s for WebSocket and SSE clients, an [`ActivityWatch`] for the message proxy's idle timer,
//! and the [`ParentMap`] by which an agent's client is given only what it may see.
//!
//! Publishing never waits: not for a database, not for a socket, not for a slow subscriber.

#![warn(missing_docs)]

mod hierarchy;
mod hub;
mod message;
mod parents;
mod queue;
mod watch;

pub use hierarchy::{MAX_STEPS, can_communicate};
pub use hub::{Hub, Refused, Subscription};
pub use message::{Message, Published};
pub use parents::{ParentMap, ParentRow, ParentSource, SourceFailure};
pub use queue::{Closed, QUEUE_BYTES, QUEUE_MESSAGES};
pub use watch::ActivityWatch;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks without caring for poison: every critical section here leaves its data whole at each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
