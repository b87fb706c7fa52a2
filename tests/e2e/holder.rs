//! Holder binding: a task is drawn on with its holder key, and with no other.

use brevet_api::v1;
use brevet_client::dpop::{HolderKey, Proof, prove};
use brevet_core::time::Timestamp;
use tonic::Code;

use crate::world::{AGENT, Client, World, claims, issue, next_second, now};

const ISSUE: &str = "/brevet.v1.CredentialService/IssueCredential";

fn proof(key: &HolderKey, url: &str, id: &str, issued_at: Timestamp) -> Option<String> {
    Some(prove(key, &Proof { method: "POST", url, issued_at, id, access_token: None }).unwrap())
}

fn refused_proof<T: std::fmt::Debug>(answer: crate::world::Answer<T>, recorded: &str) {
    let status = answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", recorded);
    assert_eq!(status.message(), "the caller is not known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l8_another_replica_of_the_agent_finds_no_task() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let replica = world.workload("spiffe://workloads.dev.example/agent/a").await;
    let answer = replica.issue(issue(&task, "replica")).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    // Its proof for a key of its own is good, and not for the task's.
    next_second().await;
    let own = HolderKey::generate().unwrap();
    let url = world.endpoints().grpc + ISSUE;
    let request =
        v1::IssueCredentialRequest { dpop_proof: proof(&own, &url, "own", now()), ..issue(&task, "proof") };
    replica.issue(request).await.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    world.client(AGENT).await.issue(issue(&task, "holder")).await.ok();
    drop(replica);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l8_no_credential_names_a_certificate_that_is_not_its_holders() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    // Another replica proves the holder key, which is not that of its connection.
    let replica = world.workload("spiffe://workloads.dev.example/agent/a").await;
    next_second().await;
    let url = world.endpoints().grpc + ISSUE;
    let with = |id: &str, bind_certificate| v1::IssueCredentialRequest {
        dpop_proof: proof(&world.holder_key(AGENT), &url, id, now()),
        bind_certificate,
        ..issue(&task, id)
    };
    replica.issue(with("bound", true)).await.refused(Code::InvalidArgument, "invalid_argument");
    let token = replica.issue(with("plain", false)).await.ok().credential.unwrap().token;
    assert_eq!(claims(&token)["cnf"]["x5t#S256"], serde_json::Value::Null);
    drop(replica);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l8_the_first_to_redeem_a_claim_binds_its_key_for_ever() {
    let mut world = World::start();
    let mut request = world.create("open");
    request.holder_key_thumbprint = None;
    let orchestrator = world.client("orchestrator").await;
    let opened = orchestrator.create(request).await.ok();
    let (task, claim) = (opened.task.unwrap().name, opened.claim.unwrap());
    drop(orchestrator);
    let with = |request_id: &str, claim: Option<&str>| v1::IssueCredentialRequest {
        claim: claim.map(str::to_owned),
        ..issue(&task, request_id)
    };
    let agent = world.client(AGENT).await;
    for (request_id, wrong) in [
        ("none", None),
        ("empty", Some(String::new())),
        ("wrong", Some("A".repeat(claim.len()))),
        ("longer", Some(format!("{claim}A"))),
        ("shorter", Some(claim.get(1..).unwrap().to_owned())),
        ("digest", Some("*".to_owned())),
    ] {
        let answer = agent.issue(with(request_id, wrong.as_deref())).await;
        answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    }
    let token = agent.issue(with("first", Some(&claim))).await.ok().credential.unwrap().token;
    assert_eq!(claims(&token)["cnf"]["jkt"], world.thumbprint(AGENT));
    drop(agent);

    // The claim is spent: it binds no second key, and the first needs it no more. A restart changes nothing.
    for restarts in 0..2 {
        if restarts > 0 {
            world.daemon.kill();
            world.daemon.restart();
        }
        let replica = world.workload("spiffe://workloads.dev.example/agent/a").await;
        let answer = replica.issue(with(&format!("second-{restarts}"), Some(&claim))).await;
        answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
        let answer = replica.issue(with("first", Some(&claim))).await;
        answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
        world.client(AGENT).await.issue(with(&format!("later-{restarts}"), None)).await.ok();
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l8_a_proof_of_the_holder_key_counts_once_for_this_method_and_now() {
    // The URL stays the same over a restart, which the port does not.
    let mut world = World::with(|config, _| {
        let grpc = config.get_mut("grpc").unwrap().as_table_mut().unwrap();
        grpc.insert("url".to_owned(), "https://broker.dev.example".into());
    });
    let key = HolderKey::generate().unwrap();
    let mut request = world.create("open");
    request.holder_key_thumbprint = Some(key.thumbprint().to_string());
    let task = world.open_task(request).await.name;
    let url = format!("https://broker.dev.example{ISSUE}");
    let with = |request_id: &str, dpop_proof: Option<String>| v1::IssueCredentialRequest {
        dpop_proof,
        ..issue(&task, request_id)
    };
    let agent = world.client(AGENT).await;
    next_second().await;

    agent.issue(with("none", None)).await.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    let at = |seconds: u64| Timestamp::from_seconds(now().seconds() + seconds - 3_600);
    for (request_id, bad, recorded) in [
        ("htu", proof(&key, "https://other.example/", "htu", now()), "dpop_htu"),
        ("method", proof(&key, &url.replace("IssueCredential", "GetTask"), "method", now()), "dpop_htu"),
        ("stale", proof(&key, &url, "stale", at(3_600 - 120)), "dpop_iat"),
        ("future", proof(&key, &url, "future", at(3_600 + 120)), "dpop_iat"),
        ("empty", Some(String::new()), "dpop_malformed"),
        ("garbage", Some("a.b.c".to_owned()), "dpop_malformed"),
        ("jti", proof(&key, &url, "a\nb", now()), "dpop_jti"),
    ] {
        refused_proof(agent.issue(with(request_id, bad)).await, recorded);
    }
    let get = Proof { method: "GET", url: &url, issued_at: now(), id: "htm", access_token: None };
    let get = prove(&key, &get).unwrap();
    refused_proof(agent.issue(with("htm", Some(get))).await, "dpop_htm");
    let bound = Proof { method: "POST", url: &url, issued_at: now(), id: "ath", access_token: Some("a.b.c") };
    let bound = prove(&key, &bound).unwrap();
    refused_proof(agent.issue(with("ath", Some(bound))).await, "dpop_ath");

    let good = proof(&key, &url, "good", now());
    let credential = agent.issue(with("good", good.clone())).await.ok().credential.unwrap();
    assert_eq!(claims(&credential.token)["cnf"]["jkt"], key.thumbprint().to_string());
    assert!(claims(&credential.token)["cnf"].get("x5t#S256").is_none());
    // The connection has proven the key: a retry over it is no replay, and later calls need no proof.
    let again = agent.issue(with("good", good.clone())).await.ok().credential.unwrap();
    assert_eq!(again.lease, credential.lease);
    agent.issue(with("without", None)).await.ok();

    // Taken from a log and shown over another connection, it is.
    let thief: Client = world.client(AGENT).await;
    refused_proof(thief.issue(with("good", good.clone())).await, "proof_replayed");
    let answer = thief.issue(with("without", None)).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    drop((agent, thief));

    // A restart forgets which proofs it has seen, and takes none that was made before it.
    next_second().await;
    world.daemon.kill();
    world.daemon.restart();
    let answer = world.client(AGENT).await.issue(with("good", good)).await;
    answer.refused(Code::Unavailable, "proof_before_start");
    world.finish();
}
