use serde_json::json;

use super::*;
use crate::bearer::Limits;
use crate::test_keys::{TestKey, jwk_set};

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "https://broker.example";
const HEADER: &str = r#"{"alg":"ES256","kid":"k"}"#;

fn claims() -> Value {
    let now = NOW.seconds();
    json!({"iss": ISSUER, "sub": "system:serviceaccount:ns:agent", "aud": [AUDIENCE], "iat": now, "exp": now + 600,
           "kubernetes.io": {"namespace": "ns"}})
}

#[test]
fn a_good_token_names_its_provider_s_subject() {
    let key = TestKey::p256();
    let keys = jwk_set(&[("k", &key)]);
    for header in [HEADER, r#"{"alg":"ES256","kid":"k","typ":"JWT","x5t":"a"}"#] {
        let token = key.jws(header, &claims().to_string());
        assert_eq!(claimed_issuer(&token).unwrap(), ISSUER);
        let verified =
            verify(&token, ISSUER, &keys, AUDIENCE, NOW, Rules::Strict(Limits::default())).unwrap();
        assert_eq!(verified.subject, "system:serviceaccount:ns:agent");
    }
}

#[test]
fn a_token_of_another_issuer_or_for_another_purpose_is_refused() {
    let key = TestKey::p256();
    let keys = jwk_set(&[("k", &key)]);
    let judge = |header: &str, name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        let token = key.jws(header, &claims.to_string());
        verify(&token, ISSUER, &keys, AUDIENCE, NOW, Rules::Strict(Limits::default()))
            .map(|_| ())
            .map_err(BearerError::reason)
    };
    for (name, value, reason) in [
        ("iss", json!("https://issuer.example/"), "iss_mismatch"),
        ("iss", json!("HTTPS://issuer.example"), "iss_mismatch"),
        ("iss", json!("https://issuer.ex\u{430}mple"), "iss_mismatch"),
        ("iss", json!("https://xn--issuer.example"), "iss_mismatch"),
        ("iss", json!([ISSUER]), "iss_mismatch"),
        ("iss", json!(1), "iss_mismatch"),
        ("iss", json!(null), "iss_mismatch"),
        ("sub", json!(""), "sub_mismatch"),
        ("sub", json!("a b"), "sub_mismatch"),
        ("sub", json!("\u{202e}a"), "sub_mismatch"),
        ("sub", json!("a".repeat(256)), "sub_mismatch"),
        ("sub", json!(1), "sub_mismatch"),
        ("aud", json!([AUDIENCE, "https://other.example"]), "aud_mismatch"),
        ("aud", json!("https://other.example"), "aud_mismatch"),
        ("iat", json!(null), "time_invalid"),
        ("exp", json!(NOW.seconds() + 3_601), "time_invalid"),
    ] {
        assert_eq!(judge(HEADER, name, value.clone()), Err(reason), "{name}: {value}");
    }
    for (header, reason) in [
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#, "typ_mismatch"),
        (r#"{"alg":"ES256","kid":"k","typ":"logout+jwt"}"#, "typ_mismatch"),
        (r#"{"alg":"ES256","kid":"k","typ":"JOSE"}"#, "typ_mismatch"),
        (r#"{"alg":"ES256","kid":"k","jku":"https://issuer.example/keys"}"#, "header_forbidden"),
        (r#"{"alg":"ES256"}"#, "kid_unknown"),
        (r#"{"alg":"ES256","kid":"other"}"#, "kid_unknown"),
    ] {
        assert_eq!(judge(header, "azp", json!("me")), Err(reason), "{header}");
    }
    assert_eq!(claimed_issuer(&key.jws(HEADER, "{}")).unwrap_err().reason(), "iss_mismatch");
    assert_eq!(claimed_issuer("a.b").unwrap_err().reason(), "malformed");
}
