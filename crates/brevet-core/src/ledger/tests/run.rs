//! One run of commands against ledgers and model at once. What comes of a command is in `growing` and `ending`; here
//! is what each fact must do to quotas and notices.

use std::collections::BTreeSet;

use proptest::sample::Index;

use super::super::*;
use super::commands::{self, Command, Stop, Until};
use super::model::{LockRow, Model, TaskRow};
use super::sample::*;
use super::system::System;
use crate::fact::{LeaseOutcome, Outcome};
use crate::lock::{Lock, Selector};
use crate::name::RequestId;
use crate::notice::{EarlyEnding, Ended, Reach};
use crate::request::Sensitivity;
use crate::terms::{Profile, Terms};

/// Shortly before midnight, so that trees are opened on one day and end on another.
const BEGIN: u64 = 86_400_000 - 150;
const SENSITIVITIES: [Sensitivity; 4] =
    [Sensitivity::Low, Sensitivity::Moderate, Sensitivity::High, Sensitivity::Critical];

/// The ledgers, the model, and what has been seen of both.
pub(crate) struct Run {
    pub(crate) system: System,
    pub(crate) model: Model,
    pub(crate) issue: u64,
    pub(crate) judge: u64,
    /// How long a command takes. If that is no time, "before" and "after" within a millisecond mean nothing.
    pub(crate) pace: u64,
    named: u128,
    pub(crate) tasks_over: BTreeMap<TaskId, Ending<Outcome>>,
    pub(crate) leases_over: BTreeMap<LeaseId, Ending<LeaseOutcome>>,
    /// What a stream would have been told: when, of what, and how long it matters.
    pub(crate) streamed: BTreeSet<(Revision, Ended, Timestamp)>,
}

