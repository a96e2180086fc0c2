use std::fmt;

use aes_gcm::Aes256Gcm;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead as _, AeadInOut as _, KeyInit as _, Payload};

use crate::key::{KEY_ID_LEN, Key};
use crate::{Binding, KeyRing, OpenError, Plaintext, SealError};

/// Version of a value that is stored as it is.
pub const VERSION_PLAINTEXT: i32 = 0;
/// Version of earlier rows: AES-256-GCM under the raw key, bound to nothing. Only read.
pub const VERSION_AES_GCM: i32 = 1;
/// Version of the bound ChaCha20-Poly1305 envelope.
pub const VERSION_ENVELOPE: i32 = 2;

const FORMAT: u8 = 2;
const CHACHA20_POLY1305: u8 = 1;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Version, algorithm and key id: the part of the envelope that is also associated data.
const HEADER_LEN: usize = 2 + KEY_ID_LEN;
const PREFIX_LEN: usize = HEADER_LEN + NONCE_LEN;

/// What to store: the bytes and the version that says how to read them. Always written together.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The stored bytes; without a primary key these are the plaintext.
    pub bytes: Vec<u8>,
    /// [`VERSION_ENVELOPE`] with a primary key, [`VERSION_PLAINTEXT`] without.
    pub version: i32,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("version", &self.version).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Seals a value for its row: an envelope under the primary key, or the bytes as they are without one.
    ///
    /// The envelope is 34 bytes longer than the value.
    ///
    /// # Errors
    /// [`SealError`]; nothing is to be stored then.
    pub fn seal(&self, binding: &Binding<'_>, plaintext: &[u8]) -> Result<Sealed, SealError> {
        let Some(key) = self.primary() else {
            return Ok(Sealed { bytes: plaintext.to_vec(), version: VERSION_PLAINTEXT });
        };
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
        let bytes = seal_envelope(key, nonce, binding, plaintext)?;
        Ok(Sealed { bytes, version: VERSION_ENVELOPE })
    }

    /// Opens a stored value of any version.
    ///
    /// Bytes tagged [`VERSION_PLAINTEXT`] that authenticate as [`VERSION_AES_GCM`] under a key of the ring are
    /// decrypted: an earlier bulk import wrote ciphertext under that tag.
    ///
    /// # Errors
    /// [`OpenError`]; an encrypted value is never handed out undecrypted.
    pub fn open(&self, binding: &Binding<'_>, bytes: &[u8], version: i32) -> Result<Plaintext, OpenError> {
        match version {
            VERSION_PLAINTEXT => {
                let may_be_mistagged = bytes.len() > NONCE_LEN + TAG_LEN;
                let opened = may_be_mistagged.then(|| self.open_aes_gcm(bytes).ok()).flatten();
                Ok(opened.unwrap_or_else(|| Plaintext::new(bytes.to_vec())))
            }
            VERSION_AES_GCM => self.open_aes_gcm(bytes),
            VERSION_ENVELOPE => self.open_envelope(binding, bytes),
            other => Err(OpenError::UnknownVersion(other)),
        }
    }

    fn open_aes_gcm(&self, bytes: &[u8]) -> Result<Plaintext, OpenError> {
        if self.keys().is_empty() {
            return Err(OpenError::NoKey);
        }
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(OpenError::Malformed)?;
        if ciphertext.len() < TAG_LEN {
            return Err(OpenError::Malformed);
        }
        self.keys()
            .iter()
            .find_map(|key| {
                let cipher = Aes256Gcm::new((&**key.raw).into());
                cipher.decrypt(&(*nonce).into(), ciphertext).ok()
            })
            .map(Plaintext::new)
            .ok_or(OpenError::Rejected)
    }

    fn open_envelope(&self, binding: &Binding<'_>, bytes: &[u8]) -> Result<Plaintext, OpenError> {
        if self.keys().is_empty() {
            return Err(OpenError::NoKey);
        }
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(OpenError::Malformed)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(OpenError::Malformed)?;
        let [FORMAT, CHACHA20_POLY1305, key_id @ ..] = header else {
            return Err(OpenError::Malformed);
        };
        if ciphertext.len() < TAG_LEN {
            return Err(OpenError::Malformed);
        }
        // No row can have been sealed for a binding that has no associated data.
        let aad = binding.associated_data(header).ok_or(OpenError::Rejected)?;

        let mut failure = OpenError::UnknownKey;
        // Two keys may share a 4-byte id.
        for key in self.keys().iter().filter(|key| key.id == *key_id) {
            let cipher = ChaCha20Poly1305::new((&**key.envelope).into());
            match cipher.decrypt(&(*nonce).into(), Payload { msg: ciphertext, aad: &aad }) {
                Ok(plaintext) => return Ok(Plaintext::new(plaintext)),
                Err(_) => failure = OpenError::Rejected,
            }
        }
        Err(failure)
    }
}

