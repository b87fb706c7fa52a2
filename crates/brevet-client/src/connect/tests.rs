use std::fs;
use std::net::SocketAddr;

use brevet_api::v1::revocation_service_server::{RevocationService, RevocationServiceServer};
use brevet_api::v1::{
    IntrospectCredentialRequest, IntrospectCredentialResponse, WatchRevocationsRequest,
    WatchRevocationsResponse,
};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request, Response, Status, Streaming};

use super::*;
use crate::Refusal;
use crate::endpoints::{Endpoints, IdentityFiles};

type Authority = CertifiedIssuer<'static, KeyPair>;

const BROKER: &str = "spiffe://broker.example/brevet";

fn params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params
}

fn authority(trust_domain: &str) -> Authority {
    let mut params = params(&format!("spiffe://{trust_domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// An X.509-SVID and its key, both in PEM.
fn svid(authority: &Authority, spiffe_id: &str) -> (String, String) {
    let mut params = params(spiffe_id);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Knows one token and refuses the rest as the broker does.
struct Tokens;

#[tonic::async_trait]
impl RevocationService for Tokens {
    type WatchRevocationsStream = tokio_stream::Pending<Result<WatchRevocationsResponse, Status>>;

    async fn watch_revocations(
        &self,
        _: Request<Streaming<WatchRevocationsRequest>>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn introspect_credential(
        &self,
        request: Request<IntrospectCredentialRequest>,
    ) -> Result<Response<IntrospectCredentialResponse>, Status> {
        use tonic_types::{ErrorDetails, StatusExt};
        if request.get_ref().token == "good" {
            return Ok(Response::new(IntrospectCredentialResponse { active: true, ..Default::default() }));
        }
        let details = ErrorDetails::with_error_info("TOKEN_MALFORMED", "brevet", []);
        Err(Status::with_error_details(Code::InvalidArgument, "not a token", details))
    }
}

/// Serves `Tokens` over mutual TLS until the test ends.
async fn serve(server: (String, String), clients: &Authority) -> SocketAddr {
    let mut roots = RootCertStore::empty();
    roots.add(clients.der().clone()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let chain = CertificateDer::pem_slice_iter(server.0.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(server.1.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let service = TowerToHyperService::new(RevocationServiceServer::new(Tokens));
                    let http = auto::Builder::new(TokioExecutor::new()).http2_only();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                }
            });
        }
    });
    address
}

/// A client's files: its identity and the bundle of the server's trust domain.
struct Client {
    identity: Identity,
    trust: ServerTrust,
}

impl Client {
    fn new(identity: &(String, String), bundle: &Authority, server: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let identity = Identity::load(&file("cert.pem", &identity.0), &file("key.pem", &identity.1)).unwrap();
        let trust = ServerTrust::load(&file("bundle.pem", &bundle.pem()), server.parse().unwrap()).unwrap();
        Self { identity, trust }
    }

    async fn connect(&self, address: SocketAddr, settings: &Settings) -> Result<Broker, ConnectError> {
        connect(&format!("https://{address}"), &self.identity, &self.trust, settings).await
    }
}

#[tokio::test]
async fn a_call_reaches_the_broker_and_its_refusal_comes_back() {
    let (broker, agents) = (authority("broker.example"), authority("agents.example"));
    let address = serve(svid(&broker, BROKER), &agents).await;
    let client = Client::new(&svid(&agents, "spiffe://agents.example/a"), &broker, BROKER);
    let mut stub = client.connect(address, &Settings::default()).await.unwrap().revocations();

    let mut ask = async |token: &str| {
        let request = IntrospectCredentialRequest { token: token.to_owned(), min_revision: None };
        stub.introspect_credential(request).await
    };
    assert!(ask("good").await.unwrap().into_inner().active);
    let refusal = Refusal::from_status(&ask("bad").await.unwrap_err());
    assert_eq!((refusal.code, refusal.reason.as_deref()), (Code::InvalidArgument, Some("TOKEN_MALFORMED")));
    assert!(ask("good").await.unwrap().into_inner().active);
}

#[tokio::test]
async fn endpoints_lead_to_the_broker() {
    let (broker, agents) = (authority("broker.example"), authority("agents.example"));
    let address = serve(svid(&broker, BROKER), &agents).await;
    let agent = svid(&agents, "spiffe://agents.example/a");
    let directory = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).unwrap();
        name.into()
    };
    let files = IdentityFiles {
        cert: file("cert.pem", &agent.0),
        key: file("key.pem", &agent.1),
        bundle: file("bundle.pem", &broker.pem()),
        spiffe_id: "spiffe://agents.example/a".parse().unwrap(),
    };
    let written = Endpoints {
        grpc: format!("https://{address}"),
        http: "http://127.0.0.1:1".to_owned(),
        root_socket: None,
        trust_domain: "broker.example".parse().unwrap(),
        server_spiffe_id: BROKER.parse().unwrap(),
        identities: [("agent-a".to_owned(), files)].into(),
        bearers: [].into(),
    };
    written.write(directory.path()).unwrap();

    let endpoints = Endpoints::read(directory.path()).unwrap();
    let mut stub = endpoints.connect("agent-a").await.unwrap().revocations();
    let request = IntrospectCredentialRequest { token: "good".to_owned(), min_revision: None };
    assert!(stub.introspect_credential(request).await.unwrap().into_inner().active);
}

