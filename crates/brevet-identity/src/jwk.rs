//! A public JWK (RFC 7517 §4): a key, and the one algorithm that its owner says it signs with.
//!
//! What a JWK says besides is passed over, as the standard asks, and nothing that it points to is fetched. What says
//! that the key is for something else is believed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::key::{Algorithm, InvalidKey, PublicKey};

/// What the keys of a set are for, as their `use` says it (RFC 7517 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// Signatures: `sig`, or nothing said.
    Signature,
    /// JWT-SVIDs (JWT-SVID §6.1): exactly `jwt-svid`.
    JwtSvid,
}

impl KeyUse {
    fn admits(self, stated: Option<&Value>) -> bool {
        match self {
            Self::Signature => stated.is_none_or(|stated| stated == "sig"),
            Self::JwtSvid => stated.is_some_and(|stated| stated == "jwt-svid"),
        }
    }
}

/// A key that verifies signatures of one algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    key: PublicKey,
    /// None where an RSA key's owner says nothing.
    stated: Option<Algorithm>,
}

impl Jwk {
    /// Reads the members of a JWK.
    ///
    /// # Errors
    /// [`InvalidKey`] if it is private, for something else, not of an accepted kind, or weak.
    pub fn parse(members: &Map<String, Value>, usage: KeyUse) -> Result<Self, InvalidKey> {
        // 1. It has nothing that its owner alone may have.
        if members.keys().any(|name| is_private_member(name)) {
            return Err(InvalidKey::NotPublic);
        }
        // 2. It is for this.
        let verifies = |operations: &Value| *operations == json!(["verify"]);
        if !usage.admits(members.get("use")) || !members.get("key_ops").is_none_or(verifies) {
            return Err(InvalidKey::Purpose);
        }
        if members.get("kid").is_some_and(|kid| !kid.is_string()) {
            return Err(InvalidKey::Malformed);
        }
        // 3. The key itself.
        let key = PublicKey::from_jwk_members(members)?;
        // 4. An algorithm that such a key signs with.
        let stated = match members.get("alg") {
            None => None,
            Some(name) => {
                let algorithm = name.as_str().and_then(Algorithm::from_name);
                Some(algorithm.filter(|it| key.signs_with(*it)).ok_or(InvalidKey::Purpose)?)
            }
        };
        // 5. A certificate of this key, if there is one.
        if members.get("x5c").is_some_and(|chain| certified(chain).as_ref() != Some(&key)) {
            return Err(InvalidKey::Certificate);
        }
        Ok(Self { key, stated })
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The one algorithm that it verifies: the curve's, or what its owner says. Whoever publishes an RSA key and says
    /// nothing means RS256.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.stated.or(self.key.algorithm()).unwrap_or(Algorithm::Rs256)
    }

    /// Whether `signature` is this key's over `message`, by its one algorithm.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verifies(self.algorithm(), message, signature)
    }

    /// Whether the standards alone would let it verify an algorithm: with RSA and nothing said, each of its kind.
    #[must_use]
    pub fn could_verify(&self, algorithm: Algorithm) -> bool {
        self.stated.is_none_or(|stated| stated == algorithm) && self.key.signs_with(algorithm)
    }
}

/// Whether a JWK with this member holds a private or a symmetric key (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
pub(crate) fn is_private_member(name: &str) -> bool {
    matches!(name, "d" | "p" | "q" | "dp" | "dq" | "qi" | "oth" | "k" | "priv")
}

