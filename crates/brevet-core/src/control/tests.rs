use proptest::prelude::*;

use super::*;
use crate::fact::{Outcome, ReasonCode};
use crate::ledger::tests::sample::*;
use crate::lock::{Lock, Selector};
use crate::request::Operation;

fn lifted(number: u128) -> Fact {
    Fact::LockLifted { lock: lock_id(number), proposer: None, confirmers: Vec::new() }
}

#[test]
fn t6_what_binds_every_tree_moves_the_control_revision_and_nothing_else_does() {
    let mut control = Control::default();
    let swept = Fact::LockSwept { lock: lock_id(1), tasks: 1, leases: 1 };
    let created = Fact::LockCreated(lock(1, Selector::Everything));
    let moving = [configuration(), created, swept, lifted(1), lifted(2)];
    for (fact, revision) in moving.iter().zip([3, 5, 7, 8, 9]) {
        control.apply(fact, Revision(revision), now(0));
        assert_eq!(control.revision(), Revision(revision), "{fact:?}");
    }
    let before = control.clone();
    let task = root(1);
    let denied = crate::fact::DeniedOperation::Operation(Operation::CreateTask);
    for fact in [
        Fact::TaskOpened(opened(task, None).into()),
        Fact::TaskEnded { task, outcome: Outcome::Failed, reason: ReasonCode::of("asked"), since: None },
        Fact::LeaseIssued { terms: terms(task, 9).into(), body: body(1), renews: None },
        Fact::Denied { operation: denied, reason: ReasonCode::of("asked"), cause: None, uid: None },
        Fact::Started { version: "1".into(), replayed: Revision(9), clock_behind: false },
        Fact::SnapshotTaken { revision: Revision(9), digest: crate::digest::StateDigest::of(&[]) },
        Fact::RootSocketUsed { uid: 0, method: "LiftLock".into() },
        Fact::DenialsUnrecorded { class: crate::fact::DenialClass::Denied, count: 9 },
        Fact::Stopped,
    ] {
        control.apply(&fact, Revision(20), now(0));
        assert_eq!(control, before, "{fact:?}");
    }
}

#[test]
fn what_was_loaded_last_is_in_force() {
    let mut control = Control::default();
    assert_eq!((control.policy(), control.registry()), (None, None));
    control.apply(&configuration(), Revision(1), now(0));
    let registry = RegistryDigest::of(&[b"another"]);
    let fact = Fact::ConfigurationLoaded {
        policy: policy(2),
        registry,
        trust: TrustDigest::of(&[]),
        proposer: None,
        confirmers: Vec::new(),
    };
    control.apply(&fact, Revision(2), now(0));
    assert_eq!((control.policy(), control.registry()), (Some(policy(2)), Some(registry)));
}

#[test]
fn t6_a_lock_forbids_issue_while_it_is_in_force_and_kills_what_came_before_for_ever() {
    let lock = Lock { until: Some(at(20)), ..lock(1, Selector::Audience(audience("x"))) };
    let terms = terms(root(1), 9);
    let tenant = TenantName::default();
    let mut control = Control::default();
    control.apply(&Fact::LockCreated(lock), Revision(5), now(10));
    let forbids = |control: &Control, judge| control.lock_on_issue(&tenant, &terms, at(judge)).is_some();
    let kills =
        |control: &Control, issued| control.lock_on_terms(&tenant, &terms, Revision(issued)).is_some();
    assert!(forbids(&control, 19) && !forbids(&control, 20));
    assert!(kills(&control, 4) && !kills(&control, 5) && !kills(&control, 6));
    control.apply(&lifted(1), Revision(6), now(12));
    assert!(!forbids(&control, 13));
    assert!(kills(&control, 4) && !kills(&control, 5));
    assert_eq!(control.locks()[&lock_id(1)].lifted, Some(at(12)));
}

