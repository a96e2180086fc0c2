use std::ops::Deref;

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::OpenError;

/// An opened value. Zeroed on drop; has no `Debug`, so that it cannot reach a log by accident.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The value as text.
    ///
    /// # Errors
    /// [`OpenError::NotText`] when it is not UTF-8.
    pub fn into_text(self) -> Result<SecretString, OpenError> {
        let text = std::str::from_utf8(&self.0).map_err(|_| OpenError::NotText)?;
        Ok(SecretString::from(text))
    }
}

impl Deref for Plaintext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
