//! DPoP proofs (RFC 9449).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{AT, Suite, compact, named, with};
use crate::x509::Key;

const URL: &str = "https://broker.example/brevet.v1.CredentialService/IssueCredential";
const TOKEN: &str = "header.payload.signature";

pub(super) fn add(suite: &mut Suite) {
    let claims = json!({"jti": "j", "htm": "POST", "htu": URL, "iat": AT.seconds()});
    headers(suite, &claims);
    claims_of(suite, &claims);
    targets(suite, &claims);
}

fn header(key: &Key, algorithm: &str) -> Value {
    json!({"alg": algorithm, "typ": "dpop+jwt", "jwk": key.jwk()})
}

fn body(proof: &str) -> Value {
    json!({"proof": proof, "method": "POST", "url": URL, "at": AT.to_string()})
}

fn headers(suite: &mut Suite, claims: &Value) {
    let claims = claims.to_string();
    let p256 = header(&suite.p256, "ES256");
    let private = with(&p256["jwk"], "d", Some(json!("AA")));
    let encryption = json!(named(&suite.p256, "k", &[("use", "enc")]));
    let cases: Vec<(&str, Value, Result<(), &'static str>)> = vec![
        ("good-ES256", p256.clone(), Ok(())),
        ("alg-none", with(&p256, "alg", Some(json!("none"))), Err("dpop_alg")),
        ("alg-HS256", with(&p256, "alg", Some(json!("HS256"))), Err("dpop_alg")),
        ("alg-ES384", with(&p256, "alg", Some(json!("ES384"))), Err("dpop_alg")),
        ("alg-absent", with(&p256, "alg", None), Err("dpop_alg")),
        ("typ-absent", with(&p256, "typ", None), Err("dpop_typ")),
        ("typ-JWT", with(&p256, "typ", Some(json!("JWT"))), Err("dpop_typ")),
        ("typ-at+jwt", with(&p256, "typ", Some(json!("at+jwt"))), Err("dpop_typ")),
        ("kid", with(&p256, "kid", Some(json!("k"))), Err("dpop_header")),
        ("jku", with(&p256, "jku", Some(json!("https://a.example"))), Err("dpop_header")),
        ("x5c", with(&p256, "x5c", Some(json!([]))), Err("dpop_header")),
        ("crit", with(&p256, "crit", Some(json!(["jwk"]))), Err("dpop_header")),
        ("jwk-absent", with(&p256, "jwk", None), Err("dpop_key")),
        ("jwk-text", with(&p256, "jwk", Some(json!("k"))), Err("dpop_key")),
        ("jwk-empty", with(&p256, "jwk", Some(json!({}))), Err("dpop_key")),
        ("jwk-private", with(&p256, "jwk", Some(private)), Err("dpop_key")),
        ("jwk-symmetric", with(&p256, "jwk", Some(json!({"kty": "oct", "k": "AA"}))), Err("dpop_key")),
        ("jwk-for-encryption", with(&p256, "jwk", Some(encryption)), Err("dpop_key")),
        ("jwk-foreign", with(&p256, "jwk", Some(json!(suite.other.jwk()))), Err("dpop_signature")),
    ];
    for (what, header, expected) in cases {
        let proof = compact(&suite.p256, "ES256", &header.to_string(), &claims);
        suite.push(format!("dpop/header/{what}"), "dpop", body(&proof), expected);
    }
    let proof = compact(&suite.p384, "ES384", &header(&suite.p384, "ES384").to_string(), &claims);
    suite.push("dpop/header/good-ES384".into(), "dpop", body(&proof), Ok(()));
    let proof = compact(&suite.rsa, "RS256", &header(&suite.rsa, "RS256").to_string(), &claims);
    suite.push("dpop/header/RS256".into(), "dpop", body(&proof), Err("dpop_key"));
    suite.push("dpop/header/empty".into(), "dpop", body(""), Err("dpop_malformed"));
}

