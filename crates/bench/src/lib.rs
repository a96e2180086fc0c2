//! Benchmarks of the server binary. Each starts the real server on a private Postgres of its own, plays the
//! agent, loads both over loopback, and prints a ratio measured in the same run: the claim is the ratio, not
//! the number.

mod a2a;
mod load;
mod server;

use std::path::PathBuf;
use std::time::Duration;

pub use a2a::run as a2a;

/// How a benchmark runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server binary to measure.
    pub server: PathBuf,
    /// Requests under way at a time.
    pub connections: usize,
    /// How long each measurement takes, after a warm-up of a fifth of it.
    pub duration: Duration,
}

#[expect(clippy::print_stdout, reason = "figures are what a benchmark is for")]
fn say(line: &str) {
    println!("{line}");
}
