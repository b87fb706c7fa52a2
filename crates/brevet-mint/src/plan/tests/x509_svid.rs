//! Terms of X.509-SVIDs.

use brevet_core::public_key::PublicKey;

use super::*;
use crate::fixture::{own, public_key, thumbprint};

fn form(request: &mut Request) -> (&mut TrustDomain, &mut PublicKey) {
    match &mut credential(request).form {
        FormFacts::X509Svid { trust_domain, public_key, .. } => (trust_domain, public_key),
        other => panic!("{other:?}"),
    }
}

fn svid_request() -> Request {
    let (mut request, public_key) = (request(), public_key(false, 7));
    let credential = credential(&mut request);
    credential.holder = thumbprint(&public_key);
    credential.form = FormFacts::X509Svid { trust_domain: own(), public_key, ignored_attributes: false };
    request
}

fn draw_svid(edit: impl FnOnce(&mut Request, &mut Draft)) -> Result<Plan, PlanError> {
    draw(|request, draft| {
        *request = svid_request();
        edit(request, draft);
    })
}

#[test]
fn an_svid_names_the_agent_and_every_task_from_the_root_and_permits_nothing() {
    let authority = authority();
    let planner = planner_under(&authority, LIFETIME_MAX);
    for request in [svid_request(), renewal(svid_request())] {
        let plan = planner.draw(permit(request, None), draft(), Now::at(NOW)).unwrap();
        let spiffe_id = format!("spiffe://broker.example/agent/td.example/agent/b/task/{}/{}", id(1), id(2));
        let expected = Terms {
            id: LeaseId { task: task(&mut svid_request()).id, key: LeaseKey(id(3)) },
            key_id: authority.key_id().clone(),
            issued_at: Timestamp::from_seconds(1_800_000_000),
            end: Timestamp::from_seconds(1_800_000_300),
            holder: thumbprint(&public_key(false, 7)),
            policy: PolicyDigest::from_bytes([5; 32]),
            content: Content::X509Svid(X509Svid {
                spiffe_id: spiffe_id.parse().unwrap(),
                public_key: public_key(false, 7),
            }),
        };
        assert_eq!(**plan.terms(), expected);
        assert_eq!((plan.terms().audience(), plan.terms().scope()), (None, None));
    }
}

#[test]
fn none_of_the_brokers_own_keys_is_certified_for_a_holder() {
    let key = KeyId::parse(&thumbprint(&public_key(false, 7)).to_string()).unwrap();
    let other = || KeyId::parse("kid").unwrap();
    let jwt_svids = || KeyId::parse("jwt-svid-kid").unwrap();
    let planner = |token_key| Planner::new(ISSUER.into(), token_key, jwt_svids(), &authority(), LIFETIME_MAX);
    let draw =
        |planner: &Planner| planner.draw(permit(svid_request(), None), draft(), Now::at(NOW)).map(|_| ());
    assert_eq!(draw(&planner(other())), Ok(()));
    assert_eq!(draw(&planner(key.clone())), Err(PlanError::HolderKey));
    let of_jwt_svids = Planner::new(ISSUER.into(), other(), key.clone(), &authority(), LIFETIME_MAX);
    assert_eq!(draw(&of_jwt_svids), Err(PlanError::HolderKey));
    assert_eq!(draw(&planner(other()).knowing_own_keys([other(), key])), Err(PlanError::HolderKey));
}

#[test]
fn l3_each_bound_of_an_svid_holds_alone() {
    let start = NOW.floor_to_second();
    let authority = authority();
    let end = |now: Timestamp, requested, policy: Option<u64>, configured, deadline: Timestamp| {
        let mut request = svid_request();
        credential(&mut request).lifetime_seconds = requested;
        let permit = permit(request, policy.map(Duration::from_secs));
        let lifetime_max = Duration::from_secs(configured);
        let planner = planner_under(&authority, lifetime_max);
        let plan = planner.draw(permit, Draft { deadline, ..draft() }, Now::at(now));
        plan.map(|plan| plan.terms().end.since(now.floor_to_second()).as_secs())
    };
    let never = draft().deadline.after(Duration::from_secs(400 * 86_400));
    assert_eq!(end(NOW, 7, Some(900), 900, never), Ok(7));
    assert_eq!(end(NOW, u64::MAX, Some(8), 900, never), Ok(8));
    assert_eq!(end(NOW, 900, None, 9, never), Ok(9));
    assert_eq!(end(NOW, u64::MAX, None, u64::MAX, never), Ok(LIFETIME_MAX.as_secs()));
    assert_eq!(end(NOW, 900, None, 900, start.after(Duration::from_secs(10))), Ok(10));
    let before = |seconds| Timestamp::from_seconds(authority.end().seconds() - seconds);
    assert_eq!(end(before(11), 900, None, 900, never), Ok(11));
    assert_eq!(end(before(1), 900, None, 900, never), Ok(1));
    assert_eq!(end(authority.end(), 900, None, 900, never), Err(PlanError::Lifetime));
    assert_eq!(end(NOW, 0, None, 900, never), Err(PlanError::Lifetime));
    // A token is not bound by the authority's end.
    let planner = planner(Duration::from_secs(900));
    let draft = Draft { deadline: never, ..draft() };
    assert!(planner.draw(permit(request(), None), draft, Now::at(authority.end())).is_ok());
}

#[test]
fn an_svid_that_is_not_this_brokers_or_this_holders_is_not_drawn_up() {
    let refused = |edit: &dyn Fn(&mut Request, &mut Draft)| draw_svid(|r, d| edit(r, d)).map(drop);
    assert_eq!(refused(&|_, _| ()), Ok(()));
    let foreign: TrustDomain = "td.example".parse().unwrap();
    assert_eq!(refused(&|r, _| *form(r).0 = foreign.clone()), Err(PlanError::TrustDomain));
    assert_eq!(refused(&|r, _| *form(r).1 = public_key(false, 8)), Err(PlanError::HolderKey));
    let rsa = PublicKey::from_der(&[0x30, 0x0d, 6, 9]).unwrap();
    assert_eq!(refused(&|r, _| *form(r).1 = rsa.clone()), Err(PlanError::HolderKey));
    assert_eq!(refused(&|_, d| d.path.reverse()), Err(PlanError::Path));
    // What this broker minted is no agent (invariant T8), and a trust domain is none.
    for agent in ["spiffe://broker.example/agent/x/y/task/z", "spiffe://td.example"] {
        let agent: brevet_core::spiffe_id::SpiffeId = agent.parse().unwrap();
        let with_agent = |r: &mut Request| {
            task(r).agent = agent.clone();
            task(r).chain[1] = agent.clone();
        };
        assert_eq!(refused(&|r, _| with_agent(r)), Err(PlanError::Agent));
    }
}

#[test]
fn an_svid_that_no_verifier_reads_is_not_drawn_up() {
    let with_agent_of = |bytes: usize| {
        let agent = format!("spiffe://td.example/{}", "a".repeat(bytes - 20)).parse().unwrap();
        let plan = draw_svid(|request, _| {
            task(request).chain[1] = brevet_core::spiffe_id::SpiffeId::clone(&agent);
            task(request).agent = agent;
        })?;
        let Content::X509Svid(svid) = &plan.terms().content else { panic!("a token") };
        Ok(svid.spiffe_id.as_str().len())
    };
    let longest = 2048 - "spiffe://broker.example/agent//task//".len() - 2 * 26 + "spiffe://".len();
    assert_eq!(with_agent_of(longest), Ok(2048));
    assert_eq!(with_agent_of(longest + 1), Err(PlanError::Size));
}
