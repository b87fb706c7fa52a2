use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://broker.example";
pub(crate) const AUDIENCE: &str = "https://files.example";
const AGENT: &str = "spiffe://example.org/agent";
pub(crate) const ISSUED: u64 = 1_000_000;
pub(crate) const HOLDER: Presenter = presenter(1, None);

const fn presenter(key: u8, certificate: Option<u8>) -> Presenter {
    Presenter {
        key: Thumbprint::from_bytes([key; 32]),
        certificate: match certificate {
            Some(byte) => Some(CertificateDigest::from_bytes([byte; 32])),
            None => None,
        },
    }
}

/// A broker's signing key and what it has published.
pub(crate) struct Issuer {
    pair: EcdsaKeyPair,
    rng: SystemRandom,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
        Self { pair, rng }
    }

    pub(crate) fn verifier(&self, audience: &str) -> Verifier {
        Verifier::new(ISSUER.to_owned(), AudienceName::parse(audience).unwrap(), self.keys())
    }

    /// Its one key, by the name `k`.
    pub(crate) fn keys(&self) -> JwkSet {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        let set = json!({"keys": [
            {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k", "alg": "ES256", "use": "sig"},
        ]});
        JwkSet::parse(set.to_string().as_bytes()).unwrap()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(&self.rng, message).unwrap().as_ref().try_into().unwrap()
    }

    fn token(&self, certificate: Option<u8>) -> String {
        let id = "0000000000000000000000000g";
        self.token_of(certificate, &[id], id)
    }

    /// A token of a lease in the last task of a path.
    pub(crate) fn token_of(&self, certificate: Option<u8>, path: &[&str], lease: &str) -> String {
        let digest = |byte: u8| URL_SAFE_NO_PAD.encode([byte; 32]);
        let mut confirmation = json!({"jkt": digest(1)});
        if let Some(byte) = certificate {
            confirmation["x5t#S256"] = json!(digest(byte));
        }
        let claims = json!({
            "iss": ISSUER, "sub": AGENT, "client_id": AGENT, "aud": AUDIENCE,
            "act": {"iss": ISSUER, "sub": AGENT, "sub_profile": "ai_agent"},
            "iat": ISSUED, "exp": ISSUED + 300, "jti": lease,
            "authorization_details": [{
                "type": "brevet", "locations": [AUDIENCE], "identifier": "reports/**", "actions": ["read"],
                "constraints": {"pages": {"between": {"max": 10}}},
            }],
            "cnf": confirmation, "task": path, "rev": 7, "pol": digest(9),
        });
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": "k"});
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&header), part(&claims));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.sign(input.as_bytes())))
    }
}

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(ISSUED + seconds)
}

#[test]
fn the_holder_is_accepted_and_nobody_with_a_copy() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(AUDIENCE);
    let token = issuer.token(None);
    let verified = verifier.verify(&token, &HOLDER, at(0)).unwrap();
    assert_eq!(verified.claims().agent().unwrap().as_str(), AGENT);
    assert!(verified.lease().task.is_root());
    let stolen = verifier.verify(&token, &presenter(2, None), at(0)).unwrap_err();
    assert_eq!(stolen, Refusal::Holder(TokenError::Holder));
    assert_eq!(stolen.reason(), "cnf_mismatch");
}

#[test]
fn a_token_that_names_a_certificate_needs_it() {
    let issuer = Issuer::new();
    let (verifier, token) = (issuer.verifier(AUDIENCE), issuer.token(Some(5)));
    assert!(verifier.verify(&token, &presenter(1, Some(5)), at(0)).is_ok());
    for other in [presenter(1, None), presenter(1, Some(6)), presenter(2, Some(5))] {
        assert_eq!(verifier.verify(&token, &other, at(0)).unwrap_err().reason(), "cnf_mismatch");
    }
}

#[test]
fn another_audience_another_signer_and_another_time_are_refused() {
    let issuer = Issuer::new();
    let token = issuer.token(None);
    let reason = |verifier: &Verifier, token: &str, now| {
        verifier.verify(token, &HOLDER, now).map(|_| ()).unwrap_err().reason()
    };
    let verifier = issuer.verifier(AUDIENCE);
    assert!(verifier.verify(&token, &HOLDER, at(299)).is_ok());
    assert_eq!(reason(&verifier, &token, at(300)), "expired");
    assert_eq!(reason(&issuer.verifier("https://other.example"), &token, at(0)), "aud_mismatch");
    assert_eq!(reason(&Issuer::new().verifier(AUDIENCE), &token, at(0)), "bad_signature");
    assert_eq!(reason(&verifier, "", at(0)), "malformed");
}

#[test]
fn one_call_is_permitted_as_the_scope_says() {
    let issuer = Issuer::new();
    let verified = issuer.verifier(AUDIENCE).verify(&issuer.token(None), &HOLDER, at(0)).unwrap();
    let permits = |audience: &str, resource: &str, action: &str, pages: Option<i64>| {
        let arguments = pages
            .map(|pages| (ArgumentName::parse("pages").unwrap(), Value::Integer(pages)))
            .into_iter()
            .collect();
        verified.permits(
            &AudienceName::parse(audience).unwrap(),
            &resource.parse().unwrap(),
            &ActionName::parse(action).unwrap(),
            &arguments,
        )
    };
    assert!(permits(AUDIENCE, "reports/q3", "read", Some(10)));
    assert!(!permits(AUDIENCE, "reports/q3", "read", Some(11)));
    assert!(!permits(AUDIENCE, "reports/q3", "read", None));
    assert!(!permits(AUDIENCE, "reports/q3", "write", Some(1)));
    assert!(!permits(AUDIENCE, "reports", "read", Some(1)));
    assert!(!permits("https://other.example", "reports/q3", "read", Some(1)));
}
