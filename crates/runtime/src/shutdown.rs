//! One token that says "this process is ending", and the signals that set it off.

use std::fmt;
use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Whether the process, or a part of it, should end. Cheap to clone; clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A token that has not been triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything that holds this token, its clones or its children to end. Cannot be taken back.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the end is asked for; returns at once when it already was. May be cancelled and called again.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// A token that ends with this one, and can be triggered without ending this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}

/// A signal that asks the process to end (5.R128).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What service managers and container engines send.
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Catches SIGINT and SIGTERM from its creation on, in place of their default action.
#[derive(Debug)]
pub struct Signals {
    interrupt: Stream,
    terminate: Stream,
}

impl Signals {
    /// Installs the handlers. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the operating system refuses the handlers.
    pub fn install() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal: the first starts an orderly end, a second one means that somebody is tired of
    /// waiting. May be cancelled; no signal is lost.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

/// Waits for SIGINT or SIGTERM and triggers `shutdown`; returns the signal. May be cancelled.
pub async fn on_signal(signals: &mut Signals, shutdown: &Shutdown) -> Signal {
    let signal = signals.next().await;
    tracing::info!(%signal, "shutting down");
    shutdown.trigger();
    signal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_ends_with_its_parent_and_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (ended, living) = (parent.child(), parent.child());
        ended.trigger();
        assert!(ended.is_cancelled() && !parent.is_cancelled() && !living.is_cancelled());
        parent.trigger();
        living.cancelled().await;
        assert!(living.is_cancelled());
    }

    // 5.R128
    #[tokio::test]
    async fn sigterm_and_sigint_trigger_the_shutdown() {
        use nix::sys::signal::{Signal as Unix, raise};
        for (sent, expected) in [(Unix::SIGTERM, Signal::Terminate), (Unix::SIGINT, Signal::Interrupt)] {
            let mut signals = Signals::install().unwrap();
            let shutdown = Shutdown::new();
            raise(sent).unwrap();
            assert_eq!(on_signal(&mut signals, &shutdown).await, expected);
            assert!(shutdown.is_cancelled());
        }
    }
}
