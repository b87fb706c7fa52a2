//! A slice decides as the whole set does, on random policies and requests.

use brevet_core::registry::{Enforcement, Role};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::decide::Answer;
use crate::load::parse;
use crate::slice::Slices;
use crate::vocabulary::Vocabulary;

const WORKLOADS: [&str; 3] = [AGENT, ORCHESTRATOR, "spiffe://example.org/agent/other"];
const AUDIENCES: [&str; 3] = ["files", "crm", "research"];
const TASK_TYPES: [&str; 2] = ["research", "files"];

/// A random policy that is valid.
fn policy() -> impl Strategy<Value = String> {
    let principal = prop_oneof![
        Just("principal".to_owned()),
        Just("principal is Brevet::Workload".to_owned()),
        select(&WORKLOADS[..]).prop_map(|id| format!("principal == Brevet::Workload::\"{id}\"")),
        select(&WORKLOADS[..]).prop_map(|id| format!("principal in Brevet::Workload::\"{id}\"")),
        select(&WORKLOADS[..])
            .prop_map(|id| format!("principal is Brevet::Workload in Brevet::Workload::\"{id}\"")),
    ];
    let either = select(vec![
        "action",
        "action in [Brevet::Action::\"CreateTask\", Brevet::Action::\"IssueCredential\"]",
    ]);
    let opening = select(vec![
        "action == Brevet::Action::\"CreateTask\"",
        "action in [Brevet::Action::\"CreateTask\"]",
    ]);
    let issuing = select(vec![
        "action == Brevet::Action::\"IssueCredential\"",
        "action in Brevet::Action::\"IssueCredential\"",
    ]);
    let action_and_resource = prop_oneof![
        (either.clone(), Just("resource".to_owned())),
        (prop_oneof![either.clone(), opening], resource("Brevet::TaskType", &TASK_TYPES)),
        (prop_oneof![either, issuing], resource("Brevet::Audience", &AUDIENCES)),
    ];
    let condition = select(vec![
        "",
        "when { context.task.depth > 1 }",
        "unless { principal.roles.contains(\"agent\") }",
        "when { context.prompt_origin.level <= 2 }",
        "when { context.task.agent == principal.spiffe_id }",
        // Fails from depth 2 on.
        "when { context.task.depth * 9223372036854775807 >= 0 }",
        // Fails for old tasks, although nothing could satisfy it.
        "when { context.task.age_seconds * 9223372036854775807 < 0 && principal.tenant == \"none\" }",
    ]);
    (select(vec!["permit", "forbid"]), principal, action_and_resource, condition).prop_map(
        |(effect, principal, (action, resource), condition)| {
            format!("{effect} ({principal}, {action}, {resource}) {condition};")
        },
    )
}

fn resource(kind: &'static str, ids: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("resource".to_owned()),
        1 => Just(format!("resource is {kind}")),
        2 => select(ids).prop_map(move |id| format!("resource == {kind}::\"{id}\"")),
        1 => select(ids).prop_map(move |id| format!("resource in {kind}::\"{id}\"")),
        1 => select(ids).prop_map(move |id| format!("resource is {kind} in {kind}::\"{id}\"")),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let operation = prop_oneof![
        select(&TASK_TYPES[..]).prop_map(|task_type| {
            let mut request = create_task();
            request.task.task_type = TaskType::parse(task_type).unwrap();
            request.resource = Resource::TaskType(request.task.task_type.clone());
            request
        }),
        select(&AUDIENCES[..]).prop_map(|name| issue_for(name, Enforcement::Action, Sensitivity::High)),
    ];
    let role = select(vec![Role::Agent, Role::Orchestrator]);
    let origin = select(vec![PromptOrigin::System, PromptOrigin::Untrusted]);
    (operation, select(&WORKLOADS[..]), role, origin, 0_u8..4, 0_u64..4).prop_map(
        |(mut request, workload, role, origin, depth, age)| {
            request.caller = caller(workload, role);
            request.prompt_origin = origin;
            request.task.depth = depth;
            request.task.age_seconds = age;
            request
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn p2_p5_a_slice_decides_as_the_whole_set_does(
        texts in prop::collection::vec(policy(), 1..16),
        requests in prop::collection::vec(request(), 1..12),
    ) {
        let text: String = texts
            .iter()
            .enumerate()
            .map(|(n, text)| format!("@id(\"p{n}\") {text}\n"))
            .collect();
        let loaded = parse(&BTreeMap::from([("a.cedar".to_owned(), text)])).unwrap();
        let slices = Slices::index(&loaded.schema, loaded.whole.policies()).unwrap();
        let vocabulary = Vocabulary::parse().unwrap();
        for request in requests {
            let query = vocabulary.query(&request).unwrap();
            let whole = sorted(Answer::of(&query, [&loaded.whole]));
            let mut sliced = sorted(Answer::of(&query, slices.candidates(&query)));
            if !sliced.forbids.is_empty() {
                // Cedar names no permit beside a forbid of the same set.
                sliced.permits.clear();
            }
            prop_assert_eq!(sliced, whole);
        }
    }
}

fn sorted(mut answer: Answer) -> Answer {
    answer.permits.sort();
    answer.forbids.sort();
    answer.errors.sort();
    answer
}

#[test]
fn p5_a_request_meets_only_the_policies_that_can_concern_it() {
    let mut text = String::new();
    for n in 0..100 {
        text.push_str(&format!(
            "@id(\"w{n}\") permit (principal == Brevet::Workload::\"spiffe://example.org/w/{n}\", action, resource);
             @id(\"r{n}\") permit (principal, action, resource == Brevet::Audience::\"a{n}\");
             @id(\"t{n}\") permit (principal, action == Brevet::Action::\"CreateTask\", resource);\n"
        ));
    }
    let loaded = parse(&BTreeMap::from([("a.cedar".to_owned(), text)])).unwrap();
    let slices = Slices::index(&loaded.schema, loaded.whole.policies()).unwrap();
    let mut request = issue_for("a7", Enforcement::Lease, Sensitivity::Low);
    request.caller = caller("spiffe://example.org/w/9", Role::Agent);
    let query = Vocabulary::parse().unwrap().query(&request).unwrap();
    let mut met: Vec<String> = slices
        .candidates(&query)
        .flat_map(|set| set.policies())
        .map(|policy| policy.id().to_string())
        .collect();
    met.sort();
    assert_eq!(met, ["r7", "w9"]);
}
