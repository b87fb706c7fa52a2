//! What the broker makes of the core, without the broker: trees and control that fold each fact as it is decided,
//! and beside them the journal, from which the same state must be read back.

use super::super::*;
use super::sample::*;
use crate::id::LeaseKey;
use crate::name::RequestId;
use crate::proof::Plan;
use crate::record::{decode, encode};
use crate::revision::Basis;
use crate::state::State;
use crate::terms::Terms;

/// The live state and its journal.
#[derive(Default)]
pub(crate) struct System {
    pub(crate) control: Control,
    pub(crate) trees: BTreeMap<RootTaskId, Ledger>,
    pub(crate) revision: Revision,
    judged: Timestamp,
    journal: Vec<Vec<u8>>,
    /// The fold of the journal, kept up record by record.
    folded: State,
}

impl System {
    /// Records one fact and folds it. A fact of a tree names the tree's tenant.
    pub(crate) fn record(
        &mut self,
        fact: &Fact,
        tree: Option<(TaskId, &TenantName)>,
        request_id: Option<RequestId>,
        now: Now,
    ) -> Revision {
        let revision = self.revision.next();
        let envelope = Envelope { request_id, ..envelope(tree, now) };
        self.revision = revision;
        if !now.suspect {
            self.judged = self.judged.max(now.judge);
        }
        self.control.apply(fact, revision, now);
        match (tree, fact) {
            (Some((id, tenant)), Fact::TaskOpened(opened)) if opened.id.is_root() => {
                let ledger = Ledger::begun_by(opened, tenant.clone(), revision);
                assert!(self.trees.insert(id.root(), ledger).is_none());
            }
            (Some((id, _)), fact) => {
                self.trees.get_mut(&id.root()).unwrap().apply(fact, &envelope, revision);
            }
            (None, _) => {}
        }
        let bytes = encode::<()>(&envelope, fact, None).unwrap();
        let record = decode(&bytes).unwrap();
        assert_eq!((&record.envelope, &record.fact), (&envelope, fact));
        self.folded.apply(&record.envelope, &record.fact, revision);
        self.journal.push(bytes);
        revision
    }

    pub(crate) fn tree(&self, id: TaskId) -> &Ledger {
        &self.trees[&id.root()]
    }

    pub(crate) fn basis(&self, id: TaskId) -> Basis {
        let tree = self.trees.get(&id.root()).map_or(Revision::ZERO, Ledger::version);
        Basis { tree, control: self.control.revision() }
    }

    fn state(&self) -> State {
        State {
            revision: self.revision,
            judged: self.judged,
            control: self.control.clone(),
            bearers: BTreeMap::new(),
            trees: self.trees.clone(),
        }
    }

    /// The live state is the fold of what has been recorded.
    pub(crate) fn assert_is_its_journal(&self) {
        assert_eq!(self.folded.revision, self.revision);
        assert_eq!(self.folded.judged, self.judged);
        assert_eq!(self.folded.control, self.control);
        assert_eq!(self.folded.trees, self.trees);
    }

    /// The same after a restart: from nothing, and from a snapshot after any record and the rest.
    pub(crate) fn assert_is_replayed(&self, snapshot_after: usize) {
        let live = self.state();
        let mut state = State::default();
        for (index, bytes) in self.journal.iter().enumerate() {
            if index == snapshot_after {
                state = State::from_snapshot(&state.to_snapshot().unwrap()).unwrap().unwrap();
            }
            let record = decode(bytes).unwrap();
            state.apply(&record.envelope, &record.fact, state.revision.next());
        }
        assert_eq!(state, live);
    }
}

/// Short forms for tests of one tree of the tenant `default`.
impl System {
    /// A system in which these tasks were recorded at 0.
    pub(crate) fn with_line(tasks: &[TaskOpened]) -> Self {
        let mut system = Self::default();
        for task in tasks {
            system.fold(&Fact::TaskOpened(Arc::new(task.clone())), task.id, 0);
        }
        system
    }

    pub(crate) fn fold(&mut self, fact: &Fact, task: TaskId, millis: u64) -> Revision {
        self.record(fact, Some((task, &TenantName::default())), None, now(millis))
    }

