//! The policies in `deploy/policies`: what they permit, and that each of them matters.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::load::{self, Loaded};
use crate::source::pieces;

/// What a scenario comes to: the longest life of what is permitted, or the denial with its policies.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Permitted { lifetime_max: Option<Duration> },
    Denied { by: Vec<String> },
}

fn outcome(policies: &Policies, request: Request) -> Outcome {
    match policies.decide(request) {
        Decision::Permit(permit) => Outcome::Permitted { lifetime_max: permit.lifetime_max() },
        Decision::Deny(denial) => {
            Outcome::Denied { by: determining(&denial).into_iter().map(str::to_owned).collect() }
        }
    }
}

fn permitted(lifetime_seconds_max: Option<u64>) -> Outcome {
    Outcome::Permitted { lifetime_max: lifetime_seconds_max.map(Duration::from_secs) }
}

fn denied_by(id: &str) -> Outcome {
    Outcome::Denied { by: vec![id.to_owned()] }
}

fn denied() -> Outcome {
    Outcome::Denied { by: vec![] }
}

fn sources() -> BTreeMap<String, String> {
    load::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/policies")).unwrap()
}

/// For each shipped policy an ordinary request that shows it: its id, the request, what comes of it.
fn scenarios() -> Vec<(&'static str, Request, Outcome)> {
    let within = |ceiling, mut request: Request| {
        about(&mut request).task.sensitivity_max = ceiling;
        request
    };
    let ledger = || issue_for("ledger", Enforcement::Action, Sensitivity::High);
    let mut injected = within(Sensitivity::High, ledger());
    about(&mut injected).prompt_origin = PromptOrigin::ToolOutput;
    let mut back = delegate_to(AGENT);
    back.caller = caller(DELEGATE, Role::Agent);
    about(&mut back).task.chain = [AGENT, DELEGATE, AGENT].map(|id| id.parse().unwrap()).into();
    vec![
        ("orchestrators-create-tasks", create_task(), permitted(None)),
        ("agents-delegate-tasks", delegate_task(), permitted(None)),
        ("task-tokens", issue_credential(), permitted(None)),
        ("task-tokens-high-sensitivity", within(Sensitivity::High, ledger()), permitted(Some(300))),
        (
            "task-tokens-signature-only",
            issue_for("weather", Enforcement::Signature, Sensitivity::Low),
            permitted(Some(60)),
        ),
        ("task-svids", issue_svid(), permitted(Some(300))),
        ("stoppers-stop", operate(OperatorCall::CreateLock, Role::Stopper), permitted(None)),
        ("auditors-read", operate(OperatorCall::ListEvents, Role::Auditor), permitted(None)),
        ("guard-agent-and-ceiling", ledger(), denied_by("guard-agent-and-ceiling")),
        ("guard-prompt-origin", injected, denied_by("guard-prompt-origin")),
        (
            "guard-signature-only",
            issue_for("crm", Enforcement::Signature, Sensitivity::Moderate),
            denied_by("guard-signature-only"),
        ),
        ("guard-delegation-cycle", back, denied_by("guard-delegation-cycle")),
    ]
}

#[test]
fn every_shipped_policy_has_a_scenario_that_differs_without_it() {
    let sources = sources();
    let shipped = Policies::from_sources(&sources).unwrap();
    let Loaded { provenance, .. } = load::parse(&sources).unwrap();
    let scenarios = scenarios();
    assert_eq!(scenarios.len(), provenance.len());
    for (id, request, expected) in scenarios {
        assert_eq!(outcome(&shipped, request.clone()), expected, "{id}");
        let mut fewer = sources.clone();
        let annotation = format!("@id(\"{id}\")");
        let text = fewer.values_mut().find(|text| text.contains(&annotation)).unwrap();
        let piece = pieces(text).find(|piece| piece.text.contains(&annotation)).unwrap().text.to_owned();
        *text = text.replacen(&piece, "", 1);
        let without = Policies::from_sources(&fewer).unwrap();
        assert_ne!(outcome(&without, request), expected, "{id} makes no difference");
    }
}

