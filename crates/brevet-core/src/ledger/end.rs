//! What ends tasks and leases: a signal, time, an operator's selection, a lock.

use super::{End, EndRefusal, Lease, Ledger, REASON_EXPIRED, REASON_LOCKED, Task};
use crate::control::Control;
use crate::fact::{Fact, LeaseOutcome, Outcome, ReasonCode};
use crate::id::{LeaseId, LeaseKey, TaskId};
use crate::lock::{LockRecord, Selector, Swept};
use crate::sabotage;
use crate::time::Timestamp;

impl Ledger {
    /// The fact that ends a task and everything below it.
    ///
    /// # Errors
    /// [`EndRefusal`] if there is none, or it had ended in another way.
    pub fn end(
        &self,
        task: TaskId,
        outcome: Outcome,
        reason: ReasonCode,
        control: &Control,
        judge: Timestamp,
    ) -> Result<End, EndRefusal> {
        self.task(task).ok_or(EndRefusal::NotFound)?;
        match self.task_ending(task, control, judge) {
            None => {
                let leases = self.leases_live_below(task, control, judge);
                Ok(End::Now(Fact::TaskEnded { task, outcome, reason, since: None }, leases))
            }
            Some(ending) if ending.outcome == outcome => Ok(End::Already),
            Some(ending) => Err(EndRefusal::EndedOtherwise(ending)),
        }
    }

    /// The fact that ends one lease while its task goes on.
    ///
    /// # Errors
    /// [`EndRefusal::NotFound`] if there is none.
    pub fn end_lease(
        &self,
        lease: LeaseId,
        outcome: LeaseOutcome,
        reason: ReasonCode,
        control: &Control,
        judge: Timestamp,
    ) -> Result<End, EndRefusal> {
        self.lease(lease).ok_or(EndRefusal::NotFound)?;
        if self.lease_ending(lease, control, judge).is_some() {
            return Ok(End::Already);
        }
        let leases = vec![lease.key];
        Ok(End::Now(Fact::LeasesEnded { task: lease.task, leases, outcome, reason, since: None }, 1))
    }

    /// The facts that end every live lease which a selector matches while the tasks go on.
    #[must_use]
    pub fn end_matching(
        &self,
        selector: &Selector,
        reason: &ReasonCode,
        control: &Control,
        judge: Timestamp,
    ) -> Vec<Fact> {
        let ended = |task: &Task| {
            let id = task.opened.id;
            let whole = selector.stops_task(id, self.path(id));
            let leases: Vec<LeaseKey> = self
                .open_leases_live(task, control, judge)
                .filter(|lease| whole || selector.stops_terms(&lease.terms))
                .map(|lease| lease.terms.id.key)
                .collect();
            (!leases.is_empty()).then(|| Fact::LeasesEnded {
                task: id,
                leases,
                outcome: LeaseOutcome::Revoked,
                reason: reason.clone(),
                since: None,
            })
        };
        self.tasks_live_below(TaskId::root_of(self.root), control, judge).filter_map(ended).collect()
    }

    /// The facts that record what has run out: bookkeeping, for liveness does not wait for them.
    #[must_use]
    pub fn expire(&self, judge: Timestamp) -> Vec<Fact> {
        let due = self.due.iter().take_while(|(at, _)| *at <= judge);
        let mut facts = Vec::new();
        for task in due.filter_map(|(_, node)| self.tasks.get(node)) {
            let id = task.opened.id;
            // What lies below a task that ends now ends by that.
            if self.ancestors(id).skip(1).any(|hop| hop.opened.deadline <= judge) {
                continue;
            }
            if task.opened.deadline <= judge {
                let (outcome, reason) = (Outcome::Expired, REASON_EXPIRED);
                facts.push(Fact::TaskEnded { task: id, outcome, reason, since: None });
                continue;
            }
            let due = task.open.values().filter(|lease| lease.terms.end <= judge);
            let leases: Vec<LeaseKey> = due.map(|lease| lease.terms.id.key).collect();
            if !leases.is_empty() {
                let (outcome, reason) = (LeaseOutcome::Expired, REASON_EXPIRED);
                facts.push(Fact::LeasesEnded { task: id, leases, outcome, reason, since: None });
            }
        }
        facts
    }

