//! Delete: mark the whole subtree first, stop then, keep what could not be stopped (1 §7).

use std::time::Duration;

use mws_db::jobs::{JobKind, JobOptions, NewJob};
use mws_db::workspaces::ChildRow;
use mws_models::{WorkspaceId, WorkspaceStatus};
use mws_wsauth::Caller;
use tokio::time::{Instant, sleep_until};

use crate::Lifecycle;

/// How often a waiting delete looks for itself, should a hint have come from another process.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A removal whose rows are marked.
#[derive(Debug)]
pub struct Removal {
    /// Rows that this call removed: the workspace and its descendants, 0 when it was removed before.
    pub removed: usize,
    /// What is not known to be stopped.
    pub failed: Vec<WorkspaceId>,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// No such row.
    #[error("workspace not found")]
    NotFound,
    /// It has children, and the caller did not confirm.
    #[error("the workspace has {} live children", .0.len())]
    ConfirmationRequired(Vec<ChildRow>),
    /// The database refused or was away.
    #[error("failed to remove workspace")]
    Store(#[from] mws_db::Error),
}

impl Lifecycle {
    /// Removes a workspace and everything below it, then waits, within the teardown deadline, for its stops.
    /// Repeatable: on a removed row it stops again what is still pending.
    ///
    /// # Errors
    /// See [`RemoveError`]; nothing was changed.
    pub async fn delete(
        &self,
        caller: &Caller,
        root: WorkspaceId,
        confirmed: bool,
    ) -> Result<Removal, RemoveError> {
        let deadline = Instant::now() + self.parts().options.teardown_deadline;
        let status = self.db().workspace_status(root).await?.ok_or(RemoveError::NotFound)?;
        let backend = self.backends().current().await.is_some();
        let (removed, mut pending) = if status == WorkspaceStatus::Removed {
            (0, Vec::new())
        } else {
            self.mark_removed(root, confirmed, backend).await?
        };
        if removed == 0 {
            // Removed before, or by another delete just now: its stops are this call's to wait for as well.
            pending = self.db().retry_teardowns_below(root).await?;
        }
        tracing::info!(workspace_id = %root, actor = caller.actor(), removed, "workspace removed");
        self.job_enqueued();
        let failed = if backend {
            self.wait_for_teardowns(&pending, deadline).await?
        } else {
            // Nobody here can stop it: the row keeps pointing at it for whoever can.
            self.db().teardowns_pending(&pending).await?.into_iter().map(|row| row.id).collect()
        };
        Ok(Removal { removed, failed })
    }

    async fn mark_removed(
        &self,
        root: WorkspaceId,
        confirmed: bool,
        backend: bool,
    ) -> Result<(usize, Vec<WorkspaceId>), RemoveError> {
        let mut tx = self.db().begin().await?;
        tx.patient().await?;
        if !confirmed {
            let children = tx.live_children(root).await?;
            if !children.is_empty() {
                return Err(RemoveError::ConfirmationRequired(children));
            }
        }
        let removed = tx.remove(root, backend).await?;
        if !confirmed && removed.len() > 1 {
            // A child came between the look and the locks; dropping the transaction undoes the mark.
            drop(tx);
            let mut tx = self.db().begin().await?;
            return Err(RemoveError::ConfirmationRequired(tx.live_children(root).await?));
        }
        let pending: Vec<_> = removed.iter().filter(|row| row.teardown_pending).map(|row| row.id).collect();
        for id in &pending {
            tx.enqueue(&NewJob {
                workspace_id: *id,
                kind: JobKind::Teardown,
                reason: "delete",
                automatic: false,
                options: JobOptions::default(),
                delay: Duration::ZERO,
            })
            .await?;
        }
        tx.commit().await?;
        for row in &removed {
            self.forget(row.id);
        }
        Ok((removed.len(), pending))
    }

    /// Waits until no teardown of these is under way and returns those that did not succeed.
    async fn wait_for_teardowns(
        &self,
        ids: &[WorkspaceId],
        deadline: Instant,
    ) -> Result<Vec<WorkspaceId>, RemoveError> {
        loop {
            let ended = self.inner.job_ended.notified();
            tokio::pin!(ended);
            // Registered before the look, so that no end is missed.
            ended.as_mut().enable();
            let rows = self.db().teardowns_pending(ids).await?;
            if !rows.iter().any(|row| row.open) || Instant::now() >= deadline {
                return Ok(rows.into_iter().map(|row| row.id).collect());
            }
            tokio::select! {
                () = ended => {}
                () = sleep_until((Instant::now() + LOOK_EVERY).min(deadline)) => {}
            }
        }
    }

    /// Drops what this process remembers of a workspace (2.R117).
    fn forget(&self, id: WorkspaceId) {
        self.inner.checks.forget(id);
    }
}
