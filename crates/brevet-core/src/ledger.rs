//! The ledger of one task tree: its tasks and their leases. A command and the time come in, a fact comes out;
//! facts are folded, and nothing else changes state.
//!
//! Liveness is computed, never stored: a lease lives if nothing ended it, its end has not come, its task and every
//! ancestor live, and no lock recorded after it ever matched. So ending a node is one fact however large the subtree
//! is, and a late reaper prolongs nothing.

mod command;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::command::{End, EndRefusal, IssueRefusal, OpenRefusal, Opening, Recall};
use crate::control::Control;
use crate::digest::{ClaimDigest, RequestDigest};
use crate::fact::{Envelope, Fact, Holder, LeaseOutcome, Outcome, ReasonCode, TaskOpened};
use crate::id::{Id, LeaseId, LeaseKey, RootTaskId, TaskId};
use crate::lock::Hop;
use crate::name::{RequestId, TenantName};
use crate::proof::{Permit, Plan};
use crate::request::{Operation, TaskFacts};
use crate::revision::Revision;
use crate::sabotage;
use crate::spiffe_id::SpiffeId;
use crate::terms::{Content, Terms};
use crate::time::{Now, Timestamp};

/// The reason code of what a deadline ended.
pub const REASON_EXPIRED: ReasonCode = ReasonCode::of("expired");
/// The reason code of what a lock ended.
pub const REASON_LOCKED: ReasonCode = ReasonCode::of("locked");
/// The reason code of what an ancestor's or the own task's end ended.
pub const REASON_TASK_ENDED: ReasonCode = ReasonCode::of("task_ended");

/// How many live leases a task may have, if the configuration does not say.
pub const LEASES_LIVE_PER_TASK_MAX: u32 = 64;

/// One task tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    root: RootTaskId,
    tenant: TenantName,
    version: Revision,
    tasks: BTreeMap<Id, Task>,
}

/// One task and its leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    opened: Arc<TaskOpened>,
    revision: Revision,
    holder: Holder,
    ended: Option<Ending<Outcome>>,
    leases: BTreeMap<LeaseKey, Lease>,
    answered: BTreeMap<RequestId, Answered>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    terms: Arc<Terms>,
    revision: Revision,
    ended: Option<Ending<LeaseOutcome>>,
}

/// A request that was answered, remembered as long as its task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Answered {
    body: RequestDigest,
    lease: LeaseKey,
}

/// How and when something ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending<O> {
    /// How.
    pub outcome: O,
    /// Why.
    pub reason: ReasonCode,
    /// When, by the judging clock. What only time or a lock has ended so far ended when that came.
    pub at: Timestamp,
}

impl Ledger {
    /// The fact that opens a root task, from the permit for it.
    ///
    /// # Errors
    /// [`OpenRefusal`] if the permit is not for it or is stale, or a lock forbids it.
    pub fn open(permit: &Permit, opening: Opening, control: &Control, now: Now) -> Result<Fact, OpenRefusal> {
        let request = permit.request();
        let task = &request.task;
        if permit.operation() != Operation::CreateTask || !task.id.is_root() || task.depth != 0 {
            return Err(OpenRefusal::NotPermitted);
        }
        let basis = permit.basis();
        if basis.tree != Revision::ZERO || basis.control != control.revision() {
            return Err(OpenRefusal::Conflict);
        }
        if opening.deadline <= now.issue || opening.deadline <= now.judge {
            return Err(OpenRefusal::NoTime);
        }
        let mut opened = TaskOpened {
            id: task.id,
            parent: None,
            agent: task.agent.clone(),
            delegator: task.delegator.clone(),
            opener: request.caller.spiffe_id.clone(),
            task_type: task.task_type.clone(),
            purpose: task.purpose.clone(),
            sensitivity_max: task.sensitivity_max,
            prompt_origin: opening.prompt_origin,
            scope: request.scope.clone(),
            opened_at: now.issue,
            deadline: opening.deadline,
            depth: 0,
            holder: opening.holder,
            // Replaced at once: the digest covers all the other fields.
            hop: crate::digest::HopDigest::from_bytes([0; 32]),
            body: opening.body,
        };
        opened.hop = opened.hop_upon(None);
        let path = || std::iter::once(hop_of(&opened));
        if let Some(lock) = control.lock_on_opening(&request.caller.tenant, opened.id, now.judge, path) {
            return Err(OpenRefusal::Locked(lock.lock.id));
        }
        Ok(Fact::TaskOpened(Arc::new(opened)))
    }