impl Run {
    pub(crate) fn new(pace: u64) -> Self {
        Self {
            system: System::default(),
            model: Model::default(),
            issue: BEGIN,
            judge: BEGIN,
            pace,
            named: 0,
            tasks_over: BTreeMap::new(),
            leases_over: BTreeMap::new(),
            streamed: BTreeSet::new(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now { issue: at(self.issue), judge: at(self.judge), suspect: false }
    }

    fn name(&mut self) -> u128 {
        self.named += 1;
        self.named
    }

    fn pick(&self, index: Index) -> Option<usize> {
        (!self.model.tasks.is_empty()).then(|| index.index(self.model.tasks.len()))
    }

    fn pick_lease(&self, index: Index) -> Option<usize> {
        (!self.model.leases.is_empty()).then(|| index.index(self.model.leases.len()))
    }

    fn selector(&self, stop: Stop) -> Option<Selector> {
        match stop {
            Stop::Other(selector) => Some(selector),
            Stop::Task(task) => self.pick(task).map(|task| Selector::Task(self.model.tasks[task].id)),
        }
    }

    pub(crate) fn step(&mut self, command: Command) {
        self.issue += self.pace;
        self.judge += self.pace;
        match command {
            Command::Open { tenant, agent, delegator, opener, life, claim } => {
                let row = TaskRow {
                    id: root(self.name()),
                    parent: None,
                    tenant: commands::TENANTS[tenant],
                    agent: workload(commands::AGENTS[agent]),
                    delegator: workload(commands::DELEGATORS[delegator]),
                    opener: workload(commands::OPENERS[opener]),
                    sensitivity: Sensitivity::High,
                    scope: scope(commands::CEILINGS[0]),
                    opened: Revision::ZERO,
                    deadline: self.issue + life,
                    holder: holder(claim),
                    ended: false,
                    recorded: false,
                };
                self.open(row);
            }
            Command::Delegate { parent, agent, until, ceiling, sensitivity, claim, odd, stale } => {
                let youngest = self.model.tasks.len().checked_sub(1);
                let Some(parent) = parent.map_or(youngest, |parent| self.pick(parent)) else { return };
                let id = id(self.name());
                let above = &self.model.tasks[parent];
                let level = (above.sensitivity.level() + sensitivity).clamp(0, 3);
                let row = TaskRow {
                    id: TaskId::child_of(above.id.root(), id).unwrap(),
                    parent: Some(parent),
                    tenant: above.tenant,
                    agent: workload(commands::AGENTS[agent]),
                    delegator: above.delegator.clone(),
                    opener: above.agent.clone(),
                    sensitivity: SENSITIVITIES[level as usize],
                    scope: scope(commands::CEILINGS[ceiling]),
                    opened: Revision::ZERO,
                    deadline: self.until(&until, parent),
                    holder: holder(claim),
                    ended: false,
                    recorded: false,
                };
                self.delegate(parent, row, &odd, &stale);
            }
            Command::Issue { task, grant, instance, wish } => {
                let Some(task) = self.pick(task) else { return };
                let terms = self.terms(task, grant, &wish);
                let terms = Terms { holder: super::sample::instance(instance), ..terms };
                self.issue(task, None, rekeyed(terms), &wish);
            }
            Command::Renew { lease, task, grant, instance, wish } => {
                let Some(lease) = self.pick_lease(lease) else { return };
                let task = task.and_then(|task| self.pick(task)).unwrap_or(self.model.leases[lease].task);
                let mut terms = self.terms(task, grant.unwrap_or(commands::Grant::Token(0)), &wish);
                let before = &self.model.leases[lease].terms;
                terms.holder = instance.map_or(before.holder, super::sample::instance);
                if grant.is_none() {
                    terms.content = before.content.clone();
                }
                let key = before.id.key;
                self.issue(task, Some(key), rekeyed(terms), &wish);
            }
            Command::EndTask { task, outcome } => {
                if let Some(task) = self.pick(task) {
                    self.end_task(task, outcome);
                }
            }
            Command::EndLease { lease, outcome } => {
                if let Some(lease) = self.pick_lease(lease) {
                    self.end_lease(lease, outcome);
                }
            }
            Command::EndMatching { tree, stop } => {
                if let (Some(task), Some(selector)) = (self.pick(tree), self.selector(stop)) {
                    self.end_matching(task, &selector);
                }
            }
            Command::Lock { stop, tenant, life } => {
                let Some(selector) = self.selector(stop) else { return };
                let lock = Lock {
                    tenant: tenant.map(|tenant| super::sample::tenant(commands::TENANTS[tenant])),
                    until: life.map(|life| at(self.judge + life)),
                    ..lock(self.name(), selector)
                };
                let created = self.system.record(&Fact::LockCreated(lock.clone()), None, None, self.now());
                self.model.locks.push(LockRow { lock, created, lifted: false });
            }
            Command::Lift { lock } => {
                if !self.model.locks.is_empty() {
                    let now = self.now();
                    let index = lock.index(self.model.locks.len());
                    let row = &mut self.model.locks[index];
                    row.lifted = true;
                    let fact = Fact::LockLifted { lock: row.lock.id, proposer: None, confirmers: Vec::new() };
                    self.system.record(&fact, None, None, now);
                }
            }
            Command::Sweep { lock } => {
                if !self.model.locks.is_empty() {
                    self.sweep(self.model.locks[lock.index(self.model.locks.len())].lock.id);
                }
            }
            Command::Load => {
                self.system.record(&configuration(), None, None, self.now());
            }
            Command::Pass { issue, ahead } => {
                self.issue += issue;
                self.judge += issue + ahead;
            }
            Command::Expire { tree } => {
                let Some(task) = self.pick(tree) else { return };
                let facts = self.system.tree(self.model.tasks[task].id).expire(at(self.judge));
                for fact in facts {
                    self.record(&fact, task, None);
                }
            }
        }
    }

    fn until(&self, until: &Until, task: usize) -> u64 {
        match until {
            Until::FromNow(life) => self.issue + life,
            Until::BeforeDeadline(before) => self.model.deadline(task).saturating_add_signed(-before),
        }
    }

    fn terms(&mut self, task: usize, grant: commands::Grant, wish: &commands::Wish) -> Terms {
        let id = self.model.tasks[task].id;
        let key = self.name();
        let token = if let commands::Grant::Token(token) = grant { token } else { 0 };
        let terms = Terms {
            key_id: key_id(wish.key),
            policy: policy(wish.policy),
            end: at(self.until(&wish.until, task)),
            issued_at: at(self.issue),
            ..terms_for(id, key, commands::GRANTS[token])
        };
        match grant {
            commands::Grant::Token(_) => terms,
            commands::Grant::X509Svid => svid(terms),
            commands::Grant::JwtSvid(name) => jwt_svid(terms, name),
        }
    }

    /// Records a fact of a tree, and looks at what it does to quotas and notices.
    pub(super) fn record(&mut self, fact: &Fact, task: usize, request_id: Option<RequestId>) -> Revision {
        let row = &self.model.tasks[task];
        let (id, tenant) = (row.id, tenant(row.tenant));
        let tree = self.system.tree(id);
        let open = open_by(tree);
        let released = tree.leases_released(fact);
        let notices = tree.early_endings(fact, at(self.judge));
        let revision = self.system.record(fact, Some((id, &tenant)), request_id, self.now());

        // L7: what is given back is what is counted no more.
        let mut expected = open_by(self.system.tree(id));
        if let Fact::LeaseIssued { terms, .. } = fact {
            let opener = &self.system.tree(id).task(terms.id.task).unwrap().opened().opener;
            *expected.get_mut(opener).unwrap() -= 1;
        }
        for (opener, count) in released {
            *expected.entry(opener).or_default() += count;
        }
        assert_eq!(expected.into_iter().filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>(), open);

        self.streamed.extend(notices.iter().map(|notice| (revision, notice.ended, notice.until)));
        self.note_endings(fact);
        self.check_notices(&notices, fact, revision, id.root());
        revision
    }

    fn note_endings(&mut self, fact: &Fact) {
        match fact {
            Fact::TaskEnded { task, .. } => {
                self.model.tasks.iter_mut().find(|row| row.id == *task).unwrap().recorded = true;
            }
            Fact::LeasesEnded { task, leases, .. } => {
                for key in leases {
                    let id = LeaseId { task: *task, key: *key };
                    self.model.leases.iter_mut().find(|row| row.terms.id == id).unwrap().recorded = true;
                }
            }
            _ => {}
        }
    }

    /// Whatever a fact ends before its own end is noticed to whom it concerns, as long as it matters, and nothing
    /// that lives on is.
    fn check_notices(&mut self, notices: &[EarlyEnding], fact: &Fact, revision: Revision, root: RootTaskId) {
        let reason_of = match fact {
            Fact::TaskEnded { reason, .. } | Fact::LeasesEnded { reason, .. } => Some(reason),
            _ => None,
        };
        for notice in notices {
            assert!(notice.until > at(self.judge), "{notice:?} is of no use");
            assert_eq!(Some(&notice.reason), reason_of);
        }
        for index in 0..self.model.leases.len() {
            let row = &self.model.leases[index];
            if row.terms.id.task.root() != root {
                continue;
            }
            let dead = self.model.is_recorded(index);
            let dies = dead && row.died.is_none();
            let matters = row.terms.end > at(self.judge);
            let noticed = notices.iter().any(|notice| self.concerns(notice, index));
            assert!(!dies || !matters || noticed, "nobody is told by {notices:?} of {row:?}");
            assert!(dead || !notices.iter().any(|notice| self.names(notice, index)), "{row:?} lives");
            if dies {
                self.model.leases[index].died = Some(revision);
            }
        }
    }

    /// Whether a notice says that a lease has ended.
    pub(crate) fn names(&self, notice: &EarlyEnding, lease: usize) -> bool {
        let row = &self.model.leases[lease];
        match notice.ended {
            Ended::Lease(ended) => ended == row.terms.id,
            Ended::Task(ended) => {
                self.model.line(row.task).iter().any(|hop| self.model.tasks[*hop].id == ended)
            }
        }
    }

    /// Whether it says so to everybody to whom it matters, and for long enough.
    pub(crate) fn concerns(&self, notice: &EarlyEnding, lease: usize) -> bool {
        let terms = &self.model.leases[lease].terms;
        let reaches = match (&notice.reach, terms.audience()) {
            (Reach::Tenant, _) => true,
            (Reach::Audiences(audiences), Some(audience)) => audiences.contains(audience),
            (Reach::Audiences(_), None) => false,
        };
        self.names(notice, lease) && reaches && notice.until >= terms.end
    }
}

fn holder(claimed: bool) -> Holder {
    if claimed { Holder::Claim(claim(1)) } else { Holder::Key(instance(1)) }
}

/// An X.509-SVID is over its holder's key.
fn rekeyed(terms: Terms) -> Terms {
    if terms.profile() == Profile::X509Svid { svid(terms) } else { terms }
}

/// How many leases each opener answers for in one tree.
pub(crate) fn open_by(ledger: &Ledger) -> BTreeMap<SpiffeId, usize> {
    let mut open = BTreeMap::new();
    for (opener, count) in ledger.leases_open().filter(|(_, count)| *count > 0) {
        *open.entry(opener.clone()).or_default() += count;
    }
    open
}
