//! The ledger of one task tree: its tasks and their leases. A command and the time come in, a fact comes out;
//! facts are folded, and nothing else changes state.
//!
//! Liveness is computed, never stored: a lease lives if nothing ended it, its end has not come, its task and every
//! ancestor live, and no lock recorded after it ever matched. So ending a node is one fact however large the subtree
//! is, and a late reaper prolongs nothing.

mod command;
mod end;
mod issue;
mod liveness;
mod notices;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::command::{
    DelegateRefusal, End, EndRefusal, IssueRefusal, LeaseLimits, OpenRefusal, Opening, Recall, TreeLimits,
};
use self::task::{Answered, Closed};
pub use self::task::{Ending, Lease, Task};
use crate::control::Control;
use crate::digest::HopDigest;
use crate::fact::{Envelope, Fact, Holder, ReasonCode, TaskOpened};
use crate::id::{Id, LeaseId, RootTaskId, TaskId};
use crate::lock::Hop;
use crate::name::TenantName;
use crate::proof::Permit;
use crate::request::{Ask, TaskFacts};
use crate::revision::Revision;
use crate::sabotage;
use crate::spiffe_id::SpiffeId;
use crate::time::{Now, Timestamp};

/// The reason code of what a deadline ended.
pub const REASON_EXPIRED: ReasonCode = ReasonCode::of("expired");
/// The reason code of what a lock ended.
pub const REASON_LOCKED: ReasonCode = ReasonCode::of("locked");
/// The reason code of what an ancestor's or the own task's end ended.
pub const REASON_TASK_ENDED: ReasonCode = ReasonCode::of("task_ended");

/// One task tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    root: RootTaskId,
    tenant: TenantName,
    version: Revision,
    tasks: BTreeMap<Id, Task>,
    /// When which task has something to record that time has ended. What lies at or below an ended task is not in it.
    due: BTreeSet<(Timestamp, Id)>,
    /// The latest end of any lease.
    last_end: Timestamp,
}