#[test]
fn t6_a_lock_on_a_task_forbids_to_open_it_and_kills_it_if_it_was_open() {
    let opened = opened(root(1), None);
    let hop = || {
        std::iter::once(Hop {
            node: opened.id.node(),
            agent: &opened.agent,
            delegator: &opened.delegator,
            opener: &opened.opener,
        })
    };
    let tenant = TenantName::default();
    let mut control = Control::default();
    let lock = lock(1, Selector::Agent(workload("td/agents/a")));
    control.apply(&Fact::LockCreated(lock), Revision(5), now(10));
    let killed = |control: &Control, opened_at| {
        control.lock_on_task(&tenant, opened.id, Revision(opened_at), hop).map(|record| record.created)
    };
    assert_eq!(killed(&control, 4), Some(Revision(5)));
    assert_eq!(killed(&control, 5), None);
    assert!(control.lock_on_opening(&tenant, opened.id, at(11), hop).is_some());
    control.apply(&lifted(1), Revision(6), now(12));
    assert!(control.lock_on_opening(&tenant, opened.id, at(12), hop).is_none());
    assert_eq!(killed(&control, 4), Some(Revision(5)));
}

#[test]
fn l6_the_first_of_several_locks_is_the_one_that_killed() {
    let terms = terms(root(1), 9);
    let tenant = TenantName::default();
    let mut control = Control::default();
    for (number, revision) in [(9, 5), (1, 6)] {
        let lock = lock(number, Selector::Audience(audience("x")));
        control.apply(&Fact::LockCreated(lock), Revision(revision), now(revision));
    }
    let killed = control.lock_on_terms(&tenant, &terms, Revision(4)).map(|record| record.created_at);
    assert_eq!(killed, Some(at(5)));
}

#[test]
fn t6_w6_what_a_lock_binds_is_settled_where_its_sweep_is_reached() {
    let [north, south] = ["north", "south"].map(tenant);
    let settled = |control: &Control, revision| {
        let settled = control.settled(Revision(revision));
        [settled(&north), settled(&south)]
    };
    let swept = |number| Fact::LockSwept { lock: lock_id(number), tasks: 0, leases: 0 };
    let mut control = Control::default();
    let of_north = Lock { tenant: Some(north.clone()), ..lock(1, Selector::Everything) };
    control.apply(&Fact::LockCreated(of_north), Revision(5), now(0));
    assert_eq!(settled(&control, 4), [true, true], "it had not come yet");
    assert_eq!(settled(&control, 5), [false, true]);
    control.apply(&swept(1), Revision(8), now(0));
    assert_eq!([7, 8].map(|revision| settled(&control, revision)), [[false, true], [true, true]]);
    // Nor when it is forgotten.
    control.apply(&lifted(1), Revision(9), now(0));
    assert!(control.locks().is_empty());
    assert_eq!([7, 8].map(|revision| settled(&control, revision)), [[false, true], [true, true]]);

    control.apply(&Fact::LockCreated(lock(2, Selector::Everything)), Revision(10), now(0));
    assert_eq!([9, 10].map(|revision| settled(&control, revision)), [[true, true], [false, false]]);
    control.apply(&swept(2), Revision(12), now(0));
    assert_eq!([11, 12].map(|revision| settled(&control, revision)), [[false, false], [true, true]]);
}

proptest! {
    /// Whatever was locked, swept and lifted, and wherever the durable head is.
    #[test]
    fn t6_w6_settled_means_that_every_lock_up_to_there_was_swept_by_then(
        steps in prop::collection::vec((0..6_u128, 0..3_u8), 1..40),
    ) {
        let tenants = ["north", "south"].map(tenant);
        // Locks 0 and 3 are for all tenants.
        let of = |number: u128| (!number.is_multiple_of(3)).then(|| tenants[usize::from(number % 3 == 1)].clone());
        let mut control = Control::default();
        let mut locks = BTreeMap::<u128, (Revision, Option<Revision>)>::new();
        for (revision, (number, step)) in (1..).map(Revision).zip(&steps) {
            let fact = match step {
                0 if !locks.contains_key(number) => {
                    locks.insert(*number, (revision, None));
                    Fact::LockCreated(Lock { tenant: of(*number), ..lock(*number, Selector::Everything) })
                }
                1 if locks.get(number).is_some_and(|(_, swept)| swept.is_none()) => {
                    locks.entry(*number).and_modify(|(_, swept)| *swept = Some(revision));
                    Fact::LockSwept { lock: lock_id(*number), tasks: 0, leases: 0 }
                }
                _ => lifted(*number),
            };
            control.apply(&fact, revision, now(0));
        }
        let newest = u64::try_from(steps.len()).unwrap();
        for head in (0..=newest).map(Revision) {
            let settled = control.settled(head);
            for tenant in &tenants {
                let binding = || locks.iter().filter(|(number, _)| of(**number).is_none_or(|it| it == *tenant));
                let up_to_head = |it: Revision| it <= head;
                let is_told = binding().all(|(_, (created, swept))| {
                    !up_to_head(*created) || swept.is_some_and(up_to_head)
                });
                prop_assert!(is_told || !settled(tenant), "{tenant:?} at {head}");
                // And it is settled at the newest revision as soon as it can be.
                prop_assert!(head.0 < newest || is_told == settled(tenant), "{tenant:?} waits for nothing");
            }
        }
    }
}

