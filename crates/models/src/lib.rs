//! The words of the product: ids, the status machine, events and the shapes of requests and replies.
//!
//! Nothing here does I/O or knows a transport. The Cargo feature `sqlx` adds derives that let `mws-db` bind
//! and read these types; no other crate turns it on.

#![warn(missing_docs)]

pub mod api;
mod delivery;
mod event;
mod ids;
pub mod repair;
mod runtime;
mod status;
mod tier;
mod timestamp;

pub use delivery::{Capabilities, DeliveryMode, RuntimeDeclaration};
pub use event::{Event, EventKind, OfflineReason};
pub use ids::{ActivityId, EventId, JobId, OrgTokenId, ParseIdError, TokenId, WorkspaceId};
pub use runtime::{DEFAULT_RUNTIME, EXTERNAL_LIKE_RUNTIMES, is_external_like};
pub use status::{Cause, EDGES, Edge, UnknownStatus, WorkspaceStatus};
pub use tier::Tier;
pub use timestamp::Timestamp;
