//! Random commands against several trees at once. After every one of them the ledgers must say what the model says,
//! be what the journal folds to, and have forgotten no death.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::*;
use super::model::{LeaseRow, LockRow, Model, TaskRow};
use super::sample::*;
use super::system::System;
use crate::lock::{Lock, Selector};
use crate::revision::Basis;

const QUOTA: u32 = 3;
const TENANTS: [&str; 2] = ["north", "south"];
const AGENTS: [&str; 4] = ["td/agents/a", "td/agents/ab", "td/agents/a/b", "other/agents/a"];
const DELEGATORS: [&str; 2] = ["td/people/ann", "people.example/bob"];
const OPENERS: [&str; 2] = ["td/orchestrator", "third/orchestrator"];
/// What is asked for; the last is wider than any task.
const GRANTS: [&[&str]; 6] =
    [&["x a/b r"], &["x a/b/** w"], &["y a/x r"], &["x a/bc r", "y a/bc r"], &["x a/** r,w"], &["x b r"]];

/// When what is asked for is to end, by the task's deadline or by now.
#[derive(Debug, Clone)]
enum Until {
    BeforeDeadline(i64),
    FromNow(u64),
}

#[derive(Debug, Clone)]
enum Stop {
    Task(Index),
    Other(Selector),
}

/// What became known since the decision.
#[derive(Debug, Clone, PartialEq)]
enum Stale {
    Nothing,
    Tree,
    Control,
}

#[derive(Debug, Clone)]
enum Command {
    Open {
        tenant: usize,
        agent: usize,
        delegator: usize,
        opener: usize,
        life: u64,
        claim: bool,
    },
    Delegate {
        parent: Index,
        agent: usize,
        delegator: usize,
        life: u64,
    },
    Issue {
        task: Index,
        until: Until,
        grant: usize,
        key: &'static str,
        policy: u8,
        instance: u8,
        claim: Option<u8>,
        request: (u8, u8),
        stale: Stale,
    },
    EndTask {
        task: Index,
        outcome: Outcome,
    },
    EndLease {
        lease: Index,
        outcome: LeaseOutcome,
    },
    Lock {
        stop: Stop,
        tenant: Option<usize>,
        life: Option<u64>,
    },
    Lift {
        lock: Index,
    },
    Load,
    Pass {
        issue: u64,
        ahead: u64,
    },
    Expire {
        tree: Index,
    },
}

fn selector() -> impl Strategy<Value = Stop> {
    let domains = ["td", "other", "people.example", "third"];
    let other = prop_oneof![
        3 => select(&AGENTS[..]).prop_map(|agent| Selector::Agent(workload(agent))),
        3 => select(vec!["td/agents/a", "td/agents", "other", "td/agents/abc"])
            .prop_map(|prefix| Selector::PathPrefix(workload(prefix))),
        2 => select(&DELEGATORS[..]).prop_map(|delegator| Selector::Delegator(workload(delegator))),
        2 => select(vec!["r", "w"]).prop_map(|tool| Selector::Tool(action(tool))),
        4 => (select(vec!["x", "y"]), select(vec!["a/b", "a/b/c", "a/b/**", "a/bc", "a/**", "a", "b/**"]))
            .prop_map(|(name, resource)| Selector::Resource {
                audience: audience(name),
                resource: resource.parse().unwrap(),
            }),
        2 => select(vec!["x", "y"]).prop_map(|name| Selector::Audience(audience(name))),
        1 => select(domains.to_vec()).prop_map(|domain| Selector::TrustDomain(domain.parse().unwrap())),
        2 => select(vec!["k1", "k2"]).prop_map(|key| Selector::Key(key_id(key))),
        2 => (1..3u8).prop_map(|number| Selector::Policy(policy(number))),
        1 => Just(Selector::Everything),
    ];
    prop_oneof![
        1 => any::<Index>().prop_map(Stop::Task),
        4 => other.prop_map(Stop::Other),
    ]
}

fn issue() -> impl Strategy<Value = Command> {
    let until = prop_oneof![
        3 => (0..60u64).prop_map(Until::FromNow),
        1 => (-1..3i64).prop_map(Until::BeforeDeadline),
    ];
    let stale = prop_oneof![18 => Just(Stale::Nothing), 1 => Just(Stale::Tree), 1 => Just(Stale::Control)];
    // Mostly the right instance, mostly the right claim.
    let instance = prop_oneof![9 => Just(1u8), 1 => Just(2u8)];
    let claim = prop_oneof![6 => Just(Some(1u8)), 1 => Just(Some(2u8)), 1 => Just(None)];
    let grant = prop_oneof![9 => 0..GRANTS.len() - 1, 1 => Just(GRANTS.len() - 1)];
    let request = (0..12u8, 0..2u8);
    (any::<Index>(), until, grant, select(vec!["k1", "k2"]), 1..3u8, instance, claim, request, stale)
        .prop_map(|(task, until, grant, key, policy, instance, claim, request, stale)| Command::Issue {
            task,
            until,
            grant,
            key,
            policy,
            instance,
            claim,
            request,
            stale,
        })
}

