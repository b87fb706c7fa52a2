//! SPIFFE IDs and trust domain names (SPIFFE-ID §2), taken exactly as the grammar has them.
//!
//! The standard asks for a lower-case trust domain (§2.1) and also to compare it without regard to case (§2.4).
//! Only lower case is accepted here, and only the scheme `spiffe` in lower case, so that equal identities are
//! equal bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::serde_as_text;
use crate::name::is_segment_byte;

/// The longest SPIFFE ID in bytes (SPIFFE-ID §2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// The longest trust domain name in bytes (SPIFFE-ID §2.1, §2.3).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// Why a string is not a SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidSpiffeId {
    /// It does not begin with `spiffe://`.
    #[error("the scheme is not spiffe")]
    Scheme,
    /// The trust domain is empty, too long, or has a character outside `[a-z0-9.-_]`.
    #[error("the trust domain is not valid")]
    TrustDomain,
    /// The path has an empty, dot or dot-dot segment, a trailing slash, or a character outside `[a-zA-Z0-9.-_]`.
    #[error("the path is not valid")]
    Path,
    /// It is longer than 2,048 bytes.
    #[error("longer than 2048 bytes")]
    Length,
}

/// The name of a trust domain, such as `example.org`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;
    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > TRUST_DOMAIN_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(InvalidSpiffeId::TrustDomain);
        }
        Ok(Self(text.into()))
    }
}

serde_as_text!(TrustDomain, domain => domain.as_str());

/// A SPIFFE ID: `spiffe://{trust domain}` and a path that may be empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    path_start: u16,
}

impl SpiffeId {
    /// Joins a trust domain and a path. The path is empty or begins with `/`.
    ///
    /// # Errors
    /// [`InvalidSpiffeId`] if the path is not valid or the whole is too long.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, InvalidSpiffeId> {
        check_path(path)?;
        let text = format!("{SCHEME}{trust_domain}{path}");
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(InvalidSpiffeId::Length);
        }
        let path_start =
            u16::try_from(SCHEME.len() + trust_domain.0.len()).map_err(|_| InvalidSpiffeId::Length)?;
        Ok(Self { text: text.into(), path_start })
    }

    /// The whole ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name.
    #[must_use]
    pub fn trust_domain_name(&self) -> &str {
        self.text.get(SCHEME.len()..usize::from(self.path_start)).unwrap_or_default()
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_name().into())
    }

    /// The path: empty, or `/` and its segments.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(usize::from(self.path_start)..).unwrap_or_default()
    }
}

fn check_path(path: &str) -> Result<(), InvalidSpiffeId> {
    if path.is_empty() {
        return Ok(());
    }
    let segments = path.strip_prefix('/').ok_or(InvalidSpiffeId::Path)?;
    for segment in segments.split('/') {
        if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(is_segment_byte) {
            return Err(InvalidSpiffeId::Path);
        }
    }
    Ok(())
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;
    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(InvalidSpiffeId::Length);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidSpiffeId::Scheme)?;
        let path = rest.find('/').map_or("", |slash| rest.get(slash..).unwrap_or_default());
        let trust_domain = rest.strip_suffix(path).unwrap_or(rest).parse()?;
        Self::new(&trust_domain, path)
    }
}

serde_as_text!(SpiffeId, id => id.as_str());

#[cfg(test)]
mod tests;
