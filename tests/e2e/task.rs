//! `TaskService`: opening, showing, listing and ending tasks.

use std::collections::BTreeSet;

use brevet_api::v1;
use brevet_api::v1::task::State;
use brevet_core::fact::Fact;
use tokio::task::JoinSet;
use tonic::Code;

use crate::world::{
    AGENT, FILES, OPERATOR, ORCHESTRATOR, OTHER_AGENT, RESOURCE_SERVER, STATUS, World, issue, permission,
    seconds,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_task_is_opened_shown_and_ended() {
    let world = World::start();
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);

    let opened = orchestrator.create(world.create("open")).await.ok();
    assert_eq!(opened.claim, None);
    let task = opened.task.unwrap();
    assert_eq!(task.state(), State::Active);
    assert_eq!(task.tenant, "default");
    assert_eq!(task.agent, "spiffe://workloads.dev.example/agent/a");
    assert_eq!(task.opener, "spiffe://workloads.dev.example/orchestrator");
    let (opened_at, deadline) = (task.create_time.unwrap(), task.deadline.unwrap());
    assert_eq!(deadline.nanos, 0);
    assert!((3_599..=3_600).contains(&(deadline.seconds - opened_at.seconds)));
    assert_eq!(orchestrator.create(world.create("open")).await.ok().task, Some(task.clone()));

    for client in [&orchestrator, &agent, &world.client(OPERATOR).await] {
        assert_eq!(client.get(&task.name).await.ok(), task);
    }
    agent.issue(issue(&task.name, "one")).await.ok();
    assert_eq!(orchestrator.get(&task.name).await.ok().live_leases, 1);

    let reason = "objective_reached".to_owned();
    let request = v1::CompleteTaskRequest { name: task.name.clone(), reason };
    let completed = orchestrator.complete_with(request).await.ok();
    assert_eq!(completed.leases_ended, 1);
    let ended = completed.task.unwrap();
    assert_eq!((ended.state(), ended.live_leases), (State::Completed, 0));
    assert_eq!(ended.end_reason, "objective_reached");
    assert!(ended.end_time.is_some());
    assert_eq!(agent.get(&task.name).await.ok(), ended);
    drop((orchestrator, agent));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t1_an_ended_task_is_final() {
    let world = World::start();
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    let server = world.client(RESOURCE_SERVER).await;

    let task = world.open_task(world.create("complete")).await.name;
    let token = agent.issue(issue(&task, "before")).await.ok().credential.unwrap().token;
    assert!(server.is_active(&token).await);
    let first = orchestrator.complete(&task).await.ok();
    assert!(!server.is_active(&token).await);
    let again = orchestrator.complete(&task).await.ok();
    assert_eq!((again.task, again.leases_ended), (first.task, 0));
    orchestrator.fail(&task).await.refused(Code::FailedPrecondition, "task_closed");
    orchestrator.cancel(&task).await.refused(Code::FailedPrecondition, "task_closed");
    agent.issue(issue(&task, "after")).await.refused(Code::FailedPrecondition, "task_closed");
    // The retry of a request that was answered is no way around it.
    agent.issue(issue(&task, "before")).await.refused(Code::FailedPrecondition, "lease_ended");
    assert_eq!(orchestrator.get(&task).await.ok().state(), State::Completed);

    for (request_id, state) in [("fail", State::Failed), ("cancel", State::Cancelled)] {
        let task = world.open_task(world.create(request_id)).await.name;
        match state {
            State::Failed => drop(orchestrator.fail(&task).await.ok()),
            _ => drop(orchestrator.cancel(&task).await.ok()),
        }
        assert_eq!(orchestrator.get(&task).await.ok().state(), state);
        orchestrator.complete(&task).await.refused(Code::FailedPrecondition, "task_closed");
    }
    drop((orchestrator, agent, server));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_an_owner_ends_a_task_and_its_agent_does_not_cancel_it() {
    let world = World::start();
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await.name;

    // An operator may see it, another agent may not even know of it.
    let operator = world.client(OPERATOR).await;
    operator.complete(&task).await.refused(Code::PermissionDenied, "not_owner");
    for stranger in [world.client(OTHER_AGENT).await, world.client(RESOURCE_SERVER).await] {
        stranger.complete(&task).await.refused(Code::NotFound, "not_found");
        stranger.get(&task).await.refused(Code::NotFound, "not_found");
    }
    agent.cancel(&task).await.refused(Code::PermissionDenied, "not_owner");
    assert_eq!(agent.fail(&task).await.ok().task.unwrap().state(), State::Failed);

    let other = world.open_task(world.create("other")).await.name;
    assert_eq!(agent.complete(&other).await.ok().task.unwrap().state(), State::Completed);
    drop((agent, operator));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_task_is_opened_only_as_it_is_registered() {
    let world = World::start();
    let orchestrator = world.client(ORCHESTRATOR).await;
    let denied = Code::PermissionDenied;

    let other = |request_id: &str, change: &dyn Fn(&mut v1::CreateTaskRequest)| {
        let mut request = world.create(request_id);
        change(&mut request);
        request
    };
    let unregistered = other("agent", &|it| it.agent = "spiffe://workloads.dev.example/agent/z".to_owned());
    orchestrator.create(unregistered).await.refused(denied, "not_registered");
    let type_ = other("type", &|it| it.task_type = "delete-everything".to_owned());
    orchestrator.create(type_).await.refused(denied, "not_registered");
    let sensitive = other("sensitivity", &|it| it.sensitivity_max = v1::Sensitivity::Critical.into());
    orchestrator.create(sensitive).await.refused(denied, "sensitivity_widens");
    for (request_id, wider) in [
        ("resource", permission(FILES, "secrets/a", &["read"])),
        ("parent", permission(FILES, "reports", &["read"])),
        ("sibling", permission(FILES, "reports2/a", &["read"])),
        ("action", permission(FILES, "reports/a", &["read", "delete"])),
        ("audience", permission("https://other.dev.example", "reports/a", &["read"])),
        ("cross", permission(STATUS, "reports/a", &["read"])),
    ] {
        let request = other(request_id, &|it| it.scope.push(wider.clone()));
        orchestrator.create(request).await.refused(denied, "scope_widens");
    }

    // An agent may open a task for nobody else, and for itself only if a policy says so.
    let agent = world.client(AGENT).await;
    agent.create(world.create("own")).await.refused(denied, "policy_denied");
    let foreign = other("foreign", &|it| it.agent = "spiffe://workloads.dev.example/agent/b".to_owned());
    agent.create(foreign).await.refused(denied, "not_registered");
    // Whoever is trusted and not registered is a caller without any part.
    for nobody in ["spiffe://workloads.dev.example/nobody", "spiffe://workloads.dev.example/orchestrator/2"] {
        let nobody = world.workload(nobody).await;
        nobody.create(world.create("nobody")).await.refused(denied, "not_registered");
        assert_eq!(nobody.list(v1::ListTasksRequest::default()).await.ok().tasks, []);
    }
    assert_eq!(orchestrator.list(v1::ListTasksRequest::default()).await.ok().tasks, []);
    drop((orchestrator, agent));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn unknown_and_foreign_tasks_are_the_same_to_the_byte() {
    let world = World::with(|config, folder| {
        let foreign =
            brevet_testkit::ca::TestCa::new(&"foreign.example".parse().unwrap(), crate::world::now());
        std::fs::write(folder.join("foreign.pem"), foreign.pem()).unwrap();
        let identity = foreign.svid("spiffe://foreign.example/orchestrator");
        std::fs::write(folder.join("foreign-svid.pem"), identity.certificate).unwrap();
        std::fs::write(folder.join("foreign-svid.key"), identity.key).unwrap();
        let tables: toml::Table = r#"
            [[tenants]]
            name = "default"
            trust_domains = ["workloads.dev.example", "functions.dev.example"]
            [[tenants]]
            name = "other"
            trust_domains = ["foreign.example"]
            [[trust]]
            trust_domain = "foreign.example"
            bundle = "foreign.pem"
            [[operators]]
            name = "eve"
            identities = ["spiffe://foreign.example/orchestrator"]
            roles = ["stopper", "auditor"]
        "#
        .parse()
        .unwrap();
        for (name, entries) in tables {
            let all = config.entry(name).or_insert_with(|| toml::Value::Array(Vec::new()));
            all.as_array_mut().unwrap().extend(entries.as_array().unwrap().clone());
        }
    });
    let task = world.open_task(world.create("open")).await.name;
    let unknown = "tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz";
    let not_found =
        |status: tonic::Status| (status.code(), status.message().to_owned(), status.details().to_owned());

    // Another tenant's operator, an agent of the same tenant, another replica of the agent itself.
    let foreign =
        brevet_client::Identity::load(&world.path("foreign-svid.pem"), &world.path("foreign-svid.key"));
    let foreign = world.connect(&foreign.unwrap()).await.unwrap();
    let foreign = world.known(foreign, "spiffe://foreign.example/orchestrator");
    let other = world.client(OTHER_AGENT).await;
    for client in [&foreign, &other] {
        let mut told = Vec::new();
        for name in [unknown, &task] {
            for status in [
                client.get(name).await.refused(Code::NotFound, "not_found"),
                client.complete(name).await.refused(Code::NotFound, "not_found"),
                client.fail(name).await.refused(Code::NotFound, "not_found"),
                client.cancel(name).await.refused(Code::NotFound, "not_found"),
                client.issue(issue(name, "issue")).await.refused(Code::NotFound, "not_found"),
            ] {
                told.push(not_found(status));
            }
        }
        assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
        assert_eq!(client.list(v1::ListTasksRequest::default()).await.ok().tasks, []);
    }
    let replica = world.workload("spiffe://workloads.dev.example/agent/a").await;
    let unknown = replica.issue(issue(unknown, "unknown")).await.refused(Code::NotFound, "not_found");
    let foreign_key = replica.issue(issue(&task, "known")).await;
    let foreign_key = foreign_key.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    assert_eq!(not_found(unknown), not_found(foreign_key));
    drop((foreign, other, replica));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_list_has_pages_and_filters_and_shows_nobody_elses_tasks() {
    let world = World::start();
    let orchestrator = world.client(ORCHESTRATOR).await;
    let mut names = Vec::new();
    for number in 0..5 {
        let mut request = world.create(&format!("task-{number}"));
        if number == 4 {
            request.agent = "spiffe://workloads.dev.example/agent/b".to_owned();
            request.scope = vec![permission(FILES, "reports/**", &["read"])];
        }
        names.push(world.open_task(request).await.name);
    }
    orchestrator.complete(&names[0]).await.ok();
    let for_b = names[4].clone();
    let completed = names[0].clone();
    names.sort();

    let list = |request: v1::ListTasksRequest| async {
        let page = orchestrator.list(request).await.ok();
        (page.tasks.into_iter().map(|task| task.name).collect::<Vec<_>>(), page.next_page_token)
    };
    assert_eq!(list(v1::ListTasksRequest::default()).await, (names.clone(), String::new()));
    let mut paged = Vec::new();
    let mut page_token = String::new();
    for _ in 0..10 {
        let request = v1::ListTasksRequest { page_size: 2, page_token, ..Default::default() };
        let (page, next) = list(request).await;
        assert!(page.len() <= 2);
        paged.extend(page);
        page_token = next;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, names);

    let in_state = |state: State| v1::ListTasksRequest { state: state.into(), ..Default::default() };
    assert_eq!(list(in_state(State::Completed)).await.0, [completed]);
    assert_eq!(list(in_state(State::Active)).await.0.len(), 4);
    assert_eq!(list(in_state(State::Failed)).await.0.len(), 0);
    let agent = "spiffe://workloads.dev.example/agent/b".to_owned();
    assert_eq!(
        list(v1::ListTasksRequest { agent, ..Default::default() }).await.0,
        std::slice::from_ref(&for_b)
    );
    // Above the limit is the limit.
    let request = v1::ListTasksRequest { page_size: i32::MAX, ..Default::default() };
    assert_eq!(list(request).await.0.len(), 5);

    let seen = world.client(OTHER_AGENT).await.list(v1::ListTasksRequest::default()).await.ok().tasks;
    assert_eq!(seen.into_iter().map(|task| task.name).collect::<Vec<_>>(), [for_b]);
    assert_eq!(world.client(AGENT).await.list(v1::ListTasksRequest::default()).await.ok().tasks.len(), 4);
    assert_eq!(
        world.client(RESOURCE_SERVER).await.list(v1::ListTasksRequest::default()).await.ok().tasks,
        []
    );

    for bad in [
        v1::ListTasksRequest { page_size: -1, ..Default::default() },
        v1::ListTasksRequest { page_token: "tasks/x".to_owned(), ..Default::default() },
        v1::ListTasksRequest { state: 99, ..Default::default() },
        v1::ListTasksRequest { agent: "agent".to_owned(), ..Default::default() },
    ] {
        orchestrator.list(bad).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    drop(orchestrator);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l9_the_same_request_opens_one_task_and_another_with_its_name_none() {
    let world = World::start();
    let orchestrator = world.client(ORCHESTRATOR).await;
    let mut claimed = world.create("open");
    claimed.holder_key_thumbprint = None;
    let first = orchestrator.create(claimed.clone()).await.ok();
    assert!(first.claim.is_some());
    assert_eq!(orchestrator.create(claimed.clone()).await.ok(), first);
    let others: [&dyn Fn(&mut v1::CreateTaskRequest); 6] = [
        &|it| it.purpose = "another".to_owned(),
        &|it| it.task_type = "report".to_owned(),
        &|it| it.agent = "spiffe://workloads.dev.example/agent/b".to_owned(),
        &|it| drop(it.scope.pop()),
        &|it| it.lifetime = seconds(60),
        &|it| it.holder_key_thumbprint = Some(world.thumbprint(AGENT)),
    ];
    for change in others {
        let mut other = claimed.clone();
        change(&mut other);
        orchestrator.create(other).await.refused(Code::AlreadyExists, "request_id_reused");
    }
    assert_eq!(orchestrator.list(v1::ListTasksRequest::default()).await.ok().tasks.len(), 1);
    drop(orchestrator);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t4_a_credential_that_races_its_tasks_end_is_ended_with_it_or_never_was() {
    let world = World::start();
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    let server = world.client(RESOURCE_SERVER).await;
    for round in 0..10 {
        let task = world.open_task(world.create(&format!("round-{round}"))).await.name;
        let mut issues = JoinSet::new();
        for number in 0..16 {
            let (agent, request) = (agent.clone(), issue(&task, &format!("{round}-{number}")));
            issues.spawn(async move {
                let answer = agent.issue(request).await;
                if answer.is_ok() {
                    return answer.ok().credential.map(|credential| credential.token);
                }
                // It found the task ended, or its lease was ended while it was signed.
                match answer.reason().as_deref() {
                    Some("LEASE_ENDED") => drop(answer.refused(Code::FailedPrecondition, "lease_ended")),
                    _ => drop(answer.refused(Code::FailedPrecondition, "task_closed")),
                }
                None
            });
        }
        let ended = orchestrator.complete(&task).await.ok();
        for token in issues.join_all().await.into_iter().flatten() {
            let request = v1::IntrospectCredentialRequest { token, min_revision: Some(ended.revision) };
            assert!(!server.introspect_with(request).await.ok().active);
        }
    }
    drop((orchestrator, agent, server));
    let mut over = BTreeSet::new();
    for written in world.finish() {
        match &written.fact {
            Fact::TaskEnded { task, .. } => assert!(over.insert(*task), "{task} ended twice"),
            Fact::LeaseIssued { terms, .. } => assert!(!over.contains(&terms.id.task), "{}", terms.id),
            _ => {}
        }
    }
    assert_eq!(over.len(), 10);
}
