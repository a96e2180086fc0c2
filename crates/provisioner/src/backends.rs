//! The one decision which backend runs the agents.

use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::backend::Provisioner;
use crate::docker::{DockerBackend, DockerConfig};

/// How often an absent engine is looked for, at most (2.R6).
const REPROBE_EVERY: Duration = Duration::from_secs(15);

/// What the operator asked for (`PROVISIONER_BACKEND`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendSetting {
    /// The control plane for a tenant of one, else Docker.
    #[default]
    Auto,
    /// Docker.
    Docker,
    /// The control plane.
    ControlPlane,
    /// No backend: external agents only.
    None,
}

/// Not one of `auto`, `docker`, `controlplane`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of auto, docker, controlplane, none")]
pub struct UnknownBackend;

impl FromStr for BackendSetting {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "" | "auto" => Ok(Self::Auto),
            "docker" => Ok(Self::Docker),
            "controlplane" => Ok(Self::ControlPlane),
            "none" => Ok(Self::None),
            _ => Err(UnknownBackend),
        }
    }
}

/// Which backend is configured, whether or not it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Containers on an engine.
    Docker,
    /// Boxes of the control plane.
    ControlPlane,
    /// None.
    None,
}

impl Route {
    /// The setting decides; `auto` goes by whether `MOLECULE_ORG_ID` is non-empty after trimming (2.R5 to 2.R8).
    #[must_use]
    pub fn decide(setting: BackendSetting, org_id: Option<&str>) -> Self {
        match setting {
            BackendSetting::Docker => Self::Docker,
            BackendSetting::ControlPlane => Self::ControlPlane,
            BackendSetting::None => Self::None,
            BackendSetting::Auto if org_id.is_some_and(|id| !id.trim().is_empty()) => Self::ControlPlane,
            BackendSetting::Auto => Self::Docker,
        }
    }
}

/// Why no agent can be started now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no provisioning backend available")]
pub enum BackendUnavailable {
    /// None is configured.
    NotConfigured,
    /// The control plane is configured and this build has no backend for it. Docker never stands in.
    NotInThisBuild,
    /// The engine did not answer when it was last looked for.
    EngineUnreachable,
}

/// The backend in use, if any. Share it in an `Arc`; it is the only place that chooses.
pub struct Backends {
    source: Source,
}

enum Source {
    Fixed(Arc<dyn Provisioner>),
    Absent(BackendUnavailable),
    Docker { config: DockerConfig, state: Mutex<Probe> },
}

#[derive(Default)]
struct Probe {
    found: Option<Arc<DockerBackend>>,
    last: Option<Instant>,
}

impl Backends {
    /// The backend of a route. Connects to nothing yet.
    #[must_use]
    pub fn new(route: Route, docker: DockerConfig) -> Self {
        let source = match route {
            Route::Docker => Source::Docker { config: docker, state: Mutex::default() },
            Route::None => Source::Absent(BackendUnavailable::NotConfigured),
            Route::ControlPlane => {
                tracing::error!(
                    "the control plane backend is not part of this build: no agent can be started"
                );
                Source::Absent(BackendUnavailable::NotInThisBuild)
            }
        };
        Self { source }
    }

    /// Always this one. For embedders and tests.
    #[must_use]
    pub fn fixed(backend: Arc<dyn Provisioner>) -> Self {
        Self { source: Source::Fixed(backend) }
    }

    /// Never one. For embedders and tests.
    #[must_use]
    pub const fn none() -> Self {
        Self { source: Source::Absent(BackendUnavailable::NotConfigured) }
    }

    /// The backend, or `None` for now. An absent engine is looked for on demand, at most every 15 seconds; one
    /// caller looks (about 2 seconds), the others wait for its answer. A backend once found stays: when its
    /// engine goes away, calls fail. May be dropped at any point.
    pub async fn current(&self) -> Option<Arc<dyn Provisioner>> {
        self.require().await.ok()
    }

