//! Each rule of a tree by itself, at its boundary.

use super::super::*;
use super::sample::*;
use super::system::System;
use crate::fact::{LeaseOutcome, Outcome};
use crate::lock::{Lock, Selector};
use crate::proof::Plan;
use crate::request::{Operation, PromptOrigin};
use crate::revision::Basis;
use crate::terms::Terms;

const ROOT: u128 = 1;

/// Three tasks, each below the one before.
fn line() -> (System, [TaskId; 3]) {
    let ids = [root(ROOT), child(ROOT, 2), child(ROOT, 3)];
    let system = System::with_line(&[
        opened(ids[0], None),
        opened(ids[1], Some(ids[0])),
        opened(ids[2], Some(ids[1])),
    ]);
    (system, ids)
}

fn ending(system: &System, lease: LeaseId, millis: u64) -> Option<(LeaseOutcome, ReasonCode, Timestamp)> {
    let ending = system.tree(lease.task).lease_ending(lease, &system.control, at(millis))?;
    Some((ending.outcome, ending.reason, ending.at))
}

#[test]
fn l3_a_task_may_end_later_than_now_and_not_at_once() {
    let system = System::default();
    let open = |issue, judge| {
        let task = opened(root(ROOT), None);
        let permit = permit_to_open(&task, &TenantName::default(), system.basis(task.id));
        Ledger::open(
            &permit,
            opening(&task),
            &system.control,
            Now { issue: at(issue), judge: at(judge), suspect: false },
        )
    };
    assert!(open(99_999, 99_999).is_ok());
    assert_eq!(open(100_000, 100_000), Err(OpenRefusal::NoTime));
    assert_eq!(open(0, 100_000), Err(OpenRefusal::NoTime), "the wall clock is ahead");
}

#[test]
fn p4_what_an_agent_says_of_a_task_of_its_own_is_recorded_as_nothing() {
    let system = System::default();
    let said = opened(root(1), None);
    let own = TaskOpened { opener: said.agent.clone(), ..said.clone() };
    for (task, expected) in [(said, Some(PromptOrigin::User)), (own, None)] {
        let Fact::TaskOpened(recorded) = system.open(&task, 0).unwrap() else { panic!("{task:?}") };
        assert_eq!(recorded.prompt_origin, expected, "and so is what is delegated from it");
    }
}

#[test]
fn l3_a_lease_may_end_with_its_task_and_not_later() {
    let (system, [id, ..]) = line();
    let ends = |end, millis| system.issue(Terms { end: at(end), ..terms(id, 9) }, millis).map(|_| ());
    assert_eq!(ends(100_000, 50_000), Ok(()));
    assert_eq!(ends(100_001, 50_000), Err(IssueRefusal::NoTime));
    assert_eq!(ends(50_001, 50_000), Ok(()));
    assert_eq!(ends(50_000, 50_000), Err(IssueRefusal::NoTime));
    let plan = system.plan(Terms { end: at(60_000), ..terms(id, 9) });
    let judged = Now { issue: at(50_000), judge: at(60_000), suspect: false };
    let answer = system.tree(id).issue(&plan, body(0), None, &system.control, judged, limits(8));
    assert_eq!(answer, Err(IssueRefusal::NoTime), "the wall clock is ahead");
}

#[test]
fn l3_everything_is_dead_at_its_end_and_lives_a_millisecond_before() {
    let (mut system, [id, ..]) = line();
    let lease = system.lease(Terms { end: at(40_000), ..terms(id, 9) }, 1);
    assert!(system.lease_lives(lease, 39_999));
    assert_eq!(ending(&system, lease, 40_000), Some((LeaseOutcome::Expired, REASON_EXPIRED, at(40_000))));
    assert!(system.task_lives(id, 99_999));
    assert!(!system.task_lives(id, 100_000));
    assert!(matches!(system.issue(terms(id, 10), 100_000), Err(IssueRefusal::TaskClosed(_))));
}

