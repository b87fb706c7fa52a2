//! DelegateTask: a task below another, for another agent. Privileges only shrink, and the end of the parent is the end
//! of the child.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use brevet_api::v1;
use brevet_core::fact::{Fact, TaskOpened};
use brevet_core::id::Id;
use tonic::Code;

use crate::world::{
    AGENT, Client, FILES, ORCHESTRATOR, OTHER_AGENT, RESOURCE_SERVER, STATUS, World, Written, claims, issue,
    permission, seconds,
};

const AGENT_A: &str = "spiffe://workloads.dev.example/agent/a";
const AGENT_B: &str = "spiffe://workloads.dev.example/agent/b";
const AGENT_C: &str = "spiffe://workloads.dev.example/agent/c";

/// A request for a part of a task that may read one report.
fn part(world: &World, parent: &str, request_id: &str) -> v1::DelegateTaskRequest {
    v1::DelegateTaskRequest {
        parent: parent.to_owned(),
        request_id: request_id.to_owned(),
        agent: AGENT_B.to_owned(),
        scope: vec![permission(FILES, "reports/q3", &["read"])],
        holder_key_thumbprint: Some(world.thumbprint(OTHER_AGENT)),
        ..v1::DelegateTaskRequest::default()
    }
}

/// Registers one more agent than the throw-away trust domain has, with all that the first may be given.
fn with_agent_c(config: &mut toml::Table, _: &Path) {
    let agents = config["agents"].as_array_mut().unwrap();
    let mut another = agents[0].clone();
    another["spiffe_id"] = AGENT_C.into();
    agents.push(another);
}

