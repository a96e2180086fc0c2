use std::time::Duration;

/// Why the database did not answer. `Display` is safe for logs of any level but never meant for a reply; the
/// driver's own words are in `source`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be reached, or did not answer in time. Callers say 503, never "no".
    #[error("the database is unavailable")]
    Unavailable(#[source] Option<sqlx::Error>),
    /// A named constraint refused the write.
    #[error("constraint {name} refused the write")]
    Constraint {
        /// The constraint or unique index.
        name: String,
    },
    /// The statement failed for another reason.
    #[error("a database statement failed")]
    Statement(#[source] sqlx::Error),
    /// A migration failed, or the database is not ours to migrate.
    #[error("migration failed: {0}")]
    Migration(String),
    /// The labels of `workspace_status` in the database are not those of this program (1.R120).
    #[error("the database's workspace_status labels differ from this program's: {0}")]
    StatusLabels(String),
}

/// SQLSTATEs of a server that cannot answer now: connection trouble, shutdown, cancelled statement, lock wait.
const UNAVAILABLE_STATES: [&str; 6] = ["57P01", "57P02", "57P03", "57014", "55P03", "53300"];

impl Error {
    /// Whether trying again later may help.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether this constraint refused the write.
    #[must_use]
    pub fn is_constraint(&self, constraint: &str) -> bool {
        matches!(self, Self::Constraint { name } if name == constraint)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(Some(error)),
            sqlx::Error::Database(database) => {
                let state = database.code().unwrap_or_default();
                if state.starts_with("08") || UNAVAILABLE_STATES.contains(&state.as_ref()) {
                    return Self::Unavailable(Some(error));
                }
                match database.constraint() {
                    Some(name) if state.starts_with("23") => Self::Constraint { name: name.to_owned() },
                    _ => Self::Statement(error),
                }
            }
            _ => Self::Statement(error),
        }
    }
}

/// The most a statement may take as seen from here. The server's own `statement_timeout` (10 s) comes first;
/// this one covers a network that swallows the answer.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(12);

/// Runs one statement within [`STATEMENT_DEADLINE`].
pub(crate) async fn bounded<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(STATEMENT_DEADLINE, statement).await {
        Ok(answer) => answer.map_err(Error::from),
        Err(_) => Err(Error::Unavailable(None)),
    }
}
