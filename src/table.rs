//! The table: every task tree in memory, what is in force for all of them, and the one door to the journal.
//!
//! It is the only file that knows the concurrent map and holds its locks, always behind closures that cannot wait.
//! A commit decides, queues and folds under the tree's lock, so that commands of one tree are taken in order. What
//! was folded is told to nobody until it is durable: reads come as [`Undurable`] and have to be waited for.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use brevet_core::control::Control;
use brevet_core::fact::{Envelope, Fact};
use brevet_core::id::{LeaseId, RootTaskId};
use brevet_core::ledger::Ledger;
use brevet_core::lock::Lock;
use brevet_core::name::TenantName;
use brevet_core::notice::Notice;
use brevet_core::proof::{Evidence, Recorded};
use brevet_core::record;
use brevet_core::registry::Registry;
use brevet_core::revision::{Basis, Revision};
use brevet_core::sabotage;
use brevet_core::state::State;
use brevet_core::time::Now;
use brevet_journal::{AppendError, Entry, Journal, Kind, Precedence, Sealed};
use brevet_policy::Policies;
use dashmap::DashMap;
use thiserror::Error;

use crate::configuration::Configuration;
use crate::deadlines::Deadlines;
use crate::notices::Notices;
use crate::openers::{Openers, Quota};

/// Locks are spread over this many shards, so that two trees seldom share one.
const SHARDS: usize = 256;

/// When a tree is looked at again that could not be forgotten yet.
const FORGET_RETRY: Duration = Duration::from_secs(60);

/// What binds every decision, exchanged as a whole: a decision uses exactly one policy revision (invariant P2).
#[derive(Debug)]
pub struct InForce {
    /// Locks and digests, as the journal has them.
    pub control: Control,
    /// What the digests name.
    pub configuration: Configuration,
    /// The control change that put it in force; after a start, whatever came last before.
    pub configured: Revision,
}

impl InForce {
    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.configuration.registry
    }

    /// The policies.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.configuration.policies
    }
}

/// Why nothing was committed.
#[derive(Debug, Error)]
pub enum CommitError<E> {
    /// The command was refused.
    #[error(transparent)]
    Refused(E),
    /// What the command was decided from has changed: decide again.
    #[error("the basis of the decision has changed")]
    Conflict,
    /// There is no such tree.
    #[error("no such task")]
    NoTree,
    /// There is a tree already.
    #[error("the task exists")]
    Exists,
    /// The journal takes nothing that grows what exists.
    #[error("no space is left but the reserve")]
    NoSpace,
    /// Too much waits for the disk.
    #[error("too many records wait for the disk")]
    Busy,
    /// The journal takes nothing any more.
    #[error("the journal is sealed")]
    Sealed,
}

impl<E> From<AppendError> for CommitError<E> {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict => Self::Conflict,
            AppendError::NoSpace => Self::NoSpace,
            AppendError::Busy => Self::Busy,
            AppendError::Sealed => Self::Sealed,
        }
    }
}

/// A value that may tell of changes which are not durable yet.
#[must_use = "wait for it to be durable"]
#[derive(Debug)]
pub struct Undurable<T> {
    value: T,
    revision: Revision,
}

impl<T> Undurable<T> {
    /// The revision that it was computed from.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Another value that tells of the same changes.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Undurable<U> {
        Undurable { value: map(self.value), revision: self.revision }
    }

    /// This and another, as one.
    pub fn and<U, V>(self, other: Undurable<U>, join: impl FnOnce(T, U) -> V) -> Undurable<V> {
        let revision = self.revision.max(other.revision);
        Undurable { value: join(self.value, other.value), revision }
    }
}

/// The table of task trees.
pub struct Table {
    trees: DashMap<RootTaskId, Ledger>,
    in_force: ArcSwap<InForce>,
    deadlines: Deadlines,
    openers: Openers,
    notices: Notices,
    kept: Duration,
    journal: Arc<dyn Journal>,
}

/// How much the table holds.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// How long a tree is kept after its root has ended.
    pub kept: Duration,
    /// What one opener may have.
    pub quota: Quota,
    /// How many notices are held for those who watch.
    pub notices_max: usize,
}

impl Table {
    /// The table that replay of the journal yields, with the configuration to decide by.
    #[must_use]
    pub fn restored(
        state: State,
        configuration: Configuration,
        capacity: Capacity,
        journal: Arc<dyn Journal>,
    ) -> Self {
        let configured = state.control.revision();
        let table = Self {
            trees: DashMap::with_shard_amount(SHARDS),
            in_force: ArcSwap::from_pointee(InForce { control: state.control, configuration, configured }),
            deadlines: Deadlines::default(),
            openers: Openers::new(capacity.quota),
            notices: Notices::behind(state.revision, capacity.notices_max),
            kept: capacity.kept,
            journal,
        };
        for (root, ledger) in state.trees {
            for at in ledger.expiries().chain(ledger.forgotten_at(table.kept)) {
                table.deadlines.expect(at, root);
            }
            for (opener, leases) in ledger.leases_open() {
                table.openers.count(opener, leases, 0);
            }
            for task in ledger.tasks() {
                table.openers.count(&task.opened().opener, 0, 1);
            }
            table.trees.insert(root, ledger);
        }
        table
    }