    /// The ledger that the opening of a root task begins.
    #[must_use]
    pub fn begun_by(opened: &Arc<TaskOpened>, tenant: TenantName, revision: Revision) -> Self {
        let root = opened.id.root();
        let tasks = BTreeMap::from([(opened.id.node(), Task::begun_by(opened, revision))]);
        Self { root, tenant, version: revision, tasks }
    }

    /// The fact that issues the plan's lease.
    ///
    /// # Errors
    /// [`IssueRefusal`]: nothing is issued unless the task lives, the key is its own, the terms lie within it, no
    /// lock forbids it and its quota has room.
    pub fn issue(
        &self,
        plan: &Plan,
        body: RequestDigest,
        claim: Option<ClaimDigest>,
        control: &Control,
        now: Now,
        leases_live_max: u32,
    ) -> Result<Fact, IssueRefusal> {
        let (permit, terms) = (plan.permit(), plan.terms());
        let id = terms.id.task;
        let credential = permit.request().credential.as_ref();
        if permit.operation() != Operation::IssueCredential
            || permit.request().task.id != id
            || permit.policy() != terms.policy
            || credential.is_none_or(|credential| credential.holder != terms.holder)
        {
            return Err(IssueRefusal::NotPermitted);
        }
        let task = self.task(id).ok_or(IssueRefusal::NoTask)?;
        if permit.basis().tree != self.version || permit.basis().control != control.revision() {
            return Err(IssueRefusal::Conflict);
        }
        if task.leases.contains_key(&terms.id.key) {
            return Err(IssueRefusal::NotPermitted);
        }
        if let Some(ending) = self.task_ending(id, control, now.judge) {
            return Err(IssueRefusal::TaskClosed(ending));
        }
        if !task.admits(terms, claim) {
            return Err(IssueRefusal::WrongHolder);
        }
        if terms.end <= now.issue
            || terms.end <= now.judge
            || self.deadline(id).is_none_or(|deadline| terms.end > deadline)
        {
            return Err(IssueRefusal::NoTime);
        }
        let Content::TaskToken(token) = &terms.content;
        if !token.scope.is_within(&task.opened.scope) {
            return Err(IssueRefusal::Widens);
        }
        let tenant = &self.tenant;
        if let Some(lock) = control
            .lock_on_opening(tenant, id, now.judge, || self.path(id))
            .or_else(|| control.lock_on_issue(tenant, terms, now.judge))
        {
            return Err(IssueRefusal::Locked(lock.lock.id));
        }
        if self.leases_live(id, control, now.judge) >= leases_live_max && !sabotage::on("ignore_quota") {
            return Err(IssueRefusal::Quota(leases_live_max));
        }
        Ok(Fact::LeaseIssued { terms: Arc::clone(terms), body })
    }