fn command() -> impl Strategy<Value = Command> {
    let outcomes =
        [Outcome::Completed, Outcome::Failed, Outcome::Cancelled, Outcome::Revoked, Outcome::Expired];
    let lease_outcomes = [LeaseOutcome::Expired, LeaseOutcome::Revoked, LeaseOutcome::Undelivered];
    let parties = (0..AGENTS.len(), 0..DELEGATORS.len(), 0..OPENERS.len());
    prop_oneof![
        4 => (0..TENANTS.len(), parties, 0..200u64, prop::bool::weighted(0.3)).prop_map(
            |(tenant, (agent, delegator, opener), life, claim)| Command::Open {
                tenant, agent, delegator, opener, life, claim
            }
        ),
        4 => (any::<Index>(), 0..AGENTS.len(), 0..DELEGATORS.len(), 1..200u64).prop_map(
            |(parent, agent, delegator, life)| Command::Delegate { parent, agent, delegator, life }
        ),
        14 => issue(),
        1 => (any::<Index>(), select(outcomes.to_vec()))
            .prop_map(|(task, outcome)| Command::EndTask { task, outcome }),
        2 => (any::<Index>(), select(lease_outcomes.to_vec()))
            .prop_map(|(lease, outcome)| Command::EndLease { lease, outcome }),
        2 => (selector(), prop::option::of(0..TENANTS.len()), prop::option::of(0..20u64))
            .prop_map(|(stop, tenant, life)| Command::Lock { stop, tenant, life }),
        2 => any::<Index>().prop_map(|lock| Command::Lift { lock }),
        1 => Just(Command::Load),
        3 => (0..20u64, prop_oneof![4 => Just(0u64), 1 => 0..10u64])
            .prop_map(|(issue, ahead)| Command::Pass { issue, ahead }),
        2 => any::<Index>().prop_map(|tree| Command::Expire { tree }),
    ]
}

/// The ledgers, the model, and what has been seen of both.
struct Run {
    system: System,
    model: Model,
    issue: u64,
    judge: u64,
    named: u128,
    tasks_over: BTreeMap<TaskId, Ending<Outcome>>,
    leases_over: BTreeMap<LeaseId, Ending<LeaseOutcome>>,
}