    /// Folds a lease that no command was asked for.
    pub(crate) fn lease(&mut self, terms: Terms, millis: u64) -> LeaseId {
        let id = terms.id;
        self.fold(
            &Fact::LeaseIssued { terms: Arc::new(terms), body: body(0), renews: None },
            id.task,
            millis,
        );
        id
    }

    pub(crate) fn lock(&mut self, lock: crate::lock::Lock, millis: u64) -> Revision {
        self.record(&Fact::LockCreated(lock), None, None, now(millis))
    }

    pub(crate) fn lift(&mut self, number: u128, millis: u64) -> Revision {
        let fact = Fact::LockLifted { lock: lock_id(number), proposer: None, confirmers: Vec::new() };
        self.record(&fact, None, None, now(millis))
    }

    /// Records what a lock has killed, and that all of it is recorded.
    pub(crate) fn sweep(&mut self, number: u128, millis: u64) -> Vec<Fact> {
        let record = self.control.locks()[&lock_id(number)].clone();
        let (mut swept, mut tasks, mut leases) = (Vec::new(), 0, 0);
        for (root, ledger) in self.trees.clone() {
            for fact in ledger.sweep(&record) {
                match &fact {
                    Fact::LeasesEnded { leases: ended, .. } => leases += ended.len() as u64,
                    _ => tasks += 1,
                }
                let tree = (TaskId::root_of(root), ledger.tenant());
                self.record(&fact, Some(tree), None, now(millis));
                swept.push(fact);
            }
        }
        self.record(&Fact::LockSwept { lock: lock_id(number), tasks, leases }, None, None, now(millis));
        swept
    }

    pub(crate) fn plan(&self, terms: Terms) -> Plan {
        self.plan_in_place_of(None, terms)
    }

    pub(crate) fn plan_in_place_of(&self, renews: Option<LeaseKey>, terms: Terms) -> Plan {
        let id = terms.id.task;
        let task = self.tree(id).task(id).map_or_else(|| opened(id, None), |task| (**task.opened()).clone());
        let tenant = self.tree(id).tenant();
        let permit = permit_for(&terms, renews, task_facts(&task), tenant, self.basis(id));
        Plan::drawn(permit, terms)
    }

    /// Asks for a lease as its task's instance, with room for eight.
    pub(crate) fn issue(&self, terms: Terms, millis: u64) -> Result<Fact, IssueRefusal> {
        self.issue_plan(&self.plan(terms), millis)
    }

    /// Asks for a lease in place of another.
    pub(crate) fn renew(&self, renews: LeaseKey, terms: Terms, millis: u64) -> Result<Fact, IssueRefusal> {
        self.issue_plan(&self.plan_in_place_of(Some(renews), terms), millis)
    }

    pub(crate) fn issue_plan(&self, plan: &Plan, millis: u64) -> Result<Fact, IssueRefusal> {
        let id = plan.terms().id.task;
        self.tree(id).issue(plan, body(0), None, &self.control, now(millis), limits(8))
    }

    pub(crate) fn open(&self, task: &TaskOpened, millis: u64) -> Result<Fact, OpenRefusal> {
        let permit = permit_to_open(task, &TenantName::default(), self.basis(task.id));
        Ledger::open(&permit, opening(task), &self.control, now(millis))
    }

    /// Asks for a task below another, at most three deep.
    pub(crate) fn delegate(&self, task: &TaskOpened, millis: u64) -> Result<Fact, DelegateRefusal> {
        let parent = match task.parent {
            Some(node) if node == task.id.root().0 => TaskId::root_of(task.id.root()),
            Some(node) => TaskId::child_of(task.id.root(), node).unwrap(),
            None => panic!("a root is opened, not delegated"),
        };
        let permit = permit_to_delegate(task, parent, &TenantName::default(), self.basis(task.id));
        self.tree(task.id).delegate(&permit, opening(task), &self.control, now(millis), TREE_LIMITS)
    }

    pub(crate) fn task_lives(&self, id: TaskId, millis: u64) -> bool {
        assert!(self.tree(id).task(id).is_some());
        self.tree(id).task_ending(id, &self.control, at(millis)).is_none()
    }

    pub(crate) fn lease_lives(&self, id: LeaseId, millis: u64) -> bool {
        assert!(self.tree(id.task).lease(id).is_some());
        self.tree(id.task).lease_ending(id, &self.control, at(millis)).is_none()
    }
}
