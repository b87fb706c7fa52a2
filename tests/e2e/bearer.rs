//! Callers without a certificate: by a JWT-SVID or an issuer's token, with the key that it is shown with first.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_api::v1;
use brevet_client::dpop::{HolderKey, Proof, prove};
use brevet_client::{Identity, Settings, connect};
use brevet_core::fact::Fact;
use brevet_testkit::x509::Key;
use serde_json::{Value, json};
use tonic::Code;
use tonic::codegen::http::{self, HeaderMap, HeaderValue};
use tower::ServiceExt;

use crate::world::{Client, STATUS, World, issue, next_second, now, permission};

const AUDIENCE: &str = "https://broker.dev.example";
const ISSUER: &str = "https://issuer.dev.example";
const AGENT: &str = "spiffe://tokens.dev.example/agent";
const ROBOT: &str = "spiffe://people.dev.example/robot";
const CREATE: &str = "/brevet.v1.TaskService/CreateTask";

/// A world with a trust domain whose workloads have JWT-SVIDs, and an issuer of other tokens. Both may do the same: an
/// orchestrator that is its own agent.
struct Tokens {
    world: World,
    svids: Key,
    issued: Key,
    /// One key, read anew by each who proves it.
    holder: PathBuf,
}

impl Tokens {
    fn start() -> Self {
        let (svids, issued) = (Key::p256(), Key::p384());
        let named = |key: &Key, more: Value| {
            let mut jwk = Value::Object(key.jwk());
            jwk["kid"] = json!("k");
            jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "keys": [jwk] }).to_string()
        };
        let world = World::with(|config, folder| {
            fs::write(folder.join("tokens.json"), named(&svids, json!({"use": "jwt-svid"}))).unwrap();
            fs::write(folder.join("issuer.json"), named(&issued, json!({}))).unwrap();
            let grpc = config.get_mut("grpc").unwrap().as_table_mut().unwrap();
            grpc.insert("client_certificate".to_owned(), "optional".into());
            let more: toml::Table = format!(
                r#"
                oidc = [{{ issuer = "{ISSUER}", trust_domain = "people.dev.example", jwks = "issuer.json",
                           subjects = {{ robot = "/robot" }} }}]
                trust = [{{ trust_domain = "tokens.dev.example", bundle = "tokens.json" }}]
                agents = [
                  {{ spiffe_id = "{AGENT}", sensitivity_max = "high", scope = [
                     {{ audience = "{STATUS}", resource = "health", actions = ["read"] }},
                     {{ audience = "https://files.dev.example", resource = "reports/**", actions = ["read"] }}] }},
                  {{ spiffe_id = "{ROBOT}", sensitivity_max = "high", scope = [
                     {{ audience = "{STATUS}", resource = "health", actions = ["read"] }}] }},
                ]
                orchestrators = [
                  {{ spiffe_id = "{AGENT}", task_types = ["summarise"], agents = ["{AGENT}"] }},
                  {{ spiffe_id = "{ROBOT}", task_types = ["summarise"], agents = ["{ROBOT}"] }},
                ]"#
            )
            .parse()
            .unwrap();
            for (name, rows) in more {
                let table = config.entry(name).or_insert_with(|| toml::Value::Array(Vec::new()));
                table.as_array_mut().unwrap().extend(rows.as_array().unwrap().clone());
            }
        });
        let holder = world.path("agent-a.key");
        Self { world, svids, issued, holder }
    }

    fn claims(sub: &str) -> Value {
        let at = now().seconds();
        json!({"sub": sub, "aud": AUDIENCE, "iat": at, "exp": at + 300})
    }

    fn svid(&self, claims: &Value) -> String {
        sign(&self.svids, r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#, claims)
    }

    fn token(&self, claims: &Value) -> String {
        sign(&self.issued, r#"{"alg":"ES384","kid":"k"}"#, claims)
    }

    fn key(path: &Path) -> HolderKey {
        HolderKey::from_pem(&fs::read(path).unwrap()).unwrap()
    }

    /// A client that shows this token with this key, and that the journal is to know as `caller`.
    async fn client(&self, caller: Option<&str>, token: &str, key: &Path) -> Client {
        let path = self.world.path("shown.token");
        fs::write(&path, token).unwrap();
        let identity = Identity::token(&path, Self::key(key));
        let (endpoint, trust) = (self.world.endpoints().grpc, self.world.server_trust());
        let broker = connect(&endpoint, &identity, &trust, &Settings::default()).await.unwrap();
        match caller {
            Some(caller) => self.world.known(broker, caller),
            None => self.world.stranger(broker),
        }
    }

    fn create(
        &self,
        agent: &str,
        request_id: &str,
        sensitivity_max: v1::Sensitivity,
    ) -> v1::CreateTaskRequest {
        v1::CreateTaskRequest {
            agent: agent.to_owned(),
            sensitivity_max: sensitivity_max.into(),
            scope: vec![permission(STATUS, "health", &["read"])],
            holder_key_thumbprint: Some(Self::key(&self.holder).thumbprint().to_string()),
            ..self.world.create(request_id)
        }
    }
}

fn sign(key: &Key, header: &str, claims: &Value) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = key.sign_jose("", input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

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
        let client = tokens.client(None, copy, &thief).await;
        let answer = client.create(tokens.create(AGENT, "stolen", v1::Sensitivity::Low)).await;
        answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "bearer_bound_elsewhere");
    }
    assert!(tokens.world.metrics().await.contains("bearers_elsewhere_total 2"));
    // What is refused is on record with the next that is granted.
    owner.create(tokens.create(AGENT, "after", v1::Sensitivity::Low)).await.ok();
    drop(owner);
    tokens.world.daemon.kill();
    tokens.world.daemon.restart();
    next_second().await;
    let client = tokens.client(None, &again, &thief).await;
    let answer = client.create(tokens.create(AGENT, "stolen", v1::Sensitivity::Low)).await;
    answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "bearer_bound_elsewhere");
    let owner = tokens.client(Some(AGENT), &token, &tokens.holder).await;
    owner.create(tokens.create(AGENT, "more", v1::Sensitivity::Low)).await.ok();
    drop((owner, client));
    let journal = tokens.world.finish();
    let bound = journal.iter().filter(|written| matches!(written.fact, Fact::BearerBound(_)));
    assert_eq!(bound.count(), 1);
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
        (with("sub", json!(ROBOT)), "sub_mismatch"),
        (with("cnf", json!({"jkt": "x"})), "cnf_mismatch"),
        (with("iss", json!(ISSUER)), "alg_key_mismatch"),
        (tokens.svid(&mixed_up), "alg_key_mismatch"),
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

/// Sends headers as they are to CreateTask and says what the journal is to hold.
async fn send(client: &Client, headers: HeaderMap, reason: &str) {
    let mut request =
        http::Request::post(CREATE).header("content-type", "application/grpc").header("te", "trailers");
    request.headers_mut().unwrap().extend(headers);
    let body = tonic::body::Body::new(axum::body::Body::from(vec![0; 5]));
    let response = client.broker.channel().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    client.answer::<()>("CreateTask", None, Err(status)).refused_for(
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        reason,
    );
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
    let with_certificate = tokens.world.stranger(tokens.world.client("agent-a").await.broker);
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
