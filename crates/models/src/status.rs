//! The status machine of a workspace: the statuses and, as data, every edge between them (contract 1 §8).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a workspace stands. The database's enum `workspace_status` has the same labels; start-up fails if it
/// does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type))]
#[cfg_attr(feature = "sqlx", sqlx(type_name = "workspace_status", rename_all = "snake_case"))]
pub enum WorkspaceStatus {
    /// The agent is being started.
    Provisioning,
    /// An external agent is expected.
    AwaitingAgent,
    /// The agent is alive.
    Online,
    /// Alive, but reporting errors or a wedge.
    Degraded,
    /// The agent was found gone.
    Offline,
    /// The platform gave up on it.
    Failed,
    /// An operator took it out of service.
    Paused,
    /// On its way to `Hibernated`.
    Hibernating,
    /// Stopped while idle; the next message wakes it.
    Hibernated,
    /// Deleted. Terminal.
    Removed,
}

/// A label that is no workspace status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown workspace status {0:?}")]
pub struct UnknownStatus(pub String);

impl WorkspaceStatus {
    /// Every status.
    pub const ALL: [Self; 10] = [
        Self::Provisioning,
        Self::AwaitingAgent,
        Self::Online,
        Self::Degraded,
        Self::Offline,
        Self::Failed,
        Self::Paused,
        Self::Hibernating,
        Self::Hibernated,
        Self::Removed,
    ];

    /// The wire name, which is also the database label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::AwaitingAgent => "awaiting_agent",
            Self::Online => "online",
            Self::Degraded => "degraded",
            Self::Offline => "offline",
            Self::Failed => "failed",
            Self::Paused => "paused",
            Self::Hibernating => "hibernating",
            Self::Hibernated => "hibernated",
            Self::Removed => "removed",
        }
    }

    /// `online` or `degraded`.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Online | Self::Degraded)
    }

    /// A state that the platform put the workspace in: what the agent says does not change it (1.R121).
    #[must_use]
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Paused | Self::Hibernating | Self::Hibernated)
    }
}

impl fmt::Display for WorkspaceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for WorkspaceStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// Who makes a status change, and when. Each cause is one family of edges and one function of `mws-db`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The agent registered.
    Register,
    /// The agent's heartbeat was evaluated.
    Heartbeat,
    /// A provisioning run failed, crashed or timed out, or the box reported a failed boot.
    ProvisionFailed,
    /// A spawned agent was found gone.
    SpawnedLost,
    /// An external agent went silent.
    ExternalLost,
    /// The restart runner gave up.
    GaveUp,
    /// A restart by the platform.
    AutoRestart,
    /// A restart by a person.
    ManualRestart,
    /// Pause of a subtree.
    Pause,
    /// Resume of a spawned workspace.
    ResumeSpawned,
    /// Resume of an external workspace.
    ResumeExternal,
    /// The claim that begins a hibernation.
    HibernateClaim,
    /// The stop that ends one.
    HibernateDone,
    /// The stop failed: back to the status before.
    HibernateUndo,
    /// A message, or a person, wakes it.
    Wake,
    /// Delete or team collapse.
    Remove,
}

/// One allowed change of status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Status before.
    pub from: WorkspaceStatus,
    /// Status after.
    pub to: WorkspaceStatus,
    /// Who makes it.
    pub cause: Cause,
}

macro_rules! edges {
    ($($cause:ident: [$($from:ident),+] => [$($to:ident),+];)+) => {
        &[$(edges!(@family $cause [$($from),+] [$($to),+])),+]
    };
    (@family $cause:ident [$($from:ident),+] [$to:ident]) => {
        (Cause::$cause, &[$(WorkspaceStatus::$from),+] as &[WorkspaceStatus], WorkspaceStatus::$to)
    };
}

/// A family of edges that share a target: cause, sources, target.
type Family = (Cause, &'static [WorkspaceStatus], WorkspaceStatus);

/// The machine, one line per family, as contract 1 §8 tells it. An edge from a status to itself changes no
/// status but is listed where the cause may act on such a row.
const FAMILIES: &[Family] = edges! {
    Register: [Provisioning, AwaitingAgent, Degraded, Offline, Failed, Online] => [Online];
    Heartbeat: [Provisioning, AwaitingAgent, Degraded, Offline, Failed] => [Online];
    Heartbeat: [Online] => [Degraded];
    ProvisionFailed: [Provisioning] => [Failed];
    SpawnedLost: [Online, Degraded] => [Offline];
    ExternalLost: [Online, Degraded] => [AwaitingAgent];
    GaveUp: [Offline] => [Failed];
    AutoRestart: [Offline, Failed, Degraded, Online, Provisioning] => [Provisioning];
    ManualRestart: [Offline, Failed, Degraded, Online, Provisioning, Paused, Hibernated] => [Provisioning];
    Pause: [Provisioning, AwaitingAgent, Online, Degraded, Offline, Failed, Hibernating, Hibernated] => [Paused];
    ResumeSpawned: [Paused] => [Provisioning];
    ResumeExternal: [Paused] => [AwaitingAgent];
    HibernateClaim: [Online, Degraded] => [Hibernating];
    HibernateDone: [Hibernating] => [Hibernated];
    HibernateUndo: [Hibernating] => [Online];
    HibernateUndo: [Hibernating] => [Degraded];
    Wake: [Hibernated] => [Provisioning];
    Remove: [Provisioning, AwaitingAgent, Online, Degraded, Offline, Failed, Paused, Hibernating, Hibernated] => [Removed];
};

const EDGE_COUNT: usize = {
    let mut count = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        count += FAMILIES[family].1.len();
        family += 1;
    }
    count
};

