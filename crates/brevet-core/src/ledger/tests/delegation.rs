//! Delegation at each of its boundaries: a child is smaller than its parent in every dimension, or there is none.

use std::collections::BTreeSet;

use super::super::*;
use super::sample::*;
use super::system::System;
use crate::fact::Outcome;
use crate::lock::Selector;
use crate::name::{PurposeCode, TaskType};
use crate::proof::Permit;
use crate::request::{DelegateFacts, PromptOrigin, Sensitivity, TaskContext};
use crate::revision::Basis;

const PARENT: &str = "td/agents/a";

/// The most that the agent of a task may ask for: the same again, for another agent.
fn same_again(parent: TaskId, number: u128) -> TaskOpened {
    TaskOpened {
        agent: workload("td/agents/b"),
        opener: workload(PARENT),
        ..opened(child(1, number), Some(parent))
    }
}

fn below(parent: &TaskOpened, number: u128) -> TaskOpened {
    TaskOpened { opener: parent.agent.clone(), depth: parent.depth + 1, ..same_again(parent.id, number) }
}

fn a_root() -> System {
    System::with_line(&[opened(root(1), None)])
}

fn answer(system: &System, task: &TaskOpened) -> Result<(), DelegateRefusal> {
    system.delegate(task, 10).map(|_| ())
}

#[test]
fn d1_a_child_ends_with_its_parent_at_the_latest() {
    let mut system = a_root();
    let until = |parent, number, millis| TaskOpened { deadline: at(millis), ..same_again(parent, number) };
    assert_eq!(answer(&system, &until(root(1), 2, 100_000)), Ok(()));
    assert_eq!(answer(&system, &until(root(1), 2, 100_001)), Err(DelegateRefusal::Widens));
    assert_eq!(answer(&system, &until(root(1), 2, 11)), Ok(()));
    assert_eq!(answer(&system, &until(root(1), 2, 10)), Err(DelegateRefusal::NoTime));

    // Not its parent's own deadline counts but the earliest above it.
    let late = TaskOpened { deadline: at(200_000), agent: workload(PARENT), ..same_again(root(1), 3) };
    system.fold(&Fact::TaskOpened(Arc::new(late)), root(1), 10);
    let grandchild = |millis| TaskOpened { depth: 2, ..until(child(1, 3), 4, millis) };
    assert_eq!(answer(&system, &grandchild(100_000)), Ok(()));
    assert_eq!(answer(&system, &grandchild(100_001)), Err(DelegateRefusal::Widens));
}

#[test]
fn d2_a_child_permits_nothing_that_its_parent_does_not() {
    let system = a_root();
    let with = |permissions: &[&str]| TaskOpened { scope: scope(permissions), ..same_again(root(1), 2) };
    for within in [&["x a/** r,w", "y a/** r,w"][..], &["x a/** r"], &["y a/b w"], &["x a/b/** r", "x a/c w"]]
    {
        assert_eq!(answer(&system, &with(within)), Ok(()), "{within:?}");
    }
    for wider in [&["x a/** r,w,z"][..], &["x b r"], &["x a r"], &["z a/b r"], &["x a/** r", "y b/** r"]] {
        assert_eq!(answer(&system, &with(wider)), Err(DelegateRefusal::Widens), "{wider:?}");
    }
}

#[test]
fn d2_a_child_touches_nothing_more_sensitive_than_its_parent() {
    let system = a_root();
    let to = |sensitivity_max| TaskOpened { sensitivity_max, ..same_again(root(1), 2) };
    for within in [Sensitivity::Low, Sensitivity::Moderate, Sensitivity::High] {
        assert_eq!(answer(&system, &to(within)), Ok(()));
    }
    assert_eq!(answer(&system, &to(Sensitivity::Critical)), Err(DelegateRefusal::Widens));
}

#[test]
fn d2_a_child_is_done_for_what_its_parent_is_done_for() {
    let system = a_root();
    let purpose = PurposeCode::parse("other").unwrap();
    let other = TaskOpened { purpose, ..same_again(root(1), 2) };
    assert_eq!(answer(&system, &other), Err(DelegateRefusal::Widens));
    assert_eq!(answer(&system, &same_again(root(1), 2)), Ok(()));
}

