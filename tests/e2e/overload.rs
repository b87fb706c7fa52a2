//! What is too much: callers that call too often, a daemon that has too much to do, and deadlines of callers.

use std::collections::BTreeSet;
use std::fs;

use brevet_api::v1;
use brevet_api::v1::selector::Kind;
use brevet_core::fact::Fact;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt;

use crate::frames::{
    Attacker, DATA, END_HEADERS, END_STREAM, End, Frame, HEADERS, RST_STREAM, call as head, field, frame,
};
use crate::wire::{call, framed, tls_config};
use crate::world::{AGENT, Client, OPERATOR, ORCHESTRATOR, RESOURCE_SERVER, World, Written, issue};

const RATE: &str = "calls_per_second_per_caller_max";
const LOAD: &str = "calls_in_flight_max";

fn limited(limits: toml::Table) -> World {
    World::with(|config, _| drop(config.insert("limits".to_owned(), limits.into())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r5_u1_a_caller_that_calls_too_often_is_told_when_and_can_still_end_what_it_has() {
    // One that is used up stays so.
    let world = limited(toml::toml! {
        calls_per_second_per_caller_max = 1
        calls_burst_per_caller_max = 1000
        callers_remembered_max = 100
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
    while issue_again(&again).await.answered_or_refused(Code::ResourceExhausted, RATE) {
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
    // Room for one call leaves no part of it for any but the most urgent.
    let world = limited(toml::toml! {
        calls_in_flight_max = 1
        retry_delay_millis_min = 3000
        retry_delay_millis_max = 4000
        retry_delays_apart_millis = 500
    });
    let (agent, operator) = (world.client(AGENT).await, world.client(OPERATOR).await);
    let server = world.client(RESOURCE_SERVER).await;
    let full = Code::ResourceExhausted;
    let task = "tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz";
    let status = agent.get(task).await.refused(full, LOAD);
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!((2_990..=3_000).contains(&retry.as_millis()), "{retry:?}");
    let result = agent.issue(issue(task, "unread")).await.result();
    agent.answer("IssueCredential", None, result).refused(full, LOAD);
    agent.give_back("leases/none").await.refused(full, LOAD);
    agent.complete(task).await.refused(full, LOAD);
    server.introspect("token").await.refused(full, LOAD);
    // The emergency stop is let in, and over the root socket nothing is counted. Streams have limits of their own.
    operator.stop("stop", Kind::Tool("post".to_owned())).await.ok();
    let root = world.root().await;
    assert_eq!(root.list_locks(v1::ListLocksRequest::default()).await.ok().locks.len(), 1);
    drop(operator.tail(None).await.ok());
    let metrics = world.metrics().await;
    for class in ["read", "issue", "introspect"] {
        let counted = format!(r#"brevet_calls_turned_away_total{{class="{class}",reason="{LOAD}"}} 1"#);
        assert!(metrics.contains(&counted), "{class}: {metrics}");
    }
    drop((agent, operator, server, root));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r5_calls_that_wait_for_their_caller_take_no_room_and_no_turn() {
    let world = limited(toml::toml! {
        calls_in_flight_max = 16
        issues_at_once_max = 1
    });
    // Calls whose messages never come.
    let mut holder = Attacker::connect(&world, tls_config(&world), &[]).await;
    let methods = ["TaskService/CreateTask", "TaskService/GetTask", "CredentialService/IssueCredential"];
    for (number, method) in methods.into_iter().cycle().take(96).enumerate() {
        let stream = u32::try_from(number).unwrap() * 2 + 1;
        let headers = head(&format!("/brevet.v1.{method}"));
        assert!(holder.send(&frame(HEADERS, END_HEADERS, stream, &headers)).await);
    }
    // More than the window of a connection holds waits for one turn.
    let orchestrator = world.client(ORCHESTRATOR).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..8 {
        let request =
            v1::CreateTaskRequest { purpose: "p".repeat(60_000), ..world.create(&format!("{number}")) };
        let client = orchestrator.clone();
        calls.spawn(async move {
            client.create(request).await.refused(Code::InvalidArgument, "invalid_argument")
        });
    }
    calls.join_all().await;
    let task = world.open_task(world.create("open")).await.name;
    world.client(AGENT).await.issued(&task, "one").await;
    drop((holder, orchestrator));
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r1_what_has_come_of_messages_without_end_is_counted_by_caller() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { calls_unfinished_per_caller_max = 4 }.into());
        // Whoever is refused is told so when it has sent all, or when it has not for so long.
        config["grpc"].as_table_mut().unwrap().insert("call_refused_seconds_max".to_owned(), 1.into());
    });
    let mut holder = Attacker::connect(&world, tls_config(&world), &[]).await;
    let begin = |number: u32| {
        let headers = head("/brevet.v1.TaskService/CreateTask");
        let stream = number * 2 + 1;
        [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, 0, stream, &[0])].concat()
    };
    let mut begun = 6;
    for number in 0..begun {
        assert!(holder.send(&begin(number)).await);
    }
    let is_refusal = |frame: &Frame| frame.kind == HEADERS && frame.flags & END_STREAM != 0;
    let mut too_many = BTreeSet::new();
    while too_many.len() < 2 {
        let frame = holder.next().await.expect("an answer to those that are too many");
        too_many.extend(is_refusal(&frame).then_some(frame.stream));
    }
    let mut refused = 2;
    // What is given up makes room, and nobody else is held up.
    let held = (0..begun).map(|number| number * 2 + 1).filter(|stream| !too_many.contains(stream));
    let reset: Vec<_> = held.take(2).map(|stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).collect();
    assert!(holder.send(&reset.concat()).await);
    // What was reset is dropped by tasks of its own, and what is too many is refused by others. However they take their
    // turns, two more find room in the end, and whatever else is begun is refused.
    let mut tries = 0;
    while begun < 9 || begun - refused != 6 {
        if begun < 9 || begun - refused < 6 {
            assert!(holder.send(&begin(begun)).await);
            begun += 1;
        }
        world.open_task(world.create(&format!("between-{tries}"))).await;
        let (end, seen) = holder.end().await;
        assert_eq!(end, End::Alive);
        refused += u32::try_from(seen.iter().filter(|frame| is_refusal(frame)).count()).unwrap();
        tries += 1;
        assert!(tries < 400, "{begun} begun, {refused} refused");
    }
    drop(holder);
    let too_many = |written: &&Written| match &written.fact {
        Fact::Denied { reason, .. } => reason.as_str() == "calls_unfinished_per_caller_max",
        _ => false,
    };
    assert_eq!(world.stop().iter().filter(too_many).count(), usize::try_from(refused).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r5_whoever_is_refused_before_its_message_has_come_keeps_its_connection() {
    let world = limited(toml::toml! {
        calls_per_second_per_caller_max = 1
        calls_burst_per_caller_max = 1
    });
    let mut hasty = Attacker::connect(&world, tls_config(&world), &[]).await;
    let calls: Vec<u32> = (0..40).map(|number| number * 2 + 1).collect();
    let headers = head("/brevet.v1.TaskService/ListTasks");
    for stream in &calls {
        assert!(hasty.send(&frame(HEADERS, END_HEADERS, *stream, &headers)).await);
    }
    assert_eq!(hasty.end().await.0, End::Alive, "its headers are read");
    for stream in &calls {
        assert!(hasty.send(&frame(DATA, END_STREAM, *stream, &framed(&[]))).await);
    }
    let mut answered = 0;
    while answered < calls.len() {
        let frame = hasty.next().await.expect("an answer to each call");
        assert_ne!(frame.kind, RST_STREAM, "{frame:?}");
        answered += usize::from(frame.kind == HEADERS && frame.flags & END_STREAM != 0);
    }
    assert_eq!(hasty.end().await.0, End::Alive);
    drop(hasty);
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

/// What the kernel says of the threads with this name of a process, in a file of theirs.
fn threads(process: u32, name: &str, file: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|thread| thread.unwrap().path());
    // One that has just ended says nothing.
    let own =
        threads.filter(|thread| fs::read_to_string(thread.join("comm")).unwrap_or_default().trim() == name);
    own.filter_map(|thread| fs::read_to_string(thread.join(file)).ok()).collect()
}

/// How often they were given a core (the third number of the kernel's Documentation/scheduler/sched-stats.rst).
fn turns(process: u32, name: &str) -> u64 {
    let of_thread = |stat: &String| stat.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap();
    threads(process, name, "schedstat").iter().map(of_thread).sum()
}

/// How nice they are (proc_pid_stat(5): the 17th field behind the name).
fn niceness(process: u32, name: &str) -> BTreeSet<i64> {
    let of_thread = |stat: &String| {
        let (_, behind) = stat.rsplit_once(") ").unwrap();
        behind.split(' ').nth(16).unwrap().parse().unwrap()
    };
    threads(process, name, "stat").iter().map(of_thread).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r5_whoever_may_stop_others_waits_for_nobody_elses_threads() {
    const CALLS: u64 = 50;
    let world = World::with(|config, _| {
        config["grpc"].as_table_mut().unwrap().insert("stop_connections_per_caller_max".to_owned(), 1.into());
    });
    let (agent, operator, root) =
        (world.client(AGENT).await, world.client(OPERATOR).await, world.root().await);
    let task = world.open_task(world.create("open")).await.name;
    let preview = || v1::RevokeLeasesRequest {
        selector: Some(v1::Selector { kind: Some(Kind::Task(task.clone())) }),
        validate_only: true,
        ..v1::RevokeLeasesRequest::default()
    };
    // The caller has its place when it has been answered.
    operator.revoke_leases(preview()).await.ok();
    let beyond = world.client(OPERATOR).await;
    let address = world.endpoints().grpc.trim_start_matches("https://").to_owned();
    let names = ["stops", "root", "everybody", "strangers"];
    // Also threads that are made by threads, as whatever takes long makes them.
    for _ in 0..3 {
        agent.list(v1::ListTasksRequest::default()).await.ok();
    }
    let niceness = names.map(|name| niceness(world.daemon.id(), name));
    let own = *niceness[0].first().unwrap();
    assert_eq!(niceness, [own, own, own + 5, own + 10].map(|nice| BTreeSet::from([nice])));

    // A call that is answered before the next comes takes a turn at least of each thread that has to do with it.
    let mut before = [0; 4];
    let mut busy = || {
        let now = names.map(|name| turns(world.daemon.id(), name));
        let since = std::mem::replace(&mut before, now);
        let turns = (0..4).map(|thread| now[thread].saturating_sub(since[thread]));
        turns.zip(names).filter(|(turns, _)| *turns >= CALLS / 2).map(|(_, name)| name).collect::<Vec<_>>()
    };
    busy();
    for _ in 0..CALLS {
        agent.get(&task).await.ok();
    }
    assert_eq!(busy(), ["everybody"]);
    for _ in 0..CALLS {
        operator.revoke_leases(preview()).await.ok();
    }
    assert_eq!(busy(), ["stops"]);
    for _ in 0..CALLS {
        beyond.revoke_leases(preview()).await.ok();
    }
    assert_eq!(busy(), ["everybody"], "who has no room there is served all the same");
    for _ in 0..CALLS {
        operator.list_locks(v1::ListLocksRequest::default()).await.ok();
    }
    assert_eq!(busy(), ["stops", "everybody"], "what is no stop is not done by the threads of stops");
    for _ in 0..CALLS {
        root.lift("locks/00000000000000000000000000").await.refused(Code::NotFound, "not_found");
    }
    assert_eq!(busy(), ["root"]);
    for _ in 0..CALLS {
        let mut stranger = TcpStream::connect(&address).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        // The alert that says why.
        assert_eq!(stranger.read_u8().await.unwrap(), 21);
    }
    assert_eq!(busy(), ["strangers"]);
    drop((agent, operator, beyond, root));
    world.finish();
}
