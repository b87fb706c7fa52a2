//! Bookmarks: signed statements of how far a stream of revocations has come.
//!
//! A bookmark says that everything up to a revision has been told, and answers a nonce, so that its reader knows that
//! it was made after the nonce was sent. One signature covers the nonces of every stream that waited: each is shown to
//! be among them by a path in a Merkle tree.

use std::fmt;

use crate::merkle::{self, Hash};
use crate::name::KeyId;
use crate::revision::Cursor;
use crate::time::Timestamp;

/// The fewest bytes of a nonce.
pub const NONCE_BYTES_MIN: usize = 16;
/// The most.
pub const NONCE_BYTES_MAX: usize = 32;

/// Bytes that were drawn at random and never before: what answers them was made later.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(Box<[u8]>);

impl Nonce {
    /// A nonce of these bytes. None if they are too few or too many.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (NONCE_BYTES_MIN..=NONCE_BYTES_MAX).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Everything up to here has been told.
    pub cursor: Cursor,
    /// The chain hash of the journal at that revision.
    pub chain: [u8; 32],
    /// The broker's judging clock when it was signed.
    pub judge_time: Timestamp,
    /// The Merkle tree hash of the nonces that are answered.
    pub root: Hash,
}

impl Statement {
    /// The bytes that are signed. No other key of a broker signs anything that begins like them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = b"brevet:Bookmark\0".to_vec();
        bytes.extend(self.cursor.incarnation.0.to_be_bytes());
        bytes.extend(self.cursor.revision.0.to_be_bytes());
        bytes.extend(self.chain);
        bytes.extend(self.judge_time.millis().to_be_bytes());
        bytes.extend(self.root);
        bytes
    }
}

/// A signed statement with the path of one nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// Everything up to here has been told.
    pub cursor: Cursor,
    /// The chain hash of the journal at that revision: a witness that a later journal must contain.
    pub chain: [u8; 32],
    /// The broker's judging clock when it was signed.
    pub judge_time: Timestamp,
    /// The nonce that is answered.
    pub nonce: Nonce,
    /// Its position among those that were answered together.
    pub nonce_index: u32,
    /// How many there were.
    pub nonce_count: u32,
    /// Its inclusion path.
    pub nonce_path: Vec<Hash>,
    /// The key.
    pub key_id: KeyId,
    /// ES256, as `r || s`.
    pub signature: [u8; 64],
}

impl Bookmark {
    /// What must have been signed. None if the path is none.
    #[must_use]
    pub fn statement(&self) -> Option<Statement> {
        let Self { cursor, chain, judge_time, nonce, nonce_index, nonce_count, nonce_path, .. } = self;
        let root = merkle::root_of(nonce.as_bytes(), *nonce_index, *nonce_count, nonce_path)?;
        Some(Statement { cursor: *cursor, chain: *chain, judge_time: *judge_time, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revision::{Incarnation, Revision};

    #[test]
    fn a_statement_has_one_spelling() {
        let cursor = Cursor { incarnation: Incarnation(0x0102), revision: Revision(0x0304) };
        let statement =
            Statement { cursor, chain: [5; 32], judge_time: Timestamp::from_millis(0x0607), root: [8; 32] };
        let mut expected = b"brevet:Bookmark\0".to_vec();
        expected.extend([0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4]);
        expected.extend([5; 32]);
        expected.extend([0, 0, 0, 0, 0, 0, 6, 7]);
        expected.extend([8; 32]);
        assert_eq!(statement.to_bytes(), expected);
    }

    #[test]
    fn a_nonce_has_sixteen_to_thirty_two_bytes() {
        let lengths = |length| Nonce::new(&vec![7; length]).is_some();
        assert_eq!([0, 15, 16, 32, 33].map(lengths), [false, false, true, true, false]);
        assert_eq!(format!("{:?}", Nonce::new(&[0xab; 16]).unwrap()), "ab".repeat(16));
    }
}
