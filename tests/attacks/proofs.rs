//! Proofs of a key that are shown with a good token, and prove none.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_testkit::x509::Key;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::forge::Forge;
use crate::shown::{Case, showing};
use crate::tokens::{CREATE, sign};
use crate::world::now;

/// A good token with whatever proof.
fn proof(tokens: &Forge<'_>, what: &str, header: &Value, claims: &Value, recorded: &'static str) -> Case {
    let good = tokens.signed(&tokens.claims());
    let mut claims = claims.clone();
    if claims.get("ath").is_none() {
        let hash = digest(&SHA256, good.as_bytes());
        claims["ath"] = json!(URL_SAFE_NO_PAD.encode(hash));
    }
    let proof = sign(&tokens.issued, &header.to_string(), &claims);
    Case { what: what.to_owned(), headers: showing(&good, &proof), recorded }
}

fn proof_header(tokens: &Forge<'_>) -> Value {
    json!({"alg": "ES384", "typ": "dpop+jwt", "jwk": tokens.issued.jwk()})
}

fn proof_claims(tokens: &Forge<'_>) -> Value {
    let url = tokens.world.endpoints().grpc + CREATE;
    json!({"jti": "j", "htm": "POST", "htu": url, "iat": now().seconds()})
}

pub(crate) fn edwards_keys(tokens: &Forge<'_>) -> Vec<Case> {
    let small_order = URL_SAFE_NO_PAD.encode([0; 32]);
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": small_order});
    ["EdDSA", "Ed25519", "ES256"]
        .map(|name| {
            let recorded = if name == "ES256" { "dpop_key" } else { "dpop_alg" };
            let header = json!({"alg": name, "typ": "dpop+jwt", "jwk": jwk});
            proof(tokens, name, &header, &proof_claims(tokens), recorded)
        })
        .into()
}

pub(crate) fn others(tokens: &Forge<'_>) -> Vec<Case> {
    let (good, claims, at) = (proof_header(tokens), proof_claims(tokens), now().seconds());
    let private = {
        let mut jwk = tokens.issued.jwk();
        jwk.insert("d".to_owned(), json!("AA"));
        json!(jwk)
    };
    let mut cases = Vec::new();
    for (name, value, recorded) in [
        ("alg", json!("HS256"), "dpop_alg"),
        ("alg", json!("none"), "dpop_alg"),
        ("alg", json!("ES256"), "dpop_alg"),
        ("typ", json!("JWT"), "dpop_typ"),
        ("typ", json!("at+jwt"), "dpop_typ"),
        ("kid", json!("k"), "dpop_header"),
        ("crit", json!(["jwk"]), "dpop_header"),
        ("jwk", private, "dpop_key"),
        ("jwk", json!({"kty": "oct", "k": "AA"}), "dpop_key"),
        ("jwk", json!(null), "dpop_key"),
        ("jwk", json!(Key::p384().jwk()), "dpop_signature"),
    ] {
        let mut header = good.clone();
        header[name] = value;
        cases.push(proof(tokens, &format!("{name} {}", header[name]), &header, &claims, recorded));
    }
    for (name, value, recorded) in [
        ("htm", json!("GET"), "dpop_htm"),
        ("htm", json!("post"), "dpop_htm"),
        ("htu", json!("https://broker.dev.example/brevet.v1.TaskService/CreateTask"), "dpop_htu"),
        ("htu", json!(format!("{}?", claims["htu"].as_str().unwrap())), "dpop_htu"),
        ("htu", json!(claims["htu"].as_str().unwrap().replace("Create", "Get")), "dpop_htu"),
        ("ath", json!("x"), "dpop_ath"),
        ("ath", json!(null), "dpop_ath"),
        ("iat", json!(at - 62), "dpop_iat"),
        ("iat", json!(at + 30), "dpop_iat"),
        ("iat", json!(u64::MAX), "dpop_iat"),
        ("iat", json!(-1), "dpop_malformed"),
        ("nonce", json!("n"), "dpop_nonce"),
        ("jti", json!(""), "dpop_jti"),
        ("jti", json!("j".repeat(200)), "dpop_jti"),
        ("jti", json!("a\nb"), "dpop_jti"),
        ("exp", json!(at + 60), "dpop_malformed"),
    ] {
        let mut claims = claims.clone();
        claims[name] = value;
        cases.push(proof(tokens, &format!("{name} {}", claims[name]), &good, &claims, recorded));
    }
    cases
}
