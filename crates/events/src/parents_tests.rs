use super::*;
use crate::message::tests::message;
use mws_models::EventKind;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Rows in memory, which count how often they are read.
#[derive(Default)]
struct Rows {
    rows: std::sync::Mutex<HashMap<WorkspaceId, Option<WorkspaceId>>>,
    cut_to: std::sync::Mutex<Option<usize>>,
    full_reads: AtomicUsize,
    lookups: AtomicUsize,
    broken: AtomicBool,
    hangs: AtomicBool,
}

impl Rows {
    fn put(&self, parent: Option<WorkspaceId>) -> WorkspaceId {
        let id = WorkspaceId::random();
        self.set(id, parent);
        id
    }

    fn set(&self, id: WorkspaceId, parent: Option<WorkspaceId>) {
        self.rows.lock().unwrap().insert(id, parent);
    }

    fn reads(&self) -> (usize, usize) {
        (self.full_reads.load(Ordering::SeqCst), self.lookups.load(Ordering::SeqCst))
    }

    async fn gate(&self) -> Result<(), SourceFailure> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        if self.broken.load(Ordering::SeqCst) { Err(SourceFailure::new("10.0.0.5 refused")) } else { Ok(()) }
    }
}

#[async_trait]
impl ParentSource for Rows {
    async fn all(&self, limit: usize) -> Result<Vec<ParentRow>, SourceFailure> {
        self.full_reads.fetch_add(1, Ordering::SeqCst);
        self.gate().await?;
        let limit = self.cut_to.lock().unwrap().unwrap_or(limit);
        Ok(self.rows.lock().unwrap().iter().map(|(id, parent)| (*id, *parent)).take(limit).collect())
    }

    async fn chains(&self, ids: &[WorkspaceId]) -> Result<Vec<ParentRow>, SourceFailure> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        self.gate().await?;
        let rows = self.rows.lock().unwrap();
        let mut found = Vec::new();
        for id in ids {
            let mut next = Some(*id);
            while let Some(id) = next.filter(|_| found.len() < 100) {
                let Some(parent) = rows.get(&id) else { break };
                found.push((id, *parent));
                next = *parent;
            }
        }
        Ok(found)
    }
}

fn set_up() -> (Hub, Arc<Rows>, ParentMap) {
    let (hub, rows) = (Hub::new(10), Arc::new(Rows::default()));
    let map = ParentMap::new(&hub, Arc::clone(&rows) as Arc<dyn ParentSource>);
    (hub, rows, map)
}

