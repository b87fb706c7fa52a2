//! What resource servers are told, what quotas count, and how long a tree is remembered.

use std::collections::BTreeSet;

use super::super::*;
use super::run::open_by;
use super::sample::*;
use super::system::System;
use crate::fact::{LeaseOutcome, Outcome};
use crate::lock::Selector;
use crate::notice::{EarlyEnding, Ended, Reach};
use crate::terms::Terms;

const TREE: u128 = 1;
const PARENT: TaskId = TaskId::root_of(RootTaskId(Id::from_bytes(1u128.to_be_bytes())));

/// A task with a child of another opener, and leases: a token for `x` until 40 s and one for `y` until 50 s of the
/// parent's, a token for `x` until 60 s of the child's.
fn family() -> (System, TaskId, [LeaseId; 3]) {
    let below = child(TREE, 2);
    let theirs = TaskOpened { opener: workload("td/agents/a"), ..opened(below, Some(PARENT)) };
    let mut system = System::with_line(&[opened(PARENT, None), theirs]);
    let leases = [
        Terms { end: at(40_000), ..terms_for(PARENT, 1, &["x a/b r"]) },
        Terms { end: at(50_000), ..terms_for(PARENT, 2, &["y a/b r"]) },
        Terms { end: at(60_000), ..terms_for(below, 3, &["x a/b r"]) },
    ];
    let leases = leases.map(|terms| system.lease(terms, 1));
    (system, below, leases)
}

fn audiences(names: &[&str]) -> Reach {
    Reach::Audiences(names.iter().map(|name| audience(name)).collect())
}

fn ends(task: TaskId, outcome: Outcome) -> Fact {
    Fact::TaskEnded { task, outcome, reason: ReasonCode::of("asked"), since: None }
}

fn revokes(lease: LeaseId) -> Fact {
    Fact::LeasesEnded {
        task: lease.task,
        leases: vec![lease.key],
        outcome: LeaseOutcome::Revoked,
        reason: ReasonCode::of("asked"),
        since: None,
    }
}

fn notice(ended: Ended, until: u64, reach: Reach) -> EarlyEnding {
    EarlyEnding { ended, reason: ReasonCode::of("asked"), until: at(until), reach }
}

#[test]
fn an_early_ending_is_told_to_whom_it_concerns_as_long_as_it_matters() {
    let (mut system, below, [x, y, _]) = family();
    let told = |system: &System, fact: &Fact, millis| system.tree(PARENT).early_endings(fact, at(millis));
    let everything = notice(Ended::Task(PARENT), 60_000, audiences(&["x", "y"]));
    assert_eq!(told(&system, &ends(PARENT, Outcome::Completed), 10), [everything]);
    let only_x = notice(Ended::Task(PARENT), 60_000, audiences(&["x"]));
    assert_eq!(told(&system, &ends(PARENT, Outcome::Completed), 50_000), [only_x]);
    assert_eq!(told(&system, &ends(PARENT, Outcome::Completed), 60_000), []);
    let part = notice(Ended::Task(below), 60_000, audiences(&["x"]));
    assert_eq!(told(&system, &ends(below, Outcome::Failed), 10), [part]);
    let lease = notice(Ended::Lease(y), 50_000, audiences(&["y"]));
    assert_eq!(told(&system, &revokes(y), 49_999), [lease]);
    assert_eq!(told(&system, &revokes(y), 50_000), []);
    for fact in system.tree(PARENT).expire(at(45_000)) {
        assert_eq!(told(&system, &fact, 45_000), [], "every verifier sees that by itself");
    }
    system.fold(&revokes(x), PARENT, 10);
    assert_eq!(told(&system, &revokes(x), 11), [], "it was told before");

    // An identity for an audience is that audience's concern.
    let for_y = system.lease(jwt_svid(terms(below, 10), "y"), 11);
    let of_y = notice(Ended::Lease(for_y), 100_000, audiences(&["y"]));
    assert_eq!(told(&system, &revokes(for_y), 12), [of_y]);
    // An X.509-SVID is for no audience in particular.
    let identity = svid(terms(below, 9));
    system.lease(identity, 11);
    let everybody = notice(Ended::Task(below), 100_000, Reach::Tenant);
    assert_eq!(told(&system, &ends(below, Outcome::Failed), 12), [everybody]);
}

#[test]
fn an_ending_before_its_time_is_told_however_it_is_called() {
    let (system, below, _) = family();
    let told = system.tree(PARENT).early_endings(&ends(below, Outcome::Expired), at(10));
    assert_eq!(told, [notice(Ended::Task(below), 60_000, audiences(&["x"]))]);
}