#[test]
fn a_renewal_is_decided_as_the_issue_was() {
    let shipped = Policies::from_sources(&sources()).unwrap();
    let mut renewed = 0;
    for (id, request, expected) in scenarios() {
        if matches!(request.ask, Ask::IssueCredential { .. }) {
            assert_eq!(outcome(&shipped, renewal(request)), expected, "{id}");
            renewed += 1;
        }
    }
    assert_eq!(renewed, 7);
}

#[test]
fn no_jwt_svid_is_permitted_until_a_policy_names_it_and_the_guards_hold_for_it_too() {
    let mut sources = sources();
    let shipped = Policies::from_sources(&sources).unwrap();
    let asked = |audience: &str, enforcement, sensitivity| {
        let request = issue_jwt_svid(audience, enforcement, sensitivity);
        [request.clone(), renewal(request)]
    };
    let ordinary = || asked("legacy", Enforcement::Lease, Sensitivity::Moderate);
    let one = asked("status", Enforcement::Signature, Sensitivity::Low);
    let other = asked("ledger", Enforcement::Action, Sensitivity::High);
    for request in ordinary().into_iter().chain(one).chain(asked("x", Enforcement::Action, Sensitivity::Low))
    {
        assert_eq!(outcome(&shipped, request), denied());
    }
    let named = documented("jwt-svids-for-legacy").replace("https://legacy.example.org", "legacy");
    sources.insert("jwt-svids.cedar".to_owned(), named);
    let named = Policies::from_sources(&sources).unwrap();
    for request in ordinary() {
        assert_eq!(outcome(&named, request), permitted(Some(300)));
    }
    for request in asked("crm", Enforcement::Lease, Sensitivity::Moderate) {
        assert_eq!(outcome(&named, request), denied(), "of another audience");
    }
    for (sensitivity, enforcement, guard) in [
        (Sensitivity::High, Enforcement::Lease, "guard-agent-and-ceiling"),
        (Sensitivity::Moderate, Enforcement::Signature, "guard-signature-only"),
    ] {
        for request in asked("legacy", enforcement, sensitivity) {
            assert_eq!(outcome(&named, request), denied_by(guard));
        }
    }
    assert_eq!(outcome(&named, other[0].clone()), denied_by("guard-agent-and-ceiling"));
    let mut token = issue_for("legacy", Enforcement::Lease, Sensitivity::Moderate);
    assert_eq!(outcome(&named, token.clone()), permitted(None), "tokens are as they were");
    about(&mut token).task.depth = 6;
    assert_eq!(outcome(&named, token), denied_by("guard-agent-and-ceiling"));
}

/// A policy that `docs/policy.md` shows.
fn documented(id: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md");
    let page = std::fs::read_to_string(page).unwrap();
    let annotation = format!("@id(\"{id}\")");
    let block = page.split("```cedar\n").find(|block| block.starts_with(&annotation)).unwrap();
    block.split("```").next().unwrap().to_owned()
}

#[test]
fn an_agent_opens_no_task_and_nobody_else_draws_its_credential() {
    let shipped = Policies::from_sources(&sources()).unwrap();
    let mut opening = create_task();
    opening.caller = caller(AGENT, Role::Agent);
    assert_eq!(outcome(&shipped, opening), denied());
    for (spiffe_id, role) in
        [(ORCHESTRATOR, Role::Orchestrator), (DELEGATE, Role::Agent), (AGENT, Role::Enforcer)]
    {
        for mut drawing in [issue_credential(), issue_svid(), renewal(issue_credential())] {
            drawing.caller = caller(spiffe_id, role);
            assert_eq!(outcome(&shipped, drawing), denied_by("guard-agent-and-ceiling"), "{spiffe_id}");
        }
    }
}

