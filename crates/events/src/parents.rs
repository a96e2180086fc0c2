//! The tree of workspaces in memory, so that fan-out asks no database per client and event (3.R43, 3.R120).

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use mws_models::WorkspaceId;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::{Hub, can_communicate};

/// The tree is read anew before a decision when it is older than this (3.R120).
const REFRESH_AFTER: Duration = Duration::from_secs(5);

/// While the source fails, an unchanged tree is trusted up to this age; after that nothing can be decided.
const TRUSTED_FOR: Duration = Duration::from_secs(30);

/// Deadline of one read.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// After a failed read the next one waits this long, so that a broken source is not asked for every event.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Rows kept from one full read; workspaces beyond them are looked up one by one.
const MAX_ROWS: usize = 100_000;

/// Unknown ids remembered as such between two full reads.
const MAX_ABSENT: usize = 4096;

/// A workspace and its parent; `None` for a root.
pub type ParentRow = (WorkspaceId, Option<WorkspaceId>);

/// The rows could not be read. `Debug` and `Display` hold nothing of the cause; [`Error::source`] does, for the
/// log alone.
pub struct SourceFailure(Box<dyn Error + Send + Sync>);

impl SourceFailure {
    /// Wraps the cause.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Debug for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceFailure")
    }
}

impl fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tree of workspaces could not be read")
    }
}

impl Error for SourceFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// Where the rows come from. Removed workspaces belong to the tree (3.R44). Both reads are dropped when their
/// deadline passes, so they must be safe to cancel.
#[async_trait]
pub trait ParentSource: Send + Sync {
    /// At most `limit` rows; where there are more, those of workspaces that are not removed first.
    async fn all(&self, limit: usize) -> Result<Vec<ParentRow>, SourceFailure>;

    /// The rows of these workspaces and of what is above them, at least as far as [`can_communicate`] walks.
    /// Ids without a row are left out.
    async fn chains(&self, ids: &[WorkspaceId]) -> Result<Vec<ParentRow>, SourceFailure>;
}

#[derive(Default)]
struct Tree {
    rows: HashMap<WorkspaceId, Option<WorkspaceId>>,
    absent: HashSet<WorkspaceId>,
    /// The hub's structure count and the time before the full read began.
    read: Option<(u64, Instant)>,
}

#[derive(Default)]
struct Reader {
    failed_at: Option<Instant>,
}

/// Decides which events an agent's client may see. Reads the tree when a decision needs it fresher than it is:
/// after an event that may have changed it, after 5 s, and for ids that it does not know. So it costs nothing
/// while no agent client is connected.
pub struct ParentMap {
    hub: Hub,
    source: Arc<dyn ParentSource>,
    tree: RwLock<Tree>,
    /// One read at a time; whoever waited finds the tree already fresh.
    reader: Mutex<Reader>,
}

impl ParentMap {
    /// An empty map over a source, kept fresh by what the hub sees.
    #[must_use]
    pub fn new(hub: &Hub, source: Arc<dyn ParentSource>) -> Self {
        Self { hub: hub.clone(), source, tree: RwLock::default(), reader: Mutex::default() }
    }

    /// Whether two workspaces may talk (3.R41). `None` when that cannot be decided now: then nothing is sent
    /// (3.R114). May be cancelled.
    pub async fn can_communicate(&self, caller: WorkspaceId, target: WorkspaceId) -> Option<bool> {
        if caller == target {
            return Some(true);
        }
        if !self.is_fresh(&self.read()) && !self.refresh().await {
            return None;
        }
        if let Some(answer) = self.decide(caller, target) {
            return Some(answer);
        }
        self.look_up(caller, target).await?;
        self.decide(caller, target)
    }

    /// `Some(false)` for an id that is known to have no row.
    fn decide(&self, caller: WorkspaceId, target: WorkspaceId) -> Option<bool> {
        let tree = self.read();
        let answer = can_communicate(caller, target, |id| tree.rows.get(&id).copied());
        let absent = || [caller, target].iter().any(|id| tree.absent.contains(id));
        answer.or_else(|| absent().then_some(false))
    }

    fn is_fresh(&self, tree: &Tree) -> bool {
        tree.read.is_some_and(|(count, at)| count == self.hub.structure() && at.elapsed() < REFRESH_AFTER)
    }

    /// Whether the tree may be decided by after a read that failed.
    fn is_trusted(&self, tree: &Tree) -> bool {
        tree.read.is_some_and(|(count, at)| count == self.hub.structure() && at.elapsed() < TRUSTED_FOR)
    }

    /// Reads the whole tree unless somebody else just did; whether it may be decided by.
    async fn refresh(&self) -> bool {
        let mut reader = self.reader.lock().await;
        if self.is_fresh(&self.read()) {
            return true;
        }
        if reader.failed_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return self.is_trusted(&self.read());
        }
        // Taken before the read: a change that lands while it runs makes its result stale, not fresh.
        let read = (self.hub.structure(), Instant::now());
        let Some(rows) = answer("all", self.source.all(MAX_ROWS)).await else {
            reader.failed_at = Some(Instant::now());
            return self.is_trusted(&self.read());
        };
        reader.failed_at = None;
        if rows.len() >= MAX_ROWS {
            tracing::warn!(rows = rows.len(), "not all workspaces fit into the parent map");
        }
        *self.write() = Tree { rows: rows.into_iter().collect(), absent: HashSet::new(), read: Some(read) };
        true
    }

    /// Reads what the tree lacks of these two; `None` when that failed.
    async fn look_up(&self, caller: WorkspaceId, target: WorkspaceId) -> Option<()> {
        let mut reader = self.reader.lock().await;
        if self.decide(caller, target).is_some() {
            return Some(());
        }
        if reader.failed_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return None;
        }
        let ids = [caller, target];
        let Some(rows) = answer("chains", self.source.chains(&ids)).await else {
            reader.failed_at = Some(Instant::now());
            return None;
        };
        let mut tree = self.write();
        for (id, parent) in rows {
            // What a full read brought is not overwritten: the rows of one read belong together.
            tree.rows.entry(id).or_insert(parent);
        }
        if tree.absent.len() >= MAX_ABSENT {
            tree.absent.clear();
        }
        let unknown: Vec<_> = ids.into_iter().filter(|id| !tree.rows.contains_key(id)).collect();
        tree.absent.extend(unknown);
        Some(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ParentMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParentMap").field("rows", &self.read().rows.len()).finish_non_exhaustive()
    }
}

async fn answer(
    what: &'static str,
    read: impl Future<Output = Result<Vec<ParentRow>, SourceFailure>>,
) -> Option<Vec<ParentRow>> {
    let cause = match timeout(READ_DEADLINE, read).await {
        Ok(Ok(rows)) => return Some(rows),
        Ok(Err(failure)) => failure.0.to_string(),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::warn!(what, cause, "the tree of workspaces could not be read");
    None
}

#[cfg(test)]
#[path = "parents_tests.rs"]
mod tests;
