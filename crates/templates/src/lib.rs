//! Workspace templates: finding them, reading their `config.yaml`, collecting their files, and generating a
//! configuration where there is none.
//!
//! Everything here is synchronous and reads the file system: async callers go through `spawn_blocking`.

mod config;
mod files;
mod folders;
mod generated;
mod manifest;
mod paths;
mod timeouts;
mod yaml;

pub use config::{TemplateConfig, missing_env_message, required_env};
pub use files::{FilesError, TOTAL_MAX, TemplateFile, TemplateTree};
pub use folders::{CONFIG_FILE, InvalidTemplate, ReadError, Templates, find_root};
pub use generated::{GenerateError, GeneratedConfig, generated_config};
pub use manifest::{BUILT_IN_RUNTIMES, KnownRuntimes, ManifestSource};
pub use paths::{InvalidPath, relative_path};
pub use timeouts::ProvisionTimeouts;
pub use yaml::{CONFIG_MAX, Malformed, NODES_MAX};