fn seal_envelope(
    key: &Key,
    nonce: [u8; NONCE_LEN],
    binding: &Binding<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let mut header = [FORMAT, CHACHA20_POLY1305, 0, 0, 0, 0];
    header[2..].copy_from_slice(&key.id);
    let aad = binding.associated_data(&header).ok_or(SealError::BindingTooLong)?;

    // Sized once and encrypted in place, so that no copy of the plaintext stays behind.
    let mut bytes = Vec::with_capacity(PREFIX_LEN + plaintext.len() + TAG_LEN);
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(plaintext);
    let tag = ChaCha20Poly1305::new((&**key.envelope).into())
        .encrypt_inout_detached(&nonce.into(), &aad, (&mut bytes[PREFIX_LEN..]).into())
        .map_err(|_| SealError::ValueTooLarge)?;
    bytes.extend_from_slice(&tag);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const OTHER_KEY: &str = "2222222222222222222222222222222222222222222222222222222222222222";
    const OWNER: &str = "550e8400-e29b-41d4-a716-446655440000";
    const NAME: &str = "OPENAI_API_KEY";
    const VALUE: &[u8] = b"sk-test-value";
    const NONCE: [u8; NONCE_LEN] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

    const WORKSPACE_ENVELOPE: &str =
        "02018375d83c000102030405060708090a0b7a6d2c349fb1044c20d799469591e8b795eee4b03edf0126dd29bb5d1d";
    const GLOBAL_TAIL: &str = "99469546739227972c83a74de40c1e7ea0cb98";
    const AES_GCM: &str =
        "000102030405060708090a0b3469fb6fa096b636fb20fbfed411e15bb2041604ee0739d87ae50390a5";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn ring(primary: &str, old: &str) -> KeyRing {
        KeyRing::parse(Some(primary), Some(old)).unwrap()
    }

    fn workspace() -> Binding<'static> {
        Binding::workspace(OWNER, NAME)
    }

    fn opened(
        ring: &KeyRing,
        binding: &Binding<'_>,
        bytes: &[u8],
        version: i32,
    ) -> Result<Vec<u8>, OpenError> {
        ring.open(binding, bytes, version).map(|plaintext| plaintext.to_vec())
    }

    #[test]
    fn published_vectors_of_the_envelope() {
        // 5.R130, 5.R132, 5.R133
        let ring = ring(KEY, "");
        let key = ring.primary().unwrap();
        let aad = workspace().associated_data(&hex("02018375d83c")).unwrap();
        assert_eq!(
            aad,
            hex(
                "02018375d83c000a6d77732e7365637265740009776f726b7370616365002435353065383430302d653239622d343164342d613731362d343436363535343430303030000e4f50454e41495f4150495f4b4559"
            )
        );

        let envelope = seal_envelope(key, NONCE, &workspace(), VALUE).unwrap();
        assert_eq!(envelope, hex(WORKSPACE_ENVELOPE));
        assert_eq!(opened(&ring, &workspace(), &envelope, 2).unwrap(), VALUE);

        let global = seal_envelope(key, NONCE, &Binding::global(NAME), VALUE).unwrap();
        assert_eq!(global.len(), envelope.len());
        assert!(global.ends_with(&hex(GLOBAL_TAIL)));
        assert_eq!(opened(&ring, &Binding::global(NAME), &global, 2).unwrap(), VALUE);
    }

    #[test]
    fn published_vector_of_version_1() {
        // 5.R133: the primary, then each old key.
        for ring in [ring(KEY, ""), ring(OTHER_KEY, KEY)] {
            assert_eq!(opened(&ring, &workspace(), &hex(AES_GCM), 1).unwrap(), VALUE);
        }
        assert_eq!(opened(&ring(OTHER_KEY, ""), &workspace(), &hex(AES_GCM), 1), Err(OpenError::Rejected));
        assert_eq!(opened(&ring(KEY, ""), &workspace(), &hex(AES_GCM)[..27], 1), Err(OpenError::Malformed));
    }

    #[test]
    fn writes_the_envelope_with_a_key_and_plaintext_without() {
        // 5.R132
        let sealed = ring(KEY, "").seal(&workspace(), VALUE).unwrap();
        assert_eq!(sealed.version, 2);
        assert_eq!(sealed.bytes.len(), VALUE.len() + 34);
        let again = ring(KEY, "").seal(&workspace(), VALUE).unwrap();
        assert_ne!(sealed.bytes[HEADER_LEN..PREFIX_LEN], again.bytes[HEADER_LEN..PREFIX_LEN]);

        let readers_only = KeyRing::parse(None, Some(KEY)).unwrap();
        for ring in [KeyRing::disabled(), readers_only.clone()] {
            assert!(!ring.is_enabled());
            let stored = ring.seal(&workspace(), VALUE).unwrap();
            assert_eq!((stored.version, stored.bytes.as_slice()), (0, VALUE));
            assert!(!format!("{stored:?}").contains("115, 107"));
        }
        assert_eq!(opened(&readers_only, &workspace(), &sealed.bytes, 2).unwrap(), VALUE);
    }

    #[test]
    fn a_changed_or_cut_byte_never_opens() {
        // 5.R133
        let ring = ring(KEY, "");
        let envelope = hex(WORKSPACE_ENVELOPE);
        let aes_gcm = hex(AES_GCM);
        for (stored, version) in [(&envelope, 2), (&aes_gcm, 1)] {
            for at in 0..stored.len() {
                let mut changed = stored.clone();
                changed[at] ^= 1;
                assert!(
                    opened(&ring, &workspace(), &changed, version).is_err(),
                    "byte {at}, version {version}"
                );
                assert!(opened(&ring, &workspace(), &stored[..at], version).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn another_row_does_not_open() {
        // 5.R135
        let ring = ring(KEY, "");
        let envelope = hex(WORKSPACE_ENVELOPE);
        for binding in [
            Binding::workspace("550e8400-e29b-41d4-a716-446655440001", NAME),
            Binding::workspace(OWNER, "OPENAI_API_KEZ"),
            Binding::global(NAME),
            Binding::inbound(OWNER),
        ] {
            assert_eq!(opened(&ring, &binding, &envelope, 2), Err(OpenError::Rejected));
        }
        // The owner is bound in lower case.
        assert!(opened(&ring, &Binding::workspace(&OWNER.to_uppercase(), NAME), &envelope, 2).is_ok());
    }

    #[test]
    fn parts_of_a_binding_cannot_run_into_each_other() {
        let header = hex("02018375d83c");
        let data = |owner, name| Binding::workspace(owner, name).associated_data(&header).unwrap();
        assert_ne!(data("a", "bc"), data("ab", "c"));

        let long = "n".repeat(65_536);
        assert_eq!(ring(KEY, "").seal(&Binding::global(&long), VALUE), Err(SealError::BindingTooLong));
        assert!(ring(KEY, "").seal(&Binding::global(&long[1..]), VALUE).is_ok());
    }

    #[test]
    fn old_keys_open_and_unknown_keys_do_not() {
        // 5.R133
        let envelope = hex(WORKSPACE_ENVELOPE);
        assert_eq!(opened(&ring(OTHER_KEY, KEY), &workspace(), &envelope, 2).unwrap(), VALUE);
        assert_eq!(opened(&ring(OTHER_KEY, ""), &workspace(), &envelope, 2), Err(OpenError::UnknownKey));
        for (stored, version) in [(&envelope, 2), (&hex(AES_GCM), 1)] {
            assert_eq!(opened(&KeyRing::disabled(), &workspace(), stored, version), Err(OpenError::NoKey));
        }
        for version in [-1, 3, i32::MAX] {
            assert_eq!(
                opened(&ring(KEY, ""), &workspace(), &envelope, version),
                Err(OpenError::UnknownVersion(version))
            );
        }
    }

    #[test]
    fn ciphertext_tagged_as_plaintext_is_taken_over() {
        // 5.R134
        let tagged_wrongly = hex(AES_GCM);
        for ring in [ring(KEY, ""), ring(OTHER_KEY, KEY)] {
            assert_eq!(opened(&ring, &workspace(), &tagged_wrongly, 0).unwrap(), VALUE);
        }
        // What does not authenticate is plaintext, of any length.
        let long_text = b"a long value that is no ciphertext at all";
        assert_eq!(opened(&ring(KEY, ""), &workspace(), long_text, 0).unwrap(), long_text);
        assert_eq!(opened(&ring(OTHER_KEY, ""), &workspace(), &tagged_wrongly, 0).unwrap(), tagged_wrongly);
        assert_eq!(opened(&KeyRing::disabled(), &workspace(), &tagged_wrongly, 0).unwrap(), tagged_wrongly);
        for short in [&b""[..], b"short"] {
            assert_eq!(opened(&ring(KEY, ""), &workspace(), short, 0).unwrap(), short);
        }
    }

    #[test]
    fn an_empty_value_is_kept_apart_from_an_empty_row() {
        // 5.T22
        let sealed = ring(KEY, "").seal(&workspace(), b"").unwrap();
        assert_eq!(sealed.bytes.len(), 34);
        assert_eq!(opened(&ring(KEY, ""), &workspace(), &sealed.bytes, 2).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..120), version in -1i32..4, header: bool) {
            let mut bytes = bytes;
            if header && bytes.len() >= HEADER_LEN {
                bytes[..HEADER_LEN].copy_from_slice(&hex("02018375d83c"));
            }
            let outcome = opened(&ring(KEY, OTHER_KEY), &workspace(), &bytes, version);
            prop_assert_eq!(outcome.is_ok(), version == 0);
        }

        #[test]
        fn values_round_trip(value in prop::collection::vec(any::<u8>(), 0..300), name in ".{0,40}") {
            for ring in [ring(KEY, ""), KeyRing::disabled()] {
                let sealed = ring.seal(&Binding::workspace(OWNER, &name), &value).unwrap();
                prop_assert_eq!(opened(&ring, &Binding::workspace(OWNER, &name), &sealed.bytes, sealed.version), Ok(value.clone()));
            }
        }
    }
}
