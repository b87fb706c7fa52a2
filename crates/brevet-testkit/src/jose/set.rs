//! JWK Sets, and what becomes of tokens under sets that are not to be trusted.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{Suite, compact, good_claims, good_header, named};
use crate::x509::{Key, Spec};

pub(super) fn add(suite: &mut Suite) {
    let (p256, p384, rsa) =
        (named(&suite.p256, "a", &[]), named(&suite.p384, "b", &[]), named(&suite.rsa, "c", &[]));
    let with = |jwk: &Map<String, Value>, name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk.insert(name.to_owned(), value);
        jwk
    };
    let bytes = |bytes: &[u8]| json!(URL_SAFE_NO_PAD.encode(bytes));
    let modulus = |length: usize, last: u8| {
        let mut modulus = vec![0x80; length];
        *modulus.last_mut().unwrap() = last;
        bytes(&modulus)
    };
    let certificate = |of: &Key| json!([STANDARD.encode(Spec::authority("a", "a", of).sign(of))]);
    let many: Vec<_> = (0..65).map(|n: u32| with(&p256, "kid", json!(n.to_string()))).collect();
    let cases: Vec<(&str, Value, Result<(), &'static str>)> = vec![
        ("good", json!([p256, p384, rsa]), Ok(())),
        ("empty", json!([]), Ok(())),
        ("with-certificate", json!([with(&p256, "x5c", certificate(&suite.p256))]), Ok(())),
        ("unknown-members", json!([with(&p256, "x5u", json!("https://a.example"))]), Ok(())),
        ("for-encryption", json!([p384, with(&rsa, "use", json!("enc"))]), Ok(())),
        ("of-another-curve", json!([p384, with(&p256, "crv", json!("P-521"))]), Ok(())),
        ("of-another-type", json!([{"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": "AA"}]), Ok(())),
        ("nameless", json!([suite.p256.jwk()]), Ok(())),
        ("symmetric", json!([{"kty": "oct", "kid": "o", "k": "AA"}]), Err("key_unacceptable")),
        ("mixed", json!([rsa, {"kty": "oct", "kid": "o", "k": "AA"}]), Err("key_unacceptable")),
        ("private", json!([with(&p256, "d", json!("AA"))]), Err("key_unacceptable")),
        ("private-rsa", json!([with(&rsa, "qi", json!("AA"))]), Err("key_unacceptable")),
        ("duplicate-kid", json!([p256, with(&p384, "kid", json!("a"))]), Err("kid_duplicate")),
        ("off-the-curve", json!([with(&p256, "y", bytes(&[1; 32]))]), Err("key_unacceptable")),
        ("short-point", json!([with(&p256, "x", bytes(&[1; 31]))]), Err("key_unacceptable")),
        ("padded-point", json!([with(&p256, "x", json!("AA=="))]), Err("key_unacceptable")),
        (
            "other-certificate",
            json!([with(&p256, "x5c", certificate(&suite.other))]),
            Err("key_unacceptable"),
        ),
        ("broken-certificate", json!([with(&p256, "x5c", json!(["AA"]))]), Err("key_unacceptable")),
        ("rsa-1024", json!([with(&rsa, "n", modulus(128, 1))]), Err("key_unacceptable")),
        ("rsa-2040", json!([with(&rsa, "n", modulus(255, 1))]), Err("key_unacceptable")),
        ("rsa-16384", json!([with(&rsa, "n", modulus(2048, 1))]), Err("key_unacceptable")),
        ("rsa-even", json!([with(&rsa, "n", modulus(256, 2))]), Err("key_unacceptable")),
        ("rsa-e-1", json!([with(&rsa, "e", json!("AQ"))]), Err("key_unacceptable")),
        ("rsa-e-3", json!([with(&rsa, "e", json!("Aw"))]), Err("key_unacceptable")),
        ("rsa-e-even", json!([with(&rsa, "e", json!("AQAC"))]), Err("key_unacceptable")),
        ("too-many", json!(many), Err("jwks_size")),
        ("not-objects", json!([1]), Err("jwks_malformed")),
        ("not-a-list", json!({"a": p256}), Err("jwks_malformed")),
    ];
    let token = compact(&suite.p256, "ES256", &good_header("jws").replace("\"k\"", "\"a\""), "{}");
    for (what, keys, expected) in cases {
        let body = json!({"jwks": {"keys": keys}});
        suite.push(format!("jwks/set/{what}"), "jwks", body.clone(), expected);
        // Whatever the token, a set that is refused verifies nothing.
        if let Err(reason) = expected {
            let body = json!({"jwks": body["jwks"], "token": token});
            suite.push(format!("jws/set/{what}"), "jws", body, Err(reason));
        }
    }
    suite.push("jwks/set/no-keys".into(), "jwks", json!({"jwks": {}}), Err("jwks_malformed"));
    suite.push("jwks/set/a-list".into(), "jwks", json!({"jwks": []}), Err("jwks_malformed"));
    let token = compact(&suite.p256, "ES256", &good_header("jwt-svid"), &good_claims("jwt-svid").to_string());
    let mut body = suite.body("jwt-svid", &token);
    body["bundles"]["td.example"]["keys"][5]["d"] = json!("AA");
    suite.push("jwt-svid/set/private".into(), "jwt-svid", body, Err("key_unacceptable"));
}
