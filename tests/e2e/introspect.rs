//! `RevocationService`: whether a token is live, for the workloads that enforce its audience and for nobody else.

use brevet_api::v1;
use tonic::Code;

use crate::world::{
    AGENT, ORCHESTRATOR, OTHER_AGENT, RESOURCE_SERVER, STATUS, World, eventually, issue, now, permission,
    seconds,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t7_only_the_enforcer_of_an_audience_learns_of_its_tokens() {
    let world = World::with(|config, _| {
        let audiences = config["audiences"].as_array_mut().unwrap();
        audiences[1]["enforcers"] = toml::Value::from(vec!["spiffe://workloads.dev.example/status-server"]);
    });
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    let files = agent.issue(issue(&task, "files")).await.ok().credential.unwrap().token;
    let status = v1::IssueCredentialRequest {
        audience: STATUS.to_owned(),
        scope: vec![permission(STATUS, "health", &["read"])],
        ..issue(&task, "status")
    };
    let status = agent.issue(status).await.ok().credential.unwrap().token;

    let files_server = world.client(RESOURCE_SERVER).await;
    let status_server = world.workload("spiffe://workloads.dev.example/status-server").await;
    assert!(files_server.is_active(&files).await);
    assert!(status_server.is_active(&status).await);
    let mut strangers = vec![(files_server, &status), (status_server, &files)];
    for name in [AGENT, OTHER_AGENT, ORCHESTRATOR, "operator"] {
        strangers.push((world.client(name).await, &files));
    }
    for (client, token) in strangers {
        let answer = client.introspect(token).await.ok();
        let revision = answer.revision;
        assert_eq!(
            answer,
            v1::IntrospectCredentialResponse { active: false, revision, ..Default::default() }
        );
    }
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_live_token_of_this_broker_is_inactive() {
    let (world, other) = (World::start(), World::start());
    let task = world.open_task(world.create("open")).await.name;
    let token = world.client(AGENT).await.issue(issue(&task, "one")).await.ok().credential.unwrap().token;
    let server = world.client(RESOURCE_SERVER).await;
    assert!(server.is_active(&token).await);

    let foreign = other.open_task(other.create("open")).await.name;
    let foreign =
        other.client(AGENT).await.issue(issue(&foreign, "one")).await.ok().credential.unwrap().token;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let none = base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        br#"{"alg":"none","typ":"at+jwt"}"#,
    );
    let flipped: String = signature
        .chars()
        .enumerate()
        .map(|(at, c)| if at == 9 { if c == 'A' { 'B' } else { 'A' } } else { c })
        .collect();
    for (what, bad) in [
        ("another broker's", foreign),
        ("garbage", "garbage".to_owned()),
        ("dots", "..".to_owned()),
        ("unsigned", format!("{signed}.")),
        ("alg none", format!("{none}.{payload}.")),
        ("another signature", format!("{signed}.{flipped}")),
        ("padding", format!("{token}=")),
        ("a line end", format!("{token}\n")),
        ("another part", format!("{token}.{payload}")),
        ("no header", format!(".{payload}.{signature}")),
        ("swapped", format!("{payload}.{header}.{signature}")),
        ("control characters", "\u{0}\u{1b}[2J\u{202e}".to_owned()),
        ("long", "a.".repeat(20_000)),
    ] {
        assert!(!server.is_active(&bad).await, "{what}");
    }
    assert!(server.is_active(&token).await);
    let empty = server.introspect("").await;
    empty.refused(Code::InvalidArgument, "invalid_argument");
    drop(server);
    world.finish();
    other.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t2_an_answer_contains_what_the_caller_knows_or_there_is_none() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let token = world.client(AGENT).await.issue(issue(&task, "one")).await.ok().credential.unwrap().token;
    let server = world.client(RESOURCE_SERVER).await;
    let asking = |min_revision: u64| v1::IntrospectCredentialRequest {
        token: token.clone(),
        min_revision: Some(min_revision),
    };
    let answer = server.introspect(&token).await.ok();
    assert!(server.introspect_with(asking(answer.revision)).await.ok().active);
    for future in [answer.revision + 1_000, u64::MAX] {
        server.introspect_with(asking(future)).await.refused(Code::Unavailable, "revision_not_reached");
    }
    let ended = world.client(ORCHESTRATOR).await.complete(&task).await.ok().revision;
    let answer = server.introspect_with(asking(ended)).await.ok();
    assert!(!answer.active);
    assert!(answer.revision >= ended, "{} {ended}", answer.revision);
    drop(server);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l3_a_lease_dies_at_its_end_by_itself() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let (agent, server) = (world.client(AGENT).await, world.client(RESOURCE_SERVER).await);
    let request = v1::IssueCredentialRequest { lifetime: seconds(2), ..issue(&task, "one") };
    let credential = agent.issue(request.clone()).await.ok().credential.unwrap();
    let end = credential.expire_time.unwrap();
    assert_eq!(end.nanos, 0);
    eventually("the lease is dead", || async {
        let before = now().seconds();
        let active = server.is_active(&credential.token).await;
        let after = now().seconds();
        // Live before its end, dead from it on; in between the answer may be either.
        let end = u64::try_from(end.seconds).unwrap();
        assert!(
            if after < end { active } else { before < end || !active },
            "{before} {end} {after} {active}"
        );
        !active
    })
    .await;
    agent.issue(request).await.refused(Code::FailedPrecondition, "lease_ended");
    assert_eq!(agent.get(&task).await.ok().live_leases, 0);
    drop((agent, server));
    let journal = world.finish();
    assert!(!journal.is_empty());
}
