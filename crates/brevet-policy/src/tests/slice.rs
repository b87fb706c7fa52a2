//! A slice decides as the whole set does, on random policies and requests.

use std::time::Duration;

use brevet_core::fact::DenialCause;
use brevet_core::request::DeterminingPolicy;
use brevet_core::terms::Profile;
use cedar_policy::{AuthorizationError, Authorizer, PolicySet};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::decide::Question;
use crate::load::parse;
use crate::slice::{Candidate, Slices};
use crate::vocabulary::{Facts, Sentence};

const WORKLOADS: [&str; 3] = [AGENT, ORCHESTRATOR, DELEGATE];
/// One name may be an audience's, a task type's, a trust domain's and a tenant's.
const NAMES: [&str; 3] = ["files", "crm", "research"];

/// Actions with the resources that they all have and conditions that are valid for them all.
struct Group {
    actions: &'static [&'static str],
    kinds: &'static [&'static str],
    conditions: &'static [&'static str],
}

const GROUPS: [Group; 7] = [
    Group {
        actions: &[],
        kinds: &["Workload", "TaskType", "Audience", "TrustDomain", "Tenant"],
        conditions: &[
            "when { principal.path like \"/agent/*\" }",
            "when { context.time.hour == 12 && action != Brevet::Action::\"LiftLock\" }",
            "when { if resource is Brevet::Audience then resource.enforcement == \"lease\" else true }",
            // Fails if the resource is not that audience.
            "when { Brevet::Audience::\"files\".enforcement == \"lease\" }",
        ],
    },
    Group { actions: &["CreateTask"], kinds: &["TaskType"], conditions: &TASK },
    Group { actions: &["DelegateTask"], kinds: &["Workload"], conditions: &DELEGATION },
    Group {
        actions: &["IssueCredential", "RenewCredential"],
        kinds: &["Audience", "TrustDomain"],
        conditions: &CREDENTIAL,
    },
    Group { actions: &["IssueCredential", "RenewCredential"], kinds: &["Audience"], conditions: &TOKEN },
    Group {
        actions: &["ListLeases", "RevokeLeases", "ListLocks", "CreateLock", "LiftLock", "ListEvents"],
        kinds: &["Tenant"],
        conditions: &["when { principal.tenant == resource.name }"],
    },
    Group {
        actions: &["RevokeLeases", "CreateLock", "LiftLock"],
        kinds: &["Tenant"],
        conditions: &[
            "when { context.selector.kind == \"everything\" }",
            "when { context.selector has kind }",
        ],
    },
];

const COMMON: [&str; 5] = [
    "",
    "unless { principal.roles.contains(\"agent\") }",
    "when { principal == resource || context.caller.verified_age_seconds > 1 }",
    // Fails from the age of two seconds on.
    "when { context.caller.verified_age_seconds * 9223372036854775807 >= 0 }",
    // Fails for old callers, although nothing could satisfy it.
    "when { context.caller.verified_age_seconds * 9223372036854775807 < 0 && principal.tenant == \"none\" }",
];
const TASK: [&str; 4] = [
    "when { context.task.depth > 1 }",
    "when { context.prompt_origin.level <= 2 }",
    "when { context.task.agent == principal.spiffe_id }",
    "when { context.task.sensitivity_max == {level: 1, name: \"moderate\"} && context.scope.audiences.contains(\"files\") }",
];
const DELEGATION: [&str; 4] = [
    "when { context.task.ancestors.contains(resource.spiffe_id) }",
    "when { context.parent.agent == principal.spiffe_id && resource.roles.contains(\"agent\") }",
    "unless { (if context.task.depth > 1 then principal else resource).path == \"/agent/reader\" }",
    "when { [principal].contains(resource) || principal has roles }",
];
const CREDENTIAL: [&str; 4] = [
    "when { context.credential.profile == \"jwt_svid\" && context.credential.actions.isEmpty() }",
    "when { context.credential.lifetime_seconds > 300 && context.credential.actions.contains(\"read\") }",
    "when { context.credential.profile == \"task_token\" || context.task.depth > 2 }",
    "when { !(resource is Brevet::Audience) || resource.sensitivity.level <= context.task.sensitivity_max.level }",
];
const TOKEN: [&str; 2] = [
    "when { resource is Brevet::Audience && resource.sensitivity.name == \"moderate\" }",
    "unless { resource is Brevet::Audience && resource.enforcement == \"action\" }",
];

fn names(kind: &str) -> &'static [&'static str] {
    if kind == "Workload" { &WORKLOADS } else { &NAMES }
}

