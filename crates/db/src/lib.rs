//! The database: the only crate that speaks SQL.
//!
//! [`Db`] holds the pool and answers reads; [`Tx`] is a transaction that carries its events: what it records
//! becomes rows with the change and is handed to the [`EventSink`] after the commit, so that no event is
//! forgotten, invented or seen before its change. Every status change is a function of [`transitions`].

pub mod activity;
pub mod background;
mod error;
pub mod events;
pub mod jobs;
mod json;
pub mod messages;
mod pool;
pub mod private;

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
#[error("a database statement failed")]
pub struct Error(#[from] sqlx::Error);

const SCHEMA: &str = "CREATE TYPE workspace_status AS ENUM (
        'provisioning', 'awaiting_agent', 'online', 'degraded', 'offline',
        'failed', 'paused', 'hibernating', 'hibernated', 'removed'
    );
    CREATE TABLE workspaces (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        name text NOT NULL,
        status workspace_status NOT NULL DEFAULT 'provisioning'
    )";

/// Applies the migrations that the database lacks.
///
/// # Errors
/// When it cannot be reached or one fails.
pub async fn migrate(url: &str) -> Result<(), Error> {
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(url).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
    Ok(sqlx::Connection::close(connection).await?)
}

/// Changes with the migrations.
#[must_use]
pub fn migrations_fingerprint() -> String {
    SCHEMA.to_owned()
}
