use std::path::PathBuf;
use std::process::ExitStatus;

use crate::api::ApiError;

/// Why the demo failed. Shown to the person who started it, on their own machine.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file or folder of the demo.
    #[error("{}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes for the admin token")]
    Random,
    /// Signal handlers could not be installed.
    #[error("cannot watch for Ctrl-C")]
    Signals(#[source] std::io::Error),
    /// Another demo is at work.
    #[error("an `up` is at work already (its server is process {0}): end it, or run `cargo xtask down`")]
    AlreadyUp(i32),
    /// No port to listen on.
    #[error("no free port from {first} to {last}")]
    NoPort {
        /// The first tried.
        first: u16,
        /// The last tried.
        last: u16,
    },
    /// The server did not start or ended on its own.
    #[error("the server ended with {status}; its log is {}\n{tail}", log.display())]
    ServerEnded {
        /// How.
        status: ExitStatus,
        /// Its whole log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// The server runs and does not answer.
    #[error("the server does not answer within {seconds} s; its log is {}", log.display())]
    ServerSilent {
        /// How long it was given.
        seconds: u64,
        /// Its whole log.
        log: PathBuf,
    },
    /// A call of the API failed.
    #[error("{step}")]
    Api {
        /// What was tried.
        step: String,
        /// Why it failed.
        source: ApiError,
    },
    /// An agent's start failed.
    #[error("{name} did not start: {reason}")]
    AgentFailed {
        /// The agent.
        name: String,
        /// What the server says.
        reason: String,
    },
    /// An agent's start took too long.
    #[error("not online within {seconds} s: {names}; the server's log is {}", log.display())]
    AgentsLate {
        /// How long they were given.
        seconds: u64,
        /// Who is missing.
        names: String,
        /// The server's log.
        log: PathBuf,
    },
    /// The lead answered something else than what its teammate said.
    #[error("the lead's answer does not hold its teammate's: {0:?}")]
    Conversation(String),
    /// Ctrl-C before the demo was done.
    #[error("interrupted")]
    Interrupted,
    /// Ctrl-C during the clean-up.
    #[error("the clean-up was broken off; `cargo xtask down` removes what is left")]
    CleanUpInterrupted,
    /// Something is left.
    #[error("the clean-up is not complete ({0}); `cargo xtask down` tries again")]
    CleanUp(String),
}

impl DemoError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    pub(crate) fn api(step: impl Into<String>) -> impl FnOnce(ApiError) -> Self {
        let step = step.into();
        move |source| Self::Api { step, source }
    }
}
