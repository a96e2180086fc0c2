//! A database with rows.

use std::sync::Arc;

use mws_db::{Db, DbOptions};
use mws_models::WorkspaceId;
use mws_testkit::TestDatabase;

/// A test's database and the product's pool on it.
pub(crate) struct Fixture {
    pub(crate) database: TestDatabase,
    pub(crate) db: Db,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await;
        let db = Db::connect(&DbOptions::new(database.url()), Arc::new(())).await.unwrap();
        Self { database, db }
    }

    /// Inserts a workspace; `assignments` are column and expression.
    pub(crate) async fn row(&self, assignments: &[(&str, &str)]) -> WorkspaceId {
        let id = WorkspaceId::random();
        let (mut columns, mut values) = ("id, name".to_owned(), format!("'{id}', 'ws {id}'"));
        for (column, value) in assignments {
            columns.push_str(&format!(", {column}"));
            values.push_str(&format!(", {value}"));
        }
        self.database.execute(&format!("INSERT INTO workspaces ({columns}) VALUES ({values})")).await;
        id
    }

    /// An expression over a workspace's row, as Postgres prints it.
    pub(crate) async fn field(&self, id: WorkspaceId, expression: &str) -> Option<String> {
        self.database.value(&format!("SELECT ({expression})::text FROM workspaces WHERE id = '{id}'")).await
    }

    /// How many rows of a table meet a condition.
    pub(crate) async fn count(&self, table: &str, condition: &str) -> u64 {
        let sql = format!("SELECT count(*)::text FROM {table} WHERE {condition}");
        self.database.value(&sql).await.unwrap().parse().unwrap()
    }

    /// Waits until that many statements of this database wait for a lock.
    pub(crate) async fn waiting(&self, statements: u64) {
        let condition = "datname = current_database() AND wait_event_type = 'Lock'";
        mws_testkit::wait_until("a statement that waits for a lock", async || {
            self.count("pg_stat_activity", condition).await >= statements
        })
        .await;
    }
}
