//! The hash chain: what makes any deletion, edit or reordering of records visible.

use std::fmt;

use brevet_core::revision::{Incarnation, Revision};
use ring::digest::{Context, SHA256};

/// The hash of a record and, through it, of every record before:
/// SHA-256(previous hash ‖ revision, 8 bytes big-endian ‖ body).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// The hash before the first record. It binds the chain to one life of the journal.
    #[must_use]
    pub fn genesis(incarnation: Incarnation) -> Self {
        Self(sha256(&[b"brevet:ChainHash\0", &incarnation.0.to_be_bytes()]))
    }

    /// The hash of the record that follows this one.
    #[must_use]
    pub fn link(&self, revision: Revision, body: &[u8]) -> Self {
        Self(sha256(&[&self.0, &revision.0.to_be_bytes(), body]))
    }

    /// A hash computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Writes lower-case hexadecimal.
impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// The revision.
    pub revision: Revision,
    /// Its chain hash.
    pub chain: ChainHash,
}

impl Link {
    /// The place before the first record.
    #[must_use]
    pub fn genesis(incarnation: Incarnation) -> Self {
        Self { revision: Revision::ZERO, chain: ChainHash::genesis(incarnation) }
    }

    /// The place of the record that follows this one.
    #[must_use]
    pub fn next(&self, body: &[u8]) -> Self {
        let revision = self.revision.next();
        Self { revision, chain: self.chain.link(revision, body) }
    }
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}