#[test]
fn d5_one_fact_ends_everything_below_and_nothing_beside() {
    let (mut system, [top, middle, bottom]) = line();
    let beside = child(ROOT, 4);
    system.fold(&Fact::TaskOpened(Arc::new(opened(beside, Some(top)))), top, 0);
    let leases = [top, middle, bottom, beside].map(|task| system.lease(terms(task, 9), 1));

    let reason = ReasonCode::of("operator_asked");
    let tree = system.tree(middle);
    let answer = tree.end(middle, Outcome::Cancelled, reason.clone(), &system.control, at(2)).unwrap();
    let End::Now(fact, 2) = answer else { panic!("{answer:?}") };
    system.fold(&fact, middle, 2);

    let live = |millis| leases.map(|lease| system.lease_lives(lease, millis));
    assert_eq!(live(2), [true, false, false, true]);
    let closed = system.tree(bottom).task_ending(bottom, &system.control, at(2)).unwrap();
    assert_eq!((closed.outcome, closed.reason, closed.at), (Outcome::Cancelled, REASON_TASK_ENDED, at(2)));
    assert_eq!(ending(&system, leases[2], 2), Some((LeaseOutcome::Revoked, REASON_TASK_ENDED, at(2))));
    let refused = system.issue(terms(bottom, 10), 3);
    assert!(matches!(refused, Err(IssueRefusal::TaskClosed(_))), "{refused:?}");
}

#[test]
fn d5_the_deadline_of_an_ancestor_ends_what_is_below() {
    let (mut system, [top, ..]) = line();
    // No delegation permits this; should one be recorded, the ancestor's deadline still rules.
    let late = child(ROOT, 4);
    let longer = TaskOpened { deadline: at(200_000), ..opened(late, Some(top)) };
    system.fold(&Fact::TaskOpened(Arc::new(longer)), top, 0);
    let lease = system.lease(Terms { end: at(150_000), ..terms(late, 9) }, 1);
    assert!(system.lease_lives(lease, 99_999));
    assert!(!system.task_lives(late, 100_000));
    assert!(!system.lease_lives(lease, 100_000));
}

#[test]
fn d5_t5_what_is_due_below_a_due_task_ends_by_one_fact() {
    let (mut system, [top, middle, _]) = line();
    system.lease(terms(middle, 9), 1);
    assert_eq!(system.tree(top).next_expiry(), Some(at(100_000)));
    let ended = Fact::TaskEnded { task: top, outcome: Outcome::Expired, reason: REASON_EXPIRED, since: None };
    assert_eq!(system.tree(top).expire(at(100_000)), std::slice::from_ref(&ended));
    system.fold(&ended, top, 100_000);
    assert_eq!(system.tree(top).expire(at(900_000)), []);
    assert_eq!(system.tree(top).next_expiry(), None);
}

#[test]
fn t5_whether_the_reaper_came_is_no_part_of_any_answer() {
    let (mut system, [top, middle, bottom]) = line();
    let short = TaskOpened { deadline: at(60_000), ..opened(child(ROOT, 4), Some(middle)) };
    system.fold(&Fact::TaskOpened(Arc::new(short)), top, 0);
    let tasks = [top, middle, bottom, child(ROOT, 4)];
    let leases = tasks.map(|task| system.lease(Terms { end: at(40_000), ..terms(task, 9) }, 1));
    let mut never = System::default();
    (never.control, never.trees) = (system.control.clone(), system.trees.clone());
    for millis in [39_999, 40_000, 59_999, 60_000, 60_001, 99_999, 100_000, 200_000] {
        let answers = |system: &System| {
            let tree = system.tree(top);
            (
                tasks.map(|task| tree.task_ending(task, &system.control, at(millis))),
                leases.map(|lease| ending(system, lease, millis)),
                tasks.map(|task| tree.leases_live(task, &system.control, at(millis))),
            )
        };
        assert_eq!(answers(&system), answers(&never), "at {millis}, before it comes");
        for fact in system.tree(top).expire(at(millis)) {
            system.fold(&fact, top, millis);
        }
        assert_eq!(answers(&system), answers(&never), "at {millis}, after it came");
    }
}

