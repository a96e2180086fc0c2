//! What a request says about who sends it.

use std::net::IpAddr;

use crate::Bearer;

/// The parts of a request that the classes look at, and nothing else of it.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The bearer, read with [`Bearer::from_header`].
    pub bearer: Option<Bearer<'a>>,
    /// `Origin`, if sent.
    pub origin: Option<&'a str>,
    /// `Host` (or HTTP/2's `:authority`), if sent, port included.
    pub host: Option<&'a str>,
    /// The address of the TCP peer, whatever a proxy's headers say (5.R82).
    pub peer: IpAddr,
    /// `X-Workspace-ID`, if sent: a claim, not yet believed. A value that is no text is given lossily decoded.
    pub claimed_workspace: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// The claimed workspace; an empty header counts as absent.
    #[must_use]
    pub fn claim(&self) -> Option<&'a str> {
        self.claimed_workspace.filter(|claim| !claim.is_empty())
    }
}
