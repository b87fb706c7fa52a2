use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::metrics::DecisionOutcome;
use crate::net::Refusal;

const PATIENCE: Duration = Duration::from_secs(20);
const ISSUER: &str = "https://brevet.example";

struct Running {
    address: SocketAddr,
    documents: Arc<ArcSwap<PublicDocuments>>,
    metrics: Arc<Metrics>,
    readiness: Arc<Mutex<Readiness>>,
    counters: Arc<Counters>,
}

async fn run(limits: HttpLimits) -> Running {
    let counters = Arc::new(Counters::new("http"));
    let metrics = Arc::new(Metrics::new(vec![Arc::clone(&counters)]));
    let readiness = Arc::<Mutex<Readiness>>::default();
    let documents =
        PublicDocuments::new(ISSUER, r#"{"keys":[]}"#, r#"{"keys":[1]}"#, Duration::from_secs(300))
            .with_bookmark_keys(r#"{"keys":[2]}"#);
    let documents = Arc::new(ArcSwap::from_pointee(documents));
    let site = Site {
        documents: Arc::clone(&documents),
        metrics: Arc::clone(&metrics),
        gauges: Arc::new(|_: &Metrics| {}),
        readiness: Arc::new({
            let readiness = Arc::clone(&readiness);
            move || readiness.lock().unwrap().clone()
        }),
    };
    let listener = HttpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_address().unwrap();
    let serving = listener.serve(site.routes(), limits, Arc::clone(&counters), std::future::pending());
    tokio::spawn(serving);
    Running { address, documents, metrics, readiness, counters }
}

/// Sends bytes, closes its side, and reads everything the server answers.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn fetch(running: &Running, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let answer = exchange(running.address, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn documents_are_served_with_their_types_and_ages() {
    let running = run(HttpLimits::default()).await;
    for (path, content_type, member, value) in [
        ("/oauth/jwks", "application/jwk-set+json", "/keys", "[]"),
        ("/revocation/jwks", "application/jwk-set+json", "/keys", "[2]"),
        ("/spiffe/bundle", "application/json", "/keys", "[1]"),
        ("/.well-known/oauth-authorization-server", "application/json", "/grant_types_supported", "[]"),
        (
            "/.well-known/openid-configuration",
            "application/json",
            "/jwks_uri",
            "\"https://brevet.example/oauth/jwks\"",
        ),
    ] {
        let (head, body) = fetch(&running, path).await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{path}: {head}");
        assert!(head.contains(&format!("content-type: {content_type}\r\n")), "{path}: {head}");
        assert!(head.contains("cache-control: public, max-age=300"), "{path}: {head}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body.pointer(member).unwrap().to_string(), value, "{path}");
    }
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        let body: serde_json::Value = serde_json::from_str(&fetch(&running, path).await.1).unwrap();
        assert_eq!(body["issuer"], ISSUER);
        assert!(body.get("token_endpoint").is_none() && body.get("authorization_endpoint").is_none());
    }
}

#[tokio::test]
async fn new_documents_are_served_as_soon_as_they_are_stored() {
    let running = run(HttpLimits::default()).await;
    running.documents.store(Arc::new(PublicDocuments::new(ISSUER, "new", "", Duration::ZERO)));
    assert_eq!(fetch(&running, "/oauth/jwks").await.1, "new");
}

#[tokio::test]
async fn readiness_tells_why_not() {
    let running = run(HttpLimits::default()).await;
    assert!(fetch(&running, "/livez").await.0.starts_with("HTTP/1.1 200"));
    assert!(fetch(&running, "/readyz").await.0.starts_with("HTTP/1.1 200"));
    running.readiness.lock().unwrap().reasons.push("clock suspect".to_owned());
    let (head, body) = fetch(&running, "/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("cache-control: no-store"), "{head}");
    assert_eq!(body, r#"{"ready":false,"reasons":["clock suspect"],"warnings":[]}"#);
    assert!(fetch(&running, "/livez").await.0.starts_with("HTTP/1.1 200"), "alive all the same");
}

#[tokio::test]
async fn metrics_are_open_metrics_text_with_every_reason_of_refusal() {
    let running = run(HttpLimits::default()).await;
    running.metrics.decided(DecisionOutcome::Denied);
    running.metrics.minted("task_token");
    running.metrics.ended("lease", "expired", 3);
    running.metrics.set_durable_revision(7);
    running.metrics.set_live_leases(2);
    let (head, body) = fetch(&running, "/metrics").await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    for line in [
        "brevet_decisions_total{outcome=\"denied\"} 1",
        "brevet_mints_total{profile=\"task_token\"} 1",
        "brevet_endings_total{kind=\"lease\",outcome=\"expired\"} 3",
        "brevet_journal_durable_revision 7",
        "brevet_live_leases 2",
        "brevet_connections_open{listener=\"http\"} 1",
        "brevet_connections_total{listener=\"http\"} 1",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
    for refusal in Refusal::ALL {
        let reason = refusal.as_str();
        let line = format!("brevet_connections_refused_total{{listener=\"http\",reason=\"{reason}\"}} 0");
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
    assert!(body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn nothing_but_reading_is_allowed() {
    let running = run(HttpLimits::default()).await;
    for (request, status) in [
        ("POST /oauth/jwks HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "405"),
        ("GET /oauth/token HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "404"),
        ("GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi", "413"),
        (
            "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "413",
        ),
        ("HEAD /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "200"),
    ] {
        let answer = exchange(running.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}{answer}");
    }
}

#[tokio::test]
async fn r1_a_head_above_its_limit_is_refused() {
    let running = run(HttpLimits::default()).await;
    let large = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(9_000));
    let answer = exchange(running.address, large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    let many = format!("GET /livez HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(100));
    let answer = exchange(running.address, many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn r1_silent_and_idle_connections_are_cut() {
    let limits = HttpLimits { header_read_max: Duration::from_millis(50), ..HttpLimits::default() };
    let running = run(limits).await;
    assert_eq!(exchange(running.address, b"").await, "");
    assert!(!exchange(running.address, b"GET /livez HTT").await.contains("200"));
    let kept_alive = exchange(running.address, b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(kept_alive.ends_with("ok\n"));
}

#[tokio::test]
async fn r1_one_peer_has_no_more_connections_than_its_cap() {
    let running = run(HttpLimits { connections_per_peer_max: 1, ..HttpLimits::default() }).await;
    let _first = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(exchange(running.address, b"").await, "");
    assert_eq!(running.counters.refused(Refusal::PeerFull), 1);
}

#[tokio::test]
async fn plain_http_is_for_loopback_alone() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let refused = HttpListener::bind(address.parse().unwrap());
        assert!(matches!(refused, Err(ListenError::NotLoopback(_))), "{address}");
    }
}

#[tokio::test]
async fn r2_whoever_asks_for_nothing_keeps_out_no_probe() {
    let running = run(HttpLimits { connections_per_peer_max: 4, ..HttpLimits::default() }).await;
    let mut idle = Vec::new();
    for number in 0..40 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET /liv").await.unwrap();
        }
        idle.push(stream);
        if number % 8 == 7 {
            assert!(fetch(&running, "/livez").await.0.starts_with("HTTP/1.1 200"), "{number}");
        }
    }
}