#[test]
fn l6_what_ended_once_is_not_ended_otherwise() {
    let outcomes =
        [Outcome::Completed, Outcome::Failed, Outcome::Cancelled, Outcome::Revoked, Outcome::Expired];
    for first in outcomes {
        let (mut system, [top, middle, _]) = line();
        let reason = || ReasonCode::of("asked");
        let end = |system: &System, outcome, millis| {
            system.tree(top).end(top, outcome, reason(), &system.control, at(millis))
        };
        let Ok(End::Now(fact, 0)) = end(&system, first, 5) else { panic!() };
        system.fold(&fact, top, 5);
        for second in outcomes {
            let answer = end(&system, second, 200_000);
            if first == second {
                assert_eq!(answer, Ok(End::Already));
            } else {
                let ending = Ending { outcome: first, reason: reason(), at: at(5) };
                assert_eq!(answer, Err(EndRefusal::EndedOtherwise(ending)));
            }
            // Nor by a fact that should never have been recorded.
            system.fold(
                &Fact::TaskEnded { task: top, outcome: second, reason: reason(), since: None },
                top,
                6,
            );
        }
        let below = system.tree(top).task_ending(middle, &system.control, at(200_000)).unwrap();
        assert_eq!((below.outcome, below.at), (first, at(5)));
    }
}

#[test]
fn l6_a_lease_that_was_revoked_does_not_become_expired_with_time() {
    let (mut system, [id, middle, _]) = line();
    let by_lock = system.lease(Terms { end: at(40_000), ..terms(id, 9) }, 1);
    system.lock(lock(7, Selector::Audience(audience("x"))), 10);
    let by_task = system.lease(Terms { end: at(40_000), ..terms(middle, 10) }, 11);
    let ended = Fact::TaskEnded {
        task: middle,
        outcome: Outcome::Completed,
        reason: ReasonCode::of("done"),
        since: None,
    };
    system.fold(&ended, middle, 20);
    for judge in [20, 39_999, 40_000, 100_000, 900_000] {
        let expected = Some((LeaseOutcome::Revoked, REASON_LOCKED, at(10)));
        assert_eq!(ending(&system, by_lock, judge), expected);
        let expected = Some((LeaseOutcome::Revoked, REASON_TASK_ENDED, at(20)));
        assert_eq!(ending(&system, by_task, judge), expected);
        for fact in system.tree(id).expire(at(judge)) {
            system.fold(&fact, id, judge);
        }
    }
}

#[test]
fn l4_l6_no_fact_puts_a_lease_or_a_task_in_the_place_of_another() {
    let (mut system, [id, ..]) = line();
    let lease = system.lease(terms(id, 9), 1);
    let revoked = Fact::LeasesEnded {
        task: id,
        leases: vec![lease.key],
        outcome: LeaseOutcome::Revoked,
        reason: ReasonCode::of("asked"),
        since: None,
    };
    system.fold(&revoked, id, 2);
    assert_eq!(system.issue(terms(id, 9), 3), Err(IssueRefusal::NotPermitted), "the id is taken");
    system.lease(terms(id, 9), 3);
    let otherwise = Fact::LeasesEnded {
        task: id,
        leases: vec![lease.key],
        outcome: LeaseOutcome::Undelivered,
        reason: ReasonCode::of("gone"),
        since: None,
    };
    // Even if the clock of that record had been behind.
    system.fold(&otherwise, id, 1);
    let first = Some((LeaseOutcome::Revoked, ReasonCode::of("asked"), at(2)));
    assert_eq!(ending(&system, lease, 4), first);

    system.fold(
        &Fact::TaskEnded { task: id, outcome: Outcome::Failed, reason: REASON_EXPIRED, since: None },
        id,
        5,
    );
    let again = Fact::TaskOpened(Arc::new(opened(id, None)));
    system.trees.get_mut(&id.root()).unwrap().apply(&again, &envelope(None, now(6)), Revision(99));
    assert!(!system.task_lives(id, 6));
}

