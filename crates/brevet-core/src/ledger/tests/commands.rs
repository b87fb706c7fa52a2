//! Random commands: mostly such as are granted, and each way of being refused now and then.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::sample::*;
use crate::fact::{LeaseOutcome, Outcome};
use crate::lock::Selector;

pub(crate) const TENANTS: [&str; 2] = ["north", "south"];
pub(crate) const AGENTS: [&str; 4] = ["td/agents/a", "td/agents/ab", "td/agents/a/b", "other/agents/a"];
pub(crate) const DELEGATORS: [&str; 2] = ["td/people/ann", "people.example/bob"];
pub(crate) const OPENERS: [&str; 2] = ["td/orchestrator", "third/orchestrator"];
/// What a credential is asked for; the last is wider than any root task.
pub(crate) const GRANTS: [&[&str]; 7] = [
    &["x a/b r"],
    &["x a/b/** w"],
    &["x a/** r"],
    &["y a/x r"],
    &["x a/bc r", "y a/bc r"],
    &["x a/** r,w"],
    &["x b r"],
];
/// What a task is delegated with; the first is as wide as a root task, the last is wider.
pub(crate) const CEILINGS: [&[&str]; 5] = [
    &["x a/** r,w", "y a/** r,w"],
    &["x a/** r,w"],
    &["x a/** r", "y a/** r,w"],
    &["x a/b/** r,w", "y a/x r"],
    &["x a/** r,w", "x b r"],
];

/// When what is asked for is to end, by the task's deadline or by now.
#[derive(Debug, Clone)]
pub(crate) enum Until {
    BeforeDeadline(i64),
    FromNow(u64),
}

#[derive(Debug, Clone)]
pub(crate) enum Stop {
    Task(Index),
    Other(Selector),
}

/// What became known since the decision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stale {
    Nothing,
    Tree,
    Control,
}

/// What is wrong with a delegation, beside what its numbers say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Odd {
    Nothing,
    Caller,
    Tenant,
    Delegator,
    Depth,
    /// Nothing is, and what would be refused is recorded all the same: liveness must not rest on good commands.
    Forced,
}