    /// Whether a request for a task's credential was answered before.
    #[must_use]
    pub fn recall(&self, task: TaskId, request_id: &RequestId, body: &RequestDigest) -> Recall {
        match self.task(task).and_then(|task| task.answered.get(request_id)) {
            None => Recall::New,
            Some(answered) if answered.body == *body || sabotage::on("any_body_is_the_same") => {
                Recall::Same(answered.lease)
            }
            Some(_) => Recall::Other,
        }
    }

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
                let leases = self
                    .tasks
                    .values()
                    .filter(|other| self.path(other.opened.id).any(|hop| hop.node == task.node()))
                    .map(|other| self.leases_live(other.opened.id, control, judge))
                    .sum();
                Ok(End::Now(Fact::TaskEnded { task, outcome, reason }, leases))
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
        Ok(End::Now(Fact::LeasesEnded { task: lease.task, leases: vec![lease.key], outcome, reason }, 1))
    }

    /// The facts that record what has run out: bookkeeping, for liveness does not wait for them.
    #[must_use]
    pub fn expire(&self, judge: Timestamp) -> Vec<Fact> {
        let mut facts = Vec::new();
        for task in self.tasks.values() {
            let id = task.opened.id;
            // What lies below a task that has ended, or ends now, ends by that.
            let recorded = |hop: &Task| hop.ended.is_some() || hop.opened.deadline <= judge;
            let ancestor_over = self.ancestors(id).skip(1).any(recorded);
            if ancestor_over || task.ended.is_some() {
                continue;
            }
            if task.opened.deadline <= judge {
                facts.push(Fact::TaskEnded { task: id, outcome: Outcome::Expired, reason: REASON_EXPIRED });
                continue;
            }
            let over = |lease: &Lease| lease.ended.is_none() && lease.terms.end <= judge;
            let leases: Vec<LeaseKey> =
                task.leases.iter().filter(|(_, lease)| over(lease)).map(|(key, _)| *key).collect();
            if !leases.is_empty() {
                facts.push(Fact::LeasesEnded {
                    task: id,
                    leases,
                    outcome: LeaseOutcome::Expired,
                    reason: REASON_EXPIRED,
                });
            }
        }
        facts
    }

    /// When [`Self::expire`] will next have something to record, if ever.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries().min()
    }

    /// Every time at which [`Self::expire`] will have something to record, in no order.
    pub fn expiries(&self) -> impl Iterator<Item = Timestamp> {
        self.tasks
            .values()
            .filter(|task| self.ancestors(task.opened.id).all(|hop| hop.ended.is_none()))
            .flat_map(|task| {
                let leases = task.leases.values().filter(|lease| lease.ended.is_none());
                leases.map(|lease| lease.terms.end).chain([task.opened.deadline])
            })
    }

    /// Folds one fact of this tree. Facts of others change nothing.
    pub fn apply(&mut self, fact: &Fact, envelope: &Envelope, revision: Revision) {
        match fact {
            Fact::TaskOpened(opened) if opened.id.root() == self.root => {
                // INVARIANT: every task but the root has its parent here, so that its ancestors end at the root.
                if !opened.parent.is_some_and(|parent| self.tasks.contains_key(&parent)) {
                    return;
                }
                self.tasks.entry(opened.id.node()).or_insert_with(|| Task::begun_by(opened, revision));
            }
            Fact::TaskEnded { task, outcome, reason } => {
                let Some(task) = self.task_mut(*task) else { return };
                task.ended.get_or_insert_with(|| Ending {
                    outcome: *outcome,
                    reason: reason.clone(),
                    at: envelope.at.judge,
                });
            }
            Fact::LeaseIssued { terms, body } => {
                let Some(task) = self.task_mut(terms.id.task) else { return };
                task.holder = Holder::Key(terms.holder);
                // INVARIANT: no lease takes the place of another, dead or live.
                task.leases.entry(terms.id.key).or_insert_with(|| Lease {
                    terms: Arc::clone(terms),
                    revision,
                    ended: None,
                });
                if let Some(request_id) = &envelope.request_id {
                    let answered = Answered { body: *body, lease: terms.id.key };
                    task.answered.entry(request_id.clone()).or_insert(answered);
                }
            }
            Fact::LeasesEnded { task, leases, outcome, reason } => {
                let Some(task) = self.task_mut(*task) else { return };
                for key in leases {
                    let Some(lease) = task.leases.get_mut(key) else { continue };
                    lease.ended.get_or_insert_with(|| Ending {
                        outcome: *outcome,
                        reason: reason.clone(),
                        at: envelope.at.judge,
                    });
                }
            }
            _ => return,
        }
        self.version = revision;
    }

    /// The tree.
    #[must_use]
    pub const fn root(&self) -> RootTaskId {
        self.root
    }

    /// The tenant it belongs to.
    #[must_use]
    pub const fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The revision of the last change: the tree version.
    #[must_use]
    pub const fn version(&self) -> Revision {
        self.version
    }

    /// A task.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        if id.root() == self.root { self.tasks.get(&id.node()) } else { None }
    }

    /// A lease.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.task(id.task)?.leases.get(&id.key)
    }

    /// Every task of the tree.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

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
            let ending = hop.ended.clone()?;
            match distance {
                0 => Some(ending),
                _ if sabotage::on("ancestors_do_not_end") => None,
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
        self.own_endings(lease, control, judge).chain(by_task).min_by_key(|ending| ending.at)
    }

    /// What has ended a lease, but for the end of its task. A lock on the task came after the task was opened and has
    /// killed that.
    fn own_endings<'a>(
        &'a self,
        lease: &'a Lease,
        control: &'a Control,
        judge: Timestamp,
    ) -> impl Iterator<Item = Ending<LeaseOutcome>> + 'a {
        let at = lease.terms.end;
        let is_due = at <= judge && !sabotage::on("leases_outlive_their_end");
        let expired = is_due.then_some(Ending { outcome: LeaseOutcome::Expired, reason: REASON_EXPIRED, at });
        let locked = control.lock_on_terms(&self.tenant, &lease.terms, lease.revision).map(|lock| Ending {
            outcome: LeaseOutcome::Revoked,
            reason: REASON_LOCKED,
            at: lock.created_at,
        });
        expired.into_iter().chain(lease.ended.clone()).chain(locked)
    }

    /// How many leases of a task live.
    #[must_use]
    pub fn leases_live(&self, id: TaskId, control: &Control, judge: Timestamp) -> u32 {
        let Some(task) = self.task(id) else { return 0 };
        if self.task_ending(id, control, judge).is_some() {
            return 0;
        }
        let live = |lease: &&Lease| self.own_endings(lease, control, judge).next().is_none();
        u32::try_from(task.leases.values().filter(live).count()).unwrap_or(u32::MAX)
    }

    /// What policy sees of a task.
    #[must_use]
    pub fn facts(&self, id: TaskId, control: &Control, now: Now) -> Option<TaskFacts> {
        let task = self.task(id)?;
        let opened = &task.opened;
        Some(TaskFacts {
            id,
            task_type: opened.task_type.clone(),
            purpose: opened.purpose.clone(),
            sensitivity_max: opened.sensitivity_max,
            agent: opened.agent.clone(),
            delegator: opened.delegator.clone(),
            opener: opened.opener.clone(),
            chain: self.path(id).map(|hop| hop.agent.clone()).collect(),
            depth: opened.depth,
            age_seconds: now.judge.since(opened.opened_at).as_secs(),
            remaining_seconds: opened.deadline.since(now.judge).as_secs(),
            leases_live: self.leases_live(id, control, now.judge),
        })
    }

    /// Whether a workload owns a task: it opened it, or it opened or works on one of its ancestors.
    #[must_use]
    pub fn is_owner(&self, id: TaskId, workload: &SpiffeId) -> bool {
        self.ancestors(id).enumerate().any(|(distance, task)| {
            task.opened.opener == *workload || (distance > 0 && task.opened.agent == *workload)
        })
    }

    /// The hops from the root of the tree to a task.
    pub fn path(&self, id: TaskId) -> impl Iterator<Item = Hop<'_>> {
        let mut hops: Vec<Hop<'_>> = self.ancestors(id).map(|task| hop_of(&task.opened)).collect();
        hops.reverse();
        hops.into_iter()
    }

    /// The task itself, its parent, and so on up to the root.
    fn ancestors(&self, id: TaskId) -> impl Iterator<Item = &Task> {
        let task = self.task(id);
        std::iter::successors(task, |task| self.tasks.get(&task.opened.parent?))
    }

    fn task_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        if id.root() == self.root { self.tasks.get_mut(&id.node()) } else { None }
    }
}

impl Task {
    fn begun_by(opened: &Arc<TaskOpened>, revision: Revision) -> Self {
        Self {
            opened: Arc::clone(opened),
            revision,
            holder: opened.holder,
            ended: None,
            leases: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    /// How it was opened.
    #[must_use]
    pub const fn opened(&self) -> &Arc<TaskOpened> {
        &self.opened
    }

    /// The revision it was opened at.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The agent instance it is bound to.
    #[must_use]
    pub const fn holder(&self) -> Holder {
        self.holder
    }

    /// Its leases, live and dead.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    fn admits(&self, terms: &Terms, claim: Option<ClaimDigest>) -> bool {
        match self.holder {
            Holder::Key(key) => key == terms.holder || sabotage::on("any_holder"),
            Holder::Claim(expected) => claim == Some(expected),
        }
    }
}

impl Lease {
    /// Everything that was signed, but for the revision.
    #[must_use]
    pub const fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// The revision it was issued at.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }
}

fn hop_of(opened: &TaskOpened) -> Hop<'_> {
    Hop { node: opened.id.node(), agent: &opened.agent, delegator: &opened.delegator, opener: &opened.opener }
}

#[cfg(test)]
pub(crate) mod tests;
