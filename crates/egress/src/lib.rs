//! The one way out over HTTP.
//!
//! Two policies share this crate. Addresses that **agents** report are judged by [`AgentGuard`] and dialled by
//! [`AgentClient`], which judges again while it connects and goes only to an address it has judged: no name is
//! resolved between the check and the connection, no redirect is followed, no proxy is used. Base URLs that the
//! **operator** configured are called through [`OperatorClient`], which trusts the address but bounds the answer.
//!
//! No error of this crate carries the text of a resolver, a host, an upstream or an address.

#![warn(missing_docs)]

mod address;
mod agent;
mod guard;
mod operator;
mod resolve;
#[cfg(test)]
mod test_server;
mod tls;

pub use address::BlockedAddress;
pub use agent::{AgentBody, AgentClient, AgentRequest, AgentResponse, BodyError, DispatchError};
pub use guard::{AgentGuard, GuardMode, MAX_URL_CHARS, Refusal, Trust};
pub use operator::{OperatorClient, OperatorError, OperatorRequest, OperatorResponse};
pub use resolve::{RESOLVE_DEADLINE, Resolve, SystemResolver};
pub use tls::install_crypto;
pub use url::Url;
