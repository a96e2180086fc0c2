//! YAML that a stranger may have written: bounded and tolerant.

use serde::de::DeserializeOwned;
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Options};

/// The largest `config.yaml` that is read, in bytes (6.R16).
pub const CONFIG_MAX: usize = 1024 * 1024;
/// The most YAML nodes that a document may have after its aliases are expanded (6.R16).
pub const NODES_MAX: usize = 10_000;
/// The longest reason that is kept for the log, in bytes.
const REASON_MAX: usize = 300;

/// A document that cannot be used. The reason is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed YAML: {reason}")]
pub struct Malformed {
    reason: String,
}

impl Malformed {
    pub(crate) fn new(reason: &str) -> Self {
        let end = reason.floor_char_boundary(REASON_MAX);
        Self { reason: reason[..end].to_owned() }
    }
}

/// Parses one document; an empty one is the same as `null`.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Malformed> {
    if text.len() > CONFIG_MAX {
        return Err(Malformed::new("larger than 1 MiB"));
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| Malformed::new(&error.to_string()))
}

fn options() -> Options {
    serde_saphyr::options! {
        // Nodes below unknown keys and those that an alias repeats count, too.
        budget: serde_saphyr::budget! { max_nodes: NODES_MAX, max_documents: 1, enforce_alias_anchor_ratio: false },
        // As the agents' own parser does.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        // Keys that are not ours may hold any number.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}
