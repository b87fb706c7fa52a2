use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData, SanType};

use super::*;
use crate::test_certificates::{alternative_names, basic_constraints, name, uri};
use crate::test_keys::{TestKey, der};

const SET: u8 = 0x31;

/// The parts of a request, each as it will be encoded.
#[derive(Clone)]
struct Spec {
    version: Vec<u8>,
    subject: Vec<u8>,
    spki: Vec<u8>,
    attributes: Vec<u8>,
    algorithm: Vec<u8>,
}

impl Spec {
    fn of(key: &TestKey) -> Self {
        Self {
            version: der::tlv(2, &[0]),
            subject: name("agent"),
            spki: key.spki(),
            attributes: der::tlv(0xa0, &[]),
            algorithm: key.signature_algorithm(),
        }
    }

    fn info(&self) -> Vec<u8> {
        let Self { version, subject, spki, attributes, algorithm: _ } = self.clone();
        der::seq(&[version, subject, spki, attributes])
    }

    fn sign(&self, key: &TestKey) -> Vec<u8> {
        self.with_signature(&[&[0], &key.sign_asn1(&self.info())[..]].concat())
    }

    fn with_signature(&self, bits: &[u8]) -> Vec<u8> {
        der::seq(&[self.info(), self.algorithm.clone(), der::tlv(3, bits)])
    }
}

/// An attribute that asks for these extensions (RFC 2985 §5.4.2).
fn extension_request(extensions: &[u8]) -> Vec<u8> {
    let oid = der::oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14]);
    der::tlv(0xa0, &der::seq(&[oid, der::tlv(SET, &der::tlv(0x30, extensions))]))
}

fn judge(der: &[u8]) -> Result<ProvenKey, &'static str> {
    verify(der).map_err(CsrError::reason)
}

#[test]
fn a_request_proves_the_key_that_signed_it_and_nothing_else() {
    for key in [TestKey::p256(), TestKey::p384()] {
        let proven = verify(&Spec::of(&key).sign(&key)).unwrap();
        assert_eq!(proven.public_key().as_der(), key.spki());
        assert_eq!(proven.thumbprint(), key.public().thumbprint());
        assert!(!proven.ignored_attributes());
    }
}

#[test]
fn what_a_request_asks_for_is_passed_over_and_said_so() {
    let key = TestKey::p256();
    let asked = [
        alternative_names(&[uri("spiffe://td.example/admin"), uri("spiffe://td.example/other")]),
        basic_constraints(true, None),
    ];
    let attributes = extension_request(&asked.concat());
    let request = Spec { attributes, subject: der::seq(&[]), ..Spec::of(&key) }.sign(&key);
    let proven = verify(&request).unwrap();
    assert!(proven.ignored_attributes());
    assert_eq!(proven.thumbprint(), key.public().thumbprint());
    // What makes no sense is passed over as well: it is elements of some kind.
    let nonsense = der::tlv(0xa0, &[der::tlv(5, &[]), der::tlv(0x0c, b"\xff\xff")].concat());
    let request = Spec { attributes: nonsense, ..Spec::of(&key) }.sign(&key);
    assert!(verify(&request).unwrap().ignored_attributes());
}

#[test]
fn what_another_tool_makes_is_accepted() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "SPIFFE");
        let plain = params.serialize_request(&key).unwrap();
        params.subject_alt_names = vec![SanType::URI("spiffe://td.example/a".try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let asking = params.serialize_request(&key).unwrap();
        for (request, asks) in [(plain, false), (asking, true)] {
            let proven = verify(request.der()).unwrap();
            assert_eq!(proven.public_key().as_der(), key.subject_public_key_info());
            assert_eq!(proven.ignored_attributes(), asks);
        }
    }
}

