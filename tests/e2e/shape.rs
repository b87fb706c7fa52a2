//! The form of requests: what does not fit its grammar is refused, field by field, and nothing is normalised.

use brevet_api::v1;
use brevet_api::v1::constraint::{Between, Kind, OneOf};
use brevet_api::v1::value;
use tonic::Code;

use crate::world::{AGENT, Client, FILES, ORCHESTRATOR, World, issue, permission};

/// What no name may be: empty, wild, with separators, controls, escapes or letters that look like others.
const ODD: [&str; 20] = [
    "",
    "*",
    "**",
    "a*",
    "a%",
    "a b",
    " a",
    "a ",
    "a\n",
    "a\u{0}",
    "\u{1b}[31ma",
    "a,b",
    "a/../b",
    "{\"a\":1}",
    "\u{430}",
    "\u{ff41}",
    "a\u{202e}b",
    "a\u{301}",
    "\u{661}\u{662}",
    "a\u{feff}",
];

/// A daemon that keeps a record of each of them, however many they are.
fn world() -> World {
    World::with(|config, _| {
        let limits = toml::toml! { malformed_recorded_per_minute_max = 1000 };
        config.insert("limits".to_owned(), limits.into());
    })
}

async fn refused(client: &Client, request: v1::CreateTaskRequest) {
    client.create(request).await.refused(Code::InvalidArgument, "invalid_argument");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn odd_strings_in_any_field_of_a_task_are_refused() {
    let world = world();
    let client = world.client(ORCHESTRATOR).await;
    let long = "a".repeat(65);
    let longest = "a".repeat(10_240);
    let odd = || ODD.into_iter().chain([long.as_str(), longest.as_str()]);

    type Field = fn(&mut v1::CreateTaskRequest) -> &mut String;
    let fields: [(&str, Field); 8] = [
        ("request_id", |it| &mut it.request_id),
        ("agent", |it| &mut it.agent),
        ("task_type", |it| &mut it.task_type),
        ("purpose", |it| &mut it.purpose),
        ("holder_key_thumbprint", |it| it.holder_key_thumbprint.as_mut().unwrap()),
        ("audience", |it| &mut it.scope[0].audience),
        ("resource", |it| &mut it.scope[0].resource),
        ("action", |it| &mut it.scope[0].actions[0]),
    ];
    for (name, field) in fields {
        for (number, bad) in odd().enumerate() {
            let mut request = world.create(&format!("{name}-{number}"));
            bad.clone_into(field(&mut request));
            // An audience is named by a URL, and only the registered ones are one.
            if name == "audience" && (bad == long || bad == "a/../b") {
                continue;
            }
            refused(&client, request).await;
        }
    }
    for bad in [
        "reports/*",
        "reports/**/a",
        "**/a",
        "/reports",
        "reports/",
        "reports//a",
        "reports/./a",
        "reports/../a",
        "reports/a.",
        "reports/**.",
        "reports/***",
        "reports\\a",
        "reports/%2e%2e/a",
        &["a"; 17].join("/"),
    ] {
        let mut request = world.create("resource");
        bad.clone_into(&mut request.scope[0].resource);
        refused(&client, request).await;
    }
    for bad in [
        "agent/a",
        "spiffe://",
        "https://workloads.dev.example/agent/a",
        "SPIFFE://workloads.dev.example/agent/a",
        "spiffe://Workloads.dev.example/agent/a",
        "spiffe://workloads.dev.example/agent/a/",
        "spiffe://workloads.dev.example/agent/../agent/a",
        "spiffe://workloads.dev.example/agent/%61",
        "spiffe://workloads.dev.example:443/agent/a",
        "spiffe://user@workloads.dev.example/agent/a",
        "spiffe://workloads.dev.example/agent/a?q",
        "spiffe://workloads.dev.example/agent/a#f",
        "spiffe://workloads.dev.example/agent/\u{430}",
    ] {
        let mut request = world.create("agent");
        bad.clone_into(&mut request.agent);
        refused(&client, request).await;
    }
    assert_eq!(client.list(v1::ListTasksRequest::default()).await.ok().tasks, []);
    drop(client);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn values_out_of_range_and_empty_or_swollen_sets_are_refused() {
    let world = world();
    let client = world.client(ORCHESTRATOR).await;
    let constrained = |kind: Option<Kind>| {
        let mut request = world.create("constraint");
        request.scope[0].constraints.insert("path".to_owned(), v1::Constraint { kind });
        request
    };
    let text = |text: &str| v1::Value { kind: Some(value::Kind::Text(text.to_owned())) };
    for bad in [
        constrained(None),
        constrained(Some(Kind::OneOf(OneOf { values: vec![] }))),
        constrained(Some(Kind::OneOf(OneOf { values: vec![v1::Value { kind: None }] }))),
        constrained(Some(Kind::OneOf(OneOf { values: vec![text("")] }))),
        constrained(Some(Kind::OneOf(OneOf { values: vec![text("a\u{7}")] }))),
        constrained(Some(Kind::OneOf(OneOf { values: vec![text(&"a".repeat(257))] }))),
        constrained(Some(Kind::OneOf(OneOf { values: (0..65).map(|it| text(&format!("v{it}"))).collect() }))),
        constrained(Some(Kind::Between(Between { min: None, max: None }))),
        constrained(Some(Kind::Between(Between { min: Some(2), max: Some(1) }))),
        constrained(Some(Kind::Prefix(String::new()))),
        constrained(Some(Kind::Prefix("a\n".to_owned()))),
        v1::CreateTaskRequest { sensitivity_max: 0, ..world.create("sensitivity") },
        v1::CreateTaskRequest { sensitivity_max: 99, ..world.create("sensitivity") },
        v1::CreateTaskRequest { sensitivity_max: -1, ..world.create("sensitivity") },
        v1::CreateTaskRequest { prompt_origin: 99, ..world.create("origin") },
        v1::CreateTaskRequest { scope: vec![permission(FILES, "reports/a", &[])], ..world.create("actions") },
        v1::CreateTaskRequest {
            scope: (0..65).map(|it| permission(FILES, &format!("reports/{it}"), &["read"])).collect(),
            ..world.create("permissions")
        },
    ] {
        refused(&client, bad).await;
    }
    // Repetition means nothing: 65 times the same permission is one.
    let repeated = vec![permission(FILES, "reports/a", &["read", "read"]); 65];
    let task =
        client.create(v1::CreateTaskRequest { scope: repeated, ..world.create("repeated") }).await.ok();
    assert_eq!(task.task.unwrap().scope, [permission(FILES, "reports/a", &["read"])]);
    drop(client);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn odd_strings_in_a_request_for_a_credential_are_refused() {
    let world = world();
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    type Field = fn(&mut v1::IssueCredentialRequest) -> &mut String;
    let fields: [(&str, Field); 6] = [
        ("task", |it| &mut it.task),
        ("request_id", |it| &mut it.request_id),
        ("audience", |it| &mut it.audience),
        ("scope.audience", |it| &mut it.scope[0].audience),
        ("scope.resource", |it| &mut it.scope[0].resource),
        ("scope.actions", |it| &mut it.scope[0].actions[0]),
    ];
    for (name, field) in fields {
        for (number, bad) in ODD.into_iter().enumerate() {
            let mut request = issue(&task, &format!("{name}-{number}"));
            bad.clone_into(field(&mut request));
            agent.issue(request).await.refused(Code::InvalidArgument, "invalid_argument");
        }
    }
    for profile in [0, 2, 3, 99, -1] {
        let request = v1::IssueCredentialRequest { profile, ..issue(&task, "profile") };
        agent.issue(request).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    assert_eq!(agent.get(&task).await.ok().live_leases, 0);
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_name_is_malformed_or_unknown_and_never_another_spelling() {
    let world = world();
    let task = world.open_task(world.create("open")).await.name;
    let client = world.client(ORCHESTRATOR).await;
    let id = task.strip_prefix("tasks/").unwrap();
    for bad in [
        String::new(),
        "tasks/".to_owned(),
        id.to_owned(),
        format!("/{task}"),
        format!("{task}/"),
        format!("{task} "),
        format!("{task}\n"),
        format!("{task}*"),
        format!("tasks/{}", id.to_uppercase()),
        format!("Tasks/{id}"),
        format!("tasks/0{id}"),
        format!("tasks/{}", id.get(1..).unwrap()),
        format!("tasks/{id}-{id}"),
        format!("{task}/leases/{id}"),
        "tasks/8zzzzzzzzzzzzzzzzzzzzzzzzz".to_owned(),
        format!("tasks/{}", "\u{661}".repeat(13)),
        format!("tasks/{}", "a".repeat(10_240)),
        "tasks/%".to_owned(),
        "tasks/-".to_owned(),
    ] {
        client.get(&bad).await.refused(Code::InvalidArgument, "invalid_argument");
        client.complete(&bad).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    let child = format!("{task}-7zzzzzzzzzzzzzzzzzzzzzzzzz");
    client.get(&child).await.refused(Code::NotFound, "not_found");
    for bad in ODD.into_iter().filter(|it| !it.is_empty()).chain(["Done", "a-b"]) {
        let request = v1::CompleteTaskRequest { name: task.clone(), reason: bad.to_owned() };
        client.complete_with(request).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    assert_eq!(client.get(&task).await.ok().state(), v1::task::State::Active);
    drop(client);
    world.finish();
}
