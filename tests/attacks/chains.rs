//! Certificates that are shown to the daemon and prove nobody.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_api::v1;
use brevet_client::Identity;
use brevet_core::time::Timestamp;
use brevet_testkit::x509::{
    ANY, CLIENT, Key, SERVER, Spec, alternative_names, basic_constraints, der, extended_key_usage, extension,
    generalized, key_usage, name_constraints, uri, utc,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, Stream};
use tonic::Code;

use crate::shown::assert_recorded;
use crate::world::{World, eventually, now};

const ID: &str = "spiffe://workloads.dev.example/agent/a";
const NAME: &str = "attacked";

/// An authority of the workloads' trust domain whose certificates are made by hand.
pub(crate) struct Authority {
    key: Key,
    /// An authority of another trust domain that is trusted as well.
    foreign: Key,
    leaf: Key,
    at: Timestamp,
}

/// A chain that is shown.
pub(crate) struct Case {
    what: String,
    chain: Vec<Vec<u8>>,
    refused: Refused,
}

/// Where a chain is refused, and why, as the journal has it.
#[derive(Clone, Copy)]
enum Refused {
    /// In the handshake, for the chain.
    Handshake(&'static str),
    /// In the handshake, before anybody looks at the chain or after: it is counted and that is all.
    Counted,
    /// With each call, where the caller can be told.
    Call(&'static str),
}

use Refused::{Call, Counted, Handshake};

/// The cases of one attack.
pub(crate) type Cases = fn(&Authority) -> Vec<Case>;

impl Authority {
    fn new() -> Self {
        Self { key: Key::p256(), foreign: Key::p256(), leaf: Key::p256(), at: now() }
    }

    /// A validity of an hour around now, for whatever is not wrong in it.
    fn dated(&self, spec: Spec) -> Spec {
        Spec { not_before: time(&self.at, -1_800), not_after: time(&self.at, 1_800), ..spec }
    }

    fn leaf(&self) -> Spec {
        self.dated(Spec::leaf(NAME, &self.leaf, ID))
    }

    fn authority(&self, issuer: &str, subject: &str, key: &Key) -> Spec {
        self.dated(Spec::authority(issuer, subject, key))
    }

    /// A leaf with one thing wrong.
    fn wrong(&self, what: &str, refused: Refused, change: impl FnOnce(&mut Spec)) -> Case {
        let mut leaf = self.leaf();
        change(&mut leaf);
        self.chain(what, refused, vec![leaf.sign(&self.key)])
    }

    #[expect(clippy::unused_self, reason = "it reads like the other cases")]
    fn chain(&self, what: &str, refused: Refused, chain: Vec<Vec<u8>>) -> Case {
        Case { what: what.to_owned(), chain, refused }
    }
}

/// So many seconds from a time, as certificates have it.
fn time(at: &Timestamp, seconds: i64) -> Vec<u8> {
    let at = Timestamp::from_seconds(at.seconds().checked_add_signed(seconds).unwrap());
    let digits: String = at.to_string().chars().filter(char::is_ascii_digit).collect();
    utc(&format!("{}Z", digits.get(2..14).unwrap()))
}

/// Shows all of it and holds counters and journal against it, reason by reason.
pub(crate) async fn run(attacks: impl Iterator<Item = (u8, Cases)>) {
    let authority = Authority::new();
    let world = World::with(|config, folder| {
        let own = authority.authority(NAME, NAME, &authority.key).sign(&authority.key);
        let foreign = authority.authority("foreign", "foreign", &authority.foreign).sign(&authority.foreign);
        let bundle = folder.join("workloads.pem");
        fs::write(&bundle, fs::read_to_string(&bundle).unwrap() + &pem(&[own])).unwrap();
        fs::write(folder.join("foreign.pem"), pem(&[foreign])).unwrap();
        let more = toml::toml! { trust_domain = "foreign.example" bundle = "foreign.pem" };
        config.get_mut("trust").unwrap().as_array_mut().unwrap().push(more.into());
        let limits = toml::toml! { strangers_recorded_per_minute_max = 1000000 };
        config.insert("limits".to_owned(), limits.into());
    });
    // What is wrong with a case is the one thing that is wrong in it.
    let good = authority.wrong("nothing", Counted, |_| {});
    let broker = world.connect(&identity(&world, &authority, &good.chain)).await.unwrap();
    broker.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap();
    assert!(handshake(&world, &authority, &good.chain).is_ok());
    let mut expected = Vec::new();
    for (number, cases) in attacks {
        for Case { what, chain, refused } in cases(&authority) {
            let what = format!("{number}: {what}");
            println!("{what}");
            if let Call(reason) = refused {
                let broker = world.connect(&identity(&world, &authority, &chain)).await;
                let client = world.stranger(broker.unwrap_or_else(|problem| panic!("{what}: {problem:?}")));
                let answer = client.get("tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz").await;
                let status = answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", reason);
                assert_eq!(status.message(), "the caller is not known", "{what}");
            } else {
                let before = failed(&world).await;
                let outcome = handshake(&world, &authority, &chain);
                assert!(outcome.is_err(), "{what} gets through the handshake");
                eventually("it is counted", || async { failed(&world).await == before + 1 }).await;
            }
            if let Call(reason) | Handshake(reason) = refused {
                expected.push((what, reason));
            }
        }
    }
    drop(broker);
    assert_recorded(&expected, &world.stop());
}

fn pem(chain: &[Vec<u8>]) -> String {
    let block = |der: &Vec<u8>| {
        let text = STANDARD.encode(der).into_bytes();
        let lines: String = text.chunks(64).map(|line| String::from_utf8_lossy(line) + "\n").collect();
        format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
    };
    chain.iter().map(block).collect()
}

fn identity(world: &World, authority: &Authority, chain: &[Vec<u8>]) -> Identity {
    let (certificates, key) = (world.path("chain.pem"), world.path("chain.key"));
    fs::write(&certificates, pem(chain)).unwrap();
    let pkcs8 = STANDARD.encode(authority.leaf.pkcs8().unwrap());
    fs::write(&key, format!("-----BEGIN PRIVATE KEY-----\n{pkcs8}\n-----END PRIVATE KEY-----\n")).unwrap();
    Identity::load(&certificates, &key).unwrap()
}

/// How many handshakes have failed.
async fn failed(world: &World) -> u64 {
    let metrics = world.metrics().await;
    let mut lines = metrics.lines().filter(|line| line.contains("grpc") && line.contains("handshake_failed"));
    lines.next().unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// A handshake by a client that shows whatever it has, and reads what the server says to that.
fn handshake(world: &World, authority: &Authority, chain: &[Vec<u8>]) -> std::io::Result<usize> {
    let key = PrivateKeyDer::Pkcs8(authority.leaf.pkcs8().unwrap().to_vec().into());
    let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let shown = CertifiedKey::new(chain, any_supported_type(&key).unwrap());
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(world.endpoints().grpc.trim_start_matches("https://"))?;
    let mut tls = Stream::new(&mut connection, &mut stream);
    // In TLS 1.3 a client is through before the server has judged its certificate.
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
    let read = tls.read(&mut [0; 9])?;
    if read == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
}

/// Takes any server for the right one.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 alone".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384]
    }
}

pub(crate) fn unknown(a: &Authority) -> Vec<Case> {
    let stranger = Key::p256();
    vec![
        a.chain("self-signed", Handshake("chain_invalid"), vec![a.leaf().sign(&a.leaf)]),
        a.chain("an authority of the same name", Handshake("chain_invalid"), vec![a.leaf().sign(&stranger)]),
        a.chain("no certificate", Counted, vec![]),
        a.chain(
            "its own authority sent along",
            Handshake("chain_invalid"),
            vec![a.leaf().sign(&stranger), a.authority(NAME, NAME, &stranger).sign(&stranger)],
        ),
    ]
}

pub(crate) fn names(a: &Authority) -> Vec<Case> {
    let named = |what: &str, names: Vec<Vec<u8>>| {
        a.wrong(what, Call("san_count"), |leaf| leaf.names = alternative_names(&names))
    };
    vec![
        named("two ids", vec![uri(ID), uri("spiffe://workloads.dev.example/orchestrator")]),
        named("the same id twice", vec![uri(ID), uri(ID)]),
        named("https beside it", vec![uri(ID), uri("https://workloads.dev.example/")]),
        named("its trust domain beside it", vec![uri(ID), uri("spiffe://workloads.dev.example")]),
        named("an id as the name of a host", vec![der::tlv(0x82, ID.as_bytes())]),
        a.wrong("no names", Call("san_count"), |leaf| leaf.names.clear()),
    ]
}

/// Texts that are no SPIFFE ID of a workload.
fn no_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "",
        "/",
        "/agent/a/",
        "/agent//a",
        "//agent/a",
        "/./a",
        "/agent/.",
        "/../a",
        "/agent/..",
        "/%2e",
        "/%61",
        "/agent/a?q",
        "/agent/a#f",
        "/agent/a?",
        "/agent/a\0",
        "/agent/a\n",
        "/\u{e4}",
        "/a b",
        "/~a",
        "/*",
        ":443/a",
        ":/a",
    ]
    .map(|rest| format!("spiffe://workloads.dev.example{rest}"))
    .into();
    ids.extend(
        [
            "spiffe://WORKLOADS.dev.example/a",
            "spiffe://u@workloads.dev.example/a",
            "spiffe://u:p@workloads.dev.example/a",
            "spiffe://workl%6fads.dev.example/a",
            "spiffe:///a",
            "spiffe:workloads.dev.example/a",
            "https://workloads.dev.example/a",
            "",
        ]
        .map(str::to_owned),
    );
    ids.push(format!("spiffe://{}/a", "t".repeat(256)));
    ids.push(format!("spiffe://workloads.dev.example/{}", "a".repeat(2_049 - 31)));
    ids
}

