//! The bounded queue between the hub and one subscriber.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::{Published, lock};

/// Messages that wait for one subscriber at most (3.R118).
pub const QUEUE_MESSAGES: usize = 256;

/// Bytes of text that wait for one subscriber at most; a single message always fits into an empty queue.
pub const QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// Why a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Closed {
    /// The subscriber was too slow. What it missed is gone: it reconnects and reloads (WebSocket 1013).
    #[error("the subscriber was too slow")]
    Overflow,
    /// The process stops (WebSocket 1001). What had been queued was still handed out.
    #[error("the process stops")]
    Shutdown,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Published>>,
    bytes: usize,
    closed: Option<Closed>,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

impl Queue {
    /// Never waits. A message that does not fit ends the subscription, and frees what waited in it.
    pub(crate) fn push(&self, message: &Arc<Published>) {
        let mut state = lock(&self.state);
        if state.closed.is_some() {
            return;
        }
        let bytes = state.bytes.saturating_add(message.text().len());
        let full = state.waiting.len() >= QUEUE_MESSAGES || bytes > QUEUE_BYTES;
        if full && !state.waiting.is_empty() {
            *state = State { closed: Some(Closed::Overflow), ..State::default() };
        } else {
            state.bytes = bytes;
            state.waiting.push_back(Arc::clone(message));
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn shut_down(&self) {
        lock(&self.state).closed.get_or_insert(Closed::Shutdown);
        self.changed.notify_one();
    }

    /// For one consumer at a time. Cancelling it loses nothing.
    pub(crate) async fn pop(&self) -> Result<Arc<Published>, Closed> {
        loop {
            {
                let mut state = lock(&self.state);
                if let Some(message) = state.waiting.pop_front() {
                    state.bytes -= message.text().len();
                    return Ok(message);
                }
                if let Some(closed) = state.closed {
                    return Err(closed);
                }
            }
            self.changed.notified().await;
        }
    }
}
