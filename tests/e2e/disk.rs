//! A disk without room: what grows is refused, what ends goes on, and nothing that was acknowledged is lost.

use brevet_api::v1;
use brevet_core::fact::Fact;
use tonic::Code;

use crate::world::{AGENT, OPERATOR, ORCHESTRATOR, RESOURCE_SERVER, World, issue, renew};

fn reserve(world: &World, bytes: i64) {
    world.configure(|config| {
        let journal = config.get_mut("journal").unwrap().as_table_mut().unwrap();
        journal.insert("reserve_bytes".to_owned(), bytes.into());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u4_on_a_full_disk_nothing_is_granted_and_everything_can_be_ended() {
    let mut world = World::start();
    let agent = world.client(AGENT).await;
    let (kept, ended) =
        (world.open_task(world.create("kept")).await, world.open_task(world.create("ended")).await);
    let first = agent.issued(&kept.name, "first").await;
    let second = agent.issued(&kept.name, "second").await;
    let third = agent.issued(&kept.name, "third").await;
    drop(agent);

    // More is to be kept free than any disk has.
    assert!(world.daemon.stop().success());
    reserve(&world, 1 << 60);
    world.daemon.restart();
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    let full = (Code::Unavailable, "no_space");
    orchestrator.create(world.create("more")).await.refused(full.0, full.1);
    agent.issue(issue(&kept.name, "more")).await.refused(full.0, full.1);
    agent.renew(renew(&first.lease, "more")).await.refused(full.0, full.1);
    let part = v1::DelegateTaskRequest {
        parent: kept.name.clone(),
        request_id: "more".to_owned(),
        agent: "spiffe://workloads.dev.example/agent/b".to_owned(),
        ..Default::default()
    };
    agent.delegate(part).await.refused(full.0, full.1);
    // What was granted before is found again and is as good as it was.
    assert_eq!(orchestrator.create(world.create("kept")).await.ok().task.unwrap().name, kept.name);
    assert_eq!(agent.issued(&kept.name, "first").await.lease, first.lease);
    assert!(server.is_active(&first.token).await);
    // Refusals are recorded, and every ending is.
    agent.get("tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz").await.refused(Code::NotFound, "not_found");
    agent.give_back(&second.lease).await.ok();
    operator.revoke(&third.lease).await.ok();
    orchestrator.complete(&ended.name).await.ok();
    let lock = operator.stop("stop", v1::selector::Kind::Tool("read".to_owned())).await.ok();
    assert!(!server.is_active(&first.token).await);
    operator.lift(&lock.name).await.ok();
    drop((orchestrator, agent, operator, server));

    // With room again it serves as before, over a crash.
    world.daemon.kill();
    reserve(&world, 65_536);
    world.daemon.restart();
    let (agent, server) = (world.client(AGENT).await, world.client(RESOURCE_SERVER).await);
    for credential in [&first, &second, &third] {
        assert!(!server.is_active(&credential.token).await);
    }
    agent.issue(issue(&ended.name, "late")).await.refused(Code::FailedPrecondition, "task_closed");
    let fourth = agent.issued(&kept.name, "fourth").await;
    assert!(server.is_active(&fourth.token).await);
    drop((agent, server));
    let granted = |written: &crate::world::Written| {
        matches!(written.fact, Fact::TaskOpened(_) | Fact::LeaseIssued { .. })
    };
    assert_eq!(world.finish().iter().filter(|written| granted(written)).count(), 6);
}
