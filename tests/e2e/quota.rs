//! Quotas of openers: nobody can use up what others need, under any interleaving.

use brevet_api::v1;
use tonic::Code;

use crate::world::{
    AGENT, Client, FILES, ORCHESTRATOR, OTHER_AGENT, World, eventually, issue, permission, seconds,
};

/// A daemon where one opener may have so many leases and tasks.
fn world(leases: i64, tasks: i64) -> World {
    World::with(|config, folder| {
        let mut limits = toml::Table::new();
        limits.insert("leases_live_per_opener_max".to_owned(), leases.into());
        limits.insert("tasks_per_opener_max".to_owned(), tasks.into());
        config.insert("limits".to_owned(), limits.into());
        // So that there is another opener: agents may open tasks for themselves.
        let permit = r#"@id("agents-create-own-tasks")
            permit (principal, action == Brevet::Action::"CreateTask", resource)
            when { principal.roles.contains("agent") };"#;
        std::fs::write(folder.join("policies/own-tasks.cedar"), permit).unwrap();
    })
}

/// A task that the second agent opens for itself.
fn own(world: &World, request_id: &str) -> v1::CreateTaskRequest {
    v1::CreateTaskRequest {
        agent: "spiffe://workloads.dev.example/agent/b".to_owned(),
        scope: vec![permission(FILES, "reports/q3", &["read"])],
        holder_key_thumbprint: Some(world.thumbprint(OTHER_AGENT)),
        ..world.create(request_id)
    }
}

const LEASES: &str = "leases_live_per_opener_max";
const TASKS: &str = "tasks_per_opener_max";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l11_of_two_hundred_at_once_exactly_the_openers_quota_is_issued() {
    let world = world(50, 100);
    let mut tasks = Vec::new();
    for number in 0..4 {
        tasks.push(world.open_task(world.create(&format!("task-{number}"))).await.name);
    }
    let clients: [Client; 2] = [world.client(AGENT).await, world.client(AGENT).await];
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let client = clients[number % 2].clone();
        let request = issue(&tasks[number % 4], &format!("request-{number}"));
        calls.spawn(async move {
            let answer = client.issue(request).await;
            if answer.is_ok() {
                return usize::from(!answer.ok().credential.unwrap().lease.is_empty());
            }
            answer.refused(Code::ResourceExhausted, LEASES);
            0
        });
    }
    assert_eq!(calls.join_all().await.into_iter().sum::<usize>(), 50);
    let mut live = 0;
    for task in &tasks {
        live += clients[0].get(task).await.ok().live_leases;
    }
    assert_eq!(live, 50);

    // Another opener has a quota of its own, and the leases of an ended task are given back.
    let b = world.client(OTHER_AGENT).await;
    let other = b.create(own(&world, "own")).await.ok().task.unwrap().name;
    b.issue(issue(&other, "one")).await.ok();
    let given_back = world.client(ORCHESTRATOR).await.complete(&tasks[0]).await.ok().leases_ended;
    for number in 0..given_back {
        clients[0].issue(issue(&tasks[1], &format!("again-{number}"))).await.ok();
    }
    clients[0].issue(issue(&tasks[1], "more")).await.refused(Code::ResourceExhausted, LEASES);
    drop((clients, b));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l11_leases_that_end_and_requests_that_fail_give_their_place_back() {
    let mut world = world(3, 100);
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await.name;
    let exhausted = Code::ResourceExhausted;
    let short = v1::IssueCredentialRequest { lifetime: seconds(2), ..issue(&task, "short") };
    agent.issue(short).await.ok();
    let returned = agent.issued(&task, "returned").await.lease;
    agent.issued(&task, "kept").await;

    // Refused requests take no place, whatever they are refused for.
    for number in 0..5 {
        let wide = v1::IssueCredentialRequest {
            scope: vec![permission(FILES, "reports/q3", &["delete"])],
            ..issue(&task, &format!("wide-{number}"))
        };
        agent.issue(wide).await.refused(Code::PermissionDenied, "scope_widens");
    }
    agent.give_back(&returned).await.ok();
    agent.issued(&task, "after-return").await;
    // A retry is no more leases.
    agent.issued(&task, "after-return").await;
    let mut refused = 0;
    eventually("the short one has ended", || {
        refused += 1;
        let (agent, request) = (agent.clone(), issue(&task, &format!("try-{refused}")));
        async move {
            let answer = agent.issue(request).await;
            answer.is_ok() || {
                answer.refused(exhausted, LEASES);
                false
            }
        }
    })
    .await;
    agent.issue(issue(&task, "full")).await.refused(exhausted, LEASES);

    // A restart counts what it finds.
    agent.get(&task).await.ok();
    drop(agent);
    world.daemon.stop();
    world.daemon.restart();
    let agent = world.client(AGENT).await;
    agent.issue(issue(&task, "restarted")).await.refused(exhausted, LEASES);
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l11_an_opener_keeps_so_many_tasks_and_children_are_charged_to_who_delegates() {
    let world = world(100, 3);
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    let exhausted = Code::ResourceExhausted;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (client, request) = (orchestrator.clone(), world.create(&format!("task-{number}")));
        calls.spawn(async move {
            let answer = client.create(request).await;
            if answer.is_ok() {
                return answer.ok().task;
            }
            answer.refused(exhausted, TASKS);
            None
        });
    }
    let opened: Vec<v1::Task> = calls.join_all().await.into_iter().flatten().collect();
    assert_eq!(opened.len(), 3);
    // A retry is no more tasks; an ended one is kept for a while, and counts.
    let parent = &opened[0].name;
    orchestrator.complete(&opened[1].name).await.ok();
    orchestrator.create(world.create("more")).await.refused(exhausted, TASKS);

    // What an agent delegates is the agent's to answer for.
    let part = |request_id: &str| v1::DelegateTaskRequest {
        parent: parent.clone(),
        request_id: request_id.to_owned(),
        agent: "spiffe://workloads.dev.example/agent/b".to_owned(),
        scope: vec![permission(FILES, "reports/q3", &["read"])],
        ..v1::DelegateTaskRequest::default()
    };
    for number in 0..3 {
        agent.delegate(part(&format!("part-{number}"))).await.ok();
    }
    agent.delegate(part("part-0")).await.ok();
    agent.delegate(part("part-3")).await.refused(exhausted, TASKS);
    let b = world.client(OTHER_AGENT).await;
    b.create(own(&world, "own")).await.ok();
    drop((orchestrator, agent, b));
    world.finish();
}

