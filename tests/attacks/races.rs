//! Attacks that take more than one call.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_api::v1;
use brevet_testkit::x509::Key;
use ring::digest::{SHA256, digest};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;

use crate::shown::{P256_ORDER, nobody_follows, showing};
use crate::tokens::{AGENT, CREATE, Tokens, send, sign, told};
use crate::world::{Client, eventually, next_second, now, replace};

/// Calls at once, each with another key.
const KEYS: usize = 200;

/// A proof by a key of one's own for a call with this token.
fn proof_by(key: &Key, tokens: &Tokens, token: &str, id: &str) -> String {
    proof_at(key, tokens, token, id, now().seconds())
}

/// The same, dated by another clock.
fn proof_at(key: &Key, tokens: &Tokens, token: &str, id: &str, at: u64) -> String {
    let header = json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": key.jwk()});
    let url = tokens.world.endpoints().grpc + CREATE;
    let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()));
    let claims = json!({"jti": id, "htm": "POST", "htu": url, "iat": at, "ath": hash});
    sign(key, &header.to_string(), &claims)
}

/// The other signature of the same by the same key: whoever has (r, s) has (r, n - s) as well.
fn other_signature(jws: &str) -> String {
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for index in (0..32).rev() {
        let order = i32::from(P256_ORDER[index]);
        let difference = order - i32::from(signature[32 + index]) - borrow;
        borrow = i32::from(difference < 0);
        signature[32 + index] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Opens a task, with these headers.
async fn open(client: &Client, headers: (String, String), request: v1::CreateTaskRequest) -> Code {
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("authorization", format!("Bearer {}", headers.0).parse().unwrap());
    request.metadata_mut().insert("dpop", headers.1.parse().unwrap());
    let mut stub = v1::task_service_client::TaskServiceClient::new(client.broker.channel());
    stub.create_task(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nobody_is_led_elsewhere() {
    let tokens = Tokens::start();
    next_second().await;
    nobody_follows(&tokens).await;
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_shown_with_many_keys_at_once_is_bound_to_one() {
    let tokens = Arc::new(Tokens::start());
    next_second().await;
    let token = tokens.svid(&Tokens::claims(AGENT));
    let client = tokens.client(None, "", &tokens.holder).await;
    let mut calls = JoinSet::new();
    for number in 0..KEYS {
        let headers = (token.clone(), proof_by(&Key::p256(), &tokens, &token, "j"));
        let request = tokens.create(AGENT, &format!("r{number}"), v1::Sensitivity::Low);
        let client = client.clone();
        calls.spawn(async move { open(&client, headers, request).await });
    }
    let codes = calls.join_all().await;
    let let_in = codes.iter().filter(|code| **code == Code::Ok).count();
    let refused = codes.iter().filter(|code| **code == Code::Unauthenticated).count();
    assert_eq!((let_in, refused), (1, KEYS - 1));
    let metrics = tokens.world.metrics().await;
    assert!(metrics.contains(&format!("bearers_elsewhere_total {}", KEYS - 1)), "{metrics}");
    drop(client);
    let journal = Arc::into_inner(tokens).unwrap().world.stop();
    let recorded =
        |name: &str| journal.iter().filter(|written| format!("{:?}", written.fact).contains(name)).count();
    assert_eq!((recorded("BearerBound"), recorded("bearer_bound_elsewhere")), (1, KEYS - 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_proof_counts_once_whatever_the_connection_and_the_method() {
    let tokens = Tokens::start();
    next_second().await;
    let (token, key) = (tokens.svid(&Tokens::claims(AGENT)), Key::p256());
    let proof = proof_by(&key, &tokens, &token, "once");
    let first = tokens.client(Some(AGENT), "", &tokens.holder).await;
    let request = || tokens.create(AGENT, "open", v1::Sensitivity::Low);
    assert_eq!(open(&first, (token.clone(), proof.clone()), request()).await, Code::Ok);
    let second = tokens.client(Some(AGENT), "", &tokens.holder).await;
    // The same proof, its other signature, and another proof of the same name.
    for proof in [proof.clone(), other_signature(&proof), proof_by(&key, &tokens, &token, "once")] {
        for client in [&first, &second] {
            send(client, showing(&token, &proof), "proof_replayed").await;
        }
    }
    let mut request = tonic::Request::new(v1::ListTasksRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let fresh = proof_by(&key, &tokens, &token, "for another method");
    request.metadata_mut().insert("dpop", fresh.parse().unwrap());
    let mut stub = v1::task_service_client::TaskServiceClient::new(second.broker.channel());
    let result = stub.list_tasks(request).await.map(tonic::Response::into_inner);
    // Its proof is for another method, so that it is nobody.
    let nobody = tokens.client(None, "", &tokens.holder).await;
    nobody.answer("ListTasks", None, result).refused_for(
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        "dpop_htu",
    );
    drop((first, second, stub));
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_signature_of_the_same_is_the_same() {
    let tokens = Tokens::start();
    next_second().await;
    let (token, owner, thief) = (tokens.svid(&Tokens::claims(AGENT)), Key::p256(), Key::p256());
    let client = tokens.client(Some(AGENT), "", &tokens.holder).await;
    let request = |id: &str| tokens.create(AGENT, id, v1::Sensitivity::Low);
    let proof = proof_by(&owner, &tokens, &token, "a");
    assert_eq!(open(&client, (token.clone(), proof), request("open")).await, Code::Ok);
    let other = other_signature(&token);
    assert_ne!(other, token);
    let proof = proof_by(&thief, &tokens, &other, "b");
    send(&client, showing(&other, &proof), "bearer_bound_elsewhere").await;
    // It is as good as the first, for its owner.
    let proof = proof_by(&owner, &tokens, &other, "c");
    assert_eq!(open(&client, (other, proof), request("more")).await, Code::Ok);
    drop(client);
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_thief_takes_nothing_from_the_owner_of_a_token() {
    let tokens = Tokens::with(|limits| {
        limits.insert("proofs_remembered_per_caller_max".to_owned(), 10.into());
    });
    next_second().await;
    let (token, owner, thief) = (tokens.svid(&Tokens::claims(AGENT)), Key::p256(), Key::p256());
    let client = tokens.client(Some(AGENT), "", &tokens.holder).await;
    let request = |id: &str| tokens.create(AGENT, id, v1::Sensitivity::Low);
    let proof = proof_by(&owner, &tokens, &token, "first");
    assert_eq!(open(&client, (token.clone(), proof), request("open")).await, Code::Ok);
    // Whoever has a copy makes proofs without end; what is remembered of them must not be its owner's.
    for number in 0..20 {
        let proof = proof_by(&thief, &tokens, &token, &number.to_string());
        send(&client, showing(&token, &proof), "bearer_bound_elsewhere").await;
    }
    let proof = proof_by(&owner, &tokens, &token, "second");
    assert_eq!(open(&client, (token.clone(), proof), request("more")).await, Code::Ok);
    drop(client);
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_caller_makes_the_metrics_grow() {
    let tokens = Tokens::start();
    next_second().await;
    let client = tokens.client(None, "", &tokens.holder).await;
    let call = async |name: String| {
        let mut request = tonic::Request::new(v1::GetTaskRequest { name: name.clone() });
        request.metadata_mut().insert("authorization", format!("Bearer {name}").parse().unwrap());
        let mut stub = v1::task_service_client::TaskServiceClient::new(client.broker.channel());
        let result = stub.get_task(request).await.map(tonic::Response::into_inner);
        client.answer("GetTask", None, result).refused_for(
            Code::Unauthenticated,
            "UNAUTHENTICATED",
            "ambiguous_credentials",
        );
    };
    call("a".to_owned()).await;
    let before = tokens.world.metrics().await.lines().count();
    for number in 0..300 {
        call(format!("spiffe://a{number}.example/{number}")).await;
    }
    assert_eq!(tokens.world.metrics().await.lines().count(), before);
    drop(client);
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_proof_by_a_fast_clock_counts_once_across_a_crash() {
    let mut tokens = Tokens::start();
    next_second().await;
    let (token, key) = (tokens.svid(&Tokens::claims(AGENT)), Key::p256());
    let proof = proof_at(&key, &tokens, &token, "ahead", now().seconds() + 4);
    let client = tokens.client(None, "", &tokens.holder).await;
    let request = |tokens: &Tokens, id: &str| tokens.create(AGENT, id, v1::Sensitivity::Low);
    assert_eq!(open(&client, (token.clone(), proof.clone()), request(&tokens, "open")).await, Code::Ok);
    drop(client);
    // The port is another one after a restart, and the name that clients know the broker by is not.
    let url = tokens.world.endpoints().grpc;
    tokens.world.configure(|config| {
        config["grpc"].as_table_mut().unwrap().insert("url".to_owned(), url.into());
    });
    tokens.world.daemon.kill();
    tokens.world.daemon.restart();
    let client = tokens.client(Some(AGENT), "", &tokens.holder).await;
    let refused = told(&client, showing(&token, &proof)).await;
    client.answer::<()>("CreateTask", None, Err(refused)).refused_for(
        Code::Unavailable,
        "PROOF_BEFORE_START",
        "proof_before_start",
    );
    drop(client);
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_a_token_opened_ends_with_the_trust_in_its_authority() {
    const SERVER: &str = "spiffe://tokens.dev.example/server";
    let tokens = Tokens::start();
    next_second().await;
    tokens.world.configure(|config| {
        let enforcers = config["audiences"][0].as_table_mut().unwrap().get_mut("enforcers").unwrap();
        enforcers.as_array_mut().unwrap().push(SERVER.into());
    });
    tokens.world.daemon.hang_up();
    let in_force = || tokens.world.log().matches("the changed configuration is in force").count();
    eventually("the server is known", || async { in_force() == 1 }).await;
    let client = tokens.client(Some(SERVER), &tokens.svid(&Tokens::claims(SERVER)), &tokens.holder).await;
    let begin = v1::watch_revocations_request::Begin { audiences: vec![], cursor: None };
    let begin = v1::WatchRevocationsRequest { kind: Some(v1::watch_revocations_request::Kind::Begin(begin)) };
    let (asking, asked) = tokio::sync::mpsc::channel(1);
    asking.send(begin).await.unwrap();
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut stream = client.broker.revocations().watch_revocations(asked).await.unwrap().into_inner();
    let bundle = tokens.world.path("tokens.json");
    let other = fs::read_to_string(&bundle).unwrap().replace("\"k\"", "\"l\"");
    replace(&bundle, &other);
    tokens.world.daemon.hang_up();
    eventually("the authority is trusted no more", || async { in_force() == 2 }).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                ended => break ended.map(|_| ()),
            }
        }
    });
    let ended = ended.await.expect("the stream goes on");
    client.answer("WatchRevocations", None, ended).refused_for(
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        "trust_changed",
    );
    drop((client, stream, asking));
    tokens.world.finish();
}
