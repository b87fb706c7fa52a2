//! Locks, their sweeps, and that nothing is otherwise once a lock is forgotten.

use super::super::*;
use super::sample::*;
use super::system::System;
use crate::fact::{LeaseOutcome, Outcome};
use crate::lock::{Lock, Selector};
use crate::terms::Terms;

const TREE: u128 = 1;

/// Three tasks, each below the one before, and a lease of each, which ends at 40 s.
fn line() -> (System, [TaskId; 3], [LeaseId; 3]) {
    let tasks = [root(TREE), child(TREE, 2), child(TREE, 3)];
    let agents = ["td/agents/a", "td/agents/b", "td/agents/c"].map(workload);
    let mut system = System::with_line(&[
        opened(tasks[0], None),
        TaskOpened { agent: agents[1].clone(), ..opened(tasks[1], Some(tasks[0])) },
        TaskOpened { agent: agents[2].clone(), ..opened(tasks[2], Some(tasks[1])) },
    ]);
    let leases = tasks.map(|task| system.lease(Terms { end: at(40_000), ..terms(task, 9) }, 1));
    (system, tasks, leases)
}

type Endings = (Vec<Option<Ending<Outcome>>>, Vec<Option<Ending<LeaseOutcome>>>);

fn endings(system: &System, tasks: &[TaskId], leases: &[LeaseId], millis: u64) -> Endings {
    let (tree, control) = (system.tree(root(TREE)), &system.control);
    (
        tasks.iter().map(|task| tree.task_ending(*task, control, at(millis))).collect(),
        leases.iter().map(|lease| tree.lease_ending(*lease, control, at(millis))).collect(),
    )
}

#[test]
fn l6_what_a_lock_killed_stays_dead_when_the_lock_is_swept_lifted_and_forgotten() {
    for selector in [
        Selector::Everything,
        Selector::Task(root(TREE)),
        Selector::Agent(workload("td/agents/b")),
        Selector::Audience(audience("x")),
    ] {
        for sweep_first in [true, false] {
            let (mut system, tasks, leases) = line();
            system.lock(lock(7, selector.clone()), 10);
            let before = endings(&system, &tasks, &leases, 11);
            assert!(before.1.iter().any(Option::is_some));
            if sweep_first {
                system.sweep(7, 20);
                assert_eq!(endings(&system, &tasks, &leases, 21), before, "{selector:?} swept");
                assert_eq!(system.control.locks().len(), 1, "it is in force");
            }
            system.lift(7, 30);
            assert_eq!(endings(&system, &tasks, &leases, 31), before, "{selector:?} lifted");
            if !sweep_first {
                assert_eq!(system.control.unswept().count(), 1, "its record is kept until its sweep");
                system.sweep(7, 32);
            }
            assert_eq!(system.control.locks().len(), 0);
            assert_eq!(endings(&system, &tasks, &leases, 33), before, "{selector:?} forgotten");
            let dead = before.1.iter().zip(leases).filter(|(ending, _)| ending.is_some());
            assert!(dead.into_iter().all(|(_, lease)| !system.lease_lives(lease, 100_000)));
            system.assert_is_its_journal();
            system.assert_is_replayed(6);
        }
    }
}

#[test]
fn l6_a_sweep_records_when_the_lock_came_and_changes_no_other_ending() {
    let (mut system, [top, middle, bottom], [first, ..]) = line();
    let over = system.lease(Terms { end: at(10), ..terms(top, 20) }, 2);
    let beside = system.lease(terms_for(top, 21, &["y a/b r"]), 2);
    let ended = Fact::TaskEnded {
        task: middle,
        outcome: Outcome::Completed,
        reason: ReasonCode::of("done"),
        since: None,
    };
    system.fold(&ended, middle, 10);
    // Both are over in the very millisecond in which the lock comes.
    system.lock(lock(7, Selector::Audience(audience("x"))), 10);
    let after = system.lease(terms(top, 22), 11);
    let expected = Fact::LeasesEnded {
        task: top,
        // Nobody has recorded that the second is over.
        leases: vec![first.key, over.key],
        outcome: LeaseOutcome::Revoked,
        reason: REASON_LOCKED,
        since: Some(at(10)),
    };
    let of_lease = |system: &System, id: LeaseId| {
        system
            .tree(id.task)
            .lease_ending(id, &system.control, at(60))
            .map(|ending| (ending.reason, ending.at))
    };
    let all = [first, over, beside, after, LeaseId { task: bottom, key: lease_key(9) }];
    let before = all.map(|lease| of_lease(&system, lease));
    assert_eq!(
        before,
        [
            Some((REASON_LOCKED, at(10))),
            Some((REASON_EXPIRED, at(10))),
            None,
            None,
            Some((REASON_TASK_ENDED, at(10)))
        ]
    );
    assert_eq!(system.sweep(7, 50), [expected]);
    system.lift(7, 51);
    assert_eq!(all.map(|lease| of_lease(&system, lease)), before);
}