pub(crate) fn ids(a: &Authority) -> Vec<Case> {
    let with =
        |id: &String| a.wrong(id, Call("id_invalid"), |leaf| leaf.names = alternative_names(&[uri(id)]));
    no_ids().iter().map(with).collect()
}

pub(crate) fn schemes(a: &Authority) -> Vec<Case> {
    let with = |id: &str| a.wrong(id, Call("id_invalid"), |leaf| leaf.names = alternative_names(&[uri(id)]));
    vec![with(&ID.replace("spiffe:", "SPIFFE:")), with(&ID.replace("spiffe:", "Spiffe:"))]
}

pub(crate) fn foreign(a: &Authority) -> Vec<Case> {
    let of = |id: &str| alternative_names(&[uri(id)]);
    let foreign = Spec { names: of(ID), ..a.dated(Spec::leaf("foreign", &a.leaf, ID)) };
    let named = |id: &'static str| a.wrong(id, Call("id_not_authoritative"), move |leaf| leaf.names = of(id));
    vec![
        named("spiffe://foreign.example/agent/a"),
        named("spiffe://unknown.example/agent/a"),
        named("spiffe://a.workloads.dev.example/agent/a"),
        named("spiffe://dev.example/agent/a"),
        a.chain("ours by a foreign authority", Call("id_not_authoritative"), vec![foreign.sign(&a.foreign)]),
    ]
}

