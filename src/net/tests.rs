use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Extension;
use axum::routing::get;
use http::{Request, StatusCode, Version};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::accept::Listen;
use super::stream::Metered;
use super::*;

mod admission;
mod lane;
mod local;

/// No test waits for this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);
const FOR_EVER: Duration = Duration::from_secs(3_600);
/// The preface and empty settings, with which a client opens HTTP/2.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SHORT: Duration = Duration::from_millis(50);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened long ago")
}

/// A certificate authority and the TLS configurations of a server and a client under it.
pub(crate) struct Tls {
    pub(crate) server: TlsConfig,
    pub(crate) client: Arc<ClientConfig>,
    client_certificate: CertificateDer<'static>,
}

/// What the client offers by ALPN is up to the test.
fn tls_with(client_protocols: &[&[u8]]) -> Tls {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::ExplicitNoCa;
        let certificate = params.signed_by(&key, &authority).unwrap().der().clone();
        (certificate, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    };
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let (server_certificate, server_key) = leaf("localhost");
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![server_certificate], server_key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let (client_certificate, client_key) = leaf("client");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client_certificate.clone()], client_key)
        .unwrap();
    client.alpn_protocols = client_protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Tls { server: Arc::new(ArcSwap::from_pointee(server)), client: Arc::new(client), client_certificate }
}

fn tls() -> Tls {
    tls_with(&[b"h2"])
}

/// A listener that runs, and what a test needs to see of it.
struct Running {
    address: SocketAddr,
    counters: Arc<Counters>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    /// Lets calls of `/wait` return.
    release: Arc<Notify>,
    /// Calls of `/wait` that have begun.
    waiting: Arc<AtomicUsize>,
}

