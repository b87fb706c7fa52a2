//! What a tree's endings mean to resource servers.

use std::collections::BTreeSet;

use super::{Lease, Ledger, Task};
use crate::fact::{Fact, ReasonCode};
use crate::id::TaskId;
use crate::notice::{EarlyEnding, Ended, Reach};
use crate::revision::Revision;
use crate::time::Timestamp;

impl Ledger {
    /// What verifiers must learn of a fact that is about to be folded: which credentials it ends before their time.
    /// Each task and each lease is told once, when its first ending is recorded.
    #[must_use]
    pub fn early_endings(&self, fact: &Fact, judge: Timestamp) -> Vec<EarlyEnding> {
        match fact {
            Fact::TaskEnded { task, reason, .. } => {
                let Some(found) = self.task(*task).filter(|task| task.ended.is_none()) else {
                    return Vec::new();
                };
                let open = self.at_or_below(found.opened.id).flat_map(|below| below.open.values());
                task_ending(*task, reason, open, judge).into_iter().collect()
            }
            Fact::LeasesEnded { task, leases, reason, .. } => leases
                .iter()
                .filter_map(|key| self.task(*task)?.open.get(key))
                .filter_map(|lease| lease_ending(lease, reason, judge))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The same of every fact folded behind a revision, as far as it still matters, in no order: for whoever was away.
    ///
    /// What time has ended is among it where its end is still to come by the judging clock: a clock in doubt was ahead
    /// when it was recorded (invariant C3), and no verifier would see it by itself.
    #[must_use]
    pub fn early_endings_since(&self, after: Revision, judge: Timestamp) -> Vec<(Revision, EarlyEnding)> {
        let of_task = |task: &Task| {
            let ended = task.ended.as_ref().filter(|ended| ended.revision > after)?;
            let id = task.opened.id;
            // As the task was when it ended: a sweep may have given leases endings of their own since.
            let was_open =
                |lease: &&Lease| lease.ended.as_ref().is_none_or(|closed| closed.revision > ended.revision);
            let leases = self.at_or_below(id).flat_map(Task::leases).filter(was_open);
            Some((ended.revision, task_ending(id, &ended.ending.reason, leases, judge)?))
        };
        let of_lease = |lease: &Lease| {
            let ended = lease.ended.as_ref().filter(|ended| ended.revision > after)?;
            Some((ended.revision, lease_ending(lease, &ended.ending.reason, judge)?))
        };
        let leases = self.tasks.values().flat_map(|task| task.closed.values()).filter_map(of_lease);
        self.tasks.values().filter_map(of_task).chain(leases).collect()
    }
}

fn task_ending<'a>(
    task: TaskId,
    reason: &ReasonCode,
    open: impl Iterator<Item = &'a Lease>,
    judge: Timestamp,
) -> Option<EarlyEnding> {
    let mut until = None;
    let mut reach = Reach::Audiences(BTreeSet::new());
    for lease in open.filter(|lease| lease.terms.end > judge) {
        until = until.max(Some(lease.terms.end));
        reach.add(lease.terms.audience());
    }
    Some(EarlyEnding { ended: Ended::Task(task), reason: reason.clone(), until: until?, reach })
}

fn lease_ending(lease: &Lease, reason: &ReasonCode, judge: Timestamp) -> Option<EarlyEnding> {
    if lease.terms.end <= judge {
        return None;
    }
    let mut reach = Reach::Audiences(BTreeSet::new());
    reach.add(lease.terms.audience());
    let ended = Ended::Lease(lease.terms.id);
    Some(EarlyEnding { ended, reason: reason.clone(), until: lease.terms.end, reach })
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample::*;
    use super::super::*;
    use super::*;
    use crate::fact::{LeaseOutcome, Outcome};

    /// A tree whose root has the leases 1 and 2 and whose child 20 has the lease 3, and what each fact brought.
    struct Tree {
        ledger: Ledger,
        told: Vec<(Revision, EarlyEnding)>,
    }

    impl Tree {
        fn grown() -> Self {
            let (tenant, parent) = (TenantName::default(), root(1));
            let ledger = Ledger::begun_by(&Arc::new(opened(parent, None)), tenant, Revision(1));
            let mut tree = Self { ledger, told: Vec::new() };
            let below = child(1, 20);
            tree.fold(2, 0, &Fact::TaskOpened(Arc::new(opened(below, Some(parent)))));
            for (revision, task, key, permission) in
                [(3, parent, 1, "x a/b r"), (4, parent, 2, "y a/b r"), (5, below, 3, "y a/b r")]
            {
                let terms = Arc::new(terms_for(task, key, &[permission]));
                tree.fold(revision, 0, &Fact::LeaseIssued { terms, body: body(0), renews: None });
            }
            tree
        }

        fn fold(&mut self, revision: u64, millis: u64, fact: &Fact) {
            let (tenant, revision) = (TenantName::default(), Revision(revision));
            let told = self.ledger.early_endings(fact, at(millis));
            self.told.extend(told.into_iter().map(|ending| (revision, ending)));
            self.ledger.apply(fact, &envelope(Some((root(1), &tenant)), now(millis)), revision);
        }

        /// Whoever asks at a time is told what the stream told behind a revision, of what still matters.
        fn assert_retold(&self, millis: u64) {
            for after in 0..20 {
                let mut told = self.told.clone();
                told.retain(|(revision, ending)| revision.0 > after && ending.until > at(millis));
                let mut retold = self.ledger.early_endings_since(Revision(after), at(millis));
                for list in [&mut told, &mut retold] {
                    list.sort_by_key(|(revision, ending)| (*revision, ending.ended));
                }
                assert_eq!(retold, told, "behind {after}");
            }
        }
    }

    fn task_ended(task: TaskId, reason: ReasonCode, since: Option<u64>) -> Fact {
        Fact::TaskEnded { task, outcome: Outcome::Cancelled, reason, since: since.map(at) }
    }

    fn lease_ended(task: TaskId, key: u128, reason: ReasonCode, since: Option<u64>) -> Fact {
        let (leases, outcome) = (vec![lease_key(key)], LeaseOutcome::Revoked);
        Fact::LeasesEnded { task, leases, outcome, reason, since: since.map(at) }
    }

    fn audiences<const N: usize>(names: [&str; N]) -> Reach {
        Reach::Audiences(names.into_iter().map(audience).collect())
    }

    const DONE: ReasonCode = ReasonCode::of("done");

    #[test]
    fn t7_w4_an_ending_is_told_to_the_audiences_of_what_it_ends_and_to_whoever_was_away_alike() {
        let mut tree = Tree::grown();
        tree.fold(6, 1_000, &lease_ended(root(1), 1, DONE, None));
        tree.fold(7, 2_000, &task_ended(child(1, 20), DONE, None));
        tree.fold(8, 3_000, &task_ended(root(1), DONE, None));
        let told: Vec<_> =
            tree.told.iter().map(|(revision, told)| (revision.0, told.reach.clone())).collect();
        assert_eq!(told, [(6, audiences(["x"])), (7, audiences(["y"])), (8, audiences(["y"]))]);
        assert!(tree.told.iter().all(|(_, ending)| ending.until == at(100_000)));
        tree.assert_retold(4_000);
        assert!(
            tree.ledger.early_endings_since(Revision(0), at(100_000)).is_empty(),
            "all have ended anyway"
        );
    }

    #[test]
    fn w2_w4_an_ending_that_an_earlier_one_replaces_is_told_once_and_at_its_place() {
        let mut tree = Tree::grown();
        tree.fold(6, 3_000, &lease_ended(root(1), 1, DONE, None));
        tree.fold(7, 4_000, &task_ended(child(1, 20), DONE, None));
        // A lock of 2 s had killed both before, as its sweep finds later.
        tree.fold(8, 5_000, &lease_ended(root(1), 1, REASON_LOCKED, Some(2_000)));
        tree.fold(9, 5_000, &task_ended(child(1, 20), REASON_LOCKED, Some(2_000)));
        tree.fold(10, 5_000, &lease_ended(child(1, 20), 3, REASON_LOCKED, Some(2_000)));
        let revisions = |told: &[(Revision, EarlyEnding)]| -> Vec<u64> {
            told.iter().map(|(revision, _)| revision.0).collect()
        };
        assert_eq!(revisions(&tree.told), [6, 7, 10], "the last gave its lease an ending of its own");
        let mut retold = tree.ledger.early_endings_since(Revision(0), at(6_000));
        retold.sort_by_key(|(revision, _)| *revision);
        assert_eq!(revisions(&retold), [6, 7, 10]);
        assert!(retold.iter().all(|(_, ending)| ending.reason == REASON_LOCKED), "the earliest ending stays");
        assert!(tree.ledger.early_endings_since(Revision(10), at(6_000)).is_empty());
    }

    #[test]
    fn c3_what_a_clock_in_doubt_ended_is_told_to_whoever_comes_later() {
        let mut tree = Tree::grown();
        let (outcome, reason) = (Outcome::Expired, REASON_EXPIRED);
        tree.fold(6, 200_000, &Fact::TaskEnded { task: root(1), outcome, reason, since: None });
        assert!(tree.told.is_empty(), "by the clock it was judged by, everything had ended anyway");
        let retold = tree.ledger.early_endings_since(Revision(5), at(50_000));
        let ended: Vec<_> = retold.iter().map(|(_, ending)| ending.ended).collect();
        assert_eq!(ended, [Ended::Task(root(1))]);
    }
}