/// A clock that was ahead, in which everything seemed over, and that was right again after a restart.
#[test]
fn l6_c3_what_a_lock_killed_while_the_clock_was_ahead_stays_dead_when_it_is_right_again() {
    for selector in [Selector::Everything, Selector::Task(child(TREE, 2)), Selector::Audience(audience("x"))]
    {
        let (mut system, tasks, leases) = line();
        let ahead = Now { issue: at(10), judge: at(500_000), suspect: true };
        system.record(&Fact::LockCreated(lock(7, selector.clone())), None, None, ahead);
        let dead = |system: &System| {
            let (tasks, leases) = endings(system, &tasks, &leases, 20);
            (tasks.iter().map(Option::is_some).collect(), leases.iter().map(Option::is_some).collect())
        };
        let before: (Vec<bool>, Vec<bool>) = dead(&system);
        assert!(before.1[1] && before.1[2], "{selector:?}");
        system.sweep(7, 20);
        system.lift(7, 20);
        assert_eq!(system.control.locks().len(), 0);
        assert_eq!(dead(&system), before, "{selector:?}");
    }
}

/// The reaper records what has run out when it finds it, which may be after a lock came that it does not know of.
#[test]
fn l6_t5_a_late_sweep_finds_what_the_reaper_recorded_meanwhile() {
    let (mut system, tasks, leases) = line();
    system.lock(lock(7, Selector::Everything), 10);
    let before = endings(&system, &tasks, &leases, 200_000);
    for millis in [50_000, 200_000] {
        for fact in system.tree(root(TREE)).expire(at(millis)) {
            system.fold(&fact, root(TREE), millis);
        }
        assert_eq!(endings(&system, &tasks, &leases, 200_000), before);
    }
    system.sweep(7, 200_001);
    system.lift(7, 200_002);
    assert_eq!(system.control.locks().len(), 0);
    assert_eq!(endings(&system, &tasks, &leases, 200_003), before);
}

#[test]
fn t6_a_lock_kills_what_was_recorded_before_it_and_nothing_after() {
    let (mut system, [top, ..], [lease, ..]) = line();
    // All in one millisecond: the revision tells before from after.
    system.lock(lock(7, Selector::Key(key_id("k1"))), 1);
    assert!(!system.lease_lives(lease, 1));
    let after = system.lease(terms(top, 20), 1);
    assert!(system.lease_lives(after, 1));
    system.lock(lock(8, Selector::Agent(workload("td/agents/a"))), 1);
    assert!(!system.lease_lives(after, 1) && !system.task_lives(top, 1));
    let fresh = opened(root(5), None);
    system.fold(&Fact::TaskOpened(Arc::new(fresh)), root(5), 1);
    assert!(system.task_lives(root(5), 1));
    for number in [8, 7] {
        system.sweep(number, 2);
        system.lift(number, 2);
    }
    assert!(!system.lease_lives(after, 3) && !system.task_lives(top, 3) && system.task_lives(root(5), 3));
}

#[test]
fn a_lock_is_matched_until_it_is_swept_and_forbids_nothing_any_more() {
    let (mut system, ..) = line();
    let kept = |system: &System| system.control.locks().len();
    let moment = |millis, suspect| Now { suspect, ..now(millis) };
    let configured = |system: &mut System, now| system.record(&configuration(), None, None, now);
    system.lock(Lock { until: Some(at(100)), ..lock(7, Selector::Everything) }, 10);
    system.sweep(7, 20);
    assert_eq!((kept(&system), system.control.unswept().count()), (1, 0), "it is in force");
    configured(&mut system, moment(99, false));
    assert_eq!(kept(&system), 1);
    configured(&mut system, moment(100, true));
    assert_eq!(kept(&system), 1, "a clock in doubt is not believed");
    configured(&mut system, moment(100, false));
    assert_eq!(kept(&system), 0);

    system.lock(lock(8, Selector::Everything), 200);
    system.lift(8, 201);
    assert_eq!(kept(&system), 1, "its sweep is not recorded");
    system.record(&Fact::LockSwept { lock: lock_id(9), tasks: 0, leases: 0 }, None, None, now(202));
    assert_eq!(kept(&system), 1, "another's was");
    system.sweep(8, 203);
    assert_eq!(kept(&system), 0);
    system.assert_is_replayed(4);
}