/// The key of the first certificate of an `x5c` (RFC 7517 §4.7).
fn certified(chain: &Value) -> Option<PublicKey> {
    let der = STANDARD.decode(chain.as_array()?.first()?.as_str()?).ok()?;
    PublicKey::from_certificate(&der).ok()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use brevet_testkit::x509;

    use super::*;
    use crate::test_keys::TestKey;

    fn rsa(bytes: usize) -> Map<String, Value> {
        let modulus = [&vec![0x80; bytes - 1][..], &[1]].concat();
        let members = json!({"kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(modulus)});
        members.as_object().unwrap().clone()
    }

    fn with(jwk: &Map<String, Value>, name: &str, value: Value) -> Map<String, Value> {
        let mut jwk = jwk.clone();
        jwk.insert(name.into(), value);
        jwk
    }

    #[test]
    fn an_elliptic_key_is_the_same_from_its_spki_and_its_jwk() {
        for key in [TestKey::p256(), TestKey::p384()] {
            let public = PublicKey::from_spki(&key.spki()).unwrap();
            let jwk = Jwk::parse(&public.to_jwk(), KeyUse::Signature).unwrap();
            assert_eq!((jwk.key(), Some(jwk.algorithm())), (&public, public.algorithm()));
            assert!(jwk.key().is_on_its_curve());
        }
    }

    #[test]
    fn a_jwk_says_what_it_is_for_and_is_believed() {
        let good = TestKey::p256().public().to_jwk();
        for (name, value) in [
            ("kid", json!("k")),
            ("alg", json!("ES256")),
            ("use", json!("sig")),
            ("key_ops", json!(["verify"])),
            ("x5u", json!("https://elsewhere.example")),
            ("issuer", json!("https://issuer.example")),
        ] {
            assert!(Jwk::parse(&with(&good, name, value), KeyUse::Signature).is_ok(), "{name}");
        }
        let x = good["x"].as_str().unwrap();
        for (name, value, expected) in [
            ("d", json!("AA"), InvalidKey::NotPublic),
            ("k", json!("AA"), InvalidKey::NotPublic),
            ("kty", json!("RSA"), InvalidKey::Malformed),
            ("kty", json!("oct"), InvalidKey::Algorithm),
            ("kty", json!("ec"), InvalidKey::Algorithm),
            ("kty", json!(1), InvalidKey::Algorithm),
            ("crv", json!("p-256"), InvalidKey::Algorithm),
            ("crv", json!("P-521"), InvalidKey::Algorithm),
            ("crv", json!("secp256k1"), InvalidKey::Algorithm),
            ("crv", json!("P-384"), InvalidKey::Malformed),
            ("x", json!(format!("{x}=")), InvalidKey::Malformed),
            ("x", json!(x.get(..40)), InvalidKey::Malformed),
            ("x", json!(format!("AA{x}")), InvalidKey::Malformed),
            ("y", json!(null), InvalidKey::Malformed),
            ("kid", json!(1), InvalidKey::Malformed),
            ("alg", json!("HS256"), InvalidKey::Purpose),
            ("alg", json!("ES384"), InvalidKey::Purpose),
            ("alg", json!("ECDH-ES"), InvalidKey::Purpose),
            ("alg", json!(256), InvalidKey::Purpose),
            ("use", json!("enc"), InvalidKey::Purpose),
            ("use", json!("SIG"), InvalidKey::Purpose),
            ("use", json!("jwt-svid"), InvalidKey::Purpose),
            ("key_ops", json!(["sign", "verify"]), InvalidKey::Purpose),
            ("key_ops", json!(["encrypt"]), InvalidKey::Purpose),
            ("key_ops", json!([]), InvalidKey::Purpose),
            ("x5c", json!([]), InvalidKey::Certificate),
            ("x5c", json!(["AA"]), InvalidKey::Certificate),
        ] {
            let verdict = Jwk::parse(&with(&good, name, value.clone()), KeyUse::Signature);
            assert_eq!(verdict, Err(expected), "{name}: {value}");
        }
    }

    #[test]
    fn a_bundle_s_key_says_that_it_is_for_jwt_svids() {
        let key = TestKey::p256().public().to_jwk();
        assert!(Jwk::parse(&with(&key, "use", json!("jwt-svid")), KeyUse::JwtSvid).is_ok());
        for other in ["x509-svid", "wit-svid", "sig", "JWT-SVID"] {
            assert_eq!(
                Jwk::parse(&with(&key, "use", json!(other)), KeyUse::JwtSvid),
                Err(InvalidKey::Purpose)
            );
        }
        assert_eq!(Jwk::parse(&key, KeyUse::JwtSvid), Err(InvalidKey::Purpose));
    }

    #[test]
    fn an_rsa_key_has_one_algorithm_and_enough_bits() {
        let silent = Jwk::parse(&rsa(256), KeyUse::Signature).unwrap();
        assert_eq!(silent.algorithm(), Algorithm::Rs256);
        assert!(silent.could_verify(Algorithm::Ps512));
        assert!(!silent.could_verify(Algorithm::Es256));
        let stated = Jwk::parse(&with(&rsa(256), "alg", json!("PS256")), KeyUse::Signature).unwrap();
        assert_eq!(stated.algorithm(), Algorithm::Ps256);
        assert!(!stated.could_verify(Algorithm::Rs256));
        for (bytes, expected) in [
            (128, Err(InvalidKey::RsaModulus)),
            (255, Err(InvalidKey::RsaModulus)),
            (1024, Ok(())),
            (1025, Err(InvalidKey::RsaModulus)),
            (2048, Err(InvalidKey::RsaModulus)),
        ] {
            assert_eq!(Jwk::parse(&rsa(bytes), KeyUse::Signature).map(|_| ()), expected, "{bytes}");
        }
        for (name, value, expected) in [
            ("alg", json!("ES256"), InvalidKey::Purpose),
            ("alg", json!("RSA-OAEP"), InvalidKey::Purpose),
            // 1, 3, an even one, 65,537 with a leading zero, and one of more than 64 bits.
            ("e", json!("AQ"), InvalidKey::RsaExponent),
            ("e", json!("Aw"), InvalidKey::RsaExponent),
            ("e", json!("AQAC"), InvalidKey::RsaExponent),
            ("e", json!("AAEAAQ"), InvalidKey::RsaExponent),
            ("e", json!("AQEBAQEBAQEB"), InvalidKey::RsaExponent),
            ("e", json!(""), InvalidKey::RsaExponent),
            ("n", json!(""), InvalidKey::RsaModulus),
        ] {
            let verdict = Jwk::parse(&with(&rsa(256), name, value.clone()), KeyUse::Signature);
            assert_eq!(verdict, Err(expected), "{name}: {value}");
        }
        let even = URL_SAFE_NO_PAD.encode([0x80; 256]);
        let verdict = Jwk::parse(&with(&rsa(256), "n", json!(even)), KeyUse::Signature);
        assert_eq!(verdict, Err(InvalidKey::RsaModulus));
    }

    #[test]
    fn a_certificate_that_comes_along_has_the_same_key() {
        let (key, other) = (x509::Key::p256(), x509::Key::p256());
        let jwk = PublicKey::from_spki(&key.spki()).unwrap().to_jwk();
        let chain = |of: &x509::Key| json!([STANDARD.encode(x509::Spec::authority("a", "a", of).sign(of))]);
        let parse = |x5c| Jwk::parse(&with(&jwk, "x5c", x5c), KeyUse::Signature);
        assert!(parse(chain(&key)).is_ok());
        assert_eq!(parse(chain(&other)), Err(InvalidKey::Certificate));
        assert_eq!(parse(json!("text")), Err(InvalidKey::Certificate));
    }

    #[test]
    fn a_point_off_the_curve_verifies_nothing() {
        let key = TestKey::p256();
        let off = with(&key.public().to_jwk(), "y", json!(URL_SAFE_NO_PAD.encode([1; 32])));
        let off = Jwk::parse(&off, KeyUse::Signature).unwrap();
        assert!(!off.key().is_on_its_curve());
        assert!(!off.key().verifies(Algorithm::Es256, b"message", &key.sign(b"message")));
    }
}
