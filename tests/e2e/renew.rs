//! RenewCredential and ReturnCredential: a credential in place of another, and one given back.

use std::time::Duration;

use brevet_api::v1;
use brevet_core::fact::{Fact, LeaseOutcome};
use tonic::Code;

use crate::world::{
    AGENT, FILES, ORCHESTRATOR, OTHER_AGENT, RESOURCE_SERVER, World, claims, permission, renew, seconds,
};

const AGENT_A: &str = "spiffe://workloads.dev.example/agent/a";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l5_renewal_is_a_new_lease_that_names_the_old_one_and_never_widens() {
    let world = World::start();
    let (agent, server) = (world.client(AGENT).await, world.client(RESOURCE_SERVER).await);
    let task = world.open_task(world.create("open")).await.name;
    let wide = v1::IssueCredentialRequest {
        scope: vec![
            permission(FILES, "reports/q3", &["read"]),
            permission(FILES, "reports/q4/**", &["read"]),
        ],
        ..crate::world::issue(&task, "first")
    };
    let first = agent.issue(wide).await.ok().credential.unwrap();

    let second = agent.renew(renew(&first.lease, "same")).await.ok().credential.unwrap();
    assert_ne!(second.lease, first.lease);
    assert_eq!((&second.audience, &second.scope), (&first.audience, &first.scope));
    let (old, new) = (claims(&first.token), claims(&second.token));
    for same in ["iss", "sub", "aud", "cnf", "task", "authorization_details", "client_id"] {
        assert_eq!(new[same], old[same], "{same}");
    }
    assert_ne!(new["jti"], old["jti"]);
    // The old one lives on to its own end.
    assert!(server.is_active(&first.token).await && server.is_active(&second.token).await);

    // Less may be asked for, and then there is no way back to more; what was never there is not to be had.
    let less = vec![permission(FILES, "reports/q4/a", &["read"])];
    let narrower = v1::RenewCredentialRequest { scope: less.clone(), ..renew(&first.lease, "less") };
    let narrower = agent.renew(narrower).await.ok().credential.unwrap();
    assert_eq!(narrower.scope, less);
    let denied = Code::PermissionDenied;
    for (request_id, wider) in [
        ("resource", permission(FILES, "reports/q4/b", &["read"])),
        ("above", permission(FILES, "reports/q4/**", &["read"])),
        ("action", permission(FILES, "reports/q4/a", &["read", "write"])),
    ] {
        let request = v1::RenewCredentialRequest { scope: vec![wider], ..renew(&narrower.lease, request_id) };
        agent.renew(request).await.refused(denied, "scope_widens");
    }
    let again = agent.renew(renew(&narrower.lease, "again")).await.ok().credential.unwrap();
    assert_eq!(again.scope, less);

    drop((agent, server));
    let journal = world.finish();
    let renewed: Vec<(String, String)> = journal
        .iter()
        .filter_map(|written| match &written.fact {
            Fact::LeaseIssued { terms, renews: Some(renews), .. } => {
                Some((terms.id.to_string(), format!("{}/leases/{renews}", terms.id.task.name())))
            }
            _ => None,
        })
        .collect();
    let pair = |new: &v1::Credential, old: &v1::Credential| (new.lease.clone(), old.lease.clone());
    assert_eq!(renewed, [pair(&second, &first), pair(&narrower, &first), pair(&again, &narrower)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l5_nothing_is_renewed_for_another_or_of_what_has_ended() {
    let world = World::start();
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    let task = world.open_task(world.create("open")).await.name;
    let credential = agent.issued(&task, "first").await;

    // Another instance of the agent, another agent, the opener.
    let replica = world.workload(AGENT_A).await;
    let answer = replica.renew(renew(&credential.lease, "replica")).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    let other = world.client(OTHER_AGENT).await;
    other.renew(renew(&credential.lease, "other")).await.refused(Code::NotFound, "not_found");
    let answer = orchestrator.renew(renew(&credential.lease, "opener")).await;
    answer.refused(Code::PermissionDenied, "not_agent");

    // A lease that is none, of none, or of another task.
    let (id, elsewhere) = ("7zzzzzzzzzzzzzzzzzzzzzzzzz", world.open_task(world.create("other")).await.name);
    let key = credential.lease.rsplit_once('/').unwrap().1.to_owned();
    for (request_id, lease) in [
        ("none", format!("{task}/leases/{id}")),
        ("no-task", format!("tasks/{id}/leases/{key}")),
        ("moved", format!("{elsewhere}/leases/{key}")),
    ] {
        agent.renew(renew(&lease, request_id)).await.refused(Code::NotFound, "not_found");
    }
    for (request_id, lease) in [("task", task.clone()), ("empty", String::new()), ("key", key)] {
        let answer = agent.renew(renew(&lease, request_id)).await;
        answer.refused(Code::InvalidArgument, "invalid_argument");
    }

    // One that was returned, one whose end has come, one whose task has ended.
    let returned = agent.issued(&task, "returned").await;
    agent.give_back(&returned.lease).await.ok();
    let ended = Code::FailedPrecondition;
    agent.renew(renew(&returned.lease, "after-return")).await.refused(ended, "lease_ended");
    let short = v1::IssueCredentialRequest { lifetime: seconds(1), ..crate::world::issue(&task, "short") };
    // It may be over before it is there.
    let short = agent.issue(short).await.result();
    if let Ok(short) = short {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let answer = agent.renew(renew(&short.credential.unwrap().lease, "after-end")).await;
        answer.refused(ended, "lease_ended");
    }
    orchestrator.complete(&task).await.ok();
    agent.renew(renew(&credential.lease, "after-task")).await.refused(ended, "task_closed");
    drop((orchestrator, agent, replica, other));
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l9_a_retried_renewal_gets_the_same_credential_and_another_none() {
    let mut world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    let first = agent.issued(&task, "first").await;
    let renewed = agent.renew(renew(&first.lease, "renewal")).await.ok().credential.unwrap();
    drop(agent);
    for restarts in 0..2 {
        if restarts > 0 {
            world.daemon.kill();
            world.daemon.restart();
        }
        let agent = world.client(AGENT).await;
        let again = agent.renew(renew(&first.lease, "renewal")).await.ok().credential.unwrap();
        assert_eq!((again.lease, again.revision), (renewed.lease.clone(), renewed.revision));
        assert_eq!(claims(&again.token), claims(&renewed.token));
        let reused = Code::AlreadyExists;
        let other = v1::RenewCredentialRequest { lifetime: seconds(7), ..renew(&first.lease, "renewal") };
        agent.renew(other).await.refused(reused, "request_id_reused");
        agent.renew(renew(&renewed.lease, "renewal")).await.refused(reused, "request_id_reused");
        // The methods share the names of a task's requests.
        agent.renew(renew(&first.lease, "first")).await.refused(reused, "request_id_reused");
        agent.issue(crate::world::issue(&task, "renewal")).await.refused(reused, "request_id_reused");
        // What comes after them is durable, and so are they.
        agent.issued(&task, &format!("flush-{restarts}")).await;
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l3_a_renewed_credential_ends_within_its_task() {
    let world = World::start();
    let agent = world.client(AGENT).await;
    let request = v1::CreateTaskRequest { lifetime: seconds(30), ..world.create("open") };
    let task = world.open_task(request).await;
    let first = agent.issued(&task.name, "first").await;
    for (request_id, asked) in [("default", None), ("long", seconds(3_600))] {
        let request = v1::RenewCredentialRequest { lifetime: asked, ..renew(&first.lease, request_id) };
        let renewed = agent.renew(request).await.ok().credential.unwrap();
        assert!(renewed.expire_time.unwrap().seconds <= task.deadline.unwrap().seconds);
    }
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l6_what_its_holder_gave_back_is_dead_at_once_and_for_ever() {
    let mut world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    let (kept, returned) = (agent.issued(&task, "kept").await, agent.issued(&task, "returned").await);

    // Nobody but its holder gives it back.
    let replica = world.workload(AGENT_A).await;
    let answer = replica.give_back(&returned.lease).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    let other = world.client(OTHER_AGENT).await;
    other.give_back(&returned.lease).await.refused(Code::NotFound, "not_found");
    let orchestrator = world.client(ORCHESTRATOR).await;
    orchestrator.give_back(&returned.lease).await.refused(Code::PermissionDenied, "not_agent");
    let none = format!("{task}/leases/7zzzzzzzzzzzzzzzzzzzzzzzzz");
    agent.give_back(&none).await.refused(Code::NotFound, "not_found");
    agent.give_back(&task).await.refused(Code::InvalidArgument, "invalid_argument");

    let server = world.client(RESOURCE_SERVER).await;
    assert!(server.is_active(&returned.token).await);
    let revision = agent.give_back(&returned.lease).await.ok().revision;
    assert!(!server.is_active(&returned.token).await);
    assert!(server.is_active(&kept.token).await);
    assert_eq!(agent.get(&task).await.ok().live_leases, 1);
    // Twice is once, and a retry of the request that issued it brings nothing back.
    assert!(agent.give_back(&returned.lease).await.ok().revision >= revision);
    let answer = agent.issue(crate::world::issue(&task, "returned")).await;
    answer.refused(Code::FailedPrecondition, "lease_ended");

    drop((agent, replica, other, orchestrator, server));
    world.daemon.kill();
    world.daemon.restart();
    let server = world.client(RESOURCE_SERVER).await;
    assert!(!server.is_active(&returned.token).await && server.is_active(&kept.token).await);
    drop(server);
    let endings: Vec<_> = world
        .stop()
        .into_iter()
        .filter_map(|written| match written.fact {
            Fact::LeasesEnded { leases, outcome, reason, .. } => {
                Some((leases.len(), outcome, reason.as_str().to_owned(), written.envelope.caller))
            }
            _ => None,
        })
        .collect();
    let caller = Some(AGENT_A.parse().unwrap());
    assert_eq!(endings, [(1, LeaseOutcome::Revoked, "returned".to_owned(), caller)]);
}
