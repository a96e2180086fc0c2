//! Authentication and authorisation of the workspace server: what a bearer is, how tokens are minted and
//! recognised, and what each auth class of the contract decides.
//!
//! The crate knows no HTTP library and no database. A server fills in [`Credentials`] from a request, brings a
//! [`TokenStore`] and an [`AuthPolicy`], and asks the [`Authenticator`]; the answer is a value that names the
//! [`Caller`], or a [`Denied`] that the server must send and after which nothing else runs.
//!
//! Every decision fails closed: a store that does not answer yields [`Denied::Unavailable`], never a pass and
//! never "invalid token".

#![warn(missing_docs)]

mod bearer;
mod caller;
mod classes;
mod credentials;
mod denied;
mod policy;
mod store;
mod token;

pub use bearer::Bearer;
pub use caller::Caller;
pub use classes::{
    Authenticator, CallerProof, DiscoveryPass, DiscoveryRoute, LOOKUP_DEADLINE, PeerCaller, RegistryPass,
    SocketAgent,
};
pub use credentials::Credentials;
pub use denied::Denied;
pub use policy::{AdminToken, AuthPolicy, Environment, host_name, is_local_peer, origin_allowed};
pub use store::{GateRow, OrgToken, StoreFailure, TokenStore, UsedToken, WorkspaceToken};
pub use token::{BearerToken, MintError, NewToken, PREFIX_LEN, TOKEN_LEN, TokenHash};