fn claims_of(suite: &mut Suite, good: &Value) {
    let now = AT.seconds();
    let header = header(&suite.p256, "ES256").to_string();
    let cases: Vec<(&str, &str, Option<Value>, Result<(), &'static str>)> = vec![
        ("htm", "absent", None, Err("dpop_malformed")),
        ("htm", "GET", Some(json!("GET")), Err("dpop_htm")),
        ("htm", "lower-case", Some(json!("post")), Err("dpop_htm")),
        ("htu", "absent", None, Err("dpop_malformed")),
        ("htu", "slash", Some(json!(format!("{URL}/"))), Err("dpop_htu")),
        ("htu", "query", Some(json!(format!("{URL}?a"))), Err("dpop_htu")),
        ("htu", "http", Some(json!(URL.replace("https", "http"))), Err("dpop_htu")),
        ("htu", "upper-case", Some(json!(URL.replace("broker", "BROKER"))), Err("dpop_htu")),
        ("htu", "other-method", Some(json!(URL.replace("Issue", "Renew"))), Err("dpop_htu")),
        ("iat", "absent", None, Err("dpop_malformed")),
        ("iat", "text", Some(json!("now")), Err("dpop_malformed")),
        ("iat", "fraction", Some(json!(now as f64 + 0.5)), Err("dpop_malformed")),
        ("iat", "a-minute-ago", Some(json!(now - 60)), Ok(())),
        ("iat", "stale", Some(json!(now - 61)), Err("dpop_iat")),
        ("iat", "a-little-ahead", Some(json!(now + 5)), Ok(())),
        ("iat", "ahead", Some(json!(now + 6)), Err("dpop_iat")),
        ("iat", "2-to-the-64", Some(json!(u64::MAX)), Err("dpop_iat")),
        ("jti", "absent", None, Err("dpop_malformed")),
        ("jti", "empty", Some(json!("")), Err("dpop_jti")),
        ("jti", "long", Some(json!("j".repeat(129))), Err("dpop_jti")),
        ("jti", "newline", Some(json!("a\nb")), Err("dpop_jti")),
        ("jti", "number", Some(json!(1)), Err("dpop_malformed")),
        ("ath", "unasked", Some(json!("x")), Err("dpop_ath")),
        ("nonce", "unasked", Some(json!("n")), Err("dpop_nonce")),
        ("exp", "unknown", Some(json!(now + 60)), Err("dpop_malformed")),
    ];
    for (name, what, value, expected) in cases {
        let claims = with(good, name, value).to_string();
        let proof = compact(&suite.p256, "ES256", &header, &claims);
        suite.push(format!("dpop/claims/{name}-{what}"), "dpop", body(&proof), expected);
    }
    let twice = good.to_string().replacen('{', "{\"jti\":\"a\",", 1);
    let proof = compact(&suite.p256, "ES256", &header, &twice);
    suite.push("dpop/claims/json-twice".into(), "dpop", body(&proof), Err("dpop_malformed"));
}

/// The access token, the nonce and the key that a proof must be for.
fn targets(suite: &mut Suite, good: &Value) {
    let header = header(&suite.p256, "ES256").to_string();
    let hash = |text: &str| URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()));
    let jkt = |key: &Key| {
        let jwk = key.jwk();
        hash(&format!(r#"{{"crv":{},"kty":"EC","x":{},"y":{}}}"#, jwk["crv"], jwk["x"], jwk["y"]))
    };
    let bound = with(good, "ath", Some(json!(hash(TOKEN))));
    let other = with(good, "ath", Some(json!(hash("another"))));
    let nonced = with(good, "nonce", Some(json!("n")));
    let (own, foreign) = (jkt(&suite.p256), jkt(&suite.other));
    for (what, claims, name, value, expected) in [
        ("token-good", &bound, "token", TOKEN, Ok(())),
        ("token-other", &other, "token", TOKEN, Err("dpop_ath")),
        ("token-none", good, "token", TOKEN, Err("dpop_ath")),
        ("nonce-good", &nonced, "nonce", "n", Ok(())),
        ("nonce-old", &nonced, "nonce", "m", Err("dpop_nonce")),
        ("nonce-none", good, "nonce", "n", Err("dpop_nonce")),
        ("key-good", good, "jkt", &own, Ok(())),
        ("key-other", good, "jkt", &foreign, Err("dpop_jkt")),
    ] {
        let proof = compact(&suite.p256, "ES256", &header, &claims.to_string());
        let body = with(&body(&proof), name, Some(json!(value)));
        suite.push(format!("dpop/target/{what}"), "dpop", body, expected);
    }
}
