use std::collections::BTreeSet;

use brevet_core::digest::{PolicyDigest, Thumbprint};
use brevet_core::id::{RootTaskId, TaskId};
use brevet_core::name::{AudienceName, PurposeCode, TaskType, TenantName};
use brevet_core::proof::Evidence;
use brevet_core::registry::{Enforcement, Role, SIGNATURE_LIFETIME_MAX};
use brevet_core::request::{
    Ask, CallerFacts, Obligations, PromptOrigin, Request, Sensitivity, TaskContext, Verification,
};
use brevet_core::revision::{Basis, Revision};
use brevet_core::scope::Scope;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::fixture::{ISSUER, authority, id, scope, spiffe_id};

mod jwt_svid;
mod x509_svid;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_999);

fn request() -> Request {
    let scope = scope(r#"[{"audience":"files","resource":"a","actions":["read"]}]"#);
    let context = TaskContext {
        task: TaskFacts {
            id: TaskId::child_of(RootTaskId(id(1)), id(2)).unwrap(),
            task_type: TaskType::parse("report").unwrap(),
            purpose: PurposeCode::parse("audit").unwrap(),
            sensitivity_max: Sensitivity::Low,
            agent: spiffe_id("agent/b"),
            delegator: spiffe_id("user/alice"),
            opener: spiffe_id("orchestrator"),
            chain: vec![spiffe_id("agent/a"), spiffe_id("agent/b")],
            depth: 1,
            age_seconds: 0,
            remaining_seconds: 3600,
            leases_live: 0,
        },
        scope: scope.clone(),
        prompt_origin: PromptOrigin::System,
    };
    let credential = CredentialFacts {
        lifetime_seconds: 300,
        holder: Thumbprint::from_bytes([4; 32]),
        form: FormFacts::TaskToken {
            audience: AudienceName::parse("files").unwrap(),
            enforcement: Enforcement::Lease,
            sensitivity: Sensitivity::Low,
            scope,
        },
    };
    Request {
        caller: CallerFacts {
            spiffe_id: spiffe_id("agent/b"),
            tenant: TenantName::default(),
            roles: BTreeSet::from([Role::Agent]),
            verified: Verification::X509Svid,
            verified_age_seconds: 0,
        },
        ask: Ask::IssueCredential { context, credential },
        time: NOW,
        basis: Basis { tree: Revision(1), control: Revision(1) },
    }
}

fn permit(request: Request, lifetime_max: Option<Duration>) -> Permit {
    let policy = PolicyDigest::from_bytes([5; 32]);
    Permit::granted(Evidence { request, determining: [].into(), policy }, Obligations { lifetime_max })
}

fn draft() -> Draft {
    Draft {
        lease: LeaseKey(id(3)),
        path: vec![id(1), id(2)],
        deadline: NOW.after(Duration::from_secs(86_400)),
        understands_act: false,
        certificate: None,
    }
}

fn planner(lifetime_max: Duration) -> Planner {
    planner_under(&authority(), lifetime_max)
}

fn planner_under(authority: &CaKey, lifetime_max: Duration) -> Planner {
    let [tokens, jwt_svids] = ["kid", "jwt-svid-kid"].map(|kid| KeyId::parse(kid).unwrap());
    Planner::new(ISSUER.into(), tokens, jwt_svids, authority, lifetime_max)
}

fn draw(edit: impl FnOnce(&mut Request, &mut Draft)) -> Result<Plan, PlanError> {
    let (mut request, mut draft) = (request(), draft());
    edit(&mut request, &mut draft);
    planner(Duration::from_secs(900)).draw(permit(request, None), draft, Now::at(NOW))
}

fn end_of(edit: impl FnOnce(&mut Request, &mut Draft)) -> Result<Timestamp, PlanError> {
    draw(edit).map(|plan| plan.terms().end)
}

fn credential(request: &mut Request) -> &mut CredentialFacts {
    match &mut request.ask {
        Ask::IssueCredential { credential, .. } | Ask::RenewCredential { credential, .. } => credential,
        other => panic!("{other:?}"),
    }
}

fn task(request: &mut Request) -> &mut TaskFacts {
    match &mut request.ask {
        Ask::IssueCredential { context, .. } | Ask::RenewCredential { context, .. } => &mut context.task,
        other => panic!("{other:?}"),
    }
}

/// The audience, how it enforces, and the scope asked for.
fn token(request: &mut Request) -> (&mut AudienceName, &mut Enforcement, &mut Scope) {
    match &mut credential(request).form {
        FormFacts::TaskToken { audience, enforcement, scope, .. } => (audience, enforcement, scope),
        other => panic!("{other:?}"),
    }
}

/// The same request in place of a credential that is about to end.
fn renewal(request: Request) -> Request {
    match request.ask {
        Ask::IssueCredential { context, credential } => {
            let ask = Ask::RenewCredential { context, credential, renews: LeaseKey(id(8)) };
            Request { ask, ..request }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_terms_are_filled_from_permit_draft_and_time() {
    let certificate = CertificateDigest::from_bytes([6; 32]);
    let plan = draw(|_, draft| draft.certificate = Some(certificate)).unwrap();
    let mut request = request();
    let expected = Terms {
        id: LeaseId { task: task(&mut request).id, key: LeaseKey(id(3)) },
        key_id: KeyId::parse("kid").unwrap(),
        issued_at: Timestamp::from_seconds(1_800_000_000),
        end: Timestamp::from_seconds(1_800_000_300),
        holder: Thumbprint::from_bytes([4; 32]),
        policy: PolicyDigest::from_bytes([5; 32]),
        content: Content::TaskToken(TaskToken {
            issuer: ISSUER.into(),
            subject: spiffe_id("agent/b"),
            actors: vec![spiffe_id("agent/b"), spiffe_id("agent/a")],
            audience: AudienceName::parse("files").unwrap(),
            scope: token(&mut request).2.clone(),
            certificate: Some(certificate),
            path: vec![id(1), id(2)],
        }),
    };
    assert_eq!(**plan.terms(), expected);
    // A renewal is a lease of its own, drawn up as any other.
    let plan = draw(|request, draft| {
        *request = renewal(request.clone());
        draft.certificate = Some(certificate);
    });
    assert_eq!(**plan.unwrap().terms(), expected);
}

#[test]
fn only_an_audience_that_understands_act_sees_the_delegator_as_subject() {
    for (understands_act, subject) in [(false, "agent/b"), (true, "user/alice")] {
        let plan = draw(|_, draft| draft.understands_act = understands_act).unwrap();
        let Content::TaskToken(token) = &plan.terms().content else { panic!("an svid") };
        assert_eq!(token.subject, spiffe_id(subject));
    }
}

#[test]
fn l3_the_end_is_the_deadline_where_they_meet_and_never_after() {
    let start = NOW.floor_to_second();
    let at = |seconds: u64| start.after(Duration::from_secs(seconds));
    let with_deadline = |deadline| end_of(|_, draft| draft.deadline = deadline);
    assert_eq!(with_deadline(at(301)), Ok(at(300)));
    assert_eq!(with_deadline(at(300)), Ok(at(300)));
    assert_eq!(with_deadline(at(299)), Ok(at(299)));
    // A deadline within a second: rounded down, so the credential ends before the task.
    assert_eq!(with_deadline(Timestamp::from_millis(at(300).millis() - 1)), Ok(at(299)));
    assert_eq!(with_deadline(Timestamp::from_millis(at(299).millis() + 1)), Ok(at(299)));
}

#[test]
fn l3_each_bound_holds_alone() {
    let start = NOW.floor_to_second();
    let end = |requested, policy: Option<u64>, configured, enforcement| {
        let mut request = request();
        credential(&mut request).lifetime_seconds = requested;
        *token(&mut request).1 = enforcement;
        let permit = permit(request, policy.map(Duration::from_secs));
        let plan = planner(Duration::from_secs(configured)).draw(permit, draft(), Now::at(NOW)).unwrap();
        plan.terms().end.since(start).as_secs()
    };
    assert_eq!(end(7, Some(900), 900, Enforcement::Lease), 7);
    assert_eq!(end(u64::MAX, Some(8), 900, Enforcement::Lease), 8);
    assert_eq!(end(900, None, 9, Enforcement::Action), 9);
    assert_eq!(end(900, None, 900, Enforcement::Signature), SIGNATURE_LIFETIME_MAX.as_secs());
    assert_eq!(end(u64::MAX, None, u64::MAX, Enforcement::Action), LIFETIME_MAX.as_secs());
}

#[test]
fn l3_what_would_be_dead_on_arrival_is_not_drawn_up() {
    let with_deadline = |deadline| end_of(|_, draft| draft.deadline = deadline);
    assert_eq!(end_of(|request, _| credential(request).lifetime_seconds = 0), Err(PlanError::Lifetime));
    for deadline in [Timestamp::EPOCH, NOW.floor_to_second(), NOW] {
        assert_eq!(with_deadline(deadline), Err(PlanError::Lifetime), "{deadline}");
    }
    // One second from 1,800,000,000.999 ends at 1,800,000,001: a millisecond of life is life.
    assert!(end_of(|request, _| credential(request).lifetime_seconds = 1).is_ok());
    // The judging clock is ahead: what it would refuse at once is not issued.
    for (ahead, lives) in [(299, true), (300, false), (3600, false)] {
        let judge = NOW.floor_to_second().after(Duration::from_secs(ahead));
        let now = Now { judge, ..Now::at(NOW) };
        let plan = planner(Duration::from_secs(900)).draw(permit(request(), None), draft(), now);
        assert_eq!(plan.is_ok(), lives, "{ahead}");
    }
    // At the end of time nothing lives.
    let last = Now::at(Timestamp::from_seconds(u64::MAX));
    let plan = planner(Duration::from_secs(900)).draw(permit(request(), None), draft(), last);
    assert_eq!(plan.map(drop), Err(PlanError::Lifetime));
}

#[test]
fn a_permit_for_something_else_is_refused() {
    let refused = |edit: &dyn Fn(&mut Request, &mut Draft)| draw(|r, d| edit(r, d)).map(drop);
    let create = |r: &mut Request| r.ask = Ask::CreateTask(r.ask.context().unwrap().clone());
    assert_eq!(refused(&|r, _| create(r)), Err(PlanError::Operation));
    assert_eq!(refused(&|r, _| *token(r).2 = Scope::default()), Err(PlanError::Scope));
    let foreign = AudienceName::parse("other").unwrap();
    assert_eq!(refused(&|r, _| *token(r).0 = foreign.clone()), Err(PlanError::Scope));
    assert_eq!(refused(&|_, d| d.path.clear()), Err(PlanError::Path));
    assert_eq!(refused(&|_, d| d.path.reverse()), Err(PlanError::Path));
    assert_eq!(refused(&|_, d| d.path.insert(1, id(9))), Err(PlanError::Path));
    assert_eq!(refused(&|r, _| task(r).depth = 0), Err(PlanError::Path));
    assert_eq!(refused(&|r, _| task(r).chain.reverse()), Err(PlanError::Path));
    assert_eq!(refused(&|r, _| drop(task(r).chain.remove(0))), Err(PlanError::Path));
}

#[test]
fn l4_lease_keys_are_drawn_anew() {
    let rng = SystemRandom::new();
    let keys: BTreeSet<LeaseKey> = (0..1000).map(|_| lease_key(&rng).unwrap()).collect();
    assert_eq!(keys.len(), 1000);
}

proptest! {
    #[test]
    fn l3_no_bound_is_ever_passed(
        now in 0_u64..5_000_000,
        ahead in 0_u64..5_000,
        deadline in 0_u64..10_000_000,
        requested in 0_u64..10_000,
        configured in 0_u64..10_000_000,
        policy in option::of(0_u64..10_000_000),
    ) {
        let mut request = request();
        credential(&mut request).lifetime_seconds = requested;
        let draft = Draft { deadline: Timestamp::from_millis(deadline), ..draft() };
        let issue = Timestamp::from_millis(now);
        let now = Now { judge: issue.after(Duration::from_millis(ahead)), ..Now::at(issue) };
        let policy = policy.map(Duration::from_millis);
        let configured = Duration::from_millis(configured);
        if let Ok(plan) = planner(configured).draw(permit(request, policy), draft, now) {
            let Terms { issued_at, end, .. } = **plan.terms();
            prop_assert_eq!((issued_at.millis() % 1000, end.millis() % 1000), (0, 0));
            prop_assert!(issued_at <= now.issue && now.judge < end);
            prop_assert!(end.millis() <= deadline);
            let lifetime = end.since(issued_at);
            prop_assert!(lifetime <= configured && lifetime.as_secs() <= requested && lifetime <= LIFETIME_MAX);
            prop_assert!(policy.is_none_or(|max| lifetime <= max));
        }
    }
}
