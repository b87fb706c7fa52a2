//! The state key: makes what must come out the same at a retry and must not be guessed by anyone else.
//!
//! A root task's id is a keyed hash of who asked for it, under which request id and on which day, so that a retry
//! finds its ledger without an index, and no id is made again once its task is forgotten and its day is over. A
//! delegated task's id is a keyed hash of its parent's and the request id, and a lock's of its creator and the request
//! id. A task's one-time claim is a keyed hash of that id, so that a retry is told the same claim although
//! the journal holds no more than the claim's digest.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::id::{Id, LockId, RootTaskId, TaskId};
use brevet_core::name::{RequestId, TenantName};
use brevet_core::spiffe_id::SpiffeId;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::key_file::{self, KeyError};

const LABEL: &str = "BREVET STATE KEY";
const KEY_BYTES: usize = 32;

/// The state key.
pub struct StateKey(hmac::Key);

/// Says nothing of the key.
impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateKey").finish_non_exhaustive()
    }
}

impl StateKey {
    /// Reads the key at `path`, or makes one there if there is none.
    ///
    /// # Errors
    /// [`KeyError`] if the file cannot be used.
    pub fn load_or_create(path: &Path, rng: &SystemRandom) -> Result<Self, KeyError> {
        let key = key_file::load_or_create_as(LABEL, path, rng, |rng| {
            let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
            rng.fill(&mut key).map_err(|_| KeyError::Generation)?;
            Ok(key)
        })?;
        if key.len() != KEY_BYTES {
            return Err(KeyError::Malformed(path.into()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// The id of the root task that a caller opens under a request id on a day, counted from the epoch.
    #[must_use]
    pub fn root_task_id(
        &self,
        tenant: &TenantName,
        caller: &SpiffeId,
        request_id: &RequestId,
        day: u64,
    ) -> RootTaskId {
        RootTaskId(
            self.id("root task", &[tenant.as_str(), caller.as_str(), request_id.as_str(), &day.to_string()]),
        )
    }

    /// The id of the task that is delegated from another under a request id; none if chance gave it the root's.
    #[must_use]
    pub fn child_task_id(&self, parent: TaskId, request_id: &RequestId) -> Option<TaskId> {
        let node = self.id("child task", &[&parent.to_string(), request_id.as_str()]);
        TaskId::child_of(parent.root(), node).ok()
    }

    /// The id of the lock that somebody creates under a request id.
    #[must_use]
    pub fn lock_id(&self, tenant: Option<&TenantName>, creator: &str, request_id: &RequestId) -> LockId {
        let tenant = tenant.map_or("", TenantName::as_str);
        LockId(self.id("lock", &[tenant, creator, request_id.as_str()]))
    }

    /// The one-time claim of a task: 128 bits in base64url.
    #[must_use]
    pub fn claim(&self, task: TaskId) -> String {
        URL_SAFE_NO_PAD.encode(self.derive("claim", task.to_string().as_bytes()))
    }

    fn id(&self, label: &str, parts: &[&str]) -> Id {
        // None of the parts can contain a zero byte, so no two lists are hashed alike.
        Id::from_bytes(self.derive(label, parts.join("\0").as_bytes()))
    }

    fn derive(&self, label: &str, input: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(label.as_bytes());
        context.update(&[0]);
        context.update(input);
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(context.sign().as_ref()).for_each(|(byte, tag)| *byte = *tag);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_gets_the_same_id_and_no_other_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.key");
        let rng = SystemRandom::new();
        let key = StateKey::load_or_create(&path, &rng).unwrap();
        let tenant = TenantName::default();
        let id = |key: &StateKey, caller: &str, request: &str| {
            key.root_task_id(&tenant, &caller.parse().unwrap(), &RequestId::parse(request).unwrap(), 20_000)
        };
        let first = id(&key, "spiffe://td/a", "r1");
        let again = StateKey::load_or_create(&path, &rng).unwrap();
        assert_eq!(id(&again, "spiffe://td/a", "r1"), first);
        let task = TaskId::root_of(first);
        assert_eq!(again.claim(task), key.claim(task));
        assert_ne!(id(&key, "spiffe://td/a", "r2"), first);
        assert_ne!(id(&key, "spiffe://td/b", "r1"), first);
        let other = StateKey::load_or_create(&directory.path().join("other.key"), &rng).unwrap();
        assert_ne!(id(&other, "spiffe://td/a", "r1"), first);
        assert_ne!(other.claim(task), key.claim(task));
    }

    #[test]
    fn an_id_belongs_to_its_day_its_parent_and_its_kind() {
        let directory = tempfile::tempdir().unwrap();
        let key =
            StateKey::load_or_create(&directory.path().join("state.key"), &SystemRandom::new()).unwrap();
        let (tenant, request) = (TenantName::default(), RequestId::parse("r1").unwrap());
        let caller = "spiffe://td/a".parse().unwrap();
        let root = |day| key.root_task_id(&tenant, &caller, &request, day);
        assert_eq!(root(20_000), root(20_000));
        assert_ne!(root(20_000), root(20_001));
        let parent = TaskId::root_of(root(1));
        let child = key.child_task_id(parent, &request).unwrap();
        assert_eq!(child.root(), parent.root());
        assert_ne!(key.child_task_id(child, &request), Some(child));
        assert_ne!(key.child_task_id(parent, &RequestId::parse("r2").unwrap()), Some(child));
        assert_ne!(key.claim(child), key.claim(parent));
        assert_ne!(
            key.lock_id(Some(&tenant), "spiffe://td/a", &request),
            key.lock_id(None, "spiffe://td/a", &request)
        );
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.key");
        let rng = SystemRandom::new();
        let short = crate::pem::encode(LABEL, &[1; 16]);
        key_file::create(&path, 0o600, short.as_bytes(), &rng).unwrap();
        assert!(matches!(StateKey::load_or_create(&path, &rng), Err(KeyError::Malformed(_))));
    }
}
