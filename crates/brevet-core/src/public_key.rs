//! A public key as data: what a certificate is made over. Nothing here parses or uses it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::serde_as_text;

/// The most bytes of a key's DER: RSA with 8,192 bits takes 1,062.
pub const PUBLIC_KEY_BYTES_MAX: usize = 1_100;

/// A string that is not a public key's DER in canonical base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not at most {PUBLIC_KEY_BYTES_MAX} bytes in base64url without padding")]
pub struct InvalidPublicKey;

/// The DER of a `SubjectPublicKeyInfo` (RFC 5280 §4.1). As text: base64url without padding.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey(Arc<[u8]>);

impl PublicKey {
    /// A key from its DER, which whoever has it has parsed.
    ///
    /// # Errors
    /// [`InvalidPublicKey`] if there is none, or it is longer than any key that is taken.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidPublicKey> {
        if der.is_empty() || der.len() > PUBLIC_KEY_BYTES_MAX {
            Err(InvalidPublicKey)
        } else {
            Ok(Self(der.into()))
        }
    }

    /// The DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidPublicKey;
    fn from_str(text: &str) -> Result<Self, InvalidPublicKey> {
        Self::from_der(&URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidPublicKey)?)
    }
}

serde_as_text!(PublicKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_nothing_longer_is_one() {
        let key = PublicKey::from_der(&[7; 91]).unwrap();
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        assert_eq!(key.as_der(), [7; 91]);
        assert!(PublicKey::from_der(&[]).is_err());
        assert!(PublicKey::from_der(&[0; PUBLIC_KEY_BYTES_MAX + 1]).is_err());
        assert!(format!("{key}=").parse::<PublicKey>().is_err());
    }
}