/// What a head says of principal or resource.
fn head(variable: &'static str, kinds: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(kinds).prop_flat_map(move |kind| {
        let named = (select(names(kind)), 0..3).prop_map(move |(id, form)| match form {
            0 => format!("{variable} == Brevet::{kind}::\"{id}\""),
            1 => format!("{variable} in Brevet::{kind}::\"{id}\""),
            _ => format!("{variable} is Brevet::{kind} in Brevet::{kind}::\"{id}\""),
        });
        prop_oneof![
            Just(variable.to_owned()),
            Just(format!("{variable} is Brevet::{kind}")),
            named.clone(),
            named,
        ]
    })
}

/// What a head says of the action.
fn action(actions: &'static [&'static str]) -> BoxedStrategy<String> {
    let quoted = |action: &&str| format!("Brevet::Action::\"{action}\"");
    if actions.is_empty() {
        return Just("action".to_owned()).boxed();
    }
    subsequence(actions, 1..=actions.len())
        .prop_map(move |chosen| match chosen.as_slice() {
            [one] => format!("action == {}", quoted(one)),
            some => format!("action in [{}]", some.iter().map(quoted).collect::<Vec<_>>().join(", ")),
        })
        .boxed()
}

/// A random policy that is valid.
fn policy() -> impl Strategy<Value = String> {
    (0..GROUPS.len()).prop_flat_map(|group| {
        let Group { actions, kinds, conditions } = GROUPS[group];
        let condition = prop_oneof![select(&COMMON[..]), select(conditions)];
        let effect = select(vec!["permit", "forbid"]);
        (effect, head("principal", &["Workload"]), action(actions), head("resource", kinds), condition)
            .prop_map(|(effect, principal, action, resource, condition)| {
                format!("{effect} ({principal}, {action}, {resource}) {condition};")
            })
    })
}

fn request() -> impl Strategy<Value = Request> {
    let role = select(vec![Role::Agent, Role::Orchestrator, Role::Stopper]);
    let origin = select(vec![PromptOrigin::System, PromptOrigin::Untrusted]);
    let which = 0..one_of_each().len();
    (
        which,
        select(&WORKLOADS[..]),
        select(&WORKLOADS[..]),
        select(&NAMES[..]),
        role,
        origin,
        0_u8..4,
        0_u64..4,
        select(vec![60, 600]),
        0_u64..2,
    )
        .prop_map(|(which, workload, delegate, name, role, origin, depth, age, lifetime, hours)| {
            let mut request = one_of_each().swap_remove(which);
            if matches!(request.ask, Ask::DelegateTask { .. }) {
                request = delegate_to(delegate);
            }
            request.caller = caller(workload, role);
            request.caller.verified_age_seconds = age;
            request.time = request.time.after(Duration::from_secs(3_600 * hours));
            match &mut request.ask {
                Ask::CreateTask(context) => context.task.task_type = TaskType::parse(name).unwrap(),
                // One workload has one entry in the registry.
                Ask::DelegateTask { delegate: facts, .. } if workload == delegate => {
                    facts.roles = request.caller.roles.clone();
                }
                Ask::DelegateTask { .. } => {}
                Ask::IssueCredential { credential, .. } | Ask::RenewCredential { credential, .. } => {
                    credential.lifetime_seconds = lifetime;
                    match &mut credential.form {
                        FormFacts::TaskToken { audience, .. } | FormFacts::JwtSvid { audience, .. } => {
                            *audience = AudienceName::parse(name).unwrap()
                        }
                        FormFacts::X509Svid { trust_domain, .. } => *trust_domain = name.parse().unwrap(),
                    }
                }
                Ask::Operate { tenant, .. } => *tenant = TenantName::parse(name).unwrap(),
            }
            if !matches!(request.ask, Ask::Operate { .. }) {
                about(&mut request).prompt_origin = origin;
                about(&mut request).task.depth = depth;
            }
            request
        })
}

/// The ids of the policies that permit, that forbid and that fail.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ids {
    permits: BTreeSet<String>,
    forbids: BTreeSet<String>,
    errors: BTreeSet<String>,
}

/// What Cedar itself says of a request with every word in it, asked with all policies.
fn whole(policies: &PolicySet, request: &Request) -> Ids {
    let facts = Facts::of(request).unwrap();
    let query = Sentence::of(facts.operation, facts.resource.0).unwrap().query(&facts).unwrap();
    let response = Authorizer::new().is_authorized(&query.request.into(), policies, &query.entities.into());
    let mut ids = Ids::default();
    ids.errors.extend(response.diagnostics().errors().map(|error| {
        let AuthorizationError::PolicyEvaluationError(error) = error;
        error.policy_id().to_string()
    }));
    let satisfied = match response.decision() {
        cedar_policy::Decision::Allow => &mut ids.permits,
        cedar_policy::Decision::Deny => &mut ids.forbids,
    };
    satisfied.extend(response.diagnostics().reason().map(ToString::to_string));
    ids
}