#[test]
fn l8_only_the_instance_that_the_task_is_bound_to_is_issued_to() {
    let (system, [id, ..]) = line();
    let ask = |system: &System, id, instance_number, claim_digest| {
        let plan = system.plan(Terms { holder: instance(instance_number), ..terms(id, 9) });
        system.tree(id).issue(&plan, body(0), claim_digest, &system.control, now(1), limits(8))
    };
    assert!(ask(&system, id, 1, None).is_ok());
    assert_eq!(ask(&system, id, 2, None), Err(IssueRefusal::WrongHolder));
    assert_eq!(ask(&system, id, 2, Some(claim(1))), Err(IssueRefusal::WrongHolder), "no claim was given out");

    let claimed = root(20);
    let mut system =
        System::with_line(&[TaskOpened { holder: Holder::Claim(claim(1)), ..opened(claimed, None) }]);
    assert_eq!(ask(&system, claimed, 1, None), Err(IssueRefusal::WrongHolder));
    assert_eq!(ask(&system, claimed, 1, Some(claim(2))), Err(IssueRefusal::WrongHolder));
    let fact = ask(&system, claimed, 2, Some(claim(1))).unwrap();
    system.fold(&fact, claimed, 1);
    // The claim is spent: it binds the instance that brought it first, and no other.
    assert_eq!(system.tree(claimed).task(claimed).unwrap().holder(), Holder::Key(instance(2)));
    let again = |number, digest| {
        let terms = Terms { holder: instance(number), ..terms(claimed, 10) };
        let plan = system.plan(terms);
        system.tree(claimed).issue(&plan, body(0), digest, &system.control, now(2), limits(8))
    };
    assert_eq!(again(1, Some(claim(1))), Err(IssueRefusal::WrongHolder));
    assert!(again(2, None).is_ok());
}

#[test]
fn l9_a_request_is_recalled_as_long_as_its_task_and_by_its_task_alone() {
    let (mut system, [id, other, _]) = line();
    let tenant = TenantName::default();
    let name = request_id("r1");
    let fact = Fact::LeaseIssued { terms: Arc::new(terms(id, 9)), body: body(1), renews: None };
    assert_eq!(system.tree(id).recall(id, &name, &body(1)), Recall::New);
    system.record(&fact, Some((id, &tenant)), Some(name.clone()), now(1));
    let ended = Fact::TaskEnded { task: id, outcome: Outcome::Failed, reason: REASON_EXPIRED, since: None };
    for fact in [Fact::Stopped, ended] {
        system.fold(&fact, id, 2);
        let tree = system.tree(id);
        assert_eq!(tree.recall(id, &name, &body(1)), Recall::Same(lease_key(9)));
        assert_eq!(tree.recall(id, &name, &body(2)), Recall::Other);
        assert_eq!(tree.recall(id, &request_id("r2"), &body(1)), Recall::New);
        assert_eq!(tree.recall(other, &name, &body(1)), Recall::New);
    }
}

#[test]
fn l11_the_quota_counts_what_lives_and_nothing_else() {
    let (mut system, [id, other, _]) = line();
    let ask = |system: &System, millis| {
        let plan = system.plan(terms(id, 99));
        system.tree(id).issue(&plan, body(0), None, &system.control, now(millis), limits(2)).map(|_| ())
    };
    let short = system.lease(Terms { end: at(50), ..terms(id, 1) }, 1);
    system.lease(terms(other, 2), 1);
    assert_eq!(ask(&system, 2), Ok(()), "another task's leases are not counted");
    let long = system.lease(terms(id, 3), 2);
    assert_eq!(ask(&system, 49), Err(IssueRefusal::Quota(2)));
    assert_eq!(ask(&system, 50), Ok(()), "one is past its end, though nobody recorded it");
    system.lease(terms(id, 4), 50);
    assert_eq!(ask(&system, 51), Err(IssueRefusal::Quota(2)));
    let answer = system.tree(id).end_lease(
        long,
        LeaseOutcome::Undelivered,
        ReasonCode::of("gone"),
        &system.control,
        at(52),
    );
    let Ok(End::Now(fact, 1)) = answer else { panic!("{answer:?}") };
    system.fold(&fact, id, 52);
    assert_eq!(ask(&system, 53), Ok(()));
    assert!(!system.lease_lives(short, 53) && !system.lease_lives(long, 53));
}

