//! The database layer against a real Postgres.

#[cfg(test)]
mod private;
#[cfg(test)]
mod schema;
