//! A JWK Set (RFC 7517 §5): the public keys that an issuer signs with, found by `kid`.
//!
//! An element of a kind or for a purpose that is not known here is left out, as the standard asks. A set that holds a
//! private, a symmetric, a weak or a broken key, or one `kid` for two keys that are taken, is no set to trust and is
//! refused whole: whoever publishes such a one has lost control of its keys. What is left out may share the `kid` of what
//! is taken, as alternatives of different kinds do (RFC 7517 §4.5): it neither hides that key nor stands in for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use thiserror::Error;

use crate::json::{self, InvalidJson};
use crate::jwk::{Jwk, KeyUse, is_private_member};
use crate::key::InvalidKey;
use crate::trust::{BUNDLE_BYTES_MAX, BUNDLE_KEYS_MAX};

/// The longest JWK Set in bytes.
pub const JWK_SET_BYTES_MAX: usize = 256 * 1024;
/// The most elements in a JWK Set.
pub const JWK_SET_KEYS_MAX: usize = 64;
/// The longest `kid` in bytes.
pub const KID_BYTES_MAX: usize = 128;

/// Why a text is not a JWK Set to trust.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidJwkSet {
    /// It is longer than the limit or has too many keys.
    #[error("the jwk set is too large")]
    TooLarge,
    /// It is not strict JSON.
    #[error("the jwk set is not strict json")]
    Json(#[from] InvalidJson),
    /// It is not an object with an array `keys` of objects.
    #[error("the jwk set is malformed")]
    Malformed,
    /// An element holds a private or a symmetric key.
    #[error("element {0} is not a public key")]
    NotPublic(usize),
    /// An element holds a key that is weak, broken or another than its certificate's.
    #[error("element {0} is not an acceptable key")]
    Key(usize, #[source] InvalidKey),
    /// Two elements have the same `kid`.
    #[error("element {0} repeats a kid")]
    DuplicateKid(usize),
}

impl InvalidJwkSet {
    /// A stable name for the audit.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "jwks_size",
            Self::Json(_) | Self::Malformed => "jwks_malformed",
            Self::NotPublic(_) | Self::Key(..) => "key_unacceptable",
            Self::DuplicateKid(_) => "kid_duplicate",
        }
    }
}

/// Why an element of a JWK Set was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Ignored {
    /// It has no `kid` by which a token could name it, or one that is empty or too long.
    #[error("no usable kid")]
    Kid,
    /// The key is of a kind or for a purpose that is not known here.
    #[error("not a key for this")]
    Key(#[from] InvalidKey),
}

impl Ignored {
    /// A stable name.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Kid => "kid_missing",
            Self::Key(InvalidKey::Purpose) => "key_use",
            Self::Key(_) => "key_type",
        }
    }
}

/// The public keys of an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JwkSet {
    keys: BTreeMap<String, Jwk>,
    /// Keys without a `kid`, which only the letter of some standards lets verify.
    nameless: Vec<Jwk>,
    /// The `kid`s of elements whose keys were left out.
    left_out: BTreeSet<String>,
    ignored: Vec<(usize, Ignored)>,
}

