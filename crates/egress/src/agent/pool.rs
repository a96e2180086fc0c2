//! Connections that wait for the next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use hyper::rt::Executor as _;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, timeout};

use super::socket::Probe;

/// Idle connections kept per origin: as many as dispatches run at once per agent (4.R51).
const MAX_IDLE_PER_ORIGIN: usize = 64;
/// Idle connections kept in all.
const MAX_IDLE: usize = 1024;
/// How long a connection waits for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is used, so that a name that moved is resolved again also under steady load.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How often connections that waited too long are dropped.
const REAP_EVERY: Duration = Duration::from_secs(15);
/// hyper readies a connection right after it has passed on the end of a body. One that needs longer is stuck in
/// a request that its agent answered without reading it.
const READY_GRACE: Duration = Duration::from_millis(20);

/// One open connection to an agent.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) probe: Probe,
    /// The `Host` of every request on it.
    pub(super) host: HeaderValue,
    /// Scheme, host and port.
    pub(super) origin: Arc<str>,
    pub(super) opened: Instant,
}

impl Connection {
    async fn is_reusable(&mut self) -> bool {
        if !self.sender.is_ready() {
            let ready = timeout(READY_GRACE, self.sender.ready()).await;
            if !matches!(ready, Ok(Ok(()))) {
                return false;
            }
        }
        self.probe.is_silent()
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn is_current(&self) -> bool {
        self.since.elapsed() < IDLE_TIMEOUT && !self.connection.sender.is_closed()
    }
}

/// The idle connections of one trust.
#[derive(Default)]
pub(super) struct Pool {
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    by_origin: HashMap<Arc<str>, Vec<Idle>>,
    count: usize,
    reaping: bool,
}

impl Pool {
    /// The connection to an origin that was used last and still works.
    pub(super) async fn checkout(&self, origin: &str) -> Option<Connection> {
        while let Some(idle) = self.take(origin) {
            let current = idle.is_current();
            let mut connection = idle.connection;
            if current && connection.is_reusable().await {
                return Some(connection);
            }
        }
        None
    }

    fn take(&self, origin: &str) -> Option<Idle> {
        let mut shelf = self.lock();
        let idle = shelf.by_origin.get_mut(origin)?.pop()?;
        shelf.count -= 1;
        Some(idle)
    }

    /// Keeps a connection whose last answer was read to its end; drops it when it is not worth keeping.
    pub(super) fn put(self: &Arc<Self>, connection: Connection) {
        if connection.sender.is_closed() || connection.opened.elapsed() >= MAX_AGE {
            return;
        }
        let mut shelf = self.lock();
        if shelf.count >= MAX_IDLE {
            return;
        }
        let idle = match shelf.by_origin.get_mut(&connection.origin) {
            Some(idle) => idle,
            None => shelf.by_origin.entry(Arc::clone(&connection.origin)).or_default(),
        };
        if idle.len() >= MAX_IDLE_PER_ORIGIN {
            return;
        }
        idle.push(Idle { connection, since: Instant::now() });
        shelf.count += 1;
        if !std::mem::replace(&mut shelf.reaping, true) {
            TokioExecutor::new().execute(reap(Arc::downgrade(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what waited too long. False when nothing is left.
    fn sweep(&self) -> bool {
        let mut shelf = self.lock();
        shelf.by_origin.retain(|_, idle| {
            idle.retain(Idle::is_current);
            !idle.is_empty()
        });
        shelf.count = shelf.by_origin.values().map(Vec::len).sum();
        shelf.reaping = !shelf.by_origin.is_empty();
        shelf.reaping
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.lock().count
    }
}

async fn reap(pool: Weak<Pool>) {
    loop {
        sleep(REAP_EVERY).await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}
