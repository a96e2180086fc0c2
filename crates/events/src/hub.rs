//! The hub: everything that happens in this process passes through it once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mws_models::{Event, EventId, EventKind, WorkspaceId};
use mws_runtime::clock::Clock;

use crate::queue::Queue;
use crate::watch::Watches;
use crate::{ActivityWatch, Closed, Message, Published, lock};

/// Why a client was not subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// As many clients as allowed are connected.
    #[error("too many clients")]
    Full,
    /// The process stops.
    #[error("the process stops")]
    Shutdown,
}

#[derive(Default)]
struct Subscribers {
    queues: HashMap<u64, Arc<Queue>>,
    last: u64,
    clients: usize,
    shut_down: bool,
}

struct Inner {
    subscribers: Mutex<Subscribers>,
    watches: Arc<Watches>,
    structure: AtomicU64,
    max_clients: usize,
    clock: Clock,
}

/// Takes every event of this process and hands it to everybody who listens. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

/// The events after which the tree of workspaces may look different (3.R120).
const fn changes_structure(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::WorkspaceProvisioning
            | EventKind::WorkspaceRemoved
            | EventKind::WorkspaceExpanded
            | EventKind::WorkspaceCollapsed
            | EventKind::WorkspaceMoved
    )
}

impl Hub {
    /// A hub that serves at most `max_clients` clients at once (`WS_MAX_CLIENTS`, 3.R121).
    #[must_use]
    pub fn new(max_clients: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                subscribers: Mutex::default(),
                watches: Arc::default(),
                structure: AtomicU64::new(0),
                max_clients,
                clock: Clock::system(),
            }),
        }
    }

    /// Hands a message to every subscriber, in the order of the calls (3.R109), and returns at once. Call it
    /// only after the change that it reports is committed.
    pub fn publish(&self, message: &Message) {
        // First, so that whoever receives the event already sees that the tree has changed.
        if changes_structure(message.event.kind) {
            self.inner.structure.fetch_add(1, Ordering::AcqRel);
        }
        if message.rearms_idle() {
            self.inner.watches.touch(message.event.workspace_id);
        }
        if lock(&self.inner.subscribers).queues.is_empty() {
            return;
        }
        let published = match message.serialise() {
            Ok(published) => Arc::new(published),
            Err(error) => {
                let event = message.event.kind.name();
                tracing::error!(event, id = %message.id, %error, "event not serialised, so not delivered");
                return;
            }
        };
        // Queues only grow in memory here, so the lock is short; it makes the order the same for everybody.
        for queue in lock(&self.inner.subscribers).queues.values() {
            queue.push(&published);
        }
    }

    /// Whether anybody would receive an event now.
    #[must_use]
    pub fn has_listeners(&self) -> bool {
        !lock(&self.inner.subscribers).queues.is_empty()
    }

    /// Notes a sign of life of a workspace without telling anybody.
    pub fn touch(&self, workspace: WorkspaceId) {
        self.inner.watches.touch(workspace);
    }

    /// Publishes an event that is not recorded, as of now.
    pub fn broadcast(&self, event: Event) {
        self.publish(&self.unrecorded(event));
    }

    /// The same for what a wedged agent's heartbeat says: news, but no sign of life (4.R49).
    pub fn broadcast_wedged(&self, event: Event) {
        self.publish(&self.unrecorded(event).from_wedged());
    }

    fn unrecorded(&self, event: Event) -> Message {
        debug_assert!(!event.kind.is_recorded(), "{} is recorded", event.kind.name());
        Message::new(EventId::random(), self.inner.clock.now().into(), event)
    }

    /// Subscribes a client from outside, which counts towards the limit and in [`Hub::active`]. Subscribe before
    /// the upgrade is answered, and read the state afterwards, so that no event falls in between.
    ///
    /// # Errors
    /// [`Refused`] when the limit is reached or the process stops.
    pub fn try_subscribe(&self) -> Result<Subscription, Refused> {
        let mut subscribers = lock(&self.inner.subscribers);
        if subscribers.shut_down {
            return Err(Refused::Shutdown);
        }
        if subscribers.clients >= self.inner.max_clients {
            return Err(Refused::Full);
        }
        subscribers.clients += 1;
        Ok(self.add(&mut subscribers, true))
    }

    /// Subscribes a part of the process itself, outside the limit. After [`Hub::shutdown`] it ends at once.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.add(&mut lock(&self.inner.subscribers), false)
    }

    fn add(&self, subscribers: &mut Subscribers, client: bool) -> Subscription {
        let queue = Arc::new(Queue::default());
        if subscribers.shut_down {
            queue.shut_down();
        }
        subscribers.last += 1;
        let id = subscribers.last;
        subscribers.queues.insert(id, Arc::clone(&queue));
        Subscription { hub: self.clone(), id, client, queue }
    }

    /// Clients from outside that are subscribed now.
    #[must_use]
    pub fn active(&self) -> usize {
        lock(&self.inner.subscribers).clients
    }

    /// Starts to watch for signs of life of a workspace.
    #[must_use]
    pub fn watch(&self, workspace: WorkspaceId) -> ActivityWatch {
        ActivityWatch::new(&self.inner.watches, workspace)
    }

    /// Ends every subscription, after what is queued in it (3.R104). Idempotent; takes effect for later
    /// subscribers, too.
    pub fn shutdown(&self) {
        let mut subscribers = lock(&self.inner.subscribers);
        subscribers.shut_down = true;
        for queue in subscribers.queues.values() {
            queue.shut_down();
        }
    }

    /// Grows with every event that may have changed the tree of workspaces.
    pub(crate) fn structure(&self) -> u64 {
        self.inner.structure.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("active", &self.active()).finish_non_exhaustive()
    }
}