/// `openssl req -new -addext subjectAltName=URI:spiffe://a/b` on P-256, and `-sha384` on P-384.
const OF_OPENSSL: [(&str, bool); 4] = [
    (
        "MIHwMIGYAgEAMAwxCjAIBgNVBAMMAXgwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQsoCoBRN7kcozy18I6Ko5EFqESIPsG/RclALcuIDLa5fn88jNsb7OVA1V/4rocanH32qOqV3jbwS8F1Kk0Ozf2oCowKAYJKoZIhvcNAQkOMRswGTAXBgNVHREEEDAOhgxzcGlmZmU6Ly9hL2IwCgYIKoZIzj0EAwIDRwAwRAIgQ9BJOC97gaYaA1uXQQncPMPdWuj3JqXhl101mjOiFscCIC3F/WBjx8b6I1e3uLfn0/13gFFok1WqRzLER6lM5B2s",
        true,
    ),
    (
        "MIIBCjCBkAIBADARMQ8wDQYDVQQKDAZTUElGRkUwdjAQBgcqhkjOPQIBBgUrgQQAIgNiAARtqhDneQ/+TsAjI0LPX/zZcLznwnt9kHFYVwQCshpJ8EahW3Hlr9wG/JEivmrfCS6xRTEqew34S+vxc9AN/jEyLt6wT+9ZV718ygy3swkGwrj/DTUhY69hJyxRz4ZRZBegADAKBggqhkjOPQQDAwNpADBmAjEAgqGOGdDXkD5WehR2apm8qrfRT32TnS9bif1yt9qT0mYQf4C2pUkWouS+0G0/RQ5XAjEAh1oaAwAn8iwn68fELxg8zKn1w2FZ/XUguxZdy20PVU3VAuqEQ/gPihidGUMxHv6x",
        false,
    ),
    // Of a P-384 key with SHA-256, which is its default, and of a P-256 key with SHA-384.
    (
        "MIIBCDCBjwIBADAQMQ4wDAYDVQQDDAVhZ2VudDB2MBAGByqGSM49AgEGBSuBBAAiA2IABJP+I85lCRxZDQh2hj0TosMhc7EauKD8O0SulrKDJLzwltUbdT84fOb1+crCR0owHs3P20Ffi8Ab3xKdXFJPm+w4jlrTjc6lLnoBVrPLSnb9jKHihSD2kfvaXB02w0JKS6AAMAoGCCqGSM49BAMCA2gAMGUCMAQv8veY6MZ4Vg/r91XNg+6Nf5iQ3WqvCRELTHhwwJA9F9yPUz6ZTW4CF9QlDNi/6wIxAMxYzXu9sw+DH0Mn31tW5ZV5TYoLT1TMnvKx2GEIT4RHp5QxzzLjkkApTXz1xl1xvw==",
        false,
    ),
    (
        "MIHJMHICAQAwEDEOMAwGA1UEAwwFYWdlbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATxcxdjIwaLNLP1RpWZYOlX1UI5gRdKy3LoXh/miUlDsDwMHxStx/sdKNHoaVuFfiketWdLlvq857yjohfbMcEnoAAwCgYIKoZIzj0EAwMDRwAwRAIgUU4zKAcFf67PiJHw4wielceucJmuIrYbSIbmTM9cX3YCICMfLXtuCSDDR/bg6puE7NPkOEa3cRcxjq0nyj/u516+",
        false,
    ),
];

#[test]
fn what_openssl_makes_is_accepted() {
    for (request, asks) in OF_OPENSSL {
        let proven = verify(&STANDARD.decode(request).unwrap()).unwrap();
        assert_eq!(proven.ignored_attributes(), asks);
    }
}

