//! Random commands against several trees at once. After every one of them the ledgers must say what the model says,
//! be what the journal folds to, and have forgotten no death.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::*;
use super::commands::{AGENTS, Command, DELEGATORS, OPENERS, command};
use super::growing::QUOTA;
use super::run::{Run, open_by};
use super::sample::*;
use crate::lock::LockRecord;
use crate::notice::EarlyEnding;

impl Run {
    fn check(&mut self) {
        self.system.assert_is_its_journal();
        self.check_tasks();
        self.check_leases();
        self.check_openers();
        self.check_followers();
        self.check_forgetting();
        self.check_sweeps();
        for ledger in self.system.trees.values() {
            check_reaper(ledger, &self.system.control, self.judge);
        }
    }

    fn check_tasks(&mut self) {
        let control = &self.system.control;
        for (index, row) in self.model.tasks.iter().enumerate() {
            let ledger = self.system.tree(row.id);
            let ending = ledger.task_ending(row.id, control, at(self.judge));
            assert_eq!(ending.is_none(), self.model.task_lives(index, self.judge), "{ending:?} {row:?}");
            stays_as_it_is(&mut self.tasks_over, row.id, ending, self.pace > 0);

            let live = self.model.leases_live(index, self.judge);
            assert_eq!(ledger.leases_live(row.id, control, at(self.judge)) as usize, live);
            assert!(live <= QUOTA as usize, "{live} leases live");

            assert_eq!(ledger.task(row.id).unwrap().holder(), row.holder);
            let mut line = self.model.line(index);
            line.reverse();
            let nodes: Vec<Id> = ledger.path(row.id).map(|hop| hop.node).collect();
            assert_eq!(nodes, line.iter().map(|hop| self.model.tasks[*hop].id.node()).collect::<Vec<_>>());
            for party in AGENTS.iter().chain(&DELEGATORS).chain(&OPENERS) {
                let party = workload(party);
                assert_eq!(ledger.is_owner(row.id, &party), self.model.owns(index, &party));
            }
        }
    }

    fn check_leases(&mut self) {
        let control = &self.system.control;
        let mut live = 0;
        for (index, row) in self.model.leases.iter().enumerate() {
            let id = row.terms.id;
            let ledger = self.system.tree(id.task);
            let lease = ledger.lease(id).unwrap();
            assert_eq!((&**lease.terms(), lease.renews()), (&row.terms, row.renews));
            let ending = ledger.lease_ending(id, control, at(self.judge));
            assert_eq!(ending.is_none(), self.model.lease_lives(index, self.judge), "{ending:?} {row:?}");
            live += usize::from(ending.is_none());
            stays_as_it_is(&mut self.leases_over, id, ending, self.pace > 0);
        }
        // L7: what was issued either lives or is among the dead, and the ledgers hold no other.
        assert_eq!(self.model.leases.len(), live + self.leases_over.len());
        let held: usize =
            self.system.trees.values().flat_map(Ledger::tasks).map(|t| t.leases().count()).sum();
        assert_eq!(held, self.model.leases.len());
    }

    /// L7: what quotas count is what has no ending, by a recount.
    fn check_openers(&self) {
        let mut open = BTreeMap::new();
        for ledger in self.system.trees.values() {
            for (opener, count) in open_by(ledger) {
                *open.entry(opener).or_default() += count;
            }
        }
        assert_eq!(open, self.model.leases_open());
    }

    /// Whoever was away since a revision is told of all that ended meanwhile and still matters, and of nothing else.
    fn check_followers(&self) {
        let Revision(last) = self.system.revision;
        let judge = at(self.judge);
        for after in [0, last / 3, last / 2, last.saturating_sub(3), last.saturating_sub(1), last] {
            let after = Revision(after);
            let trees = self.system.trees.values();
            let told: Vec<(Revision, EarlyEnding)> =
                trees.flat_map(|ledger| ledger.early_endings_since(after, judge)).collect();
            for (revision, notice) in &told {
                assert!(*revision > after && *revision <= self.system.revision, "{notice:?} is known");
                assert!(notice.until > judge, "{notice:?} is of no use");
            }
            // W2, W4: just that which a stream was told, each once and at the same place.
            let mut streamed = self.streamed.clone();
            streamed.retain(|(revision, _, until)| *revision > after && *until > judge);
            let retold: BTreeSet<_> =
                told.iter().map(|(revision, notice)| (*revision, notice.ended, notice.until)).collect();
            assert_eq!((retold.len(), &retold), (told.len(), &streamed), "after {after}");
            for (index, row) in self.model.leases.iter().enumerate() {
                let missed = row.died.is_some_and(|died| died > after) && row.terms.end > judge;
                let is_told = told.iter().any(|(_, notice)| self.concerns(notice, index));
                assert!(is_told || !missed, "after {after} nobody is told by {told:?} of {row:?}");
                let named = told.iter().any(|(_, notice)| self.names(notice, index));
                assert!(row.died.is_some() || !named, "{row:?} lives");
            }
        }
    }

    /// A tree is remembered for a while after its root ended, and on the day on which it was opened.
    fn check_forgetting(&self) {
        for (index, row) in self.model.tasks.iter().enumerate().filter(|(_, row)| row.parent.is_none()) {
            let ledger = self.system.tree(row.id);
            for kept in [Duration::ZERO, Duration::from_millis(20), Duration::from_secs(86_400)] {
                let Some(forgotten) = ledger.forgotten_at(kept) else {
                    assert!(!row.recorded);
                    continue;
                };
                assert!(row.recorded && !self.model.task_lives(index, self.judge));
                let ending = ledger.task_ending(row.id, &self.system.control, at(self.judge)).unwrap();
                assert!(forgotten >= ending.at.after(kept));
                assert!(forgotten.day() > ledger.task(row.id).unwrap().opened().opened_at.day());
            }
        }
    }

