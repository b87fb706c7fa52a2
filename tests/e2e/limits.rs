//! Lifetimes and quotas.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use brevet_api::v1;
use brevet_core::fact::{DenialClass, Fact};
use brevet_testkit::daemon::Daemon;
use tonic::Code;

use crate::world::{
    AGENT, Client, ORCHESTRATOR, RESOURCE_SERVER, STATUS, World, Written, binary, claims, eventually, issue,
    permission, seconds,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l3_a_credential_ends_with_its_lease_within_its_task_on_a_whole_second() {
    let world = World::start();
    let agent = world.client(AGENT).await;
    let short =
        world.open_task(v1::CreateTaskRequest { lifetime: seconds(20), ..world.create("short") }).await;
    let long =
        world.open_task(v1::CreateTaskRequest { lifetime: seconds(i64::MAX), ..world.create("long") }).await;
    let life = |task: &v1::Task| task.deadline.unwrap().seconds - task.create_time.unwrap().seconds;
    assert!((19..=20).contains(&life(&short)));
    assert!((86_399..=86_400).contains(&life(&long)));

    for (number, (task, asked, most)) in [
        (&short, None, 20),
        (&short, seconds(19), 19),
        (&short, seconds(i64::MAX), 20),
        (&long, None, 300),
        // A life of one second may have only a moment left when it is handed over.
        (&long, seconds(2), 2),
        (&long, seconds(3_600), 3_600),
        (&long, seconds(3_601), 3_600),
        (&long, seconds(315_576_000_000), 3_600),
    ]
    .into_iter()
    .enumerate()
    {
        let request =
            v1::IssueCredentialRequest { lifetime: asked, ..issue(&task.name, &format!("{number}")) };
        let credential = agent.issue(request).await.ok().credential.unwrap();
        let claims = claims(&credential.token);
        let (issued, end) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert_eq!(i64::try_from(end).unwrap(), credential.expire_time.unwrap().seconds);
        assert_eq!(credential.expire_time.unwrap().nanos, 0);
        assert!(i64::try_from(end).unwrap() <= task.deadline.unwrap().seconds, "{number}");
        assert!(end > issued && end - issued <= most, "{number}: {issued} {end}");
    }
    // An audience that learns of no revocation has its own limit.
    let request = v1::IssueCredentialRequest {
        audience: STATUS.to_owned(),
        scope: vec![permission(STATUS, "health", &["read"])],
        lifetime: seconds(3_600),
        ..issue(&long.name, "status")
    };
    let claims = claims(&agent.issue(request).await.ok().credential.unwrap().token);
    assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 60);
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_lifetime_is_shorter_than_a_second() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    for (number, (seconds, nanos)) in [
        (5, 999_999_999),
        (0, 0),
        (0, 999_999_999),
        (-1, 0),
        (i64::MIN, 0),
        (1, -1),
        (1, 1_000_000_000),
        (1, i32::MAX),
        (1, i32::MIN),
    ]
    .into_iter()
    .enumerate()
    {
        let lifetime = Some(prost_types::Duration { seconds, nanos });
        let request = v1::CreateTaskRequest { lifetime, ..world.create(&format!("task-{number}")) };
        orchestrator.create(request).await.refused(Code::InvalidArgument, "invalid_argument");
        let request = v1::IssueCredentialRequest { lifetime, ..issue(&task, &format!("lease-{number}")) };
        agent.issue(request).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    drop((orchestrator, agent));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_task_ends_at_its_deadline_by_itself() {
    let world = World::start();
    let request = v1::CreateTaskRequest { lifetime: seconds(3), ..world.create("open") };
    let task = world.open_task(request).await.name;
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    let token = agent.issue(issue(&task, "one")).await.ok().credential.unwrap().token;
    eventually("the task has expired", || async {
        orchestrator.get(&task).await.ok().state() == v1::task::State::Expired
    })
    .await;
    assert!(!world.client(RESOURCE_SERVER).await.is_active(&token).await);
    agent.issue(issue(&task, "two")).await.refused(Code::FailedPrecondition, "task_closed");
    orchestrator.complete(&task).await.refused(Code::FailedPrecondition, "task_closed");
    drop((orchestrator, agent));
    world.finish();
}

/// Asks for many credentials at once and gives how many were issued; the rest must be refused for the quota.
async fn issue_at_once(clients: &[Client], task: &str, count: usize) -> usize {
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..count {
        let client = clients[number % clients.len()].clone();
        let request = issue(task, &format!("request-{number}"));
        calls.spawn(async move {
            let answer = client.issue(request).await;
            if answer.is_ok() {
                answer.ok();
                return 1;
            }
            answer.refused(Code::ResourceExhausted, "leases_live_per_task_max");
            0
        });
    }
    calls.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l11_of_two_hundred_at_once_exactly_the_quota_is_issued() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(world.client(AGENT).await);
    }
    assert_eq!(issue_at_once(&clients, &task, 200).await, 64);
    assert_eq!(clients[0].get(&task).await.ok().live_leases, 64);
    // Another task has a quota of its own.
    let other = world.open_task(world.create("other")).await.name;
    clients[0].issue(issue(&other, "one")).await.ok();
    drop(clients);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l11_a_quota_of_ten_counts_live_leases_only() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { leases_live_per_task_max = 10 }.into());
    });
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    let short = v1::IssueCredentialRequest { lifetime: seconds(2), ..issue(&task, "short") };
    agent.issue(short).await.ok();
    for number in 0..9 {
        agent.issue(issue(&task, &format!("{number}"))).await.ok();
    }
    // A place becomes free when a lease dies, and at no other time.
    let mut refused = 0;
    loop {
        let answer = agent.issue(issue(&task, "next")).await;
        if answer.is_ok() {
            answer.ok();
            break;
        }
        answer.refused(Code::ResourceExhausted, "leases_live_per_task_max");
        refused += 1;
        assert!(refused < 1_000);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    agent.issue(issue(&task, "eleventh")).await.refused(Code::ResourceExhausted, "leases_live_per_task_max");
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_a_caller_that_is_refused_too_often_fills_no_disk_and_is_told_so() {
    let world = World::with(|config, _| {
        let limits = toml::toml! { denials_recorded_per_minute_max = 3 };
        config.insert("limits".to_owned(), limits.into());
    });
    let mut tasks = world.client(AGENT).await.broker.tasks();
    let mut told = Vec::new();
    for _ in 0..20 {
        let unknown = v1::GetTaskRequest { name: format!("tasks/{}", "0".repeat(26)) };
        told.push(tasks.get_task(unknown).await.unwrap_err().code());
    }
    // The minute may have turned once meanwhile.
    let (found, exhausted) = (Code::NotFound, Code::ResourceExhausted);
    let count = |code: Code| told.iter().filter(|told| **told == code).count();
    assert!((3..=6).contains(&count(found)), "{told:?}");
    assert_eq!(count(exhausted), 20 - count(found), "{told:?}");
    // Another caller is not made to pay for it, and what is permitted goes on.
    world.open_task(world.create("open")).await;
    let journal = world.stop();
    let denied = journal.iter().filter(|written| matches!(written.fact, Fact::Denied { .. })).count();
    assert_eq!(denied, count(found));
    assert_eq!(unrecorded(&journal, DenialClass::Denied), 20 - denied as u64);
}

/// A caller that sends what nobody can understand cannot thereby try real things unseen.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_rubbish_hides_no_denial() {
    let world = World::with(|config, _| {
        let limits = toml::toml! { malformed_recorded_per_minute_max = 2 };
        config.insert("limits".to_owned(), limits.into());
    });
    let agent = world.client(AGENT).await;
    let mut told = 0;
    for _ in 0..20 {
        let answer = agent.get("rubbish").await;
        if answer.reason().as_deref() == Some("INVALID_ARGUMENT") {
            told += 1;
        } else {
            answer.refused(Code::ResourceExhausted, "malformed_recorded_per_minute_max");
        }
    }
    assert!((2..=4).contains(&told), "{told}");
    agent.get(&format!("tasks/{}", "0".repeat(26))).await.refused(Code::NotFound, "not_found");
    drop(agent);
    let journal = world.stop();
    let recorded = |reason: &str| {
        let is_it = |fact: &Fact| matches!(fact, Fact::Denied { reason: recorded, .. } if recorded.as_str() == reason);
        journal.iter().filter(|written| is_it(&written.fact)).count()
    };
    assert_eq!((recorded("invalid_argument"), recorded("not_found")), (told, 1));
    assert_eq!(unrecorded(&journal, DenialClass::Malformed), 20 - told as u64);
    assert_eq!(unrecorded(&journal, DenialClass::Denied), 0);
}