/// A control in which the locks of these numbers were created at 10, swept and then lifted at 20.
fn with_lifted(numbers: impl Iterator<Item = u128>, tenant_name: Option<&str>) -> Control {
    let mut control = Control::default();
    for number in numbers {
        let lock = Lock { tenant: tenant_name.map(tenant), ..lock(number, Selector::Everything) };
        for (fact, millis) in [
            (Fact::LockCreated(lock), 10),
            (Fact::LockSwept { lock: lock_id(number), tasks: 0, leases: 0 }, 11),
            (lifted(number), 20),
        ] {
            control.apply(&fact, control.revision().next(), now(millis));
        }
    }
    control
}

#[test]
fn l9_a_lock_that_is_over_is_found_for_a_day_and_matched_no_more() {
    let day = LOCK_KEPT.as_millis() as u64;
    let kept = |control: &Control| (control.lock(lock_id(1)).is_some(), control.locks().len());
    let after = |control: &Control, millis, suspect| {
        let mut control = control.clone();
        control.apply(&configuration(), Revision(9), Now { suspect, ..now(millis) });
        control
    };
    let control = with_lifted(1..2, None);
    assert_eq!(control.lock(lock_id(1)).unwrap().lifted, Some(at(20)));
    assert_eq!(kept(&after(&control, 19 + day, false)), (true, 0));
    assert_eq!(kept(&after(&control, 20 + day, true)), (true, 0), "a clock in doubt is not believed");
    assert_eq!(kept(&after(&control, 20 + day, false)), (false, 0));

    // Created and lifted once more, it is what it was.
    let mut again = control.clone();
    for fact in [Fact::LockCreated(lock(1, Selector::Key(key_id("k9")))), lifted(1)] {
        again.apply(&fact, again.revision().next(), now(500));
    }
    assert_eq!((again.locks(), again.past()), (control.locks(), control.past()));

    // By itself it is over at its end, and not when somebody notices.
    let until = Lock { until: Some(at(20)), ..lock(1, Selector::Everything) };
    let mut control = Control::default();
    control.apply(&Fact::LockCreated(until), Revision(1), now(10));
    control.apply(&Fact::LockSwept { lock: lock_id(1), tasks: 0, leases: 0 }, Revision(2), now(500));
    assert_eq!(kept(&control), (true, 0));
    assert_eq!(kept(&after(&control, 20 + day, false)), (false, 0));
}

#[test]
fn of_more_past_locks_of_one_tenant_than_are_kept_the_oldest_is_forgotten() {
    let first = LOCKS_KEPT_MAX as u128;
    // Their ids go down as they grow younger.
    let mut control = with_lifted((1..=first).rev(), Some("north"));
    assert!(control.past().len() == LOCKS_KEPT_MAX && control.lock(lock_id(first)).is_some());
    for (number, tenant_name, is_forgotten) in
        [(first + 1, Some("south"), false), (first + 2, None, false), (first + 3, Some("north"), true)]
    {
        for fact in [
            Fact::LockCreated(Lock { tenant: tenant_name.map(tenant), ..lock(number, Selector::Everything) }),
            lifted(number),
            Fact::LockSwept { lock: lock_id(number), tasks: 0, leases: 0 },
        ] {
            control.apply(&fact, control.revision().next(), now(30));
        }
        assert_eq!(control.lock(lock_id(first)).is_none(), is_forgotten, "{tenant_name:?}");
    }
    assert_eq!(control.past().len(), LOCKS_KEPT_MAX + 2);
    assert!(control.lock(lock_id(first - 1)).is_some());
}
