//! DPoP proofs (RFC 9449): possession of a key other than the connection's, shown for one request.
//!
//! A proof is judged by itself here. Whether its `jti` was seen before is for the caller to remember, for as long
//! as [`Limits::age_max`] and [`Limits::skew_max`] let the same proof pass.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::digest::Thumbprint;
use brevet_core::time::Timestamp;
use serde::Deserialize;
use thiserror::Error;

use crate::json;
use crate::jws::{HeaderProfile, Jws, JwsError, KeyReference, TokenType};
use crate::key::sha256;

/// The longest `jti` in bytes.
pub const JTI_BYTES_MAX: usize = 128;

/// The headers of a proof (RFC 9449 §4.2).
pub const PROFILE: HeaderProfile =
    HeaderProfile { token_type: TokenType::Exactly("dpop+jwt"), key: KeyReference::Embedded, unread: &[] };

/// Why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DpopError {
    /// It is not a signed proof by the key that it holds.
    #[error("not a signed proof")]
    Jws(#[from] JwsError),
    /// Its claims are not exactly those of RFC 9449 §4.2.
    #[error("the claims of the proof are malformed")]
    Claims,
    /// It was made for another method.
    #[error("the proof is for another method")]
    Method,
    /// It was made for another URL.
    #[error("the proof is for another url")]
    Url,
    /// It was made for another access token, for none, or for one where there is none.
    #[error("the proof is for another access token")]
    AccessToken,
    /// It has another nonce than the server's, none, or one where the server gave none.
    #[error("the nonce is not the server's")]
    Nonce,
    /// It is too old, or from the future.
    #[error("the proof was not made just now")]
    Time,
    /// Its `jti` is empty, too long, or not printable ASCII.
    #[error("the jti is not acceptable")]
    Jti,
}

impl DpopError {
    /// A stable name for the audit. A client never sees it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Jws(JwsError::Malformed) | Self::Claims => "dpop_malformed",
            Self::Jws(JwsError::Algorithm | JwsError::AlgorithmMismatch) => "dpop_alg",
            Self::Jws(JwsError::Type) => "dpop_typ",
            Self::Jws(JwsError::Header | JwsError::Critical) => "dpop_header",
            Self::Jws(JwsError::Key(_) | JwsError::KeyUnknown) => "dpop_key",
            Self::Jws(JwsError::Signature) => "dpop_signature",
            Self::Method => "dpop_htm",
            Self::Url => "dpop_htu",
            Self::AccessToken => "dpop_ath",
            Self::Nonce => "dpop_nonce",
            Self::Time => "dpop_iat",
            Self::Jti => "dpop_jti",
        }
    }
}

/// The request that a proof must have been made for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The HTTP method, compared byte for byte.
    pub method: &'a str,
    /// The URL without query and fragment, compared byte for byte.
    pub url: &'a str,
    /// The access token that comes with the proof.
    pub access_token: Option<&'a str>,
    /// The nonce that the server gave.
    pub nonce: Option<&'a str>,
}

/// How far a proof's time may be from the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The greatest age.
    pub age_max: Duration,
    /// How far ahead the client's clock may be.
    pub skew_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { age_max: Duration::from_secs(60), skew_max: Duration::from_secs(5) }
    }
}

/// A proof that holds for its target, if it was not seen before.
#[derive(Debug, PartialEq, Eq)]
pub struct DpopProof {
    /// The key that was proven.
    pub thumbprint: Thumbprint,
    /// What the client named the proof.
    pub jti: String,
    /// When the client says it made it.
    pub issued_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    iat: u64,
    #[serde(default)]
    ath: Option<String>,
    #[serde(default)]
    nonce: Option<String>,
}

