//! `LockService`: the emergency stop, over the network and over the local root socket.

use std::collections::BTreeSet;

use brevet_api::v1;
use brevet_api::v1::selector::{Kind, Resource};
use brevet_core::fact::{Fact, LeaseOutcome, Outcome};
use tokio::task::JoinSet;
use tonic::Code;

use crate::operator::{selector, stop};
use crate::world::{
    AGENT, Client, FILES, OPERATOR, ORCHESTRATOR, OTHER_AGENT, RESOURCE_SERVER, STATUS, World, Written,
    eventually, issue, permission, seconds,
};

const AGENT_A: &str = "spiffe://workloads.dev.example/agent/a";
const AGENT_B: &str = "spiffe://workloads.dev.example/agent/b";
const NIGHTLY: &str = "spiffe://workloads.dev.example/nightly";
const OLIVIA: &str = "spiffe://workloads.dev.example/operator/olivia";
const AUDITOR: &str = "spiffe://workloads.dev.example/operator/ada";

/// Besides what `brevet dev` makes: another orchestrator, and an operator who only looks.
fn nightly_and_auditor(config: &mut toml::Table) {
    let nightly = toml::toml! {
        spiffe_id = "spiffe://workloads.dev.example/nightly"
        task_types = ["summarise"]
        agents = ["spiffe://workloads.dev.example/agent/a", "spiffe://workloads.dev.example/agent/b"]
    };
    let auditor = toml::toml! {
        name = "ada"
        identities = ["spiffe://workloads.dev.example/operator/ada"]
        roles = ["auditor"]
    };
    for (table, row) in [("orchestrators", nightly), ("operators", auditor)] {
        config.get_mut(table).unwrap().as_array_mut().unwrap().push(row.into());
    }
}

/// A task of an agent's for which it may read and write reports.
fn task_of(world: &World, agent: &str, request_id: &str) -> v1::CreateTaskRequest {
    let name = if agent == AGENT_A { AGENT } else { OTHER_AGENT };
    let mut scope = vec![permission(FILES, "reports/**", &["read"])];
    if agent == AGENT_A {
        scope = vec![
            permission(FILES, "reports/**", &["read", "write"]),
            permission(STATUS, "health", &["read"]),
        ];
    }
    v1::CreateTaskRequest {
        agent: agent.to_owned(),
        holder_key_thumbprint: Some(world.thumbprint(name)),
        scope,
        ..world.create(request_id)
    }
}

fn files(task: &str, request_id: &str, resource: &str, action: &str) -> v1::IssueCredentialRequest {
    let scope = vec![permission(FILES, resource, &[action])];
    v1::IssueCredentialRequest { scope, ..issue(task, request_id) }
}

fn status(task: &str, request_id: &str) -> v1::IssueCredentialRequest {
    let scope = vec![permission(STATUS, "health", &["read"])];
    v1::IssueCredentialRequest { audience: STATUS.to_owned(), scope, ..issue(task, request_id) }
}

async fn token(agent: &Client, request: v1::IssueCredentialRequest) -> v1::Credential {
    agent.issue(request).await.ok().credential.unwrap()
}