#[test]
fn t7_a_notice_concerns_the_enforcers_of_its_audiences_alone() {
    let enforced = |names: &[&str]| names.iter().map(|name| audience(name)).collect::<BTreeSet<_>>();
    assert!(audiences(&["x", "y"]).concerns(&enforced(&["y", "z"])));
    assert!(!audiences(&["x", "y"]).concerns(&enforced(&["z"])));
    assert!(!audiences(&[]).concerns(&enforced(&["z"])));
    assert!(Reach::Tenant.concerns(&enforced(&["z"])));
    assert!(!Reach::Tenant.concerns(&enforced(&[])), "whoever enforces nothing learns nothing");
}

#[test]
fn whoever_was_away_is_told_what_ended_meanwhile_and_still_matters() {
    let (mut system, below, [x, ..]) = family();
    let first = system.fold(&revokes(x), PARENT, 10);
    let second = system.fold(&ends(below, Outcome::Failed), PARENT, 20);
    let since = |system: &System, after, millis| {
        let mut told = system.tree(PARENT).early_endings_since(after, at(millis));
        told.sort_unstable_by_key(|(revision, _)| *revision);
        told
    };
    let lease = (first, notice(Ended::Lease(x), 40_000, audiences(&["x"])));
    let task = (second, notice(Ended::Task(below), 60_000, audiences(&["x"])));
    assert_eq!(since(&system, Revision::ZERO, 30), [lease.clone(), task.clone()]);
    assert_eq!(since(&system, first, 30), std::slice::from_ref(&task));
    assert_eq!(since(&system, second, 30), []);
    assert_eq!(since(&system, Revision::ZERO, 40_000), std::slice::from_ref(&task));
    assert_eq!(since(&system, Revision::ZERO, 60_000), []);
}

/// What a lock kills dies at once; resource servers that do not ask learn of it by the records of the sweep.
#[test]
fn a_sweep_is_told_of_like_any_ending() {
    let (mut system, ..) = family();
    let created = system.lock(crate::lock::Lock { ..lock(7, Selector::Everything) }, 10);
    let record = system.control.locks()[&lock_id(7)].clone();
    let facts = system.tree(PARENT).sweep(&record);
    let told: Vec<EarlyEnding> =
        facts.iter().flat_map(|fact| system.tree(PARENT).early_endings(fact, at(20))).collect();
    let expected =
        EarlyEnding { reason: REASON_LOCKED, ..notice(Ended::Task(PARENT), 60_000, audiences(&["x", "y"])) };
    assert_eq!(told, std::slice::from_ref(&expected));
    system.sweep(7, 20);
    let since = system.tree(PARENT).early_endings_since(created, at(21));
    assert_eq!(since, [(created.next(), expected)]);
}

#[test]
fn l7_what_an_ending_gives_back_is_what_is_counted_no_more() {
    let (mut system, below, [x, ..]) = family();
    let [orchestrator, agent] = ["td/orchestrator", "td/agents/a"].map(workload);
    let counted = |system: &System| {
        let open = open_by(system.tree(PARENT));
        [&orchestrator, &agent].map(|opener| open.get(opener).copied().unwrap_or(0))
    };
    let mut end = |fact: &Fact, expected: &[(SpiffeId, usize)], left| {
        assert_eq!(system.tree(PARENT).leases_released(fact), expected);
        system.fold(fact, PARENT, 10);
        assert_eq!(counted(&system), left);
    };
    let unknown = LeaseId { task: PARENT, key: lease_key(99) };
    end(&revokes(unknown), &[], [2, 1]);
    end(&revokes(x), &[(orchestrator.clone(), 1)], [1, 1]);
    end(&revokes(x), &[], [1, 1]);
    end(&ends(below, Outcome::Failed), &[(agent.clone(), 1)], [1, 0]);
    end(&ends(below, Outcome::Failed), &[], [1, 0]);
    end(&ends(PARENT, Outcome::Completed), &[(orchestrator.clone(), 1)], [0, 0]);
}

#[test]
fn a_tree_is_remembered_a_while_after_its_root_ended_and_on_the_day_of_its_opening() {
    const DAY: u64 = 86_400_000;
    let (mut system, below, _) = family();
    let forgotten = |system: &System, millis| system.tree(PARENT).forgotten_at(Duration::from_millis(millis));
    assert_eq!(forgotten(&system, 0), None);
    system.fold(&ends(below, Outcome::Failed), PARENT, 20);
    system.lock(lock(7, Selector::Everything), 21);
    assert_eq!(forgotten(&system, 0), None, "that its root is locked is not recorded");
    system.fold(&ends(PARENT, Outcome::Failed), PARENT, 30);
    assert_eq!(forgotten(&system, 0), Some(at(DAY)), "its id has the day in it");
    assert_eq!(forgotten(&system, DAY - 30), Some(at(DAY)));
    assert_eq!(forgotten(&system, DAY - 29), Some(at(DAY + 1)));
}