#[test]
fn a_bad_request_is_refused_with_its_reason() {
    let (key, other) = (TestKey::p256(), TestKey::p256());
    let spec = Spec::of(&key);
    let good = spec.sign(&key);
    let with = |change: &dyn Fn(&mut Spec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        spec.sign(&key)
    };
    let ecdsa = |hash: u8| der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, hash]);
    let rsa = der::rsa_spki(&[&[0, 0x80][..], &[1; 255]].concat(), &[1, 0, 1]);
    let ed25519 = der::seq(&[der::seq(&[der::oid(&[0x2b, 0x65, 0x70])]), der::tlv(3, &[0; 33])]);
    let point = |first: u8| {
        let mut spki = key.spki();
        spki[26] = first;
        spki
    };
    let deep = |depth: usize| (0..depth).fold(Vec::new(), |inner, _| der::tlv(SET, &inner));
    let signature = key.sign_asn1(&spec.info());
    let info = spec.info();
    let by_other = [&[0], &other.sign_asn1(&info)[..]].concat();
    for (name, request, reason) in [
        // Form.
        ("nothing", vec![], "csr_malformed"),
        ("no request", der::seq(&[]), "csr_malformed"),
        ("trailing byte", [&good[..], &[0]].concat(), "csr_malformed"),
        ("a byte short", good[..good.len() - 1].to_vec(), "csr_malformed"),
        ("indefinite length", [&[0x30, 0x80], &good[3..], &[0, 0]].concat(), "csr_malformed"),
        ("a length in long form", [&[0x30, 0x82, 0, good[2]], &good[3..]].concat(), "csr_malformed"),
        ("version 1", with(&|s| s.version = der::tlv(2, &[1])), "csr_malformed"),
        ("version in two bytes", with(&|s| s.version = der::tlv(2, &[0, 0])), "csr_malformed"),
        ("no version", with(&|s| s.version = vec![]), "csr_malformed"),
        ("no subject", with(&|s| s.subject = vec![]), "csr_malformed"),
        ("a subject of no elements", with(&|s| s.subject = der::tlv(0x30, &[0xff])), "csr_malformed"),
        ("no attributes", with(&|s| s.attributes = vec![]), "csr_malformed"),
        (
            "attributes that end early",
            with(&|s| s.attributes = der::tlv(0xa0, &[0x30, 5, 0])),
            "csr_malformed",
        ),
        ("attributes twice", with(&|s| s.attributes = der::tlv(0xa0, &[]).repeat(2)), "csr_malformed"),
        ("attributes without end", with(&|s| s.attributes = der::tlv(0xa0, &deep(40))), "csr_malformed"),
        ("unused bits", spec.with_signature(&[&[1], &signature[..]].concat()), "csr_malformed"),
        ("no signature", spec.with_signature(&[]), "csr_malformed"),
        // Key.
        ("rsa", with(&|s| s.spki = rsa.clone()), "csr_key"),
        ("ed25519", with(&|s| s.spki = ed25519.clone()), "csr_key"),
        ("compressed point", with(&|s| s.spki = point(2)), "csr_key"),
        ("hybrid point", with(&|s| s.spki = point(6)), "csr_key"),
        ("an empty key", with(&|s| s.spki = der::seq(&[])), "csr_key"),
        // Algorithm.
        ("sha-1", with(&|s| s.algorithm = der::seq(&[ecdsa(1)])), "csr_alg"),
        ("with parameters", with(&|s| s.algorithm = der::seq(&[ecdsa(2), der::tlv(5, &[])])), "csr_alg"),
        ("none", with(&|s| s.algorithm = der::seq(&[])), "csr_alg"),
        // Signature.
        ("not with the digest it names", with(&|s| s.algorithm = der::seq(&[ecdsa(3)])), "csr_signature"),
        ("of another key", spec.with_signature(&by_other), "csr_signature"),
        ("over another key", with(&|s| s.spki = other.spki()), "csr_signature"),
        ("an empty signature", spec.with_signature(&[0]), "csr_signature"),
        ("two integers of zero", spec.with_signature(&[0, 0x30, 6, 2, 1, 0, 2, 1, 0]), "csr_signature"),
        ("as jose has it", spec.with_signature(&[&[0], &key.sign(&info)[..]].concat()), "csr_signature"),
        ("a point off the curve", with(&|s| *s.spki.last_mut().unwrap() ^= 1), "csr_signature"),
    ] {
        assert_eq!(judge(&request).map(|_| ()), Err(reason), "{name}");
    }
    assert!(verify(&good).is_ok());
}

#[test]
fn a_request_has_a_limit_before_it_is_looked_at() {
    let key = TestKey::p256();
    let of_size = |size: usize| {
        let attributes = der::tlv(0xa0, &der::tlv(4, &vec![0; size]));
        Spec { attributes, ..Spec::of(&key) }.sign(&key)
    };
    let longest = (7_900..CSR_BYTES_MAX).map(&of_size).rfind(|request| request.len() <= CSR_BYTES_MAX);
    assert!(verify(&longest.unwrap()).is_ok());
    assert_eq!(judge(&of_size(CSR_BYTES_MAX)).map(|_| ()), Err("csr_size"));
    assert_eq!(judge(&vec![0x30; 1 << 20]).map(|_| ()), Err("csr_size"));
}

#[test]
fn no_bit_of_a_request_can_be_another() {
    for key in [TestKey::p256(), TestKey::p384()] {
        let attributes = extension_request(&basic_constraints(true, None));
        let good = Spec { attributes, ..Spec::of(&key) }.sign(&key);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut damaged = good.clone();
                damaged[at] ^= 1 << bit;
                assert!(verify(&damaged).is_err(), "bit {bit} of byte {at}");
            }
            assert_eq!(judge(&good[..at]).map(|_| ()), Err("csr_malformed"));
        }
    }
}

#[test]
fn no_bytes_at_all_make_it_panic() {
    let key = TestKey::p256();
    let good = Spec::of(&key).sign(&key);
    // A generator of its own, so that every run sees the same bytes (Knuth's MMIX).
    let mut state: u64 = 42;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let tags = [0x02, 0x03, 0x04, 0x05, 0x06, 0x30, 0x31, 0xa0, 0x80, 0x81, 0x82, 0x84, 0x00, 0x7f, 0xff];
    for _ in 0..20_000 {
        let random: Vec<u8> = (0..next(200)).map(|_| tags[next(tags.len())]).collect();
        assert!(verify(&random).is_err());
        let mut mutated = good.clone();
        for _ in 0..=next(6) {
            let (at, end) = (next(mutated.len()), next(mutated.len() + 1));
            match next(3) {
                0 => mutated[at] = u8::try_from(next(256)).unwrap(),
                1 => mutated.insert(at, tags[next(tags.len())]),
                _ => drop(mutated.drain(at.min(end)..(at + 2).min(end.max(at)))),
            }
            if mutated.is_empty() {
                break;
            }
        }
        if mutated != good {
            assert!(verify(&mutated).is_err(), "{mutated:02x?}");
        }
    }
}