    /// L6: were every lock swept and lifted now, in whatever order, and hence forgotten, nothing would be answered
    /// otherwise.
    fn check_sweeps(&self) {
        let unswept: Vec<LockRecord> = self.system.control.unswept().cloned().collect();
        for order in [unswept.clone(), unswept.into_iter().rev().collect()] {
            let (mut control, mut trees) = (self.system.control.clone(), self.system.trees.clone());
            let mut revision = self.system.revision;
            for record in order {
                for ledger in trees.values_mut() {
                    for fact in ledger.sweep(&record) {
                        revision = revision.next();
                        ledger.apply(&fact, &envelope(None, self.now()), revision);
                    }
                }
                let swept = Fact::LockSwept { lock: record.lock.id, tasks: 0, leases: 0 };
                revision = revision.next();
                control.apply(&swept, revision, self.now());
            }
            for lock in self.system.control.locks().keys() {
                let lifted = Fact::LockLifted { lock: *lock, proposer: None, confirmers: Vec::new() };
                revision = revision.next();
                control.apply(&lifted, revision, self.now());
            }
            assert_eq!(control.locks().len(), 0);
            for (root, ledger) in &self.system.trees {
                // Earlier too, as it is judged after a restart of a clock that was ahead.
                for judge in [self.judge - 100, self.judge - 10, self.judge] {
                    answers_as(&trees[root], &control, ledger, &self.system.control, judge);
                }
            }
        }
    }
}

/// Everything in one tree has ended as in the other, now and later.
fn answers_as(ledger: &Ledger, control: &Control, other: &Ledger, others: &Control, judge: u64) {
    for time in [judge, judge + 7, judge + 500] {
        for task in other.tasks() {
            let id = task.opened().id;
            let expected = other.task_ending(id, others, at(time));
            assert_eq!(ledger.task_ending(id, control, at(time)), expected, "{id} at {time}");
            for lease in task.leases() {
                let id = lease.terms().id;
                let expected = other.lease_ending(id, others, at(time));
                assert_eq!(ledger.lease_ending(id, control, at(time)), expected, "{id} at {time}");
            }
        }
    }
}

/// L6: what is dead stays dead, and how it died is not rewritten.
fn stays_as_it_is<K: Ord + Copy, O>(
    over: &mut BTreeMap<K, Ending<O>>,
    id: K,
    ending: Option<Ending<O>>,
    exactly: bool,
) where
    Ending<O>: PartialEq + std::fmt::Debug,
{
    match (over.get(&id), ending) {
        (Some(before), after) if exactly => assert_eq!(Some(before), after.as_ref()),
        (Some(before), after) => assert_eq!(Some(before.at), after.map(|ending| ending.at)),
        (None, Some(ending)) => {
            over.insert(id, ending);
        }
        (None, None) => {}
    }
}

/// T5: what the reaper records changes no answer, and it has something to record exactly when it said.
fn check_reaper(ledger: &Ledger, control: &Control, judge: u64) {
    let facts = ledger.expire(at(judge));
    let due = ledger.next_expiry();
    assert_eq!(due, ledger.expiries().min());
    assert_eq!(facts.is_empty(), due.is_none_or(|due| due > at(judge)), "{due:?} {facts:?}");
    if let Some(due) = due {
        assert!(!ledger.expire(due).is_empty());
        assert!(ledger.expire(at(due.millis() - 1)).is_empty());
    }
    let mut reaped = ledger.clone();
    let envelope = envelope(None, now(judge));
    for fact in &facts {
        reaped.apply(fact, &envelope, ledger.version().next());
    }
    assert!(reaped.expire(at(judge)).is_empty());
    assert!(reaped.next_expiry().is_none_or(|due| due > at(judge)));
    answers_as(&reaped, control, ledger, control, judge);
}

fn run(pace: u64, one_tree: bool, commands: Vec<Command>) -> Run {
    let mut run = Run::new(pace);
    if one_tree {
        run.step(Command::Open { tenant: 0, agent: 0, delegator: 0, opener: 0, life: 300, claim: false });
    }
    for command in commands {
        if !(one_tree && matches!(command, Command::Open { .. })) {
            run.step(command);
            run.check();
        }
    }
    run
}

#[test]
fn l6_l7_l9_l11_t5_ledgers_do_what_the_definitions_say() {
    let commands = (prop::collection::vec(command(), 1..60), any::<Index>());
    holds("l6_l7_l9_l11_t5", 192, commands, |(commands, snapshot_after)| {
        let steps = commands.len();
        run(1, false, commands).system.assert_is_replayed(snapshot_after.index(steps));
        Ok(())
    });
}

/// The same where everything happens in one tree, so that quota, recall and the endings of ancestors are met often.
#[test]
fn l6_l7_l11_d5_one_tree_does_what_the_definitions_say() {
    let commands = prop::collection::vec(command(), 1..60);
    holds("l6_l7_l11_d5", 192, commands, |commands| {
        run(1, true, commands).system.assert_is_replayed(0);
        Ok(())
    });
}

/// The same where nothing takes any time, so that things end in the same millisecond in which a lock comes.
#[test]
fn l6_what_happens_in_one_millisecond_stays_as_it_is_when_locks_are_forgotten() {
    let commands = prop::collection::vec(command(), 1..60);
    holds("l6_what_happens_in_one_millisecond", 96, commands, |commands| {
        run(0, true, commands);
        Ok(())
    });
}
