//! SHA-256 digests, each with a type that says what was hashed. As text: base64url without padding.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::id::serde_as_text;

/// A string that is not 32 bytes in canonical base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not 32 bytes in base64url without padding")]
pub struct InvalidDigest;

/// Of 32 bytes.
const TEXT_LENGTH: usize = 43;

fn text<'a>(digest: &[u8; 32], room: &'a mut [u8; TEXT_LENGTH]) -> &'a str {
    // The room is as long as the text, and the text is ASCII.
    let written = URL_SAFE_NO_PAD.encode_slice(digest, room).map_or(&[][..], |_| room);
    std::str::from_utf8(written).unwrap_or_default()
}

macro_rules! digest {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type([u8; 32]);

        impl $type {
            /// A digest computed elsewhere.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Hashes the parts in order, each behind its length, under a label that no other digest here uses.
            #[must_use]
            pub fn of(parts: &[&[u8]]) -> Self {
                let mut hasher = Sha256::new();
                hasher.update(concat!("brevet:", stringify!($type), "\0"));
                for part in parts {
                    hasher.update((part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
                Self(hasher.finalize().into())
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(text(&self.0, &mut [0; TEXT_LENGTH]))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = InvalidDigest;
            fn from_str(text: &str) -> Result<Self, InvalidDigest> {
                let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidDigest)?;
                bytes.try_into().map(Self).map_err(|_| InvalidDigest)
            }
        }

        serde_as_text!($type, digest => text(&digest.0, &mut [0; TEXT_LENGTH]));
    };
}

digest!(
    /// The RFC 7638 thumbprint of a public key: a token's `cnf.jkt`, the identity of one agent instance.
    Thumbprint
);
digest!(
    /// The SHA-256 of a DER certificate: a token's `cnf.x5t#S256` (RFC 8705 §3.1).
    CertificateDigest
);
digest!(
    /// A set of policies, as loaded.
    PolicyDigest
);
digest!(
    /// The registry: tenants, audiences, agents, orchestrators and operators, as loaded.
    RegistryDigest
);
digest!(
    /// The bundles that callers are verified by, as loaded.
    TrustDigest
);
digest!(
    /// A bearer's token: all that was signed of it, and not the signature, of which there may be more than one.
    BearerDigest
);
digest!(
    /// A request's body, by which a retry is told from another request with the same id.
    RequestDigest
);
digest!(
    /// One hop of a delegation chain and, through it, every hop before.
    HopDigest
);
digest!(
    /// A one-time claim value, of which the journal never holds more than this. It is compared like any other digest: what the
    /// time of that could tell is of the digest, from which nobody gets the 128 bits of the claim.
    ClaimDigest
);
digest!(
    /// The state of a ledger or of the whole table, as a snapshot records it.
    StateDigest
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_labels_are_kept_apart() {
        assert_ne!(HopDigest::of(&[b"ab", b"c"]), HopDigest::of(&[b"a", b"bc"]));
        assert_ne!(HopDigest::of(&[b"a"]).as_bytes(), ClaimDigest::of(&[b"a"]).as_bytes());
    }

    #[test]
    fn text_is_canonical_base64url() {
        let digest = Thumbprint::of(&[b"x"]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!(format!("{digest}=").parse::<Thumbprint>().is_err());
        assert!("A".repeat(42).parse::<Thumbprint>().is_err());
        // The last of 43 characters holds four bits: a spelling that sets the other two is not canonical.
        assert!(format!("{}B", "A".repeat(42)).parse::<Thumbprint>().is_err());
    }
}