#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) until: Until,
    pub(crate) key: &'static str,
    pub(crate) policy: u8,
    pub(crate) claim: Option<u8>,
    pub(crate) request: (u8, u8),
    pub(crate) stale: Stale,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Grant {
    /// A token for one of [`GRANTS`].
    Token(usize),
    X509Svid,
    JwtSvid(&'static str),
}

#[derive(Debug, Clone)]
pub(crate) enum Command {
    Open {
        tenant: usize,
        agent: usize,
        delegator: usize,
        opener: usize,
        life: u64,
        claim: bool,
    },
    Delegate {
        /// None means the youngest task, so that chains grow long.
        parent: Option<Index>,
        agent: usize,
        until: Until,
        ceiling: usize,
        sensitivity: i64,
        claim: bool,
        odd: Odd,
        stale: Stale,
    },
    Issue {
        task: Index,
        grant: Grant,
        instance: u8,
        wish: Wish,
    },
    Renew {
        lease: Index,
        /// Another task than the lease's.
        task: Option<Index>,
        /// Other content than the lease's, as in `Issue`.
        grant: Option<Grant>,
        /// Another holder than the lease's.
        instance: Option<u8>,
        wish: Wish,
    },
    EndTask {
        task: Index,
        outcome: Outcome,
    },
    EndLease {
        lease: Index,
        outcome: LeaseOutcome,
    },
    EndMatching {
        tree: Index,
        stop: Stop,
    },
    Lock {
        stop: Stop,
        tenant: Option<usize>,
        life: Option<u64>,
    },
    Lift {
        lock: Index,
    },
    Sweep {
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
        2 => any::<Index>().prop_map(Stop::Task),
        4 => other.prop_map(Stop::Other),
    ]
}

fn until() -> impl Strategy<Value = Until> {
    prop_oneof![
        3 => (0..60u64).prop_map(Until::FromNow),
        1 => (-1..3i64).prop_map(Until::BeforeDeadline),
    ]
}

fn stale() -> impl Strategy<Value = Stale> {
    prop_oneof![18 => Just(Stale::Nothing), 1 => Just(Stale::Tree), 1 => Just(Stale::Control)]
}

fn grant() -> impl Strategy<Value = Grant> {
    prop_oneof![
        9 => (0..GRANTS.len() - 1).prop_map(Grant::Token),
        1 => Just(Grant::Token(GRANTS.len() - 1)),
        2 => Just(Grant::X509Svid),
        2 => select(vec!["x", "y"]).prop_map(Grant::JwtSvid),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    // Mostly the right claim.
    let claim = prop_oneof![6 => Just(Some(1u8)), 1 => Just(Some(2u8)), 1 => Just(None)];
    let request = (0..12u8, 0..2u8);
    (until(), select(vec!["k1", "k2"]), 1..3u8, claim, request, stale()).prop_map(
        |(until, key, policy, claim, request, stale)| Wish { until, key, policy, claim, request, stale },
    )
}

fn open() -> impl Strategy<Value = Command> {
    let parties = (0..AGENTS.len(), 0..DELEGATORS.len(), 0..OPENERS.len());
    (0..TENANTS.len(), parties, 0..300u64, prop::bool::weighted(0.3)).prop_map(
        |(tenant, (agent, delegator, opener), life, claim)| Command::Open {
            tenant,
            agent,
            delegator,
            opener,
            life,
            claim,
        },
    )
}

fn delegate() -> impl Strategy<Value = Command> {
    let until = prop_oneof![
        3 => (0..200u64).prop_map(Until::FromNow),
        3 => (-1..100i64).prop_map(Until::BeforeDeadline),
    ];
    let ceiling = prop_oneof![12 => 0..CEILINGS.len() - 1, 1 => Just(CEILINGS.len() - 1)];
    let sensitivity = prop_oneof![9 => Just(0i64), 2 => Just(-1i64), 1 => Just(1i64)];
    let odd = prop_oneof![
        16 => Just(Odd::Nothing),
        1 => Just(Odd::Caller),
        1 => Just(Odd::Tenant),
        1 => Just(Odd::Delegator),
        1 => Just(Odd::Depth),
        2 => Just(Odd::Forced),
    ];
    let claim = prop::bool::weighted(0.2);
    let parent = prop::option::of(any::<Index>());
    (parent, 0..AGENTS.len(), until, ceiling, sensitivity, claim, odd, stale()).prop_map(
        |(parent, agent, until, ceiling, sensitivity, claim, odd, stale)| Command::Delegate {
            parent,
            agent,
            until,
            ceiling,
            sensitivity,
            claim,
            odd,
            stale,
        },
    )
}

fn issue() -> impl Strategy<Value = Command> {
    // Mostly the right instance.
    let instance = prop_oneof![9 => Just(1u8), 1 => Just(2u8)];
    (any::<Index>(), grant(), instance, wish()).prop_map(|(task, grant, instance, wish)| Command::Issue {
        task,
        grant,
        instance,
        wish,
    })
}

fn renew() -> impl Strategy<Value = Command> {
    let task = prop::option::weighted(0.1, any::<Index>());
    let grant = prop::option::weighted(0.4, grant());
    let instance = prop::option::weighted(0.1, 1..3u8);
    (any::<Index>(), task, grant, instance, wish()).prop_map(|(lease, task, grant, instance, wish)| {
        Command::Renew { lease, task, grant, instance, wish }
    })
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let outcomes =
        [Outcome::Completed, Outcome::Failed, Outcome::Cancelled, Outcome::Revoked, Outcome::Expired];
    let lease_outcomes = [LeaseOutcome::Expired, LeaseOutcome::Revoked, LeaseOutcome::Undelivered];
    prop_oneof![
        4 => open(),
        5 => delegate(),
        14 => issue(),
        5 => renew(),
        1 => (any::<Index>(), select(outcomes.to_vec()))
            .prop_map(|(task, outcome)| Command::EndTask { task, outcome }),
        2 => (any::<Index>(), select(lease_outcomes.to_vec()))
            .prop_map(|(lease, outcome)| Command::EndLease { lease, outcome }),
        1 => (any::<Index>(), selector()).prop_map(|(tree, stop)| Command::EndMatching { tree, stop }),
        2 => (selector(), prop::option::of(0..TENANTS.len()), prop::option::of(0..20u64))
            .prop_map(|(stop, tenant, life)| Command::Lock { stop, tenant, life }),
        2 => any::<Index>().prop_map(|lock| Command::Lift { lock }),
        2 => any::<Index>().prop_map(|lock| Command::Sweep { lock }),
        1 => Just(Command::Load),
        3 => (0..20u64, prop_oneof![4 => Just(0u64), 1 => 0..10u64])
            .prop_map(|(issue, ahead)| Command::Pass { issue, ahead }),
        2 => any::<Index>().prop_map(|tree| Command::Expire { tree }),
    ]
}