#[test]
fn t4_t6_a_decision_from_before_a_change_is_a_conflict() {
    let (mut system, [id, ..]) = line();
    let decided = system.plan(terms(id, 9));
    let issue = |system: &System, plan: &Plan| {
        system.tree(id).issue(plan, body(0), None, &system.control, now(3), limits(8)).map(|_| ())
    };
    assert_eq!(issue(&system, &decided), Ok(()));

    system.record(&configuration(), None, None, now(1));
    assert_eq!(issue(&system, &decided), Err(IssueRefusal::Conflict), "the policies changed");
    let decided = system.plan(terms(id, 9));
    system.lock(lock(7, Selector::Tool(action("nothing.of.ours"))), 2);
    assert_eq!(issue(&system, &decided), Err(IssueRefusal::Conflict), "a lock was created");
    let decided = system.plan(terms(id, 9));
    system.lift(7, 2);
    assert_eq!(issue(&system, &decided), Err(IssueRefusal::Conflict), "a lock was lifted");
    let decided = system.plan(terms(id, 9));
    system.lease(terms(id, 8), 2);
    assert_eq!(issue(&system, &decided), Err(IssueRefusal::Conflict), "the tree changed");
    assert_eq!(issue(&system, &system.plan(terms(id, 9))), Ok(()));

    // Notes conflict with nothing.
    let decided = system.plan(terms(id, 9));
    system.record(&Fact::Stopped, None, None, now(2));
    let denied = Fact::Denied {
        operation: crate::fact::DeniedOperation::Operation(Operation::IssueCredential),
        reason: ReasonCode::of("no_policy"),
        cause: None,
        uid: None,
    };
    system.fold(&denied, id, 2);
    assert_eq!(issue(&system, &decided), Ok(()));

    let task = opened(root(50), None);
    let open = |basis| {
        let permit = permit_to_open(&task, &TenantName::default(), basis);
        Ledger::open(&permit, opening(&task), &system.control, now(3)).map(|_| ())
    };
    let fresh = system.basis(task.id);
    assert_eq!(open(fresh), Ok(()));
    assert_eq!(open(Basis { tree: Revision(1), ..fresh }), Err(OpenRefusal::Conflict));
    assert_eq!(open(Basis { control: Revision(1), ..fresh }), Err(OpenRefusal::Conflict));
}

#[test]
fn t6_a_lock_kills_at_once_and_for_ever_and_its_end_only_permits_new_issue() {
    let (mut system, [id, ..]) = line();
    let before = system.lease(terms(id, 1), 1);
    let until = Lock { until: Some(at(20)), ..lock(7, Selector::Key(key_id("k1"))) };
    system.lock(until, 10);
    assert!(!system.lease_lives(before, 10));
    assert_eq!(system.issue(terms(id, 2), 19), Err(IssueRefusal::Locked(lock_id(7))));
    assert!(system.issue(terms(id, 2), 20).is_ok(), "a lock has ended at its end");
    let between = system.lease(terms(id, 2), 20);
    assert!(system.lease_lives(between, 20));
    assert!(!system.lease_lives(before, 20));

    system.lock(lock(8, Selector::Key(key_id("k1"))), 30);
    assert!(!system.lease_lives(between, 30));
    assert_eq!(system.issue(terms(id, 3), 31), Err(IssueRefusal::Locked(lock_id(8))));
    system.lift(8, 40);
    assert!(system.issue(terms(id, 3), 41).is_ok());
    let after = system.lease(terms(id, 3), 41);
    assert!(system.lease_lives(after, 42));
    assert!(!system.lease_lives(before, 42) && !system.lease_lives(between, 42));

    // Its id recorded twice, the second time for something else, forgives nothing.
    system.lock(lock(8, Selector::Key(key_id("k9"))), 50);
    assert!(!system.lease_lives(between, 51));
    system.assert_is_replayed(3);
}

