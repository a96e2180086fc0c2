use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

/// Time for one lookup, A and AAAA together, waiting for a free resolver thread included (5.R165).
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(2);

/// Lookups that run at once. The system resolver blocks a thread for as long as it likes, so that slow names
/// must not be able to take them all.
const MAX_LOOKUPS: usize = 64;

/// Turns a host name into its addresses. One call is one attempt; the guard keeps the deadline.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All IPv4 and IPv6 addresses of `host`. May be cancelled.
    ///
    /// # Errors
    /// Any failure; its text is never shown.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the operating system.
pub struct SystemResolver {
    lookups: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        tokio::task::spawn_blocking(move || {
            let found =
                (host.as_str(), 0).to_socket_addrs().map(|found| found.map(|found| found.ip()).collect());
            // Held until the thread is free again, also when nobody waits for the answer any more.
            drop(permit);
            found
        })
        .await
        .map_err(io::Error::other)?
    }
}