impl Running {
    async fn refused(&self, refusal: Refusal, count: u64) {
        soon(async {
            while self.counters.refused(refusal) < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(self.counters.refused(refusal), count);
    }

    async fn waiting(&self) {
        soon(async {
            while self.waiting.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// What the tests put into the extensions.
#[derive(Debug, Clone)]
struct Seen(Arc<TlsPeer>);

fn routes(release: &Arc<Notify>, waiting: &Arc<AtomicUsize>) -> Router {
    let (release, waiting) = (Arc::clone(release), Arc::clone(waiting));
    Router::new()
        .route(
            "/who",
            get(|Extension(Seen(peer)): Extension<Seen>| async move {
                format!("{} {}", peer.connection.number(), peer.certificates.len())
            }),
        )
        .route("/thread", get(async || std::thread::current().name().unwrap_or_default().to_owned()))
        .route("/uid", get(|Extension(peer): Extension<LocalPeerSeen>| async move { peer.0.to_string() }))
        .route(
            "/",
            get({
                let waiting = Arc::clone(&waiting);
                async move || waiting.fetch_add(1, Ordering::SeqCst).to_string()
            }),
        )
        .route(
            "/wait",
            get(move || async move {
                waiting.fetch_add(1, Ordering::SeqCst);
                release.notified().await;
                "done"
            }),
        )
}

#[derive(Debug, Clone)]
struct LocalPeerSeen(u32);

async fn run(tls: &Tls, limits: NetLimits, age_max: Duration) -> Running {
    run_for(TlsPeer::pass, tls, limits, age_max, || None).await
}

impl TlsPeer {
    fn pass(&self) {
        self.probation.pass(Duration::MAX);
    }
}

/// Serves peers that become known as `known` says, on the threads of a runtime.
async fn run_for(
    known: fn(&TlsPeer),
    tls: &Tls,
    limits: NetLimits,
    age_max: Duration,
    lane: impl Fn() -> Option<Lane> + Send + Sync + 'static,
) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counters = Arc::new(Counters::new("grpc"));
    let (release, waiting) = (Arc::default(), Arc::default());
    let endpoint = Endpoint { routes: routes(&release, &waiting), limits, counters: Arc::clone(&counters) };
    let (stop, stopped) = oneshot::channel::<()>();
    let admit = move |peer: TlsPeer| {
        known(&peer);
        Admitted { extension: Seen(Arc::new(peer)), age_max, lane: lane() }
    };
    let served = tokio::spawn(endpoint.serve_tls(listener, Arc::clone(&tls.server), admit, async {
        let _ = stopped.await;
    }));
    Running { address, counters, stop, served, release, waiting }
}

/// A client's end of an HTTP/2 connection, and what tells when it is over.
type Client = (SendRequest<Body>, JoinHandle<hyper::Result<()>>);

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Client {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn connect(tls: &Tls, running: &Running) -> Client {
    let stream = TcpStream::connect(running.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    speak(TlsConnector::from(Arc::clone(&tls.client)).connect(name, stream).await.unwrap()).await
}

fn request(path: &str) -> Request<Body> {
    Request::get(format!("https://localhost{path}")).version(Version::HTTP_2).body(Body::empty()).unwrap()
}

async fn call(client: &mut SendRequest<Body>, path: &str) -> hyper::Result<(StatusCode, String)> {
    let response = soon(client.send_request(request(path))).await?;
    let status = response.status();
    let body = axum::body::to_bytes(Body::new(response.into_body()), 1_024).await.unwrap();
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

/// Whether the server has ended the connection, without regard to how.
async fn is_closed(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.is_err() || rest.is_empty()
}

#[tokio::test]
async fn each_call_carries_what_its_connection_was_admitted_with() {
    let tls = tls();
    let running = run(&tls, NetLimits::default(), FOR_EVER).await;
    let (mut first, _first) = connect(&tls, &running).await;
    let (mut second, _second) = connect(&tls, &running).await;
    for _ in 0..3 {
        assert_eq!(call(&mut first, "/who").await.unwrap(), (StatusCode::OK, "1 1".to_owned()));
        assert_eq!(call(&mut second, "/who").await.unwrap(), (StatusCode::OK, "2 1".to_owned()));
    }
    assert_eq!((running.counters.accepted(), running.counters.open()), (2, 2));
}

#[tokio::test]
async fn the_peers_certificates_are_those_of_the_handshake() {
    let tls = tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = Endpoint {
        routes: Router::new(),
        limits: NetLimits::default(),
        counters: Arc::new(Counters::new("grpc")),
    };
    let (seen, mut peers) = tokio::sync::mpsc::unbounded_channel();
    let admit = move |peer: TlsPeer| {
        seen.send(peer).unwrap();
        Admitted { extension: (), age_max: FOR_EVER, lane: None }
    };
    tokio::spawn(endpoint.serve_tls(listener, Arc::clone(&tls.server), admit, std::future::pending()));
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::clone(&tls.client));
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let _client = speak(stream).await;
    let peer = soon(peers.recv()).await.unwrap();
    assert_eq!(*peer.certificates, [tls.client_certificate]);
}

#[tokio::test]
async fn the_next_handshake_uses_a_reloaded_configuration() {
    let (tls, other) = (tls(), tls());
    let running = run(&tls, NetLimits::default(), FOR_EVER).await;
    let (mut before, _before) = connect(&tls, &running).await;
    tls.server.store(other.server.load_full());
    let (mut after, _after) = connect(&other, &running).await;
    assert_eq!(call(&mut after, "/who").await.unwrap().0, StatusCode::OK);
    assert_eq!(call(&mut before, "/who").await.unwrap().0, StatusCode::OK, "open connections go on");
}

#[tokio::test]
async fn r2_a_silent_connection_is_cut_at_the_deadline() {
    let tls = tls();
    let running = run(&tls, NetLimits { handshake_max: SHORT, ..NetLimits::default() }, FOR_EVER).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    assert!(is_closed(&mut silent).await);
    running.refused(Refusal::HandshakeDeadline, 1).await;
}

#[tokio::test]
async fn r2_a_connection_that_is_silent_after_tls_is_cut_at_the_same_deadline() {
    let tls = tls();
    let limits = NetLimits { handshake_max: Duration::from_secs(2), ..NetLimits::default() };
    let running = run(&tls, limits, FOR_EVER).await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut silent = TlsConnector::from(Arc::clone(&tls.client)).connect(name, stream).await.unwrap();
    assert!(is_closed(&mut silent).await);
    running.refused(Refusal::HandshakeDeadline, 1).await;
}

#[tokio::test]
async fn r2_garbage_and_foreign_protocols_are_refused() {
    let without_protocol = tls_with(&[]);
    let running = run(&without_protocol, NetLimits::default(), FOR_EVER).await;
    let mut garbage = TcpStream::connect(running.address).await.unwrap();
    garbage.write_all(&[0x80; 512]).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(garbage.read_to_end(&mut answer)).await;
    running.refused(Refusal::HandshakeFailed, 1).await;

    let stream = TcpStream::connect(running.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::clone(&without_protocol.client));
    let mut without_alpn = connector.connect(name, stream).await.unwrap();
    assert!(is_closed(&mut without_alpn).await);
    running.refused(Refusal::HandshakeFailed, 2).await;
}

#[tokio::test]
async fn r2_a_handshake_may_not_be_longer_than_its_limit() {
    let mut metered = Metered::new(tokio::io::repeat(0), 1_000);
    let mut read = Vec::new();
    let error = (&mut metered).take(100_000).read_to_end(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut metered = Metered::new(tokio::io::repeat(0), 1_000);
    metered.pace(NonZeroU32::MAX);
    assert_eq!(metered.take(100_000).read_to_end(&mut Vec::new()).await.unwrap(), 100_000);
}

#[tokio::test]
async fn r1_a_peer_that_sends_too_fast_is_read_later() {
    let mut paced = Metered::new(tokio::io::repeat(0), 1_000);
    paced.pace(NonZeroU32::new(10_000).unwrap());
    let mut read = [0; 10_001];
    soon(paced.read_exact(&mut read)).await.unwrap();
    let more = std::future::poll_fn(|context| {
        let mut byte = [0];
        std::task::Poll::Ready(
            Pin::new(&mut paced).poll_read(context, &mut ReadBuf::new(&mut byte)).is_pending(),
        )
    });
    assert!(more.await, "it has to wait");
    soon(paced.read_exact(&mut [0])).await.unwrap();
}

#[tokio::test]
async fn r2_a_connection_whose_caller_is_not_known_in_time_is_cut() {
    let tls = tls();
    let limits = NetLimits { probation_max: SHORT, ..NetLimits::default() };
    let running = run_for(|_| {}, &tls, limits, FOR_EVER, || None).await;
    let (mut client, connection) = connect(&tls, &running).await;
    assert_eq!(call(&mut client, "/who").await.unwrap().0, StatusCode::OK, "it may call until then");
    let _cut = soon(connection).await.unwrap();
    running.refused(Refusal::Unknown, 1).await;
}

#[tokio::test]
async fn r2_connections_whose_caller_is_not_known_keep_nobody_out() {
    let tls = tls();
    let limits = NetLimits { handshakes_max: 2, probation_max: FOR_EVER, ..NetLimits::default() };
    let running = run_for(|_| {}, &tls, limits, FOR_EVER, || None).await;
    let _unknown = [connect(&tls, &running).await, connect(&tls, &running).await];
    // For a moment they are let go on; what is idle for longer makes way.
    let name = || ServerName::try_from("localhost").unwrap();
    let mut newcomer = soon(async {
        loop {
            let stream = TcpStream::connect(running.address).await.unwrap();
            if let Ok(stream) = TlsConnector::from(Arc::clone(&tls.client)).connect(name(), stream).await {
                return speak(stream).await;
            }
            tokio::time::sleep(SHORT).await;
        }
    })
    .await;
    assert_eq!(call(&mut newcomer.0, "/who").await.unwrap().0, StatusCode::OK);
    running.refused(Refusal::MadeWay, 1).await;
}

#[tokio::test]
async fn r2_one_peer_has_no_more_connections_than_its_cap_and_gets_places_back() {
    let tls = tls();
    let limits = NetLimits { connections_per_peer_max: 1, ..NetLimits::default() };
    let running = run(&tls, limits, FOR_EVER).await;
    let (mut first, connection) = connect(&tls, &running).await;
    let mut second = TcpStream::connect(running.address).await.unwrap();
    assert!(is_closed(&mut second).await);
    running.refused(Refusal::PeerFull, 1).await;
    assert_eq!(call(&mut first, "/who").await.unwrap().0, StatusCode::OK, "the first is not disturbed");

    drop(first);
    soon(connection).await.unwrap().unwrap();
    soon(async {
        while running.counters.open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (mut third, _connection) = connect(&tls, &running).await;
    assert_eq!(call(&mut third, "/who").await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn r2_silent_sockets_keep_nobody_out() {
    let limits = NetLimits { handshake_max: FOR_EVER, ..NetLimits::default() };
    for (limits, room) in [
        (NetLimits { handshakes_max: 4, ..limits }, 4),
        // Half of the places, where there are so few of them.
        (NetLimits { connections_max: 100, ..limits }, 50),
        (NetLimits { connections_per_peer_max: 80, ..limits }, 40),
    ] {
        let tls = tls();
        let running = run(&tls, limits, FOR_EVER).await;
        let (mut before, _before) = connect(&tls, &running).await;
        let mut silent = Vec::new();
        for _ in 0..room + 16 {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            // The first byte of a ClientHello is not one.
            stream.write_all(&[0x16]).await.unwrap();
            silent.push(stream);
        }
        let (mut after, _after) = connect(&tls, &running).await;
        for client in [&mut before, &mut after] {
            assert_eq!(call(client, "/who").await.unwrap().0, StatusCode::OK);
        }
        running.refused(Refusal::MadeWay, 17).await;
        assert!(is_closed(&mut silent[0]).await, "the oldest is gone");
    }
}

#[tokio::test]
async fn an_old_connection_is_told_and_lets_running_calls_end() {
    let tls = tls();
    let limits = NetLimits { connection_grace: FOR_EVER, ..NetLimits::default() };
    let running = run(&tls, limits, Duration::from_secs(2)).await;
    let (mut client, connection) = connect(&tls, &running).await;
    let mut running_call = pin!(client.send_request(request("/wait")));
    soon(async {
        tokio::select! {
            _ = &mut running_call => panic!("it was not released"),
            () = running.waiting() => {}
        }
    })
    .await;
    // The client's side refuses new calls once it was told.
    let mut other = client.clone();
    soon(async { while other.ready().await.is_ok() && other.send_request(request("/who")).await.is_ok() {} })
        .await;
    running.release.notify_one();
    assert_eq!(soon(running_call).await.unwrap().status(), StatusCode::OK);
    drop((client, other));
    soon(connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_old_connection_is_cut_after_its_grace() {
    let tls = tls();
    let limits = NetLimits { connection_grace: SHORT, ..NetLimits::default() };
    let running = run(&tls, limits, SHORT).await;
    let (mut client, _connection) = connect(&tls, &running).await;
    assert!(call(&mut client, "/wait").await.is_err());
    soon(async {
        while running.counters.open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_drain_lets_running_calls_end_and_takes_no_new_connection() {
    let tls = tls();
    let running = run(&tls, NetLimits { drain_max: FOR_EVER, ..NetLimits::default() }, FOR_EVER).await;
    let (client, _connection) = connect(&tls, &running).await;
    let call = tokio::spawn({
        let mut client = client.clone();
        async move { client.send_request(request("/wait")).await }
    });
    running.waiting().await;
    running.stop.send(()).unwrap();
    soon(async { while TcpStream::connect(running.address).await.is_ok() {} }).await;
    assert!(!running.served.is_finished());
    running.release.notify_one();
    assert_eq!(soon(call).await.unwrap().unwrap().status(), StatusCode::OK);
    soon(running.served).await.unwrap();
}

#[tokio::test]
async fn a_drain_ends_even_if_a_call_does_not() {
    let tls = tls();
    let limits = NetLimits { drain_max: SHORT, connection_grace: FOR_EVER, ..NetLimits::default() };
    let running = run(&tls, limits, FOR_EVER).await;
    let (mut client, _connection) = connect(&tls, &running).await;
    let call = tokio::spawn(async move { call(&mut client, "/wait").await });
    running.waiting().await;
    running.stop.send(()).unwrap();
    soon(running.served).await.unwrap();
    assert!(soon(call).await.unwrap().is_err());
}

#[tokio::test]
async fn r1_a_header_list_above_its_limit_is_refused() {
    let tls = tls();
    let running = run(&tls, NetLimits::default(), FOR_EVER).await;
    let (mut client, _connection) = connect(&tls, &running).await;
    let mut large = request("/who");
    for i in 0..40 {
        let name = http::HeaderName::try_from(format!("x-{i}")).unwrap();
        large.headers_mut().insert(name, "a".repeat(1_000).parse().unwrap());
    }
    let refused = soon(client.send_request(large)).await.unwrap();
    assert_eq!(refused.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(call(&mut client, "/who").await.unwrap().0, StatusCode::OK);
}

/// A listener in a process without descriptors.
struct Exhausted {
    calls: Arc<AtomicUsize>,
    failures: usize,
}

impl Listen for Exhausted {
    type Stream = ();

    async fn accept(&self) -> io::Result<((), Origin)> {
        match self.calls.fetch_add(1, Ordering::SeqCst) {
            call if call < self.failures => {
                Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32))
            }
            call if call == self.failures => Ok(((), None)),
            _ => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn exhaustion_of_descriptors_neither_spins_nor_ends_the_listener() {
    let counters = Arc::new(Counters::new("grpc"));
    let (calls, served) = (Arc::default(), Arc::new(Notify::new()));
    let listener = Exhausted { calls: Arc::clone(&calls), failures: 3 };
    let connection = {
        let served = Arc::clone(&served);
        move |_| {
            let served = Arc::clone(&served);
            async move { served.notify_one() }
        }
    };
    let limits = NetLimits::default().accept();
    soon(accept_until(listener, limits, Arc::clone(&counters), served.notified(), connection)).await;
    assert_eq!(counters.refused(Refusal::Exhausted), 3);

    let calls = Arc::<AtomicUsize>::default();
    let listener = Exhausted { calls: Arc::clone(&calls), failures: usize::MAX };
    let shutdown = tokio::time::sleep(Duration::from_millis(300));
    soon(accept_until(listener, limits, counters, shutdown, |_| async {})).await;
    assert!(calls.load(Ordering::SeqCst) <= 30, "it span");
}

#[test]
fn u6_strangers_write_few_lines_and_forge_none() {
    #[derive(Debug, thiserror::Error)]
    #[error("forged\nline")]
    struct Forged(&'static str);

    let mut log = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(log.reopen().unwrap());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    let counters = Counters::new("grpc");
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..1_000 {
            counters.refuse(Refusal::HandshakeFailed, None, &Forged("a\nb\u{1b}[31m"));
        }
        counters.report();
    });
    let mut lines = String::new();
    io::Read::read_to_string(&mut log, &mut lines).unwrap();
    assert_eq!(lines.lines().count(), 11, "{lines}");
    assert!(lines.contains("undescribed=990") && !lines.contains('\u{1b}'), "{lines}");
    assert_eq!(counters.refused(Refusal::HandshakeFailed), 1_000);
}