async fn swept(operator: &Client, lock: &str) -> v1::Lock {
    eventually("the lock is swept", async || operator.get_lock(lock).await.ok().swept).await;
    operator.get_lock(lock).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t6_l6_a_lock_on_tasks_kills_what_it_selects_for_ever_and_nothing_beside() {
    let world = World::with(|config, _| nightly_and_auditor(config));
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    let (orchestrator, nightly) = (world.client(ORCHESTRATOR).await, world.workload(NIGHTLY).await);
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);

    for round in 0..4 {
        let name = |what: &str| format!("{round}-{what}");
        let hit = orchestrator.create(task_of(&world, AGENT_A, &name("hit"))).await.ok().task.unwrap().name;
        let (kind, miss) = match round {
            0 => (Kind::Task(hit.clone()), orchestrator.create(task_of(&world, AGENT_A, &name("miss")))),
            1 => (
                Kind::Agent(AGENT_A.to_owned()),
                orchestrator.create(task_of(&world, AGENT_B, &name("miss"))),
            ),
            // A path is matched by whole segments.
            2 => (
                Kind::PathPrefix(AGENT_A.to_owned()),
                orchestrator.create(task_of(&world, AGENT_B, &name("miss"))),
            ),
            _ => {
                let orchestrator = "spiffe://workloads.dev.example/orchestrator";
                (
                    Kind::Delegator(orchestrator.to_owned()),
                    nightly.create(task_of(&world, AGENT_A, &name("miss"))),
                )
            }
        };
        let miss = miss.await.ok().task.unwrap();
        let other = if miss.agent == AGENT_A { &a } else { &b };
        let dead = token(&a, issue(&hit, "dead")).await.token;
        let alive = token(other, issue(&miss.name, "alive")).await.token;

        let lock = v1::CreateLockRequest { message: "see runbook 7".to_owned(), ..stop(&name("lock"), kind) };
        let lock = operator.create_lock(lock).await.ok();
        assert!(lock.in_force && lock.tenant == "default", "{lock:?}");
        assert!(!server.is_active(&dead).await, "{round}");
        assert!(server.is_active(&alive).await, "{round}");
        assert_eq!(orchestrator.get(&hit).await.ok().state(), v1::task::State::Revoked);
        token(other, issue(&miss.name, "more")).await;
        let told = a.issue(issue(&hit, "more")).await.refused(Code::FailedPrecondition, "task_closed");
        assert!(told.message().contains("see runbook 7"), "{told:?}");
        if round > 0 {
            let refused = orchestrator.create(task_of(&world, AGENT_A, &name("new"))).await;
            let told = refused.refused(Code::FailedPrecondition, "locked");
            assert!(
                told.message().contains(&lock.name) && told.message().contains("see runbook 7"),
                "{told:?}"
            );
        }

        let lock = swept(&operator, &lock.name).await;
        assert!(lock.tasks_ended >= 1, "{lock:?}");
        let lifted = operator.lift(&lock.name).await.ok();
        assert!(!lifted.in_force && lifted.name == lock.name);
        assert!(!server.is_active(&dead).await && server.is_active(&alive).await, "{round}");
        a.issue(issue(&hit, "more")).await.refused(Code::FailedPrecondition, "task_closed");
        let anew = orchestrator.create(task_of(&world, AGENT_A, &name("anew"))).await.ok().task.unwrap().name;
        assert!(server.is_active(&token(&a, issue(&anew, "anew")).await.token).await);
        for over in [&anew, &miss.name] {
            // What is left would be counted by the next round.
            let owner = if round == 3 && *over == miss.name { &nightly } else { &orchestrator };
            owner.complete(over).await.ok();
        }
    }
    drop((operator, server, orchestrator, nightly, a, b));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t6_l6_a_lock_on_leases_kills_what_it_selects_for_ever_and_nothing_beside() {
    let world = World::start();
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    let agent = world.client(AGENT).await;
    let task = world.open_task(task_of(&world, AGENT_A, "task")).await.name;
    let first = token(&agent, issue(&task, "first")).await;
    let kid = operator.get_lease(&first.lease).await.ok().key_id;
    let policy = operator.get_lease(&first.lease).await.ok().policy;
    let resource = |resource: &str| {
        Kind::Resource(Resource { audience: FILES.to_owned(), resource: resource.to_owned() })
    };

    let read = |id: &str| files(&task, id, "reports/q3", "read");
    type Asked<'a> = &'a dyn Fn(&str) -> v1::IssueCredentialRequest;
    let write: Asked = &|id| files(&task, id, "reports/q3", "write");
    let q4: Asked = &|id| files(&task, id, "reports/q4", "read");
    let status: Asked = &|id| status(&task, id);
    for (number, (kind, hit, miss)) in [
        (Kind::Tool("write".to_owned()), write, Some::<Asked>(&read)),
        (resource("reports/q3"), &read as Asked, Some(q4)),
        (resource("reports/q4/**"), &(|id: &str| files(&task, id, "reports/**", "read")) as Asked, Some(q4)),
        (Kind::Audience(STATUS.to_owned()), status, Some(q4)),
        (Kind::Key(kid.clone()), q4, None),
        (Kind::Policy(policy.clone()), q4, None),
    ]
    .into_iter()
    .enumerate()
    {
        let name = |what: &str| format!("{number}-{what}");
        let dead = token(&agent, hit(&name("dead"))).await.token;
        let alive = match miss {
            Some(miss) => Some(token(&agent, miss(&name("alive"))).await.token),
            None => None,
        };
        let lock = operator.stop(&name("lock"), kind.clone()).await.ok();
        assert_eq!(lock.selector, selector(kind));
        assert!(!server.is_active(&dead).await, "{number}");
        agent.issue(hit(&name("more"))).await.refused(Code::FailedPrecondition, "locked");
        if let (Some(miss), Some(alive)) = (miss, &alive) {
            assert!(server.is_active(alive).await, "{number}");
            token(&agent, miss(&name("other"))).await;
        }
        let lock = swept(&operator, &lock.name).await;
        assert!(lock.leases_ended >= 1 && lock.tasks_ended == 0, "{lock:?}");
        operator.lift(&lock.name).await.ok();
        assert!(!server.is_active(&dead).await, "{number}");
        assert!(server.is_active(&token(&agent, hit(&name("anew"))).await.token).await, "{number}");
    }
    // What is of nobody's stops nothing.
    let live = token(&agent, issue(&task, "live")).await.token;
    for (number, kind) in [
        Kind::Key("no-such-key".to_owned()),
        Kind::Agent(AGENT_B.to_owned()),
        Kind::PathPrefix("spiffe://workloads.dev.example/agen".to_owned()),
        Kind::TrustDomain("elsewhere.example".to_owned()),
        Kind::Task("tasks/00000000000000000000000000".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let lock = operator.stop(&format!("nothing-{number}"), kind).await.ok();
        assert!(server.is_active(&live).await, "{lock:?}");
        let lock = swept(&operator, &lock.name).await;
        assert_eq!((lock.tasks_ended, lock.leases_ended), (0, 0), "{lock:?}");
    }
    drop((operator, server, agent));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t6_an_issue_that_races_a_lock_is_killed_by_it_or_never_was() {
    let world = World::start();
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    let agent = world.client(AGENT).await;
    for round in 0..10 {
        let mut issues = JoinSet::new();
        for tree in 0..4 {
            let task = world.open_task(world.create(&format!("{round}-{tree}"))).await.name;
            for number in 0..8 {
                let (agent, request) = (agent.clone(), issue(&task, &format!("{number}")));
                issues.spawn(async move {
                    let answer = agent.issue(request).await;
                    let refused = match answer.reason().as_deref() {
                        None => return answer.ok().credential.map(|credential| credential.token),
                        Some("LEASE_ENDED") => "lease_ended",
                        Some("TASK_CLOSED") => "task_closed",
                        Some(_) => "locked",
                    };
                    drop(answer.refused(Code::FailedPrecondition, refused));
                    None
                });
            }
        }
        let lock = operator.stop(&format!("{round}"), Kind::Audience(FILES.to_owned())).await.ok();
        for token in issues.join_all().await.into_iter().flatten() {
            let request = v1::IntrospectCredentialRequest { token, min_revision: Some(lock.revision) };
            assert!(!server.introspect_with(request).await.ok().active);
        }
        operator.lift(&lock.name).await.ok();
    }
    drop((operator, server, agent));

    // In the order of the journal: nothing is issued between a lock and its lifting.
    let (mut locked, mut locks, mut issued, mut refused) = (BTreeSet::new(), 0, 0, 0);
    for written in world.finish() {
        match &written.fact {
            Fact::LockCreated(lock) => {
                locks += 1;
                locked.insert(lock.id);
            }
            Fact::LockLifted { lock, .. } => assert!(locked.remove(lock)),
            Fact::LeaseIssued { terms, .. } => {
                assert_eq!(locked, BTreeSet::new(), "{}", terms.id);
                issued += 1;
            }
            Fact::Denied { .. } => refused += 1,
            _ => {}
        }
    }
    assert_eq!(locks, 10);
    assert!(issued > 0 && refused > 0, "no race: {issued} issued and {refused} refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l6_a_lock_that_nobody_swept_kills_across_a_crash_and_is_swept_then() {
    const TASKS: usize = 150;
    let mut world = World::start();
    let agent = world.client(AGENT).await;
    let mut tokens = Vec::new();
    for number in 0..TASKS {
        let task = world.open_task(world.create(&format!("{number}"))).await.name;
        tokens.push(token(&agent, issue(&task, "one")).await.token);
    }
    let lock = world.client(OPERATOR).await.stop("stop", Kind::Agent(AGENT_A.to_owned())).await.ok();
    world.daemon.kill();
    world.daemon.restart();

    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    for token in &tokens {
        assert!(!server.is_active(token).await);
    }
    // However far the first sweep came, the whole is counted.
    let lock = swept(&operator, &lock.name).await;
    assert_eq!((lock.tasks_ended, lock.leases_ended), (TASKS as u64, 0));
    let lifted = operator.lift(&lock.name).await.ok();
    assert!(!lifted.in_force, "{lifted:?}");

    // The lock stops nothing any more, and what it did stays done.
    world.daemon.kill();
    world.daemon.restart();
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    assert_eq!(operator.list_locks(v1::ListLocksRequest::default()).await.ok().locks, [lifted]);
    for token in &tokens {
        assert!(!server.is_active(token).await);
    }
    let anew = world.open_task(world.create("anew")).await.name;
    token(&world.client(AGENT).await, issue(&anew, "one")).await;
    drop((operator, server, agent));
    let (mut ended, mut swept) = (BTreeSet::new(), 0);
    for written in world.finish() {
        match &written.fact {
            Fact::TaskEnded { task, outcome, since, .. } => {
                assert!(*outcome == Outcome::Revoked && since.is_some() && ended.insert(*task), "{task}");
            }
            // Whoever is told that a lock is swept has been told of everything that it ended.
            Fact::LockSwept { .. } => {
                assert_eq!(ended.len(), TASKS);
                swept += 1;
            }
            _ => {}
        }
    }
    assert_eq!((ended.len(), swept), (TASKS, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn stoppers_alone_pull_and_lift_and_auditors_look() {
    let world = World::with(|config, _| nightly_and_auditor(config));
    let (operator, auditor) = (world.client(OPERATOR).await, world.workload(AUDITOR).await);
    let lock = operator.stop("stop", Kind::Tool("delete".to_owned())).await.ok();
    assert_eq!(auditor.get_lock(&lock.name).await.ok().name, lock.name);
    assert_eq!(auditor.list_locks(v1::ListLocksRequest::default()).await.ok().locks.len(), 1);
    let denied = Code::PermissionDenied;
    for nobody in [&auditor, &world.client(AGENT).await, &world.client(ORCHESTRATOR).await] {
        nobody.stop("other", Kind::Everything(true)).await.refused(denied, "policy_denied");
        nobody.lift(&lock.name).await.refused(denied, "policy_denied");
    }
    let agent = world.client(AGENT).await;
    agent.get_lock(&lock.name).await.refused(denied, "policy_denied");
    agent.list_locks(v1::ListLocksRequest::default()).await.refused(denied, "policy_denied");
    assert_eq!(operator.list_locks(v1::ListLocksRequest::default()).await.ok().locks.len(), 1);

    let invalid = Code::InvalidArgument;
    for bad in [
        v1::CreateLockRequest { selector: None, ..stop("bad", Kind::Everything(true)) },
        v1::CreateLockRequest {
            selector: Some(v1::Selector { kind: None }),
            ..stop("bad", Kind::Everything(true))
        },
        stop("bad", Kind::Everything(false)),
        stop("", Kind::Everything(true)),
        stop("bad", Kind::Agent("agent".to_owned())),
        stop("bad", Kind::Policy("digest".to_owned())),
        v1::CreateLockRequest { message: "two\nlines".to_owned(), ..stop("bad", Kind::Everything(true)) },
        v1::CreateLockRequest { message: "x".repeat(257), ..stop("bad", Kind::Everything(true)) },
        v1::CreateLockRequest { lifetime: seconds(0), ..stop("bad", Kind::Everything(true)) },
        v1::CreateLockRequest { lifetime: seconds(-1), ..stop("bad", Kind::Everything(true)) },
    ] {
        operator.create_lock(bad).await.refused(invalid, "invalid_argument");
    }
    for bad in ["", "locks/", "locks/x", "00000000000000000000000000", "locks/0000000000000000000000000O"] {
        operator.get_lock(bad).await.refused(invalid, "invalid_argument");
        operator.lift(bad).await.refused(invalid, "invalid_argument");
    }
    operator.get_lock("locks/00000000000000000000000000").await.refused(Code::NotFound, "not_found");
    operator.lift("locks/00000000000000000000000000").await.refused(Code::NotFound, "not_found");
    drop((operator, auditor, agent));
    let created: Vec<_> = world
        .finish()
        .into_iter()
        .filter(|written| matches!(written.fact, Fact::LockCreated(_)))
        .map(|Written { envelope, .. }| (envelope.caller, envelope.request_id))
        .map(|(caller, request_id)| (caller.unwrap().to_string(), request_id.unwrap().to_string()))
        .collect();
    assert_eq!(created, [(OLIVIA.to_owned(), "stop".to_owned())], "one record, in the operator's name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_same_request_pulls_one_lock_and_another_with_its_name_none() {
    let mut world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { locks_max = 2 page_size_max = 1 }.into());
    });
    let operator = world.client(OPERATOR).await;
    let asked = v1::CreateLockRequest {
        message: "stand by".to_owned(),
        lifetime: seconds(3_600),
        ..stop("stop", Kind::Tool("delete".to_owned()))
    };
    let lock = operator.create_lock(asked.clone()).await.ok();
    let life = lock.end_time.unwrap().seconds - lock.create_time.unwrap().seconds;
    assert_eq!((lock.message.as_str(), life, lock.in_force), ("stand by", 3_600, true));
    let lock = swept(&operator, &lock.name).await;
    world.daemon.kill();
    world.daemon.restart();
    let operator = world.client(OPERATOR).await;
    assert_eq!(operator.create_lock(asked.clone()).await.ok(), lock);
    for other in [
        v1::CreateLockRequest { message: String::new(), ..asked.clone() },
        v1::CreateLockRequest { lifetime: None, ..asked.clone() },
        v1::CreateLockRequest { lifetime: seconds(3_601), ..asked.clone() },
        v1::CreateLockRequest { selector: selector(Kind::Tool("read".to_owned())), ..asked.clone() },
    ] {
        operator.create_lock(other).await.refused(Code::AlreadyExists, "request_id_reused");
    }

    // A tenant's locks are bounded, root's are not; and the repetition of one that is there is none more.
    let second = operator.stop("second", Kind::Tool("write".to_owned())).await.ok();
    operator.stop("third", Kind::Tool("read".to_owned())).await.refused(Code::ResourceExhausted, "locks_max");
    world.root().await.stop("third", Kind::Tool("read".to_owned())).await.ok();
    operator.create_lock(asked).await.ok();

    let (mut listed, mut request) = (Vec::new(), v1::ListLocksRequest::default());
    loop {
        let page = operator.list_locks(request.clone()).await.ok();
        assert!(page.locks.len() <= 1);
        listed.extend(page.locks.into_iter().map(|lock| lock.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed.len(), 3);
    assert!(listed.is_sorted() && listed.contains(&lock.name) && listed.contains(&second.name));
    let bad = v1::ListLocksRequest { page_token: "second".to_owned(), page_size: 0 };
    operator.list_locks(bad).await.refused(Code::InvalidArgument, "invalid_argument");

    // Lifted twice is lifted once, and makes room.
    swept(&operator, &second.name).await;
    let lifted = operator.lift(&second.name).await.ok();
    assert_eq!(operator.lift(&second.name).await.ok(), lifted);
    operator.stop("fourth", Kind::Tool("write".to_owned())).await.ok();
    drop(operator);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t6_no_stop_is_refused_because_of_those_that_are_over() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { locks_max = 1 }.into());
    });
    let operator = world.client(OPERATOR).await;
    let kind = || Kind::Tool("read".to_owned());
    for number in 0..3 {
        let lock = operator.stop(&format!("stop-{number}"), kind()).await.ok();
        operator.stop("one-more", kind()).await.refused(Code::ResourceExhausted, "locks_max");
        swept(&operator, &lock.name).await;
        operator.lift(&lock.name).await.ok();
    }
    assert_eq!(operator.list_locks(v1::ListLocksRequest::default()).await.ok().locks.len(), 3);
    drop(operator);
    world.finish();
}

/// As a client on a slow network sends it, which never got its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l9_a_late_retry_of_a_stop_finds_it_lifted_and_stops_nobody_again() {
    let mut world = World::start();
    let (operator, agent) = (world.client(OPERATOR).await, world.client(AGENT).await);
    let everyone = stop("stop", Kind::Everything(true));
    let lock = operator.create_lock(stop("files", Kind::Audience(FILES.to_owned()))).await.ok();
    let root = world.root().await;
    let roots = root.create_lock(everyone.clone()).await.ok();
    swept(&operator, &lock.name).await;
    eventually("the lock is swept", async || root.get_lock(&roots.name).await.ok().swept).await;
    let lifted = [operator.lift(&lock.name).await, root.lift(&roots.name).await].map(|lift| lift.ok());
    drop((operator, agent, root));
    for restarts in 0..2 {
        let (operator, root) = (world.client(OPERATOR).await, world.root().await);
        let again = operator.create_lock(stop("files", Kind::Audience(FILES.to_owned()))).await.ok();
        assert_eq!(again, lifted[0], "after {restarts} restarts");
        assert_eq!(root.create_lock(everyone.clone()).await.ok(), lifted[1], "after {restarts} restarts");
        let other = stop("files", Kind::Tool("read".to_owned()));
        operator.create_lock(other).await.refused(Code::AlreadyExists, "request_id_reused");
        assert_eq!(operator.get_lock(&lock.name).await.ok(), lifted[0]);
        let task = world.open_task(world.create(&format!("{restarts}"))).await.name;
        token(&world.client(AGENT).await, issue(&task, "one")).await;
        drop((operator, root));
        world.daemon.kill();
        world.daemon.restart();
    }
    let created = world.finish().into_iter().filter(|written| matches!(written.fact, Fact::LockCreated(_)));
    assert_eq!(created.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t6_a_lock_ends_by_itself_and_revives_nothing() {
    let world = World::start();
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("task")).await.name;
    let dead = token(&agent, issue(&task, "dead")).await.token;
    let brief = v1::CreateLockRequest { lifetime: seconds(2), ..stop("stop", Kind::Tool("read".to_owned())) };
    operator.create_lock(brief).await.ok();
    let asked = std::cell::Cell::new(0);
    eventually("it has ended", async || {
        asked.set(asked.get() + 1);
        let answer = agent.issue(issue(&task, &format!("{}", asked.get()))).await;
        let is_over = answer.is_ok();
        if !is_over {
            answer.refused(Code::FailedPrecondition, "locked");
        }
        is_over
    })
    .await;
    assert!(asked.get() > 1);
    assert!(!server.is_active(&dead).await);
    drop((operator, server, agent));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l6_a_sweep_records_what_the_lock_ended_and_says_how_much() {
    let world = World::start();
    let (operator, agent) = (world.client(OPERATOR).await, world.client(AGENT).await);
    for number in 0..3 {
        let task = world.open_task(world.create(&format!("{number}"))).await.name;
        for lease in ["one", "two"] {
            token(&agent, issue(&task, lease)).await;
        }
        token(&agent, status(&task, "status")).await;
        if number == 2 {
            world.client(ORCHESTRATOR).await.complete(&task).await.ok();
        }
    }
    let lock = operator.stop("leases", Kind::Audience(FILES.to_owned())).await.ok();
    let lock = swept(&operator, &lock.name).await;
    assert_eq!((lock.tasks_ended, lock.leases_ended), (0, 4));
    let revoked = v1::ListLeasesRequest { state: v1::lease::State::Revoked.into(), ..Default::default() };
    let revoked = operator.list_leases(revoked).await.ok().leases;
    assert_eq!(revoked.iter().filter(|lease| lease.end_reason == "locked").count(), 4);
    assert!(
        revoked
            .iter()
            .filter(|lease| lease.end_reason == "locked")
            .all(|lease| lease.audience == FILES && lease.end_time == lock.create_time)
    );
    let lock = operator.stop("tasks", Kind::Agent(AGENT_A.to_owned())).await.ok();
    let lock = swept(&operator, &lock.name).await;
    assert_eq!((lock.tasks_ended, lock.leases_ended), (2, 0));
    drop((operator, agent));

    let ended: usize = world
        .finish()
        .iter()
        .map(|written| match &written.fact {
            Fact::LeasesEnded { leases, outcome, since, .. } => {
                assert_eq!((*outcome, since.is_some()), (LeaseOutcome::Revoked, true));
                leases.len()
            }
            _ => 0,
        })
        .sum();
    assert_eq!(ended, 4);
}
