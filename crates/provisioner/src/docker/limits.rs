//! What each tier may use.

use mws_models::Tier;

/// Shares that stand for one CPU.
const SHARES_PER_CPU: i64 = 1024;
const NANOS_PER_CPU: i64 = 1_000_000_000;
const MIB: i64 = 1_048_576;

/// Replaces the defaults of one tier. `None` and 0 keep the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitOverride {
    /// Memory in MiB.
    pub memory_mb: Option<u32>,
    /// CPU in shares; 1024 are one CPU.
    pub cpu_shares: Option<u32>,
}

/// Replaces the defaults of the tiers that have limits (2.R40).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitOverrides {
    /// Tier 2: 512 MiB, 1024 shares.
    pub standard: LimitOverride,
    /// Tier 3: 2048 MiB, 2048 shares.
    pub privileged: LimitOverride,
    /// Tier 4: 4096 MiB, 4096 shares.
    pub full_host: LimitOverride,
}

/// Hard caps as the engine takes them; `None` is no cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) memory_bytes: Option<i64>,
    pub(super) nano_cpus: Option<i64>,
}

/// `engine_cpus` is what the engine has: it refuses a larger cap. `None` when it did not say.
pub(super) fn limits(tier: Tier, overrides: &LimitOverrides, engine_cpus: Option<i64>) -> Limits {
    let (memory_mb, cpu_shares, replaced) = match tier {
        Tier::Sandboxed => return Limits::default(),
        Tier::Standard => (512, 1024, overrides.standard),
        Tier::Privileged => (2048, 2048, overrides.privileged),
        Tier::FullHost => (4096, 4096, overrides.full_host),
    };
    let pick =
        |replaced: Option<u32>, default: u32| i64::from(replaced.filter(|n| *n > 0).unwrap_or(default));
    let nano_cpus = pick(replaced.cpu_shares, cpu_shares) * NANOS_PER_CPU / SHARES_PER_CPU;
    let most = engine_cpus.filter(|n| *n > 0).map_or(i64::MAX, |n| n.saturating_mul(NANOS_PER_CPU));
    Limits {
        memory_bytes: Some(pick(replaced.memory_mb, memory_mb) * MIB),
        nano_cpus: Some(nano_cpus.min(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        // 4.4, 2.R40
        let of = |tier| limits(tier, &LimitOverrides::default(), Some(64));
        assert_eq!(of(Tier::Sandboxed), Limits::default());
        for (tier, mib, cpus) in
            [(Tier::Standard, 512, 1), (Tier::Privileged, 2048, 2), (Tier::FullHost, 4096, 4)]
        {
            let expected =
                Limits { memory_bytes: Some(mib * 1_048_576), nano_cpus: Some(cpus * 1_000_000_000) };
            assert_eq!(of(tier), expected);
        }
    }

    #[test]
    fn a_cap_never_exceeds_the_engine() {
        // 2.R40
        let on = |cpus| limits(Tier::FullHost, &LimitOverrides::default(), cpus).nano_cpus;
        assert_eq!(on(Some(2)), Some(2_000_000_000));
        assert_eq!(on(None), Some(4_000_000_000));
    }

    #[test]
    fn overrides_are_positive() {
        // 2.R40
        let overrides = LimitOverrides {
            standard: LimitOverride { memory_mb: Some(128), cpu_shares: Some(512) },
            privileged: LimitOverride { memory_mb: Some(0), cpu_shares: None },
            ..LimitOverrides::default()
        };
        assert_eq!(
            limits(Tier::Standard, &overrides, Some(8)),
            Limits { memory_bytes: Some(128 * 1_048_576), nano_cpus: Some(500_000_000) }
        );
        assert_eq!(limits(Tier::Privileged, &overrides, Some(8)).memory_bytes, Some(2048 * 1_048_576));
    }
}
