//! Asking a postmaster whether it takes connections, as `pg_isready` does: a start of the protocol that is not
//! finished.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{DATABASE, ROLE};

/// How long a postmaster may take to answer one question.
const DEADLINE: Duration = Duration::from_secs(2);

/// Protocol version 3.0.
const PROTOCOL: u32 = 3 << 16;

/// SQLSTATE `cannot_connect_now`: starting up, recovering or shutting down.
const CANNOT_CONNECT_NOW: &[u8] = b"57P03";

/// The most that is read of an error.
const REPLY_MAX: u64 = 4096;

/// What the socket answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Connections are taken, or refused for a reason that only a running server has.
    Ready,
    /// A server is there and starting or stopping.
    NotYet,
    /// Nobody answers.
    Silent,
}

pub(super) async fn readiness(socket: &Path) -> Readiness {
    match timeout(DEADLINE, ask(socket)).await {
        Ok(Ok(readiness)) => readiness,
        Ok(Err(_)) | Err(_) => Readiness::Silent,
    }
}

async fn ask(socket: &Path) -> std::io::Result<Readiness> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&startup_message()).await?;
    Ok(match stream.read_u8().await? {
        b'R' => Readiness::Ready,
        b'E' => {
            let mut reply = Vec::new();
            stream.take(REPLY_MAX).read_to_end(&mut reply).await?;
            classify_error(&reply)
        }
        _ => Readiness::Silent,
    })
}

fn startup_message() -> Vec<u8> {
    let parameters = format!("user\0{ROLE}\0database\0{DATABASE}\0\0");
    let length = u32::try_from(8 + parameters.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(8 + parameters.len());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&PROTOCOL.to_be_bytes());
    message.extend_from_slice(parameters.as_bytes());
    message
}

/// Reads the body of an ErrorResponse: its length, then fields of a type byte and a text ended by zero.
fn classify_error(reply: &[u8]) -> Readiness {
    let fields = reply.get(4..).unwrap_or_default().split(|byte| *byte == 0);
    let code = fields.filter_map(|field| field.split_first()).find(|(kind, _)| **kind == b'C');
    match code {
        Some((_, CANNOT_CONNECT_NOW)) => Readiness::NotYet,
        Some(_) => Readiness::Ready,
        None => Readiness::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_a_starting_server_from_a_full_one() {
        let error = |code: &str| [b"\0\0\0\x20SFATAL\0VFATAL\0C", code.as_bytes(), b"\0Mtext\0\0"].concat();
        assert_eq!(classify_error(&error("57P03")), Readiness::NotYet);
        assert_eq!(classify_error(&error("53300")), Readiness::Ready);
        assert_eq!(classify_error(b"\0\0"), Readiness::Silent);
    }
}
