//! Handlers: call one function of a service, map its outcome. Extraction and authentication happened before.

pub(crate) mod a2a;
pub(crate) mod events;
pub(crate) mod operation;
pub(crate) mod registry;
pub(crate) mod socket;
pub(crate) mod workspaces;