    /// As [`Backends::current`], with the reason.
    ///
    /// # Errors
    ///
    /// See [`BackendUnavailable`].
    pub async fn require(&self) -> Result<Arc<dyn Provisioner>, BackendUnavailable> {
        match &self.source {
            Source::Fixed(backend) => Ok(Arc::clone(backend)),
            Source::Absent(reason) => Err(*reason),
            Source::Docker { config, state } => {
                let backend = probe(config, state).await.ok_or(BackendUnavailable::EngineUnreachable)?;
                Ok(backend)
            }
        }
    }
}

async fn probe(config: &DockerConfig, state: &Mutex<Probe>) -> Option<Arc<DockerBackend>> {
    let mut state = state.lock().await;
    if let Some(found) = &state.found {
        return Some(Arc::clone(found));
    }
    if state.last.is_some_and(|last| last.elapsed() < REPROBE_EVERY) {
        return None;
    }
    state.last = Some(Instant::now());
    match DockerBackend::connect(config.clone()).await {
        Ok(backend) => {
            tracing::info!("the container engine answers");
            let backend = Arc::new(backend);
            state.found = Some(Arc::clone(&backend));
            Some(backend)
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn Error, "no container engine for now");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organisation_means_the_control_plane() {
        // 2.R5, 2.R6
        let auto = |org| Route::decide(BackendSetting::Auto, org);
        assert_eq!(auto(Some("org-1")), Route::ControlPlane);
        assert_eq!(auto(Some("  ")), Route::Docker);
        assert_eq!(auto(None), Route::Docker);
    }

    #[test]
    fn a_setting_forces_the_choice() {
        // 2.R8
        for (text, route) in
            [("docker", Route::Docker), ("controlplane", Route::ControlPlane), ("none", Route::None)]
        {
            let setting = text.parse().unwrap();
            assert_eq!(Route::decide(setting, Some("org-1")), route);
            assert_eq!(Route::decide(setting, None), route);
        }
        assert_eq!("auto".parse(), Ok(BackendSetting::Auto));
        assert_eq!("".parse(), Ok(BackendSetting::Auto));
        assert_eq!("podman".parse::<BackendSetting>(), Err(UnknownBackend));
    }

    #[tokio::test]
    async fn the_control_plane_is_never_replaced_by_docker() {
        // 2.R5
        let backends = Backends::new(Route::ControlPlane, DockerConfig::default());
        assert_eq!(backends.require().await.err(), Some(BackendUnavailable::NotInThisBuild));
        assert!(Backends::none().current().await.is_none());
    }

    /// An engine that counts how often it is looked for and never answers a ping well.
    async fn refusing_engine() -> (DockerConfig, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = DockerConfig {
            docker_host: Some(format!("tcp://{}", listener.local_addr().unwrap())),
            ..DockerConfig::default()
        };
        let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        std::thread::spawn(move || {
            let listener = listener.into_std().unwrap();
            listener.set_nonblocking(false).unwrap();
            while let Ok((connection, _)) = listener.accept() {
                counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                drop(connection);
            }
        });
        (config, seen)
    }

    #[tokio::test]
    async fn an_absent_engine_is_looked_for_once_in_a_while() {
        // 2.R6
        let (config, seen) = refusing_engine().await;
        let backends = Backends::new(Route::Docker, config);
        assert_eq!(backends.require().await.err(), Some(BackendUnavailable::EngineUnreachable));
        let first = seen.load(std::sync::atomic::Ordering::SeqCst);
        assert!(first > 0);
        assert!(backends.current().await.is_none());
        assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), first, "asked again within 15 s");

        if let Source::Docker { state, .. } = &backends.source {
            state.lock().await.last = Instant::now().checked_sub(REPROBE_EVERY);
        }
        assert!(backends.current().await.is_none());
        assert!(seen.load(std::sync::atomic::Ordering::SeqCst) > first, "not looked for again");
    }
}
