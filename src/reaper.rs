//! The reaper: records what has run out. It reclaims; it does not enforce, for liveness is computed from the time and
//! waits for nobody. What it adds is that an ending which time brought is in the journal like any other.
//!
//! Deadlines wait in one queue in the order they come. An entry is a hint to look at a tree, nothing more: the ledger
//! knows what is due, and a tree that has nothing due any more is passed over.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brevet_core::id::RootTaskId;
use brevet_core::time::Timestamp;
use tokio::sync::Notify;
use tracing::warn;

use crate::broker::Broker;

/// When an expiry that could not be recorded is tried again.
const RETRY: Duration = Duration::from_secs(1);

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

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Timestamp, RootTaskId)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reaps at each deadline for as long as the daemon lives.
pub async fn run(broker: Arc<Broker>) -> Infallible {
    loop {
        let deadlines = broker.table.deadlines();
        let sooner = deadlines.sooner.notified();
        match deadlines.next() {
            Some(next) => {
                tokio::select! {
                    () = broker.clock.sleep_until(next) => run_once(&broker),
                    () = sooner => {}
                }
            }
            None => sooner.await,
        }
    }
}

/// Records everything that has run out by now.
pub fn run_once(broker: &Broker) {
    let now = broker.clock.now();
    for root in broker.table.deadlines().take(now.judge) {
        if let Err(problem) = broker.expire(root, now) {
            // It is dead all the same; only the record of it comes later.
            warn!(%root, reason = problem.reason.as_str(), "an expiry could not be recorded");
            broker.table.deadlines().expect(now.judge.after(RETRY), root);
        }
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
