//! Who comes in: the handshake's refusals, the constant answer to strangers, and what the broker itself minted.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use brevet_api::v1;
use brevet_client::{Broker, Refusal};
use brevet_core::fact::Fact;
use brevet_core::time::Timestamp;
use brevet_testkit::ca::{Leaf, TestCa, TestSvid};
use rcgen::{Issuer, KeyPair, KeyUsagePurpose};
use tonic::{Code, Status};

use crate::world::{AGENT, Client, ORCHESTRATOR, RESOURCE_SERVER, World, Written, eventually, issue, now};

const AGENT_ID: &str = "spiffe://workloads.dev.example/agent/a";

/// What the first call of a new connection comes to, if there is a connection.
async fn first_call(world: &World, svid: &TestSvid) -> Result<Broker, Option<Status>> {
    let broker = world.connect(&world.identity(svid)).await.map_err(|_| None)?;
    match broker.tasks().list_tasks(v1::ListTasksRequest::default()).await {
        Ok(_) => Ok(broker),
        Err(status) => Err(Some(status)),
    }
}

/// The handshake refuses: no call is answered, by nobody.
async fn assert_alert(world: &World, what: &str, svid: &TestSvid) {
    match first_call(world, svid).await {
        Ok(_) => panic!("{what} is let in"),
        Err(None) => {}
        Err(Some(status)) => {
            assert_eq!(Refusal::from_status(&status).reason, None, "{what}: {status:?}");
            assert_ne!(status.code(), Code::Unauthenticated, "{what}: {status:?}");
        }
    }
}

/// Whoever comes with this certificate is nobody: by an alert, or where a bundle has its authority, in the first call.
pub(crate) async fn assert_nobody(world: &World, svid: &TestSvid, has_authority: bool) {
    if !has_authority {
        return assert_alert(world, "what no bundle vouches for", svid).await;
    }
    match first_call(world, svid).await {
        Err(Some(status)) => assert_eq!(status.code(), Code::Unauthenticated, "{status:?}"),
        other => panic!("not a stranger: {other:?}"),
    }
}

pub(crate) async fn stranger(world: &World, svid: &TestSvid) -> Client {
    world.stranger(world.connect(&world.identity(svid)).await.unwrap())
}

