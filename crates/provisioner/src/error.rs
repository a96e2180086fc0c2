//! What can go wrong, by type. Every `Display` text is safe to show; the raw cause is behind `source()` and is
//! for the log only.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::config_files::InvalidConfigFile;

/// A call to the container engine failed.
///
/// `Display` names the operation and nothing of the engine's answer; [`Error::source`] has that.
#[derive(Debug)]
pub struct EngineError {
    operation: &'static str,
    status: Option<u16>,
    cause: Box<dyn Error + Send + Sync>,
}

impl EngineError {
    /// Wraps a cause. `status` is the HTTP status of the engine's answer, if it answered.
    #[must_use]
    pub fn new(
        operation: &'static str,
        status: Option<u16>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { operation, status, cause: cause.into() }
    }

    pub(crate) fn deadline(operation: &'static str, after: Duration) -> Self {
        Self::new(operation, None, format!("no answer within {} ms", after.as_millis()))
    }

    /// The engine's HTTP status; `None` when it gave no answer.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        self.status
    }

    /// Which call failed, e.g. `create container`.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    pub(crate) fn is(&self, status: u16) -> bool {
        self.status == Some(status)
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the container engine failed to {}", self.operation)
    }
}

impl Error for EngineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

/// Why an agent did not start. Nothing is left running; volumes may have been created.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine does not have the image.
    #[error("the container image is not available")]
    ImageMissing {
        /// The full image reference, for the log.
        reference: String,
        /// The engine's answer.
        source: EngineError,
    },
    /// A container of this workspace's name exists and is not ours, so it stays.
    #[error("another container has the name of this workspace")]
    NameTaken,
    /// The agent needs the host's port 8000 (full-host tier) and something else has it.
    #[error("the host port of the agent is taken")]
    HostPortTaken,
    /// Neither the caller nor the volume supplies `config.yaml`.
    #[error("no configuration for this workspace")]
    ConfigMissing,
    /// A file to copy into `/configs` is not acceptable.
    #[error(transparent)]
    InvalidConfig(#[from] InvalidConfigFile),
    /// The caller cancelled the start.
    #[error("the start was cancelled")]
    Cancelled,
    /// Anything else that the engine refused or did not answer.
    #[error("the workspace could not be started")]
    Engine(#[from] EngineError),
}

/// The agent may still be running.
#[derive(Debug, thiserror::Error)]
#[error("the workspace could not be stopped")]
pub struct StopError(#[from] pub EngineError);

/// At least one volume is still there; the others were removed.
#[derive(Debug, thiserror::Error)]
#[error("the storage of the workspace could not be removed")]
pub struct StorageError(#[from] pub EngineError);

/// Why instances could not be listed or looked up.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The backend has no such operation.
    #[error("the backend does not support this operation")]
    Unsupported,
    /// The engine failed; a caller must not take this for "there are none".
    #[error("the instances could not be listed")]
    Engine(#[from] EngineError),
}

/// Why a file of an instance could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No such instance or no such file.
    #[error("no such file")]
    NotFound,
    /// A folder, a link or a special file.
    #[error("not a regular file")]
    NotAFile,
    /// Larger than the cap of the operation.
    #[error("the file is too large")]
    TooLarge,
    /// The engine failed.
    #[error("the file could not be read")]
    Engine(#[from] EngineError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_never_has_the_cause() {
        // 2.R85
        let raw = "driver failed: /var/lib/docker sha256:abc 10.0.0.1";
        let engine = || EngineError::new("create container", Some(500), raw);
        let shown = [
            engine().to_string(),
            StartError::from(engine()).to_string(),
            StartError::ImageMissing { reference: "ghcr.io/secret:latest".into(), source: engine() }
                .to_string(),
            StopError(engine()).to_string(),
            StorageError(engine()).to_string(),
            ListError::from(engine()).to_string(),
            FileError::from(engine()).to_string(),
        ];
        for text in shown {
            assert!(!text.contains("sha256") && !text.contains("ghcr") && !text.contains("driver"), "{text}");
        }
        assert_eq!(engine().source().unwrap().to_string(), raw);
    }
}