impl Run {
    fn new() -> Self {
        Self {
            system: System::default(),
            model: Model::default(),
            issue: 1_000,
            judge: 1_000,
            named: 0,
            tasks_over: BTreeMap::new(),
            leases_over: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        Now { issue: at(self.issue), judge: at(self.judge), suspect: false }
    }

    fn name(&mut self) -> u128 {
        self.named += 1;
        self.named
    }

    fn pick(&self, index: Index) -> Option<usize> {
        (!self.model.tasks.is_empty()).then(|| index.index(self.model.tasks.len()))
    }

    fn record(&mut self, fact: &Fact, task: usize, request_id: Option<RequestId>) -> Revision {
        let row = &self.model.tasks[task];
        let (id, tenant) = (row.id, tenant(row.tenant));
        self.system.record(fact, Some((id, &tenant)), request_id, self.now())
    }

    fn step(&mut self, command: Command) {
        // No two commands happen in the same millisecond, so that "before" and "after" mean something.
        self.issue += 1;
        self.judge += 1;
        match command {
            Command::Open { tenant, agent, delegator, opener, life, claim } => {
                let holder =
                    if claim { Holder::Claim(super::sample::claim(1)) } else { Holder::Key(instance(1)) };
                let row = TaskRow {
                    id: root(self.name()),
                    parent: None,
                    tenant: TENANTS[tenant],
                    agent: workload(AGENTS[agent]),
                    delegator: workload(DELEGATORS[delegator]),
                    opener: workload(OPENERS[opener]),
                    opened: Revision::ZERO,
                    deadline: self.issue + life,
                    ended: false,
                    holder,
                };
                self.open(row);
            }
            Command::Delegate { parent, agent, delegator, life } => {
                if let Some(parent) = self.pick(parent) {
                    self.delegate(parent, agent, delegator, life);
                }
            }
            Command::Issue { task, until, grant, key, policy, instance, claim, request, stale } => {
                let Some(task) = self.pick(task) else { return };
                let row = &self.model.tasks[task];
                let end = match until {
                    Until::FromNow(life) => self.issue + life,
                    Until::BeforeDeadline(before) => row.deadline.saturating_add_signed(-before),
                };
                let id = row.id;
                let mut terms = terms_for(id, self.name(), GRANTS[grant]);
                terms.key_id = key_id(key);
                terms.policy = super::sample::policy(policy);
                terms.holder = super::sample::instance(instance);
                terms.end = at(end);
                terms.issued_at = at(self.issue);
                let claim = claim.map(super::sample::claim);
                let request = (request_id(&format!("r{}", request.0)), body(request.1));
                self.issue(task, terms, claim, request, &stale, grant == GRANTS.len() - 1);
            }
            Command::EndTask { task, outcome } => {
                if let Some(task) = self.pick(task) {
                    self.end_task(task, outcome);
                }
            }
            Command::EndLease { lease, outcome } => {
                if !self.model.leases.is_empty() {
                    self.end_lease(lease.index(self.model.leases.len()), outcome);
                }
            }
            Command::Lock { stop, tenant, life } => {
                let selector = match stop {
                    Stop::Other(selector) => selector,
                    Stop::Task(task) => {
                        let Some(task) = self.pick(task) else { return };
                        Selector::Task(self.model.tasks[task].id)
                    }
                };
                let lock = Lock {
                    tenant: tenant.map(|tenant| super::sample::tenant(TENANTS[tenant])),
                    until: life.map(|life| at(self.judge + life)),
                    ..lock(self.name(), selector)
                };
                let created = self.system.record(&Fact::LockCreated(lock.clone()), None, None, self.now());
                self.model.locks.push(LockRow { lock, created, lifted: false });
            }
            Command::Lift { lock } => {
                if self.model.locks.is_empty() {
                    return;
                }
                let now = self.now();
                let index = lock.index(self.model.locks.len());
                let row = &mut self.model.locks[index];
                row.lifted = true;
                let fact = Fact::LockLifted { lock: row.lock.id, proposer: None, confirmers: Vec::new() };
                self.system.record(&fact, None, None, now);
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

    fn open(&mut self, mut row: TaskRow) {
        let mut wanted = opened(row.id, None);
        (wanted.agent, wanted.delegator) = (row.agent.clone(), row.delegator.clone());
        (wanted.opener, wanted.holder) = (row.opener.clone(), row.holder);
        wanted.deadline = at(row.deadline);
        let tenant = tenant(row.tenant);
        let (facts, scope) = (task_facts(&wanted), wanted.scope.clone());
        let basis = self.system.basis(row.id);
        let permit = permit(Operation::CreateTask, facts, scope, &tenant, basis);
        let answer = Ledger::open(&permit, opening(&wanted), &self.system.control, self.now());
        let expected = row.deadline > self.judge && !self.model.is_stopped(&row, None, self.judge);
        assert_eq!(answer.is_ok(), expected, "{answer:?}");
        let Ok(fact) = answer else { return };
        row.opened = self.system.record(&fact, Some((row.id, &tenant)), None, self.now());
        self.model.tasks.push(row);
    }

    /// Whatever a delegation would refuse is folded all the same: liveness must not rest on good commands.
    fn delegate(&mut self, parent: usize, agent: usize, delegator: usize, life: u64) {
        let above = &self.model.tasks[parent];
        let id = TaskId::child_of(above.id.root(), id(self.named + 1)).unwrap();
        let mut row = TaskRow {
            id,
            parent: Some(parent),
            tenant: above.tenant,
            agent: workload(AGENTS[agent]),
            delegator: workload(DELEGATORS[delegator]),
            opener: above.agent.clone(),
            opened: Revision::ZERO,
            deadline: above.deadline.min(self.issue + life),
            ended: false,
            holder: Holder::Key(instance(1)),
        };
        let mut child = opened(id, Some(above.id));
        (child.agent, child.delegator) = (row.agent.clone(), row.delegator.clone());
        child.opener = row.opener.clone();
        child.deadline = at(row.deadline);
        self.name();
        row.opened = self.record(&Fact::TaskOpened(Arc::new(child)), parent, None);
        self.model.tasks.push(row);
    }

    fn issue(
        &mut self,
        task: usize,
        terms: Terms,
        claim: Option<ClaimDigest>,
        request: (RequestId, RequestDigest),
        stale: &Stale,
        widens: bool,
    ) {
        let row = &self.model.tasks[task];
        let ledger = self.system.tree(row.id);

        // As the broker does: a request that was answered is not decided again.
        let earlier =
            self.model.leases.iter().find(|lease| lease.task == task && lease.request.0 == request.0);
        let expected = match earlier {
            None => Recall::New,
            Some(lease) if lease.request.1 == request.1 => Recall::Same(lease.terms.id.key),
            Some(_) => Recall::Other,
        };
        assert_eq!(ledger.recall(row.id, &request.0, &request.1), expected);
        if expected != Recall::New {
            return;
        }

        let fresh = self.system.basis(row.id);
        let older = |revision: Revision| Revision(revision.0.wrapping_sub(1));
        let basis = match stale {
            Stale::Nothing => fresh,
            Stale::Tree => Basis { tree: older(fresh.tree), ..fresh },
            Stale::Control => Basis { control: older(fresh.control), ..fresh },
        };
        let facts = ledger.facts(row.id, &self.system.control, self.now()).unwrap();
        let permit = permit_for(&terms, Operation::IssueCredential, facts, ledger.tenant(), basis);
        let plan = Plan::drawn(permit, terms.clone());
        let answer = ledger.issue(&plan, request.1, claim, &self.system.control, self.now(), QUOTA);

        let held = match row.holder {
            Holder::Key(key) => key == terms.holder,
            Holder::Claim(expected) => claim == Some(expected),
        };
        let end = terms.end.millis();
        let expected = *stale == Stale::Nothing
            && held
            && !widens
            && end > self.judge
            && end <= row.deadline
            && self.model.task_lives(task, self.judge)
            && !self.model.is_stopped(row, Some(&terms), self.judge)
            && self.model.leases_live(task, self.judge) < QUOTA as usize;
        assert_eq!(answer.is_ok(), expected, "{answer:?} {terms:?}");
        let Ok(fact) = answer else { return };
        let issued = self.record(&fact, task, Some(request.0.clone()));
        self.model.tasks[task].holder = Holder::Key(terms.holder);
        self.model.leases.push(LeaseRow { task, terms, issued, ended: false, request });
    }

    fn end_task(&mut self, task: usize, outcome: Outcome) {
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

    fn end_lease(&mut self, lease: usize, outcome: LeaseOutcome) {
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

    fn check(&mut self) {
        self.system.assert_is_its_journal();
        self.check_tasks();
        self.check_leases();
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
            stays_as_it_is(&mut self.tasks_over, row.id, ending);

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
            assert_eq!(**ledger.lease(id).unwrap().terms(), row.terms);
            let ending = ledger.lease_ending(id, control, at(self.judge));
            assert_eq!(ending.is_none(), self.model.lease_lives(index, self.judge), "{ending:?} {row:?}");
            live += usize::from(ending.is_none());
            stays_as_it_is(&mut self.leases_over, id, ending);
        }
        // L7: what was issued either lives or is among the dead, and the ledgers hold no other.
        assert_eq!(self.model.leases.len(), live + self.leases_over.len());
        let held: usize =
            self.system.trees.values().flat_map(Ledger::tasks).map(|t| t.leases().count()).sum();
        assert_eq!(held, self.model.leases.len());
    }
}

/// L6: what is dead stays dead, and how it died is not rewritten.
fn stays_as_it_is<K: Ord + Copy, O>(over: &mut BTreeMap<K, Ending<O>>, id: K, ending: Option<Ending<O>>)
where
    Ending<O>: PartialEq + std::fmt::Debug,
{
    match (over.get(&id), ending) {
        (Some(before), after) => assert_eq!(Some(before), after.as_ref()),
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
    for time in [judge, judge + 7, judge + 500] {
        for task in ledger.tasks() {
            let id = task.opened().id;
            assert_eq!(reaped.task_ending(id, control, at(time)), ledger.task_ending(id, control, at(time)));
            for lease in task.leases() {
                let id = lease.terms().id;
                assert_eq!(
                    reaped.lease_ending(id, control, at(time)),
                    ledger.lease_ending(id, control, at(time))
                );
            }
        }
    }
}

#[test]
fn l6_l7_l9_l11_t5_ledgers_do_what_the_definitions_say() {
    let commands = (prop::collection::vec(command(), 1..60), any::<Index>());
    holds("l6_l7_l9_l11_t5", 192, commands, |(commands, snapshot_after)| {
        let mut run = Run::new();
        let steps = commands.len();
        for command in commands {
            run.step(command);
            run.check();
        }
        run.system.assert_is_replayed(snapshot_after.index(steps));
        Ok(())
    });
}

/// The same where everything happens in one tree, so that quota, recall and the endings of ancestors are met often.
#[test]
fn l6_l7_l11_d5_one_tree_does_what_the_definitions_say() {
    let commands = prop::collection::vec(command(), 1..60);
    holds("l6_l7_l11_d5", 192, commands, |commands| {
        let mut run = Run::new();
        run.step(Command::Open { tenant: 0, agent: 0, delegator: 0, opener: 0, life: 300, claim: false });
        for command in commands {
            if !matches!(command, Command::Open { .. }) {
                run.step(command);
                run.check();
            }
        }
        run.system.assert_is_replayed(0);
        Ok(())
    });
}
