//! Privilege tiers of an agent's container.

use serde::{Serialize, Serializer};

/// How much an agent's container may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// 1: read-only root, no `/workspace`.
    Sandboxed,
    /// 2: capped and unprivileged.
    Standard,
    /// 3: privileged, host PID namespace.
    Privileged,
    /// 4: also the host's network and the engine's socket.
    FullHost,
}

impl Tier {
    /// What a create without a tier gets on a self-hosted installation.
    pub const DEFAULT: Self = Self::Privileged;

    /// Reads a stored number. Any other number than 1 to 4 is [`Tier::Standard`], the safe one.
    #[must_use]
    pub const fn from_stored(number: i32) -> Self {
        match number {
            1 => Self::Sandboxed,
            3 => Self::Privileged,
            4 => Self::FullHost,
            _ => Self::Standard,
        }
    }

    /// 1 to 4.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Sandboxed => 1,
            Self::Standard => 2,
            Self::Privileged => 3,
            Self::FullHost => 4,
        }
    }
}

impl Serialize for Tier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_numbers_are_the_safe_tier() {
        // 1.R48, 2.R39
        for number in [-1, 0, 2, 5, 99] {
            assert_eq!(Tier::from_stored(number), Tier::Standard);
        }
        for number in [1, 2, 3, 4] {
            assert_eq!(Tier::from_stored(number).number(), number);
        }
    }
}