    /// What each opener answers for.
    #[must_use]
    pub const fn openers(&self) -> &Openers {
        &self.openers
    }

    /// The early endings of late.
    #[must_use]
    pub const fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Drops a tree of which nobody has to be told any more; with every lease in it dead, that ends nothing.
    ///
    /// INVARIANT: by the issuing clock, which gave the day in the tree's id: the id is never made again.
    pub fn forget(&self, root: RootTaskId, now: Now) {
        let is_over = |_: &RootTaskId, ledger: &Ledger| {
            ledger.forgotten_at(self.kept).is_some_and(|at| at <= now.issue)
        };
        if let Some((_, ledger)) = self.trees.remove_if(&root, is_over) {
            ledger.tasks().for_each(|task| self.openers.release_task(&task.opened().opener));
            return;
        }
        // The queue runs by the judging clock, which may be ahead: what is not to be forgotten yet is not due either, or
        // the reaper would not rest.
        if let Some(Some(at)) = self.view(root, |ledger| ledger.forgotten_at(self.kept)) {
            self.deadlines.expect(at.max(now.judge.after(FORGET_RETRY)), root);
        }
    }

    /// When which tree has something that runs out.
    #[must_use]
    pub const fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// What is in force now.
    #[must_use]
    pub fn in_force(&self) -> Guard<Arc<InForce>> {
        self.in_force.load()
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// Looks at a tree in order to decide. What is seen may not be durable yet; a commit that names it as its basis
    /// is durable only after it.
    pub fn view<T>(&self, root: RootTaskId, look: impl FnOnce(&Ledger) -> T) -> Option<T> {
        self.trees.get(&root).map(|ledger| look(&ledger))
    }

    /// Looks at a tree in order to answer.
    pub fn read<T>(
        &self,
        root: RootTaskId,
        look: impl FnOnce(&Ledger, &InForce) -> T,
    ) -> Option<Undurable<T>> {
        self.trees.get(&root).map(|ledger| {
            let in_force = self.in_force.load();
            let revision = ledger.version().max(in_force.control.revision());
            Undurable { value: look(&ledger, &in_force), revision }
        })
    }

    /// Looks at what is in force in order to answer.
    pub fn read_control<T>(&self, look: impl FnOnce(&InForce) -> T) -> Undurable<T> {
        let in_force = self.in_force.load();
        Undurable { value: look(&in_force), revision: in_force.control.revision() }
    }

    /// The trees of a tenant there are now, or all of them, in no order, for work that goes from one to the next and holds
    /// up none: what is opened meanwhile is not among them, and what is forgotten meanwhile is found gone.
    #[must_use]
    pub fn roots(&self, tenant: Option<&TenantName>) -> Vec<RootTaskId> {
        let own = self.trees.iter().filter(|ledger| tenant.is_none_or(|tenant| ledger.tenant() == tenant));
        own.map(|ledger| *ledger.key()).collect()
    }

    /// Looks at every tree in order to answer, in no order.
    pub fn read_all<T>(&self, mut look: impl FnMut(&Ledger, &InForce) -> Option<T>) -> Undurable<Vec<T>> {
        let in_force = self.in_force.load();
        let mut revision = in_force.control.revision();
        let mut value = Vec::new();
        for ledger in &self.trees {
            // That a tree is left out tells of its changes as much as that it is not.
            revision = revision.max(ledger.version());
            value.extend(look(&ledger, &in_force));
        }
        Undurable { value, revision }
    }

    /// Whether something holds of every tree and of every lock in force.
    pub fn all(&self, of_tree: impl Fn(&Ledger) -> bool, of_lock: impl Fn(&Lock) -> bool) -> bool {
        let in_force = self.in_force.load();
        in_force.control.locks().values().all(|record| of_lock(&record.lock))
            && self.trees.iter().all(|ledger| of_tree(&ledger))
    }

    /// Adds up what `count` finds in each tree: for a gauge, which promises nothing.
    pub fn count(&self, count: impl Fn(&Ledger, &Control) -> u64) -> u64 {
        let in_force = self.in_force.load();
        self.trees.iter().map(|ledger| count(&ledger, &in_force.control)).sum()
    }

    /// Waits until a value tells of nothing that could still be lost.
    ///
    /// # Errors
    /// [`Sealed`] if it never will be durable.
    pub async fn durable<T>(&self, undurable: Undurable<T>) -> Result<T, Sealed> {
        self.journal.durable(undurable.revision).await?;
        Ok(undurable.value)
    }

    /// Opens a tree with the fact that `decide` yields.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed then.
    pub fn open<E>(
        &self,
        root: RootTaskId,
        envelope: &Envelope,
        evidence: &Evidence,
        decide: impl FnOnce(&InForce) -> Result<Fact, E>,
    ) -> Result<Undurable<()>, CommitError<E>> {
        let dashmap::Entry::Vacant(vacant) = self.trees.entry(root) else {
            return Err(CommitError::Exists);
        };
        let in_force = self.in_force.load();
        let fact = decide(&in_force).map_err(CommitError::Refused)?;
        let (Fact::TaskOpened(opened), Some(tenant)) = (&fact, &envelope.tenant) else {
            return Err(CommitError::NoTree);
        };
        let basis = Basis { tree: Revision::ZERO, control: in_force.control.revision() };
        let entry = Entry {
            kind: Kind::Tree { root, basis },
            precedence: Precedence::Growth,
            body: encode(envelope, &fact, Some(evidence))?,
        };
        let mut vacant = Some(vacant);
        let ticket = self.journal.append(entry, &mut |revision| {
            if let Some(vacant) = vacant.take() {
                vacant.insert(Ledger::begun_by(opened, tenant.clone(), revision));
            }
        })?;
        self.deadlines.expect(opened.deadline, root);
        Ok(Undurable { value: (), revision: ticket.revision() })
    }

    /// Changes a tree by the fact that `decide` yields, together with what it says of the change; no fact means that
    /// there was nothing left to change.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed then.
    pub fn commit<T, E>(
        &self,
        root: RootTaskId,
        envelope: &Envelope,
        evidence: Option<&Evidence>,
        decide: impl FnOnce(&Ledger, &InForce) -> Result<(Option<Fact>, T), E>,
    ) -> Result<Undurable<T>, CommitError<E>> {
        let mut ledger = self.trees.get_mut(&root).ok_or(CommitError::NoTree)?;
        // INVARIANT: looked at while the tree is held, so that no tree is newer than what it is decided under.
        let in_force = self.in_force.load();
        let basis = Basis { tree: ledger.version(), control: in_force.control.revision() };
        let (fact, value) = decide(&ledger, &in_force).map_err(CommitError::Refused)?;
        let Some(fact) = fact else {
            return Ok(Undurable { value, revision: basis.tree.max(basis.control) });
        };
        let entry = Entry {
            kind: Kind::Tree { root, basis },
            precedence: precedence(&fact, evidence.is_some()),
            body: encode(envelope, &fact, evidence)?,
        };
        // INVARIANT: both are taken before the fold, which leaves nothing open. By the issuing clock, which is never
        // ahead: what still lives by it is told.
        let mut early = ledger.early_endings(&fact, envelope.at.issue);
        let released = ledger.leases_released(&fact);
        let tenant = ledger.tenant().clone();
        let ticket = self.journal.append(entry, &mut |revision| {
            ledger.apply(&fact, envelope, revision);
            let endings = std::mem::take(&mut early);
            if !endings.is_empty() {
                self.notices.push(Notice { revision, tenant: tenant.clone(), endings });
            }
        })?;
        for (opener, leases) in released {
            self.openers.release_leases(&opener, leases);
        }
        match &fact {
            Fact::TaskOpened(opened) => self.deadlines.expect(opened.deadline, root),
            Fact::LeaseIssued { terms, .. } => self.deadlines.expect(terms.end, root),
            Fact::TaskEnded { task, .. } if task.is_root() => {
                ledger.forgotten_at(self.kept).into_iter().for_each(|at| self.deadlines.expect(at, root));
            }
            _ => {}
        }
        Ok(Undurable { value, revision: ticket.revision() })
    }

    /// Changes what is in force, as decided under the control revision `basis`: the journal first, then at once for
    /// everybody, before anything else is queued.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed then.
    pub fn control(
        &self,
        envelope: &Envelope,
        evidence: Option<&Evidence>,
        basis: Revision,
        fact: &Fact,
        configuration: Option<Configuration>,
    ) -> Result<Undurable<()>, CommitError<std::convert::Infallible>> {
        let before = self.in_force.load_full();
        if before.control.revision() != basis {
            return Err(CommitError::Conflict);
        }
        let entry = Entry {
            kind: Kind::Control { basis },
            precedence: precedence(fact, evidence.is_some()),
            body: encode(envelope, fact, evidence)?,
        };
        let ticket = self.journal.append(entry, &mut |revision| {
            let mut control = before.control.clone();
            control.apply(fact, revision, envelope.at);
            let configured = if configuration.is_some() { revision } else { before.configured };
            let configuration = configuration.clone().filter(|_| !sabotage::on("old_policies_decide"));
            let configuration = configuration.unwrap_or_else(|| before.configuration.clone());
            self.in_force.store(Arc::new(InForce { control, configuration, configured }));
        })?;
        Ok(Undurable { value: (), revision: ticket.revision() })
    }

    /// Notes what changes nothing. A denial makes way for what ends when the queue or the disk gets full.
    ///
    /// # Errors
    /// [`AppendError`] if the journal does not take it, now or any more.
    pub fn note(
        &self,
        envelope: &Envelope,
        fact: &Fact,
        evidence: Option<&Evidence>,
    ) -> Result<Undurable<()>, AppendError> {
        let body = record::encode(envelope, fact, evidence).map_err(|_| AppendError::Sealed)?;
        let entry = Entry { kind: Kind::Note, precedence: precedence(fact, evidence.is_some()), body };
        let ticket = self.journal.append(entry, &mut |_| {})?;
        Ok(Undurable { value: (), revision: ticket.revision() })
    }

    /// Waits until a lease is durable and gives what may then be signed. None if there is no such lease.
    ///
    /// # Errors
    /// [`Sealed`] if it never will be durable.
    pub async fn recorded(&self, lease: LeaseId) -> Result<Option<Recorded>, Sealed> {
        let found = self.read(lease.task.root(), |ledger, _| {
            ledger.lease(lease).map(|found| (Arc::clone(found.terms()), found.revision()))
        });
        let Some(mut found) = found else { return Ok(None) };
        if sabotage::on("sign_unrecorded") {
            found.revision = Revision::ZERO;
        }
        let found = self.durable(found).await?;
        Ok(found.map(|(terms, revision)| Recorded::durable(terms, revision)))
    }
}

/// What a fact makes way for in the journal. Whoever ends what is another's needs a decision for it.
fn precedence(fact: &Fact, was_decided: bool) -> Precedence {
    match fact {
        Fact::TaskOpened(_) | Fact::LeaseIssued { .. } if sabotage::on("mints_in_the_reserve") => {
            Precedence::Ending
        }
        // A binding lets somebody in.
        Fact::TaskOpened(_) | Fact::LeaseIssued { .. } | Fact::BearerBound(_) => Precedence::Growth,
        Fact::Denied { .. } | Fact::DenialsUnrecorded { .. } => Precedence::Denial,
        // The lock waits for the record that root was there.
        Fact::LockCreated(_) | Fact::RootSocketUsed { .. } => Precedence::Stop,
        Fact::LeasesEnded { .. } if was_decided => Precedence::Stop,
        _ => Precedence::Ending,
    }
}

/// A record whose bytes cannot be made must not be committed; it is as if the journal could not take it.
fn encode<E>(
    envelope: &Envelope,
    fact: &Fact,
    evidence: Option<&Evidence>,
) -> Result<Vec<u8>, CommitError<E>> {
    record::encode(envelope, fact, evidence).map_err(|_| CommitError::Sealed)
}

#[cfg(test)]
mod tests {
    use brevet_core::fact::{LeaseOutcome, ReasonCode};
    use brevet_core::id::{Id, LockId, TaskId};
    use brevet_core::lock::Selector;

    use super::*;

    #[test]
    fn r5_what_somebody_ends_for_others_is_a_stop_and_what_its_holder_ends_is_none() {
        let task = TaskId::root_of(RootTaskId(Id::from_bytes([1; 16])));
        let (leases, outcome, reason) = (Vec::new(), LeaseOutcome::Revoked, ReasonCode::of("any"));
        let ended = Fact::LeasesEnded { task, leases, outcome, reason, since: None };
        assert_eq!(precedence(&ended, true), Precedence::Stop);
        assert_eq!(precedence(&ended, false), Precedence::Ending);
        let lock = LockId(Id::from_bytes([2; 16]));
        let (selector, message) = (Selector::Task(task), String::new());
        let created = Fact::LockCreated(Lock { id: lock, tenant: None, selector, message, until: None });
        assert_eq!(precedence(&created, false), Precedence::Stop, "over the root socket nothing is decided");
        let used = Fact::RootSocketUsed { uid: 0, method: "CreateLock".to_owned() };
        assert_eq!(precedence(&used, false), Precedence::Stop);
        let lifted = Fact::LockLifted { lock, proposer: None, confirmers: Vec::new() };
        assert_eq!(precedence(&lifted, true), Precedence::Ending);
    }
}
