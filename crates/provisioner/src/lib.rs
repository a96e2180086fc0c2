//! Runs each agent of a workspace as a container.
//!
//! [`Provisioner`] is the one abstraction that everything above holds: start, stop, liveness, storage and
//! listing, plus optional faces such as [`InstanceFiles`]. [`DockerBackend`] implements it over the Engine API.
//! [`Backends`] makes the one decision which backend is in use; no other place may choose one.
//!
//! The crate knows containers. It has no routes and no database: callers pass a complete [`StartSpec`] and keep
//! what [`Started`] tells them.
//!
//! The Cargo feature `mock` adds an in-memory backend for tests of the crates above.

#![warn(missing_docs)]

mod backend;
mod backends;
mod config_files;
mod docker;
mod environment;
mod error;
mod image;
mod labels;
#[cfg(feature = "mock")]
pub mod mock;
mod names;
mod spec;

pub use backend::{BackendKind, InstanceFiles, Liveness, Provisioner, StopMode};
pub use backends::{BackendSetting, BackendUnavailable, Backends, Route, UnknownBackend};
pub use config_files::{ConfigFile, InvalidConfigFile, MAX_CONFIG_BYTES};
pub use docker::{ConnectError, DockerBackend, DockerConfig, LimitOverride, LimitOverrides, Purged};
pub use environment::{container_env, parse_bool};
pub use error::{EngineError, FileError, ListError, StartError, StopError, StorageError};
pub use image::{DEFAULT_REGISTRY, ImageResolver, MalformedOverride, ResolvedImage, parse_overrides};
pub use names::{AGENT_PORT, container_name, internal_url};
pub use spec::{ConfigSource, Credentials, InstanceRef, StartSpec, Started, WorkspaceMount};
