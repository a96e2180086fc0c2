//! Runtime names that the whole product treats specially.

/// What runs when neither the request nor a template names a runtime.
pub const DEFAULT_RUNTIME: &str = "claude-code";

/// Runtimes whose agent is started by its operator, never by this server.
pub const EXTERNAL_LIKE_RUNTIMES: [&str; 3] = ["external", "kimi", "kimi-cli"];

/// Whether a workspace of this runtime is run by its operator. The one predicate for it, case-sensitive.
#[must_use]
pub fn is_external_like(runtime: &str) -> bool {
    EXTERNAL_LIKE_RUNTIMES.contains(&runtime)
}
