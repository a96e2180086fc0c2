//! Removal against everything that happens at the same time (contract 1 §7).

use futures_util::future::join_all;
use mws_db::tokens::IssuedBy;
use mws_db::workspaces::NewWorkspace;
use mws_models::WorkspaceId;
use mws_wsauth::NewToken;

use crate::support::Fixture;

async fn child_of(fixture: &Fixture, parent: WorkspaceId) -> WorkspaceId {
    fixture.row(&[("parent_id", &format!("'{parent}'")), ("runtime", "'sample'")]).await
}

#[tokio::test]
async fn overlapping_removals_remove_each_row_once() {
    // 1.R109, 1.R110, 1.R113, 1.R26: the locks are taken in one order, so none of these waits for another for ever.
    let fixture = Fixture::new().await;
    for _ in 0..6 {
        let root = fixture.row(&[("runtime", "'sample'")]).await;
        let mut tree = vec![root];
        for level in 0..3 {
            let parent = tree[level * 2];
            tree.extend([child_of(&fixture, parent).await, child_of(&fixture, parent).await]);
        }
        let removals = tree.iter().map(|id| {
            let (db, id) = (fixture.db.clone(), *id);
            tokio::spawn(async move {
                let mut tx = db.begin().await.unwrap();
                tx.patient().await.unwrap();
                let removed = tx.remove(id, true).await.unwrap();
                tx.commit().await.unwrap();
                removed.len()
            })
        });
        let removed: usize = join_all(removals).await.into_iter().map(Result::unwrap).sum();
        assert_eq!(removed, tree.len());
        for id in tree {
            let events = format!("workspace_id = '{id}' AND event_type = 'WORKSPACE_REMOVED'");
            assert_eq!(fixture.count("structure_events", &events).await, 1);
        }
    }
}

#[tokio::test]
async fn a_removed_middle_does_not_hide_what_is_below() {
    // 1.R109
    let fixture = Fixture::new().await;
    let root = fixture.row(&[]).await;
    let middle = child_of(&fixture, root).await;
    let leaf = child_of(&fixture, middle).await;
    fixture
        .database
        .execute(&format!("UPDATE workspaces SET status = 'removed' WHERE id = '{middle}'"))
        .await;
    let mut tx = fixture.db.begin().await.unwrap();
    let mut removed: Vec<_> = tx.remove(root, true).await.unwrap().into_iter().map(|row| row.id).collect();
    tx.commit().await.unwrap();
    removed.sort();
    let mut expected = vec![root, leaf];
    expected.sort();
    assert_eq!(removed, expected);
}

#[tokio::test]
async fn a_create_waits_for_the_removal_of_its_parent() {
    // 1.R46, 1.R53
    let fixture = Fixture::new().await;
    let parent = fixture.row(&[]).await;
    let mut removal = fixture.db.begin().await.unwrap();
    removal.remove(parent, true).await.unwrap();
    let db = fixture.db.clone();
    let create = tokio::spawn(async move {
        let mut tx = db.begin().await.unwrap();
        tx.patient().await.unwrap();
        tx.lock_parent(parent).await.unwrap()
    });
    fixture.waiting(1).await;
    removal.commit().await.unwrap();
    assert!(!create.await.unwrap(), "a removed parent has no children");
}

#[tokio::test]
async fn a_removal_waits_for_a_create_below_it_and_takes_it_along() {
    // 1.R109, 1 §7 "Do better"
    let fixture = Fixture::new().await;
    let parent = fixture.row(&[]).await;
    let child = WorkspaceId::random();
    let mut create = fixture.db.begin().await.unwrap();
    assert!(create.lock_parent(parent).await.unwrap());
    let new = NewWorkspace {
        id: child,
        name: "Child",
        role: None,
        tier: 2,
        runtime: "sample",
        workspace_dir: None,
        workspace_access: "none",
        delivery_mode: Some("push"),
        parent_id: Some(parent),
        budget_limit: None,
        max_concurrent_tasks: 1,
        position: (0.0, 0.0),
    };
    assert!(create.insert_workspace(&new).await.unwrap());
    let db = fixture.db.clone();
    let removal = tokio::spawn(async move {
        let mut tx = db.begin().await.unwrap();
        tx.patient().await.unwrap();
        let removed = tx.remove(parent, true).await.unwrap();
        tx.commit().await.unwrap();
        removed.len()
    });
    fixture.waiting(1).await;
    create.commit().await.unwrap();
    assert_eq!(removal.await.unwrap(), 2);
    assert_eq!(fixture.field(child, "status").await.as_deref(), Some("removed"));
    assert_eq!(fixture.count("canvas_layouts", "true").await, 0);
}

#[tokio::test]
async fn no_token_is_issued_past_a_removal() {
    // 1.R110, 1.R116, 5.R7: a start that issues its token in the same instant waits, and then issues none.
    let fixture = Fixture::new().await;
    let id = fixture.row(&[]).await;
    let mut removal = fixture.db.begin().await.unwrap();
    removal.remove(id, true).await.unwrap();
    let db = fixture.db.clone();
    let start = tokio::spawn(async move {
        let mut tx = db.begin().await.unwrap();
        let issued = tx.issue_token(id, &NewToken::mint().unwrap(), IssuedBy::Provision).await.unwrap();
        tx.commit().await.unwrap();
        issued
    });
    fixture.waiting(1).await;
    removal.commit().await.unwrap();
    assert!(!start.await.unwrap());
    assert_eq!(fixture.count("workspace_auth_tokens", "revoked_at IS NULL").await, 0);
}
