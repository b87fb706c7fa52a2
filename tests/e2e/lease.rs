//! `LeaseService`: operators see what has been issued, and end it while the tasks go on.

use std::collections::BTreeSet;

use brevet_api::v1;
use brevet_api::v1::lease::State;
use brevet_api::v1::selector::Kind;
use brevet_core::fact::Fact;
use tonic::Code;

use crate::operator::selector;
use crate::world::{
    AGENT, Client, FILES, OPERATOR, ORCHESTRATOR, OTHER_AGENT, RESOURCE_SERVER, STATUS, World, eventually,
    issue, permission, seconds,
};

const OLIVIA: &str = "spiffe://workloads.dev.example/operator/olivia";

async fn credential(agent: &Client, request: v1::IssueCredentialRequest) -> v1::Credential {
    agent.issue(request).await.ok().credential.unwrap()
}

fn status(task: &str, request_id: &str) -> v1::IssueCredentialRequest {
    let scope = vec![permission(STATUS, "health", &["read"])];
    v1::IssueCredentialRequest { audience: STATUS.to_owned(), scope, ..issue(task, request_id) }
}

fn revoke(kind: Kind, validate_only: bool) -> v1::RevokeLeasesRequest {
    v1::RevokeLeasesRequest { selector: selector(kind), reason: "key_leaked".to_owned(), validate_only }
}