#[test]
fn a_lock_on_another_tenant_or_another_tree_sweeps_nothing_here() {
    let (mut system, ..) = line();
    system.lock(Lock { tenant: Some(tenant("north")), ..lock(7, Selector::Everything) }, 10);
    system.lock(lock(8, Selector::Task(child(9, 2))), 10);
    assert_eq!(system.sweep(7, 11), []);
    assert_eq!(system.sweep(8, 11), []);
}

#[test]
fn a_selection_of_an_operators_ends_live_leases_while_their_tasks_go_on() {
    let (mut system, [top, middle, bottom], leases) = line();
    let dead = system.lease(Terms { end: at(5), ..terms(middle, 20) }, 2);
    let reason = ReasonCode::of("asked");
    let ended = |system: &System, selector| {
        let facts = system.tree(top).end_matching(&selector, &reason, &system.control, at(10));
        let of = |fact: &Fact| match fact {
            Fact::LeasesEnded { task, leases, since: None, .. } => {
                leases.iter().map(|key| LeaseId { task: *task, key: *key }).collect::<Vec<_>>()
            }
            _ => panic!("{fact:?}"),
        };
        facts.iter().flat_map(of).collect::<Vec<_>>()
    };
    assert_eq!(ended(&system, Selector::Tool(action("r"))), leases);
    assert_eq!(ended(&system, Selector::Agent(workload("td/agents/b"))), leases[1..]);
    assert_eq!(ended(&system, Selector::Task(bottom)), leases[2..]);
    assert_eq!(ended(&system, Selector::Audience(audience("y"))), []);
    for fact in system.tree(top).end_matching(&Selector::Everything, &reason, &system.control, at(10)) {
        system.fold(&fact, top, 10);
    }
    assert!(leases.iter().chain([&dead]).all(|lease| !system.lease_lives(*lease, 10)));
    assert!([top, middle, bottom].iter().all(|task| system.task_lives(*task, 10)));
    assert_eq!(ended(&system, Selector::Everything), []);
}

#[test]
fn u1_an_ending_that_was_found_is_recorded_for_what_has_none_by_then() {
    let (mut system, [top, middle, bottom], leases) = line();
    let others = [top, middle].map(|task| system.lease(Terms { end: at(40_000), ..terms(task, 20) }, 2));
    let found = system.tree(top).expire(at(40_000));
    let of = |task| {
        let is_of = |fact: &&Fact| matches!(fact, Fact::LeasesEnded { task: of, .. } if *of == task);
        found.iter().find(is_of).cloned().unwrap()
    };
    let revoked = |lease: LeaseId| Fact::LeasesEnded {
        task: lease.task,
        leases: vec![lease.key],
        outcome: LeaseOutcome::Revoked,
        reason: ReasonCode::of("asked"),
        since: None,
    };
    let left = |system: &System, task| system.tree(top).left_of(of(task));
    assert_eq!(left(&system, top), Some(of(top)), "nothing has come meanwhile");
    system.fold(&revoked(leases[0]), top, 40_000);
    let Some(Fact::LeasesEnded { leases: last, .. }) = left(&system, top) else { panic!() };
    assert_eq!(last, [others[0].key]);
    system.fold(&revoked(others[0]), top, 40_000);
    assert_eq!(left(&system, top), None);
    let over = Fact::TaskEnded {
        task: middle,
        outcome: Outcome::Cancelled,
        reason: ReasonCode::of("asked"),
        since: None,
    };
    system.fold(&over, top, 40_000);
    assert_eq!((left(&system, middle), left(&system, bottom)), (None, None), "it ended with its task");
    assert_eq!(system.tree(top).left_of(over), None);
}

#[test]
fn a_sweep_that_comes_late_finds_everything_at_once() {
    let (mut system, [top, middle, _], _) = line();
    let reason = ReasonCode::of("done");
    system.lock(lock(7, Selector::Audience(audience("x"))), 10);
    system.lock(lock(8, Selector::Task(middle)), 10);
    // Time and somebody else were there first.
    for fact in system.tree(top).expire(at(50_000)) {
        system.fold(&fact, top, 50_000);
    }
    system.fold(
        &Fact::TaskEnded { task: middle, outcome: Outcome::Completed, reason, since: None },
        top,
        50_001,
    );
    for number in [7, 8] {
        let record = system.control.locks()[&lock_id(number)].clone();
        let found = system.tree(top).sweep(&record);
        assert!(!found.is_empty());
        for fact in &found {
            assert_eq!(system.tree(top).left_of(fact.clone()).as_ref(), Some(fact), "before it is recorded");
        }
        for fact in &found {
            system.fold(fact, top, 50_002);
            assert_eq!(system.tree(top).left_of(fact.clone()), None, "and no more then");
        }
        assert_eq!(system.tree(top).sweep(&record), []);
    }
}