pub(crate) fn profiles(a: &Authority) -> Vec<Case> {
    let usage = |what: &str, purposes: &[&[u8]], recorded| {
        let encoded = extended_key_usage(purposes);
        a.wrong(what, recorded, |leaf| leaf.extended_key_usage = encoded)
    };
    vec![
        a.wrong("may sign certificates", Call("svid_profile"), |leaf| leaf.key_usage = key_usage(true, 0x84)),
        a.wrong("may sign revocation lists", Call("svid_profile"), |leaf| {
            leaf.key_usage = key_usage(true, 0x82)
        }),
        a.wrong("may not sign", Call("svid_profile"), |leaf| leaf.key_usage = key_usage(true, 0x20)),
        a.wrong("no key usage", Call("svid_profile"), |leaf| leaf.key_usage.clear()),
        a.wrong("key usage not critical", Call("svid_profile"), |leaf| {
            leaf.key_usage = key_usage(false, 0x80)
        }),
        usage("client alone", &[CLIENT], Call("svid_profile")),
        usage("server alone", &[SERVER], Handshake("svid_profile")),
        usage("any alone", &[ANY], Handshake("svid_profile")),
        usage("any and server", &[ANY, SERVER], Handshake("svid_profile")),
    ]
}

pub(crate) fn authorities(a: &Authority) -> Vec<Case> {
    let authority = |spec: &mut Spec| spec.basic_constraints = basic_constraints(true, None);
    // The authority's own certificate, if its key were known.
    let own = Spec { names: alternative_names(&[uri(ID)]), ..a.authority(NAME, NAME, &a.leaf) };
    vec![
        a.wrong("a leaf that is an authority", Handshake("chain_invalid"), authority),
        a.wrong("an authority of length zero", Handshake("chain_invalid"), |leaf| {
            leaf.basic_constraints = basic_constraints(true, Some(0));
        }),
        a.chain("an authority", Handshake("chain_invalid"), vec![own.sign(&a.key)]),
    ]
}