async fn names(operator: &Client, request: v1::ListLeasesRequest) -> BTreeSet<String> {
    let (mut names, mut request) = (BTreeSet::new(), request);
    loop {
        let page = operator.list_leases(request.clone()).await.ok();
        for lease in page.leases {
            assert!(names.last().is_none_or(|last| *last < lease.name), "in the order of the names");
            names.insert(lease.name);
        }
        if page.next_page_token.is_empty() {
            return names;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_lease_says_what_was_issued_and_ends_once() {
    let world = World::start();
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("task")).await.name;
    let issued = credential(&agent, issue(&task, "one")).await;
    let other = credential(&agent, issue(&task, "two")).await;

    let lease = operator.get_lease(&issued.lease).await.ok();
    assert_eq!((lease.name.as_str(), lease.state()), (issued.lease.as_str(), State::Active));
    assert_eq!(lease.agent, "spiffe://workloads.dev.example/agent/a");
    assert_eq!(
        (lease.profile, &lease.audience, &lease.scope),
        (issued.profile, &issued.audience, &issued.scope)
    );
    assert_eq!((lease.issue_time, lease.expire_time), (issued.issue_time, issued.expire_time));
    assert_eq!(lease.holder_key_thumbprint, world.thumbprint(AGENT));
    assert_eq!((lease.issue_revision, lease.end_time, lease.renews.as_str()), (issued.revision, None, ""));
    assert!(!lease.key_id.is_empty() && !lease.policy.is_empty() && lease.revision >= lease.issue_revision);

    let request = v1::RevokeLeaseRequest { name: issued.lease.clone(), reason: "key_leaked".to_owned() };
    let revoked = operator.revoke_with(request.clone()).await.ok().lease.unwrap();
    assert_eq!((revoked.state(), revoked.end_reason.as_str()), (State::Revoked, "key_leaked"));
    assert!(!server.is_active(&issued.token).await && server.is_active(&other.token).await);
    assert_eq!(operator.revoke_with(request).await.ok().lease, Some(revoked.clone()));
    assert_eq!(operator.revoke(&issued.lease).await.ok().lease, Some(revoked.clone()));
    assert_eq!(operator.get_lease(&issued.lease).await.ok(), revoked);
    // The task goes on.
    assert_eq!(world.client(ORCHESTRATOR).await.get(&task).await.ok().live_leases, 1);
    credential(&agent, issue(&task, "three")).await;
    agent.issue(issue(&task, "one")).await.refused(Code::FailedPrecondition, "lease_ended");

    let denied = Code::PermissionDenied;
    for nobody in [&agent, &server, &world.client(ORCHESTRATOR).await] {
        nobody.get_lease(&other.lease).await.refused(denied, "policy_denied");
        nobody.list_leases(v1::ListLeasesRequest::default()).await.refused(denied, "policy_denied");
        nobody.revoke(&other.lease).await.refused(denied, "policy_denied");
        for validate_only in [true, false] {
            nobody
                .revoke_leases(revoke(Kind::Everything(true), validate_only))
                .await
                .refused(denied, "policy_denied");
        }
    }
    for bad in ["", "tasks/x", &task, &other.lease.to_uppercase()] {
        operator.get_lease(bad).await.refused(Code::InvalidArgument, "invalid_argument");
        operator.revoke(bad).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    let free_text = v1::RevokeLeaseRequest { name: other.lease.clone(), reason: "Because!".to_owned() };
    operator.revoke_with(free_text).await.refused(Code::InvalidArgument, "invalid_argument");
    let unknown = format!("{task}/leases/00000000000000000000000000");
    operator.get_lease(&unknown).await.refused(Code::NotFound, "not_found");
    operator.revoke(&unknown).await.refused(Code::NotFound, "not_found");
    assert!(server.is_active(&other.token).await);
    drop((operator, server, agent));

    let ended: Vec<_> = world
        .finish()
        .into_iter()
        .filter(|written| matches!(written.fact, Fact::LeasesEnded { .. }))
        .map(|written| written.envelope.caller.map(|caller| caller.to_string()))
        .collect();
    assert_eq!(ended, [Some(OLIVIA.to_owned())], "one record, in the operator's name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leases_are_listed_by_state_and_selection_in_pages() {
    let world = World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { page_size_max = 3 }.into());
    });
    let (operator, agent) = (world.client(OPERATOR).await, world.client(AGENT).await);
    let other = world.client(OTHER_AGENT).await;
    let first = world.open_task(world.create("first")).await.name;
    let second = v1::CreateTaskRequest {
        agent: "spiffe://workloads.dev.example/agent/b".to_owned(),
        holder_key_thumbprint: Some(world.thumbprint(OTHER_AGENT)),
        scope: vec![permission(FILES, "reports/**", &["read"])],
        ..world.create("second")
    };
    let second = world.open_task(second).await.name;
    let mut all = BTreeSet::new();
    for number in 0..5 {
        all.insert(credential(&agent, issue(&first, &format!("{number}"))).await.lease);
    }
    let statuses = BTreeSet::from([credential(&agent, status(&first, "status")).await.lease]);
    let others = BTreeSet::from([credential(&other, issue(&second, "one")).await.lease]);
    let brief = v1::IssueCredentialRequest { lifetime: seconds(2), ..issue(&second, "brief") };
    let expired = BTreeSet::from([credential(&other, brief).await.lease]);
    let revoked = BTreeSet::from([all.first().unwrap().clone()]);
    operator.revoke(all.first().unwrap()).await.ok();
    let of_state = |state: State| v1::ListLeasesRequest { state: state.into(), ..Default::default() };
    eventually("it has run out", async || names(&operator, of_state(State::Expired)).await == expired).await;

    let everything: BTreeSet<String> =
        [&all, &statuses, &others, &expired].into_iter().flatten().cloned().collect();
    assert_eq!(names(&operator, v1::ListLeasesRequest::default()).await, everything);
    assert_eq!(names(&operator, of_state(State::Revoked)).await, revoked);
    assert_eq!(names(&operator, of_state(State::Undelivered)).await, BTreeSet::new());
    let active: BTreeSet<String> =
        everything.difference(&expired).filter(|lease| !revoked.contains(*lease)).cloned().collect();
    assert_eq!(names(&operator, of_state(State::Active)).await, active);
    let of = |kind: Kind| v1::ListLeasesRequest { selector: selector(kind), ..Default::default() };
    assert_eq!(names(&operator, of(Kind::Audience(STATUS.to_owned()))).await, statuses);
    assert_eq!(names(&operator, of(Kind::Task(second))).await, others.union(&expired).cloned().collect());
    let page = v1::ListLeasesRequest { page_size: 2, ..Default::default() };
    assert_eq!(operator.list_leases(page.clone()).await.ok().leases.len(), 2);
    assert_eq!(names(&operator, page).await, everything);

    for bad in [
        v1::ListLeasesRequest { page_size: -1, ..Default::default() },
        v1::ListLeasesRequest { page_token: "x".to_owned(), ..Default::default() },
        v1::ListLeasesRequest { state: 99, ..Default::default() },
        v1::ListLeasesRequest { selector: Some(v1::Selector { kind: None }), ..Default::default() },
    ] {
        operator.list_leases(bad).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    drop((operator, agent, other));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t1_u1_what_a_selection_revokes_is_dead_when_it_is_answered_and_its_preview_ends_nothing() {
    const TASKS: usize = 4;
    const LEASES: usize = 30;
    let world = World::start();
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    let agent = world.client(AGENT).await;
    let (mut dead, mut alive, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..TASKS {
        let task = world.open_task(world.create(&format!("{number}"))).await.name;
        for lease in 0..LEASES {
            dead.push(credential(&agent, issue(&task, &format!("{lease}"))).await);
        }
        alive.push(credential(&agent, status(&task, "status")).await);
        tasks.push(task);
    }
    let whole = (TASKS * LEASES) as u64;
    let files = || Kind::Audience(FILES.to_owned());
    let mut first: Vec<String> = dead.iter().map(|credential| credential.lease.clone()).collect();
    first.sort();
    first.truncate(100);

    let preview = operator.revoke_leases(revoke(files(), true)).await.ok();
    assert_eq!((preview.leases_ended, &preview.leases), (whole, &first));
    for credential in dead.iter().chain(&alive) {
        assert!(server.is_active(&credential.token).await);
    }
    let revoked = operator.revoke_leases(revoke(files(), false)).await.ok();
    assert_eq!((revoked.leases_ended, revoked.leases.len()), (whole, 100));
    assert!(revoked.revision > preview.revision);
    for credential in &dead {
        let token = credential.token.clone();
        let request = v1::IntrospectCredentialRequest { token, min_revision: Some(revoked.revision) };
        assert!(!server.introspect_with(request).await.ok().active);
    }
    for credential in &alive {
        assert!(server.is_active(&credential.token).await);
    }
    // It forbids nothing, and finds nothing a second time.
    assert_eq!(operator.revoke_leases(revoke(files(), true)).await.ok().leases, [""; 0]);
    assert_eq!(operator.revoke_leases(revoke(files(), false)).await.ok().leases_ended, 0);
    let anew = credential(&agent, issue(&tasks[0], "anew")).await;
    let of_task = operator.revoke_leases(revoke(Kind::Task(tasks[0].clone()), false)).await.ok();
    assert_eq!(of_task.leases_ended, 2);
    assert!(!server.is_active(&anew.token).await && !server.is_active(&alive[0].token).await);
    assert!(server.is_active(&alive[1].token).await);
    let nothing = v1::RevokeLeasesRequest { selector: None, ..revoke(files(), false) };
    operator.revoke_leases(nothing).await.refused(Code::InvalidArgument, "invalid_argument");
    drop((operator, server, agent));

    let mut ended = BTreeSet::new();
    for written in world.finish() {
        if let Fact::LeasesEnded { task, leases, reason, .. } = &written.fact {
            assert_eq!(written.envelope.caller.as_ref().map(ToString::to_string), Some(OLIVIA.to_owned()));
            assert_eq!((reason.as_str(), written.envelope.tree), ("key_leaked", Some(task.root())));
            assert!(leases.iter().all(|lease| ended.insert((*task, *lease))), "ended twice");
        }
    }
    assert_eq!(ended.len(), TASKS * LEASES + 2);
}
