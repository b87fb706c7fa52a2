//! Issuers whose keys are found by discovery: which keys verify when, and where they may come from.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use brevet_api::v1;
use brevet_core::fact::Fact;
use brevet_testkit::x509::Key;
use serde_json::{Value, json};
use tonic::Code;

use crate::tokens::{AUDIENCE, Tokens, sign};
use crate::world::{STATUS, World, eventually, next_second, now, replace};

const ROBOT: &str = "spiffe://people.dev.example/robot";

/// What an issuer publishes.
#[derive(Default)]
struct Published {
    jwks_uri: String,
    keys: String,
    /// How often somebody asked for the keys.
    asked: usize,
}

/// An issuer of this machine.
struct Issuer {
    url: String,
    published: Arc<Mutex<Published>>,
}

impl Issuer {
    /// Whose metadata say that its keys are at this host, on its own port.
    fn start(keys_at: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let jwks_uri = format!("{}/keys", url.replace("127.0.0.1", keys_at));
        let published = Arc::new(Mutex::new(Published { jwks_uri, ..Published::default() }));
        let (own, shared) = (url.clone(), Arc::clone(&published));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4_096];
                let read = stream.read(&mut request).unwrap_or(0);
                let text = {
                    let mut published = shared.lock().unwrap();
                    if request[..read].starts_with(b"GET /keys ") {
                        published.asked += 1;
                        published.keys.clone()
                    } else {
                        json!({"issuer": own, "jwks_uri": published.jwks_uri}).to_string()
                    }
                };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                let _given_up = stream.write_all(answer.as_bytes());
            }
        });
        Self { url, published }
    }

    /// Publishes this key and no other.
    fn publish(&self, key: &Key, kid: &str) {
        let mut jwk = Value::Object(key.jwk());
        jwk["kid"] = json!(kid);
        self.published.lock().unwrap().keys = json!({"keys": [jwk]}).to_string();
    }

    fn token(&self, key: &Key, kid: &str) -> String {
        let at = now().seconds();
        let claims = json!({"iss": self.url, "sub": "robot", "aud": AUDIENCE, "iat": at, "exp": at + 300});
        sign(key, &json!({"alg": "ES256", "kid": kid}).to_string(), &claims)
    }

    /// A daemon that looks for its keys.
    fn world(&self) -> Tokens {
        let world = World::with(|config, _| {
            config["grpc"].as_table_mut().unwrap().insert("client_certificate".to_owned(), "optional".into());
            let limits = toml::toml! { strangers_recorded_per_minute_max = 1000000 };
            config.insert("limits".to_owned(), limits.into());
            let bearers = toml::toml! { keys_refresh_seconds = 1 };
            config.insert("bearers".to_owned(), bearers.into());
            let more: toml::Table = format!(
                r#"oidc = [{{ issuer = "{}", trust_domain = "people.dev.example", subjects = {{ robot = "/robot" }} }}]
                agents = [{{ spiffe_id = "{ROBOT}", sensitivity_max = "high", scope = [
                    {{ audience = "{STATUS}", resource = "health", actions = ["read"] }}] }}]
                orchestrators = [{{ spiffe_id = "{ROBOT}", task_types = ["summarise"], agents = ["{ROBOT}"] }}]"#,
                self.url
            )
            .parse()
            .unwrap();
            for (name, rows) in more {
                let table = config.entry(name).or_insert_with(|| toml::Value::Array(Vec::new()));
                table.as_array_mut().unwrap().extend(rows.as_array().unwrap().clone());
            }
        });
        Tokens::over(world)
    }

    /// What comes of opening a task by a token of this key.
    async fn open(&self, tokens: &Tokens, request_id: &str, key: &Key, kid: &str) -> Result<(), Code> {
        let client = tokens.client(Some(ROBOT), &self.token(key, kid), &tokens.holder).await;
        let answer = client.create(tokens.create(ROBOT, request_id, v1::Sensitivity::Low)).await;
        answer.result().map(drop).map_err(|status| status.code())
    }

    /// Whether a token of this key lets anyone in.
    async fn verifies(&self, tokens: &Tokens, key: &Key, kid: &str) -> bool {
        let broker = tokens.client(None, &self.token(key, kid), &tokens.holder).await.broker;
        let listed = broker.tasks().list_tasks(v1::ListTasksRequest::default()).await;
        listed.map_or_else(|status| status.code() != Code::Unauthenticated, |_| true)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn i4_a_key_that_its_issuer_withdrew_verifies_nothing_whatever_files_are_refused() {
    let (one, two) = (Key::p256(), Key::p256());
    let issuer = Issuer::start("127.0.0.1");
    issuer.publish(&one, "one");
    let tokens = issuer.world();
    next_second().await;
    eventually("the first key is in force", || issuer.verifies(&tokens, &one, "one")).await;
    assert_eq!(issuer.open(&tokens, "one", &one, "one").await, Ok(()));

    // One policy would forbid, and the one beside it is none: both are refused.
    let forbid = r#"@id("stop") forbid (principal, action == Brevet::Action::"CreateTask", resource);"#;
    replace(&tokens.world.path("policies/broken.cedar"), "permit (");
    replace(&tokens.world.path("policies/stop.cedar"), forbid);
    tokens.world.daemon.hang_up();
    eventually("the broken policy is refused", || async { tokens.world.log().contains("stays in force") })
        .await;

    issuer.publish(&two, "two");
    eventually("the second key is in force", || issuer.verifies(&tokens, &two, "two")).await;
    assert_eq!(issuer.open(&tokens, "old", &one, "one").await, Err(Code::Unauthenticated));
    assert_eq!(issuer.open(&tokens, "two", &two, "two").await, Ok(()), "the forbid is in force");

    // Once nothing is refused any more, all of it is in force.
    std::fs::remove_file(tokens.world.path("policies/broken.cedar")).unwrap();
    tokens.world.daemon.hang_up();
    let mut number = 0;
    let denied = loop {
        match issuer.open(&tokens, &format!("try-{number}"), &two, "two").await {
            Ok(()) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(code) => break code,
        }
        number += 1;
        assert!(number < 100, "the forbid does not take effect");
    };
    assert_eq!(denied, Code::PermissionDenied);

    // Each change is one record: the start, a key, another, and the policies.
    let journal = tokens.world.stop();
    let loaded: Vec<_> = journal
        .iter()
        .filter_map(|written| match written.fact {
            Fact::ConfigurationLoaded { policy, registry, trust, .. } => Some((policy, registry, trust)),
            _ => None,
        })
        .collect();
    let [start, first, second, last] = loaded[..] else { panic!("{loaded:?}") };
    assert!((start.0, start.1) == (first.0, first.1) && (first.0, first.1) == (second.0, second.1));
    assert!(start.2 != first.2 && first.2 != second.2);
    assert!(last.0 != second.0 && (last.1, last.2) == (second.1, second.2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn i5_keys_elsewhere_are_taken_only_while_the_owner_names_their_host() {
    let key = Key::p256();
    let issuer = Issuer::start("localhost");
    issuer.publish(&key, "k");
    let tokens = issuer.world();
    next_second().await;
    let refused = "the issuer's keys are at localhost, which is neither its own host nor named in jwks_hosts";
    eventually("the host is refused", || async { tokens.world.log().contains(refused) }).await;
    assert!(!issuer.verifies(&tokens, &key, "k").await);
    assert_eq!(issuer.published.lock().unwrap().asked, 0, "somebody asked there");

    let name = |hosts: &[&str]| {
        let hosts: toml::Value = hosts.to_vec().into();
        tokens.world.configure(|config| {
            config["oidc"][0].as_table_mut().unwrap().insert("jwks_hosts".to_owned(), hosts);
        });
        tokens.world.daemon.hang_up();
    };
    name(&["keys.example", "LocalHost"]);
    eventually("the host is named", || issuer.verifies(&tokens, &key, "k")).await;

    // What is no host changes nothing, and is said.
    name(&["https://localhost"]);
    eventually("a url is refused", || async { tokens.world.log().contains("without scheme, port or path") })
        .await;
    assert!(issuer.verifies(&tokens, &key, "k").await);

    // Keys from a host that is named no more are not those from before.
    name(&["keys.example"]);
    eventually("the keys are gone", || async { !issuer.verifies(&tokens, &key, "k").await }).await;
    assert_eq!(issuer.open(&tokens, "late", &key, "k").await, Err(Code::Unauthenticated));
    tokens.world.stop();
}
