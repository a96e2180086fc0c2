//! The database layer against a real Postgres.

#[cfg(test)]
mod jobs;
#[cfg(test)]
mod private;
#[cfg(test)]
mod removal;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transitions;