impl Ledger {
    /// The fact that opens a root task, from the permit for it.
    ///
    /// # Errors
    /// [`OpenRefusal`] if the permit is not for it or is stale, or a lock forbids it.
    pub fn open(permit: &Permit, opening: Opening, control: &Control, now: Now) -> Result<Fact, OpenRefusal> {
        let request = permit.request();
        let Ask::CreateTask(context) = &request.ask else { return Err(OpenRefusal::NotPermitted) };
        let task = &context.task;
        if !task.id.is_root() || task.depth != 0 {
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
            // What an agent says of a task that it opens for itself is its own word, here and in all that is delegated.
            prompt_origin: opening.prompt_origin.filter(|_| request.caller.spiffe_id != task.agent),
            scope: context.scope.clone(),
            opened_at: now.issue,
            deadline: opening.deadline,
            depth: 0,
            holder: opening.holder,
            // Replaced at once: the digest covers all the other fields.
            hop: HopDigest::from_bytes([0; 32]),
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
        let due = BTreeSet::from([(opened.deadline, opened.id.node())]);
        Self { root, tenant, version: revision, tasks, due, last_end: Timestamp::default() }
    }

    /// Folds one fact of this tree. Facts of others change nothing.
    pub fn apply(&mut self, fact: &Fact, envelope: &Envelope, revision: Revision) {
        match fact {
            Fact::TaskOpened(opened) if opened.id.root() == self.root => {
                // INVARIANT: every task but the root has its parent here, so that its ancestors end at the root; and no
                // task takes the place of another.
                let node = opened.id.node();
                let is_new = !self.tasks.contains_key(&node);
                let Some(parent) = opened.parent.and_then(|parent| self.tasks.get_mut(&parent)) else {
                    return;
                };
                if is_new {
                    parent.children.push(node);
                    self.tasks.insert(node, Task::begun_by(opened, revision));
                    if !self.is_over(opened.id) {
                        self.due.insert((opened.deadline, node));
                    }
                }
            }
            Fact::TaskEnded { task, outcome, reason, since } => {
                self.forget_due(*task);
                let Some(task) = self.task_mut(*task) else { return };
                let at = since.unwrap_or(envelope.at.judge);
                let ending = Ending { outcome: *outcome, reason: reason.clone(), at };
                Closed { ending, revision }.settle_in(&mut task.ended, since.is_some());
            }
            Fact::LeaseIssued { terms, body, renews } => {
                let issued = self.change(terms.id.task, |task| {
                    task.holder = Holder::Key(terms.holder);
                    task.add(Lease { terms: Arc::clone(terms), revision, renews: *renews, ended: None });
                    if let Some(request_id) = &envelope.request_id {
                        let answered = Answered { body: *body, lease: terms.id.key };
                        task.answered.entry(request_id.clone()).or_insert(answered);
                    }
                });
                let Some(()) = issued else { return };
                self.last_end = self.last_end.max(terms.end);
            }
            Fact::LeasesEnded { task, leases, outcome, reason, since } => {
                let at = since.unwrap_or(envelope.at.judge);
                let ended = self.change(*task, |task| {
                    for key in leases {
                        let ending = Ending { outcome: *outcome, reason: reason.clone(), at };
                        task.close(*key, Closed { ending, revision }, since.is_some());
                    }
                });
                let Some(()) = ended else { return };
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
        self.task(id.task)?.lease(id.key)
    }

    /// Every task of the tree.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
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

    /// How many leases without an ending of their own each opener answers for, those of ended tasks left out: what
    /// quotas count.
    pub fn leases_open(&self) -> impl Iterator<Item = (&SpiffeId, usize)> {
        self.not_over(TaskId::root_of(self.root)).map(|task| (&task.opened.opener, task.open.len()))
    }

    /// How many of them a fact that is about to be folded gives back.
    #[must_use]
    pub fn leases_released(&self, fact: &Fact) -> Vec<(SpiffeId, usize)> {
        let counts: Vec<(&SpiffeId, usize)> = match fact {
            Fact::TaskEnded { task, .. } => {
                self.not_over(*task).map(|below| (&below.opened.opener, below.open.len())).collect()
            }
            Fact::LeasesEnded { task, leases, .. } if !self.is_over(*task) => {
                let count = |task: &Task| leases.iter().filter(|key| task.open.contains_key(key)).count();
                self.task(*task).map(|task| (&task.opened.opener, count(task))).into_iter().collect()
            }
            _ => Vec::new(),
        };
        let mut released: BTreeMap<&SpiffeId, usize> = BTreeMap::new();
        for (opener, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            let sum = released.entry(opener).or_default();
            *sum = sum.saturating_add(count);
        }
        let counted = released.into_iter().filter(|_| !sabotage::on("quota_leaks"));
        counted.map(|(opener, count)| (opener.clone(), count)).collect()
    }

    /// When nobody has to be told of the tree any more, if that is known: `kept` after its root ended, not on the day
    /// on which it was opened, for that day is part of its id and the id must never be made again, and not before the
    /// last lease's own end, up to which a verifier that was away has to learn that it ended earlier.
    #[must_use]
    pub fn forgotten_at(&self, kept: Duration) -> Option<Timestamp> {
        let root = self.tasks.get(&self.root.0)?;
        let ended = root.ended.as_ref()?.ending.at;
        Some(ended.after(kept).max(root.opened.opened_at.end_of_day()).max(self.last_end))
    }

    /// The task itself, its parent, and so on up to the root.
    fn ancestors(&self, id: TaskId) -> impl Iterator<Item = &Task> {
        let task = self.task(id);
        std::iter::successors(task, |task| self.tasks.get(&task.opened.parent?))
    }

    /// A task and everything below it.
    fn at_or_below(&self, id: TaskId) -> impl Iterator<Item = &Task> {
        self.down_from(id, |_| true)
    }

    /// A task and what is below it, as far as nothing has ended it; nothing if an ending above has.
    fn not_over(&self, id: TaskId) -> impl Iterator<Item = &Task> {
        let is_over = self.is_over(id);
        self.down_from(id, move |task| !is_over && task.ended.is_none())
    }

    /// A task and what is below it, but for the tasks that are not to be entered and what is below those.
    fn down_from(&self, id: TaskId, enter: impl Fn(&Task) -> bool) -> impl Iterator<Item = &Task> {
        let mut next: Vec<&Task> = self.task(id).into_iter().collect();
        std::iter::from_fn(move || {
            while let Some(task) = next.pop() {
                if enter(task) {
                    next.extend(self.children(task));
                    return Some(task);
                }
            }
            None
        })
    }

    fn children(&self, task: &Task) -> impl Iterator<Item = &Task> {
        task.children.iter().filter_map(|child| self.tasks.get(child))
    }

    /// Whether a task or one above it has an ending.
    fn is_over(&self, id: TaskId) -> bool {
        self.ancestors(id).any(|hop| hop.ended.is_some())
    }

    /// Nothing of a task, and of what is below it, will have to be recorded any more.
    fn forget_due(&mut self, id: TaskId) {
        if id == TaskId::root_of(self.root) {
            return self.due.clear();
        }
        let forgotten: Vec<(Timestamp, Id)> =
            self.not_over(id).map(|task| (task.due, task.opened.id.node())).collect();
        for due in forgotten {
            self.due.remove(&due);
        }
    }

    /// Changes the leases of a task, and with them when something of it is due. None if there is no such task.
    fn change(&mut self, id: TaskId, change: impl FnOnce(&mut Task)) -> Option<()> {
        let is_over = self.is_over(id);
        let task = self.task_mut(id)?;
        let before = task.due;
        change(task);
        let after = task.due;
        if !is_over {
            self.due.remove(&(before, id.node()));
            self.due.insert((after, id.node()));
        }
        Some(())
    }

    fn task_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        if id.root() == self.root { self.tasks.get_mut(&id.node()) } else { None }
    }
}

fn hop_of(opened: &TaskOpened) -> Hop<'_> {
    Hop { node: opened.id.node(), agent: &opened.agent, delegator: &opened.delegator, opener: &opened.opener }
}

#[cfg(test)]
pub(crate) mod tests;
