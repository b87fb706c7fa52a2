//! Terms of JWT-SVIDs.

use super::*;
use crate::fixture::own;

fn jwt_svid_request() -> Request {
    let mut request = request();
    credential(&mut request).form = FormFacts::JwtSvid {
        audience: AudienceName::parse("legacy").unwrap(),
        enforcement: Enforcement::Lease,
        sensitivity: Sensitivity::Low,
    };
    request
}

fn draw_jwt_svid(edit: impl FnOnce(&mut Request, &mut Draft)) -> Result<Plan, PlanError> {
    draw(|request, draft| {
        *request = jwt_svid_request();
        edit(request, draft);
    })
}

#[test]
fn jw_07_jw_08_jw_10_the_terms_name_the_task_one_audience_and_an_end() {
    let certificate = Some(CertificateDigest::from_bytes([6; 32]));
    for (request, named) in [(jwt_svid_request(), None), (renewal(jwt_svid_request()), certificate)] {
        let draft = Draft { certificate: named, understands_act: true, ..draft() };
        let plan = planner(LIFETIME_MAX).draw(permit(request, None), draft, Now::at(NOW)).unwrap();
        let path = vec![id(1), id(2)];
        let expected = Terms {
            id: LeaseId { task: task(&mut jwt_svid_request()).id, key: LeaseKey(id(3)) },
            key_id: KeyId::parse("jwt-svid-kid").unwrap(),
            issued_at: Timestamp::from_seconds(1_800_000_000),
            end: Timestamp::from_seconds(1_800_000_300),
            holder: Thumbprint::from_bytes([4; 32]),
            policy: PolicyDigest::from_bytes([5; 32]),
            content: Content::JwtSvid(JwtSvid {
                // The same as an X.509-SVID's of this task.
                spiffe_id: TaskSvidId::write(&spiffe_id("agent/b"), &path, &own()).unwrap(),
                audience: AudienceName::parse("legacy").unwrap(),
                certificate: named,
                path,
            }),
        };
        assert_eq!(**plan.terms(), expected);
        assert_eq!((plan.terms().audience().unwrap().as_str(), plan.terms().scope()), ("legacy", None));
    }
}

#[test]
fn l3_each_bound_of_a_jwt_svid_holds_alone() {
    let start = NOW.floor_to_second();
    let life = |requested, policy: Option<u64>, configured, enforcement, deadline: Timestamp| {
        let mut request = jwt_svid_request();
        credential(&mut request).lifetime_seconds = requested;
        let FormFacts::JwtSvid { enforcement: of_audience, .. } = &mut credential(&mut request).form else {
            panic!()
        };
        *of_audience = enforcement;
        let permit = permit(request, policy.map(Duration::from_secs));
        let draft = Draft { deadline, ..draft() };
        let plan = planner(Duration::from_secs(configured)).draw(permit, draft, Now::at(NOW));
        plan.map(|plan| plan.terms().end.since(start).as_secs())
    };
    let (watched, never) = (Enforcement::Lease, draft().deadline);
    assert_eq!(life(7, Some(900), 900, watched, never), Ok(7));
    assert_eq!(life(u64::MAX, Some(8), 900, watched, never), Ok(8));
    assert_eq!(life(900, None, 9, watched, never), Ok(9));
    assert_eq!(life(u64::MAX, None, u64::MAX, watched, never), Ok(LIFETIME_MAX.as_secs()));
    assert_eq!(life(900, None, 900, watched, start.after(Duration::from_secs(10))), Ok(10));
    // Whoever learns of no revocation is given what ends soon.
    let soon = SIGNATURE_LIFETIME_MAX.as_secs();
    assert_eq!(life(900, None, 900, Enforcement::Signature, never), Ok(soon));
    assert_eq!(life(0, None, 900, watched, never), Err(PlanError::Lifetime));
}

#[test]
fn a_jwt_svid_for_no_task_of_this_broker_is_not_drawn_up() {
    let refused = |edit: &dyn Fn(&mut Request, &mut Draft)| draw_jwt_svid(|r, d| edit(r, d)).map(drop);
    assert_eq!(refused(&|_, _| ()), Ok(()));
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