#[test]
fn d4_nothing_is_delegated_deeper_than_the_limit() {
    let mut system = a_root();
    let mut parent = opened(root(1), None);
    for depth in 1..=3 {
        let task = below(&parent, 10 + u128::from(depth));
        let fact = system.delegate(&task, 10).unwrap();
        system.fold(&fact, root(1), 10);
        let Fact::TaskOpened(recorded) = fact else { panic!() };
        assert_eq!(recorded.depth, depth);
        parent = task;
    }
    assert_eq!(answer(&system, &below(&parent, 20)), Err(DelegateRefusal::Depth(3)));

    // Nor at the end of what a depth can say.
    let deepest = TaskOpened { depth: u8::MAX, ..same_again(root(1), 30) };
    system.fold(&Fact::TaskOpened(Arc::new(deepest.clone())), root(1), 10);
    let deeper = TaskOpened { opener: deepest.agent.clone(), depth: u8::MAX, ..same_again(deepest.id, 31) };
    let permit = permit_to_delegate(&deeper, deepest.id, &TenantName::default(), system.basis(root(1)));
    let limits = TreeLimits { depth_max: u8::MAX, ..TREE_LIMITS };
    let answer = system.tree(root(1)).delegate(&permit, opening(&deeper), &system.control, now(10), limits);
    assert_eq!(answer, Err(DelegateRefusal::Depth(u8::MAX)));
}

#[test]
fn d4_a_tree_has_so_many_tasks_in_all_its_life() {
    let mut system = a_root();
    for number in 2..=TREE_LIMITS.tasks_max as u128 {
        let fact = system.delegate(&same_again(root(1), number), 10).unwrap();
        system.fold(&fact, root(1), 10);
        // What has ended is remembered, and counts.
        let (task, outcome) = (child(1, number), Outcome::Completed);
        system.fold(&Fact::TaskEnded { task, outcome, reason: REASON_EXPIRED, since: None }, root(1), 10);
    }
    let full = Err(DelegateRefusal::TreeFull(TREE_LIMITS.tasks_max));
    assert_eq!(answer(&system, &same_again(root(1), 99)), full);
}

#[test]
fn d5_a_child_is_delegated_by_a_live_parent_alone() {
    for (ends, expected) in [
        (
            Fact::TaskEnded { task: root(1), outcome: Outcome::Failed, reason: REASON_EXPIRED, since: None },
            10,
        ),
        (Fact::LockCreated(lock(7, Selector::Task(root(1)))), 10),
    ] {
        let mut system = a_root();
        system.record(&ends, Some((root(1), &TenantName::default())), None, now(10));
        // Lifting the lock opens nothing again.
        system.lift(7, 11);
        let answer = answer(&system, &same_again(root(1), 2));
        assert!(
            matches!(&answer, Err(DelegateRefusal::TaskClosed(ending)) if ending.at == at(expected)),
            "{answer:?}"
        );
    }
    let mut system = a_root();
    system.lock(lock(7, Selector::Agent(workload("td/agents/b"))), 10);
    assert_eq!(answer(&system, &same_again(root(1), 2)), Err(DelegateRefusal::Locked(lock_id(7))));
    let other = TaskOpened { agent: workload("td/agents/c"), ..same_again(root(1), 2) };
    assert_eq!(answer(&system, &other), Ok(()));
    system.lift(7, 11);
    assert_eq!(answer(&system, &same_again(root(1), 2)), Ok(()));
}

#[test]
fn d6_the_hop_of_a_delegated_task_is_linked_to_its_parents() {
    let mut system = a_root();
    let Ok(root_opened) = system.open(&opened(root(2), None), 5) else { panic!() };
    system.fold(&root_opened, root(2), 5);
    let Fact::TaskOpened(first) = root_opened else { panic!() };
    let mut before = first;
    for number in 1..=3 {
        let task = TaskOpened {
            opener: before.agent.clone(),
            depth: before.depth + 1,
            ..opened(child(2, 10 + number), Some(before.id))
        };
        let fact = system.delegate(&task, 6).unwrap();
        system.fold(&fact, root(2), 6);
        let Fact::TaskOpened(recorded) = fact else { panic!() };
        assert_eq!(recorded.hop, recorded.hop_upon(Some(before.hop)));
        assert_ne!(recorded.hop, recorded.hop_upon(None), "it stands on its own");
        let elsewhere = HopDigest::of(&[b"another chain"]);
        assert_ne!(recorded.hop, recorded.hop_upon(Some(elsewhere)), "it was moved");
        before = recorded;
    }
}

