//! Deadlines: one queue of what runs out when, in the order it comes. An entry is a hint to look at a tree, nothing
//! more: the ledger knows what is due, and a tree that has nothing due any more is passed over.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use brevet_core::id::RootTaskId;
use brevet_core::time::Timestamp;
use tokio::sync::Notify;

/// Trees by the time at which something in them runs out.
#[derive(Debug, Default)]
pub struct Deadlines {
    due: Mutex<BTreeSet<(Timestamp, RootTaskId)>>,
    sooner: Notify,
}

impl Deadlines {
    /// Something in the tree runs out at this time.
    pub fn expect(&self, at: Timestamp, root: RootTaskId) {
        let mut due = self.lock();
        due.insert((at, root));
        if due.first() == Some(&(at, root)) {
            self.sooner.notify_one();
        }
    }

    /// When the next one runs out.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.lock().first().map(|(at, _)| *at)
    }

    /// Takes the trees in which something has run out.
    pub fn take(&self, judge: Timestamp) -> BTreeSet<RootTaskId> {
        let mut due = self.lock();
        let mut trees = BTreeSet::new();
        while let Some((at, root)) = due.first().copied()
            && at <= judge
        {
            due.pop_first();
            trees.insert(root);
        }
        trees
    }

    /// Completes when something is expected before everything else.
    pub async fn sooner(&self) {
        self.sooner.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Timestamp, RootTaskId)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use brevet_core::id::Id;

    use super::*;

    #[test]
    fn trees_come_when_they_are_due_and_once() {
        let deadlines = Deadlines::default();
        let root = |n: u8| RootTaskId(Id::from_bytes([n; 16]));
        let at = Timestamp::from_seconds;
        for (seconds, n) in [(30, 1), (10, 2), (10, 1), (20, 3)] {
            deadlines.expect(at(seconds), root(n));
        }
        assert_eq!(deadlines.next(), Some(at(10)));
        assert!(deadlines.take(at(9)).is_empty());
        assert_eq!(deadlines.take(at(20)), BTreeSet::from([root(1), root(2), root(3)]));
        assert_eq!(deadlines.take(at(30)), BTreeSet::from([root(1)]));
        assert_eq!(deadlines.next(), None);
    }
}
