//! What happens to a credential whose caller is gone before it could be handed over.

use std::time::Duration;

use brevet_api::v1;
use brevet_core::fact::{Fact, LeaseOutcome};

use crate::world::{AGENT, Client, OPERATOR, World, issue, now};

/// Asks for a credential and goes away before the answer, a little later each time.
async fn leave_early(agent: &Client, request: v1::IssueCredentialRequest, attempt: u64) {
    let agent = agent.clone();
    let call = tokio::spawn(async move { agent.broker.credentials().issue_credential(request).await });
    tokio::time::sleep(Duration::from_micros(attempt % 40 * 150)).await;
    call.abort();
}

async fn endings(auditor: &Client, task: &str) -> usize {
    let request = v1::ListEventsRequest {
        task: task.to_owned(),
        r#type: "leases_ended".to_owned(),
        ..v1::ListEventsRequest::default()
    };
    auditor.events(request).await.ok().events.len()
}

fn impatient() -> World {
    World::with(|config, _| {
        config.insert("limits".to_owned(), toml::toml! { undelivered_seconds = 1 }.into());
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l2_a_credential_whose_caller_is_gone_ends_undelivered() {
    let world = impatient();
    let (agent, auditor) = (world.client(AGENT).await, world.client(OPERATOR).await);
    let task = world.open_task(world.create("open")).await.name;
    let kept = agent.issued(&task, "kept").await.lease;
    let mut attempt = 0;
    while endings(&auditor, &task).await == 0 {
        attempt += 1;
        assert!(attempt < 400, "no call was left at the right time");
        if agent.get(&task).await.ok().live_leases < 60 {
            leave_early(&agent, issue(&task, &format!("left-{attempt}")), attempt).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    drop((agent, auditor));
    let journal = world.stop();
    let ended: Vec<_> = journal
        .iter()
        .filter_map(|written| match &written.fact {
            Fact::LeasesEnded { leases, outcome, reason, .. } => Some((written, leases, *outcome, reason)),
            _ => None,
        })
        .collect();
    assert!(!ended.is_empty());
    for (written, leases, outcome, reason) in ended {
        assert_eq!((outcome, reason.as_str()), (LeaseOutcome::Undelivered, "caller_gone"));
        // Nobody asked for it, and what was handed over is not among it.
        assert_eq!(written.envelope.caller, None);
        assert!(written.envelope.tenant.is_some());
        assert!(leases.iter().all(|key| !kept.ends_with(&key.to_string())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l2_a_credential_that_is_asked_for_again_in_time_lives_on() {
    let world = impatient();
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await.name;
    let mut in_time = Vec::new();
    for attempt in 0..60 {
        let (request, asked) = (issue(&task, &format!("again-{attempt}")), now());
        leave_early(&agent, request.clone(), attempt).await;
        let answer = agent.issue(request).await;
        // A machine that stood still meanwhile was too late, by no fault of the broker's.
        if now().since(asked) < Duration::from_secs(1) {
            in_time.push(answer.ok().credential.unwrap().lease);
        }
    }
    assert!(!in_time.is_empty(), "none was asked for again within a second");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    drop(agent);
    let journal = world.stop();
    for written in &journal {
        if let Fact::LeasesEnded { leases, .. } = &written.fact {
            assert!(leases.iter().all(|key| in_time.iter().all(|kept| !kept.ends_with(&key.to_string()))));
        }
    }
}
