//! Statements of the tests' own, on connections of their own. The one place of this crate that builds SQL:
//! names of databases cannot be bound.

use std::str::FromStr as _;

use anyhow::Context as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};
use url::Url;

pub(crate) async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?.application_name("mws-testkit");
    PgConnection::connect_with(&options).await.context("no connection to the test server")
}

/// Runs statements separated by semicolons; the rows that they changed.
pub(crate) async fn execute(connection: &mut PgConnection, sql: &str) -> Result<u64, sqlx::Error> {
    let statements = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
    Ok(statements.execute(connection).await?.rows_affected())
}

/// The first column of every row, as Postgres prints it.
pub(crate) async fn column(
    connection: &mut PgConnection,
    sql: &str,
) -> Result<Vec<Option<String>>, sqlx::Error> {
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(connection).await?;
    rows.iter().map(first_column).collect()
}

/// Values of this protocol are text, whatever their type.
fn first_column(row: &PgRow) -> Result<Option<String>, sqlx::Error> {
    row.try_get_unchecked(0)
}

/// Whether the statement finds a row.
pub(crate) async fn exists(connection: &mut PgConnection, sql: &str) -> Result<bool, sqlx::Error> {
    Ok(!column(connection, sql).await?.is_empty())
}

/// The URL of another database on the same server.
pub(crate) fn with_database(server: &str, database: &str) -> anyhow::Result<String> {
    let mut url = Url::parse(server).context("the test server's URL")?;
    url.set_path(database);
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_changes() {
        let socket = "postgres://mws@localhost/mws?host=%2Fvar%2Flib%2Fmws%2Fsocket";
        assert_eq!(
            with_database(socket, "t_1").unwrap(),
            "postgres://mws@localhost/t_1?host=%2Fvar%2Flib%2Fmws%2Fsocket"
        );
        assert_eq!(
            with_database("postgres://u:p@127.0.0.1:5432/db", "t_1").unwrap(),
            "postgres://u:p@127.0.0.1:5432/t_1"
        );
    }
}