#[test]
fn t6_a_locked_task_is_dead_for_ever_and_another_may_be_opened_after() {
    let (mut system, [top, middle, bottom]) = line();
    let lease = system.lease(terms(bottom, 1), 1);
    system.lock(lock(7, Selector::Agent(workload("td/agents/a"))), 10);
    let other = opened(root(20), None);
    assert_eq!(system.open(&other, 11), Err(OpenRefusal::Locked(lock_id(7))));
    system.lift(7, 20);
    for task in [top, middle, bottom] {
        let ending = system.tree(task).task_ending(task, &system.control, at(21)).unwrap();
        assert_eq!((ending.outcome, ending.reason, ending.at), (Outcome::Revoked, REASON_LOCKED, at(10)));
    }
    assert!(!system.lease_lives(lease, 21));
    let fact = system.open(&other, 21).unwrap();
    system.fold(&fact, other.id, 21);
    assert!(system.task_lives(other.id, 22));

    let asked = |outcome| system.tree(top).end(top, outcome, REASON_LOCKED, &system.control, at(23));
    assert_eq!(asked(Outcome::Revoked), Ok(End::Already));
    assert!(matches!(asked(Outcome::Completed), Err(EndRefusal::EndedOtherwise(_))));
}

#[test]
fn d5_a_task_recorded_below_a_locked_one_is_dead() {
    let (mut system, [top, ..]) = line();
    system.lock(lock(7, Selector::Task(top)), 10);
    let late = child(ROOT, 4);
    system.fold(&Fact::TaskOpened(Arc::new(opened(late, Some(top)))), top, 11);
    let lease = system.lease(terms(late, 9), 12);
    assert!(!system.task_lives(late, 13));
    assert!(!system.lease_lives(lease, 13));
}