/// One listener's place at the hub; dropping it frees the place at once.
pub struct Subscription {
    hub: Hub,
    id: u64,
    client: bool,
    queue: Arc<Queue>,
}

impl Subscription {
    /// The next event. May be cancelled: no event is lost by it.
    ///
    /// # Errors
    /// [`Closed`] once the subscription has ended; then always.
    pub async fn next(&mut self) -> Result<Arc<Published>, Closed> {
        self.queue.pop().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = lock(&self.hub.inner.subscribers);
        subscribers.queues.remove(&self.id);
        if self.client {
            subscribers.clients -= 1;
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::message;
    use crate::{QUEUE_BYTES, QUEUE_MESSAGES};
    use serde_json::{Value, json};
    use std::time::Duration;

    fn numbered(workspace: WorkspaceId, n: usize) -> Message {
        message(EventKind::ActivityLogged, workspace, json!({"n": n}))
    }

    fn number(published: &Published) -> usize {
        let frame: Value = serde_json::from_slice(published.text()).unwrap();
        usize::try_from(frame["payload"]["n"].as_u64().unwrap()).unwrap()
    }

    async fn drain(subscription: &mut Subscription) -> (usize, Closed) {
        let mut got = 0;
        loop {
            match tokio::time::timeout(Duration::from_secs(5), subscription.next()).await.unwrap() {
                Ok(_) => got += 1,
                Err(closed) => return (got, closed),
            }
        }
    }

    #[tokio::test]
    async fn a_full_queue_ends_the_slow_subscription_and_no_other() {
        // 3.R118, 3.R112
        let hub = Hub::new(10);
        let (mut slow, mut fast) = (hub.try_subscribe().unwrap(), hub.try_subscribe().unwrap());
        let workspace = WorkspaceId::random();
        for n in 0..QUEUE_MESSAGES {
            hub.publish(&numbered(workspace, n));
            assert_eq!(number(&fast.next().await.unwrap()), n);
        }
        // 256 wait: still open, and one that is taken makes room for one
        assert_eq!(number(&slow.next().await.unwrap()), 0);
        hub.publish(&numbered(workspace, QUEUE_MESSAGES));
        assert_eq!(number(&slow.next().await.unwrap()), 1);
        hub.publish(&numbered(workspace, QUEUE_MESSAGES + 1));
        hub.publish(&numbered(workspace, QUEUE_MESSAGES + 2));
        assert_eq!(drain(&mut slow).await, (0, Closed::Overflow));
        assert_eq!(slow.next().await, Err(Closed::Overflow));
        for n in 0..3 {
            assert_eq!(number(&fast.next().await.unwrap()), QUEUE_MESSAGES + n);
        }
        hub.publish(&numbered(workspace, 7));
        assert_eq!(number(&fast.next().await.unwrap()), 7);
    }

    #[tokio::test]
    async fn bytes_are_bounded_but_one_message_always_fits() {
        // 3.R118
        let hub = Hub::new(10);
        let workspace = WorkspaceId::random();
        let sized = |bytes: usize| {
            let empty = message(EventKind::AgentMessage, workspace, json!({"t": ""}));
            let frame = empty.serialise().unwrap().text().len();
            message(EventKind::AgentMessage, workspace, json!({"t": "x".repeat(bytes - frame)}))
        };
        let mut one = hub.subscribe();
        hub.publish(&sized(QUEUE_BYTES + 1));
        assert_eq!(one.next().await.unwrap().text().len(), QUEUE_BYTES + 1);

        hub.publish(&sized(QUEUE_BYTES / 2));
        hub.publish(&sized(QUEUE_BYTES / 2));
        one.next().await.unwrap();
        hub.publish(&sized(QUEUE_BYTES / 2));
        hub.publish(&sized(1024));
        assert_eq!(drain(&mut one).await, (0, Closed::Overflow));
    }

    #[tokio::test]
    async fn a_message_is_serialised_once() {
        // 3.R112
        let hub = Hub::new(10);
        let mut subscriptions = [hub.subscribe(), hub.subscribe(), hub.try_subscribe().unwrap()];
        hub.publish(&numbered(WorkspaceId::random(), 1));
        let mut seen = Vec::new();
        for subscription in &mut subscriptions {
            seen.push(subscription.next().await.unwrap());
        }
        assert!(seen.iter().all(|one| Arc::ptr_eq(one, &seen[0])));
        assert_eq!(seen[0].text().as_ptr(), seen[2].text().clone().as_ptr());
    }

    #[test]
    fn order_is_kept_and_is_the_same_for_everybody() {
        // 3.R109
        let hub = Hub::new(10);
        let mut subscriptions = [hub.subscribe(), hub.subscribe()];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let workspace = WorkspaceId::random();
                    for n in 0..60 {
                        hub.publish(&numbered(workspace, n));
                    }
                });
            }
        });
        hub.shutdown();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let [first, second] = subscriptions.each_mut().map(|subscription| {
            runtime.block_on(async {
                let mut seen = Vec::new();
                while let Ok(published) = subscription.next().await {
                    seen.push((published.workspace_id(), number(&published)));
                }
                seen
            })
        });
        assert_eq!(first.len(), 240);
        assert_eq!(first, second);
        let mut next = HashMap::new();
        for (workspace, n) in first {
            let expected = next.entry(workspace).or_insert(0);
            assert_eq!(n, *expected);
            *expected += 1;
        }
    }

    #[tokio::test]
    async fn a_waiting_subscriber_wakes() {
        let hub = Hub::new(1);
        let mut subscription = hub.subscribe();
        let (got, ()) = tokio::join!(subscription.next(), async {
            tokio::task::yield_now().await;
            hub.publish(&numbered(WorkspaceId::random(), 3));
        });
        assert_eq!(number(&got.unwrap()), 3);
    }

    #[tokio::test]
    async fn clients_are_counted_once_and_limited() {
        // 3.R121
        let hub = Hub::new(2);
        let (one, two) = (hub.try_subscribe().unwrap(), hub.try_subscribe().unwrap());
        assert_eq!(hub.try_subscribe().unwrap_err(), Refused::Full);
        let internal = hub.subscribe();
        assert_eq!(hub.active(), 2);
        drop(one);
        assert_eq!(hub.active(), 1);
        let again = hub.try_subscribe().unwrap();
        for subscription in [two, again, internal] {
            drop(subscription);
        }
        assert_eq!(hub.active(), 0);
        assert!(lock(&hub.inner.subscribers).queues.is_empty());
    }

    #[tokio::test]
    async fn shutdown_ends_every_subscription_after_what_is_queued() {
        // 3.R104
        let hub = Hub::new(10);
        let mut before = hub.try_subscribe().unwrap();
        hub.publish(&numbered(WorkspaceId::random(), 0));
        hub.shutdown();
        hub.shutdown();
        hub.publish(&numbered(WorkspaceId::random(), 1));
        assert_eq!(drain(&mut before).await, (1, Closed::Shutdown));
        assert_eq!(drain(&mut hub.subscribe()).await, (0, Closed::Shutdown));
        assert_eq!(hub.try_subscribe().unwrap_err(), Refused::Shutdown);
    }

    #[test]
    fn the_tree_changes_with_these_events_alone() {
        // 3.R120
        let hub = Hub::new(1);
        for kind in EventKind::ALL {
            let before = hub.structure();
            hub.publish(&message(*kind, WorkspaceId::random(), json!({})));
            let named = [
                "WORKSPACE_PROVISIONING",
                "WORKSPACE_REMOVED",
                "WORKSPACE_EXPANDED",
                "WORKSPACE_COLLAPSED",
                "WORKSPACE_MOVED",
            ];
            assert_eq!(hub.structure() > before, named.contains(&kind.name()), "{}", kind.name());
        }
    }
}
