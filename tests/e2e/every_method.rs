//! What holds of every method there is: they are taken from the description of the services, so that none is left out.

use brevet_api::v1;
use brevet_testkit::ca::Leaf;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic::Code;

use crate::identity::stranger;
use crate::wire::{call, framed};
use crate::world::{AGENT, OPERATOR, ORCHESTRATOR, RESOURCE_SERVER, World, issue, now, renew};

pub(crate) struct Method {
    pub(crate) path: String,
    name: String,
    streams: bool,
    /// The name of the message that it takes.
    pub(crate) input: String,
}

/// The files of the API.
pub(crate) fn description() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(brevet_api::FILE_DESCRIPTOR_SET).unwrap();
    set.file.into_iter().filter(|file| file.package() == "brevet.v1").collect()
}

pub(crate) fn every_method() -> Vec<Method> {
    let own = description().into_iter();
    let services = own.flat_map(|file| file.service);
    let methods: Vec<Method> = services
        .flat_map(|service| {
            let service_name = service.name().to_owned();
            service.method.into_iter().map(move |method| Method {
                path: format!("/brevet.v1.{service_name}/{}", method.name()),
                name: method.name().to_owned(),
                streams: method.client_streaming(),
                input: method.input_type().to_owned(),
            })
        })
        .collect();
    assert!(methods.len() >= 20, "the methods were not found");
    methods
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_no_method_tells_a_stranger_more_than_that_it_is_one() {
    let world = World::with(|config, _| {
        let limits = toml::toml! { strangers_recorded_per_minute_max = 1000 };
        config.insert("limits".to_owned(), limits.into());
    });
    let agent = "spiffe://workloads.dev.example/agent/a";
    let two = vec![agent.into(), "spiffe://workloads.dev.example/orchestrator".into()];
    let foreign = world.ca.svid("spiffe://other.example/agent/a");
    let two = world.ca.sign(&Leaf { uris: two, ..Leaf::of(agent, now()) });
    let own = world.ca.svid("spiffe://broker.dev.example/brevet");
    let mut told = Vec::new();
    for (svid, recorded) in [(foreign, "id_not_authoritative"), (two, "san_count"), (own, "own_credential")] {
        let nobody = stranger(&world, &svid).await;
        for method in every_method() {
            // Whether its message could be read makes no difference either.
            for body in [vec![], vec![0xff; 32]] {
                let result = call(&nobody, &method.path, &[], framed(&body)).await;
                let answer = nobody.answer(&method.name, None, result);
                let status = answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", recorded);
                told.push((status.message().to_owned(), status.details().to_vec()));
            }
        }
    }
    assert!(told.iter().all(|status| *status == told[0]), "{told:?}");
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u1_bytes_that_are_no_message_are_refused_and_recorded_by_every_method() {
    let world = World::with(|config, _| {
        let limits = toml::toml! { malformed_recorded_per_minute_max = 1000 };
        config.insert("limits".to_owned(), limits.into());
    });
    let task = world.open_task(world.create("open")).await;
    let client = world.client(AGENT).await;
    let large = framed(&[&[0x0a, 0x81, 0x80, 4][..], &[b'a'; 65_537]].concat());
    for method in every_method() {
        let (malformed, large_reason) = (Code::InvalidArgument, Code::ResourceExhausted);
        // A stream begins with a message of its own kind, and none is none of it.
        let nothing = if method.streams { "invalid_argument" } else { "message_malformed" };
        for (body, code, reason) in [
            (vec![], malformed, nothing),
            (framed(&[0xff; 32]), malformed, "message_malformed"),
            (framed(&[0x0a, 0x7f, b'a']), malformed, "message_malformed"),
            (vec![0, 0, 0, 0, 9, 0x0a], malformed, "message_malformed"),
            (vec![1, 0, 0, 0, 1, 0], malformed, "message_malformed"),
            (large.clone(), large_reason, "message_too_large"),
        ] {
            let result = call(&client, &method.path, &[], body).await;
            client.answer(&method.name, None, result).refused(code, reason);
        }
    }
    assert_eq!(client.get(&task.name).await.ok(), task);
    drop(client);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_name_is_malformed_or_unknown_where_it_is_not_one() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    let (operator, server) = (world.client(OPERATOR).await, world.client(RESOURCE_SERVER).await);
    let lease = agent.issued(&task, "one").await.lease;
    let (no_task, key) = ("tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz", "7zzzzzzzzzzzzzzzzzzzzzzzzz");
    let (elsewhere, beside) = (format!("{no_task}/leases/{key}"), format!("{task}/leases/{key}"));
    let (missing, invalid) = ((Code::NotFound, "not_found"), (Code::InvalidArgument, "invalid_argument"));
    let part = |parent: &str| v1::DelegateTaskRequest {
        parent: parent.to_owned(),
        request_id: "part".to_owned(),
        agent: "spiffe://workloads.dev.example/agent/b".to_owned(),
        ..Default::default()
    };
    for (name, (code, reason)) in [
        ("", invalid),
        (lease.as_str(), invalid),
        ("tasks/1", invalid),
        (&task.to_uppercase(), invalid),
        (no_task, missing),
    ] {
        orchestrator.get(name).await.refused(code, reason);
        orchestrator.complete(name).await.refused(code, reason);
        orchestrator.fail(name).await.refused(code, reason);
        orchestrator.cancel(name).await.refused(code, reason);
        agent.issue(issue(name, "unknown")).await.refused(code, reason);
        agent.delegate(part(name)).await.refused(code, reason);
    }
    for (name, (code, reason)) in [
        ("", invalid),
        (task.as_str(), invalid),
        (&lease.to_uppercase(), invalid),
        (&elsewhere, missing),
        (&beside, missing),
    ] {
        agent.renew(renew(name, "unknown")).await.refused(code, reason);
        agent.give_back(name).await.refused(code, reason);
        operator.get_lease(name).await.refused(code, reason);
        operator.revoke(name).await.refused(code, reason);
    }
    let lock = format!("locks/{key}");
    for (name, (code, reason)) in [("", invalid), (key, invalid), (task.as_str(), invalid), (&lock, missing)]
    {
        operator.get_lock(name).await.refused(code, reason);
        operator.lift(name).await.refused(code, reason);
    }
    for none in [None, Some(v1::selector::Kind::Task("tasks/1".to_owned()))] {
        let selector = Some(v1::Selector { kind: none.clone() });
        let list = v1::ListLeasesRequest { selector: selector.clone(), ..Default::default() };
        operator.list_leases(list).await.refused(invalid.0, invalid.1);
        let revoke = v1::RevokeLeasesRequest { selector: selector.clone(), ..Default::default() };
        operator.revoke_leases(revoke).await.refused(invalid.0, invalid.1);
        let stop = v1::CreateLockRequest { selector, request_id: "stop".to_owned(), ..Default::default() };
        operator.create_lock(stop).await.refused(invalid.0, invalid.1);
    }
    operator
        .list_locks(v1::ListLocksRequest { page_size: -1, ..Default::default() })
        .await
        .refused(invalid.0, invalid.1);
    server.introspect("").await.refused(invalid.0, invalid.1);
    // Nothing came of any of it.
    assert_eq!(orchestrator.get(&task).await.ok().live_leases, 1);
    assert_eq!(orchestrator.list(v1::ListTasksRequest::default()).await.ok().tasks.len(), 1);
    assert_eq!(operator.list_locks(v1::ListLocksRequest::default()).await.ok().locks, []);
    drop((orchestrator, agent, operator, server));
    world.finish();
}