/// An agent that is given back a part of what it gave away has no more of it than the part.
#[test]
fn d7_a_task_comes_back_to_an_ancestors_agent_with_what_it_was_given_at_most() {
    let mut system = a_root();
    let part = TaskOpened { scope: scope(&["x a/** r"]), ..same_again(root(1), 2) };
    system.fold(&system.delegate(&part, 10).unwrap(), root(1), 10);
    let back = |permissions: &[&str]| TaskOpened {
        agent: workload(PARENT),
        scope: scope(permissions),
        ..below(&part, 3)
    };
    assert_eq!(answer(&system, &back(&["x a/** r"])), Ok(()));
    assert_eq!(answer(&system, &back(&["x a/** r,w"])), Err(DelegateRefusal::Widens));
    assert_eq!(answer(&system, &back(&["y a/** r"])), Err(DelegateRefusal::Widens));
}

#[test]
fn what_is_permitted_is_what_is_delegated() {
    let mut system = a_root();
    system.fold(&Fact::TaskOpened(Arc::new(same_again(root(1), 3))), root(1), 5);
    let task = TaskOpened {
        task_type: TaskType::parse("part").unwrap(),
        holder: Holder::Claim(claim(3)),
        body: body(7),
        ..same_again(root(1), 2)
    };
    let fact = system.delegate(&task, 10).unwrap();
    let Fact::TaskOpened(recorded) = &fact else { panic!() };
    let expected = TaskOpened { opened_at: at(10), hop: recorded.hop, ..task.clone() };
    assert_eq!(**recorded, expected);

    let basis = system.basis(root(1));
    let ask = |permit: &Permit| {
        let opening = opening(&task);
        system.tree(root(1)).delegate(permit, opening, &system.control, now(10), TREE_LIMITS).map(|_| ())
    };
    let asked = |context: TaskContext, parent, tenant_name: &str| {
        let delegate = DelegateFacts { tenant: tenant(tenant_name), roles: BTreeSet::new() };
        permit(
            Ask::DelegateTask { context, parent, delegate },
            &workload(PARENT),
            &TenantName::default(),
            basis,
            policy(1),
        )
    };
    let context = |change: fn(&mut TaskFacts)| {
        let mut facts = task_facts(&task);
        change(&mut facts);
        context(facts, task.scope.clone())
    };
    assert_eq!(ask(&asked(context(|_| ()), root(1), "default")), Ok(()));
    assert_eq!(ask(&asked(context(|_| ()), child(1, 77), "default")), Err(DelegateRefusal::NoTask));
    assert_eq!(ask(&asked(context(|_| ()), root(9), "default")), Err(DelegateRefusal::NoTask));
    let refused = Err(DelegateRefusal::NotPermitted);
    assert_eq!(ask(&asked(context(|_| ()), root(1), "north")), refused, "another tenant's agent");
    let changes: [fn(&mut TaskFacts); 6] = [
        |facts| facts.id = root(1),
        |facts| facts.id = child(1, 3),
        |facts| facts.id = child(9, 2),
        |facts| facts.delegator = workload("td/people/bob"),
        |facts| facts.depth = 0,
        |facts| facts.depth = 2,
    ];
    for change in changes {
        assert_eq!(ask(&asked(context(change), root(1), "default")), refused);
    }
    let strangers = TaskOpened { opener: workload("td/orchestrator"), ..task.clone() };
    assert_eq!(answer(&system, &strangers), refused, "the orchestrator of the parent is not its agent");
    assert_eq!(ask(&permit_to_open(&task, &TenantName::default(), basis)), refused);
    for stale in [Basis { tree: Revision(1), ..basis }, Basis { control: Revision(1), ..basis }] {
        let permit = permit_to_delegate(&task, root(1), &TenantName::default(), stale);
        assert_eq!(ask(&permit), Err(DelegateRefusal::Conflict));
    }
}

#[test]
fn a_delegating_agent_can_only_worsen_the_origin_of_the_prompt() {
    let system = a_root();
    for (said, expected) in [
        (None, PromptOrigin::User),
        (Some(PromptOrigin::System), PromptOrigin::User),
        (Some(PromptOrigin::ToolOutput), PromptOrigin::ToolOutput),
    ] {
        let task = TaskOpened { prompt_origin: said, ..same_again(root(1), 2) };
        let Ok(Fact::TaskOpened(recorded)) = system.delegate(&task, 10) else { panic!() };
        assert_eq!(recorded.prompt_origin, Some(expected));
    }
}
