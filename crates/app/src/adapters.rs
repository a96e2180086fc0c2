//! A few lines each: what one crate asks for, by another that does not know it.

use std::sync::Arc;

use async_trait::async_trait;
use mws_a2a_proxy::AgentControl;
use mws_db::{Db, EventSink, Recorded};
use mws_events::{Hub, Message, ParentRow, ParentSource, SourceFailure};
use mws_lifecycle::{Lifecycle, Verdict};
use mws_models::WorkspaceId;

/// Committed events reach the hub.
pub(crate) struct HubSink(pub(crate) Hub);

impl EventSink for HubSink {
    fn publish(&self, recorded: Recorded) {
        self.0.publish(&Message::new(recorded.id, recorded.at, recorded.event));
    }
}

/// The proxy asks the life cycle about agents.
pub(crate) struct Agents(pub(crate) Lifecycle);

#[async_trait]
impl AgentControl for Agents {
    async fn is_dead(&self, target: WorkspaceId) -> bool {
        self.0.check_unreachable(target).await == Verdict::Dead
    }

    async fn reached_by_name(&self) -> bool {
        self.0.backends().current().await.is_some_and(|backend| backend.in_container())
    }
}

/// The event feed reads the tree from the database.
pub(crate) struct Tree(pub(crate) Db);

#[async_trait]
impl ParentSource for Tree {
    async fn all(&self, limit: usize) -> Result<Vec<ParentRow>, SourceFailure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.0.parents(limit).await.map_err(SourceFailure::new)
    }

    async fn chains(&self, ids: &[WorkspaceId]) -> Result<Vec<ParentRow>, SourceFailure> {
        self.0.parent_chains(ids).await.map_err(SourceFailure::new)
    }
}

/// Counts the restarts of supervised tasks where operators see them.
pub(crate) fn record_restarts(db: &Db, spawner: &mws_runtime::tasks::Spawner) {
    let (db, detached) = (Arc::new(db.clone()), spawner.clone());
    spawner.on_failure(move |status| {
        let (db, name) = (db.clone(), status.name);
        let error = status.last_error.clone().unwrap_or_default();
        let record = async move {
            if let Err(error) = db.count_restart(name, &error).await {
                tracing::warn!(task = name, error = &error as &dyn std::error::Error, "restart not recorded");
            }
        };
        detached.spawn("restart-count", record).detach();
    });
}
