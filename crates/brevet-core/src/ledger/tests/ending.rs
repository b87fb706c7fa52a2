//! Commands that end things: they must end what the definitions say and nothing else.

use super::super::*;
use super::run::Run;
use super::sample::*;
use crate::fact::{LeaseOutcome, Outcome};
use crate::id::LockId;
use crate::lock::Selector;

impl Run {
    pub(super) fn end_task(&mut self, task: usize, outcome: Outcome) {
        let row = &self.model.tasks[task];
        let reason = ReasonCode::of("asked");
        let control = &self.system.control;
        let answer = self.system.tree(row.id).end(row.id, outcome, reason, control, at(self.judge));
        if !self.model.task_lives(task, self.judge) {
            let over = self.system.tree(row.id).task_ending(row.id, control, at(self.judge)).unwrap();
            let expected = if over.outcome == outcome {
                Ok(End::Already)
            } else {
                Err(EndRefusal::EndedOtherwise(over))
            };
            assert_eq!(answer, expected);
            return;
        }
        let below = |lease: &usize| self.model.line(self.model.leases[*lease].task).contains(&task);
        let live = (0..self.model.leases.len())
            .filter(below)
            .filter(|lease| self.model.lease_lives(*lease, self.judge))
            .count();
        let Ok(End::Now(fact, ended)) = answer else { panic!("{answer:?}") };
        assert_eq!(ended as usize, live);
        self.record(&fact, task, None);
        self.model.tasks[task].ended = true;
    }

    pub(super) fn end_lease(&mut self, lease: usize, outcome: LeaseOutcome) {
        let row = &self.model.leases[lease];
        let (id, task) = (row.terms.id, row.task);
        let reason = ReasonCode::of("asked");
        let control = &self.system.control;
        let answer = self.system.tree(id.task).end_lease(id, outcome, reason, control, at(self.judge));
        if !self.model.lease_lives(lease, self.judge) {
            assert_eq!(answer, Ok(End::Already));
            return;
        }
        let Ok(End::Now(fact, 1)) = answer else { panic!("{answer:?}") };
        self.record(&fact, task, None);
        self.model.leases[lease].ended = true;
    }

    pub(super) fn end_matching(&mut self, task: usize, selector: &Selector) {
        let id = self.model.tasks[task].id;
        let (reason, control) = (ReasonCode::of("asked"), &self.system.control);
        let facts = self.system.tree(id).end_matching(selector, &reason, control, at(self.judge));
        let mut ended = Vec::new();
        for fact in &facts {
            let Fact::LeasesEnded { task, leases, outcome: LeaseOutcome::Revoked, .. } = fact else {
                panic!("{fact:?}")
            };
            ended.extend(leases.iter().map(|key| LeaseId { task: *task, key: *key }));
        }
        ended.sort_unstable();
        let rows = 0..self.model.leases.len();
        let meant: Vec<usize> = rows
            .filter(|lease| self.model.leases[*lease].terms.id.task.root() == id.root())
            .filter(|lease| self.model.selects(selector, *lease))
            .filter(|lease| self.model.lease_lives(*lease, self.judge))
            .collect();
        let mut expected: Vec<LeaseId> =
            meant.iter().map(|lease| self.model.leases[*lease].terms.id).collect();
        expected.sort_unstable();
        assert_eq!(ended, expected);
        for fact in &facts {
            self.record(fact, task, None);
        }
        for lease in meant {
            self.model.leases[lease].ended = true;
        }
    }

    /// Records what a lock killed in all trees, if its record is still kept.
    pub(super) fn sweep(&mut self, lock: LockId) {
        let Some(record) = self.system.control.locks().get(&lock).cloned() else { return };
        let (mut tasks, mut leases) = (0, 0);
        for root in self.system.trees.keys().copied().collect::<Vec<_>>() {
            let task = self.model.tasks.iter().position(|row| row.id == TaskId::root_of(root)).unwrap();
            for fact in self.system.trees[&root].sweep(&record) {
                match &fact {
                    Fact::LeasesEnded { leases: ended, .. } => leases += ended.len() as u64,
                    _ => tasks += 1,
                }
                self.record(&fact, task, None);
            }
            assert_eq!(self.system.trees[&root].sweep(&record), [], "once is enough");
        }
        self.system.record(&Fact::LockSwept { lock, tasks, leases }, None, None, self.now());
    }
}
