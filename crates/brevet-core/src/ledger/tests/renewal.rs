//! Renewal at each of its boundaries: a new decision and a new lease, which permits nothing that the other did not.

use super::super::*;
use super::sample::*;
use super::system::System;
use crate::fact::LeaseOutcome;
use crate::lock::Selector;
use crate::terms::{Content, Terms};

const TASK: u128 = 1;

/// A task whose instance holds a token and an X.509-SVID until 40 s.
fn holding() -> (System, TaskId, [LeaseId; 2]) {
    let task = root(TASK);
    let mut system = System::with_line(&[opened(task, None), opened(child(TASK, 2), Some(task))]);
    let token = Terms { end: at(40_000), ..terms_for(task, 8, &["x a/** r"]) };
    let identity = svid(Terms { end: at(40_000), ..terms(task, 9) });
    let leases = [token, identity].map(|terms| system.lease(terms, 1));
    (system, task, leases)
}

#[test]
fn l5_renewal_never_widens() {
    let (system, task, [token, identity]) = holding();
    let renew = |key, terms: Terms| system.renew(key, terms, 10).map(|_| ());
    for within in [&["x a/** r"][..], &["x a/b r"], &["x a/b r", "x a/c/** r"]] {
        assert_eq!(renew(token.key, terms_for(task, 20, within)), Ok(()), "{within:?}");
    }
    // Each of these lies within the task, and would be issued.
    for wider in [&["x a/** w"][..], &["x a/** r,w"], &["x a/b r", "x a/c w"], &["y a/** r"]] {
        let terms = terms_for(task, 20, wider);
        assert!(system.issue(terms.clone(), 10).is_ok());
        assert_eq!(renew(token.key, terms), Err(IssueRefusal::Widens), "{wider:?}");
    }
    let (as_token, as_identity) = (terms_for(task, 20, &["x a/** r"]), svid(terms(task, 20)));
    assert_eq!(renew(identity.key, as_identity.clone()), Ok(()));
    let mut renamed = as_identity.clone();
    let Content::X509Svid(other) = &mut renamed.content else { panic!() };
    other.spiffe_id = workload("broker/agent/td/agents/b");
    assert_eq!(renew(identity.key, renamed), Err(IssueRefusal::Widens), "another identity");
    assert_eq!(renew(identity.key, as_token.clone()), Err(IssueRefusal::Widens));
    assert_eq!(renew(token.key, as_identity), Err(IssueRefusal::Widens));
    let for_audience = |name| jwt_svid(terms(task, 20), name);
    for renewed in [token.key, identity.key] {
        assert_eq!(renew(renewed, for_audience("x")), Err(IssueRefusal::Widens), "of another form");
    }
    let outlives = Terms { end: at(100_001), ..as_token };
    assert_eq!(renew(token.key, outlives), Err(IssueRefusal::NoTime));
}

#[test]
fn l5_an_identity_for_an_audience_is_renewed_for_that_one_alone() {
    let (mut system, task, _) = holding();
    let lease = system.lease(jwt_svid(Terms { end: at(40_000), ..terms(task, 10) }, "x"), 1);
    let again = |name| jwt_svid(terms(task, 20), name);
    let renew = |terms: Terms| system.renew(lease.key, terms, 10).map(|_| ());
    assert_eq!(renew(again("x")), Ok(()));
    assert!(system.issue(again("y"), 10).is_ok(), "it would be issued");
    assert_eq!(renew(again("y")), Err(IssueRefusal::Widens));
    assert_eq!(renew(terms_for(task, 20, &["x a/b r"])), Err(IssueRefusal::Widens));
    let mut renamed = again("x");
    let Content::JwtSvid(other) = &mut renamed.content else { panic!() };
    other.spiffe_id = workload("broker/agent/td/agents/b");
    assert_eq!(renew(renamed), Err(IssueRefusal::Widens), "another identity");
}

#[test]
fn l5_a_lease_is_renewed_for_its_own_holder_while_it_lives() {
    let (mut system, task, [token, identity]) = holding();
    let again = terms_for(task, 20, &["x a/b r"]);
    let strangers = Terms { holder: instance(2), ..again.clone() };
    assert_eq!(system.renew(token.key, strangers, 10), Err(IssueRefusal::WrongHolder));
    assert_eq!(system.renew(lease_key(99), again.clone(), 10), Err(IssueRefusal::NoLease));
    let elsewhere = terms_for(child(TASK, 2), 20, &["x a/b r"]);
    assert_eq!(system.renew(token.key, elsewhere, 10), Err(IssueRefusal::NoLease), "another task's");

    assert!(system.renew(token.key, again.clone(), 39_999).is_ok());
    assert_eq!(system.renew(token.key, again.clone(), 40_000), Err(IssueRefusal::LeaseEnded));
    system.lock(lock(7, Selector::Audience(audience("x"))), 20);
    system.lift(7, 21);
    assert_eq!(system.renew(token.key, again.clone(), 22), Err(IssueRefusal::LeaseEnded), "it was locked");
    let revoked = Fact::LeasesEnded {
        task,
        leases: vec![identity.key],
        outcome: LeaseOutcome::Revoked,
        reason: ReasonCode::of("asked"),
        since: None,
    };
    system.fold(&revoked, task, 30);
    let identity_again = svid(terms(task, 20));
    assert_eq!(system.renew(identity.key, identity_again, 31), Err(IssueRefusal::LeaseEnded));
    assert!(system.issue(again, 31).is_ok(), "what is asked for anew is decided anew");
}

/// The other lease goes on: its holder may not have got the new one.
#[test]
fn l5_a_renewal_names_the_lease_that_it_replaces_and_ends_nothing() {
    let (mut system, task, [token, _]) = holding();
    let again = terms_for(task, 20, &["x a/b r"]);
    let fact = system.renew(token.key, again.clone(), 10).unwrap();
    let expected = Fact::LeaseIssued { terms: Arc::new(again), body: body(0), renews: Some(token.key) };
    assert_eq!(fact, expected);
    system.fold(&fact, task, 10);
    let lease = LeaseId { task, key: lease_key(20) };
    assert_eq!(system.tree(task).lease(lease).unwrap().renews(), Some(token.key));
    assert_eq!(system.tree(task).lease(token).unwrap().renews(), None);
    assert!(system.lease_lives(token, 11) && system.lease_lives(lease, 11));
    assert!(!system.lease_lives(token, 40_000) && system.lease_lives(lease, 40_000));
    system.assert_is_replayed(2);
}

#[test]
fn a_task_is_given_so_many_leases_in_all_its_life() {
    let (mut system, task, _) = holding();
    let ask = |system: &System, issued_max| {
        let plan = system.plan(terms(task, 99));
        let limits = LeaseLimits { live_max: 8, issued_max };
        let answer = system.tree(task).issue(&plan, body(0), None, &system.control, now(50_000), limits);
        answer.map(|_| ())
    };
    assert_eq!(ask(&system, 3), Ok(()));
    assert_eq!(ask(&system, 2), Err(IssueRefusal::IssuedQuota(2)), "the dead count");
    for fact in system.tree(task).expire(at(50_000)) {
        system.fold(&fact, task, 50_000);
    }
    assert_eq!(system.tree(task).task(task).unwrap().leases_issued(), 2);
    assert_eq!(ask(&system, 2), Err(IssueRefusal::IssuedQuota(2)), "whose ending is recorded too");
}
