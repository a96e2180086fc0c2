use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::rt::Executor as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use url::{Host, Position, Url};

use super::DispatchError;
use super::error::{classify, classify_connect};
use super::pool::Connection;
use super::socket::Socket;
use crate::{AgentGuard, Refusal, Trust, tls};

/// Time limits of a new connection (4.R48).
#[derive(Clone, Copy)]
pub(super) struct Deadlines {
    /// All addresses of the host together.
    pub(super) connect: Duration,
    pub(super) tls: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), tls: Duration::from_secs(10) }
    }
}

/// Makes connections, only to addresses that the guard has judged in the same attempt.
pub(super) struct Connector {
    guard: AgentGuard,
    deadlines: Deadlines,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Connector {
    pub(super) fn new(guard: AgentGuard) -> Self {
        Self { guard, deadlines: Deadlines::default(), tls: OnceLock::new() }
    }

    #[cfg(test)]
    pub(super) fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    #[cfg(test)]
    pub(super) fn with_tls(mut self, config: ClientConfig) -> Self {
        self.tls = OnceLock::from(Arc::new(config));
        self
    }

    pub(super) fn guard(&self) -> &AgentGuard {
        &self.guard
    }

    pub(super) async fn connect(&self, url: &Url, trust: Trust) -> Result<Connection, DispatchError> {
        let addresses = self.guard.vet(url, trust).await.map_err(|refusal| match refusal {
            Refusal::Unresolvable => DispatchError::Dns,
            other => DispatchError::Refused(other),
        })?;
        let stream = self.open(&addresses).await?;
        let socket = Socket::new(stream).map_err(|error| classify_connect(&error))?;
        let probe = socket.probe();
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort])
            .map_err(|_| DispatchError::Other)?;

        let sender = if url.scheme() == "https" {
            let name = server_name(url)?;
            let handshake = TlsConnector::from(self.tls_config().await?).connect(name, socket);
            match timeout(self.deadlines.tls, handshake).await {
                Ok(Ok(stream)) => serve(stream).await?,
                Ok(Err(_)) => return Err(DispatchError::Tls),
                Err(_) => return Err(DispatchError::ConnectTimeout),
            }
        } else {
            serve(socket).await?
        };
        Ok(Connection {
            sender,
            probe,
            host,
            origin: url[..Position::BeforePath].into(),
            opened: Instant::now(),
        })
    }

    /// Tries the addresses in turn. Each gets an even share of the time that is left, so that one black hole
    /// does not use up the others' chance.
    async fn open(&self, addresses: &[SocketAddr]) -> Result<TcpStream, DispatchError> {
        let deadline = Instant::now() + self.deadlines.connect;
        let mut failure = DispatchError::Dns;
        for (left, address) in (1..=addresses.len()).rev().zip(addresses) {
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
            match timeout_at(now + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = classify_connect(&error),
                Err(_) => failure = DispatchError::ConnectTimeout,
            }
        }
        Err(failure)
    }

    async fn tls_config(&self) -> Result<Arc<ClientConfig>, DispatchError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = tokio::task::spawn_blocking(|| tls::client_config(&[b"http/1.1"]))
            .await
            .map_err(|_| DispatchError::Tls)?;
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

fn server_name(url: &Url) -> Result<ServerName<'static>, DispatchError> {
    match url.host() {
        Some(Host::Domain(name)) => {
            ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(|_| DispatchError::Tls)
        }
        Some(Host::Ipv4(address)) => Ok(ServerName::from(std::net::IpAddr::V4(address))),
        Some(Host::Ipv6(address)) => Ok(ServerName::from(std::net::IpAddr::V6(address))),
        None => Err(DispatchError::Other),
    }
}

/// Starts HTTP/1.1 on a connection. The task that drives it ends with the connection, which ends when the sender
/// is dropped or the peer closes.
async fn serve<T>(io: T) -> Result<http1::SendRequest<Full<Bytes>>, DispatchError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| classify(&error))?;
    TokioExecutor::new().execute(async move {
        // Whoever waits for the answer gets the error.
        let _ = connection.await;
    });
    Ok(sender)
}
