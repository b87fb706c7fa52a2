//! Keys and DER for tests.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use serde_json::{Map, Value, json};

use crate::jwk_set::JwkSet;
use crate::key::PublicKey;

/// A private key that signs both as JOSE and as X.509 has it.
pub(crate) struct TestKey {
    p384: bool,
    fixed: EcdsaKeyPair,
    asn1: EcdsaKeyPair,
}

impl TestKey {
    pub(crate) fn p256() -> Self {
        Self::generate(false)
    }

    pub(crate) fn p384() -> Self {
        Self::generate(true)
    }

    fn generate(p384: bool) -> Self {
        let rng = SystemRandom::new();
        let (fixed, asn1) = if p384 {
            (&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING)
        } else {
            (&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_ASN1_SIGNING)
        };
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(fixed, &rng).unwrap().as_ref().to_vec();
        Self {
            p384,
            fixed: EcdsaKeyPair::from_pkcs8(fixed, &pkcs8, &rng).unwrap(),
            asn1: EcdsaKeyPair::from_pkcs8(asn1, &pkcs8, &rng).unwrap(),
        }
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        let curve: &[u8] =
            if self.p384 { &[0x2b, 0x81, 4, 0, 0x22] } else { &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] };
        let algorithm = der::seq(&[der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), der::oid(curve)]);
        der::seq(&[algorithm, der::tlv(3, &[&[0], self.fixed.public_key().as_ref()].concat())])
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::from_spki(&self.spki()).unwrap()
    }

    pub(crate) fn jwk(&self, kid: &str) -> Map<String, Value> {
        let mut jwk = self.public().to_jwk();
        jwk.insert("kid".into(), kid.into());
        jwk
    }

    pub(crate) fn alg(&self) -> &'static str {
        self.public().algorithm().unwrap().as_str()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.fixed.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub(crate) fn sign_asn1(&self, message: &[u8]) -> Vec<u8> {
        self.asn1.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    /// ecdsa-with-SHA256 or ecdsa-with-SHA384.
    pub(crate) fn signature_algorithm(&self) -> Vec<u8> {
        let hash = if self.p384 { 3 } else { 2 };
        der::seq(&[der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, hash])])
    }

    /// A compact JWS of the texts as they are.
    pub(crate) fn jws(&self, header: &str, payload: &str) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.sign(input.as_bytes())))
    }
}

pub(crate) fn jwk_set(keys: &[(&str, &TestKey)]) -> JwkSet {
    let keys: Vec<_> = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
    JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

pub(crate) use brevet_testkit::x509::der;