async fn delegated(client: &Client, request: v1::DelegateTaskRequest) -> v1::Task {
    client.delegate(request).await.ok().task.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_part_of_a_task_is_the_other_agents_and_says_whose_it_is() {
    let world = World::start();
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let parent = world.open_task(world.create("open")).await;
    let child = delegated(&a, part(&world, &parent.name, "part")).await;

    assert_eq!(child.parent, parent.name);
    assert!(child.name.starts_with(&format!("{}-", parent.name)), "{}", child.name);
    assert_eq!((child.agent.as_str(), child.opener.as_str()), (AGENT_B, AGENT_A));
    assert_eq!((&child.delegator, &child.tenant), (&parent.delegator, &parent.tenant));
    assert_eq!((&child.task_type, &child.purpose), (&parent.task_type, &parent.purpose));
    assert_eq!(child.sensitivity_max, parent.sensitivity_max);
    assert_eq!(child.prompt_origin, parent.prompt_origin);
    assert_eq!(child.scope, [permission(FILES, "reports/q3", &["read"])]);

    // Its tokens say the whole chain, the one who acts first, and the tasks from the root.
    let token = b.issued(&child.name, "one").await.token;
    let claims = claims(&token);
    assert_eq!(claims["sub"], AGENT_B);
    assert_eq!((&claims["act"]["sub"], &claims["act"]["act"]["sub"]), (&AGENT_B.into(), &AGENT_A.into()));
    let ids: Vec<&str> = child.name.strip_prefix("tasks/").unwrap().split('-').collect();
    assert_eq!(claims["task"], serde_json::json!(ids));
    assert_eq!(claims["cnf"]["jkt"], world.thumbprint(OTHER_AGENT));
    let answer = world.client(RESOURCE_SERVER).await.introspect(&token).await.ok();
    assert_eq!((answer.active, answer.agent.as_str(), &answer.task), (true, AGENT_B, &child.name));

    // Whoever owns the parent sees the child; its agent sees nothing of the parent.
    for owner in [&a, &world.client(ORCHESTRATOR).await] {
        assert_eq!(owner.get(&child.name).await.ok().live_leases, 1);
    }
    b.get(&parent.name).await.refused(Code::NotFound, "not_found");
    b.complete(&parent.name).await.refused(Code::NotFound, "not_found");
    // It can be drawn on by its own agent alone.
    a.issue(issue(&child.name, "parent")).await.refused(Code::PermissionDenied, "not_agent");
    b.issue(issue(&parent.name, "child")).await.refused(Code::NotFound, "not_found");
    drop((a, b));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn d1_a_child_ends_with_its_parent_at_the_latest() {
    let world = World::start();
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let request = v1::CreateTaskRequest { lifetime: seconds(60), ..world.create("open") };
    let parent = world.open_task(request).await;
    let end = parent.deadline.unwrap().seconds;
    for (request_id, lifetime) in
        [("default", None), ("long", seconds(86_400)), ("longest", seconds(i64::MAX)), ("short", seconds(5))]
    {
        let request = v1::DelegateTaskRequest { lifetime, ..part(&world, &parent.name, request_id) };
        let child = delegated(&a, request).await;
        let own = child.deadline.unwrap();
        assert!(own.nanos == 0 && own.seconds <= end, "{request_id}");
        assert_eq!(own.seconds < end, request_id == "short", "{request_id}");
        let asked = v1::IssueCredentialRequest { lifetime: seconds(3_600), ..issue(&child.name, request_id) };
        let credential = b.issue(asked).await.ok().credential.unwrap();
        assert!(credential.expire_time.unwrap().seconds <= own.seconds, "{request_id}");
    }
    drop((a, b));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn d2_a_child_reaches_no_further_than_its_parent_and_its_agent() {
    let world = World::with(with_agent_c);
    let a = world.client(AGENT).await;
    let (c, key_of_c) = world.instance(AGENT_C).await;
    let parent = v1::CreateTaskRequest {
        scope: vec![permission(FILES, "reports/q3/**", &["read"]), permission(STATUS, "health", &["read"])],
        ..world.create("open")
    };
    let parent = world.open_task(parent).await.name;
    let for_c = |request_id: &str, scope: Vec<v1::Permission>| v1::DelegateTaskRequest {
        agent: AGENT_C.to_owned(),
        scope,
        holder_key_thumbprint: Some(key_of_c.clone()),
        ..part(&world, &parent, request_id)
    };
    let denied = Code::PermissionDenied;
    for (request_id, wider) in [
        ("action", permission(FILES, "reports/q3/a", &["read", "write"])),
        ("resource", permission(FILES, "reports/q4", &["read"])),
        ("above", permission(FILES, "reports/**", &["read"])),
        ("itself", permission(FILES, "reports/q3", &["read"])),
        ("below", permission(STATUS, "health/**", &["read"])),
        ("audience", permission("https://ledger.dev.example", "entries/a", &["read"])),
    ] {
        // One good permission does not cover for a wider one.
        let scope = vec![permission(FILES, "reports/q3/a", &["read"]), wider];
        a.delegate(for_c(request_id, scope)).await.refused(denied, "scope_widens");
    }
    let sensitive =
        v1::DelegateTaskRequest { sensitivity_max: v1::Sensitivity::High.into(), ..for_c("high", vec![]) };
    a.delegate(sensitive).await.refused(denied, "delegation_widens");

    // The other agent's own ceiling holds as anywhere: it may read files of moderate sensitivity, and no more.
    let status = vec![permission(STATUS, "health", &["read"])];
    let for_b = v1::DelegateTaskRequest { scope: status.clone(), ..part(&world, &parent, "ceiling") };
    a.delegate(for_b).await.refused(denied, "scope_widens");

    // What lies within is delegated, down to nothing, and is no wider when it is drawn on.
    let child = delegated(&a, for_c("within", status)).await.name;
    c.issue(issue(&child, "files")).await.refused(denied, "scope_widens");
    let health = v1::IssueCredentialRequest {
        audience: STATUS.to_owned(),
        scope: vec![permission(STATUS, "health", &["read"])],
        ..issue(&child, "health")
    };
    c.issue(health).await.ok();
    let nothing = delegated(&a, for_c("nothing", vec![])).await.name;
    c.issue(issue(&nothing, "any")).await.refused(denied, "scope_widens");

    // Where the instruction came from can only get worse.
    let said = |request_id: &str, origin: v1::PromptOrigin| v1::DelegateTaskRequest {
        prompt_origin: origin.into(),
        ..for_c(request_id, vec![])
    };
    let better = delegated(&a, said("better", v1::PromptOrigin::System)).await;
    assert_eq!(better.prompt_origin(), v1::PromptOrigin::User);
    let worse = delegated(&a, said("worse", v1::PromptOrigin::Retrieved)).await;
    assert_eq!(worse.prompt_origin(), v1::PromptOrigin::Retrieved);
    drop((a, c));
    world.finish();
}

/// Policies permit by the type of a task, and an agent must not choose what it is permitted.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn d2_a_child_is_of_its_parents_type_or_one_that_the_registry_lets_its_agent_hand_on() {
    let world = World::with(|config, _| {
        let agent = config["agents"].as_array_mut().unwrap()[0].as_table_mut().unwrap();
        agent.insert("delegates".to_owned(), vec!["check"].into());
    });
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let root = world.open_task(world.create("open")).await;
    let of_type = |parent: &str, task_type: &str| v1::DelegateTaskRequest {
        task_type: task_type.to_owned(),
        ..part(&world, parent, task_type)
    };
    let denied = Code::PermissionDenied;
    a.delegate(of_type(&root.name, "deploy")).await.refused(denied, "task_type_widens");
    // To itself no more than to another.
    let to_itself = v1::DelegateTaskRequest {
        agent: AGENT_A.to_owned(),
        holder_key_thumbprint: Some(world.thumbprint(AGENT)),
        ..of_type(&root.name, "deploy")
    };
    a.delegate(to_itself).await.refused(denied, "task_type_widens");
    for own in ["", root.task_type.as_str()] {
        let request =
            v1::DelegateTaskRequest { request_id: format!("own-{own}"), ..of_type(&root.name, own) };
        assert_eq!(delegated(&a, request).await.task_type, root.task_type);
    }
    let handed_on = delegated(&a, of_type(&root.name, "check")).await;
    assert_eq!((handed_on.task_type.as_str(), &handed_on.purpose), ("check", &root.purpose));
    // Whoever works on it hands on that type, and not what the one above it may.
    let back = |task_type: &str| v1::DelegateTaskRequest {
        agent: AGENT_B.to_owned(),
        ..of_type(&handed_on.name, task_type)
    };
    b.delegate(back(&root.task_type)).await.refused(denied, "task_type_widens");
    drop((a, b));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn d4_nothing_is_delegated_deeper_than_the_limit() {
    let world = World::with(|config, folder| {
        with_agent_c(config, folder);
        config.insert("limits".to_owned(), toml::toml! { delegation_depth_max = 1 }.into());
    });
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let parent = world.open_task(world.create("open")).await.name;
    let child = delegated(&a, part(&world, &parent, "child")).await.name;
    let grandchild = v1::DelegateTaskRequest {
        agent: AGENT_C.to_owned(),
        holder_key_thumbprint: None,
        ..part(&world, &child, "grandchild")
    };
    b.delegate(grandchild).await.refused(Code::PermissionDenied, "delegation_depth_max");
    drop((a, b));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn d4_a_tree_has_so_many_tasks_under_any_interleaving() {
    let mut world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { tasks_per_tree_max = 5 }.into());
    });
    let agents = [world.client(AGENT).await, world.client(AGENT).await];
    let parent = world.open_task(world.create("open")).await.name;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (agent, request) = (agents[number % 2].clone(), part(&world, &parent, &format!("part-{number}")));
        calls.spawn(async move {
            let answer = agent.delegate(request).await;
            if answer.is_ok() {
                return answer.ok().task;
            }
            answer.refused(Code::ResourceExhausted, "tasks_per_tree_max");
            None
        });
    }
    let parts: Vec<v1::Task> = calls.join_all().await.into_iter().flatten().collect();
    assert_eq!(parts.len(), 4, "the root task is one of five");
    // What has ended is kept with the tree, and counts, after a restart too; and another tree has tasks of its own.
    world.client(ORCHESTRATOR).await.cancel(&parts[0].name).await.ok();
    drop(agents);
    world.daemon.kill();
    world.daemon.restart();
    let agent = world.client(AGENT).await;
    let more = agent.delegate(part(&world, &parent, "more")).await;
    more.refused(Code::ResourceExhausted, "tasks_per_tree_max");
    let other = world.open_task(world.create("other")).await.name;
    delegated(&agent, part(&world, &other, "more")).await;
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn d5_the_end_of_a_task_is_the_end_of_everything_below_it_in_one_record() {
    let mut world = World::with(with_agent_c);
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let (c, key_of_c) = world.instance(AGENT_C).await;
    let (orchestrator, server) = (world.client(ORCHESTRATOR).await, world.client(RESOURCE_SERVER).await);
    let parent = world.open_task(world.create("open")).await.name;
    let child = delegated(&a, part(&world, &parent, "child")).await.name;
    let sibling = delegated(&a, part(&world, &parent, "sibling")).await.name;
    let below = v1::DelegateTaskRequest {
        agent: AGENT_C.to_owned(),
        holder_key_thumbprint: Some(key_of_c),
        ..part(&world, &child, "below")
    };
    let grandchild = delegated(&b, below).await.name;

    let mut tokens = Vec::new();
    for (client, task) in [(&a, &parent), (&b, &child), (&b, &sibling), (&c, &grandchild)] {
        tokens.push(client.issued(task, "one").await.token);
    }
    // A sibling's end is its own.
    assert_eq!(a.complete(&sibling).await.ok().leases_ended, 1);
    for (token, lives) in tokens.iter().zip([true, true, false, true]) {
        assert_eq!(server.is_active(token).await, lives);
    }
    let ended = orchestrator.complete(&parent).await.ok();
    assert_eq!(ended.leases_ended, 3);
    for token in &tokens {
        let request =
            v1::IntrospectCredentialRequest { token: token.clone(), min_revision: Some(ended.revision) };
        assert!(!server.introspect_with(request).await.ok().active);
    }
    // Nothing more is had from any of them, by whichever way.
    let closed = Code::FailedPrecondition;
    b.issue(issue(&child, "two")).await.refused(closed, "task_closed");
    c.issue(issue(&grandchild, "two")).await.refused(closed, "task_closed");
    b.delegate(part(&world, &child, "three")).await.refused(closed, "task_closed");
    a.delegate(part(&world, &parent, "three")).await.refused(closed, "task_closed");
    let shown = orchestrator.get(&grandchild).await.ok();
    assert_eq!((shown.state(), shown.end_reason.as_str()), (v1::task::State::Completed, "task_ended"));

    // What comes after the refusals is durable, and so are they.
    world.open_task(world.create("flush")).await;
    drop((a, b, c, orchestrator, server));
    world.daemon.kill();
    world.daemon.restart();
    let server = world.client(RESOURCE_SERVER).await;
    for token in &tokens {
        assert!(!server.is_active(token).await, "a restart brings nothing back");
    }
    drop(server);
    let ended: Vec<String> = world
        .finish()
        .into_iter()
        .filter_map(|written| match written.fact {
            Fact::TaskEnded { task, .. } => Some(task.name()),
            Fact::LeasesEnded { .. } => panic!("leases ended apart from their task"),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [sibling, parent]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn d6_every_hop_is_a_record_of_its_own_linked_to_the_one_before() {
    let world = World::with(with_agent_c);
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let parent = world.open_task(world.create("open")).await.name;
    let child = delegated(&a, part(&world, &parent, "child")).await.name;
    delegated(&a, part(&world, &parent, "sibling")).await;
    let below = v1::DelegateTaskRequest {
        agent: AGENT_C.to_owned(),
        holder_key_thumbprint: None,
        ..part(&world, &child, "below")
    };
    delegated(&b, below).await;
    drop((a, b));

    let journal = world.finish();
    let opened = |written: &Written| match &written.fact {
        Fact::TaskOpened(hop) => Some((written.envelope.caller.clone(), Arc::clone(hop))),
        _ => None,
    };
    let opened: Vec<_> = journal.iter().filter_map(opened).collect();
    let hops: BTreeMap<Id, &TaskOpened> =
        opened.iter().map(|(_, hop)| (hop.id.node(), hop.as_ref())).collect();
    assert_eq!((opened.len(), hops.len()), (4, 4));
    for (caller, hop) in &opened {
        let above = hop.parent.map(|parent| hops[&parent]);
        assert_eq!(hop.hop, hop.hop_upon(above.map(|above| above.hop)), "{}", hop.id);
        // Who opened it is who asked, and that is the agent of the task above.
        assert_eq!(caller.as_ref(), Some(&hop.opener));
        assert!(above.is_none_or(|above| above.agent == hop.opener && above.depth + 1 == hop.depth));
        // Put below another task, or below none, it would be another hop.
        for other in hops.values().filter(|other| above.is_none_or(|above| other.id != above.id)) {
            assert_ne!(hop.hop, hop.hop_upon(Some(other.hop)));
        }
        assert_eq!(hop.hop == hop.hop_upon(None), hop.parent.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l8_a_part_is_delegated_by_the_holder_of_the_task_alone() {
    let world = World::start();
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let orchestrator = world.client(ORCHESTRATOR).await;
    let parent = world.open_task(world.create("open")).await.name;

    let replica = world.workload(AGENT_A).await;
    let answer = replica.delegate(part(&world, &parent, "replica")).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    b.delegate(part(&world, &parent, "other")).await.refused(Code::NotFound, "not_found");
    let answer = orchestrator.delegate(part(&world, &parent, "opener")).await;
    answer.refused(Code::PermissionDenied, "not_agent");
    let unknown = "tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz";
    a.delegate(part(&world, unknown, "unknown")).await.refused(Code::NotFound, "not_found");

    // Where the task waits for its claim, nobody holds it yet; then it is who redeemed it.
    let request = v1::CreateTaskRequest { holder_key_thumbprint: None, ..world.create("unbound") };
    let unbound = orchestrator.create(request).await.ok();
    let (claim, unbound) = (unbound.claim, unbound.task.unwrap().name);
    for (client, request_id) in [(&a, "unclaimed"), (&replica, "replica-unclaimed")] {
        let answer = client.delegate(part(&world, &unbound, request_id)).await;
        answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    }
    a.issue(v1::IssueCredentialRequest { claim, ..issue(&unbound, "claim") }).await.ok();
    let answer = replica.delegate(part(&world, &unbound, "replica-claimed")).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    delegated(&a, part(&world, &unbound, "claimed")).await;

    // Nor is it delegated to nobody, or to oneself.
    let to = |request_id: &str, agent: &str| v1::DelegateTaskRequest {
        agent: agent.to_owned(),
        ..part(&world, &parent, request_id)
    };
    let denied = Code::PermissionDenied;
    a.delegate(to("nobody", AGENT_C)).await.refused(denied, "not_registered");
    let orchestrators = "spiffe://workloads.dev.example/orchestrator";
    a.delegate(to("no-agent", orchestrators)).await.refused(denied, "not_registered");
    a.delegate(to("itself", AGENT_A)).await.refused(denied, "policy_denied");
    let malformed = a.delegate(to("malformed", "agent/b")).await;
    malformed.refused(Code::InvalidArgument, "invalid_argument");
    drop((a, b, orchestrator, replica));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l9_a_retried_delegation_gets_the_same_task_and_another_none() {
    let mut world = World::start();
    let a = world.client(AGENT).await;
    let parent = world.open_task(world.create("open")).await.name;
    let unbound = |request_id: &str| v1::DelegateTaskRequest {
        holder_key_thumbprint: None,
        ..part(&world, &parent, request_id)
    };
    let request = unbound("part");
    let first = a.delegate(request.clone()).await.ok();
    let (child, claim) = (first.task.unwrap(), first.claim.unwrap());
    let another = a.delegate(unbound("another")).await.ok();
    assert_ne!((&another.task.unwrap().name, &another.claim.unwrap()), (&child.name, &claim));
    drop(a);
    for restarts in 0..2 {
        if restarts > 0 {
            world.daemon.kill();
            world.daemon.restart();
        }
        let a = world.client(AGENT).await;
        let again = a.delegate(request.clone()).await.ok();
        assert_eq!((again.task.unwrap().name, again.claim.unwrap()), (child.name.clone(), claim.clone()));
        for (number, change) in [
            |it: &mut v1::DelegateTaskRequest| it.lifetime = seconds(60),
            |it: &mut v1::DelegateTaskRequest| it.scope = vec![],
            |it: &mut v1::DelegateTaskRequest| it.agent = AGENT_A.to_owned(),
            |it: &mut v1::DelegateTaskRequest| it.sensitivity_max = v1::Sensitivity::Low.into(),
        ]
        .into_iter()
        .enumerate()
        {
            let mut other = request.clone();
            change(&mut other);
            assert_ne!(other, request, "{number}");
            a.delegate(other).await.refused(Code::AlreadyExists, "request_id_reused");
        }
        // The refusals are not durable before something that comes after them is.
        a.issued(&parent, &format!("flush-{restarts}")).await;
    }

    // The claim is the child's: whoever redeems it first binds its key.
    let b = world.client(OTHER_AGENT).await;
    let with = |request_id: &str, claim: Option<String>| v1::IssueCredentialRequest {
        claim,
        ..issue(&child.name, request_id)
    };
    let answer = b.issue(with("without", None)).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    b.issue(with("first", Some(claim.clone()))).await.ok();
    let replica = world.workload(AGENT_B).await;
    let answer = replica.issue(with("second", Some(claim))).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    drop((b, replica));
    world.finish();
}

/// What was taken from an agent it does not get done by another.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn d2_no_agent_hands_on_what_it_may_no_longer_do_itself() {
    let world = World::start();
    let a = world.client(AGENT).await;
    let parent = world.open_task(world.create("open")).await.name;
    delegated(&a, part(&world, &parent, "before")).await;
    world.configure(|config| {
        let agent = config["agents"].as_array_mut().unwrap()[0].as_table_mut().unwrap();
        assert_eq!(agent["spiffe_id"].as_str(), Some(AGENT_A));
        agent.insert("scope".to_owned(), toml::Value::Array(Vec::new()));
    });
    world.daemon.hang_up();
    let mut tries = 0;
    let refused = loop {
        tries += 1;
        match a.delegate(part(&world, &parent, &format!("after-{tries}"))).await.result() {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(status) => break status,
        }
        assert!(tries < 60, "it hands on what was taken from it");
    };
    let reason = brevet_client::Refusal::from_status(&refused).reason;
    assert_eq!((refused.code(), reason.as_deref()), (Code::PermissionDenied, Some("SCOPE_WIDENS")));
    drop(a);
    world.stop();
}