#[test]
fn what_is_permitted_is_what_is_issued() {
    let (system, [id, other, _]) = line();
    let tree = system.tree(id);
    let facts = || task_facts(tree.task(id).unwrap().opened());
    let basis = system.basis(id);
    let issue = |ask, terms: Terms| {
        let permit = permit(ask, &workload("td/agents/a"), tree.tenant(), basis, policy(1));
        let plan = Plan::drawn(permit, terms);
        tree.issue(&plan, body(0), None, &system.control, now(1), limits(8)).map(|_| ())
    };
    let asked = terms(id, 9);
    let ask = |facts| ask_for(&asked, None, facts);
    assert_eq!(issue(ask(facts()), asked.clone()), Ok(()));
    let refused = Err(IssueRefusal::NotPermitted);
    let scope = || asked.scope().unwrap().clone();
    assert_eq!(issue(Ask::CreateTask(context(facts(), scope())), asked.clone()), refused);
    assert_eq!(issue(ask(facts()), terms(other, 9)), refused);
    let nowhere = TaskFacts { id: child(ROOT, 77), ..facts() };
    assert_eq!(issue(ask(nowhere), terms(child(ROOT, 77), 9)), Err(IssueRefusal::NoTask));
    for given in [
        Terms { holder: instance(9), ..asked.clone() },
        Terms { policy: policy(9), ..asked.clone() },
        terms_for(id, 9, &["x a/b w"]),
        terms_for(id, 9, &["y a/b r"]),
        svid(asked.clone()),
        jwt_svid(asked.clone(), "x"),
    ] {
        assert_eq!(issue(ask(facts()), given.clone()), refused, "{given:?}");
    }
    let for_x = jwt_svid(asked.clone(), "x");
    assert_eq!(issue(ask_for(&for_x, None, facts()), for_x.clone()), Ok(()));
    for other in [jwt_svid(asked.clone(), "y"), asked.clone(), svid(asked.clone())] {
        assert_eq!(issue(ask_for(&for_x, None, facts()), other), refused);
    }
    let nowhere = jwt_svid(asked.clone(), "z");
    assert_eq!(issue(ask_for(&nowhere, None, facts()), nowhere.clone()), Err(IssueRefusal::Widens));
    let identity = svid(asked.clone());
    let another = svid(Terms { holder: instance(9), ..asked.clone() });
    assert_eq!(issue(ask_for(&identity, None, facts()), identity.clone()), Ok(()));
    let key_of_another = Terms { holder: identity.holder, ..another };
    assert_eq!(issue(ask_for(&identity, None, facts()), key_of_another), refused);
    let wider = terms_for(id, 9, &["x b r"]);
    assert_eq!(issue(ask_for(&wider, None, facts()), wider.clone()), Err(IssueRefusal::Widens));

    let open = |ask, task: &TaskOpened| {
        let tenant = TenantName::default();
        let permit = permit(ask, &task.opener, &tenant, system.basis(task.id), policy(1));
        Ledger::open(&permit, opening(task), &system.control, now(1)).map(|_| ())
    };
    let create = |task: &TaskOpened| Ask::CreateTask(context(task_facts(task), task.scope.clone()));
    let task = opened(root(20), None);
    assert_eq!(open(create(&task), &task), Ok(()));
    let credential = ask_for(&terms(task.id, 9), None, task_facts(&task));
    assert_eq!(open(credential, &task), Err(OpenRefusal::NotPermitted));
    for wrong in [opened(child(20, 2), None), TaskOpened { depth: 1, ..task }] {
        assert_eq!(open(create(&wrong), &wrong), Err(OpenRefusal::NotPermitted));
    }
}

#[test]
fn what_is_not_there_is_not_found_and_facts_of_another_tree_change_nothing() {
    let (system, [id, ..]) = line();
    let tree = system.tree(id);
    let stranger = root(99);
    let lease = LeaseId { task: stranger, key: lease_key(1) };
    let reason = || ReasonCode::of("asked");
    let (control, judge) = (&system.control, at(1));
    let not_found = Err(EndRefusal::NotFound);
    let same_node = TaskId::child_of(stranger.root(), id.node()).unwrap();
    assert!(tree.task(same_node).is_none(), "another tree's task with that part of an id");
    assert_eq!(tree.end(same_node, Outcome::Failed, reason(), control, judge), not_found);
    assert_eq!(tree.end(stranger, Outcome::Failed, reason(), control, judge), not_found);
    assert_eq!(tree.end_lease(lease, LeaseOutcome::Revoked, reason(), control, judge), not_found);
    assert_eq!(tree.recall(stranger, &request_id("r"), &body(1)), Recall::New);
    assert_eq!(tree.facts(stranger, control, now(1)), None);
    assert_eq!(tree.leases_live(stranger, control, judge), 0);
    assert_eq!(tree.path(stranger).count(), 0);
    assert!(!tree.is_owner(stranger, &workload("td/orchestrator")));

    for fact in [
        Fact::TaskOpened(Arc::new(opened(stranger, None))),
        Fact::TaskEnded { task: same_node, outcome: Outcome::Failed, reason: reason(), since: None },
        Fact::LeaseIssued { terms: Arc::new(terms(same_node, 1)), body: body(1), renews: None },
        Fact::LeasesEnded {
            task: same_node,
            leases: vec![lease_key(1)],
            outcome: LeaseOutcome::Revoked,
            reason: reason(),
            since: None,
        },
    ] {
        let mut after = tree.clone();
        after.apply(&fact, &envelope(None, now(2)), Revision(99));
        assert_eq!(after, *tree, "{fact:?}");
    }
}