/// Every allowed edge. A status change outside this list does not exist.
pub const EDGES: [Edge; EDGE_COUNT] = {
    let mut edges =
        [Edge { from: WorkspaceStatus::Removed, to: WorkspaceStatus::Removed, cause: Cause::Remove };
            EDGE_COUNT];
    let (mut next, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let (cause, sources, to) = FAMILIES[family];
        let mut source = 0;
        while source < sources.len() {
            edges[next] = Edge { from: sources[source], to, cause };
            next += 1;
            source += 1;
        }
        family += 1;
    }
    edges
};

impl Cause {
    /// The statuses from which this cause may lead to `to`: what the `WHERE` of its statement binds.
    #[must_use]
    pub fn sources(self, to: WorkspaceStatus) -> Vec<WorkspaceStatus> {
        EDGES.iter().filter(|edge| edge.cause == self && edge.to == to).map(|edge| edge.from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_round_trip() {
        for status in WorkspaceStatus::ALL {
            assert_eq!(status.as_str().parse::<WorkspaceStatus>().unwrap(), status);
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert!("deleted".parse::<WorkspaceStatus>().is_err());
    }

    #[test]
    fn removed_is_terminal_and_reachable_from_everywhere() {
        // 1.R115, 1.R119
        assert!(EDGES.iter().all(|edge| edge.from != WorkspaceStatus::Removed));
        for status in WorkspaceStatus::ALL.into_iter().filter(|s| *s != WorkspaceStatus::Removed) {
            assert!(EDGES.iter().any(|edge| edge.from == status && edge.to == WorkspaceStatus::Removed));
        }
    }

    #[test]
    fn what_an_agent_says_never_lifts_a_held_state() {
        // 1.R121
        let by_agent = |edge: &&Edge| matches!(edge.cause, Cause::Register | Cause::Heartbeat);
        assert!(EDGES.iter().filter(by_agent).all(|edge| !edge.from.is_held()));
    }

    #[test]
    fn loss_of_an_agent_touches_live_rows_only() {
        // 1.R122
        for cause in [Cause::SpawnedLost, Cause::ExternalLost] {
            assert!(EDGES.iter().filter(|e| e.cause == cause).all(|e| e.from.is_live()));
        }
    }

    #[test]
    fn the_machine_is_the_contracts() {
        // 1.R119: the pairs of the table in contract 1 §8, without the rows that create or end a workspace.
        use WorkspaceStatus as S;
        let mut expected = BTreeSet::new();
        let mut add = |from: &[S], to: S| expected.extend(from.iter().map(|f| (*f, to)));
        add(&[S::Provisioning, S::AwaitingAgent, S::Degraded, S::Offline, S::Failed], S::Online);
        add(&[S::Online], S::Degraded);
        add(&[S::Provisioning, S::Offline], S::Failed);
        add(&[S::Online, S::Degraded], S::Offline);
        add(&[S::Online, S::Degraded], S::AwaitingAgent);
        add(&[S::Offline, S::Failed, S::Degraded, S::Online, S::Paused, S::Hibernated], S::Provisioning);
        let all_but = |out: &[S]| S::ALL.into_iter().filter(|s| !out.contains(s)).collect::<Vec<_>>();
        add(&all_but(&[S::Removed, S::Paused]), S::Paused);
        add(&[S::Paused], S::AwaitingAgent);
        add(&[S::Online, S::Degraded], S::Hibernating);
        add(&[S::Hibernating], S::Hibernated);
        add(&[S::Hibernating], S::Online);
        add(&[S::Hibernating], S::Degraded);
        add(&all_but(&[S::Removed]), S::Removed);
        let actual: BTreeSet<_> = EDGES.iter().filter(|e| e.from != e.to).map(|e| (e.from, e.to)).collect();
        assert_eq!(actual, expected);
    }
}
