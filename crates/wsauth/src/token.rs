//! Opaque tokens: minting, hashing, and a wrapper that keeps the plaintext out of logs and of freed memory.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::Bearer;

/// Random bytes in a token (contract 5 §1).
const ENTROPY: usize = 32;

/// Characters of a minted token: 32 bytes as base64url without padding.
pub const TOKEN_LEN: usize = 43;

/// Characters of a token that are stored and shown in the clear, to tell tokens apart.
pub const PREFIX_LEN: usize = 8;

const REDACTED: &str = "[redacted]";

/// The operating system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no randomness from the operating system")]
pub struct MintError;

/// The plaintext of a token. `Debug`, `Display` and serde show `[redacted]`; dropping it clears its memory.
#[derive(Clone)]
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    /// A new token: 32 bytes of the operating system's CSPRNG, as 43 characters of `[A-Za-z0-9_-]`.
    ///
    /// # Errors
    /// [`MintError`] when the operating system gives no randomness.
    pub fn mint() -> Result<Self, MintError> {
        let mut bytes = Zeroizing::new([0_u8; ENTROPY]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| MintError)?;
        // Written straight into the buffer that is kept, so that no copy is left behind.
        let mut text = vec![0_u8; TOKEN_LEN];
        URL_SAFE_NO_PAD.encode_slice(bytes.as_slice(), &mut text).map_err(|_| MintError)?;
        String::from_utf8(text).map(Self::from).map_err(|_| MintError)
    }

    /// The plaintext. Only for the one reply that hands it out, or for delivery into the workspace itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for BearerToken {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for BearerToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// SHA-256 of a token's plaintext: what is stored, and the only key by which a token is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a plaintext's bytes.
    #[must_use]
    pub fn of(plaintext: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(plaintext.as_ref()).into())
    }

    /// The 32 bytes as they are stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in constant time. Both sides are digests, so not even the length of a secret shows (5.R3).
    #[must_use]
    pub fn constant_time_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl From<Bearer<'_>> for TokenHash {
    fn from(bearer: Bearer<'_>) -> Self {
        Self::of(bearer.as_bytes())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// A minted token together with what is stored of it.
#[derive(Debug)]
pub struct NewToken {
    /// The plaintext, to be handed out once.
    pub token: BearerToken,
    /// What the store keeps.
    pub hash: TokenHash,
    /// The first [`PREFIX_LEN`] characters, stored and shown in lists.
    pub prefix: String,
}

impl NewToken {
    /// Mints a token.
    ///
    /// # Errors
    /// [`MintError`] when the operating system gives no randomness.
    pub fn mint() -> Result<Self, MintError> {
        let token = BearerToken::mint()?;
        let hash = TokenHash::of(token.expose());
        let prefix = token.expose().chars().take(PREFIX_LEN).collect();
        Ok(Self { token, hash, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_has_the_contracts_shape() {
        // 5.R6, 5.R200
        let (a, b) = (NewToken::mint().unwrap(), NewToken::mint().unwrap());
        assert_ne!(a.token.expose(), b.token.expose());
        assert_ne!(a.hash, b.hash);
        for new in [a, b] {
            let text = new.token.expose();
            assert_eq!(text.len(), TOKEN_LEN);
            assert!(text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-'), "{text}");
            assert_eq!(URL_SAFE_NO_PAD.decode(text).unwrap().len(), ENTROPY);
            assert_eq!(new.prefix, text[..8]);
            assert_eq!(new.hash, TokenHash::of(text));
        }
    }

    #[test]
    fn the_hash_is_the_sha256_of_the_plaintext() {
        // 5.R9: the vector of FIPS 180-2
        let hex: String = TokenHash::of("abc").as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn the_plaintext_leaves_only_by_expose() {
        // 5.B2
        let new = NewToken::mint().unwrap();
        let plain = new.token.expose();
        assert_eq!(format!("{} {:?}", new.token, new.token), "[redacted] [redacted]");
        assert_eq!(serde_json::to_string(&new.token).unwrap(), "\"[redacted]\"");
        assert!(!format!("{new:?}").contains(plain));
    }

    #[test]
    fn comparison_needs_no_equal_length() {
        // 5.R3
        let hash = TokenHash::of("secret");
        assert!(hash.constant_time_eq(&TokenHash::of("secret")));
        for other in ["", "secre", "secret ", "secretsecret"] {
            assert!(!hash.constant_time_eq(&TokenHash::of(other)), "{other:?}");
        }
    }
}
