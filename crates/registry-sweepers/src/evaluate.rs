//! Status evaluation of a heartbeat (3.R28 to R31): pure, exact at its boundaries.

use mws_models::WorkspaceStatus;

/// At and above this rate a workspace degrades.
const DEGRADE_AT: f64 = 0.5;
/// Below this rate it recovers; in between nothing changes.
const RECOVER_BELOW: f64 = 0.1;

/// What the row said before the beat.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Status under the lock.
    pub status: WorkspaceStatus,
    /// Why it is degraded, if it is.
    pub degraded_reason: Option<&'a str>,
    /// The adapter manages its status itself, by its declaration including this beat's.
    pub native: bool,
}

/// What the beat makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Status after.
    pub status: WorkspaceStatus,
    /// `wedged` or `error_rate` while degraded.
    pub degraded_reason: Option<&'a str>,
}

/// Evaluates one beat. `task_push` marks a beat that carries nothing but the task (3.R27).
#[must_use]
pub fn evaluate<'a>(
    before: Before<'a>,
    error_rate: f64,
    runtime_state: &str,
    task_push: bool,
) -> Decision<'a> {
    use WorkspaceStatus as S;
    let wedged = runtime_state == "wedged";
    let unchanged = Decision { status: before.status, degraded_reason: before.degraded_reason };
    let online = Decision { status: S::Online, degraded_reason: None };
    match before.status {
        S::Online if task_push => unchanged,
        S::Online if wedged => Decision { status: S::Degraded, degraded_reason: Some("wedged") },
        S::Online if !before.native && error_rate >= DEGRADE_AT => {
            Decision { status: S::Degraded, degraded_reason: Some("error_rate") }
        }
        S::Degraded if task_push => unchanged,
        S::Degraded if wedged => Decision { status: S::Degraded, degraded_reason: Some("wedged") },
        S::Degraded if !runtime_state.is_empty() => unchanged,
        S::Degraded if before.native => {
            if before.degraded_reason == Some("wedged") {
                online
            } else {
                unchanged
            }
        }
        S::Degraded if error_rate < RECOVER_BELOW => online,
        S::Offline | S::Provisioning | S::AwaitingAgent => online,
        S::Failed if runtime_state.is_empty() => online,
        _ => unchanged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WorkspaceStatus as S;

    fn after(status: S, reason: Option<&str>, native: bool, rate: f64, state: &str) -> S {
        evaluate(Before { status, degraded_reason: reason, native }, rate, state, false).status
    }

    #[test]
    fn boundaries_are_exact() {
        // 3.R28
        assert_eq!(after(S::Online, None, false, 0.5, ""), S::Degraded);
        assert_eq!(after(S::Online, None, false, 0.49, ""), S::Online);
        assert_eq!(after(S::Degraded, Some("error_rate"), false, 0.1, ""), S::Degraded);
        assert_eq!(after(S::Degraded, Some("error_rate"), false, 0.09, ""), S::Online);
        assert_eq!(after(S::Degraded, Some("error_rate"), false, 0.3, ""), S::Degraded);
    }

    #[test]
    fn a_wedge_degrades_and_holds() {
        // 3.R28, 3.R30
        for native in [false, true] {
            assert_eq!(after(S::Online, None, native, 0.0, "wedged"), S::Degraded);
            assert_eq!(after(S::Degraded, Some("wedged"), native, 0.0, "wedged"), S::Degraded);
            assert_eq!(after(S::Degraded, Some("wedged"), native, 0.0, ""), S::Online);
        }
        assert_eq!(after(S::Degraded, Some("wedged"), false, 0.5, ""), S::Degraded);
        let both = evaluate(
            Before { status: S::Online, degraded_reason: None, native: false },
            0.9,
            "wedged",
            false,
        );
        assert_eq!(both.degraded_reason, Some("wedged"));
    }

    #[test]
    fn native_status_management_turns_both_inferences_off() {
        // 3.R31
        assert_eq!(after(S::Online, None, true, 0.9, ""), S::Online);
        assert_eq!(after(S::Degraded, Some("error_rate"), true, 0.0, ""), S::Degraded);
    }

    #[test]
    fn any_beat_revives_what_waits() {
        // 3.R28, 1.R121
        for status in [S::Offline, S::Provisioning, S::AwaitingAgent] {
            assert_eq!(after(status, None, false, 1.0, "wedged"), S::Online);
        }
        assert_eq!(after(S::Failed, None, false, 0.0, ""), S::Online);
        assert_eq!(after(S::Failed, None, false, 0.0, "wedged"), S::Failed);
        for status in [S::Paused, S::Hibernating, S::Hibernated, S::Removed] {
            assert_eq!(after(status, None, false, 0.0, ""), status);
        }
    }

    #[test]
    fn an_unknown_state_only_blocks_recovery() {
        assert_eq!(after(S::Degraded, Some("error_rate"), false, 0.0, "draining"), S::Degraded);
        assert_eq!(after(S::Online, None, false, 0.0, "draining"), S::Online);
    }

    #[test]
    fn a_task_push_neither_degrades_nor_recovers() {
        // 3.R27
        for (status, reason) in [(S::Online, None), (S::Degraded, Some("error_rate"))] {
            let before = Before { status, degraded_reason: reason, native: false };
            assert_eq!(evaluate(before, 0.0, "", true).status, status);
        }
        let waiting = Before { status: S::Offline, degraded_reason: None, native: false };
        assert_eq!(evaluate(waiting, 0.0, "", true).status, S::Online);
    }
}
