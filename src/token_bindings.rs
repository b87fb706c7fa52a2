//! Tokens of bearers: which key each was bound to at first use.
//!
//! Whoever shows a token first, with a proof of a key, has it; shown with another key it is refused. The journal has each
//! binding before its caller is let in, so that it holds across a crash.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use brevet_core::digest::BearerDigest;
use brevet_core::fact::BearerBound;
use brevet_core::revision::Revision;
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use brevet_journal::AppendError;
use thiserror::Error;

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BindError {
    /// It is bound to another key: one of the two is a thief.
    #[error("the token is bound to another key")]
    Other,
    /// Too many are remembered, in all or of this workload.
    #[error("too many tokens are remembered")]
    Full,
    /// The journal does not take it now.
    #[error("the journal does not take it")]
    Journal(#[from] AppendError),
}

/// The tokens that could still be shown.
#[derive(Debug)]
pub struct Bearers {
    bound: Mutex<Bound>,
    max: usize,
    per_caller_max: usize,
}

#[derive(Debug, Default)]
struct Bound {
    /// By token: the binding, and the revision that has it.
    by_token: BTreeMap<BearerDigest, (BearerBound, Revision)>,
    by_end: BTreeMap<(Timestamp, BearerDigest), ()>,
    by_caller: BTreeMap<SpiffeId, usize>,
}

impl Bearers {
    /// Those that the journal has, of which there may be so many in all and of one workload.
    #[must_use]
    pub fn restored(
        bearers: impl IntoIterator<Item = BearerBound>,
        (max, per_caller_max): (usize, usize),
    ) -> Self {
        let mut bound = Bound::default();
        bearers.into_iter().for_each(|bearer| bound.insert(bearer, Revision::ZERO));
        Self { bound: Mutex::new(bound), max, per_caller_max }
    }

    /// Binds a token to a key, or finds it bound to it. Yields the revision that has it, which is to be waited for.
    ///
    /// # Errors
    /// [`BindError`]; a token that was not bound before is not bound then either.
    pub fn bind(
        &self,
        bearer: BearerBound,
        now: Timestamp,
        record: impl FnOnce(&BearerBound) -> Result<Revision, AppendError>,
    ) -> Result<Revision, BindError> {
        // The journal only queues under this lock, and waits for nothing.
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        bound.forget_before(now);
        if let Some((earlier, revision)) = bound.by_token.get(&bearer.token) {
            let same = earlier.key == bearer.key || sabotage::on("any_key_binds");
            return if same { Ok(*revision) } else { Err(BindError::Other) };
        }
        let own = bound.by_caller.get(&bearer.workload).copied().unwrap_or(0);
        if bound.by_token.len() >= self.max || own >= self.per_caller_max {
            return Err(BindError::Full);
        }
        let revision = if sabotage::on("bindings_unrecorded") { Revision::ZERO } else { record(&bearer)? };
        bound.insert(bearer, revision);
        Ok(revision)
    }
}

impl Bound {
    fn insert(&mut self, bearer: BearerBound, revision: Revision) {
        self.by_end.insert((bearer.until, bearer.token), ());
        let count = self.by_caller.entry(bearer.workload.clone()).or_default();
        *count = count.saturating_add(1);
        self.by_token.insert(bearer.token, (bearer, revision));
    }

    fn forget_before(&mut self, now: Timestamp) {
        while let Some(entry) = self.by_end.first_entry()
            && entry.key().0 <= now
        {
            let ((_, token), ()) = entry.remove_entry();
            let Some((bearer, _)) = self.by_token.remove(&token) else { continue };
            match self.by_caller.get_mut(&bearer.workload) {
                Some(count) if *count > 1 => *count = count.saturating_sub(1),
                _ => drop(self.by_caller.remove(&bearer.workload)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use brevet_core::digest::Thumbprint;

    use super::*;

    fn bearer(token: u8, workload: &str, key: u8, until: u64) -> BearerBound {
        BearerBound {
            token: BearerDigest::from_bytes([token; 32]),
            workload: format!("spiffe://td/{workload}").parse().unwrap(),
            key: Thumbprint::from_bytes([key; 32]),
            until: Timestamp::from_seconds(until),
        }
    }

    #[test]
    fn i3_a_token_is_the_first_key_s_as_long_as_it_could_be_shown() {
        let bearers = Bearers::restored([bearer(9, "a", 1, 100)], (9, 9));
        let bind = |bearer, now| bearers.bind(bearer, Timestamp::from_seconds(now), |_| Ok(Revision(7)));
        assert_eq!(bind(bearer(1, "a", 1, 100), 0), Ok(Revision(7)));
        assert_eq!(bind(bearer(1, "a", 2, 100), 1), Err(BindError::Other));
        assert_eq!(bind(bearer(9, "a", 2, 100), 1), Err(BindError::Other), "what the journal had counts");
        assert_eq!(bind(bearer(9, "a", 1, 100), 1), Ok(Revision::ZERO));
        assert_eq!(bind(bearer(1, "a", 1, 100), 99), Ok(Revision(7)));
        assert_eq!(bind(bearer(1, "a", 2, 200), 100), Ok(Revision(7)), "by now it could not be shown");
    }

    #[test]
    fn i3_a_binding_that_is_not_recorded_is_none() {
        let bearers = Bearers::restored([], (9, 9));
        let now = Timestamp::EPOCH;
        let failed = bearers.bind(bearer(1, "a", 1, 9), now, |_| Err(AppendError::Busy));
        assert_eq!(failed, Err(BindError::Journal(AppendError::Busy)));
        assert_eq!(bearers.bind(bearer(1, "a", 2, 9), now, |_| Ok(Revision(3))), Ok(Revision(3)));
    }

    #[test]
    fn no_workload_fills_the_memory_for_others() {
        let bearers = Bearers::restored([], (3, 2));
        let bind =
            |bearer, now| bearers.bind(bearer, Timestamp::from_seconds(now), |_| Ok(Revision(1))).is_ok();
        assert!(bind(bearer(1, "a", 1, 50), 0) && bind(bearer(2, "a", 1, 60), 0));
        assert!(!bind(bearer(3, "a", 1, 60), 0));
        assert!(bind(bearer(4, "b", 1, 60), 0));
        assert!(!bind(bearer(5, "c", 1, 60), 0));
        assert!(bind(bearer(3, "a", 1, 99), 50));
    }
}
