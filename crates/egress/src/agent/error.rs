use std::error::Error;
use std::io;

use crate::Refusal;

/// Why an agent gave no (complete) answer. The text carries nothing of the agent's, its host or its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// The guard refused the URL, or an address of its host. Nothing was sent.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The host has no address. Nothing was sent.
    #[error("agent host cannot be resolved")]
    Dns,
    /// The host refused the connection. Nothing was sent.
    #[error("agent refused the connection")]
    ConnectRefused,
    /// No route to the host, or the connection failed otherwise. Nothing was sent.
    #[error("agent host is unreachable")]
    Unreachable,
    /// No connection within 10 s, or no TLS handshake within another 10 s. Nothing was sent.
    #[error("timeout while connecting to the agent")]
    ConnectTimeout,
    /// The TLS handshake failed. Nothing was sent.
    #[error("TLS handshake with the agent failed")]
    Tls,
    /// The connection ended before the message was complete.
    #[error("agent closed the connection")]
    Closed,
    /// The connection was reset.
    #[error("connection reset by the agent")]
    Reset,
    /// The agent did not answer in HTTP/1.1.
    #[error("agent broke the HTTP protocol")]
    Protocol,
    /// Anything else, such as a request that cannot be expressed. Nothing was sent.
    #[error("the request could not be made")]
    Other,
}

/// The cause of a failed exchange, by the types in its chain.
pub(super) fn classify(error: &hyper::Error) -> DispatchError {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return DispatchError::Closed;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::UnexpectedEof => DispatchError::Closed,
                // rustls reports broken records this way.
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => DispatchError::Protocol,
                _ => DispatchError::Reset,
            };
        }
        source = cause.source();
    }
    if error.is_user() { DispatchError::Other } else { DispatchError::Protocol }
}

/// The cause of a failed TCP connect.
pub(super) fn classify_connect(error: &io::Error) -> DispatchError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DispatchError::ConnectRefused,
        io::ErrorKind::TimedOut => DispatchError::ConnectTimeout,
        _ => DispatchError::Unreachable,
    }
}
