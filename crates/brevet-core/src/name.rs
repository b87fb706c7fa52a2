//! Names: short ASCII strings, each with an exact grammar.
//!
//! A name is compared byte for byte. Nothing is folded, trimmed or normalised: what does not fit the grammar is
//! refused.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::serde_as_text;

/// A string that does not fit the grammar of the name it was offered as.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a valid {kind}: expected {grammar}")]
pub struct InvalidName {
    /// What the string was offered as.
    pub kind: &'static str,
    /// The grammar it does not fit.
    pub grammar: &'static str,
}

/// `[A-Za-z0-9._-]`: the characters of a SPIFFE path segment (SPIFFE-ID §2.2), the widest set any name here uses.
pub(crate) const fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

const fn is_lower_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

const fn is_audience_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $grammar:literal, $max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Takes a string that fits the grammar exactly.
            ///
            /// # Errors
            /// [`InvalidName`] if it does not.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let allowed: fn(u8) -> bool = $allowed;
                if text.is_empty() || text.len() > $max || !text.bytes().all(allowed) {
                    return Err(InvalidName { kind: $kind, grammar: $grammar });
                }
                Ok(Self(text.into()))
            }

            /// The name as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        serde_as_text!($type, name => name.as_str());

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// The boundary of visibility. Every object belongs to exactly one tenant.
    TenantName, "tenant", "[a-z0-9-]{1,63}", 63, is_lower_label_byte
);
name!(
    /// A registered resource server, as it appears in a token's `aud`.
    AudienceName, "audience", "[a-z0-9._:/-]{1,255}", 255, is_audience_byte
);
name!(
    /// A tool or operation of an audience.
    ActionName, "action", "[A-Za-z0-9._-]{1,64}", 64, is_segment_byte
);
name!(
    /// An argument of an action, as the tool's schema names it.
    ArgumentName, "argument name", "[A-Za-z0-9._-]{1,64}", 64, is_segment_byte
);
name!(
    /// What kind of objective a task pursues.
    TaskType, "task type", "[A-Za-z0-9._-]{1,64}", 64, is_segment_byte
);
name!(
    /// A code for why a task is done. Free text is never an input to a decision.
    PurposeCode, "purpose code", "[A-Za-z0-9._-]{1,64}", 64, is_segment_byte
);
name!(
    /// The caller's own name for one request, by which a retry is recognised (AIP-155).
    RequestId, "request id", "[A-Za-z0-9._-]{1,64}", 64, is_segment_byte
);
name!(
    /// A key's identifier: for keys of our own, the RFC 7638 thumbprint in base64url.
    KeyId, "key id", "[A-Za-z0-9._-]{1,128}", 128, is_segment_byte
);
name!(
    /// A person, as the registry names them. One record maps all identities of a person.
    PersonName, "person", "[A-Za-z0-9._-]{1,64}", 64, is_segment_byte
);

/// The tenant that everything belongs to where none is configured.
impl Default for TenantName {
    fn default() -> Self {
        Self("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_exactly_or_refused() {
        for good in ["a", "crm.read", "A_b-9"] {
            assert_eq!(ActionName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "*", "a b", "a/b", "a\n", "\u{430}", "a\0", &"x".repeat(65)] {
            assert!(ActionName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(AudienceName::parse("https://files.example/v1").is_ok());
        assert!(AudienceName::parse("https://Files.example").is_err());
        assert!(TenantName::parse("Default").is_err());
    }

    #[test]
    fn a_name_that_does_not_parse_does_not_deserialize() {
        assert!(serde_json::from_str::<ActionName>("\"read\"").is_ok());
        assert!(serde_json::from_str::<ActionName>("\"re ad\"").is_err());
    }
}