/// There are no budgets yet that siblings share, but what they may reach and the leases of whoever delegated them.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn d3_siblings_each_lie_within_the_parent_and_share_their_openers_quota() {
    let world = world(5, 100);
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let request = v1::CreateTaskRequest {
        scope: vec![permission(FILES, "reports/q3/**", &["read"])],
        ..world.create("open")
    };
    let parent = world.open_task(request).await.name;
    let part = |request_id: &str, resource: &str| v1::DelegateTaskRequest {
        parent: parent.clone(),
        request_id: request_id.to_owned(),
        agent: "spiffe://workloads.dev.example/agent/b".to_owned(),
        scope: vec![permission(FILES, resource, &["read"])],
        holder_key_thumbprint: Some(world.thumbprint(OTHER_AGENT)),
        ..v1::DelegateTaskRequest::default()
    };
    let mut siblings = Vec::new();
    for name in ["one", "two", "three"] {
        // However much the others were given, none is given what the parent does not have.
        let wider = part(&format!("{name}-wider"), "reports/**");
        a.delegate(wider).await.refused(Code::PermissionDenied, "scope_widens");
        let task = a.delegate(part(name, "reports/q3/**")).await.ok().task.unwrap();
        assert_eq!(task.scope, [permission(FILES, "reports/q3/**", &["read"])]);
        siblings.push(task.name);
    }
    let read = |task: &str, request_id: String| v1::IssueCredentialRequest {
        scope: vec![permission(FILES, "reports/q3/sales", &["read"])],
        ..issue(task, &request_id)
    };
    let exhausted = Code::ResourceExhausted;
    for number in 0..5 {
        b.issue(read(&siblings[number % 3], format!("{number}"))).await.ok();
    }
    for sibling in &siblings {
        b.issue(read(sibling, "more".to_owned())).await.refused(exhausted, LEASES);
    }
    // Who opened the parent answers for the parent alone.
    a.issue(read(&parent, "own".to_owned())).await.ok();
    drop((a, b));
    world.finish();
}
