//! Whether something lives: computed from what was recorded, the time and the locks, never stored.

use super::{Ending, Hop, Lease, Ledger, REASON_EXPIRED, REASON_LOCKED, REASON_TASK_ENDED, Task, hop_of};
use crate::control::Control;
use crate::fact::{LeaseOutcome, Outcome};
use crate::id::{LeaseId, TaskId};
use crate::sabotage;
use crate::time::Timestamp;

impl Ledger {
    /// The earliest deadline of a task and its ancestors.
    #[must_use]
    pub fn deadline(&self, id: TaskId) -> Option<Timestamp> {
        self.ancestors(id).map(|task| task.opened.deadline).min()
    }

    /// How a task has ended; none if it lives. A task that is not here has no ending either: ask for it first.
    ///
    /// Of several endings the earliest is meant, so that the answer does not change as time passes or as the reaper
    /// records what it finds.
    #[must_use]
    pub fn task_ending(&self, id: TaskId, control: &Control, judge: Timestamp) -> Option<Ending<Outcome>> {
        self.task(id)?;
        let due = self.ancestors(id).map(|hop| hop.opened.deadline).filter(|deadline| *deadline <= judge);
        let expired = due.map(|at| Ending { outcome: Outcome::Expired, reason: REASON_EXPIRED, at });
        let recorded = self.ancestors(id).enumerate().filter_map(|(distance, hop)| {
            let ending = hop.ended.as_ref()?.ending.clone();
            match distance {
                0 => Some(ending),
                _ if sabotage::on("ancestors_do_not_end") => None,
                // What is below a locked task was locked with it, be that recorded or not.
                _ if ending.outcome == Outcome::Revoked && ending.reason == REASON_LOCKED => Some(ending),
                _ => Some(Ending { reason: REASON_TASK_ENDED, ..ending }),
            }
        });
        // A lock that came between the openings of an ancestor and of this task has killed the ancestor.
        let locked = self.ancestors(id).filter_map(|hop| {
            let lock = control
                .lock_on_task(&self.tenant, hop.opened.id, hop.revision, || self.path(hop.opened.id))?;
            Some(Ending { outcome: Outcome::Revoked, reason: REASON_LOCKED, at: lock.created_at })
        });
        // What has come and been recorded in the same millisecond had come first.
        expired.chain(recorded).chain(locked).min_by_key(|ending| ending.at)
    }

    /// How a lease has ended; none if it lives. A lease that is not here has no ending either: ask for it first.
    #[must_use]
    pub fn lease_ending(
        &self,
        id: LeaseId,
        control: &Control,
        judge: Timestamp,
    ) -> Option<Ending<LeaseOutcome>> {
        let lease = self.lease(id)?;
        let by_task = self.task_ending(id.task, control, judge).map(|task| {
            let reason = if task.outcome == Outcome::Revoked { task.reason } else { REASON_TASK_ENDED };
            Ending { outcome: LeaseOutcome::Revoked, reason, at: task.at }
        });
        // Of two in the same millisecond the first here is meant: a sweep leaves alone what had ended by then.
        let by_lock = self.locked(lease, control);
        own_endings(lease, judge).chain(by_task).chain(by_lock).min_by_key(|ending| ending.at)
    }

    /// What a lock has done to a lease by what the lease says. A lock on its task came after that was opened and has
    /// killed the task.
    fn locked(&self, lease: &Lease, control: &Control) -> Option<Ending<LeaseOutcome>> {
        let lock = control.lock_on_terms(&self.tenant, &lease.terms, lease.revision)?;
        Some(Ending { outcome: LeaseOutcome::Revoked, reason: REASON_LOCKED, at: lock.created_at })
    }

    /// How many leases of a task live.
    #[must_use]
    pub fn leases_live(&self, id: TaskId, control: &Control, judge: Timestamp) -> u32 {
        let live = self.task(id).filter(|_| self.task_ending(id, control, judge).is_none());
        live.map_or(0, |task| {
            // While nothing in the tree is due and there is no lock, what is open lives. To look at each lease costs a
            // good part of a decision.
            if self.next_expiry().is_some_and(|due| judge < due) && !control.has_locks() {
                u32::try_from(task.open.len()).unwrap_or(u32::MAX)
            } else {
                count(self.open_leases_live(task, control, judge))
            }
        })
    }

    /// How many leases of a task and of everything below it live.
    #[must_use]
    pub fn leases_live_below(&self, id: TaskId, control: &Control, judge: Timestamp) -> u32 {
        let tasks = self.tasks_live_below(id, control, judge);
        count(tasks.flat_map(|task| self.open_leases_live(task, control, judge)))
    }

    /// A task and what is below it, as far as it lives. What is above them is asked about once.
    pub(super) fn tasks_live_below(
        &self,
        id: TaskId,
        control: &Control,
        judge: Timestamp,
    ) -> impl Iterator<Item = &Task> {
        let is_live = self.task_ending(id, control, judge).is_none();
        self.down_from(id, move |task| {
            let (id, opened) = (task.opened.id, task.revision);
            is_live
                && task.ended.is_none()
                && judge < task.opened.deadline
                && control.lock_on_task(&self.tenant, id, opened, || self.path(id)).is_none()
        })
    }

    /// The leases of a live task that live.
    pub(super) fn open_leases_live<'a>(
        &'a self,
        task: &'a Task,
        control: &Control,
        judge: Timestamp,
    ) -> impl Iterator<Item = &'a Lease> {
        let live = move |lease: &&Lease| {
            own_endings(lease, judge).next().is_none() && self.locked(lease, control).is_none()
        };
        task.open.values().filter(live)
    }

    /// The hops from the root of the tree to a task.
    pub fn path(&self, id: TaskId) -> impl Iterator<Item = Hop<'_>> {
        let mut hops: Vec<Hop<'_>> = self.ancestors(id).map(|task| hop_of(&task.opened)).collect();
        hops.reverse();
        hops.into_iter()
    }
}

/// What has ended a lease by itself or by a fact of its own.
fn own_endings(lease: &Lease, judge: Timestamp) -> impl Iterator<Item = Ending<LeaseOutcome>> {
    let at = lease.terms.end;
    let is_due = at <= judge && !sabotage::on("leases_outlive_their_end");
    let expired = is_due.then_some(Ending { outcome: LeaseOutcome::Expired, reason: REASON_EXPIRED, at });
    let recorded = lease.ended.as_ref().map(|closed| closed.ending.clone());
    expired.into_iter().chain(recorded)
}

fn count<'a>(leases: impl Iterator<Item = &'a Lease>) -> u32 {
    u32::try_from(leases.count()).unwrap_or(u32::MAX)
}
