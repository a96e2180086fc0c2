//! A database per test, guarded.

use std::collections::BTreeSet;

use mws_models::{EDGES, WorkspaceStatus};
use mws_testkit::TestDatabase;

#[tokio::test]
async fn databases_are_apart_and_dropped_with_their_test() {
    let (one, two) = tokio::join!(TestDatabase::create(), TestDatabase::create());
    assert_ne!(one.url(), two.url());
    one.execute("INSERT INTO workspaces (name) VALUES ('only here')").await;
    assert_eq!(one.value("SELECT count(*) FROM workspaces").await.as_deref(), Some("1"));
    assert_eq!(two.value("SELECT count(*) FROM workspaces").await.as_deref(), Some("0"));

    let name = one.value("SELECT current_database()").await.unwrap();
    let there = format!("SELECT datname FROM pg_database WHERE datname = '{name}'");
    assert_eq!(two.column(&there).await.len(), 1);
    drop(one);
    assert_eq!(two.column(&there).await.len(), 0);
}

#[tokio::test]
async fn a_database_is_dropped_under_an_open_connection() {
    let (kept, dropped) = tokio::join!(TestDatabase::create(), TestDatabase::create());
    let name = dropped.value("SELECT current_database()").await.unwrap();
    let (connected, url) = (std::sync::Arc::new(tokio::sync::Notify::new()), dropped.url().to_owned());
    let signal = connected.clone();
    let mut sessions = tokio::task::JoinSet::new();
    sessions.spawn(async move {
        let mut session = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
        signal.notify_one();
        sqlx::raw_sql("SELECT pg_sleep(20)").execute(&mut session).await
    });
    connected.notified().await;
    drop(dropped);
    sessions.join_next().await.unwrap().unwrap().unwrap_err();
    let there = format!("SELECT datname FROM pg_database WHERE datname = '{name}'");
    assert_eq!(kept.column(&there).await.len(), 0);
}

#[tokio::test]
async fn only_edges_of_the_machine_pass() {
    // 1.R119: every pair of statuses, tried on a row that was inserted in the first.
    let database = TestDatabase::create().await;
    let edges: BTreeSet<_> = EDGES.iter().map(|edge| (edge.from, edge.to)).collect();
    for from in WorkspaceStatus::ALL {
        for to in WorkspaceStatus::ALL {
            let outcome = database
                .try_execute(&format!(
                    "BEGIN; INSERT INTO workspaces (name, status) VALUES ('w', '{from}');
                     UPDATE workspaces SET status = '{to}'; ROLLBACK"
                ))
                .await;
            if from == to || edges.contains(&(from, to)) {
                assert!(outcome.is_ok(), "{from} -> {to}: {outcome:?}");
            } else {
                let message = outcome.unwrap_err();
                assert!(message.contains("no edge of the machine"), "{from} -> {to}: {message}");
            }
        }
    }
    database.execute("INSERT INTO workspaces (name, status) VALUES ('w', 'removed')").await;
    assert_eq!(database.execute("DELETE FROM workspaces").await, 1);
}
