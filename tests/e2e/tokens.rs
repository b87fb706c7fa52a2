//! A daemon that knows callers by their tokens, and what is shown to it.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_api::v1;
use brevet_client::dpop::HolderKey;
use brevet_client::{Identity, Settings, connect};
use brevet_testkit::x509::Key;
use serde_json::{Value, json};
use tonic::Code;
use tonic::codegen::http::{self, HeaderMap};
use tower::ServiceExt;

use crate::world::{Client, STATUS, World, now, permission};

pub(crate) const AUDIENCE: &str = "https://broker.dev.example";
pub(crate) const ISSUER: &str = "https://issuer.dev.example";
pub(crate) const OTHER_ISSUER: &str = "https://other.dev.example";
pub(crate) const AGENT: &str = "spiffe://tokens.dev.example/agent";
pub(crate) const ROBOT: &str = "spiffe://people.dev.example/robot";
pub(crate) const CREATE: &str = "/brevet.v1.TaskService/CreateTask";

/// A world with a trust domain whose workloads have JWT-SVIDs, and two issuers of other tokens, whose keys have the same
/// name. Workloads of the first two may do the same: an orchestrator that is its own agent.
pub(crate) struct Tokens {
    pub(crate) world: World,
    pub(crate) svids: Key,
    pub(crate) issued: Key,
    pub(crate) issued_elsewhere: Key,
    /// One key, read anew by each who proves it.
    pub(crate) holder: PathBuf,
}

impl Tokens {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// The same, with other limits.
    pub(crate) fn with(change: impl FnOnce(&mut toml::Table)) -> Self {
        Self::configured(|config| change(config.get_mut("limits").unwrap().as_table_mut().unwrap()))
    }

    /// The same, with another configuration.
    pub(crate) fn configured(change: impl FnOnce(&mut toml::Table)) -> Self {
        let (svids, issued, issued_elsewhere) = (Key::p256(), Key::p384(), Key::p384());
        let named = |key: &Key, more: Value| {
            let mut jwk = Value::Object(key.jwk());
            jwk["kid"] = json!("k");
            jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "keys": [jwk] }).to_string()
        };
        let world = World::with(|config, folder| {
            fs::write(folder.join("tokens.json"), named(&svids, json!({"use": "jwt-svid"}))).unwrap();
            fs::write(folder.join("issuer.json"), named(&issued, json!({}))).unwrap();
            fs::write(folder.join("other.json"), named(&issued_elsewhere, json!({}))).unwrap();
            let grpc = config.get_mut("grpc").unwrap().as_table_mut().unwrap();
            grpc.insert("client_certificate".to_owned(), "optional".into());
            // Every refusal of a stranger or a thief is to be found in the journal, not a sample of them.
            let limits = toml::toml! {
                strangers_recorded_per_minute_max = 1000000
                malformed_recorded_per_minute_max = 1000000
            };
            config.insert("limits".to_owned(), limits.into());
            change(config);
            let more: toml::Table = format!(
                r#"
                oidc = [{{ issuer = "{ISSUER}", trust_domain = "people.dev.example", jwks = "issuer.json",
                           subjects = {{ robot = "/robot" }} }},
                        {{ issuer = "{OTHER_ISSUER}", trust_domain = "others.dev.example", jwks = "other.json",
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
        Self { svids, issued, issued_elsewhere, ..Self::over(world) }
    }

    /// Keys that such a world does not know.
    pub(crate) fn over(world: World) -> Self {
        let holder = world.path("agent-a.key");
        Self { world, svids: Key::p256(), issued: Key::p384(), issued_elsewhere: Key::p384(), holder }
    }

    pub(crate) fn claims(sub: &str) -> Value {
        let at = now().seconds();
        json!({"sub": sub, "aud": AUDIENCE, "iat": at, "exp": at + 300})
    }

    pub(crate) fn svid(&self, claims: &Value) -> String {
        sign(&self.svids, r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#, claims)
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        sign(&self.issued, r#"{"alg":"ES384","kid":"k"}"#, claims)
    }

    pub(crate) fn token_from_elsewhere(&self, claims: &Value) -> String {
        sign(&self.issued_elsewhere, r#"{"alg":"ES384","kid":"k"}"#, claims)
    }

    pub(crate) fn key(path: &Path) -> HolderKey {
        HolderKey::from_pem(&fs::read(path).unwrap()).unwrap()
    }

    /// A client that shows this token with this key, and that the journal is to know as `caller`.
    pub(crate) async fn client(&self, caller: Option<&str>, token: &str, key: &Path) -> Client {
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

    pub(crate) fn create(
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

pub(crate) fn sign(key: &Key, header: &str, claims: &Value) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = key.sign_jose("", input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What is answered to headers that are sent as they are to CreateTask.
pub(crate) async fn told(client: &Client, headers: HeaderMap) -> tonic::Status {
    let mut request =
        http::Request::post(CREATE).header("content-type", "application/grpc").header("te", "trailers");
    request.headers_mut().unwrap().extend(headers);
    let body = tonic::body::Body::new(axum::body::Body::from(vec![0; 5]));
    let response = client.broker.channel().oneshot(request.body(body).unwrap()).await.unwrap();
    tonic::Status::from_header_map(response.headers()).unwrap()
}

/// Sends headers as they are to CreateTask and says what the journal is to hold.
pub(crate) async fn send(client: &Client, headers: HeaderMap, reason: &str) {
    let status = told(client, headers).await;
    // Whatever is wrong, it is told in the same words, between the same two headers.
    assert_eq!((status.message(), status.metadata().len()), ("the caller is not known", 2), "{status:?}");
    client.answer::<()>("CreateTask", None, Err(status)).refused_for(
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        reason,
    );
}
