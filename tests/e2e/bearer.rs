//! Callers without a certificate: by a JWT-SVID or an issuer's token, with the key that it is shown with first.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_api::v1;
use brevet_client::dpop::{Proof, prove};
use brevet_core::fact::{ConfigurationPart, Fact};
use serde_json::{Value, json};
use tonic::Code;
use tonic::codegen::http::{self, HeaderMap, HeaderValue};

use crate::tokens::{AGENT, AUDIENCE, CREATE, ISSUER, ROBOT, Tokens, send, sign};
use crate::world::{
    STATUS, eventually, issue, next_second, now, permission, proofs_are_taken_again, replace,
};

fn health(task: &str, request_id: &str) -> v1::IssueCredentialRequest {
    v1::IssueCredentialRequest {
        audience: STATUS.to_owned(),
        scope: vec![permission(STATUS, "health", &["read"])],
        ..issue(task, request_id)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_workload_with_a_token_works_on_what_is_of_low_sensitivity_and_nothing_above() {
    let tokens = Tokens::start();
    next_second().await;
    let mut robot = Tokens::claims("robot");
    robot["iss"] = json!(ISSUER);
    for (workload, token) in [(AGENT, tokens.svid(&Tokens::claims(AGENT))), (ROBOT, tokens.token(&robot))] {
        let client = tokens.client(Some(workload), &token, &tokens.holder).await;
        let request = tokens.create(workload, "open", v1::Sensitivity::Low);
        let task = client.create(request).await.ok().task.unwrap().name;
        let credential = client.issue(health(&task, "issue")).await.ok().credential.unwrap();
        let claims = crate::world::claims(&credential.token);
        assert_eq!(claims["client_id"], workload);
        assert_eq!(claims["cnf"]["jkt"], Tokens::key(&tokens.holder).thumbprint().to_string());
        // What is above low is not opened.
        let request = tokens.create(workload, "above", v1::Sensitivity::Moderate);
        client.create(request).await.refused_for(Code::PermissionDenied, "POLICY_DENIED", "policy_denied");
        client.complete(&task).await.ok();
    }
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn i3_a_token_is_its_first_holder_s_across_a_crash() {
    let mut tokens = Tokens::start();
    next_second().await;
    let claims = Tokens::claims(AGENT);
    let token = tokens.svid(&claims);
    let owner = tokens.client(Some(AGENT), &token, &tokens.holder).await;
    owner.create(tokens.create(AGENT, "open", v1::Sensitivity::Low)).await.ok();
    // A thief has a copy, and another signature of the same token is no other token.
    let thief = tokens.world.path("agent-b.key");
    let again = tokens.svid(&claims);
    assert_ne!(token, again);
    for copy in [&token, &again] {
        // The attempt is on record with the workload whose token it is, for its own tenant's auditors.
        let client = tokens.client(Some(AGENT), copy, &thief).await;
        let answer = client.create(tokens.create(AGENT, "stolen", v1::Sensitivity::Low)).await;
        answer.unread().refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "bearer_bound_elsewhere");
    }
    assert!(tokens.world.metrics().await.contains("bearers_elsewhere_total 2"));
    // What is refused is on record with the next that is granted.
    owner.create(tokens.create(AGENT, "after", v1::Sensitivity::Low)).await.ok();
    drop(owner);
    tokens.world.daemon.kill();
    tokens.world.daemon.restart();
    proofs_are_taken_again().await;
    let client = tokens.client(Some(AGENT), &again, &thief).await;
    let answer = client.create(tokens.create(AGENT, "stolen", v1::Sensitivity::Low)).await;
    answer.unread().refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "bearer_bound_elsewhere");
    let owner = tokens.client(Some(AGENT), &token, &tokens.holder).await;
    owner.create(tokens.create(AGENT, "more", v1::Sensitivity::Low)).await.ok();
    drop((owner, client));
    let journal = tokens.world.finish();
    let bound: Vec<_> =
        journal.iter().filter(|written| matches!(written.fact, Fact::BearerBound(_))).collect();
    assert_eq!(bound.len(), 1);
    // It is its own tenant's auditors' to read.
    let envelope = &bound.first().unwrap().envelope;
    assert_eq!(envelope.caller.as_ref().unwrap().as_str(), AGENT);
    assert!(envelope.tenant.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r2_a_token_ends_the_probation_of_its_connection_and_who_shows_nothing_is_cut() {
    let tokens = Tokens::configured(|config| {
        let grpc = config.get_mut("grpc").unwrap().as_table_mut().unwrap();
        grpc.insert("probation_seconds_max".to_owned(), 2.into());
    });
    next_second().await;
    let token = tokens.svid(&Tokens::claims(AGENT));
    let client = tokens.client(Some(AGENT), &token, &tokens.holder).await;
    client.create(tokens.create(AGENT, "first", v1::Sensitivity::Low)).await.ok();
    // It may call as often as it will: to be refused makes it no more known.
    let garbage = tokens.client(None, "a.b.c", &tokens.holder).await;
    let answer = garbage.create(tokens.create(AGENT, "bad", v1::Sensitivity::Low)).await;
    answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "malformed");
    let cut = r#"brevet_connections_refused_total{listener="grpc",reason="unknown"} 1"#;
    eventually("the stranger is cut", async || tokens.world.metrics().await.contains(cut)).await;
    fs::write(tokens.world.path("shown.token"), &token).unwrap();
    let accepted = async || {
        let metrics = tokens.world.metrics().await;
        let counted = r#"brevet_connections_total{listener="grpc"} "#;
        metrics.lines().find_map(|line| line.strip_prefix(counted).map(str::to_owned)).expect(counted)
    };
    let before = accepted().await;
    client.create(tokens.create(AGENT, "second", v1::Sensitivity::Low)).await.ok();
    assert_eq!(accepted().await, before, "it is the same connection");
    drop((client, garbage));
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_token_for_this_broker_now_lets_nobody_in() {
    let tokens = Tokens::start();
    next_second().await;
    let at = now().seconds();
    let with = |name: &str, value: Value| {
        let mut claims = Tokens::claims(AGENT);
        claims[name] = value;
        tokens.svid(&claims)
    };
    let own = tokens.world.endpoints().server_spiffe_id.to_string();
    let mut mixed_up = Tokens::claims("robot");
    mixed_up["iss"] = json!(ISSUER);
    for (token, reason) in [
        (with("aud", json!("https://files.dev.example")), "aud_mismatch"),
        (with("aud", json!([AUDIENCE, "https://files.dev.example"])), "aud_mismatch"),
        (with("exp", json!(at - 1)), "time_invalid"),
        (with("iat", json!(at - 120)), "token_too_old"),
        (with("sub", json!(own)), "own_credential"),
        (with("sub", json!("spiffe://tokens.dev.example/invented")), "not_registered"),
        (with("sub", json!(ROBOT)), "sub_mismatch"),
        (with("cnf", json!({"jkt": "x"})), "cnf_mismatch"),
        (with("iss", json!(ISSUER)), "alg_key_mismatch"),
        (tokens.svid(&mixed_up), "alg_key_mismatch"),
        (tokens.token_from_elsewhere(&mixed_up), "bad_signature"),
        (tokens.token(&Tokens::claims(AGENT)), "alg_key_mismatch"),
        (sign(&tokens.svids, r#"{"alg":"none","kid":"k"}"#, &Tokens::claims(AGENT)), "alg_forbidden"),
        (
            sign(&tokens.svids, r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#, &Tokens::claims(AGENT)),
            "typ_mismatch",
        ),
        ("a.b.c".to_owned(), "malformed"),
    ] {
        let client = tokens.client(None, &token, &tokens.holder).await;
        let answer = client.create(tokens.create(AGENT, "bad", v1::Sensitivity::Low)).await;
        let status = answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", reason);
        assert_eq!(status.message(), "the caller is not known", "{reason}");
    }
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_shows_one_token_with_one_proof_made_for_it_and_no_certificate() {
    let tokens = Tokens::start();
    next_second().await;
    let token = tokens.svid(&Tokens::claims(AGENT));
    let url = tokens.world.endpoints().grpc + CREATE;
    let mut ids = 0;
    let mut proof = |method: &str, url: &str, access_token: Option<&str>| {
        ids += 1;
        let id = ids.to_string();
        let proof = Proof { method, url, issued_at: now(), id: &id, access_token };
        prove(&Tokens::key(&tokens.holder), &proof).unwrap()
    };
    let bearer = format!("Bearer {token}");
    let stranger = tokens.client(None, &token, &tokens.holder).await;
    let good = proof("POST", &url, Some(&token));
    let cases: Vec<(Vec<(&'static str, String)>, &str)> = vec![
        (vec![], "no_credentials"),
        (vec![("authorization", bearer.clone())], "ambiguous_credentials"),
        (vec![("dpop", good.clone())], "ambiguous_credentials"),
        (vec![("authorization", format!("{bearer}, {bearer}")), ("dpop", good.clone())], "malformed"),
        (vec![("authorization", format!("bearer {token}")), ("dpop", good.clone())], "ambiguous_credentials"),
        (vec![("authorization", format!("DPoP {token}")), ("dpop", good.clone())], "ambiguous_credentials"),
        (
            vec![("authorization-bin", URL_SAFE_NO_PAD.encode(&bearer)), ("dpop", good.clone())],
            "ambiguous_credentials",
        ),
        (
            vec![
                ("authorization", bearer.clone()),
                ("authorization-bin", "AA".into()),
                ("dpop", good.clone()),
            ],
            "ambiguous_credentials",
        ),
        (vec![("authorization", bearer.clone()), ("dpop", proof("GET", &url, Some(&token)))], "dpop_htm"),
        (
            vec![
                ("authorization", bearer.clone()),
                ("dpop", proof("POST", &url.replace("Create", "Get"), Some(&token))),
            ],
            "dpop_htu",
        ),
        (vec![("authorization", bearer.clone()), ("dpop", proof("POST", &url, Some("another")))], "dpop_ath"),
        (vec![("authorization", bearer.clone()), ("dpop", proof("POST", &url, None))], "dpop_ath"),
    ];
    for (headers, reason) in cases {
        let headers: HeaderMap = headers
            .into_iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::try_from(value).unwrap()))
            .collect();
        send(&stranger, headers, reason).await;
    }
    // Twice the same header.
    let mut twice = HeaderMap::new();
    for value in [&bearer, &bearer] {
        twice.append("authorization", HeaderValue::try_from(value).unwrap());
    }
    twice.append("dpop", HeaderValue::try_from(&good).unwrap());
    send(&stranger, twice, "ambiguous_credentials").await;
    // Whoever has a certificate shows nothing else.
    // Its own name is on the record.
    let with_certificate = tokens.world.client("agent-a").await;
    let mut both = HeaderMap::new();
    both.append("authorization", HeaderValue::try_from(&bearer).unwrap());
    both.append("dpop", HeaderValue::try_from(&good).unwrap());
    send(&with_certificate, both, "ambiguous_credentials").await;
    drop((stranger, with_certificate));
    tokens.world.finish();
}

/// One connection may carry the calls of several workloads, and none is taken for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_over_one_connection_are_each_their_own_callers() {
    let tokens = Tokens::start();
    next_second().await;
    let mut robot = Tokens::claims("robot");
    robot["iss"] = json!(ISSUER);
    let shown = [(AGENT, tokens.svid(&Tokens::claims(AGENT))), (ROBOT, tokens.token(&robot))];
    let stranger = tokens.client(None, &shown[0].1, &tokens.holder).await;
    let channel = stranger.broker.channel();
    let key = Tokens::key(&tokens.holder);
    let url = tokens.world.endpoints().grpc + CREATE;
    for round in 0..20 {
        for (workload, token) in &shown {
            let proof = Proof {
                method: "POST",
                url: &url,
                issued_at: now(),
                id: &format!("{workload}-{round}"),
                access_token: Some(token),
            };
            let mut request =
                tonic::Request::new(tokens.create(workload, &format!("r{round}"), v1::Sensitivity::Low));
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            request.metadata_mut().insert("dpop", prove(&key, &proof).unwrap().parse().unwrap());
            let mut stub = v1::task_service_client::TaskServiceClient::new(channel.clone());
            let opened = stub.create_task(request).await.unwrap().into_inner().task.unwrap();
            assert_eq!(opened.opener, *workload, "round {round}");
        }
    }
    drop((stranger, channel));
    tokens.world.finish();
}

/// Whoever publishes such keys has lost control of them; those from before stay, and the record says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_that_are_left_out_are_named_in_the_log() {
    let tokens = Tokens::start();
    next_second().await;
    for (file, name, reason) in [
        ("tokens.json", "kid", "kid_missing"),
        ("tokens.json", "use", "key_use"),
        ("issuer.json", "kty", "key_type"),
    ] {
        let path = tokens.world.path(file);
        let good = fs::read_to_string(&path).unwrap();
        let mut set: Value = serde_json::from_str(&good).unwrap();
        let mut other = set["keys"][0].clone();
        other[name] = json!("x");
        if name == "kid" {
            other.as_object_mut().unwrap().remove(name);
        }
        set["keys"].as_array_mut().unwrap().push(other);
        replace(&path, &set.to_string());
        tokens.world.daemon.hang_up();
        let told = || {
            let log = tokens.world.log();
            let mut lines = log.lines().filter(|line| line.contains("a key is left out"));
            lines.any(|line| [file, "element=1", reason].iter().all(|part| line.contains(part)))
        };
        eventually(reason, || async { told() }).await;
        replace(&path, &good);
    }
    // What is left out takes nothing from the others.
    let client = tokens.client(Some(AGENT), &tokens.svid(&Tokens::claims(AGENT)), &tokens.holder).await;
    client.create(tokens.create(AGENT, "one", v1::Sensitivity::Low)).await.ok();
    drop(client);
    tokens.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_that_are_refused_change_nothing_and_are_on_record() {
    let tokens = Tokens::start();
    next_second().await;
    let good = fs::read_to_string(tokens.world.path("issuer.json")).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut set: Value = serde_json::from_str(&good).unwrap();
        change(&mut set);
        set.to_string()
    };
    let weak = json!({"kty": "RSA", "kid": "weak", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([0x81; 128])});
    for (text, reason) in [
        (with(&|set| set["keys"].as_array_mut().unwrap().push(weak.clone())), "key_unacceptable"),
        (with(&|set| set["keys"][0]["d"] = json!("AA")), "key_unacceptable"),
        (
            with(&|set| set["keys"].as_array_mut().unwrap().push(json!({"kty": "oct", "k": "AA"}))),
            "key_unacceptable",
        ),
        (
            with(&|set| {
                let one = set["keys"][0].clone();
                set["keys"].as_array_mut().unwrap().push(one)
            }),
            "kid_duplicate",
        ),
        ("not json".to_owned(), "jwks_malformed"),
    ] {
        let refused = tokens.world.log().matches("stays in force").count();
        replace(&tokens.world.path("issuer.json"), &text);
        tokens.world.daemon.hang_up();
        eventually(reason, || async { tokens.world.log().matches("stays in force").count() > refused }).await;
        let mut robot = Tokens::claims("robot");
        robot["iss"] = json!(ISSUER);
        robot["jti"] = json!(refused.to_string());
        let client = tokens.client(Some(ROBOT), &tokens.token(&robot), &tokens.holder).await;
        let request = tokens.create(ROBOT, &format!("r{refused}"), v1::Sensitivity::Low);
        client.create(request).await.ok();
    }
    let journal = tokens.world.finish();
    let refused: Vec<_> = journal
        .iter()
        .filter_map(|written| match &written.fact {
            Fact::ConfigurationRefused { part: ConfigurationPart::Trust, reason } => Some(reason.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        refused,
        ["key_unacceptable", "key_unacceptable", "key_unacceptable", "kid_duplicate", "jwks_malformed"]
    );
}