#[tokio::test]
async fn another_workload_is_not_taken_for_the_broker() {
    let (broker, impostor) = (authority("broker.example"), authority("broker.example"));
    let agents = authority("agents.example");
    let client = Client::new(&svid(&agents, "spiffe://agents.example/a"), &broker, BROKER);
    for (case, server) in [
        ("another workload of the broker's trust domain", svid(&broker, "spiffe://broker.example/other")),
        ("a workload below it", svid(&broker, "spiffe://broker.example/brevet/task")),
        ("the same name by another authority", svid(&impostor, BROKER)),
        ("a workload of the client's own trust domain", svid(&agents, "spiffe://agents.example/brevet")),
    ] {
        let address = serve(server, &agents).await;
        let outcome = client.connect(address, &Settings::default()).await;
        assert!(matches!(outcome, Err(ConnectError::Unreachable { .. })), "{case}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_silent_broker_is_given_up() {
    let agents = authority("agents.example");
    let client = Client::new(&svid(&agents, "spiffe://agents.example/a"), &agents, BROKER);
    // Bound and never accepted: TCP connects, and no byte of a handshake is answered.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings { connect_timeout: Duration::from_millis(50), ..Settings::default() };
    let outcome = client.connect(listener.local_addr().unwrap(), &settings).await;
    assert!(matches!(outcome, Err(ConnectError::Unreachable { .. })), "{outcome:?}");
}

#[test]
fn only_an_https_url_of_a_host_is_an_endpoint() {
    for (good, host, port) in [
        ("https://broker.example", "broker.example", 443),
        ("https://broker.example:8443/", "broker.example", 8443),
        ("https://127.0.0.1:1", "127.0.0.1", 1),
        ("https://[::1]:1", "::1", 1),
    ] {
        assert_eq!(parse(good).unwrap().1, (host.to_owned(), port), "{good}");
    }
    for bad in [
        "",
        "broker.example:8443",
        "http://broker.example",
        "https://user@broker.example",
        "https://broker.example/path",
        "https://broker.example?q",
        "unix:/run/brevet.sock",
    ] {
        assert!(parse(bad).is_none(), "{bad}");
    }
}

#[test]
fn a_file_without_its_content_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let absent = directory.path().join("absent.pem");
    for path in [empty, absent] {
        let refused = ServerTrust::load(&path, BROKER.parse().unwrap()).unwrap_err();
        assert_eq!(refused.path, path);
        assert_eq!(Identity::load(&path, &path).unwrap_err().path, path);
    }
}

#[test]
fn debug_output_does_not_show_the_key() {
    let agents = authority("agents.example");
    let client = Client::new(&svid(&agents, "spiffe://agents.example/a"), &agents, BROKER);
    assert_eq!(format!("{:?}", client.identity), "Identity { certificates: 1, .. }");
}
