//! How messages reach an agent, and what an agent declares about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a workspace receives messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryMode {
    /// The server dials the agent.
    Push,
    /// The agent fetches its messages.
    Poll,
}

impl DeliveryMode {
    /// The wire name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Poll => "poll",
        }
    }

    /// Reads the wire name; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "push" => Some(Self::Push),
            "poll" => Some(Self::Poll),
            _ => None,
        }
    }
}

/// The longest idle timeout that an agent may declare, in seconds (3.R37).
const MAX_IDLE_TIMEOUT_SECONDS: i64 = 86_400;

/// Which platform services an agent's adapter provides itself. Unknown names are kept as declared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(BTreeMap<String, bool>);

impl Capabilities {
    /// The platform does not infer status from the error rate.
    #[must_use]
    pub fn manages_status(&self) -> bool {
        self.has("status_mgmt")
    }

    /// The agent keeps its own queue of messages while busy.
    #[must_use]
    pub fn has_native_session(&self) -> bool {
        self.has("session")
    }

    /// The agent fires its own schedules.
    #[must_use]
    pub fn has_native_scheduler(&self) -> bool {
        self.has("scheduler")
    }

    fn has(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or(false)
    }
}

/// The declaration of an agent's adapter, from the last heartbeat that carried one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeDeclaration {
    /// What the adapter provides itself.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Silence, in whole seconds (1 to 86 400), that ends a dispatch; `None` for the platform's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<u32>,
}

impl RuntimeDeclaration {
    /// Reads a `runtime_metadata` block. `None` means malformed: the stored declaration then stays as it is.
    #[must_use]
    pub fn from_wire(block: &Value) -> Option<Self> {
        let block = block.as_object()?;
        let capabilities = match block.get("capabilities") {
            None | Some(Value::Null) => Capabilities::default(),
            Some(Value::Object(map)) => Capabilities(
                map.iter()
                    .map(|(name, value)| value.as_bool().map(|on| (name.clone(), on)))
                    .collect::<Option<_>>()?,
            ),
            Some(_) => return None,
        };
        let idle_timeout_seconds = match block.get("idle_timeout_seconds") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let seconds = value.as_i64()?;
                u32::try_from(seconds.min(MAX_IDLE_TIMEOUT_SECONDS)).ok().filter(|s| *s > 0)
            }
        };
        Some(Self { capabilities, idle_timeout_seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Option<RuntimeDeclaration> {
        RuntimeDeclaration::from_wire(&value)
    }

    #[test]
    fn a_declaration_is_read_whole_or_not_at_all() {
        // 3.R37
        let declared = read(serde_json::json!({
            "capabilities": {"status_mgmt": true, "session": false, "brand_new": true},
            "idle_timeout_seconds": 999_999
        }))
        .unwrap();
        assert!(declared.capabilities.manages_status());
        assert!(!declared.capabilities.has_native_session());
        assert_eq!(declared.idle_timeout_seconds, Some(86_400));
        assert_eq!(
            serde_json::to_value(&declared).unwrap()["capabilities"]["brand_new"],
            serde_json::json!(true)
        );

        assert_eq!(read(serde_json::json!({})), Some(RuntimeDeclaration::default()));
        assert_eq!(
            read(serde_json::json!({"idle_timeout_seconds": -5})),
            Some(RuntimeDeclaration::default())
        );
        assert_eq!(read(serde_json::json!({"capabilities": {"session": "yes"}})), None);
        assert_eq!(read(serde_json::json!({"capabilities": []})), None);
        assert_eq!(read(serde_json::json!("none")), None);
        assert_eq!(read(serde_json::json!({"idle_timeout_seconds": "soon"})), None);
    }
}