impl JwkSet {
    /// Reads a JWK Set and takes the keys that are for signatures.
    ///
    /// # Errors
    /// [`InvalidJwkSet`] if the set as a whole can't be trusted.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidJwkSet> {
        let elements = elements(text, JWK_SET_BYTES_MAX, JWK_SET_KEYS_MAX)?.1;
        Self::of(&elements, KeyUse::Signature)
    }

    /// Reads a SPIFFE bundle and takes the keys that are for JWT-SVIDs (JWT-SVID §6.2).
    ///
    /// # Errors
    /// [`InvalidJwkSet`] if the bundle as a whole can't be trusted.
    pub fn parse_bundle(text: &[u8]) -> Result<Self, InvalidJwkSet> {
        let elements = elements(text, BUNDLE_BYTES_MAX, BUNDLE_KEYS_MAX)?.1;
        Self::of(&elements, KeyUse::JwtSvid)
    }

    /// Takes the keys of the elements that are for `usage`.
    pub(crate) fn of(elements: &[Map<String, Value>], usage: KeyUse) -> Result<Self, InvalidJwkSet> {
        let mut set = Self::default();
        for (index, element) in elements.iter().enumerate() {
            let kid = element.get("kid").and_then(Value::as_str);
            match (kid, Jwk::parse(element, usage)) {
                (_, Ok(jwk)) if !jwk.key().is_on_its_curve() => {
                    return Err(InvalidJwkSet::Key(index, InvalidKey::Malformed));
                }
                (Some(kid), Ok(jwk)) if (1..=KID_BYTES_MAX).contains(&kid.len()) => {
                    if set.keys.insert(kid.to_owned(), jwk).is_some() {
                        return Err(InvalidJwkSet::DuplicateKid(index));
                    }
                }
                (kid, Ok(jwk)) => {
                    set.ignored.push((index, Ignored::Kid));
                    set.nameless.extend(kid.is_none().then_some(jwk));
                }
                (kid, Err(reason @ (InvalidKey::Algorithm | InvalidKey::Purpose))) => {
                    set.ignored.push((index, reason.into()));
                    set.left_out.extend(kid.map(str::to_owned));
                }
                (_, Err(reason)) => return Err(InvalidJwkSet::Key(index, reason)),
            }
        }
        Ok(set)
    }

    /// The key with this `kid`, compared byte for byte.
    #[must_use]
    pub fn key(&self, kid: &str) -> Option<&Jwk> {
        self.keys.get(kid)
    }

    /// Whether the set has an element with this `kid` whose key is none to verify with here.
    #[must_use]
    pub fn leaves_out(&self, kid: &str) -> bool {
        self.left_out.contains(kid)
    }

    /// The keys and their `kid`s, in the order of the latter.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &Jwk)> {
        self.keys.iter().map(|(kid, key)| (kid.as_str(), key))
    }

    /// What tells it from another set: name, algorithm and thumbprint of each key.
    pub(crate) fn identity(&self) -> impl Iterator<Item = Vec<u8>> {
        let text = |(kid, jwk): (&str, &Jwk)| {
            let (algorithm, thumbprint) = (jwk.algorithm().as_str(), jwk.key().thumbprint());
            format!("{algorithm} {thumbprint} {kid}").into_bytes()
        };
        self.keys().map(text)
    }

    /// All keys, those without a `kid` too.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Jwk> {
        self.keys.values().chain(&self.nameless)
    }

    /// Which elements were left out, by their position, and why.
    #[must_use]
    pub fn ignored(&self) -> &[(usize, Ignored)] {
        &self.ignored
    }
}

/// The other members of a JWK Set, and the elements of its `keys`.
pub(crate) type Members = (Map<String, Value>, Vec<Map<String, Value>>);

