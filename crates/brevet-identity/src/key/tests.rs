use super::*;
use crate::test_keys::{TestKey, der};

/// The modulus of the example in RFC 7638 §3.1.
const RFC_7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    der::rsa_spki(modulus, exponent)
}

fn positive(bytes: &[u8]) -> Vec<u8> {
    [&[0], bytes].concat()
}

#[test]
fn the_thumbprint_is_that_of_rfc_7638() {
    let modulus = URL_SAFE_NO_PAD.decode(RFC_7638_N).unwrap();
    let key = PublicKey::from_spki(&rsa_spki(&positive(&modulus), &[1, 0, 1])).unwrap();
    assert_eq!(key.thumbprint().to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(key.to_jwk().get("n").unwrap(), RFC_7638_N);
    assert_eq!(key.to_jwk().get("e").unwrap(), "AQAB");
    assert_eq!(key.algorithm(), None);
}

#[test]
fn an_elliptic_key_verifies_what_it_signed_by_its_own_algorithm_alone() {
    for key in [TestKey::p256(), TestKey::p384()] {
        let public = PublicKey::from_spki(&key.spki()).unwrap();
        let algorithm = public.algorithm().unwrap();
        // serde_json writes a map in the order of its names: the canonical form of RFC 7638.
        let canonical = Value::Object(public.to_jwk()).to_string();
        assert_eq!(public.thumbprint().as_bytes(), &sha256(canonical.as_bytes()));
        let signature = key.sign(b"message");
        for other in Algorithm::ALL {
            assert_eq!(public.verifies(other, b"message", &signature), other == algorithm, "{other:?}");
            assert_eq!(public.signs_with(other), other == algorithm);
        }
        assert!(!public.verifies(algorithm, b"another", &signature));
        assert!(!TestKey::p256().public().verifies(algorithm, b"message", &signature));
    }
}

#[test]
fn other_spellings_of_a_key_are_refused() {
    let good = TestKey::p256().spki();
    let mut compressed = good.clone();
    compressed[26] = 2;
    for bad in [&good[..good.len() - 1], &[&good[..], &[0]].concat(), &compressed, &[], b"\x30\x00"] {
        assert!(PublicKey::from_spki(bad).is_err(), "{bad:02x?}");
    }
    let ed25519 = der::seq(&[der::seq(&[der::oid(&[0x2b, 0x65, 0x70])]), der::tlv(3, &[0; 33])]);
    assert_eq!(PublicKey::from_spki(&ed25519), Err(InvalidKey::Algorithm));
    // secp256k1 under the same algorithm.
    let mut k1 = good;
    k1[22] = 0x0a;
    assert_eq!(PublicKey::from_spki(&k1), Err(InvalidKey::Algorithm));
}

#[test]
fn weak_rsa_keys_are_refused() {
    let modulus = |bytes: usize| positive(&[&vec![0x80; bytes - 1][..], &[1]].concat());
    let f4: &[u8] = &[1, 0, 1];
    for (name, n, e, expected) in [
        ("1024 bits", modulus(128), f4, Err(InvalidKey::RsaModulus)),
        ("2048 bits", modulus(256), f4, Ok(())),
        ("8192 bits", modulus(1024), f4, Ok(())),
        ("8200 bits", modulus(1025), f4, Err(InvalidKey::RsaModulus)),
        ("2047 bits", [&[0x40], &[1; 255][..]].concat(), f4, Err(InvalidKey::RsaModulus)),
        ("negative", vec![0x81; 256], f4, Err(InvalidKey::RsaModulus)),
        ("even", positive(&[0x80; 256]), f4, Err(InvalidKey::RsaModulus)),
        ("e = 1", modulus(256), &[1], Err(InvalidKey::RsaExponent)),
        ("e = 3", modulus(256), &[3], Err(InvalidKey::RsaExponent)),
        ("e even", modulus(256), &[1, 0, 2], Err(InvalidKey::RsaExponent)),
        ("e huge", modulus(256), &[1; 9], Err(InvalidKey::RsaExponent)),
        ("e negative", modulus(256), &[0x81, 0, 1], Err(InvalidKey::RsaExponent)),
    ] {
        assert_eq!(PublicKey::from_spki(&rsa_spki(&n, e)).map(|_| ()), expected, "{name}");
    }
}

#[test]
fn a_certificate_digest_is_the_plain_sha_256() {
    assert_eq!(certificate_digest(b"").to_string(), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
}
