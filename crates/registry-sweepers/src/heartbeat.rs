//! Heartbeats (contract 3.2, 3.3).

use mws_db::registry::RegistryRow;
use mws_db::transitions::{FullHeartbeat, HeartbeatWrite};
use mws_models::api::Heartbeat;
use mws_models::{Event, RuntimeDeclaration, WorkspaceStatus};
use mws_wsauth::RegistryPass;
use secrecy::SecretString;
use serde_json::Value;

use crate::{Before, Registry, evaluate};

/// Why a heartbeat was refused.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// The workspace was removed after the gate: its 401.
    #[error("the workspace's own token is required")]
    Refused,
    /// The database refused or was away.
    #[error("failed to update")]
    Store(#[from] mws_db::Error),
}

/// What a beat does to the stored declaration.
enum Declared {
    Keep,
    Replace(Option<RuntimeDeclaration>),
}

impl Registry {
    /// Takes one heartbeat that passed the registry gate. Returns what the platform will present to the agent,
    /// for a proven beat.
    ///
    /// # Errors
    /// See [`HeartbeatError`]; nothing was written.
    pub async fn heartbeat(
        &self,
        pass: &RegistryPass,
        beat: &Heartbeat,
    ) -> Result<Option<SecretString>, HeartbeatError> {
        let parts = self.parts();
        let id = beat.workspace_id;
        let mut tx = parts.db.begin().await?;
        let row = tx
            .lock_for_registry(id)
            .await?
            .filter(|row| row.status != WorkspaceStatus::Removed)
            .ok_or(HeartbeatError::Refused)?;
        let task_push = is_task_push(&row, beat);
        let declared = if task_push { Declared::Keep } else { declared(beat) };
        let native = match &declared {
            Declared::Keep => row.declaration.as_deref(),
            Declared::Replace(new) => new.as_ref(),
        }
        .is_some_and(|declaration| declaration.capabilities.manages_status());
        let before = Before { status: row.status, degraded_reason: row.degraded_reason.as_deref(), native };
        let decision = evaluate(before, beat.error_rate, &beat.runtime_state, task_push);
        let write = HeartbeatWrite {
            active_tasks: beat.active_tasks,
            current_task: &beat.current_task,
            monthly_spend: beat.monthly_spend,
            full: (!task_push).then(|| FullHeartbeat {
                error_rate: beat.error_rate,
                sample_error: &beat.sample_error,
                uptime_seconds: beat.uptime_seconds,
                declaration: match &declared {
                    Declared::Replace(new) if new.as_ref() != row.declaration.as_deref() => {
                        Some(new.as_ref())
                    }
                    _ => None,
                },
            }),
            status: decision.status,
            degraded_reason: decision.degraded_reason,
        };
        if !tx.heartbeat(id, row.status, &write).await? {
            return Err(HeartbeatError::Refused);
        }
        tx.commit().await?;

        if row.current_task.as_deref().unwrap_or_default() != beat.current_task {
            parts.hub.broadcast(Event::task_updated(id, &beat.current_task, beat.active_tasks));
        }
        let pulse = Event::heartbeat(id, beat.active_tasks, beat.uptime_seconds);
        if beat.runtime_state == "wedged" {
            // A wedged agent's beat is news, but no sign of life for a dispatch that waits for it (4.R49).
            parts.hub.broadcast_wedged(pulse);
        } else {
            parts.hub.broadcast(pulse);
        }
        if !matches!(pass, RegistryPass::Proven(_)) {
            return Ok(None);
        }
        Ok(parts.lifecycle.read_or_heal_inbound_secret(id).await.map(|inbound| inbound.secret))
    }
}

/// 3.R27: a beat that carries nothing but the task, from an agent that has declared itself.
fn is_task_push(row: &RegistryRow, beat: &Heartbeat) -> bool {
    row.declaration.is_some()
        && beat.runtime_metadata.is_none()
        && beat.runtime_state.is_empty()
        && beat.sample_error.is_empty()
        && beat.error_rate == 0.0
        && beat.uptime_seconds == 0
}

/// 3.R37: a block replaces the declaration, none clears it, a malformed one leaves it.
fn declared(beat: &Heartbeat) -> Declared {
    match &beat.runtime_metadata {
        None => Declared::Replace(None),
        Some(Value::Object(block)) if block.is_empty() => Declared::Replace(None),
        Some(block) => match RuntimeDeclaration::from_wire(block) {
            Some(declaration) => Declared::Replace(Some(declaration)),
            None => Declared::Keep,
        },
    }
}
