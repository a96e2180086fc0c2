use std::fmt;

/// Which configured key could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyName {
    /// `SECRETS_ENCRYPTION_KEY`.
    Primary,
    /// An entry of `SECRETS_ENCRYPTION_KEYS_OLD`, counted from 1.
    Old(usize),
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("SECRETS_ENCRYPTION_KEY"),
            Self::Old(position) => write!(f, "SECRETS_ENCRYPTION_KEYS_OLD (entry {position})"),
        }
    }
}

/// Why a configured key could not be used. Never carries any of the key's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Valid base64 of a length that is not 32 bytes.
    #[error("decoded to {0} bytes")]
    Length(usize),
    /// Neither hexadecimal, nor base64, nor 32 raw bytes.
    #[error("not base64 and not 32 bytes")]
    Format,
}

/// A configured key is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{key} is not a usable 32-byte key: {fault}")]
pub struct KeyError {
    /// The key that was refused.
    pub key: KeyName,
    /// The reason.
    pub fault: KeyFault,
}

/// A value could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random bytes for the nonce.
    #[error("no random bytes for a nonce")]
    Random,
    /// The owner or the name of the binding is longer than 65,535 bytes.
    #[error("the name of the secret is too long to be bound")]
    BindingTooLong,
    /// The value is larger than the cipher takes (256 GiB).
    #[error("the value is too large to be sealed")]
    ValueTooLarge,
}

/// A stored value could not be opened. The stored bytes are never handed out instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The version column names a format that this crate does not know.
    #[error("unknown encryption version {0}")]
    UnknownVersion(i32),
    /// The value is encrypted and no key is configured.
    #[error("the value is encrypted and no key is configured")]
    NoKey,
    /// The value was sealed with a key that is not in the ring.
    #[error("the value was sealed with a key that is not configured")]
    UnknownKey,
    /// The bytes do not have the shape of their format.
    #[error("the stored value is malformed")]
    Malformed,
    /// Authentication failed: the bytes were changed, belong to another row, or need another key.
    #[error("the stored value does not decrypt")]
    Rejected,
    /// The opened value is not UTF-8 where text is expected.
    #[error("the stored value is not text")]
    NotText,
}
