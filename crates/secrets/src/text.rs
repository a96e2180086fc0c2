use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use crate::envelope::VERSION_ENVELOPE;
use crate::{Binding, KeyRing, OpenError, SealError};

/// Marks text that is a sealed envelope in base64; anything else is plaintext.
pub const TEXT_PREFIX: &str = "ec2:";

/// What [`KeyRing::open_text`] found. `Debug` prints no part of the secret.
#[derive(Debug)]
pub struct OpenedText {
    /// The secret.
    pub secret: SecretString,
    /// The stored text is plaintext although a key is configured: the caller replaces it by a sealed one, by
    /// compare-and-swap on the old text.
    pub rewrite: bool,
}

impl KeyRing {
    /// Seals text for a text column: [`TEXT_PREFIX`] and the envelope in base64, or the text itself when the
    /// ring has no primary key.
    ///
    /// # Errors
    /// As [`KeyRing::seal`].
    pub fn seal_text(&self, binding: &Binding<'_>, text: &str) -> Result<String, SealError> {
        if !self.is_enabled() {
            return Ok(text.to_owned());
        }
        let sealed = self.seal(binding, text.as_bytes())?;
        let mut stored = String::from(TEXT_PREFIX);
        STANDARD.encode_string(&sealed.bytes, &mut stored);
        Ok(stored)
    }

    /// Opens what [`KeyRing::seal_text`] stored, and plaintext of earlier times.
    ///
    /// # Errors
    /// Prefixed text that is malformed, that no key opens, or for which there is no key: [`OpenError`]. The
    /// stored text is then never handed out.
    pub fn open_text(&self, binding: &Binding<'_>, stored: &str) -> Result<OpenedText, OpenError> {
        let Some(encoded) = stored.strip_prefix(TEXT_PREFIX) else {
            return Ok(OpenedText { secret: SecretString::from(stored), rewrite: self.is_enabled() });
        };
        let envelope = STANDARD.decode(encoded).map_err(|_| OpenError::Malformed)?;
        let secret = self.open(binding, &envelope, VERSION_ENVELOPE)?.into_text()?;
        Ok(OpenedText { secret, rewrite: false })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const OWNER: &str = "550e8400-e29b-41d4-a716-446655440000";

    fn ring() -> KeyRing {
        KeyRing::parse(Some(&"42".repeat(32)), None).unwrap()
    }

    #[test]
    fn text_round_trips_behind_its_prefix() {
        // 5.R28
        let binding = Binding::inbound(OWNER);
        let stored = ring().seal_text(&binding, "inbound-secret").unwrap();
        assert!(stored.starts_with("ec2:"));
        let opened = ring().open_text(&binding, &stored).unwrap();
        assert_eq!(opened.secret.expose_secret(), "inbound-secret");
        assert!(!opened.rewrite);
        assert!(!format!("{opened:?}").contains("inbound-secret"));
    }

    #[test]
    fn plaintext_of_earlier_times_is_used_and_marked_for_rewriting() {
        // 5.R28
        let binding = Binding::inbound(OWNER);
        let opened = ring().open_text(&binding, "plain").unwrap();
        assert_eq!(opened.secret.expose_secret(), "plain");
        assert!(opened.rewrite);

        let disabled = KeyRing::disabled();
        assert_eq!(disabled.seal_text(&binding, "plain").unwrap(), "plain");
        assert!(!disabled.open_text(&binding, "plain").unwrap().rewrite);
    }

    #[test]
    fn prefixed_text_that_does_not_open_is_an_error() {
        // 5.R28
        let binding = Binding::inbound(OWNER);
        let stored = ring().seal_text(&binding, "inbound-secret").unwrap();
        let error = |ring: &KeyRing, binding: &Binding<'_>, stored: &str| {
            ring.open_text(binding, stored).unwrap_err()
        };

        assert_eq!(error(&KeyRing::disabled(), &binding, &stored), OpenError::NoKey);
        let other = KeyRing::parse(Some(&"43".repeat(32)), None).unwrap();
        assert_eq!(error(&other, &binding, &stored), OpenError::UnknownKey);
        let neighbour = Binding::inbound("550e8400-e29b-41d4-a716-446655440001");
        assert_eq!(error(&ring(), &neighbour, &stored), OpenError::Rejected);
        assert_eq!(
            error(&ring(), &Binding::workspace(OWNER, "platform_inbound_secret"), &stored),
            OpenError::Rejected
        );
        assert_eq!(error(&ring(), &binding, "ec2:not base64"), OpenError::Malformed);
        assert_eq!(error(&ring(), &binding, "ec2:"), OpenError::Malformed);
    }
}
