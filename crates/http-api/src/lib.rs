//! The HTTP API. The route table is data ([`routes::table`]); this crate alone knows status codes.

mod error;
mod handlers;
mod intake;
mod linger;
mod reply;
mod route;
pub mod routes;
mod service;

use std::sync::Arc;

use mws_a2a_proxy::Proxy;
use mws_db::Db;
use mws_events::{Hub, ParentMap};
use mws_lifecycle::Lifecycle;
use mws_registry_sweepers::Registry;
use mws_runtime::tasks::Spawner;
use mws_wsauth::Authenticator;

pub use error::ApiError;
pub use route::{AuthClass, Route};
pub use service::router;

/// The services that the routes call. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    inner: Arc<ApiParts>,
}

/// The parts of the API.
pub struct ApiParts {
    pub db: Db,
    pub lifecycle: Lifecycle,
    pub registry: Registry,
    pub proxy: Proxy,
    pub hub: Hub,
    pub parents: Arc<ParentMap>,
    pub auth: Authenticator,
    pub spawner: Spawner,
    /// Fixed at build time (1.R156).
    pub git_sha: &'static str,
}

impl Api {
    /// Builds the API.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        Self { inner: Arc::new(parts) }
    }

    fn parts(&self) -> &ApiParts {
        &self.inner
    }

    fn db(&self) -> &Db {
        &self.inner.db
    }

    fn auth(&self) -> &Authenticator {
        &self.inner.auth
    }
}
