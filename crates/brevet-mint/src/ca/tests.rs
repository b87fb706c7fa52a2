use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;
use rcgen::CustomExtension;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_500);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const HOUR: Duration = Duration::from_secs(3600);

fn trust_domain() -> TrustDomain {
    "td.example".parse().unwrap()
}

fn place() -> (TempDir, CaFiles) {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let files = CaFiles { key: at("ca.key"), certificate: at("ca.pem") };
    (directory, files)
}

fn load(files: &CaFiles) -> Result<CaKey, CaError> {
    CaKey::load_or_create(files, &trust_domain(), NOW, YEAR, &SystemRandom::new())
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = parse_x509_certificate(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn key_ids<'a>(certificate: &'a X509Certificate<'_>) -> (&'a [u8], &'a [u8]) {
    let (mut subject, mut authority) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                authority = id.key_identifier.as_ref().map(|id| id.0)
            }
            _ => {}
        }
    }
    (subject.unwrap(), authority.unwrap())
}

fn verify(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>) {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &authority.public_key().subject_public_key.data)
        .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
        .unwrap();
}

#[test]
fn the_authority_follows_the_spiffe_profile() {
    let authority = CaKey::ephemeral(&trust_domain(), NOW, YEAR, &SystemRandom::new()).unwrap();
    let certificate = parse(authority.certificate());
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    assert!(certificate.extended_key_usage().unwrap().is_none());
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://td.example")]);
    assert_eq!(certificate.validity().not_before.timestamp(), 1_800_000_000 - 60);
    assert_eq!(certificate.validity().not_after.timestamp(), 1_800_000_000 + 365 * 86_400);
    assert_eq!(authority.end(), Timestamp::from_seconds(1_800_000_000 + 365 * 86_400));
    let common_name = certificate.subject().iter_common_name().next().unwrap().as_str().unwrap();
    assert!(common_name.starts_with("Brevet CA ") && common_name.len() <= 64, "{common_name}");
    assert!(common_name.ends_with(authority.key_id().as_str()));
    assert_eq!(authority.key_id().as_str(), authority.thumbprint().to_string());
    assert_eq!(certificate.subject(), certificate.issuer());
    let (subject, issuer) = key_ids(&certificate);
    assert_eq!(subject, issuer);
    verify(&certificate, &certificate);
}

#[test]
fn the_server_certificate_is_an_x509_svid_of_the_broker() {
    let rng = SystemRandom::new();
    let authority = CaKey::ephemeral(&trust_domain(), NOW, YEAR, &rng).unwrap();
    let names = ServerNames {
        dns: vec!["brevet.example".into(), "localhost".into()],
        ip: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
    };
    let server = authority.server_certificate(&names, NOW, HOUR, &rng).unwrap();
    assert_eq!(server.chain.len(), 1);
    let certificate = parse(&server.chain[0]);
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature and nothing else");
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    let alternative = certificate.subject_alternative_name().unwrap().unwrap();
    assert!(!alternative.critical, "the subject is not empty");
    assert_eq!(
        alternative.value.general_names,
        [
            GeneralName::URI("spiffe://td.example/brevet"),
            GeneralName::DNSName("brevet.example"),
            GeneralName::DNSName("localhost"),
            GeneralName::IPAddress(&[127, 0, 0, 1]),
            GeneralName::IPAddress(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ]
    );
    assert_eq!(certificate.validity().not_before.timestamp(), 1_800_000_000 - 60);
    assert_eq!(certificate.validity().not_after.timestamp(), 1_800_000_000 + 3600);
    let issuer = parse(authority.certificate());
    assert_eq!(certificate.issuer(), issuer.subject());
    assert_ne!(certificate.subject(), issuer.subject());
    let ((own, authority_id), (issuer_id, _)) = (key_ids(&certificate), key_ids(&issuer));
    assert_eq!(authority_id, issuer_id);
    assert_ne!(own, authority_id);
    verify(&certificate, &issuer);
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &server.key, &rng).unwrap();
    assert_eq!(key.public_key().as_ref(), &*certificate.public_key().subject_public_key.data);
}

#[test]
fn l3_a_server_certificate_ends_no_later_than_its_authority() {
    let rng = SystemRandom::new();
    let authority = CaKey::ephemeral(&trust_domain(), NOW, HOUR, &rng).unwrap();
    let end = |now| {
        let made = authority.server_certificate(&ServerNames::default(), now, YEAR, &rng);
        made.map(|server| server.end)
    };
    assert_eq!(end(NOW).unwrap(), authority.end());
    let last = Timestamp::from_millis(authority.end().millis() - 1);
    assert_eq!(end(last).unwrap(), authority.end());
    assert!(matches!(end(authority.end()), Err(ServerCertificateError::Lifetime)));
    let nothing = authority.server_certificate(&ServerNames::default(), NOW, Duration::ZERO, &rng);
    assert!(matches!(nothing, Err(ServerCertificateError::Lifetime)));
}

#[test]
fn l4_serial_numbers_are_positive_and_drawn_anew() {
    let rng = SystemRandom::new();
    let authority = CaKey::ephemeral(&trust_domain(), NOW, YEAR, &rng).unwrap();
    let mut serials = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let server = authority.server_certificate(&ServerNames::default(), NOW, HOUR, &rng).unwrap();
        let serial = parse(&server.chain[0]).raw_serial().to_vec();
        assert!(serial.len() <= 17 && serial[0] < 0x80, "{serial:?}");
        serials.insert(serial);
    }
    assert_eq!(serials.len(), 64);
    assert!(serials.iter().any(|serial| serial.len() == 17), "the top bit is random as well");
}

