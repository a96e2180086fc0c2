use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use mws_models::WorkspaceStatus;
use sqlx::migrate::{Migrate, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use crate::error::bounded;
use crate::{Error, EventSink, Result, Tx};

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// Advisory lock that serialises migrations across processes; a constant of this product.
const MIGRATION_LOCK: i64 = 0x6d77_735f_6d69_6772;

/// How to open a database.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// `postgres://…`.
    pub url: String,
    /// Connections at most.
    pub max_connections: u32,
    /// The longest wait for a connection.
    pub acquire_timeout: Duration,
}

impl DbOptions {
    /// The defaults for a server: 16 connections, 5 s to get one.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), max_connections: 16, acquire_timeout: Duration::from_secs(5) }
    }
}

/// A pool of connections and the sink that committed events go to.
#[derive(Clone)]
pub struct Db {
    pub(crate) pool: PgPool,
    pub(crate) sink: Arc<dyn EventSink>,
}

fn connect_options(url: &str) -> Result<PgConnectOptions> {
    // `lock_timeout` is the registry's (3.R25); who may wait longer says so in its transaction.
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Error::Unavailable(Some(error)))?
        .application_name("workspace-server")
        .options([
            ("statement_timeout", "10s"),
            ("lock_timeout", "2s"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("timezone", "UTC"),
            ("client_min_messages", "warning"),
        ])
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(2));
    Ok(options)
}

impl Db {
    /// Opens the pool. Connects once, so that a wrong address fails here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection could be had.
    pub async fn connect(options: &DbOptions, sink: Arc<dyn EventSink>) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(Duration::from_secs(300))
            .connect_with(connect_options(&options.url)?)
            .await
            .map_err(Error::from)?;
        Ok(Self { pool, sink })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection could be had.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(Tx::new(bounded(self.pool.begin()).await?, self.sink.clone()))
    }

    /// Fails unless the database's status labels are exactly this program's (1.R120).
    ///
    /// # Errors
    /// [`Error::StatusLabels`] on a difference in either direction.
    pub async fn check_status_labels(&self) -> Result<()> {
        let labels = bounded(
            sqlx::query_scalar!(
                r#"SELECT e.enumlabel::text AS "label!" FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
                   WHERE t.typname = 'workspace_status'"#
            )
            .fetch_all(&self.pool),
        )
        .await?;
        let missing = WorkspaceStatus::ALL.iter().filter(|s| !labels.iter().any(|l| l == s.as_str()));
        let foreign = labels.iter().filter(|l| l.parse::<WorkspaceStatus>().is_err());
        let differences: Vec<_> = missing
            .map(|status| format!("{status} is missing there"))
            .chain(foreign.map(|label| format!("{label} is unknown here")))
            .collect();
        if differences.is_empty() { Ok(()) } else { Err(Error::StatusLabels(differences.join(", "))) }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Applies the migrations that the database lacks, each in its own transaction with a `lock_timeout` of 5 s,
/// one process at a time (1.R166).
///
/// # Errors
/// [`Error::Migration`] when one fails or the database belongs to another program.
pub async fn migrate(url: &str) -> Result<()> {
    let mut connection =
        bounded(connect_options(url)?.options([("statement_timeout", "0")]).connect()).await?;
    let outcome = migrate_on(&mut connection).await;
    connection.close().await.ok();
    outcome
}

async fn migrate_on(connection: &mut PgConnection) -> Result<()> {
    let statement = |error: sqlx::Error| Error::from(error);
    // Waiting for another process's migrations is what the lock is for, so no lock_timeout yet.
    sqlx::raw_sql("SET lock_timeout = 0").execute(&mut *connection).await.map_err(statement)?;
    sqlx::query!("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        .fetch_one(&mut *connection)
        .await
        .map_err(statement)?;
    sqlx::raw_sql("SET lock_timeout = '5s'").execute(&mut *connection).await.map_err(statement)?;
    let foreign = sqlx::query_scalar!(
        r#"SELECT to_regclass('schema_migrations') IS NOT NULL AND to_regclass('_sqlx_migrations') IS NULL AS "foreign!""#
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(statement)?;
    if foreign {
        return Err(Error::Migration(
            "this database was made by an earlier server (it has a table schema_migrations); \
             nothing was changed. Restore its dump into a fresh database and run `workspace-server migrate` there"
                .to_owned(),
        ));
    }
    connection.ensure_migrations_table("_sqlx_migrations").await.map_err(migration_error)?;
    let applied = connection.list_applied_migrations("_sqlx_migrations").await.map_err(migration_error)?;
    for migration in MIGRATOR.iter() {
        match applied.iter().find(|a| a.version == migration.version) {
            Some(old) if old.checksum == migration.checksum => {}
            Some(_) => {
                return Err(Error::Migration(format!(
                    "migration {} was applied with another text",
                    migration.version
                )));
            }
            None => {
                connection.apply("_sqlx_migrations", migration).await.map_err(migration_error)?;
                tracing::info!(version = migration.version, description = %migration.description, "migration applied");
            }
        }
    }
    Ok(())
}

fn migration_error(error: sqlx::migrate::MigrateError) -> Error {
    tracing::error!(error = &error as &dyn std::error::Error, "migration failed");
    Error::Migration("a migration statement failed; the log has the details".to_owned())
}

/// A short text that changes whenever a migration does: names test templates.
#[must_use]
pub fn migrations_fingerprint() -> String {
    let mut fingerprint: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in MIGRATOR.iter().flat_map(|migration| migration.checksum.iter()) {
        fingerprint = (fingerprint ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{fingerprint:016x}")
}
