//! What is too much: callers that call too often, a daemon that has too much to do, and deadlines of callers.

use brevet_api::v1;
use brevet_api::v1::selector::Kind;
use brevet_core::fact::Fact;
use tonic::Code;
use tonic_types::StatusExt;

use crate::frames::{Attacker, END_HEADERS, END_STREAM, HEADERS, call as head, field, frame};
use crate::wire::{call, framed, tls_config};
use crate::world::{
    AGENT, Client, OPERATOR, ORCHESTRATOR, RESOURCE_SERVER, World, Written, eventually, issue,
};

const RATE: &str = "calls_per_second_per_caller_max";
const LOAD: &str = "calls_in_flight_max";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r5_u1_a_caller_that_calls_too_often_is_told_when_and_can_still_end_what_it_has() {
    let world = World::with(|config, _| {
        // One that is used up stays so.
        let limits = toml::toml! {
            calls_per_second_per_caller_max = 1
            calls_burst_per_caller_max = 1000
            callers_remembered_max = 100
        };
        config.insert("limits".to_owned(), limits.into());
    });
    let task = world.open_task(world.create("open")).await.name;
    let (agent, again) = (world.client(AGENT).await, world.client(AGENT).await);
    let kept = agent.issued(&task, "kept").await;
    // Names of requests may be used again, so that nothing else is used up.
    let mut made = 1;
    // A call that is too much is not read, so that its record has no name.
    let issue_again = async |client: &Client| {
        let result = client.issue(issue(&task, "kept")).await.result();
        client.answer("IssueCredential", None, result)
    };
    let refused = loop {
        let answer = issue_again(&agent).await;
        if !answer.is_ok() {
            break answer;
        }
        answer.ok();
        made += 1;
    };
    assert!(made >= 1_000, "{made}");
    let status = refused.refused(Code::ResourceExhausted, RATE);
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!(!retry.is_zero() && retry.as_secs() <= 1, "{retry:?}");
    assert!(world.metrics().await.contains(
        r#"brevet_calls_turned_away_total{class="issue",reason="calls_per_second_per_caller_max"} 1"#
    ));
    // Neither another connection nor another method that makes something new has a bucket of its own; what ends and what
    // reads has.
    let mut tries = 0;
    while issue_again(&again).await.is_ok_or_refused(Code::ResourceExhausted, RATE) {
        tries += 1;
        assert!(tries < 100, "another connection is another caller");
    }
    agent.get(&task).await.ok();
    agent.give_back(&kept.lease).await.ok();
    // What one uses up is nobody else's.
    world.open_task(world.create("other")).await;
    world.client(ORCHESTRATOR).await.complete(&task).await.ok();
    drop((agent, again));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r5_u1_under_overload_what_matters_least_is_refused_first() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { calls_in_flight_max = 16 }.into());
    });
    let task = world.open_task(world.create("open")).await.name;
    let (agent, operator) = (world.client(AGENT).await, world.client(OPERATOR).await);
    let server = world.client(RESOURCE_SERVER).await;
    let token = agent.issued(&task, "one").await.token;
    // Calls whose messages never come are in flight until their deadline.
    let mut holder = Attacker::connect(&world, tls_config(&world), &[]).await;
    let mut held = 0;
    let mut hold = async |count: u32, path: &str| {
        for _ in 0..count {
            assert!(holder.send(&frame(HEADERS, END_HEADERS, held * 2 + 1, &head(path))).await);
            held += 1;
        }
    };
    hold(8, "/brevet.v1.TaskService/GetTask").await;
    eventually("reading is refused", || async {
        !agent.get(&task).await.is_ok_or_refused(Code::ResourceExhausted, LOAD)
    })
    .await;
    agent.issued(&task, "two").await;
    hold(4, "/brevet.v1.CredentialService/IssueCredential").await;
    eventually("issuing is refused", || async {
        !agent.issue(issue(&task, "two")).await.is_ok_or_refused(Code::ResourceExhausted, LOAD)
    })
    .await;
    let lease = agent.give_back("leases/none").await;
    lease.refused(Code::InvalidArgument, "invalid_argument");
    hold(2, "/brevet.v1.TaskService/CompleteTask").await;
    eventually("completing is refused", || async {
        !agent.give_back("leases/none").await.is_ok_or_refused(Code::ResourceExhausted, LOAD)
    })
    .await;
    assert!(server.is_active(&token).await);
    hold(1, "/brevet.v1.RevocationService/IntrospectCredential").await;
    eventually("introspection is refused", || async {
        !server.introspect(&token).await.is_ok_or_refused(Code::ResourceExhausted, LOAD)
    })
    .await;
    // The emergency stop has the last place for itself, and over the root socket none is needed.
    operator.stop("stop", Kind::Tool("post".to_owned())).await.ok();
    hold(1, "/brevet.v1.LockService/CreateLock").await;
    let root = world.root().await;
    root.list_locks(v1::ListLocksRequest::default()).await.ok();
    drop(holder);
    eventually("there is room again", || async {
        agent.get(&task).await.is_ok_or_refused(Code::ResourceExhausted, LOAD)
    })
    .await;
    drop((agent, operator, server, root));
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_a_callers_deadline_is_kept_where_it_is_one_and_refused_where_it_is_none() {
    let world = World::start();
    let client = world.client(AGENT).await;
    let list = "/brevet.v1.TaskService/ListTasks";
    for timeout in ["1H", "99999999H", "30S", "00030000m", "99999999u"] {
        let result = call(&client, list, &[("grpc-timeout", timeout)], framed(&[])).await;
        client.answer("ListTasks", None, result).ok();
    }
    for timeout in ["-1S", "+1S", "999999999S", "1.5S", "1s", "S", "", "1", "1 S", "\u{663}S"] {
        let result = call(&client, list, &[("grpc-timeout", timeout)], framed(&[])).await;
        client.answer("ListTasks", None, result).refused(Code::InvalidArgument, "timeout_malformed");
    }
    drop(client);
    // Those that a client of ours would not send. The daemon's own limit is half a minute.
    let mut attacker = Attacker::connect(&world, tls_config(&world), &[]).await;
    let mut ended = 0;
    for (number, timeout) in ["0n", "0H", "00000000m", "1n", "1m", "200000u"].into_iter().enumerate() {
        let stream = u32::try_from(number).unwrap() * 2 + 1;
        let headers = [head(list), field("grpc-timeout", timeout)].concat();
        assert!(attacker.send(&frame(HEADERS, END_HEADERS, stream, &headers)).await);
    }
    while ended < 6 {
        let frame = attacker.next().await.expect("an answer to each call");
        ended += usize::from(frame.kind == HEADERS && frame.flags & END_STREAM != 0);
    }
    drop(attacker);
    let late = |written: &&Written| match &written.fact {
        Fact::Denied { reason, .. } => reason.as_str() == "deadline_exceeded",
        _ => false,
    };
    assert_eq!(world.stop().iter().filter(late).count(), 6);
}