pub(crate) fn times(a: &Authority) -> Vec<Case> {
    let at = a.at;
    let between = |before: Vec<u8>, after: Vec<u8>| {
        let middle = Key::p256();
        let spec = Spec { not_before: before, not_after: after, ..a.authority(NAME, "one", &middle) };
        let leaf = a.dated(Spec::leaf("one", &a.leaf, ID));
        vec![leaf.sign(&middle), spec.sign(&a.key)]
    };
    vec![
        a.wrong("expired", Handshake("cert_time"), |leaf| leaf.not_after = time(&at, -1)),
        a.wrong("long expired", Handshake("cert_time"), |leaf| leaf.not_after = utc("500101000000Z")),
        a.wrong("not yet valid", Handshake("cert_time"), |leaf| leaf.not_before = time(&at, 900)),
        a.wrong("never valid", Handshake("cert_time"), |leaf| leaf.not_before = time(&at, 1_801)),
        a.wrong("fractions", Handshake("cert_time"), |leaf| {
            leaf.not_after = generalized("20991231235959.5Z")
        }),
        a.wrong("an offset", Handshake("cert_time"), |leaf| {
            leaf.not_after = generalized("20991231235959+0000")
        }),
        a.wrong("no zone", Handshake("cert_time"), |leaf| leaf.not_after = generalized("20991231235959")),
        a.wrong("no month", Handshake("cert_time"), |leaf| leaf.not_after = generalized("20991331235959Z")),
        a.chain(
            "below one that has expired",
            Handshake("cert_time"),
            between(time(&at, -1_000), time(&at, -1)),
        ),
        a.chain("below one to come", Handshake("cert_time"), between(time(&at, 900), time(&at, 1_800))),
    ]
}

pub(crate) fn constraints(a: &Authority) -> Vec<Case> {
    let below = |what: &str, kind: u8, base: &str, critical: bool| {
        let middle = Key::p256();
        let constraint = name_constraints(critical, kind, &uri(base));
        let spec = Spec { other_extensions: constraint, ..a.authority(NAME, "one", &middle) };
        let leaf = a.dated(Spec::leaf("one", &a.leaf, ID));
        a.chain(what, Handshake("nc_violation"), vec![leaf.sign(&middle), spec.sign(&a.key)])
    };
    vec![
        below("permitted mismatch", 0xa0, "b.example", true),
        below("permitted match", 0xa0, "workloads.dev.example", true),
        below("excluded match", 0xa1, "workloads.dev.example", true),
        below("not critical", 0xa1, "workloads.dev.example", false),
        below("excluded mismatch", 0xa1, "b.example", true),
    ]
}

