//! Secrets at rest and secrets in text.
//!
//! [`KeyRing`] seals values into an authenticated envelope that is bound to the row it belongs to, and opens
//! every format that earlier rows hold. [`redact`] removes what looks like a credential from text that is about
//! to be stored or logged.
//!
//! Nothing here does I/O apart from asking the operating system for random nonces. Keys and opened values live
//! in buffers that are zeroed on drop, and no type of this crate prints them.

#![warn(missing_docs)]

mod binding;
mod envelope;
mod error;
mod key;
mod plaintext;
mod redact;
mod text;

pub use binding::Binding;
pub use envelope::{Sealed, VERSION_AES_GCM, VERSION_ENVELOPE, VERSION_PLAINTEXT};
pub use error::{KeyError, KeyFault, KeyName, OpenError, SealError};
pub use key::KeyRing;
pub use plaintext::Plaintext;
pub use redact::redact;
pub use text::{OpenedText, TEXT_PREFIX};
