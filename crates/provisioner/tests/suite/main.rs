//! One suite for every backend, and what only a real engine can show.
//!
//! The Docker half needs an engine and fails without one. `MWS_TEST_NO_DOCKER=1` leaves it out and says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]
#![allow(clippy::print_stdout, reason = "says what was left out")]

mod docker;
mod faults;
mod harness;
mod shared;