fn sliced(slices: &Slices, request: &Request) -> Ids {
    let answer = Question::of(slices, request).unwrap().answer().unwrap();
    let ids = |policies: Vec<&Candidate>| policies.iter().map(|policy| policy.id.clone()).collect();
    let mut permits = answer.permits;
    if !answer.forbids.is_empty() {
        // Cedar names no permit beside a forbid.
        permits.clear();
    }
    Ids { permits: ids(permits), forbids: ids(answer.forbids), errors: ids(answer.errors) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn p2_p5_a_slice_decides_as_the_whole_set_does(
        texts in prop::collection::vec(policy(), 1..24),
        requests in prop::collection::vec(request(), 1..16),
    ) {
        let text: String = texts
            .iter()
            .enumerate()
            .map(|(n, text)| format!("@id(\"p{n}\") {text}\n"))
            .collect();
        let loaded = parse(&BTreeMap::from([("a.cedar".to_owned(), text)])).unwrap();
        let slices = Slices::index(&loaded).unwrap();
        for request in requests {
            prop_assert_eq!(sliced(&slices, &request), whole(&loaded.whole, &request));
        }
    }

    #[test]
    fn p2_p4_a_verdict_that_is_recalled_is_what_the_whole_set_decides(
        texts in prop::collection::vec(policy(), 1..8),
        requests in prop::collection::vec(request(), 1..32),
    ) {
        let text: String = texts
            .iter()
            .enumerate()
            .map(|(n, text)| format!("@id(\"p{n}\") {text}\n"))
            .collect();
        let loaded = parse(&BTreeMap::from([("a.cedar".to_owned(), text.clone())])).unwrap();
        let policies = policies(&text);
        for request in requests {
            let mut said = whole(&loaded.whole, &request);
            if request.ask.credential().is_some_and(|(_, asked)| asked.profile() == Profile::JwtSvid) {
                // Only a permit that names the form counts.
                let names = |id: &String| texts.iter().enumerate().any(|(n, text)| {
                    *id == format!("p{n}") && text.contains("\"jwt_svid\"")
                });
                said.permits.retain(names);
            }
            let expected = expected(said);
            prop_assert_eq!(&decided(&policies, &request), &expected);
            // The second time it is recalled, unless a condition stays as it is.
            prop_assert_eq!(&decided(&policies, &request), &expected);
        }
    }
}

/// Why a request is denied, unless it is permitted, and by which policies.
type Verdict = (Option<DenialCause>, BTreeSet<String>);

fn decided(policies: &Policies, request: &Request) -> Verdict {
    let ids = |by: &[DeterminingPolicy]| by.iter().map(|policy| policy.id.clone()).collect();
    match policies.decide(request.clone()) {
        Decision::Permit(permit) => (None, ids(&permit.evidence().determining)),
        Decision::Deny(denial) => (Some(denial.cause), ids(&denial.evidence.determining)),
    }
}

fn expected(Ids { permits, forbids, errors }: Ids) -> Verdict {
    if !errors.is_empty() {
        (Some(DenialCause::EvaluationError), errors)
    } else if !forbids.is_empty() {
        (Some(DenialCause::Forbidden), forbids)
    } else if permits.is_empty() {
        (Some(DenialCause::NoPermit), permits)
    } else {
        (None, permits)
    }
}

#[test]
fn p5_a_request_meets_only_the_policies_that_can_concern_it() {
    let mut text = String::new();
    for n in 0..100 {
        text.push_str(&format!(
            "@id(\"w{n}\") permit (principal == Brevet::Workload::\"spiffe://example.org/w/{n}\", action, resource);
             @id(\"r{n}\") permit (principal, action, resource == Brevet::Audience::\"a{n}\");
             @id(\"t{n}\") permit (principal, action == Brevet::Action::\"CreateTask\", resource);
             @id(\"d{n}\") permit (principal, action, resource is Brevet::TrustDomain);\n"
        ));
    }
    let loaded = parse(&BTreeMap::from([("a.cedar".to_owned(), text)])).unwrap();
    let slices = Slices::index(&loaded).unwrap();
    let mut request = issue_for("a7", Enforcement::Lease, Sensitivity::Low);
    request.caller = caller("spiffe://example.org/w/9", Role::Agent);
    let facts = Facts::of(&request).unwrap();
    let (_, candidates) = slices.candidates(&facts).unwrap();
    let mut met: Vec<&str> =
        candidates.iter().flat_map(|list| &list.policies).map(|policy| policy.id.as_str()).collect();
    met.sort_unstable();
    assert_eq!(met, ["r7", "w9"]);
}
