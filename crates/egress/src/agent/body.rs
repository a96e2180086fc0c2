use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::DispatchError;
use super::error::classify;
use super::pool::{Connection, Pool};

/// Why a body could not be read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than the caller's limit.
    #[error("agent response too large")]
    TooLarge,
    /// The connection ended or broke before the body did.
    #[error("failed to read agent response")]
    Interrupted,
}

/// An agent's answer as it arrives. Read to its end, it gives its connection back; dropped earlier, it closes it.
pub struct AgentBody {
    /// `None` once the end or an error has been seen.
    incoming: Option<Incoming>,
    lease: Option<(Connection, Arc<Pool>)>,
}

impl AgentBody {
    pub(super) fn new(incoming: Incoming, connection: Connection, pool: Arc<Pool>) -> Self {
        let mut body = Self { incoming: Some(incoming), lease: Some((connection, pool)) };
        body.release_at_end();
        body
    }

    /// The next chunk, of whatever size it arrived in; `None` at the end and after an error. May be cancelled
    /// without losing a chunk. Has no time limit.
    ///
    /// # Errors
    /// The connection ended or broke before the body did.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes, DispatchError>> {
        loop {
            match self.incoming.as_mut()?.frame().await {
                Some(Ok(frame)) => {
                    self.release_at_end();
                    // Trailers are not part of the body.
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Some(Err(error)) => {
                    self.incoming = None;
                    self.lease = None;
                    return Some(Err(classify(&error)));
                }
                None => {
                    self.release();
                    return None;
                }
            }
        }
    }

    /// The whole body, when it is at most `limit` bytes. Has no time limit. Cancelling it closes the connection.
    ///
    /// # Errors
    /// [`BodyError`]; what was read is thrown away.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let announced = self.incoming.as_ref().map_or(0, |incoming| incoming.size_hint().lower());
        let announced = usize::try_from(announced).map_err(|_| BodyError::TooLarge)?;
        if announced > limit {
            return Err(BodyError::TooLarge);
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await {
            let chunk = chunk.map_err(|_| BodyError::Interrupted)?;
            if first.len().max(rest.len()) + chunk.len() > limit {
                return Err(BodyError::TooLarge);
            }
            // A small answer arrives in one piece and is not copied.
            if first.is_empty() && rest.is_empty() {
                first = chunk;
                continue;
            }
            if !first.is_empty() {
                rest.reserve(announced.max(first.len() + chunk.len()));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&chunk);
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }

    fn release_at_end(&mut self) {
        if self.incoming.as_ref().is_some_and(|incoming| incoming.is_end_stream()) {
            self.release();
        }
    }

    fn release(&mut self) {
        self.incoming = None;
        if let Some((connection, pool)) = self.lease.take() {
            pool.put(connection);
        }
    }
}
