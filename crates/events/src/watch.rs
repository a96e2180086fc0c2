//! Signs of life of one workspace, for the message proxy's idle timer (4.R49, 4.R50).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mws_models::WorkspaceId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lock;

#[derive(Clone, Copy)]
struct Activity {
    at: Instant,
    events: u64,
}

struct Entry {
    sender: watch::Sender<Activity>,
    watchers: usize,
}

#[derive(Default)]
pub(crate) struct Watches {
    entries: Mutex<HashMap<WorkspaceId, Entry>>,
}

impl Watches {
    pub(crate) fn touch(&self, workspace: WorkspaceId) {
        if let Some(entry) = lock(&self.entries).get(&workspace) {
            entry.sender.send_modify(|activity| {
                activity.at = Instant::now();
                activity.events += 1;
            });
        }
    }
}

/// Sees every event of one workspace from its making until it is dropped. Costs nothing to workspaces that
/// nobody watches.
pub struct ActivityWatch {
    watches: Arc<Watches>,
    workspace: WorkspaceId,
    receiver: watch::Receiver<Activity>,
    begun: Activity,
}

impl ActivityWatch {
    pub(crate) fn new(watches: &Arc<Watches>, workspace: WorkspaceId) -> Self {
        let mut entries = lock(&watches.entries);
        let entry = entries.entry(workspace).or_insert_with(|| Entry {
            sender: watch::Sender::new(Activity { at: Instant::now(), events: 0 }),
            watchers: 0,
        });
        entry.watchers += 1;
        let receiver = entry.sender.subscribe();
        let begun = Activity { at: Instant::now(), events: receiver.borrow().events };
        Self { watches: Arc::clone(watches), workspace, receiver, begun }
    }

    /// When the workspace last showed a sign of life: the time of its latest event, at least that of the
    /// watch's own beginning.
    #[must_use]
    pub fn last_seen(&self) -> Instant {
        self.receiver.borrow().at.max(self.begun.at)
    }

    /// Whether any event was seen since the watch began (4.R50).
    #[must_use]
    pub fn seen_any(&self) -> bool {
        self.receiver.borrow().events > self.begun.events
    }

    /// Waits for an event that this method has not reported yet; several in a row count as one. May be
    /// cancelled: nothing is missed by it.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // Its sender lives in the registry for as long as this watch does.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for ActivityWatch {
    fn drop(&mut self) {
        let mut entries = lock(&self.watches.entries);
        if let Some(entry) = entries.get_mut(&self.workspace) {
            entry.watchers -= 1;
            if entry.watchers == 0 {
                entries.remove(&self.workspace);
            }
        }
    }
}

impl std::fmt::Debug for ActivityWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActivityWatch").field("workspace", &self.workspace).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hub;
    use crate::message::tests::message;
    use mws_models::EventKind;
    use serde_json::json;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn every_event_of_the_workspace_counts_and_no_other() {
        // 4.R49, 4.R50
        let hub = Hub::new(1);
        let (mine, other) = (WorkspaceId::random(), WorkspaceId::random());
        let mut watch = hub.watch(mine);
        let begun = Instant::now();
        tokio::time::advance(SECOND).await;
        hub.publish(&message(EventKind::WorkspaceHeartbeat, other, json!({})));
        assert_eq!((watch.last_seen(), watch.seen_any()), (begun, false));
        for kind in EventKind::ALL {
            tokio::time::advance(SECOND).await;
            hub.publish(&message(*kind, mine, json!({})));
            watch.changed().await;
            assert_eq!((watch.last_seen(), watch.seen_any()), (Instant::now(), true), "{kind:?}");
        }
        let silent = tokio::time::timeout(SECOND, watch.changed()).await;
        assert!(silent.is_err(), "reported twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wedged_heartbeat_is_no_sign_of_life() {
        // 4.R49
        let hub = Hub::new(1);
        let id = WorkspaceId::random();
        let mut watch = hub.watch(id);
        let begun = Instant::now();
        tokio::time::advance(SECOND).await;
        hub.publish(&message(EventKind::WorkspaceHeartbeat, id, json!({})).from_wedged());
        assert_eq!((watch.last_seen(), watch.seen_any()), (begun, false));
        assert!(tokio::time::timeout(SECOND, watch.changed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_watcher_does_not_inherit_what_was_before() {
        // 4.R50
        let hub = Hub::new(1);
        let id = WorkspaceId::random();
        let early = hub.watch(id);
        hub.publish(&message(EventKind::WorkspaceHeartbeat, id, json!({})));
        tokio::time::advance(SECOND).await;
        let mut late = hub.watch(id);
        assert!(early.seen_any());
        assert_eq!((late.last_seen(), late.seen_any()), (Instant::now(), false));
        assert!(tokio::time::timeout(SECOND, late.changed()).await.is_err());
    }

    #[tokio::test]
    async fn it_is_registered_only_while_held() {
        let hub = Hub::new(1);
        let id = WorkspaceId::random();
        let one = hub.watch(id);
        let watches = Arc::clone(&one.watches);
        let mut two = hub.watch(id);
        drop(one);
        hub.publish(&message(EventKind::TaskUpdated, id, json!({})));
        two.changed().await;
        assert_eq!(lock(&watches.entries).len(), 1);
        drop(two);
        assert!(lock(&watches.entries).is_empty());
    }
}
