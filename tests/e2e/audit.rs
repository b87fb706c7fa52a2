//! AuditService: who reads the log, what of it, and that a reader can check the chain by itself.

use std::time::Duration;

use brevet_api::v1;
use brevet_api::v1::selector::Kind;
use brevet_core::fact::{DenialCause, Fact};
use brevet_core::record;
use brevet_core::revision::{Incarnation, Revision};
use brevet_journal::ChainHash;
use brevet_policy::{Decision, Policies};
use tonic::{Code, Status};

use crate::world::{
    AGENT, FILES, OPERATOR, ORCHESTRATOR, OTHER_AGENT, RESOURCE_SERVER, World, eventually, permission,
    replace,
};

const AGENT_A: &str = "spiffe://workloads.dev.example/agent/a";

/// The next records of a stream, so many as are known to come.
async fn next(events: &mut tonic::Streaming<v1::Event>, count: usize) -> Vec<v1::Event> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(30), events.message()).await;
        taken.push(next.expect("a record comes").unwrap().expect("the stream goes on"));
    }
    taken
}

/// Everything that a stream still gives, and how it ends.
async fn until_the_end(events: &mut tonic::Streaming<v1::Event>) -> (Vec<v1::Event>, Status) {
    let mut taken = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(30), events.message()).await.expect("the stream ends")
        {
            Ok(Some(event)) => taken.push(event),
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => return (taken, status),
        }
    }
}

async fn ending(events: &mut tonic::Streaming<v1::Event>) -> Status {
    until_the_end(events).await.1
}