/// Splits a JWK Set into its members and its elements, none of which is private.
pub(crate) fn elements(text: &[u8], bytes_max: usize, keys_max: usize) -> Result<Members, InvalidJwkSet> {
    if text.len() > bytes_max {
        return Err(InvalidJwkSet::TooLarge);
    }
    let mut members = json::parse_object(text)?;
    let Some(Value::Array(keys)) = members.remove("keys") else {
        return Err(InvalidJwkSet::Malformed);
    };
    if keys.len() > keys_max {
        return Err(InvalidJwkSet::TooLarge);
    }
    let mut elements = Vec::with_capacity(keys.len());
    for (index, key) in keys.into_iter().enumerate() {
        let Value::Object(element) = key else {
            return Err(InvalidJwkSet::Malformed);
        };
        let symmetric = element.get("kty").is_some_and(|kty| kty == "oct");
        if symmetric || element.keys().any(|name| is_private_member(name)) {
            return Err(InvalidJwkSet::NotPublic(index));
        }
        elements.push(element);
    }
    Ok((members, elements))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_keys::{TestKey, jwk_set};

    fn parse(set: &Value) -> Result<JwkSet, InvalidJwkSet> {
        JwkSet::parse(set.to_string().as_bytes())
    }

    #[test]
    fn keys_are_found_by_their_exact_kid() {
        let (a, b) = (TestKey::p256(), TestKey::p384());
        let set = jwk_set(&[("a", &a), ("b", &b)]);
        assert_eq!(set.key("a").map(Jwk::key), Some(&a.public()));
        assert_eq!(set.key("b").map(Jwk::key), Some(&b.public()));
        for unknown in ["", "A", "a ", "c", "../../dev/null", "a\0"] {
            assert_eq!(set.key(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn a_set_with_a_secret_or_a_repeated_kid_is_refused_whole() {
        let key = TestKey::p256();
        let with = |name: &str, value: Value| {
            let mut jwk = key.jwk("a");
            jwk.insert(name.into(), value);
            jwk
        };
        let refused = |keys: Value| parse(&json!({ "keys": keys })).unwrap_err();
        assert_eq!(refused(json!([key.jwk("a"), key.jwk("a")])), InvalidJwkSet::DuplicateKid(1));
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert_eq!(
                refused(json!([key.jwk("b"), with(private, json!("AA"))])),
                InvalidJwkSet::NotPublic(1)
            );
        }
        assert_eq!(refused(json!([{"kty": "oct", "kid": "a"}])), InvalidJwkSet::NotPublic(0));
        assert_eq!(refused(json!([1])), InvalidJwkSet::Malformed);
        assert_eq!(refused(json!({})), InvalidJwkSet::Malformed);
        let many: Vec<_> = (0..=JWK_SET_KEYS_MAX).map(|n| key.jwk(&n.to_string())).collect();
        assert_eq!(refused(json!(many)), InvalidJwkSet::TooLarge);
        assert_eq!(JwkSet::parse(&vec![b' '; JWK_SET_BYTES_MAX + 1]), Err(InvalidJwkSet::TooLarge));
        assert_eq!(JwkSet::parse(br#"{"keys":[],"keys":[]}"#), Err(InvalidJwkSet::Json(InvalidJson)));
        assert_eq!(parse(&json!({})), Err(InvalidJwkSet::Malformed));
    }

    #[test]
    fn an_element_of_another_kind_is_left_out_with_its_reason() {
        let key = TestKey::p256();
        let with = |name: &str, value: Value| {
            let mut jwk = key.jwk("k");
            jwk.insert(name.into(), value);
            Value::Object(jwk)
        };
        let without_kid = Value::Object(key.public().to_jwk());
        for (element, reason) in [
            (
                json!({"kty": "OKP", "kid": "k", "crv": "Ed25519", "x": "AA"}),
                Ignored::Key(InvalidKey::Algorithm),
            ),
            (json!({"kid": "k"}), Ignored::Key(InvalidKey::Algorithm)),
            (with("crv", json!("P-521")), Ignored::Key(InvalidKey::Algorithm)),
            (with("use", json!("enc")), Ignored::Key(InvalidKey::Purpose)),
            (with("alg", json!("ES384")), Ignored::Key(InvalidKey::Purpose)),
            (with("key_ops", json!(["encrypt"])), Ignored::Key(InvalidKey::Purpose)),
            (with("kid", json!("")), Ignored::Kid),
            (without_kid, Ignored::Kid),
        ] {
            let set = parse(&json!({"keys": [element, key.jwk("good")], "other": 1})).unwrap();
            assert_eq!(set.ignored(), [(0, reason)], "{element}");
            assert_eq!(set.keys().map(|(kid, _)| kid).collect::<Vec<_>>(), ["good"]);
            assert_eq!(set.leaves_out("k"), reason != Ignored::Kid, "{element}");
        }
    }

    #[test]
    fn an_element_that_is_left_out_hides_no_key_of_its_kid() {
        let key = TestKey::p256();
        let mut encryption = TestKey::p256().jwk("k");
        encryption.insert("use".into(), json!("enc"));
        for keys in [json!([encryption, key.jwk("k")]), json!([key.jwk("k"), encryption])] {
            let set = parse(&json!({"keys": keys})).unwrap();
            assert_eq!(set.key("k").map(Jwk::key), Some(&key.public()), "{keys}");
            assert_eq!(set.ignored().len(), 1);
        }
    }

    #[test]
    fn a_set_with_a_weak_or_broken_key_is_refused_whole() {
        let key = TestKey::p256();
        let with = |name: &str, value: Value| {
            let mut jwk = key.jwk("k");
            jwk.insert(name.into(), value);
            Value::Object(jwk)
        };
        for (element, reason) in [
            (json!({"kty": "RSA", "kid": "k", "n": "AQAB", "e": "AQAB"}), InvalidKey::RsaModulus),
            (with("crv", json!("P-384")), InvalidKey::Malformed),
            (with("x", json!("AA")), InvalidKey::Malformed),
            (with("y", with("y", json!(""))["x"].clone()), InvalidKey::Malformed),
            (with("x5c", json!([])), InvalidKey::Certificate),
        ] {
            let refused = parse(&json!({"keys": [key.jwk("good"), element]}));
            assert_eq!(refused, Err(InvalidJwkSet::Key(1, reason)), "{element}");
        }
    }
}
