//! A budget for each minute: what a caller may make the journal keep without having been permitted anything.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use brevet_core::time::Timestamp;

/// Counts by key within the current minute. It holds no more keys than were used in that minute.
#[derive(Debug)]
pub(super) struct MinuteBudget<K> {
    max: NonZeroU32,
    spent: Mutex<(u64, BTreeMap<K, u32>)>,
}

impl<K: Ord> MinuteBudget<K> {
    /// A budget of so many in each minute for each key.
    #[must_use]
    pub(super) const fn new(max: NonZeroU32) -> Self {
        Self { max, spent: Mutex::new((0, BTreeMap::new())) }
    }

    /// Spends one, if any is left, by the issuing clock: its minutes always pass.
    pub(super) fn spend(&self, key: K, now: Timestamp) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.seconds() / 60;
        if spent.0 != minute {
            *spent = (minute, BTreeMap::new());
        }
        let count = spent.1.entry(key).or_insert(0);
        if *count >= self.max.get() {
            return false;
        }
        *count = count.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_and_a_new_one_each_minute() {
        let budget = MinuteBudget::new(NonZeroU32::new(2).unwrap());
        let at = Timestamp::from_seconds;
        assert!(budget.spend("a", at(0)) && budget.spend("a", at(59)));
        assert!(!budget.spend("a", at(59)));
        assert!(budget.spend("b", at(59)));
        assert!(budget.spend("a", at(60)));
    }
}