fn incarnation(event: &v1::Event) -> Incarnation {
    record::decode(event.record.as_bytes()).unwrap().envelope.incarnation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u3_an_auditor_can_check_the_chain_from_what_the_stream_gives() {
    let world = World::start();
    let auditor = world.client(OPERATOR).await;
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    agent.issued(&task, "one").await;
    agent.get("tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz").await.refused(Code::NotFound, "not_found");
    let ended = world.client(ORCHESTRATOR).await.complete(&task).await.ok().revision;

    let first = auditor.events(v1::ListEventsRequest { page_size: 1, ..Default::default() }).await.ok();
    let incarnation = incarnation(&first.events[0]);
    let start = v1::Cursor { incarnation: incarnation.0, revision: 0 };
    let mut events = auditor.tail(Some(start)).await.ok();
    let mut chain = ChainHash::genesis(incarnation);
    let mut kinds = Vec::new();
    for (event, revision) in next(&mut events, usize::try_from(ended).unwrap()).await.into_iter().zip(1..) {
        assert_eq!(event.revision, revision, "every record once, in order");
        chain = chain.link(Revision(revision), event.record.as_bytes());
        assert_eq!(event.chain, chain.as_bytes(), "{}", event.record);
        // What stands beside the record is what the record says.
        let read = record::decode(event.record.as_bytes()).unwrap();
        let text = |value: Option<String>| value.unwrap_or_default();
        assert_eq!(event.r#type, read.fact.kind());
        assert_eq!(event.caller, text(read.envelope.caller.map(|it| it.to_string())));
        assert_eq!(event.request_id, text(read.envelope.request_id.map(|it| it.to_string())));
        assert_eq!(event.tenant, text(read.envelope.tenant.map(|it| it.to_string())));
        assert_eq!(event.tree, text(read.envelope.tree.map(|it| format!("tasks/{it}"))));
        kinds.push(event.r#type);
    }
    for kind in ["configuration_loaded", "started", "task_opened", "lease_issued", "denied", "task_ended"] {
        assert!(kinds.iter().any(|it| it == kind), "{kind} in {kinds:?}");
    }
    drop((auditor, agent, events));
    // The journal has the same, byte for byte.
    assert!(world.finish().len() > kinds.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w5_a_stream_goes_on_behind_its_cursor_or_says_why_not() {
    let mut world = World::start();
    let auditor = world.client(OPERATOR).await;
    // From now on means from the next record on.
    let mut live = auditor.tail(None).await.ok();
    let task = world.open_task(world.create("open")).await;
    let opened = next(&mut live, 1).await.remove(0);
    assert_eq!((opened.r#type.as_str(), &opened.tree), ("task_opened", &task.name));
    world.client(AGENT).await.issued(&task.name, "one").await;
    let issued = next(&mut live, 1).await.remove(0);
    drop((auditor, live));
    let life = incarnation(&opened).0;

    // Over a restart, which is no other life.
    world.daemon.kill();
    world.daemon.restart();
    let auditor = world.client(OPERATOR).await;
    let behind = |incarnation, revision| Some(v1::Cursor { incarnation, revision });
    let mut events = auditor.tail(behind(life, opened.revision)).await.ok();
    assert_eq!(next(&mut events, 1).await, vec![issued.clone()]);
    let other = auditor.tail(behind(life ^ 1, issued.revision)).await;
    other.refused(Code::FailedPrecondition, "incarnation_changed");
    for future in [issued.revision + 1_000, u64::MAX] {
        auditor.tail(behind(life, future)).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    drop((auditor, events));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_list_is_filtered_and_paged_and_ends() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { events_looked_at_max = 7 }.into());
    });
    let (auditor, agent) = (world.client(OPERATOR).await, world.client(AGENT).await);
    let mut tasks = Vec::new();
    for number in 0..3 {
        let task = world.open_task(world.create(&format!("task-{number}"))).await.name;
        for lease in 0..5 {
            agent.issued(&task, &format!("lease-{lease}")).await;
        }
        tasks.push(task);
    }
    let all = async |filter: v1::ListEventsRequest| {
        let (mut request, mut found, mut pages) = (filter, Vec::new(), 0);
        loop {
            let page = auditor.events(request.clone()).await.ok();
            pages += 1;
            assert!(request.page_size == 0 || page.events.len() <= request.page_size as usize);
            found.extend(page.events);
            if page.next_page_token.is_empty() {
                return (found, pages);
            }
            request.page_token = page.next_page_token;
        }
    };
    let list = v1::ListEventsRequest::default;
    let (everything, pages) = all(list()).await;
    let revisions: Vec<u64> = everything.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (1..=u64::try_from(everything.len()).unwrap()).collect::<Vec<_>>());
    assert!(pages >= 3, "a page looks at seven records");
    assert_eq!(all(v1::ListEventsRequest { page_size: 2, ..list() }).await.0, everything);

    let by = |filter: &dyn Fn(&&v1::Event) -> bool| {
        everything.iter().filter(filter).cloned().collect::<Vec<v1::Event>>()
    };
    let (found, _) = all(v1::ListEventsRequest { task: tasks[1].clone(), ..list() }).await;
    assert_eq!(found, by(&|event| event.tree == tasks[1]));
    assert_eq!(found.len(), 6);
    let (found, _) = all(v1::ListEventsRequest { caller: AGENT_A.to_owned(), ..list() }).await;
    assert_eq!(found, by(&|event| event.caller == AGENT_A));
    assert_eq!(found.len(), 15);
    let (found, _) = all(v1::ListEventsRequest { r#type: "task_opened".to_owned(), ..list() }).await;
    assert_eq!(found, by(&|event| event.r#type == "task_opened"));
    assert_eq!(found.len(), 3);
    let (found, _) = all(v1::ListEventsRequest { after_revision: 10, ..list() }).await;
    assert_eq!(found, by(&|event| event.revision > 10));
    // What matches nothing is looked for a bounded part at a time.
    let (found, pages) = all(v1::ListEventsRequest { r#type: "lock_created".to_owned(), ..list() }).await;
    assert!(found.is_empty() && pages >= 3, "{pages}");
    assert_eq!(all(v1::ListEventsRequest { after_revision: u64::MAX, ..list() }).await, (vec![], 1));

    for bad in [
        v1::ListEventsRequest { page_size: -1, ..list() },
        v1::ListEventsRequest { page_token: "next".to_owned(), ..list() },
        v1::ListEventsRequest { page_token: "-1".to_owned(), ..list() },
        v1::ListEventsRequest { task: "tasks/1".to_owned(), ..list() },
        v1::ListEventsRequest { caller: "agent/a".to_owned(), ..list() },
        v1::ListEventsRequest { r#type: "task_exploded".to_owned(), ..list() },
        v1::ListEventsRequest { r#type: "TaskOpened".to_owned(), ..list() },
    ] {
        auditor.events(bad).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    drop((auditor, agent));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_largest_records_fit_an_answer() {
    let world = World::start();
    let auditor = world.client(OPERATOR).await;
    let orchestrator = world.client(ORCHESTRATOR).await;
    for number in 0..6 {
        let request = v1::CreateTaskRequest { scope: large(), ..world.create(&format!("large-{number}")) };
        orchestrator.create(request).await.ok();
    }
    let (mut request, mut found, mut pages) = (v1::ListEventsRequest::default(), 0, 0);
    request.r#type = "task_opened".to_owned();
    loop {
        let page = auditor.events(request.clone()).await.ok();
        assert!(page.events.iter().all(|event| event.record.len() > 60_000));
        (found, pages) = (found + page.events.len(), pages + 1);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(found, 6);
    assert!(pages >= 3, "{pages}");
    drop((auditor, orchestrator));
    world.finish();
}

/// A scope of nearly as many bytes as a request may have.
fn large() -> Vec<v1::Permission> {
    let long = "a".repeat(60);
    (0..64)
        .map(|n| permission(FILES, &format!("reports/{n}{}", format!("/{long}").repeat(12)), &["read"]))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t7_an_auditor_sees_its_tenants_records_and_those_of_none() {
    let world = World::with(|config, folder| {
        let partner =
            brevet_testkit::ca::TestCa::new(&"partner.example".parse().unwrap(), crate::world::now());
        std::fs::write(folder.join("partner.pem"), partner.pem()).unwrap();
        let trust = toml::toml! { trust_domain = "partner.example" bundle = "partner.pem" };
        config["trust"].as_array_mut().unwrap().push(trust.into());
        let tenants = vec![
            toml::toml! { name = "default" trust_domains = ["workloads.dev.example", "functions.dev.example"] },
            toml::toml! { name = "partner" trust_domains = ["partner.example"] },
        ];
        config.insert("tenants".to_owned(), tenants.into());
        let operators = config["operators"].as_array_mut().unwrap();
        operators.push(toml::Value::from(
            toml::toml! { name = "pat" identities = ["spiffe://partner.example/pat"] roles = ["auditor"] },
        ));
        let pat = partner.svid("spiffe://partner.example/pat");
        std::fs::write(folder.join("pat.pem"), pat.certificate).unwrap();
        std::fs::write(folder.join("pat.key"), pat.key).unwrap();
    });
    let task = world.open_task(world.create("open")).await.name;
    let pat = brevet_client::Identity::load(&world.path("pat.pem"), &world.path("pat.key")).unwrap();
    let pat = world.known(world.connect(&pat).await.unwrap(), "spiffe://partner.example/pat");
    pat.get(&task).await.refused(Code::NotFound, "not_found");

    let own = world.client(OPERATOR).await.events(v1::ListEventsRequest::default()).await.ok().events;
    assert!(own.iter().any(|event| event.tree == task));
    assert!(own.iter().all(|event| ["", "default"].contains(&event.tenant.as_str())));
    let foreign = pat.events(v1::ListEventsRequest::default()).await.ok().events;
    assert!(foreign.iter().any(|event| event.r#type == "started"));
    assert!(foreign.iter().all(|event| ["", "partner"].contains(&event.tenant.as_str())), "{foreign:?}");
    let by_task = v1::ListEventsRequest { task: task.clone(), ..Default::default() };
    let seen = pat.events(by_task).await.ok().events;
    // Its own refusal names the tree that it asked for, and nothing else of the tree is shown.
    assert!(seen.iter().all(|event| event.caller == "spiffe://partner.example/pat"), "{seen:?}");

    let start = v1::Cursor { incarnation: incarnation(&foreign[0]).0, revision: 0 };
    let mut events = pat.tail(Some(start)).await.ok();
    let taken = next(&mut events, foreign.len()).await;
    assert_eq!(taken, foreign);
    drop((pat, events));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_auditors_read_the_log() {
    let world = World::start();
    for name in [AGENT, OTHER_AGENT, ORCHESTRATOR, RESOURCE_SERVER] {
        let client = world.client(name).await;
        let list = client.events(v1::ListEventsRequest::default()).await;
        list.refused(Code::PermissionDenied, "policy_denied");
        client.tail(None).await.refused(Code::PermissionDenied, "policy_denied");
    }
    let journal = world.finish();
    assert!(!journal.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w8_a_stream_ends_with_its_authorisation() {
    let world = World::start();
    let auditor = world.client(OPERATOR).await;
    let mut events = auditor.tail(None).await.ok();
    world.open_task(world.create("before")).await;
    assert_eq!(next(&mut events, 1).await[0].r#type, "task_opened");

    // The role is taken away: nothing more is shown, not even that.
    world.configure(|config| drop(config.remove("operators")));
    world.daemon.hang_up();
    let refused = ending(&mut events).await;
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    auditor.tail(None).await.result().unwrap_err();

    // The trust domain is taken away: the caller is nobody.
    world.configure(|config| {
        let operator = toml::toml! {
            name = "olivia" identities = ["spiffe://workloads.dev.example/operator/olivia"] roles = ["auditor"]
        };
        config.insert("operators".to_owned(), vec![operator].into());
    });
    world.daemon.hang_up();
    eventually("the role is back", || async { auditor.tail(None).await.is_ok() }).await;
    let mut events = auditor.tail(None).await.ok();
    let other =
        brevet_testkit::ca::TestCa::new(&"workloads.dev.example".parse().unwrap(), crate::world::now());
    replace(&world.path("workloads.pem"), &other.pem());
    world.daemon.hang_up();
    let refused = ending(&mut events).await;
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    drop((auditor, events));
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w7_a_reader_that_takes_nothing_is_cut_off_and_loses_nothing() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { audit_stall_seconds_max = 1 }.into());
        // Its connection stays, so that it hears where it was.
        let grpc = config.get_mut("grpc").and_then(|grpc| grpc.as_table_mut()).unwrap();
        grpc.insert("answer_seconds_max".to_owned(), 300.into());
    });
    let auditor = world.client(OPERATOR).await;
    let orchestrator = world.client(ORCHESTRATOR).await;
    let first = auditor.events(v1::ListEventsRequest { page_size: 1, ..Default::default() }).await.ok();
    let start = v1::Cursor { incarnation: incarnation(&first.events[0]).0, revision: 0 };
    let mut slow = auditor.tail(Some(start)).await.ok();
    // More than the windows of a connection and the buffer of a stream hold.
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..160 {
        let (client, request) = (
            orchestrator.clone(),
            v1::CreateTaskRequest { scope: large(), ..world.create(&format!("large-{number}")) },
        );
        calls.spawn(async move { drop(client.create(request).await.ok()) });
    }
    calls.join_all().await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (taken, status) = until_the_end(&mut slow).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let revision = u64::try_from(taken.len()).unwrap();
    assert!(taken.iter().map(|event| event.revision).eq(1..=revision), "no gap");
    // It goes on where it was cut off.
    let mut again = auditor.tail(Some(v1::Cursor { revision, ..start })).await.ok();
    assert_eq!(next(&mut again, 1).await[0].revision, revision + 1);
    drop((auditor, orchestrator, slow, again));
    let journal = world.stop();
    assert!(u64::try_from(journal.len()).unwrap() > revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn streams_are_counted_and_end_with_the_daemon() {
    let mut world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { audit_streams_max = 2 }.into());
    });
    let auditor = world.client(OPERATOR).await;
    let (first, mut second) = (auditor.tail(None).await.ok(), auditor.tail(None).await.ok());
    auditor.tail(None).await.refused(Code::ResourceExhausted, "audit_streams_max");
    drop(first);
    eventually("a place is free", || async { auditor.tail(None).await.is_ok() }).await;
    // A stop waits for no reader.
    assert!(world.daemon.stop().success());
    assert_eq!(ending(&mut second).await.code(), Code::Unavailable);
    drop((auditor, second));
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_a_denial_says_why_in_the_audit_log_and_not_to_its_caller() {
    let world = World::with(|_, folder| {
        let policies = r#"
            @id("some-are-forbidden")
            forbid (principal, action == Brevet::Action::"CreateTask", resource)
            when { context.task.purpose == "forbidden" };
            @id("some-fail")
            forbid (principal, action == Brevet::Action::"CreateTask", resource)
            when { context.task.purpose == "evaluation_error" && context.task.depth + 9223372036854775807 + 1 > 0 };
        "#;
        std::fs::write(folder.join("policies/why.cedar"), policies).unwrap();
    });
    let (orchestrator, auditor) = (world.client(ORCHESTRATOR).await, world.client(OPERATOR).await);
    let mut told = Vec::new();
    for purpose in ["forbidden", "evaluation_error"] {
        let request = v1::CreateTaskRequest { purpose: purpose.to_owned(), ..world.create(purpose) };
        told.push(orchestrator.create(request).await.refused(Code::PermissionDenied, "policy_denied"));
    }
    let list = orchestrator.events(v1::ListEventsRequest::default()).await;
    told.push(list.refused(Code::PermissionDenied, "policy_denied"));
    for (status, cause) in told.iter().zip(["forbidden", "evaluation_error", "no_permit"]) {
        assert_eq!((status.message(), status.details()), (told[0].message(), told[0].details()));
        assert!(!format!("{status:?}").contains(cause), "{status:?}");
    }
    // It is durable with what is acknowledged after it.
    world.open_task(world.create("open")).await;
    let denied = v1::ListEventsRequest { r#type: "denied".to_owned(), ..Default::default() };
    let causes: Vec<_> = auditor
        .events(denied)
        .await
        .ok()
        .events
        .iter()
        .map(|event| match record::decode(event.record.as_bytes()).unwrap().fact {
            Fact::Denied { reason, cause, .. } => (reason.as_str().to_owned(), cause),
            fact => panic!("{fact:?}"),
        })
        .collect();
    let expected = [DenialCause::Forbidden, DenialCause::EvaluationError, DenialCause::NoPermit];
    assert_eq!(causes, expected.map(|cause| ("policy_denied".to_owned(), Some(cause))));
    drop((orchestrator, auditor));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_every_recorded_decision_can_be_made_again_from_its_record() {
    let world = World::start();
    let (operator, agent) = (world.client(OPERATOR).await, world.client(AGENT).await);
    let task = world.open_task(world.create("open")).await.name;
    let first = agent.issued(&task, "first").await;
    agent.renew(crate::world::renew(&first.lease, "renewed")).await.ok();
    operator.revoke(&first.lease).await.ok();
    operator.stop("stop", Kind::Tool("delete".to_owned())).await.ok();
    agent.stop("no", Kind::Everything(true)).await.refused(Code::PermissionDenied, "policy_denied");
    agent.revoke(&first.lease).await.refused(Code::PermissionDenied, "policy_denied");
    let policies = Policies::load(&world.path("policies")).unwrap();
    drop((operator, agent));

    let mut again = Vec::new();
    for written in world.finish() {
        let kind = written.fact.kind();
        let decided = match &written.fact {
            Fact::TaskOpened(_) | Fact::LeaseIssued { .. } | Fact::LockCreated(_) => true,
            Fact::Denied { reason, .. } => reason.as_str() == "policy_denied",
            _ => written.evidence.is_some(),
        };
        if !decided {
            continue;
        }
        let evidence = written.evidence.unwrap_or_else(|| panic!("{kind} is a decision"));
        let request = serde_json::from_value(evidence["request"].clone()).unwrap();
        let (permitted, made) = match policies.decide(request) {
            Decision::Permit(permit) => (true, serde_json::to_value(permit.evidence()).unwrap()),
            Decision::Deny(denial) => (false, serde_json::to_value(&denial.evidence).unwrap()),
        };
        assert_eq!((permitted, &made), (kind != "denied", &evidence), "{kind}");
        // A yes names whoever said it; a no may be that nobody said yes.
        let determining = made["determining"].as_array().unwrap().len();
        assert!(!permitted || determining > 0, "{kind} is not explained");
        again.push(kind);
    }
    again.sort_unstable();
    let all =
        ["denied", "denied", "lease_issued", "lease_issued", "leases_ended", "lock_created", "task_opened"];
    assert_eq!(again, all);
}
