use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{KeyError, KeyFault, KeyName};

/// Bytes of a key, raw and derived.
pub(crate) const KEY_LEN: usize = 32;
/// Bytes of a key id.
pub(crate) const KEY_ID_LEN: usize = 4;

const KEY_ID_CONTEXT: &[u8] = b"mws-kid-v1";
const ENVELOPE_CONTEXT: &[u8] = b"mws-secrets-v2";

/// Padded base64 whose unused last bits may be set: keys in use today were accepted that way.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

type KeyBytes = Zeroizing<[u8; KEY_LEN]>;

/// One key and what is derived from it. Boxed so that moving it leaves no copy behind.
pub(crate) struct Key {
    pub(crate) id: [u8; KEY_ID_LEN],
    /// Used as it is by version 1.
    pub(crate) raw: Box<KeyBytes>,
    /// The ChaCha20-Poly1305 key of version 2.
    pub(crate) envelope: Box<KeyBytes>,
}

impl Key {
    fn new(raw: Box<KeyBytes>) -> Self {
        let digest = Sha256::new().chain_update(KEY_ID_CONTEXT).chain_update(raw.as_slice()).finalize();
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&digest[..KEY_ID_LEN]);

        let mut envelope = Box::new(KeyBytes::default());
        #[expect(clippy::expect_used, reason = "HKDF-SHA256 fails only beyond 255 × 32 bytes of output")]
        Hkdf::<Sha256>::new(None, raw.as_slice())
            .expand(ENVELOPE_CONTEXT, envelope.as_mut_slice())
            .expect("32 bytes are within HKDF's limit");
        Self { id, raw, envelope }
    }

    /// 5.R129: hexadecimal, else base64, else raw; the first that yields 32 bytes wins.
    fn parse(text: &str) -> Result<Self, KeyFault> {
        let mut raw = Box::new(KeyBytes::default());
        if decode_hex(text, &mut raw) {
            return Ok(Self::new(raw));
        }
        let decoded = KEY_BASE64.decode(text).map(Zeroizing::new);
        if let Ok(bytes) = &decoded
            && bytes.len() == KEY_LEN
        {
            raw.copy_from_slice(bytes);
            return Ok(Self::new(raw));
        }
        if text.len() == KEY_LEN {
            raw.copy_from_slice(text.as_bytes());
            return Ok(Self::new(raw));
        }
        Err(match decoded {
            Ok(bytes) => KeyFault::Length(bytes.len()),
            Err(_) => KeyFault::Format,
        })
    }
}

fn decode_hex(text: &str, out: &mut [u8; KEY_LEN]) -> bool {
    if text.len() != 2 * KEY_LEN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return false;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    };
    for (target, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *target = digit(pair[0]) << 4 | digit(pair[1]);
    }
    true
}

/// The keys that this process seals and opens with. Cheap to clone; prints no key.
#[derive(Clone, Default)]
pub struct KeyRing {
    inner: Arc<Ring>,
}

#[derive(Default)]
struct Ring {
    keys: Vec<Key>,
    /// Whether `keys[0]` is the primary; without one, values are only read.
    has_primary: bool,
}

impl KeyRing {
    /// A ring without keys: values are stored as they are, and encrypted ones cannot be opened.
    #[must_use]
    pub fn disabled() -> Self {
        Self::default()
    }

    /// Reads the primary key and the comma-separated list of keys that are kept for reading.
    ///
    /// Each key, without trailing CR and LF, is 64 hexadecimal digits, padded base64 of 32 bytes, or 32 raw
    /// bytes. An empty primary and empty list entries count as absent. With old keys alone, values are opened
    /// but new ones are stored as they are.
    ///
    /// # Errors
    /// The first key that is none of these, by name and reason.
    pub fn parse(primary: Option<&str>, old: Option<&str>) -> Result<Self, KeyError> {
        let strip = |text| str::trim_end_matches(text, ['\r', '\n']);
        let primary = primary.map(strip).filter(|text| !text.is_empty());

        let mut keys = Vec::new();
        if let Some(text) = primary {
            keys.push(Key::parse(text).map_err(|fault| KeyError { key: KeyName::Primary, fault })?);
        }
        for (index, text) in old.unwrap_or_default().split(',').map(strip).enumerate() {
            if !text.is_empty() {
                let name = KeyName::Old(index + 1);
                keys.push(Key::parse(text).map_err(|fault| KeyError { key: name, fault })?);
            }
        }
        Ok(Self { inner: Arc::new(Ring { keys, has_primary: primary.is_some() }) })
    }

