//! A database for one test.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::Connection as _;
use tokio::time::timeout;
use uuid::Uuid;

use crate::server::Server;
use crate::{sql, template};

/// What making a database may take: the first one starts the server and makes the template.
const CREATE_DEADLINE: Duration = Duration::from_secs(240);

/// What dropping one may take.
const DROP_DEADLINE: Duration = Duration::from_secs(30);

/// A database with the real schema that one test has to itself. Its `workspaces` refuses status changes
/// outside the machine (1.R119). Dropped with the value, whoever is still connected.
///
/// The server is the one that `MWS_TEST_DATABASE_URL` names, else a private Postgres in cargo's target folder
/// that is shared with other test processes and stops after the last test.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    server: Server,
}

impl TestDatabase {
    /// Makes a database.
    ///
    /// # Panics
    /// When the server, the template or the database cannot be had.
    pub async fn create() -> Self {
        match timeout(CREATE_DEADLINE, Box::pin(Self::try_create())).await {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => panic!("no test database: {error:?}"),
            Err(_) => panic!("no test database within {}s", CREATE_DEADLINE.as_secs()),
        }
    }

    async fn try_create() -> anyhow::Result<Self> {
        let server = Server::attach().await?;
        let mut admin = sql::connect(server.url()).await?;
        let template = template::ensure(&server, &mut admin).await?;
        // The name tells its age by the server's clock.
        let now = sql::column(&mut admin, "SELECT extract(epoch FROM now())::bigint").await?;
        let now = now.into_iter().flatten().next().context("the server's clock")?;
        let name = format!("t_{now}_{}", Uuid::new_v4().simple());
        sql::execute(&mut admin, &format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
            .await
            .context("copying the template")?;
        admin.close().await?;
        let url = sql::with_database(server.url(), &name)?;
        Ok(Self { name, url, server })
    }

    /// The database's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs statements separated by semicolons; the number of rows changed.
    ///
    /// # Panics
    /// When one fails.
    pub async fn execute(&self, statements: &str) -> u64 {
        match self.try_execute(statements).await {
            Ok(rows) => rows,
            Err(message) => panic!("{message}\nin {statements}"),
        }
    }

    /// Runs statements that may be refused.
    ///
    /// # Errors
    /// The server's message.
    ///
    /// # Panics
    /// When there is no connection.
    pub async fn try_execute(&self, statements: &str) -> Result<u64, String> {
        let mut connection = sql::connect(&self.url).await.expect("a connection to the test database");
        let outcome = sql::execute(&mut connection, statements).await.map_err(|error| error.to_string());
        connection.close().await.ok();
        outcome
    }

    /// The first column of every row of a query, as Postgres prints it; `None` is NULL.
    ///
    /// # Panics
    /// When it fails.
    pub async fn column(&self, query: &str) -> Vec<Option<String>> {
        let mut connection = sql::connect(&self.url).await.expect("a connection to the test database");
        let rows = sql::column(&mut connection, query).await;
        connection.close().await.ok();
        rows.unwrap_or_else(|error| panic!("{error}\nin {query}"))
    }

    /// The one value of a query, as Postgres prints it; `None` is NULL.
    ///
    /// # Panics
    /// When it fails, or there is not exactly one row.
    pub async fn value(&self, query: &str) -> Option<String> {
        let mut rows = self.column(query).await;
        assert_eq!(rows.len(), 1, "one row of {query}");
        rows.pop().flatten()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.url().to_owned(), self.name.clone());
        // The test's own runtime cannot be waited for from here.
        let outcome = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime
                .block_on(async { timeout(DROP_DEADLINE, remove(&server, &name)).await.context("too slow")? })
        })
        .join();
        if !matches!(outcome, Ok(Ok(()))) {
            tracing::warn!(database = self.name, ?outcome, "a test database was left behind");
        }
    }
}

async fn remove(server: &str, name: &str) -> anyhow::Result<()> {
    let mut admin = sql::connect(server).await?;
    sql::execute(&mut admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    admin.close().await?;
    Ok(())
}
