//! What the parts of the agent share.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::boot::{AgentConfig, Settings};
use crate::log;

/// What the server shows as the current task, at most, in bytes.
const MAX_TASK_BYTES: usize = 200;

/// What the agent is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) active: u32,
    /// The one that began last; empty when idle.
    pub(crate) current: String,
}

pub(crate) struct Agent {
    pub(crate) settings: Settings,
    pub(crate) config: AgentConfig,
    begun: Instant,
    tasks: watch::Sender<Tasks>,
}

impl Agent {
    pub(crate) fn new(settings: Settings, config: AgentConfig) -> Self {
        Self { settings, config, begun: Instant::now(), tasks: watch::Sender::default() }
    }

    /// At least 1: a beat with 0 could be taken for a task push.
    pub(crate) fn uptime_seconds(&self) -> u64 {
        self.begun.elapsed().as_secs().max(1)
    }

    pub(crate) fn tasks(&self) -> Tasks {
        self.tasks.borrow().clone()
    }

    pub(crate) fn watch_tasks(&self) -> watch::Receiver<Tasks> {
        self.tasks.subscribe()
    }

    /// Counts a task until the guard is dropped.
    pub(crate) fn begin_task(self: &Arc<Self>, text: &str) -> TaskGuard {
        let end = text.floor_char_boundary(MAX_TASK_BYTES);
        let current = text[..end].to_owned();
        self.tasks.send_modify(|tasks| {
            tasks.active += 1;
            tasks.current = current;
        });
        TaskGuard(Arc::clone(self))
    }

    /// What is registered. Without a `url`: the one of the registration counts, and the name in it resolves
    /// beside the agent only.
    pub(crate) fn card(&self) -> Value {
        json!({
            "name": self.config.name,
            "description": self.config.description,
            "version": env!("CARGO_PKG_VERSION"),
            "capabilities": {"streaming": false, "pushNotifications": false},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [],
        })
    }

    /// What is served.
    pub(crate) fn served_card(&self) -> Value {
        let mut card = self.card();
        card["url"] = json!(self.settings.own_url);
        card
    }

    /// Written on SIGTERM, so that a test can tell a graceful stop from a kill.
    pub(crate) async fn save_snapshot(&self) {
        let snapshot = json!({"uptime_seconds": self.uptime_seconds(), "active_tasks": self.tasks().active});
        let path = self.settings.configs.join(".agent_snapshot.json");
        if let Err(error) = tokio::fs::write(path, snapshot.to_string()).await {
            log::line(&format!("no snapshot: {error}"));
        }
    }
}

pub(crate) struct TaskGuard(Arc<Agent>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.tasks.send_modify(|tasks| {
            tasks.active = tasks.active.saturating_sub(1);
            if tasks.active == 0 {
                tasks.current.clear();
            }
        });
    }
}