#[tokio::test(start_paused = true)]
async fn one_read_serves_many_decisions() {
    // 3.R43, 3.R114
    let (_hub, rows, map) = set_up();
    let lead = rows.put(None);
    let (a, b) = (rows.put(Some(lead)), rows.put(Some(lead)));
    let (other_root, below) = (rows.put(None), rows.put(Some(a)));
    assert_eq!(map.can_communicate(a, a).await, Some(true));
    assert_eq!(rows.reads(), (0, 0));
    for _ in 0..100 {
        assert_eq!(map.can_communicate(a, b).await, Some(true));
        assert_eq!(map.can_communicate(lead, below).await, Some(true));
        assert_eq!(map.can_communicate(b, below).await, Some(false));
        assert_eq!(map.can_communicate(other_root, a).await, Some(false));
    }
    assert_eq!(rows.reads(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn clients_that_decide_at_once_share_one_read() {
    let (_hub, rows, map) = set_up();
    let (a, b) = (rows.put(None), rows.put(None));
    let ask = || map.can_communicate(a, b);
    let answers = tokio::join!(ask(), ask(), ask());
    assert_eq!(answers, (Some(true), Some(true), Some(true)));
    assert_eq!(rows.reads(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_move_is_seen_with_its_own_event() {
    // 3.R120: whoever has received the event decides by the new tree
    let (hub, rows, map) = set_up();
    let (one, two) = (rows.put(None), rows.put(None));
    let (a, b) = (rows.put(Some(one)), rows.put(Some(one)));
    assert_eq!(map.can_communicate(a, b).await, Some(true));
    rows.set(b, Some(two));
    assert_eq!(map.can_communicate(a, b).await, Some(true));
    hub.publish(&message(EventKind::TaskUpdated, b, json!({})));
    assert_eq!(map.can_communicate(a, b).await, Some(true));
    hub.publish(&message(EventKind::WorkspaceMoved, b, json!({})));
    assert_eq!(map.can_communicate(a, b).await, Some(false));
    assert_eq!(rows.reads(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn no_decision_is_made_on_rows_older_than_five_seconds() {
    // 3.R120
    let (_hub, rows, map) = set_up();
    let (one, two) = (rows.put(None), rows.put(None));
    let a = rows.put(Some(one));
    assert_eq!(map.can_communicate(one, a).await, Some(true));
    rows.set(a, Some(two));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(map.can_communicate(one, a).await, Some(false));
    assert_eq!(rows.reads(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn unknown_ids_are_looked_up_once() {
    // 3.R120, 3.R41 2
    let (_hub, rows, map) = set_up();
    let lead = rows.put(None);
    assert_eq!(map.can_communicate(lead, rows.put(None)).await, Some(true));
    let late = rows.put(Some(lead));
    assert_eq!(map.can_communicate(lead, late).await, Some(true));
    assert_eq!(rows.reads(), (1, 1));
    let nobody = WorkspaceId::random();
    for _ in 0..10 {
        assert_eq!(map.can_communicate(lead, nobody).await, Some(false));
        assert_eq!(map.can_communicate(late, lead).await, Some(true));
    }
    assert_eq!(rows.reads(), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_did_not_fit_is_completed_on_demand() {
    let (_hub, rows, map) = set_up();
    let mut ids = vec![rows.put(None)];
    for n in 0..20 {
        ids.push(rows.put(Some(ids[n])));
    }
    *rows.cut_to.lock().unwrap() = Some(3);
    assert_eq!(map.can_communicate(ids[0], ids[20]).await, Some(true));
    assert_eq!(map.can_communicate(ids[20], ids[0]).await, Some(true));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decided_is_not_allowed() {
    // 3.R114
    let (hub, rows, map) = set_up();
    let (a, b) = (rows.put(None), rows.put(None));
    rows.broken.store(true, Ordering::SeqCst);
    assert_eq!(map.can_communicate(a, b).await, None);
    assert_eq!(map.can_communicate(a, a).await, Some(true));
    // asked again only after a second
    assert_eq!(map.can_communicate(a, b).await, None);
    assert_eq!(rows.reads(), (1, 0));
    tokio::time::advance(Duration::from_secs(1)).await;
    rows.broken.store(false, Ordering::SeqCst);
    assert_eq!(map.can_communicate(a, b).await, Some(true));

    // an unchanged tree outlives a short outage, a changed one does not
    rows.broken.store(true, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(map.can_communicate(a, b).await, Some(true));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(map.can_communicate(a, b).await, None);
    tokio::time::advance(Duration::from_secs(1)).await;
    rows.broken.store(false, Ordering::SeqCst);
    assert_eq!(map.can_communicate(a, b).await, Some(true));
    rows.broken.store(true, Ordering::SeqCst);
    hub.publish(&message(EventKind::WorkspaceMoved, b, json!({})));
    assert_eq!(map.can_communicate(a, b).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_ends_at_its_deadline() {
    let (_hub, rows, map) = set_up();
    let (a, b) = (rows.put(None), rows.put(None));
    rows.hangs.store(true, Ordering::SeqCst);
    let start = Instant::now();
    assert_eq!(map.can_communicate(a, b).await, None);
    assert_eq!(start.elapsed().as_secs(), READ_DEADLINE.as_secs());
}
