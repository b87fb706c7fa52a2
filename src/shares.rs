//! Shares: how much of something may be held at once, in all and by each of those who hold it, callers or tenants, so
//! that nobody takes all of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brevet_core::spiffe_id::SpiffeId;
use thiserror::Error;

/// As much is held as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there are {max} {what}, which is the limit")]
pub struct Full {
    /// What it is.
    pub what: &'static str,
    /// The limit's name.
    pub limit: &'static str,
    /// The limit.
    pub max: usize,
}

/// The most that is held at once, each limit under the name that the configuration has for it.
#[derive(Debug, Clone, Copy)]
pub struct ShareLimits {
    /// Of what, in the plural.
    pub what: &'static str,
    /// In all, unless that has a bound elsewhere.
    pub all: Option<(&'static str, usize)>,
    /// By one holder.
    pub per_holder: (&'static str, usize),
}

/// What is held.
#[derive(Debug)]
pub struct Shares<H = SpiffeId> {
    limits: ShareLimits,
    counts: Mutex<Counts<H>>,
}

#[derive(Debug)]
struct Counts<H> {
    all: usize,
    by_holder: BTreeMap<H, usize>,
}

/// One of a holder's, given back when it is dropped.
#[derive(Debug)]
pub struct Share<H: Ord = SpiffeId> {
    shares: Arc<Shares<H>>,
    holder: H,
}

impl<H: Ord + Clone> Shares<H> {
    /// None, and room for so many.
    #[must_use]
    pub fn new(limits: ShareLimits) -> Arc<Self> {
        let counts = Counts { all: 0, by_holder: BTreeMap::new() };
        Arc::new(Self { limits, counts: Mutex::new(counts) })
    }

    /// One more for a holder.
    ///
    /// # Errors
    /// [`Full`] if it may not have one.
    pub fn take(self: &Arc<Self>, holder: &H) -> Result<Share<H>, Full> {
        let ShareLimits { what, all, per_holder } = self.limits;
        let mut counts = self.lock();
        let own = counts.by_holder.get(holder).copied().unwrap_or(0);
        for ((limit, max), held) in [(per_holder, own)].into_iter().chain(all.map(|all| (all, counts.all))) {
            if held >= max {
                return Err(Full { what, limit, max });
            }
        }
        counts.all = counts.all.saturating_add(1);
        counts.by_holder.insert(holder.clone(), own.saturating_add(1));
        Ok(Share { shares: Arc::clone(self), holder: holder.clone() })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().all
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<H> Shares<H> {
    fn lock(&self) -> MutexGuard<'_, Counts<H>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Ord> Drop for Share<H> {
    fn drop(&mut self) {
        let mut counts = self.shares.lock();
        counts.all = counts.all.saturating_sub(1);
        let Some(own) = counts.by_holder.get_mut(&self.holder) else { return };
        *own = own.saturating_sub(1);
        if *own == 0 {
            counts.by_holder.remove(&self.holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_its_share_nor_all_together_more_than_there_may_be() {
        let full = |limit, max| Full { what: "lines", limit, max };
        let limits = ShareLimits { what: "lines", all: Some(("all", 3)), per_holder: ("own", 2) };
        let shares = Shares::new(limits);
        let [a, b] = ["spiffe://td/a", "spiffe://td/b"].map(|id| id.parse::<SpiffeId>().unwrap());
        let first = shares.take(&a).unwrap();
        let _second = shares.take(&a).unwrap();
        assert_eq!(shares.take(&a).unwrap_err(), full("own", 2));
        let _third = shares.take(&b).unwrap();
        assert_eq!(shares.take(&b).unwrap_err(), full("all", 3));
        drop(first);
        let _fourth = shares.take(&b).unwrap();
        assert_eq!(shares.take(&a).unwrap_err(), full("all", 3));
        drop((_second, _third, _fourth));
        assert!(shares.is_empty() && shares.lock().by_holder.is_empty());
    }
}
