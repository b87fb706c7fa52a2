//! What each opener answers for: the tasks that are kept and the leases that live, so that nobody can use up what
//! others need (invariant L11). A count is reserved before the ledger is asked and given back if nothing was recorded,
//! so that no interleaving passes the quota.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use thiserror::Error;

/// The most that one opener may have.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// Leases without a recorded ending in tasks that it opened.
    pub leases_max: usize,
    /// Tasks that it opened and that are kept, ended ones included.
    pub tasks_max: usize,
}

/// The opener has as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    /// Leases.
    #[error("the opener has {0} live leases, which is its limit")]
    Leases(usize),
    /// Tasks.
    #[error("the opener has {0} tasks, which is its limit")]
    Tasks(usize),
}

impl Full {
    /// The limit's name.
    #[must_use]
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Leases(_) => LEASES_LIMIT,
            Self::Tasks(_) => "tasks_per_opener_max",
        }
    }
}

/// The limit that what has run out makes room under, as soon as that is recorded.
pub const LEASES_LIMIT: &str = "leases_live_per_opener_max";

/// Counts by opener.
#[derive(Debug)]
pub struct Openers {
    quota: Quota,
    counts: Mutex<BTreeMap<SpiffeId, Counts>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    leases: usize,
    tasks: usize,
}

/// One more of something, given back unless it is kept.
#[derive(Debug)]
#[must_use = "what is dropped is given back"]
pub struct Reserved<'a> {
    openers: &'a Openers,
    opener: Option<SpiffeId>,
    unit: Counts,
}

impl Reserved<'_> {
    /// It was recorded, so it counts.
    pub fn keep(mut self) {
        self.opener = None;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(opener) = self.opener.take() {
            self.openers.give_back(&opener, self.unit);
        }
    }
}

impl Openers {
    /// Counts under a quota.
    #[must_use]
    pub const fn new(quota: Quota) -> Self {
        Self { quota, counts: Mutex::new(BTreeMap::new()) }
    }

    /// Counts what exists already, whatever the quota says.
    pub fn count(&self, opener: &SpiffeId, leases: usize, tasks: usize) {
        let mut counts = self.lock();
        let counts = counts.entry(opener.clone()).or_default();
        counts.leases = counts.leases.saturating_add(leases);
        counts.tasks = counts.tasks.saturating_add(tasks);
    }

    /// Room for one more lease in a task of the opener.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub fn lease(&self, opener: &SpiffeId) -> Result<Reserved<'_>, Full> {
        self.reserve(opener, Counts { leases: 1, tasks: 0 })
    }

    /// Room for one more task.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub fn task(&self, opener: &SpiffeId) -> Result<Reserved<'_>, Full> {
        self.reserve(opener, Counts { leases: 0, tasks: 1 })
    }

    /// Leases of the opener's tasks have an ending now.
    pub fn release_leases(&self, opener: &SpiffeId, leases: usize) {
        self.give_back(opener, Counts { leases, tasks: 0 });
    }

    /// A task of the opener is kept no longer.
    pub fn release_task(&self, opener: &SpiffeId) {
        self.give_back(opener, Counts { leases: 0, tasks: 1 });
    }

    /// How many leases and tasks count for an opener.
    #[must_use]
    pub fn of(&self, opener: &SpiffeId) -> (usize, usize) {
        self.lock().get(opener).map_or((0, 0), |counts| (counts.leases, counts.tasks))
    }

    fn reserve(&self, opener: &SpiffeId, unit: Counts) -> Result<Reserved<'_>, Full> {
        let mut counts = self.lock();
        let held = counts.get(opener).copied().unwrap_or_default();
        if unit.leases > 0 && held.leases >= self.quota.leases_max && !sabotage::on("ignore_quota") {
            return Err(Full::Leases(self.quota.leases_max));
        }
        if unit.tasks > 0 && held.tasks >= self.quota.tasks_max {
            return Err(Full::Tasks(self.quota.tasks_max));
        }
        let after = Counts { leases: held.leases + unit.leases, tasks: held.tasks + unit.tasks };
        match counts.get_mut(opener) {
            Some(held) => *held = after,
            None => drop(counts.insert(opener.clone(), after)),
        }
        Ok(Reserved { openers: self, opener: Some(opener.clone()), unit })
    }

    fn give_back(&self, opener: &SpiffeId, unit: Counts) {
        let mut counts = self.lock();
        let Some(held) = counts.get_mut(opener) else { return };
        held.leases = held.leases.saturating_sub(unit.leases);
        held.tasks = held.tasks.saturating_sub(unit.tasks);
        if *held == Counts::default() {
            counts.remove(opener);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SpiffeId, Counts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l11_what_is_reserved_counts_until_it_is_given_back() {
        let openers = Openers::new(Quota { leases_max: 2, tasks_max: 1 });
        let (a, b): (SpiffeId, SpiffeId) =
            ("spiffe://td/a".parse().unwrap(), "spiffe://td/b".parse().unwrap());
        let first = openers.lease(&a).unwrap();
        openers.lease(&a).unwrap().keep();
        assert_eq!(openers.lease(&a).unwrap_err(), Full::Leases(2));
        openers.lease(&b).unwrap().keep();
        drop(first);
        assert_eq!(openers.of(&a), (1, 0));
        openers.lease(&a).unwrap().keep();
        openers.task(&a).unwrap().keep();
        assert_eq!(openers.task(&a).unwrap_err(), Full::Tasks(1));
        openers.release_leases(&a, 2);
        openers.release_task(&a);
        assert_eq!(openers.of(&a), (0, 0));
        assert!(!openers.lock().contains_key(&a), "who has nothing is not remembered");
    }

    #[test]
    fn l11_no_interleaving_passes_the_quota() {
        let openers = Openers::new(Quota { leases_max: 10, tasks_max: 10 });
        let opener: SpiffeId = "spiffe://td/a".parse().unwrap();
        let kept: usize = std::thread::scope(|scope| {
            let take = || (0..100).filter(|_| openers.lease(&opener).map(Reserved::keep).is_ok()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((kept, openers.of(&opener)), (10, (10, 0)));
    }
}
