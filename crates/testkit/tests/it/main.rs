//! The tools of the tests, tested.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod database;