/// Why somebody was refused whom nobody knows.
fn stranger_refused(written: Written) -> Option<String> {
    let Fact::Denied { reason, .. } = written.fact else { return None };
    assert_eq!(written.envelope.caller, None);
    Some(reason.as_str().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_handshake_lets_in_nobody_without_a_path_to_an_anchor() {
    let world = World::start();
    let now = now();
    let at = |seconds: u64| Timestamp::from_seconds(now.seconds() - 86_400 + seconds);
    let good = Leaf::of(AGENT_ID, now);
    let foreign = TestCa::new(&"workloads.dev.example".parse().unwrap(), now);
    for (what, svid) in [
        ("self-signed", good.self_signed()),
        ("an unknown authority of the same name", foreign.sign(&good)),
        ("an authority", world.ca.sign(&Leaf { is_authority: true, ..good.clone() })),
        ("expired", world.ca.sign(&Leaf { not_before: at(0), not_after: at(86_399), ..good.clone() })),
        ("not yet valid", world.ca.sign(&Leaf { not_before: at(86_400 + 600), ..good.clone() })),
    ] {
        assert_alert(&world, what, &svid).await;
    }
    first_call(&world, &world.ca.sign(&good)).await.unwrap();
    // How often a client tries again is its own business.
    let refused: BTreeSet<_> = world.stop().into_iter().filter_map(stranger_refused).collect();
    assert_eq!(refused, ["cert_time", "chain_invalid"].map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stranger_learns_nothing_but_that_it_is_one() {
    let world = World::start();
    let now = now();
    let good = Leaf::of(AGENT_ID, now);
    let id = |uri: &str| Leaf::of(uri, now);
    let mut told = Vec::new();
    for (leaf, recorded) in [
        (id("spiffe://other.example/agent/a"), "id_not_authoritative"),
        (id("spiffe://broker.dev.example/brevet"), "own_credential"),
        (
            Leaf {
                uris: vec![AGENT_ID.into(), "spiffe://workloads.dev.example/orchestrator".into()],
                ..good.clone()
            },
            "san_count",
        ),
        (
            Leaf { uris: vec![AGENT_ID.into(), "https://workloads.dev.example/".into()], ..good.clone() },
            "san_count",
        ),
        (Leaf { uris: vec![], ..good.clone() }, "san_count"),
        (id("spiffe://workloads.dev.example"), "id_invalid"),
        (id("spiffe://workloads.dev.example/agent/a/"), "id_invalid"),
        (id("spiffe://workloads.dev.example/agent//a"), "id_invalid"),
        (id("spiffe://workloads.dev.example/agent/../orchestrator"), "id_invalid"),
        (id("spiffe://workloads.dev.example/agent/%61"), "id_invalid"),
        (id("spiffe://WORKLOADS.dev.example/agent/a"), "id_invalid"),
        (id("SPIFFE://workloads.dev.example/agent/a"), "id_invalid"),
        (id("https://workloads.dev.example/agent/a"), "id_invalid"),
        (
            Leaf {
                key_usages: vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
                ..good.clone()
            },
            "svid_profile",
        ),
        (Leaf { key_usages: vec![], ..good.clone() }, "svid_profile"),
    ] {
        let what = format!("{leaf:?}");
        let svid = world.ca.sign(&leaf);
        let Ok(broker) = world.connect(&world.identity(&svid)).await else { panic!("an alert for {what}") };
        let client = world.stranger(broker);
        let answers = [
            client.get("tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz").await.refused_for(
                Code::Unauthenticated,
                "UNAUTHENTICATED",
                recorded,
            ),
            client.introspect("a.b.c").await.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", recorded),
        ];
        told.extend(answers.map(|status| (status.message().to_owned(), status.details().to_owned())));
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    assert_eq!(told[0].0, "the caller is not known");
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t8_what_the_broker_minted_authenticates_no_caller() {
    // The worst case: the broker's own authority stands in the bundle of the workloads' trust domain too.
    for trusted in [false, true] {
        let world = World::start();
        let authority = fs::read_to_string(world.path("state/ca.pem")).unwrap();
        let key = KeyPair::from_pem(&fs::read_to_string(world.path("state/ca.key")).unwrap()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&authority, key).unwrap();
        if trusted {
            let bundle = world.path("workloads.pem");
            let text = fs::read_to_string(&bundle).unwrap() + &authority;
            crate::world::replace(&bundle, &text);
            world.daemon.hang_up();
        }
        for path in ["/brevet", "/agent/workloads.dev.example/agent/a/task/7zzzzzzzzzzzzzzzzzzzzzzzzz"] {
            let leaf = Leaf::of(format!("spiffe://broker.dev.example{path}"), now());
            let own = leaf.signed_by(&issuer);
            if !trusted {
                assert_alert(&world, path, &own).await;
                continue;
            }
            // The handshake lets it in once the bundle is read.
            eventually("the bundle is reloaded", || async {
                matches!(first_call(&world, &own).await, Err(Some(status)) if status.code() == Code::Unauthenticated)
            })
            .await;
        }
        // How often a stranger came before the bundle was read is not known: what matters is that none was a caller.
        let refused: BTreeSet<_> = world.stop().into_iter().filter_map(stranger_refused).collect();
        assert!(
            refused.is_subset(&["own_credential", "chain_invalid"].map(str::to_owned).into()),
            "{refused:?}"
        );
        assert!(refused.contains(if trusted { "own_credential" } else { "chain_invalid" }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t8_a_task_token_in_the_metadata_makes_nobody_a_caller() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    let token = agent.issue(issue(&task, "one")).await.ok().credential.unwrap().token;
    let nobody = stranger(&world, &world.ca.svid("spiffe://other.example/agent/a")).await;
    for scheme in ["Bearer", "DPoP"] {
        let mut request = tonic::Request::new(v1::GetTaskRequest { name: task.clone() });
        request.metadata_mut().insert("authorization", format!("{scheme} {token}").parse().unwrap());
        let result = nobody.broker.tasks().get_task(request).await.map(tonic::Response::into_inner);
        let answer = nobody.answer("GetTask", None, result);
        answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "ambiguous_credentials");
    }
    drop((agent, nobody));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn identities_of_two_connections_never_mix() {
    let world = Arc::new(World::start());
    let task = world.open_task(world.create("open")).await.name;
    let (agent, server) = (world.client(AGENT).await, world.client(RESOURCE_SERVER).await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (agent, server, task) = (agent.clone(), server.clone(), task.clone());
        calls.spawn(async move {
            if number % 2 == 0 {
                agent.get(&task).await.ok();
            } else {
                server.get(&task).await.refused(Code::NotFound, "not_found");
            }
        });
    }
    calls.join_all().await;
    drop((agent, server));
    Arc::into_inner(world).unwrap().finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_identity_is_judged_again_when_its_authority_goes() {
    let world = World::start();
    let live = world.workload("spiffe://workloads.dev.example/orchestrator").await;
    let task = live.create(world.create("open")).await.ok().task.unwrap().name;

    // The test's authority leaves the bundle; the one of `brevet dev` stays.
    let bundle = world.path("workloads.pem");
    let both = fs::read_to_string(&bundle).unwrap();
    let first = both.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    crate::world::replace(&bundle, first);
    world.daemon.hang_up();
    eventually("the live connection is refused", || async {
        match live.get(&task).await.result() {
            Ok(_) => false,
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
                assert_eq!(status.message(), "the caller is not known");
                true
            }
        }
    })
    .await;
    assert_alert(&world, "a new connection", &world.ca.svid("spiffe://workloads.dev.example/orchestrator"))
        .await;
    world.client(ORCHESTRATOR).await.get(&task).await.ok();

    // With the whole trust domain gone nobody is left.
    let agent = world.client(AGENT).await;
    world.configure(|config| drop(config.remove("trust")));
    world.daemon.hang_up();
    eventually("the trust domain is gone", || async {
        matches!(agent.get(&task).await.result(), Err(status) if status.code() == Code::Unauthenticated)
    })
    .await;
    drop((live, agent));
    let journal = world.stop();
    let denied: Vec<_> = journal
        .iter()
        .filter_map(|it| match &it.fact {
            Fact::Denied { reason, .. } => Some((it.envelope.caller.is_none(), reason.as_str())),
            _ => None,
        })
        .collect();
    assert!(denied.len() >= 2, "{denied:?}");
    assert!(
        denied.iter().all(|it| it.0 && matches!(it.1, "chain_invalid" | "id_not_authoritative")),
        "{denied:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_does_not_outlive_its_certificate() {
    let world = World::start();
    let now = now();
    let leaf = Leaf { not_after: now.after(std::time::Duration::from_secs(3)), ..Leaf::of(AGENT_ID, now) };
    let broker = world.connect(&world.identity(&world.ca.sign(&leaf))).await.unwrap();
    assert!(broker.tasks().list_tasks(v1::ListTasksRequest::default()).await.is_ok());
    eventually("the connection is refused", || async {
        broker.tasks().list_tasks(v1::ListTasksRequest::default()).await.is_err()
    })
    .await;
    assert!(crate::world::now() >= leaf.not_after.floor_to_second());
    drop(broker);
    // The refusals, if a call came between the certificate's end and the connection's, are a stranger's.
    for written in world.stop() {
        if let Fact::Denied { reason, .. } = &written.fact {
            assert_eq!((reason.as_str(), &written.envelope.caller), ("cert_time", &None));
        }
    }
}
