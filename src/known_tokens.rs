//! Tokens that this process signed, by their digest: who asks for one of them need not wait for a signature to be
//! verified, for equal bytes are equally authentic. It is a memory, not a record: a token that is not here is verified.
//! What the time of a look-up could tell is of a digest, and leads nobody to a token with that digest.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use brevet_core::id::LeaseId;
use brevet_core::time::Timestamp;
use ring::digest::{SHA256, digest};

/// Digests of tokens that have not ended, at most so many.
#[derive(Debug)]
pub struct KnownTokens {
    known: Mutex<Known>,
    max: usize,
}

#[derive(Debug, Default)]
struct Known {
    leases: HashMap<[u8; 32], LeaseId>,
    ends: BTreeMap<Timestamp, Vec<[u8; 32]>>,
}

impl KnownTokens {
    /// None yet.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { known: Mutex::default(), max }
    }

    /// Remembers a token until its end, if there is room.
    pub fn remember(&self, token: &str, lease: LeaseId, end: Timestamp, now: Timestamp) {
        let digest = digest_of(token);
        let mut known = self.lock();
        while let Some(over) = known.ends.first_entry()
            && *over.key() <= now
        {
            for digest in over.remove() {
                known.leases.remove(&digest);
            }
        }
        if known.leases.len() < self.max && known.leases.insert(digest, lease).is_none() {
            known.ends.entry(end).or_default().push(digest);
        }
    }

    /// The lease of a token, if it is one of these, byte for byte.
    #[must_use]
    pub fn lease_of(&self, token: &str) -> Option<LeaseId> {
        let digest = digest_of(token);
        self.lock().leases.get(&digest).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest_of(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(digest(&SHA256, token.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use brevet_core::id::{Id, LeaseKey, RootTaskId, TaskId};

    use super::*;

    #[test]
    fn a_token_is_known_by_every_byte_and_until_its_end() {
        let tokens = KnownTokens::new(2);
        let lease = |n| LeaseId {
            task: TaskId::root_of(RootTaskId(Id::from_bytes([1; 16]))),
            key: LeaseKey(Id::from_bytes([n; 16])),
        };
        let at = Timestamp::from_seconds;
        tokens.remember("a.b.c", lease(1), at(10), at(0));
        tokens.remember("a.b.d", lease(2), at(20), at(0));
        assert_eq!(tokens.lease_of("a.b.c"), Some(lease(1)));
        assert_eq!(tokens.lease_of("a.b.C"), None);
        tokens.remember("a.b.e", lease(3), at(20), at(9));
        assert_eq!(tokens.lease_of("a.b.e"), None, "there is no room");
        tokens.remember("a.b.e", lease(3), at(20), at(10));
        assert_eq!(tokens.lease_of("a.b.e"), Some(lease(3)));
        assert_eq!(tokens.lease_of("a.b.c"), None, "its end has come");
    }
}
