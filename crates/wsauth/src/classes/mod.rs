//! The auth classes. Each is one function that reads its table of contract 5 §5 from the top; a lookup is made
//! only when a row needs it.

mod admin;
mod discovery;
mod lookups;
mod peer;
mod registry;
mod socket;
mod workspace;

#[cfg(test)]
mod fake;

use std::sync::Arc;

pub use discovery::{DiscoveryPass, DiscoveryRoute};
pub use lookups::LOOKUP_DEADLINE;
use lookups::Lookups;
pub use peer::{CallerProof, PeerCaller};
pub use registry::RegistryPass;
pub use socket::SocketAgent;

use crate::{AuthPolicy, Credentials, TokenStore};

/// Decides who a request's caller is and whether its class lets it in.
///
/// Cheap to clone. Every async function only reads: it may be cancelled at any await. Each lookup it makes is
/// given [`LOOKUP_DEADLINE`].
#[derive(Clone)]
pub struct Authenticator {
    lookups: Lookups,
    policy: Arc<AuthPolicy>,
}

impl Authenticator {
    /// Joins a store and a policy.
    #[must_use]
    pub fn new(store: Arc<dyn TokenStore>, policy: AuthPolicy) -> Self {
        Self { lookups: Lookups::new(store), policy: Arc::new(policy) }
    }

    /// The settings that it decides by.
    #[must_use]
    pub fn policy(&self) -> &AuthPolicy {
        &self.policy
    }

    /// Dev-open within the limits of 5.R82.
    fn dev_open(&self, credentials: &Credentials<'_>) -> bool {
        self.policy.dev_open() && self.policy.open_tier_allowed(credentials)
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("policy", &self.policy).finish_non_exhaustive()
    }
}