/// How many refusals of the agent's are only counted.
fn unrecorded(journal: &[Written], class: DenialClass) -> u64 {
    let summed_up = journal.iter().filter_map(|written| match written.fact {
        Fact::DenialsUnrecorded { class: of, count } if of == class => Some((written, count)),
        _ => None,
    });
    summed_up
        .map(|(written, count)| {
            let caller = written.envelope.caller.as_ref().unwrap();
            assert_eq!(caller.as_str(), "spiffe://workloads.dev.example/agent/a");
            count
        })
        .sum()
}

/// However large: the answer comes before the client has sent it all, and is not lost for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_a_message_of_any_size_is_refused_as_too_large_and_the_connection_lives_on() {
    let world = World::start();
    let orchestrator = world.client(ORCHESTRATOR).await;
    for bytes in [65_537, 100_000, 1 << 20, 8 << 20] {
        let request = v1::CreateTaskRequest { purpose: "x".repeat(bytes), ..world.create("large") };
        let answer = orchestrator.broker.tasks().create_task(request).await;
        orchestrator.answer("CreateTask", None, answer).refused(Code::ResourceExhausted, "message_too_large");
    }
    world.open_task(world.create("open")).await;
    let root = world.root().await;
    let lock = v1::CreateLockRequest { message: "x".repeat(1 << 20), ..v1::CreateLockRequest::default() };
    root.create_lock(lock).await.refused(Code::ResourceExhausted, "message_too_large");
    drop((orchestrator, root));
    world.finish();
}

/// The program, started with so many descriptors.
fn with_descriptors(folder: &Path, limits: &str) -> PathBuf {
    let script = folder.join(format!("brevet{}", limits.replace(' ', "")));
    let text = format!("#!/bin/sh\nulimit {limits}\nexec {} \"$@\"\n", binary().display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn r2_there_are_descriptors_for_as_many_connections_as_there_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let (state, scripts) = (folder.path().join("state-of-it"), folder.path());
    fs::create_dir(&state).unwrap();
    let daemon = Daemon::start(&with_descriptors(scripts, "-Sn 300"), &state);
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft: u64 = files.split_whitespace().next().unwrap().parse().unwrap();
    assert!(soft >= 4_096 + 512 + 16, "{files}");
    drop(daemon);
    // Where it may have no more, it says so instead of leaving everybody outside later.
    let few = with_descriptors(scripts, "-n 300");
    let outcome = Command::new(few).arg("dev").arg("--dir").arg(&state).output().unwrap();
    assert!(!outcome.status.success());
    let told = String::from_utf8_lossy(&outcome.stderr);
    assert!(told.contains("descriptors") && told.contains("300"), "{told}");
}