    /// Whether new values are encrypted: a primary key is configured.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.inner.has_primary
    }

    pub(crate) fn primary(&self) -> Option<&Key> {
        self.inner.keys.first().filter(|_| self.inner.has_primary)
    }

    /// Every key, the primary first.
    pub(crate) fn keys(&self) -> &[Key] {
        &self.inner.keys
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("enabled", &self.is_enabled()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn raw(text: &str) -> Result<[u8; KEY_LEN], KeyFault> {
        Key::parse(text).map(|key| **key.raw)
    }

    fn counting() -> [u8; KEY_LEN] {
        std::array::from_fn(|index| index as u8)
    }

    #[test]
    fn derives_the_published_id_and_key() {
        // 5.R130
        let key = Key::parse(HEX).unwrap();
        assert_eq!(key.id, [0x83, 0x75, 0xd8, 0x3c]);
        let mut expected = [0; KEY_LEN];
        assert!(decode_hex(
            "58db2dd4ac66b7519c888b80f420ef0f5ec90346f6b971bad0f08f029faaeb13",
            &mut expected
        ));
        assert_eq!(**key.envelope, expected);
    }

    #[test]
    fn reads_each_key_format() {
        // 5.R129
        assert_eq!(raw(HEX), Ok(counting()));
        assert_eq!(raw(&HEX.to_uppercase()), Ok(counting()));
        assert_eq!(raw("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), Ok(counting()));
        // 32 characters that are also base64 of 24 bytes are raw bytes.
        let ambiguous = "abcdefghijklmnopqrstuvwxyz012345";
        assert_eq!(raw(ambiguous).unwrap(), ambiguous.as_bytes());
        // 32 bytes, not characters.
        let wide = "ééééééééééééüüüü";
        assert_eq!(raw(wide).unwrap(), wide.as_bytes());
    }

    #[test]
    fn refuses_unusable_keys_without_quoting_them() {
        // 5.R129
        assert_eq!(raw("c2hvcnQ="), Err(KeyFault::Length(5)));
        assert_eq!(raw(&"AAAA".repeat(12)), Err(KeyFault::Length(36)));
        assert_eq!(raw(&HEX[..62]), Err(KeyFault::Format));
        assert_eq!(raw("not a key!"), Err(KeyFault::Format));
        // Unpadded base64 is not the standard form.
        assert_eq!(raw("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"), Err(KeyFault::Format));

        let error = KeyRing::parse(Some("hunter2hunter2!"), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "SECRETS_ENCRYPTION_KEY is not a usable 32-byte key: not base64 and not 32 bytes"
        );
        let error = KeyRing::parse(Some(HEX), Some(&format!("{HEX},c2hvcnQ="))).unwrap_err();
        assert_eq!(error, KeyError { key: KeyName::Old(2), fault: KeyFault::Length(5) });
        assert_eq!(
            error.to_string(),
            "SECRETS_ENCRYPTION_KEYS_OLD (entry 2) is not a usable 32-byte key: decoded to 5 bytes"
        );
    }

    #[test]
    fn strips_line_ends_and_skips_empty_entries() {
        // 5.R129
        let ring = KeyRing::parse(Some(&format!("{HEX}\r\n")), Some(&format!(",{HEX}\n,"))).unwrap();
        assert!(ring.is_enabled());
        assert_eq!(ring.keys().len(), 2);
        assert_eq!(**ring.keys()[1].raw, counting());
        // Only the end, and only line ends.
        assert!(KeyRing::parse(Some(&format!("{HEX} ")), None).is_err());

        let empty = KeyRing::parse(Some("\n"), Some("")).unwrap();
        assert!(!empty.is_enabled());
        assert!(empty.keys().is_empty());
    }

    #[test]
    fn debug_shows_no_key() {
        // 5.R131
        let ring = KeyRing::parse(Some(HEX), None).unwrap();
        assert_eq!(format!("{ring:?}"), "KeyRing { enabled: true, .. }");
    }
}
