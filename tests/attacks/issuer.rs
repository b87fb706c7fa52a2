//! Issuers whose keys are found by discovery, and that answer whatever does harm.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use brevet_api::v1;
use brevet_testkit::x509::Key;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tonic::Code;

use crate::tokens::{AUDIENCE, Tokens, sign};
use crate::world::{STATUS, World, eventually, next_second, now};

/// What an issuer answers: `ISSUER` stands for its own URL.
type Answer = fn(&mut dyn Write, path: &str, own: &str) -> std::io::Result<()>;

/// A port that answers so, and how often it was asked.
struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
}

trait Both: Read + Write + Send {}
impl<T: Read + Write + Send> Both for T {}

impl Server {
    fn start(
        scheme: &str,
        answer: Answer,
        wrap: impl Fn(TcpStream) -> Box<dyn Both> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let (own, count) = (url.clone(), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let (own, mut stream) = (own.clone(), wrap(stream));
                thread::spawn(move || {
                    let mut request = [0; 4_096];
                    let read = stream.read(&mut request).unwrap_or(0);
                    let request = String::from_utf8_lossy(&request[..read]).into_owned();
                    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    // Whoever is asked no longer is content.
                    let _given_up = answer(&mut stream, &path, &own).and_then(|()| stream.flush());
                });
            }
        });
        Self { url, asked }
    }

    fn plain(answer: Answer) -> Self {
        Self::start("http", answer, |stream| Box::new(stream))
    }

    /// Over TLS, with a certificate of its own, which this yields in PEM.
    fn tls(answer: Answer) -> (Self, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], pkcs8)
            .unwrap();
        let config = Arc::new(config);
        let wrap = move |stream| -> Box<dyn Both> {
            Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream))
        };
        (Self::start("https", answer, wrap), certificate.pem())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn document(to: &mut dyn Write, text: &str) -> std::io::Result<()> {
    write!(to, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

fn metadata(to: &mut dyn Write, own: &str) -> std::io::Result<()> {
    document(to, &json!({"issuer": own, "jwks_uri": format!("{own}/keys")}).to_string())
}

/// Writes this again and again, for as long as somebody reads.
fn endless(to: &mut dyn Write, begin: &str, again: &str) -> std::io::Result<()> {
    to.write_all(begin.as_bytes())?;
    loop {
        to.write_all(again.as_bytes())?;
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

const HOSTILE: [(&str, Answer); 12] = [
    ("says nothing", |to, _, _| {
        thread::park();
        to.flush()
    }),
    ("closes", |_, _, _| Ok(())),
    ("speaks no HTTP", |to, _, _| endless(to, "", "\0\u{1}nonsense")),
    ("has headers without end", |to, _, _| endless(to, OK, "x: y\r\n")),
    ("says to wait without end", |to, _, _| endless(to, "", "HTTP/1.1 100 Continue\r\n\r\n")),
    ("has a body without end", |to, path, own| match path {
        "/keys" => endless(to, &format!("{OK}transfer-encoding: chunked\r\n\r\n"), "1\r\n \r\n"),
        _ => metadata(to, own),
    }),
    ("has a body of 2^64 bytes", |to, _, _| {
        endless(to, &format!("{OK}content-length: 18446744073709551615\r\n\r\n{{"), " ")
    }),
    ("leads elsewhere", |to, _, own| {
        write!(to, "HTTP/1.1 302 Found\r\nlocation: {own}/elsewhere\r\ncontent-length: 0\r\n\r\n")
    }),
    ("is another", |to, _, own| {
        document(to, &json!({"issuer": format!("{own}/"), "jwks_uri": format!("{own}/keys")}).to_string())
    }),
    ("has its keys in no place", |to, _, own| {
        let text = "file:///etc/passwd\nINFO forged\u{1b}[2J";
        document(to, &json!({"issuer": own, "jwks_uri": text}).to_string())
    }),
    ("nests", |to, _, _| document(to, &"[".repeat(200_000))),
    ("has a private key", |to, path, own| match path {
        "/keys" => document(to, &json!({"keys": [{"kty": "oct", "kid": "k", "k": "AA"}]}).to_string()),
        _ => metadata(to, own),
    }),
];

/// The good issuer's keys, which are changed while it is asked.
static KEYS: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

fn keys(named: &Key, kid: &str) -> String {
    let mut jwk = Value::Object(named.jwk());
    jwk["kid"] = json!(kid);
    json!({"keys": [jwk]}).to_string()
}

fn robot_of(issuer: &Server, key: &Key, kid: &str) -> String {
    let at = now().seconds();
    let claims = json!({"iss": issuer.url, "sub": "robot", "aud": AUDIENCE, "iat": at, "exp": at + 300});
    sign(key, &json!({"alg": "ES256", "kid": kid}).to_string(), &claims)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hostile_issuer_harms_neither_the_daemon_nor_another_issuer() {
    const ROBOT: &str = "spiffe://good.example/robot";
    let key = Key::p256();
    *KEYS.lock().unwrap() = keys(&key, "one");
    let good = Server::plain(|to, path, own| match path {
        "/keys" => document(to, &KEYS.lock().unwrap()),
        _ => metadata(to, own),
    });
    let hostile: Vec<Server> = HOSTILE.iter().map(|(_, answer)| Server::plain(*answer)).collect();
    // What listens on this machine is not for an issuer elsewhere to ask.
    let local = Server::plain(|to, _, _| document(to, r#"{"keys":[]}"#));
    *LOCAL.lock().unwrap() = local.url.clone();
    let (elsewhere, ca) = Server::tls(|to, _, own| {
        document(to, &json!({"issuer": own, "jwks_uri": *LOCAL.lock().unwrap()}).to_string())
    });
    let (unknown, _) = Server::tls(|to, _, own| metadata(to, own));
    let world = World::with(|config, folder| {
        fs::write(folder.join("issuer-ca.pem"), &ca).unwrap();
        config["grpc"].as_table_mut().unwrap().insert("client_certificate".to_owned(), "optional".into());
        let limits = toml::toml! { strangers_recorded_per_minute_max = 1000000 };
        config.insert("limits".to_owned(), limits.into());
        let bearers = toml::toml! { keys_refresh_seconds = 1 keys_fetch_seconds_max = 1 };
        config.insert("bearers".to_owned(), bearers.into());
        let named = |url: &str, trust_domain: &str, ca: &str| {
            format!(
                r#"{{ issuer = "{url}", trust_domain = "{trust_domain}", {ca} subjects = {{ robot = "/robot" }} }}"#
            )
        };
        let mut rows: Vec<String> = hostile
            .iter()
            .enumerate()
            .map(|(number, server)| named(&server.url, &format!("hostile-{number}.example"), ""))
            .collect();
        rows.push(named(&good.url, "good.example", ""));
        rows.push(named(&elsewhere.url, "elsewhere.example", r#"ca = "issuer-ca.pem","#));
        rows.push(named(&unknown.url, "unknown.example", r#"ca = "issuer-ca.pem","#));
        let more: toml::Table = format!(
            r#"oidc = [{}]
            agents = [{{ spiffe_id = "{ROBOT}", sensitivity_max = "high", scope = [
                {{ audience = "{STATUS}", resource = "health", actions = ["read"] }}] }}]
            orchestrators = [{{ spiffe_id = "{ROBOT}", task_types = ["summarise"], agents = ["{ROBOT}"] }}]"#,
            rows.join(",")
        )
        .parse()
        .unwrap();
        for (name, rows) in more {
            let table = config.entry(name).or_insert_with(|| toml::Value::Array(Vec::new()));
            table.as_array_mut().unwrap().extend(rows.as_array().unwrap().clone());
        }
    });
    let tokens = Tokens::over(world);
    next_second().await;
    eventually("every issuer was asked again", || async {
        hostile.iter().chain([&good, &elsewhere, &unknown]).all(|server| server.asked() >= 3)
    })
    .await;
    // The good one is known, follows its keys, and forgets what it no longer publishes.
    let open = async |id: &str, key: &Key, kid: &str| {
        let client = tokens.client(Some(ROBOT), &robot_of(&good, key, kid), &tokens.holder).await;
        client.create(tokens.create(ROBOT, id, v1::Sensitivity::Low)).await.ok();
    };
    open("one", &key, "one").await;
    let other = Key::p256();
    *KEYS.lock().unwrap() = keys(&other, "two");
    eventually("the other key is in force", || async {
        let broker = tokens.client(None, &robot_of(&good, &other, "two"), &tokens.holder).await.broker;
        broker.tasks().list_tasks(v1::ListTasksRequest::default()).await.is_ok()
    })
    .await;
    open("two", &other, "two").await;
    for (what, server, key, kid) in
        [("an old key", &good, &key, "one"), ("a hostile issuer", &hostile[11], &key, "k")]
    {
        println!("{what}");
        let client = tokens.client(None, &robot_of(server, key, kid), &tokens.holder).await;
        let answer = client.create(tokens.create(ROBOT, "late", v1::Sensitivity::Low)).await;
        assert_eq!(answer.result().unwrap_err().code(), Code::Unauthenticated, "{what}");
    }
    assert_eq!(local.asked(), 0, "an issuer elsewhere led to what listens here");
    let log = tokens.world.log();
    assert!(!log.contains("forged"), "an issuer wrote into the log");
    assert!(log.contains("is no https url of a host"));
    assert!(log.lines().all(|line| line.len() < 2_000), "an issuer swells the log");
    tokens.world.stop();
}

/// Where an issuer elsewhere would lead.
static LOCAL: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());
