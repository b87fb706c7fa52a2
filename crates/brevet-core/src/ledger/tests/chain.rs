//! Who stands where in a tree: paths, owners, and the hops that link a chain.

use super::super::*;
use super::sample::*;
use super::system::System;
use crate::digest::{ClaimDigest, HopDigest};
use crate::name::{PurposeCode, TaskType};
use crate::request::Sensitivity;

/// An agent `a` that was given a task and gave parts of it to `b`, and that to `c`.
fn tree() -> (System, [TaskId; 3]) {
    let ids = [root(1), child(1, 2), child(1, 3)];
    let [a, b, c] = ["a", "b", "c"].map(|name| workload(&format!("td/agents/{name}")));
    let system = System::with_line(&[
        TaskOpened { agent: a.clone(), ..opened(ids[0], None) },
        TaskOpened { agent: b.clone(), opener: a, ..opened(ids[1], Some(ids[0])) },
        TaskOpened { agent: c, opener: b, depth: 2, ..opened(ids[2], Some(ids[1])) },
    ]);
    (system, ids)
}

#[test]
fn a_path_leads_from_the_root_to_the_task() {
    let (system, ids) = tree();
    for (depth, id) in ids.iter().enumerate() {
        let nodes: Vec<Id> = system.tree(*id).path(*id).map(|hop| hop.node).collect();
        let expected: Vec<Id> = ids[..=depth].iter().map(TaskId::node).collect();
        assert_eq!(nodes, expected);
    }
    let facts = system.tree(ids[2]).facts(ids[2], &system.control, now(40_500)).unwrap();
    assert_eq!(facts.chain, ["a", "b", "c"].map(|name| workload(&format!("td/agents/{name}"))));
    assert_eq!((facts.depth, facts.age_seconds, facts.remaining_seconds), (2, 40, 59));
}

#[test]
fn an_owner_opened_the_task_or_has_a_part_above_it() {
    let (system, ids) = tree();
    let owners = |id| {
        ["td/orchestrator", "td/agents/a", "td/agents/b", "td/agents/c", "td/people/ann"]
            .map(|party| system.tree(id).is_owner(id, &workload(party)))
    };
    assert_eq!(owners(ids[0]), [true, false, false, false, false], "working on a task is not owning it");
    assert_eq!(owners(ids[1]), [true, true, false, false, false]);
    assert_eq!(owners(ids[2]), [true, true, true, false, false]);
}

#[test]
fn d6_a_hop_changes_with_whatever_was_opened() {
    let task = opened(child(1, 2), Some(root(1)));
    let before = Some(HopDigest::of(&[b"before"]));
    let changes: [fn(&mut TaskOpened); 16] = [
        |task| task.id = child(1, 3),
        |task| task.parent = None,
        |task| task.agent = workload("td/agents/b"),
        |task| task.delegator = workload("td/people/bob"),
        |task| task.opener = workload("td/agents/b"),
        |task| task.task_type = TaskType::parse("other").unwrap(),
        |task| task.purpose = PurposeCode::parse("other").unwrap(),
        |task| task.sensitivity_max = Sensitivity::Critical,
        |task| task.prompt_origin = None,
        |task| task.scope = scope(&["x a/** r,w"]),
        |task| task.opened_at = at(1),
        |task| task.deadline = at(100_001),
        |task| task.depth = 0,
        |task| task.holder = Holder::Key(instance(2)),
        |task| task.holder = Holder::Claim(ClaimDigest::from_bytes(*instance(1).as_bytes())),
        |task| task.body = body(2),
    ];
    let mut hops =
        vec![task.hop_upon(before), task.hop_upon(None), task.hop_upon(Some(task.hop_upon(before)))];
    for change in changes {
        let mut other = task.clone();
        change(&mut other);
        hops.push(other.hop_upon(before));
    }
    let distinct: BTreeSet<_> = hops.iter().collect();
    assert_eq!(distinct.len(), hops.len(), "{hops:?}");
    let stored = TaskOpened { hop: task.hop_upon(before), ..task.clone() };
    assert_eq!(stored.hop_upon(before), stored.hop, "a hop is not part of itself");
}

#[test]
fn d6_a_chain_can_be_neither_reordered_nor_cut() {
    let (_, ids) = tree();
    let tasks = [opened(ids[0], None), opened(ids[1], Some(ids[0])), opened(ids[2], Some(ids[1]))];
    let end = |order: &[usize]| order.iter().fold(None, |before, task| Some(tasks[*task].hop_upon(before)));
    let chains: [&[usize]; 8] =
        [&[0, 1, 2], &[0, 2, 1], &[1, 0, 2], &[1, 2], &[0, 2], &[2], &[0, 1, 2, 2], &[]];
    let ends: BTreeSet<_> = chains.iter().map(|order| end(order)).collect();
    assert_eq!(ends.len(), chains.len());
}

#[test]
fn d6_a_root_is_recorded_with_its_own_hop() {
    let system = System::default();
    let Ok(Fact::TaskOpened(recorded)) = system.open(&opened(root(1), None), 5) else { panic!() };
    assert_eq!(recorded.hop, recorded.hop_upon(None));
    assert_eq!(recorded.opened_at, at(5));
    assert_eq!(recorded.opener, workload("td/orchestrator"));
}