#[test]
fn only_an_agent_delegates_and_only_its_own_task_to_an_agent_of_its_tenant() {
    let shipped = Policies::from_sources(&sources()).unwrap();
    let with = |change: fn(&mut Request)| {
        let mut request = delegate_task();
        change(&mut request);
        outcome(&shipped, request)
    };
    let delegate = |request: &mut Request, facts: DelegateFacts| {
        if let Ask::DelegateTask { delegate, .. } = &mut request.ask {
            *delegate = facts;
        }
    };
    assert_eq!(with(|request| about(request).task.depth = 5), permitted(None));
    assert_eq!(with(|request| about(request).task.depth = 6), denied());
    assert_eq!(with(|request| request.caller = caller(AGENT, Role::Orchestrator)), denied());
    assert_eq!(with(|request| request.caller = caller(ORCHESTRATOR, Role::Agent)), denied());
    let unregistered = DelegateFacts { tenant: TenantName::default(), roles: BTreeSet::new() };
    let foreign =
        DelegateFacts { tenant: TenantName::parse("other").unwrap(), roles: BTreeSet::from([Role::Agent]) };
    for facts in [unregistered, foreign] {
        let mut request = delegate_task();
        delegate(&mut request, facts);
        assert_eq!(outcome(&shipped, request), denied());
    }
    assert_eq!(outcome(&shipped, delegate_to(AGENT)), denied_by("guard-delegation-cycle"));
}

#[test]
fn operators_do_what_their_role_is_for_in_their_own_tenant() {
    let shipped = Policies::from_sources(&sources()).unwrap();
    let may = |role| -> Vec<&str> {
        CALLS
            .into_iter()
            .filter(|call| outcome(&shipped, operate(*call, role)) == permitted(None))
            .map(|call| call.operation().as_str())
            .collect()
    };
    assert_eq!(may(Role::Stopper), ["ListLeases", "RevokeLeases", "ListLocks", "CreateLock", "LiftLock"]);
    assert_eq!(may(Role::Auditor), ["ListLeases", "ListLocks", "ListEvents"]);
    for role in
        [Role::Agent, Role::Orchestrator, Role::Enforcer, Role::Author, Role::Approver, Role::KeyOfficer]
    {
        assert_eq!(may(role), [""; 0], "{role:?}");
    }
    for call in CALLS {
        for role in [Role::Stopper, Role::Auditor] {
            let mut stale = operate(call, role);
            stale.caller.verified_age_seconds = 3_601;
            assert_eq!(outcome(&shipped, stale), denied(), "{call:?}");
            let mut foreign = operate(call, role);
            foreign.caller.tenant = TenantName::parse("other").unwrap();
            assert_eq!(outcome(&shipped, foreign), denied(), "{call:?}");
        }
    }
}

#[test]
fn the_limits_of_age_and_depth_are_exact() {
    let shipped = Policies::from_sources(&sources()).unwrap();
    for (asked, expected) in [
        (issue_credential(), permitted(None)),
        (issue_svid(), permitted(Some(300))),
        (renewal(issue_svid()), permitted(Some(300))),
    ] {
        let with = |age, depth| {
            let mut request = asked.clone();
            request.caller.verified_age_seconds = age;
            about(&mut request).task.depth = depth;
            outcome(&shipped, request)
        };
        assert_eq!(with(3_600, 5), expected);
        assert_eq!(with(3_601, 5), denied_by("guard-agent-and-ceiling"));
        assert_eq!(with(3_600, 6), denied_by("guard-agent-and-ceiling"));
        assert_eq!(with(u64::MAX, 0), denied_by("guard-agent-and-ceiling"));
    }
    let mut operating = operate(OperatorCall::CreateLock, Role::Stopper);
    operating.caller.verified_age_seconds = 3_600;
    assert_eq!(outcome(&shipped, operating), permitted(None));
}
