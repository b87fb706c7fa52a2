//! What verifiers fetch: the keys of task tokens, and the bundle of the broker's own trust domain.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_core::sabotage;
use serde_json::{Value, json};

use crate::ca::CaKey;
use crate::key::PublicJwk;

/// The base point of P-256, which a deliberate fault publishes in place of each key: it is on the curve and nobody's.
const BASE_POINT: (&str, &str) =
    ("axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU");

/// The keys of task tokens as a JWK Set (RFC 7517 §5).
#[must_use]
pub fn task_tokens<'a>(keys: impl IntoIterator<Item = &'a PublicJwk>) -> String {
    set_of(keys)
}

/// The keys of bookmarks as a JWK Set.
#[must_use]
pub fn bookmarks<'a>(keys: impl IntoIterator<Item = &'a PublicJwk>) -> String {
    set_of(keys)
}

fn set_of<'a>(keys: impl IntoIterator<Item = &'a PublicJwk>) -> String {
    let keys: Vec<Value> = keys
        .into_iter()
        .map(|key| {
            let (x, y) = point_of(key);
            json!({
                "kty": "EC", "crv": "P-256", "x": x, "y": y,
                "kid": key.kid().as_str(), "alg": "ES256", "use": "sig",
            })
        })
        .collect();
    json!({ "keys": keys }).to_string()
}

/// The keys of JWT-SVIDs as a JWK Set, each as it stands in the bundle: with a `kid`, and of no other use (JWT-SVID §6).
#[must_use]
pub fn jwt_svids<'a>(keys: impl IntoIterator<Item = &'a PublicJwk>) -> String {
    json!({ "keys": keys.into_iter().map(of_jwt_svids).collect::<Vec<_>>() }).to_string()
}

fn of_jwt_svids(key: &PublicJwk) -> Value {
    let (x, y) = point_of(key);
    json!({
        "kty": "EC", "crv": "P-256", "x": x, "y": y,
        "kid": key.kid().as_str(), "use": "jwt-svid",
    })
}

fn point_of(key: &PublicJwk) -> (&str, &str) {
    if sabotage::on("other_keys_are_published") { BASE_POINT } else { key.coordinates() }
}

/// The bundle of the broker's own trust domain (SPIFFE Trust Domain and Bundle §4): one entry for each authority,
/// without a `kid` (X509-SVID §6), and one for each key of JWT-SVIDs.
///
/// `sequence` grows with each change of either; consumers come back after `refresh_hint_seconds`.
#[must_use]
pub fn spiffe_bundle<'a>(
    authorities: impl IntoIterator<Item = &'a CaKey>,
    jwt_svid_keys: impl IntoIterator<Item = &'a PublicJwk>,
    sequence: u64,
    refresh_hint_seconds: u64,
) -> String {
    let published = authorities.into_iter().filter(|_| !sabotage::on("authorities_are_unpublished"));
    let authorities = published.map(|authority| {
        let (x, y) = authority.coordinates();
        json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y,
            "use": "x509-svid", "x5c": [STANDARD.encode(authority.certificate())],
        })
    });
    let keys: Vec<Value> = authorities.chain(jwt_svid_keys.into_iter().map(of_jwt_svids)).collect();
    json!({ "keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": refresh_hint_seconds })
        .to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use brevet_core::time::Timestamp;
    use ring::rand::SystemRandom;

    use super::*;
    use crate::key::{JwtSvids, SigningKey, TaskTokens};

    #[test]
    fn each_key_of_task_tokens_is_described_completely() {
        let rng = SystemRandom::new();
        let keys = [0, 1].map(|_| SigningKey::<TaskTokens>::ephemeral(&rng).unwrap());
        let document: Value =
            serde_json::from_str(&task_tokens(keys.iter().map(SigningKey::public_jwk))).unwrap();
        let entries = document["keys"].as_array().unwrap();
        assert_eq!(entries.len(), 2);
        for (entry, key) in entries.iter().zip(&keys) {
            let (x, y) = key.public_jwk().coordinates();
            let expected = json!({
                "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
                "kid": key.kid().as_str(), "x": x, "y": y,
            });
            assert_eq!(*entry, expected);
        }
    }

    #[test]
    fn an_authority_is_in_the_bundle_with_its_certificate_and_no_kid() {
        let rng = SystemRandom::new();
        let now = Timestamp::from_seconds(1_800_000_000);
        let authority =
            CaKey::ephemeral(&"td.example".parse().unwrap(), now, Duration::from_secs(86_400), &rng).unwrap();
        let document: Value = serde_json::from_str(&spiffe_bundle([&authority], [], 7, 300)).unwrap();
        assert_eq!(
            (&document["spiffe_sequence"], &document["spiffe_refresh_hint"]),
            (&json!(7), &json!(300))
        );
        let entry = &document["keys"][0];
        let mut members: Vec<&str> = entry.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["crv", "kty", "use", "x", "x5c", "y"]);
        assert_eq!(entry["use"], "x509-svid");
        assert_eq!(entry["x5c"], json!([STANDARD.encode(authority.certificate())]));
    }

    #[test]
    fn jw_14_each_key_of_jwt_svids_is_in_the_bundle_under_its_kid_and_for_no_other_use() {
        let rng = SystemRandom::new();
        let now = Timestamp::from_seconds(1_800_000_000);
        let authority =
            CaKey::ephemeral(&"td.example".parse().unwrap(), now, Duration::from_secs(86_400), &rng).unwrap();
        let keys = [0, 1].map(|_| SigningKey::<JwtSvids>::ephemeral(&rng).unwrap());
        let public = || keys.iter().map(SigningKey::public_jwk);
        let document: Value = serde_json::from_str(&spiffe_bundle([&authority], public(), 7, 300)).unwrap();
        let [of_authority, entries @ ..] = document["keys"].as_array().unwrap().as_slice() else { panic!() };
        assert_eq!((&of_authority["use"], of_authority.get("kid")), (&json!("x509-svid"), None));
        let alone: Value = serde_json::from_str(&jwt_svids(public())).unwrap();
        assert_eq!(json!(entries), alone["keys"]);
        assert_eq!(entries.len(), 2);
        for (entry, key) in entries.iter().zip(&keys) {
            let (x, y) = key.public_jwk().coordinates();
            let expected = json!({
                "kty": "EC", "crv": "P-256", "use": "jwt-svid", "kid": key.kid().as_str(), "x": x, "y": y,
            });
            assert_eq!(*entry, expected);
        }
    }
}