#[test]
fn what_is_not_a_dns_name_is_refused() {
    let rng = SystemRandom::new();
    let authority = CaKey::ephemeral(&trust_domain(), NOW, YEAR, &rng).unwrap();
    let long = format!("{}.example", "a".repeat(64));
    let longer = format!("{}example", "abcdefghi.".repeat(25));
    for bad in ["", ".", "a.", ".a", "a..b", "*.example", "a b", "-a", "a-", "\u{e4}.example", &long, &longer]
    {
        let names = ServerNames { dns: vec![bad.to_owned()], ip: Vec::new() };
        let refused = authority.server_certificate(&names, NOW, HOUR, &rng);
        assert!(matches!(refused, Err(ServerCertificateError::DnsName(name)) if name == bad), "{bad:?}");
    }
}

#[test]
fn an_authority_is_made_once_and_found_again() {
    let (directory, files) = place();
    let made = load(&files).unwrap();
    assert_eq!(fs::metadata(&files.key).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&files.certificate).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    let found = load(&files).unwrap();
    assert_eq!((found.certificate(), found.end()), (made.certificate(), made.end()));
    let server = found.server_certificate(&ServerNames::default(), NOW, HOUR, &SystemRandom::new()).unwrap();
    verify(&parse(&server.chain[0]), &parse(made.certificate()));
}

#[test]
fn a_crash_between_key_and_certificate_leaves_an_authority() {
    let (_directory, files) = place();
    let made = load(&files).unwrap();
    fs::remove_file(&files.certificate).unwrap();
    let found = load(&files).unwrap();
    assert_eq!(found.coordinates(), made.coordinates());
    assert_eq!(found.key_id(), made.key_id());
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let fault = |result: Result<CaKey, CaError>| match result {
        Err(CaError::Certificate(fault)) => fault,
        other => panic!("{other:?}"),
    };
    let (_directory, files) = place();
    let (_elsewhere, others) = place();
    load(&files).unwrap();
    load(&others).unwrap();

    // Another trust domain, and other times.
    let rng = SystemRandom::new();
    let at = |trust_domain: &str, now| {
        CaKey::load_or_create(&files, &trust_domain.parse().unwrap(), now, YEAR, &rng)
    };
    assert_eq!(fault(at("other.example", NOW)), CertificateFault::TrustDomain);
    assert_eq!(fault(at("td.example", NOW.after(YEAR))), CertificateFault::Validity);
    assert_eq!(fault(at("td.example", Timestamp::EPOCH)), CertificateFault::Validity);

    // Not a certificate, a damaged one, one of another key, one without its key.
    let good = fs::read_to_string(&files.certificate).unwrap();
    for bad in [String::new(), good.replace("CERTIFICATE", "PRIVATE KEY"), format!("{good}{good}")] {
        fs::write(&files.certificate, bad).unwrap();
        assert_eq!(fault(load(&files)), CertificateFault::Malformed);
    }
    let mut damaged = pem::decode(CERTIFICATE, &good).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&files.certificate, pem::encode(CERTIFICATE, &damaged).as_str()).unwrap();
    assert_eq!(fault(load(&files)), CertificateFault::Signature);
    fs::copy(&others.certificate, &files.certificate).unwrap();
    assert_eq!(fault(load(&files)), CertificateFault::Key);
    fs::remove_file(&files.key).unwrap();
    assert!(matches!(load(&files), Err(CaError::KeyMissing(_))));
    assert!(!files.key.exists());
}

#[test]
fn a_leaf_of_the_same_key_is_no_authority_nor_is_one_without_a_key_identifier() {
    let (_directory, files) = place();
    load(&files).unwrap();
    let rng = SystemRandom::new();
    let pkcs8 = key_file::load_or_create(&files.key, &rng).unwrap();
    let key = AuthorityKey::from_pkcs8(&pkcs8, &rng).unwrap();
    let with = |is_ca: IsCa, extensions: Vec<CustomExtension>| {
        let mut params = parameters(NOW, NOW.after(YEAR), "other", &rng).unwrap();
        params.subject_alt_names = vec![uri(&"spiffe://td.example".parse().unwrap()).unwrap()];
        params.is_ca = is_ca;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.custom_extensions = extensions;
        let made = params.self_signed(&RcgenKey { pair: &key.pair, rng: &rng }).unwrap();
        fs::write(&files.certificate, pem::encode(CERTIFICATE, made.der()).as_str()).unwrap();
        load(&files).map(drop)
    };
    let mut authority = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
    authority.set_criticality(true);
    for refused in [with(IsCa::ExplicitNoCa, vec![]), with(IsCa::NoCa, vec![authority])] {
        assert!(matches!(refused, Err(CaError::Certificate(CertificateFault::NotAnAuthority))));
    }
    assert!(with(IsCa::Ca(BasicConstraints::Constrained(0)), vec![]).is_ok());
}

#[test]
fn l12_debug_shows_no_key() {
    let rng = SystemRandom::new();
    let authority = CaKey::ephemeral(&trust_domain(), NOW, YEAR, &rng).unwrap();
    let server = authority.server_certificate(&ServerNames::default(), NOW, HOUR, &rng).unwrap();
    assert_eq!(
        format!("{authority:?}"),
        format!("CaKey {{ trust_domain: {:?}, end: {:?}, .. }}", authority.trust_domain(), authority.end())
    );
    assert_eq!(format!("{server:?}"), format!("ServerCertificate {{ end: {:?}, .. }}", server.end));
}
