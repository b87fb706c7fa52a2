//! JWK Sets and trust bundles.

use brevet_core::digest::Thumbprint;
use brevet_identity::jwk_set::JwkSet;
use brevet_identity::key::Algorithm;
use brevet_identity::trust::Bundle;
use serde_json::{Map, Value, json};

/// What only the owner of a key may have (RFC 7518 §6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A JWK Set or a SPIFFE bundle, which is one; or a bundle in PEM.
pub fn jwk_set(bytes: &[u8]) {
    for (usage, read) in
        [("sig", JwkSet::parse as fn(&[u8]) -> Result<JwkSet, _>), ("jwt-svid", JwkSet::parse_bundle)]
    {
        let Ok(set) = read(bytes) else { continue };
        let elements = public_elements(bytes);
        assert!(set.keys().count() + set.ignored().len() <= elements.len());
        for (kid, jwk) in set.keys() {
            let members = jwk.key().to_jwk();
            let is_this = |element: &Map<String, Value>| {
                element.get("kid").is_some_and(|other| other == kid)
                    && members.iter().all(|(name, value)| element.get(name) == Some(value))
            };
            assert!(elements.iter().any(is_this), "a key that nobody published: {kid}");
        }
        let written = set.keys().map(|(kid, jwk)| {
            let mut members = jwk.key().to_jwk();
            members.insert("kid".to_owned(), kid.into());
            members.insert("alg".to_owned(), jwk.algorithm().as_str().into());
            members.insert("use".to_owned(), usage.into());
            members
        });
        let written = json!({ "keys": written.collect::<Vec<_>>() }).to_string();
        let again = read(written.as_bytes()).expect("what was read is written as it was");
        assert!(again.ignored().is_empty());
        assert_eq!(identity(&set), identity(&again));
    }
    for bundle in [Bundle::from_spiffe_json(bytes), Bundle::from_pem(bytes)].into_iter().flatten() {
        let certificates: Vec<&[u8]> = bundle.authorities().collect();
        let again = Bundle::from_certificates(&certificates).expect("authorities that were read");
        assert!(again.authorities().eq(certificates), "other authorities");
    }
}

/// The elements of a set that was accepted, none of which is private.
fn public_elements(set: &[u8]) -> Vec<Map<String, Value>> {
    let set: Value = serde_json::from_slice(set).expect("what was accepted is JSON");
    let elements = set["keys"].as_array().expect("what was accepted has keys");
    let elements: Vec<_> =
        elements.iter().map(|element| element.as_object().expect("a key").clone()).collect();
    assert!(
        elements.iter().flat_map(Map::keys).all(|name| !PRIVATE.contains(&name.as_str())),
        "a private key"
    );
    elements
}

fn identity(set: &JwkSet) -> Vec<(&str, Algorithm, Thumbprint)> {
    set.keys().map(|(kid, jwk)| (kid, jwk.algorithm(), jwk.key().thumbprint())).collect()
}
