//! Keys that sign certificates and tokens.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::{Map, Value, json};

use super::der;

/// The key of RFC 7515 appendix A.2: n, d, p, q, dp, dq and qi. Everybody knows it.
const RFC_7515_A_2: [&str; 7] = [
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
    "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
    "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
    "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
    "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
    "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U",
];
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

const SHA_256: [u8; 9] = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const PKCS_1: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];

/// A private key that signs certificates in one way.
pub struct Key(Private);

enum Private {
    P256(EcdsaKeyPair, Vec<u8>),
    P384(EcdsaKeyPair, Vec<u8>),
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding, Vec<u8>),
}

impl Key {
    /// A new key on P-256, which signs with SHA-256.
    #[must_use]
    pub fn p256() -> Self {
        let rng = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).unwrap();
        let pkcs8 = document.as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &rng).unwrap();
        Self(Private::P256(pair, pkcs8))
    }

    /// A new key on P-384, which signs with SHA-384.
    #[must_use]
    pub fn p384() -> Self {
        let rng = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &rng).unwrap();
        let pkcs8 = document.as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &pkcs8, &rng).unwrap();
        Self(Private::P384(pair, pkcs8))
    }

    /// The RSA key of 2,048 bits that RFC 7515 prints, which signs in the way of PKCS #1 v1.5 with SHA-256. There is
    /// one only: nothing here makes RSA keys.
    #[must_use]
    pub fn rsa() -> Self {
        let algorithm = der::seq(&[der::oid(&[&PKCS_1[..], &[11]].concat()), der::tlv(5, &[])]);
        Self(Private::Rsa(rsa(), &RSA_PKCS1_SHA256, algorithm))
    }

    /// The same key, which signs in the way of RSASSA-PSS with SHA-256 (RFC 4055 §3.1).
    #[must_use]
    pub fn rsa_pss() -> Self {
        let sha_256 = der::seq(&[der::oid(&SHA_256), der::tlv(5, &[])]);
        let mask = der::seq(&[der::oid(&[&PKCS_1[..], &[8]].concat()), sha_256.clone()]);
        let parameters =
            der::seq(&[der::tlv(0xa0, &sha_256), der::tlv(0xa1, &mask), der::tlv(0xa2, &der::tlv(2, &[32]))]);
        let algorithm = der::seq(&[der::oid(&[&PKCS_1[..], &[10]].concat()), parameters]);
        Self(Private::Rsa(rsa(), &RSA_PSS_SHA256, algorithm))
    }

    /// The public half as a `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        match &self.0 {
            Private::P256(pair, _) => {
                der::ec_spki(der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]), pair.public_key().as_ref())
            }
            Private::P384(pair, _) => {
                der::ec_spki(der::oid(&[0x2b, 0x81, 4, 0, 0x22]), pair.public_key().as_ref())
            }
            Private::Rsa(..) => {
                let modulus = URL_SAFE_NO_PAD.decode(RFC_7515_A_2.first().unwrap()).unwrap();
                der::rsa_spki(&[&[0], &modulus[..]].concat(), &RSA_EXPONENT)
            }
        }
    }

    /// The private half in PKCS #8, where the key was made here.
    #[must_use]
    pub fn pkcs8(&self) -> Option<&[u8]> {
        match &self.0 {
            Private::P256(_, pkcs8) | Private::P384(_, pkcs8) => Some(pkcs8),
            Private::Rsa(..) => None,
        }
    }

    /// Signs as certificates are signed.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match &self.0 {
            Private::P256(pair, _) | Private::P384(pair, _) => {
                pair.sign(&rng, message).unwrap().as_ref().to_vec()
            }
            Private::Rsa(pair, encoding, _) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &rng, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// Signs as tokens are signed with this algorithm (RFC 7518 §3.3 to §3.5). An elliptic key has one and signs with
    /// that, whatever the token says.
    #[must_use]
    pub fn sign_jose(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        let (fixed, pkcs8) = match &self.0 {
            Private::P256(_, pkcs8) => (&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8),
            Private::P384(_, pkcs8) => (&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8),
            Private::Rsa(pair, ..) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &rng, message, &mut signature).unwrap();
                return signature;
            }
        };
        let pair = EcdsaKeyPair::from_pkcs8(fixed, pkcs8, &rng).unwrap();
        pair.sign(&rng, message).unwrap().as_ref().to_vec()
    }

    /// The public half as a JWK: the members of its type alone.
    #[must_use]
    pub fn jwk(&self) -> Map<String, Value> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (curve, pair) = match &self.0 {
            Private::P256(pair, _) => ("P-256", pair),
            Private::P384(pair, _) => ("P-384", pair),
            Private::Rsa(..) => {
                let [n, ..] = RFC_7515_A_2;
                let jwk = json!({"kty": "RSA", "n": n, "e": text(&RSA_EXPONENT)});
                return jwk.as_object().unwrap().clone();
            }
        };
        let (_, point) = pair.public_key().as_ref().split_first().unwrap();
        let (x, y) = point.split_at(point.len() / 2);
        json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)}).as_object().unwrap().clone()
    }

    /// The `AlgorithmIdentifier` of its signatures.
    #[must_use]
    pub fn signature_algorithm(&self) -> Vec<u8> {
        let ecdsa_with = |hash: u8| der::seq(&[der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, hash])]);
        match &self.0 {
            Private::P256(..) => ecdsa_with(2),
            Private::P384(..) => ecdsa_with(3),
            Private::Rsa(_, _, algorithm) => algorithm.clone(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Private::P256(..) => "Key(P-256)",
            Private::P384(..) => "Key(P-384)",
            Private::Rsa(..) => "Key(RSA)",
        })
    }
}

fn rsa() -> Box<RsaKeyPair> {
    let [n, d, p, q, dp, dq, qi] = RFC_7515_A_2.map(|text| URL_SAFE_NO_PAD.decode(text).unwrap());
    let public_key = PublicKeyComponents { n, e: RSA_EXPONENT.to_vec() };
    let components = KeyPairComponents { public_key, d, p, q, dP: dp, dQ: dq, qInv: qi };
    Box::new(RsaKeyPair::from_components(&components).unwrap())
}
