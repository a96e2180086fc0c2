//! The one door to an agent: it enforces hierarchy and budget, repairs the payload, delivers it, classifies
//! what went wrong and records what happened (contract 4 §1).
//!
//! Who calls is settled before: [`Call::caller`] is what authentication proved. [`Proxy::call`] runs to its end
//! whatever becomes of the caller's connection; spawn it detached.

#![warn(missing_docs)]

mod call;
mod dispatch;
mod log;
mod members;
mod normalise;
mod proxy;
mod reply;
mod stream;

pub use call::{AgentControl, AgentReply, Call, CallError, CallerClass, Outcome, StreamReply};
pub use normalise::{Generation, Normalised, Rejection, normalise};
pub use proxy::{Proxy, ProxyOptions, ProxyParts};