    /// The facts that record what a lock has killed: bookkeeping again, which says when the lock had done it. What was
    /// recorded to have ended before the lock came is not among it.
    #[must_use]
    pub fn sweep(&self, lock: &LockRecord) -> Vec<Fact> {
        if !lock.binds(&self.tenant) {
            return Vec::new();
        }
        let (selector, since) = (&lock.lock.selector, Some(lock.created_at));
        // INVARIANT: what is left out here has an ending of its own. That its time was up is none: the clock may have
        // been ahead when the lock came, and what the lock killed would live again when both are forgotten.
        let is_over =
            |task: &Task| task.ended.as_ref().is_some_and(|closed| closed.ending.at <= lock.created_at);
        let is_left =
            |lease: &&Lease| lease.ended.as_ref().is_none_or(|closed| closed.ending.at > lock.created_at);
        // What came after the lock, with all that is below it, is none of its business.
        let concerned = |task: &Task| lock.kills(task.revision) && !is_over(task);
        let mut facts = Vec::new();
        let mut next: Vec<&Task> = self.tasks.get(&self.root.0).into_iter().collect();
        while let Some(task) = next.pop() {
            let id = task.opened.id;
            if !concerned(task) {
                continue;
            }
            // What lies below a task that the lock ends ends by that.
            if selector.stops_task(id, self.path(id)) {
                let (outcome, reason) = (Outcome::Revoked, REASON_LOCKED);
                facts.push(Fact::TaskEnded { task: id, outcome, reason, since });
                continue;
            }
            next.extend(self.children(task));
            let leases: Vec<LeaseKey> = task
                .leases()
                .filter(|lease| lock.kills(lease.revision))
                .filter(is_left)
                .filter(|lease| selector.stops_terms(&lease.terms))
                .map(|lease| lease.terms.id.key)
                .collect();
            if !leases.is_empty() {
                let (outcome, reason) = (LeaseOutcome::Revoked, REASON_LOCKED);
                facts.push(Fact::LeasesEnded { task: id, leases, outcome, reason, since });
            }
        }
        facts
    }

    /// What a lock has ended here, as far as it is recorded. It is counted from the endings and not from the commits that
    /// brought them, so that a sweep which was cut off and begun again counts all the same.
    #[must_use]
    pub fn swept(&self, lock: &LockRecord) -> Swept {
        if !lock.binds(&self.tenant) {
            return Swept { tasks: 0, leases: 0 };
        }
        let selector = &lock.lock.selector;
        let count = |counted: usize| u64::try_from(counted).unwrap_or(u64::MAX);
        let by_lock = |reason: &ReasonCode, at: Timestamp| *reason == REASON_LOCKED && at == lock.created_at;
        let task_ended = |task: &&Task| {
            let id = task.opened.id;
            task.revision < lock.created
                && task.ended.as_ref().is_some_and(|it| by_lock(&it.ending.reason, it.ending.at))
                && selector.stops_task(id, self.path(id))
        };
        let lease_ended = |lease: &&Lease| {
            lease.revision < lock.created
                && lease.ended.as_ref().is_some_and(|it| by_lock(&it.ending.reason, it.ending.at))
                && selector.stops_terms(&lease.terms)
        };
        let leases = self.tasks.values().flat_map(|task| task.closed.values());
        Swept {
            tasks: count(self.tasks.values().filter(task_ended).count()),
            leases: count(leases.filter(lease_ended).count()),
        }
    }

    /// What is left of an ending that was found before the tree changed; none if nothing is. So a search for endings
    /// need not begin again after each of them.
    #[must_use]
    pub fn left_of(&self, mut found: Fact) -> Option<Fact> {
        if sabotage::on("endings_come_twice") {
            return Some(found);
        }
        let (Fact::TaskEnded { task, since, .. } | Fact::LeasesEnded { task, since, .. }) = found else {
            return None;
        };
        // What a lock did before is recorded over what came later: see `Closed::settle_in`.
        let settled = |at: Timestamp| since.is_none_or(|since| at <= since);
        let owner = self.task(task)?;
        if self.ancestors(task).any(|hop| hop.ended.as_ref().is_some_and(|it| settled(it.ending.at))) {
            return None;
        }
        let Fact::LeasesEnded { leases, .. } = &mut found else { return Some(found) };
        leases.retain(|key| {
            let ended = owner.lease(*key).map(|lease| lease.ended.as_ref());
            ended.is_some_and(|ended| ended.is_none_or(|it| !settled(it.ending.at)))
        });
        if leases.is_empty() { None } else { Some(found) }
    }

    /// When [`Self::expire`] will next have something to record, if ever.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Every time at which [`Self::expire`] will have something to record, in no order.
    pub fn expiries(&self) -> impl Iterator<Item = Timestamp> {
        let of_task = |task: &Task| {
            let leases = task.open.values().map(|lease| lease.terms.end);
            leases.chain([task.opened.deadline]).collect::<Vec<_>>()
        };
        self.not_over(TaskId::root_of(self.root)).flat_map(of_task)
    }
}