pub(crate) fn encodings(a: &Authority) -> Vec<Case> {
    let odd = |what: &str, reason, change: fn(&mut Spec)| a.wrong(what, Handshake(reason), change);
    // What TLS takes and the profile does not.
    let late = |what: &str, change: fn(&mut Spec)| a.wrong(what, Call("malformed"), change);
    let curve =
        |oid: &[u8], size: usize| der::ec_spki(der::oid(oid), &[&[4], &vec![1; 2 * size][..]].concat());
    let key =
        |what: &str, spki: Vec<u8>| a.wrong(what, Handshake("key_unacceptable"), |leaf| leaf.spki = spki);
    let modulus = |bytes: usize| [&[0, 0x80][..], &vec![1; bytes - 1]].concat();
    let damaged = |what: &str, reason, damage: fn(&mut Vec<u8>)| {
        let mut leaf = a.leaf().sign(&a.key);
        damage(&mut leaf);
        a.chain(what, Handshake(reason), vec![leaf])
    };
    let sha1 = der::seq(&[der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1])]);
    vec![
        odd("unknown critical extension", "svid_profile", |s| {
            s.other_extensions = extension(&[0x2a, 3, 4], true, &der::tlv(5, &[]));
        }),
        odd("key usage twice", "malformed", |s| s.other_extensions.clone_from(&s.key_usage)),
        odd("names twice", "malformed", |s| s.other_extensions.clone_from(&s.names)),
        late("serial zero", |s| s.serial = vec![0]),
        late("serial negative", |s| s.serial = vec![0x81]),
        late("serial of 21 bytes", |s| s.serial = vec![0x7f; 21]),
        odd("version 1", "svid_profile", |s| {
            s.version.clear();
            s.strip();
        }),
        odd("algorithms that differ", "malformed", |s| {
            s.outer_algorithm = Some(Key::p384().signature_algorithm())
        }),
        a.wrong("SHA-1", Handshake("chain_invalid"), |s| {
            s.inner_algorithm = Some(sha1.clone());
            s.outer_algorithm = Some(sha1);
        }),
        late("longer than 16 KiB", |s| {
            s.other_extensions = extension(&[0x2a, 3], false, &der::tlv(4, &[0; 17_000]));
        }),
        damaged("a byte behind", "malformed", |leaf| leaf.push(0)),
        damaged("cut", "malformed", |leaf| leaf.truncate(leaf.len() - 1)),
        damaged("nothing", "malformed", Vec::clear),
        damaged("indefinite length", "malformed", |leaf| {
            leaf.splice(..4, [0x30, 0x80]);
            leaf.extend([0, 0]);
        }),
        damaged("another signature", "chain_invalid", |leaf| *leaf.last_mut().unwrap() ^= 1),
        key("P-192", curve(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 1], 24)),
        key("P-521", curve(&[0x2b, 0x81, 4, 0, 35], 66)),
        key("RSA-1024", der::rsa_spki(&modulus(128), &[1, 0, 1])),
        key("RSA-2040", der::rsa_spki(&modulus(255), &[1, 0, 1])),
    ]
}

pub(crate) fn long_chains(a: &Authority) -> Vec<Case> {
    let keys: Vec<Key> = (0..8).map(|_| Key::p256()).collect();
    let leaf = a.dated(Spec::leaf("m", &a.leaf, ID));
    // Every authority of a name has signed every other one of that name, and none leads to an anchor.
    let mut maze = vec![leaf.sign(&keys[0])];
    for signer in &keys {
        maze.extend(keys.iter().map(|key| a.authority("m", "m", key).sign(signer)));
    }
    let circle = vec![
        a.dated(Spec::leaf("one", &a.leaf, ID)).sign(&keys[0]),
        a.authority("two", "one", &keys[0]).sign(&keys[1]),
        a.authority("one", "two", &keys[1]).sign(&keys[0]),
    ];
    let hundred = vec![a.leaf().sign(&a.key); 100];
    vec![
        a.chain("a hundred certificates", Handshake("chain_invalid"), hundred),
        a.chain("a circle", Handshake("chain_invalid"), circle),
        a.chain("a maze", Handshake("chain_invalid"), maze),
    ]
}
