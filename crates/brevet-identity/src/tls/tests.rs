use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConnection, HandshakeKind, ServerConnection};

use super::*;
use crate::test_certificates::*;

const CALLER: &str = "spiffe://td.example/agent/a";
const BROKER: &str = "spiffe://broker.example/brevet";

#[derive(Debug)]
struct VirtualTime(AtomicU64);

impl TimeProvider for VirtualTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

struct World {
    home: Root,
    broker: Root,
    time: Arc<VirtualTime>,
    callers: Arc<Mutex<Arc<CallerTrust>>>,
    server: Arc<ServerConfig>,
}

fn trust_of(home: &Root) -> Arc<CallerTrust> {
    let bundles = [(trust_domain("td.example"), bundle(home))];
    Arc::new(CallerTrust::new(trust_domain("broker.example"), bundles).unwrap())
}

fn private(key: &Key) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.pkcs8().unwrap().to_vec()).into()
}

fn world() -> World {
    let (home, broker, key) = (Root::new("home"), Root::new("broker"), Key::p256());
    let time = Arc::new(VirtualTime(AtomicU64::new(NOW.seconds())));
    let callers = Arc::new(Mutex::new(trust_of(&home)));
    let source: TrustSource<CallerTrust> = {
        let callers = Arc::clone(&callers);
        Arc::new(move || Arc::clone(&callers.lock().unwrap()))
    };
    let chain = vec![broker.svid(&key, BROKER).into()];
    let (required, unheard) = (Certificates::Required, Arc::new(|_| ()));
    let server =
        Arc::new(server_config(chain, private(&key), required, source, unheard, time.clone()).unwrap());
    World { home, broker, time, callers, server }
}

impl World {
    fn client(&self, signer: &Root, key: &Key, expected: &str) -> Arc<ClientConfig> {
        let bundles = [(trust_domain("broker.example"), bundle(&self.broker))];
        let trust = Arc::new(ServerTrust::new(bundles).unwrap());
        let source: TrustSource<ServerTrust> = Arc::new(move || Arc::clone(&trust));
        let chain = vec![signer.svid(key, CALLER).into()];
        let expected = expected.parse().unwrap();
        Arc::new(client_config(chain, private(key), source, expected, self.time.clone()).unwrap())
    }

    /// A handshake in memory, to its end or to the first error of either side.
    fn connect(&self, client: Arc<ClientConfig>) -> Result<(ClientConnection, ServerConnection), Error> {
        let mut client = ClientConnection::new(client, "ignored.example".try_into().unwrap())?;
        let mut server = ServerConnection::new(Arc::clone(&self.server))?;
        while client.is_handshaking()
            || server.is_handshaking()
            || client.wants_write()
            || server.wants_write()
        {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            feed(&bytes, |bytes| server.read_tls(bytes))?;
            server.process_new_packets()?;
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            feed(&bytes, |bytes| client.read_tls(bytes))?;
            client.process_new_packets()?;
        }
        Ok((client, server))
    }
}

fn feed(mut bytes: &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) -> Result<(), Error> {
    while !bytes.is_empty() {
        read(&mut bytes).unwrap();
    }
    Ok(())
}

fn refusal(error: Error) -> &'static str {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = &error else {
        panic!("another error: {error}");
    };
    inner.downcast_ref::<X509SvidError>().unwrap().reason()
}

#[test]
fn both_sides_prove_themselves() {
    let (w, key) = (world(), Key::p256());
    let (client, server) = w.connect(w.client(&w.home, &key, BROKER)).unwrap();
    assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let chain = server.peer_certificates().unwrap();
    let caller = x509_svid::verify_chain(chain, &w.callers.lock().unwrap(), NOW).unwrap();
    assert_eq!((caller.spiffe_id().as_str(), caller.key()), (CALLER, thumbprint(&key)));
    let p384 = Key::p384();
    assert!(w.connect(w.client(&w.home, &p384, BROKER)).is_ok());
}

#[test]
fn a_caller_signed_by_nobody_known_does_not_pass_the_handshake() {
    let (w, key) = (world(), Key::p256());
    let stranger = Root::new("stranger");
    assert_eq!(refusal(w.connect(w.client(&stranger, &key, BROKER)).unwrap_err()), "chain_invalid");
    assert_eq!(refusal(w.connect(w.client(&w.broker, &key, BROKER)).unwrap_err()), "chain_invalid");
}

#[test]
fn a_client_talks_to_the_expected_server_alone() {
    let (w, key) = (world(), Key::p256());
    let other = w.client(&w.home, &key, "spiffe://broker.example/other");
    assert_eq!(refusal(w.connect(other).unwrap_err()), "id_unexpected");
}

#[test]
fn a_key_that_is_not_the_certificates_proves_nothing() {
    let (w, key, thief) = (world(), Key::p256(), Key::p256());
    let chain = vec![w.home.svid(&key, CALLER).into()];
    let trust = Arc::new(ServerTrust::new([(trust_domain("broker.example"), bundle(&w.broker))]).unwrap());
    let source: TrustSource<ServerTrust> = Arc::new(move || Arc::clone(&trust));
    let stolen = client_config(chain, private(&thief), source, BROKER.parse().unwrap(), w.time.clone());
    assert!(stolen.is_err());
}

#[test]
fn nothing_is_resumed_and_a_new_trust_binds_at_once() {
    let (w, key) = (world(), Key::p256());
    let client = w.client(&w.home, &key, BROKER);
    for _ in 0..3 {
        let (client, server) = w.connect(Arc::clone(&client)).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
    *w.callers.lock().unwrap() = trust_of(&Root::new("home"));
    assert_eq!(refusal(w.connect(client).unwrap_err()), "chain_invalid");
}

#[test]
fn a_client_does_not_use_the_tickets_of_another_server() {
    let (mut w, key) = (world(), Key::p256());
    let generous = Arc::make_mut(&mut w.server);
    generous.send_tls13_tickets = 2;
    generous.session_storage = rustls::server::ServerSessionMemoryCache::new(16);
    let client = w.client(&w.home, &key, BROKER);
    for _ in 0..2 {
        let (client, _) = w.connect(Arc::clone(&client)).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn the_time_is_the_providers() {
    let (w, key) = (world(), Key::p256());
    let client = w.client(&w.home, &key, BROKER);
    w.time.0.store(END.seconds(), Ordering::Relaxed);
    assert!(w.connect(Arc::clone(&client)).is_ok());
    w.time.0.store(END.seconds() + 1, Ordering::Relaxed);
    assert_eq!(refusal(w.connect(client).unwrap_err()), "cert_time");
}

#[test]
fn a_caller_without_a_certificate_does_not_pass_the_handshake() {
    let (w, key) = (world(), Key::p256());
    let mut config = Arc::unwrap_or_clone(w.client(&w.home, &key, BROKER));
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    assert_eq!(w.connect(Arc::new(config)).unwrap_err(), Error::NoCertificatesPresented);
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