/// Verifies a proof for one request at `now` (RFC 9449 §4.3, but for the memory of `jti`).
///
/// # Errors
/// [`DpopError`] names the first check that failed.
pub fn verify(
    proof: &str,
    target: &Target<'_>,
    now: Timestamp,
    limits: Limits,
) -> Result<DpopProof, DpopError> {
    let (key, payload) = Jws::parse(proof, PROFILE)?.verify_embedded()?;
    let claims = json::parse(&payload).map_err(|_| DpopError::Claims)?;
    let claims: Claims = serde_json::from_value(claims).map_err(|_| DpopError::Claims)?;
    if claims.htm != target.method {
        return Err(DpopError::Method);
    }
    if claims.htu != target.url {
        return Err(DpopError::Url);
    }
    let hash = target.access_token.map(|token| URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())));
    if claims.ath != hash {
        return Err(DpopError::AccessToken);
    }
    if claims.nonce.as_deref() != target.nonce {
        return Err(DpopError::Nonce);
    }
    let issued_at = Timestamp::from_seconds(claims.iat);
    if now.since(issued_at) > limits.age_max || issued_at.since(now) > limits.skew_max {
        return Err(DpopError::Time);
    }
    if !(1..=JTI_BYTES_MAX).contains(&claims.jti.len()) || !claims.jti.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(DpopError::Jti);
    }
    Ok(DpopProof { thumbprint: key.thumbprint(), jti: claims.jti, issued_at })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::test_keys::TestKey;

    const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
    const TOKEN: &str = "header.payload.signature";
    const TARGET: Target<'_> =
        Target { method: "POST", url: "https://broker.example/a", access_token: None, nonce: None };

    fn claims() -> Value {
        json!({"jti": "j", "htm": "POST", "htu": "https://broker.example/a", "iat": NOW.seconds()})
    }

    fn proof(key: &TestKey, claims: &Value) -> String {
        let header = json!({"alg": key.alg(), "typ": "dpop+jwt", "jwk": key.public().to_jwk()});
        key.jws(&header.to_string(), &claims.to_string())
    }

    #[test]
    fn a_good_proof_names_its_key() {
        for key in [TestKey::p256(), TestKey::p384()] {
            let proven = verify(&proof(&key, &claims()), &TARGET, NOW, Limits::default()).unwrap();
            assert_eq!(proven.thumbprint, key.public().thumbprint());
            assert_eq!((proven.jti.as_str(), proven.issued_at), ("j", NOW));
        }
        let mut bound = claims();
        bound["ath"] = json!(URL_SAFE_NO_PAD.encode(sha256(TOKEN.as_bytes())));
        bound["nonce"] = json!("n");
        let target = Target { access_token: Some(TOKEN), nonce: Some("n"), ..TARGET };
        assert!(verify(&proof(&TestKey::p256(), &bound), &target, NOW, Limits::default()).is_ok());
    }

    #[test]
    fn a_proof_for_anything_else_is_refused_with_its_reason() {
        let key = TestKey::p256();
        let now = NOW.seconds();
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            claims
        };
        let without = |name: &str| {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            claims
        };
        for (claims, reason) in [
            (with("htm", json!("GET")), "dpop_htm"),
            (with("htm", json!("post")), "dpop_htm"),
            (with("htu", json!("https://broker.example/a/")), "dpop_htu"),
            (with("htu", json!("https://BROKER.example/a")), "dpop_htu"),
            (with("htu", json!("https://broker.example/a?q")), "dpop_htu"),
            (with("htu", json!("http://broker.example/a")), "dpop_htu"),
            (with("ath", json!("x")), "dpop_ath"),
            (with("nonce", json!("n")), "dpop_nonce"),
            (with("iat", json!(now - 61)), "dpop_iat"),
            (with("iat", json!(now + 6)), "dpop_iat"),
            (with("iat", json!(0)), "dpop_iat"),
            (with("iat", json!(u64::MAX)), "dpop_iat"),
            (with("iat", json!(-1)), "dpop_malformed"),
            (with("iat", json!(now as f64 + 0.5)), "dpop_malformed"),
            (with("iat", json!(now.to_string())), "dpop_malformed"),
            (with("jti", json!("")), "dpop_jti"),
            (with("jti", json!("j".repeat(129))), "dpop_jti"),
            (with("jti", json!("a\nb")), "dpop_jti"),
            (with("jti", json!("\u{202e}")), "dpop_jti"),
            (with("jti", json!(1)), "dpop_malformed"),
            (with("exp", json!(now)), "dpop_malformed"),
            (without("jti"), "dpop_malformed"),
            (without("htm"), "dpop_malformed"),
            (without("htu"), "dpop_malformed"),
            (without("iat"), "dpop_malformed"),
            (json!([]), "dpop_malformed"),
        ] {
            let verdict = verify(&proof(&key, &claims), &TARGET, NOW, Limits::default());
            assert_eq!(verdict.map_err(DpopError::reason), Err(reason), "{claims}");
        }
        for (age, skew) in [(60, 0), (0, 5)] {
            let claims = with("iat", json!(now - age + skew));
            assert!(verify(&proof(&key, &claims), &TARGET, NOW, Limits::default()).is_ok(), "{claims}");
        }
        let bound = Target { access_token: Some(TOKEN), ..TARGET };
        let nonced = Target { nonce: Some("new"), ..TARGET };
        for (claims, target, reason) in [
            (claims(), &bound, "dpop_ath"),
            (with("ath", json!(URL_SAFE_NO_PAD.encode(sha256(b"another")))), &bound, "dpop_ath"),
            (claims(), &nonced, "dpop_nonce"),
            (with("nonce", json!("old")), &nonced, "dpop_nonce"),
        ] {
            let verdict = verify(&proof(&key, &claims), target, NOW, Limits::default());
            assert_eq!(verdict.map_err(DpopError::reason), Err(reason), "{claims}");
        }
    }

    #[test]
    fn a_proof_with_another_header_is_refused_with_its_reason() {
        let (key, other) = (TestKey::p256(), TestKey::p256());
        let jwk = Value::Object(key.public().to_jwk());
        let mut private = jwk.clone();
        private["d"] = json!("AA");
        for (header, reason) in [
            (json!({"alg": "HS256", "typ": "dpop+jwt", "jwk": jwk}), "dpop_alg"),
            (json!({"alg": "none", "typ": "dpop+jwt", "jwk": jwk}), "dpop_alg"),
            (json!({"alg": "ES384", "typ": "dpop+jwt", "jwk": jwk}), "dpop_alg"),
            (json!({"alg": "ES256", "typ": "JWT", "jwk": jwk}), "dpop_typ"),
            (json!({"alg": "ES256", "jwk": jwk}), "dpop_typ"),
            (json!({"alg": "ES256", "typ": "dpop+jwt", "kid": "k"}), "dpop_header"),
            (json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk, "crit": ["jwk"]}), "dpop_header"),
            (json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": private}), "dpop_key"),
            (json!({"alg": "ES256", "typ": "dpop+jwt"}), "dpop_key"),
            (json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": other.public().to_jwk()}), "dpop_signature"),
        ] {
            let token = key.jws(&header.to_string(), &claims().to_string());
            let verdict = verify(&token, &TARGET, NOW, Limits::default());
            assert_eq!(verdict.map_err(DpopError::reason), Err(reason), "{header}");
        }
        assert_eq!(
            verify("", &TARGET, NOW, Limits::default()).map_err(DpopError::reason),
            Err("dpop_malformed")
        );
        let twice = claims().to_string().replacen('{', "{\"jti\":\"a\",", 1);
        let header = json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk}).to_string();
        let verdict = verify(&key.jws(&header, &twice), &TARGET, NOW, Limits::default());
        assert_eq!(verdict.map_err(DpopError::reason), Err("dpop_malformed"));
    }
}
