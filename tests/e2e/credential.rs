//! `CredentialService`: what is issued, what is refused, and what a retry gets.

use brevet_api::v1;
use brevet_core::fact::Fact;
use tonic::Code;

use crate::world::{AGENT, FILES, ORCHESTRATOR, RESOURCE_SERVER, STATUS, World, claims, issue, permission};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_task_token_says_what_was_asked_for_and_nothing_more() {
    let world = World::start();
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await;
    let mut request = issue(&task.name, "one");
    request.bind_certificate = true;
    let credential = agent.issue(request).await.ok().credential.unwrap();
    assert_eq!(credential.audience, FILES);
    assert_eq!(credential.scope, [permission(FILES, "reports/q3", &["read"])]);

    let claims = claims(&credential.token);
    assert_eq!(claims["iss"], "https://broker.dev.example");
    assert_eq!(claims["aud"], FILES);
    assert_eq!(claims["sub"], "spiffe://workloads.dev.example/agent/a");
    assert_eq!(claims["cnf"]["jkt"], world.thumbprint(AGENT));
    assert!(claims["cnf"]["x5t#S256"].is_string());
    assert_eq!(claims["exp"], credential.expire_time.unwrap().seconds);
    assert_eq!(claims["rev"], credential.revision);
    let jti = claims["jti"].as_str().unwrap();
    assert!(credential.lease.ends_with(jti), "{} {jti}", credential.lease);

    let answer = world.client(RESOURCE_SERVER).await.introspect(&credential.token).await.ok();
    assert!(answer.active);
    assert_eq!((answer.lease, answer.task), (credential.lease, task.name));
    assert_eq!((answer.audience.as_str(), answer.scope), (FILES, credential.scope));
    assert_eq!(answer.holder_key_thumbprint, world.thumbprint(AGENT));
    assert_eq!(answer.expire_time, credential.expire_time);
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_issued_beyond_the_task() {
    let world = World::start();
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await.name;
    let denied = Code::PermissionDenied;
    let asking = |request_id: &str, audience: &str, scope: Vec<v1::Permission>| v1::IssueCredentialRequest {
        audience: audience.to_owned(),
        scope,
        ..issue(&task, request_id)
    };

    for (request_id, audience, wider) in [
        ("action", FILES, permission(FILES, "reports/q3", &["read", "write"])),
        ("resource", FILES, permission(FILES, "secrets", &["read"])),
        ("parent", FILES, permission(FILES, "reports", &["read"])),
        ("prefix", FILES, permission(FILES, "reports2/q3", &["read"])),
        ("below", STATUS, permission(STATUS, "health/**", &["read"])),
        ("unknown", "https://unknown.example", permission("https://unknown.example", "a", &["read"])),
    ] {
        let request = asking(request_id, audience, vec![wider]);
        agent.issue(request).await.refused(denied, "scope_widens");
    }
    // One good permission does not cover for a wider one, and two do not make a third.
    let both = vec![permission(FILES, "reports/q3", &["read"]), permission(FILES, "reports/q3", &["write"])];
    agent.issue(asking("both", FILES, both)).await.refused(denied, "scope_widens");

    let shape = Code::InvalidArgument;
    agent.issue(asking("empty", FILES, vec![])).await.refused(shape, "invalid_argument");
    let other = vec![permission(STATUS, "health", &["read"])];
    agent.issue(asking("mismatch", FILES, other.clone())).await.refused(shape, "invalid_argument");
    let two = vec![permission(FILES, "reports/q3", &["read"]), other[0].clone()];
    agent.issue(asking("two", FILES, two)).await.refused(shape, "invalid_argument");

    // The opener sees the task and is still not its agent; where the instruction came from can only make it worse.
    let orchestrator = world.client(ORCHESTRATOR).await;
    orchestrator.issue(issue(&task, "opener")).await.refused(denied, "not_agent");
    agent.issue(asking("status", STATUS, other)).await.ok();
    drop((agent, orchestrator));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l9_a_retry_gets_the_same_credential_across_a_restart_and_another_request_none() {
    let mut world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    let first = agent.issue(issue(&task, "one")).await.ok().credential.unwrap();
    let second = agent.issue(issue(&task, "two")).await.ok().credential.unwrap();
    assert_ne!(first.lease, second.lease);
    let others: [&dyn Fn(&mut v1::IssueCredentialRequest); 5] = [
        &|it| it.scope = vec![permission(FILES, "reports/q4", &["read"])],
        &|it| it.lifetime = crate::world::seconds(7),
        &|it| it.bind_certificate = true,
        &|it| it.prompt_origin = v1::PromptOrigin::Untrusted.into(),
        &|it| {
            it.audience = STATUS.to_owned();
            it.scope = vec![permission(STATUS, "health", &["read"])];
        },
    ];
    for restarts in 0..3 {
        if restarts > 0 {
            world.daemon.kill();
            world.daemon.restart();
        }
        let agent = world.client(AGENT).await;
        for change in others {
            let mut other = issue(&task, "one");
            change(&mut other);
            agent.issue(other).await.refused(Code::AlreadyExists, "request_id_reused");
        }
        // What comes after them is durable, and so are they.
        agent.issue(issue(&task, &format!("flush-{restarts}"))).await.ok();
        let again = agent.issue(issue(&task, "one")).await.ok().credential.unwrap();
        let same = |of: fn(&v1::Credential) -> serde_json::Value| assert_eq!(of(&again), of(&first));
        same(|it| claims(&it.token));
        same(|it| it.lease.clone().into());
        same(|it| it.revision.into());
        assert_eq!(again.expire_time, first.expire_time);
        assert_eq!(agent.get(&task).await.ok().live_leases, 3 + restarts);
    }
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l10_a_request_that_is_answered_with_an_error_leaves_no_lease() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { leases_live_per_task_max = 1 }.into());
    });
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    let task = world.open_task(world.create("open")).await.name;
    let wide = v1::IssueCredentialRequest {
        scope: vec![permission(FILES, "reports/q3", &["delete"])],
        ..issue(&task, "wide")
    };
    agent.issue(wide).await.refused(Code::PermissionDenied, "scope_widens");
    let malformed = v1::IssueCredentialRequest { profile: 0, ..issue(&task, "malformed") };
    agent.issue(malformed).await.refused(Code::InvalidArgument, "invalid_argument");
    orchestrator.issue(issue(&task, "opener")).await.refused(Code::PermissionDenied, "not_agent");
    let replica = world.workload("spiffe://workloads.dev.example/agent/a").await;
    let answer = replica.issue(issue(&task, "replica")).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    agent.issue(issue(&task, "good")).await.ok();
    agent.issue(issue(&task, "quota")).await.refused(Code::ResourceExhausted, "leases_live_per_task_max");
    let other = v1::IssueCredentialRequest { bind_certificate: true, ..issue(&task, "good") };
    agent.issue(other).await.refused(Code::AlreadyExists, "request_id_reused");
    orchestrator.complete(&task).await.ok();
    agent.issue(issue(&task, "closed")).await.refused(Code::FailedPrecondition, "task_closed");
    drop((orchestrator, agent, replica));
    let issued: Vec<_> = world
        .finish()
        .into_iter()
        .filter(|written| matches!(written.fact, Fact::LeaseIssued { .. }))
        .map(|written| written.envelope.request_id.unwrap().to_string())
        .collect();
    assert_eq!(issued, ["good"]);
}
