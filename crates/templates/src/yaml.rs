//! YAML that a stranger may have written: bounded and tolerant.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
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
    let malformed = |error: serde_saphyr::Error| Malformed::new(&error.to_string());
    // The target type skips unknown keys; counting has to see them too.
    serde_saphyr::from_str_with_options::<Nodes>(text, options()).map_err(malformed)?;
    serde_saphyr::from_str_with_options(text, options()).map_err(malformed)
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: NODES_MAX, max_documents: 1 },
        // As the agents' own parser does.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 4 * NODES_MAX },
        // Keys that are not ours may hold any number.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

/// How many nodes a document has; deserializing it fails beyond [`NODES_MAX`].
struct Nodes(usize);

impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeCounter)
    }
}

struct NodeCounter;

impl NodeCounter {
    fn add<E: serde::de::Error>(total: &mut usize, nodes: usize) -> Result<(), E> {
        *total += nodes;
        if *total > NODES_MAX { Err(E::custom("more than 10000 nodes")) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for NodeCounter {
    type Value = Nodes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML node")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_str<E>(self, _: &str) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_unit<E>(self) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_none<E>(self) -> Result<Nodes, E> {
        Ok(Nodes(1))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Nodes, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Nodes, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Nodes, A::Error> {
        let mut total = 1;
        while let Some(Nodes(nodes)) = items.next_element()? {
            Self::add::<A::Error>(&mut total, nodes)?;
        }
        Ok(Nodes(total))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Nodes, A::Error> {
        let mut total = 1;
        while let Some((Nodes(key), Nodes(value))) = entries.next_entry()? {
            let nodes = key.checked_add(value).ok_or_else(|| A::Error::custom("more than 10000 nodes"))?;
            Self::add::<A::Error>(&mut total, nodes)?;
        }
        Ok(Nodes(total))
    }
}
