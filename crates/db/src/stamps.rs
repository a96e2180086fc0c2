//! Times that may be written a moment later: last outbound calls, idle clocks, last uses of tokens. Collected
//! here and written together, off every request's path.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mws_models::{OrgTokenId, TokenId, WorkspaceId};
use mws_runtime::tasks::Spawner;

use crate::error::bounded;
use crate::{Db, Result};

/// How often they are written.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// Distinct ids of one kind that may wait; what comes on top is dropped, since it is a convenience.
const MAX_WAITING: usize = 10_000;

#[derive(Default)]
struct Waiting {
    outbound: HashSet<WorkspaceId>,
    delivered: HashSet<WorkspaceId>,
    tokens: HashSet<TokenId>,
    org_tokens: HashSet<OrgTokenId>,
}

/// Handle to the collected times of this process.
#[derive(Clone, Default)]
pub struct Stamps {
    waiting: Arc<Mutex<Waiting>>,
}

fn note<T: Eq + std::hash::Hash>(set: &mut HashSet<T>, value: T) {
    if set.len() < MAX_WAITING {
        set.insert(value);
    }
}

impl Stamps {
    /// Starts the writer; it writes a last time at shutdown.
    #[must_use]
    pub fn start(db: Db, spawner: &Spawner) -> Self {
        let shutdown = spawner.shutdown().clone();
        let stamps = Self::default();
        let writer = stamps.clone();
        let writing = async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(FLUSH_EVERY) => writer.flush(&db).await,
                    () = shutdown.cancelled() => return writer.flush(&db).await,
                }
            }
        };
        spawner.spawn("stamp-writer", writing).detach();
        stamps
    }

    fn with(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A call that this workspace made succeeded (1.R32).
    pub fn outbound(&self, id: WorkspaceId) {
        self.with(|waiting| note(&mut waiting.outbound, id));
    }

    /// A message was delivered to this workspace: its idle clock starts again (3.R88).
    pub fn delivered(&self, id: WorkspaceId) {
        self.with(|waiting| note(&mut waiting.delivered, id));
    }

    /// A token was used (5.R14).
    pub fn token_used(&self, id: TokenId) {
        self.with(|waiting| note(&mut waiting.tokens, id));
    }

    /// An organisation token was used.
    pub fn org_token_used(&self, id: OrgTokenId) {
        self.with(|waiting| note(&mut waiting.org_tokens, id));
    }

    async fn flush(&self, db: &Db) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = db.write_stamps(&waiting).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "stamps not written");
        }
    }
}

impl Db {
    async fn write_stamps(&self, waiting: &Waiting) -> Result<()> {
        let uuids = |set: &HashSet<WorkspaceId>| set.iter().map(|id| id.uuid()).collect::<Vec<_>>();
        if !waiting.outbound.is_empty() || !waiting.delivered.is_empty() {
            let (outbound, delivered) = (uuids(&waiting.outbound), uuids(&waiting.delivered));
            bounded(
                sqlx::query!(
                    "UPDATE workspaces SET
                         last_outbound_at = CASE WHEN id = ANY($1) THEN now() ELSE last_outbound_at END,
                         idle_since = CASE WHEN id = ANY($2) AND idle_since IS NOT NULL THEN now() ELSE idle_since END
                     WHERE id IN (SELECT id FROM workspaces
                                  WHERE (id = ANY($1) OR id = ANY($2)) AND status <> 'removed'
                                  ORDER BY id FOR NO KEY UPDATE)",
                    &outbound,
                    &delivered
                )
                .execute(&self.pool),
            )
            .await?;
        }
        if !waiting.tokens.is_empty() {
            let tokens: Vec<_> = waiting.tokens.iter().map(|id| id.uuid()).collect();
            // Once a minute is often enough to tell a token that is used from one that is not (5.B1).
            bounded(
                sqlx::query!(
                    "UPDATE workspace_auth_tokens SET last_used_at = now()
                     WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at < now() - interval '60 seconds')",
                    &tokens
                )
                .execute(&self.pool),
            )
            .await?;
        }
        if !waiting.org_tokens.is_empty() {
            let tokens: Vec<_> = waiting.org_tokens.iter().map(|id| id.uuid()).collect();
            bounded(
                sqlx::query!(
                    "UPDATE org_api_tokens SET last_used_at = now()
                     WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at < now() - interval '60 seconds')",
                    &tokens
                )
                .execute(&self.pool),
            )
            .await?;
        }
        Ok(())
    }
}
