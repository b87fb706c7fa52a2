use serde_json::json;

use super::*;
use crate::test_keys::{TestKey, jwk_set};

const ISSUER: &str = "https://broker.example";
const AUDIENCE: &str = "https://files.example";
const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
const HEADER: &str = r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#;
const AGENT: &str = "spiffe://td.example/agent/a";

fn id(byte: u8) -> String {
    Id::from_bytes([byte; 16]).to_string()
}

fn claims() -> Value {
    let digest = |byte: u8| Thumbprint::from_bytes([byte; 32]).to_string();
    json!({
        "iss": ISSUER,
        "sub": AGENT,
        "act": {
            "iss": ISSUER, "sub": AGENT, "sub_profile": "ai_agent",
            "act": {"iss": ISSUER, "sub": "spiffe://td.example/agent/root", "sub_profile": "ai_agent"},
        },
        "client_id": AGENT,
        "aud": AUDIENCE,
        "iat": NOW.seconds(),
        "exp": NOW.seconds() + 300,
        "jti": id(9),
        "authorization_details": [
            {"type": "brevet", "locations": [AUDIENCE], "identifier": "team/**", "actions": ["read"]},
        ],
        "cnf": {"jkt": digest(1), "x5t#S256": digest(2)},
        "task": [id(3), id(4)],
        "rev": 7,
        "pol": digest(5),
    })
}

fn judge_at(claims: &Value, now: Timestamp) -> Result<VerifiedToken, &'static str> {
    let key = TestKey::p256();
    let token = key.jws(HEADER, &claims.to_string());
    let audience = AudienceName::parse(AUDIENCE).unwrap();
    verify(&token, &jwk_set(&[("k", &key)]), ISSUER, &audience, now).map_err(TokenError::reason)
}

fn judge(claims: &Value) -> Result<VerifiedToken, &'static str> {
    judge_at(claims, NOW)
}

#[test]
fn a_good_token_is_read_whole() {
    let token = judge(&claims()).unwrap();
    let read = token.claims();
    assert_eq!(read.subject.as_str(), AGENT);
    assert_eq!(read.agent().unwrap().as_str(), AGENT);
    assert_eq!(read.actors.len(), 2);
    assert_eq!(read.actors[1].path(), "/agent/root");
    assert_eq!((read.issued_at, read.end.since(NOW).as_secs()), (NOW, 300));
    assert_eq!(read.path, [Id::from_bytes([3; 16]), Id::from_bytes([4; 16])]);
    assert_eq!((read.revision, read.policy), (Revision(7), PolicyDigest::from_bytes([5; 32])));
    assert_eq!(token.lease_id().to_string(), format!("tasks/{}-{}/leases/{}", id(3), id(4), id(9)));
    let mut root = claims();
    root["task"] = json!([id(3)]);
    root["sub"] = json!("spiffe://people.example/alice");
    root["cnf"].as_object_mut().unwrap().remove("x5t#S256");
    let token = judge(&root).unwrap();
    assert_eq!(token.lease_id().to_string(), format!("tasks/{}/leases/{}", id(3), id(9)));
    assert_eq!(token.claims().certificate, None);
}

#[test]
fn l8_a_token_is_for_its_holder_alone() {
    let (key, certificate) = (Thumbprint::from_bytes([1; 32]), CertificateDigest::from_bytes([2; 32]));
    let (other_key, other_certificate) =
        (Thumbprint::from_bytes([8; 32]), CertificateDigest::from_bytes([8; 32]));
    let token = judge(&claims()).unwrap();
    assert_eq!(token.require_holder(key, Some(certificate)), Ok(()));
    for (key, certificate) in
        [(other_key, Some(certificate)), (key, Some(other_certificate)), (key, None), (other_key, None)]
    {
        assert_eq!(token.require_holder(key, certificate), Err(TokenError::Holder));
    }
    let mut without = claims();
    without["cnf"].as_object_mut().unwrap().remove("x5t#S256");
    let token = judge(&without).unwrap();
    assert_eq!(token.require_holder(key, None), Ok(()));
    assert_eq!(token.require_holder(key, Some(other_certificate)), Ok(()));
    assert_eq!(token.require_holder(other_key, Some(certificate)), Err(TokenError::Holder));
}

#[test]
fn l3_a_token_is_dead_at_its_end() {
    let at = |millis: u64| judge_at(&claims(), Timestamp::from_millis(millis)).map(|_| ());
    let end = (NOW.seconds() + 300) * 1000;
    assert_eq!(at(end - 1), Ok(()));
    assert_eq!(at(end), Err("expired"));
    assert_eq!(at(end + 1), Err("expired"));
    assert_eq!(at(NOW.millis() - 5_000), Ok(()));
    assert_eq!(at(NOW.millis() - 5_001), Err("time_invalid"));
}

#[test]
fn every_claim_has_one_form() {
    let now = NOW.seconds();
    for (name, value, reason) in [
        ("iss", json!(null), "iss_mismatch"),
        ("iss", json!(1), "iss_mismatch"),
        ("iss", json!([ISSUER]), "iss_mismatch"),
        ("iss", json!("https://broker.example/"), "iss_mismatch"),
        ("iss", json!("https://br\u{43e}ker.example"), "iss_mismatch"),
        ("aud", json!(null), "aud_mismatch"),
        ("aud", json!(1), "aud_mismatch"),
        ("aud", json!([]), "aud_mismatch"),
        ("aud", json!([AUDIENCE]), "aud_mismatch"),
        ("aud", json!([AUDIENCE, "https://other.example"]), "aud_mismatch"),
        ("aud", json!("https://files.example/"), "aud_mismatch"),
        ("aud", json!("https://files.exampl"), "aud_mismatch"),
        ("aud", json!("https://FILES.example"), "aud_mismatch"),
        ("sub", json!("alice"), "sub_mismatch"),
        ("sub", json!(null), "sub_mismatch"),
        ("client_id", json!("spiffe://td.example/agent/b"), "sub_mismatch"),
        ("client_id", json!(null), "sub_mismatch"),
        ("act", json!(null), "sub_mismatch"),
        ("act", json!({}), "sub_mismatch"),
        (
            "act",
            json!({"iss": "https://other.example", "sub": AGENT, "sub_profile": "ai_agent"}),
            "sub_mismatch",
        ),
        ("act", json!({"iss": ISSUER, "sub": AGENT, "sub_profile": "person"}), "sub_mismatch"),
        ("act", json!({"iss": ISSUER, "sub": AGENT}), "sub_mismatch"),
        ("act", json!({"iss": ISSUER, "sub": AGENT, "sub_profile": "ai_agent", "x": 1}), "sub_mismatch"),
        ("act", json!({"iss": ISSUER, "sub": AGENT, "sub_profile": "ai_agent", "act": {}}), "sub_mismatch"),
        ("exp", json!(null), "time_invalid"),
        ("exp", json!((now + 300).to_string()), "time_invalid"),
        ("exp", json!(now as f64 + 0.5), "time_invalid"),
        ("exp", json!(-1), "time_invalid"),
        ("exp", json!(u64::MAX), "time_invalid"),
        ("exp", json!(1u64 << 63), "time_invalid"),
        ("exp", json!(now), "time_invalid"),
        ("exp", json!(now - 1), "time_invalid"),
        ("exp", json!(now + LIFETIME_MAX.as_secs() + 1), "time_invalid"),
        ("iat", json!(null), "time_invalid"),
        ("iat", json!("0"), "time_invalid"),
        ("iat", json!(now + 6), "time_invalid"),
        ("jti", json!(id(9).to_uppercase()), "malformed"),
        ("jti", json!(null), "malformed"),
        ("authorization_details", json!(null), "malformed"),
        ("authorization_details", json!([{"type": "other"}]), "malformed"),
        (
            "authorization_details",
            json!([{"type": "brevet", "locations": ["https://x.example"], "identifier": "a", "actions": ["b"]}]),
            "aud_mismatch",
        ),
        ("cnf", json!(null), "malformed"),
        ("cnf", json!({}), "malformed"),
        ("cnf", json!({"x5t#S256": id(1)}), "malformed"),
        ("cnf", json!({"jkt": "AA"}), "malformed"),
        ("cnf", json!({"jwk": {}}), "malformed"),
        ("task", json!([]), "malformed"),
        ("task", json!([id(3), id(3)]), "malformed"),
        ("task", json!(id(3)), "malformed"),
        ("rev", json!("7"), "malformed"),
        ("rev", json!(-7), "malformed"),
        ("rev", json!(7.5), "malformed"),
        ("pol", json!(""), "malformed"),
        ("nbf", json!(now), "malformed"),
        ("scope", json!("admin"), "malformed"),
        ("ISS", json!(ISSUER), "malformed"),
    ] {
        let mut bad = claims();
        bad[name] = value;
        assert_eq!(judge(&bad).map(|_| ()), Err(reason), "{name}: {}", bad[name]);
        let mut missing = claims();
        if missing.as_object_mut().unwrap().remove(name).is_some() {
            assert!(judge(&missing).is_err(), "{name} missing");
        }
    }
    let mut null_certificate = claims();
    null_certificate["cnf"]["x5t#S256"] = json!(null);
    assert_eq!(judge(&null_certificate).map(|_| ()), Err("malformed"));
}

#[test]
fn a_repeated_or_deep_claim_is_refused() {
    let key = TestKey::p256();
    let keys = jwk_set(&[("k", &key)]);
    let audience = AudienceName::parse(AUDIENCE).unwrap();
    let judge = |payload: &str| {
        verify(&key.jws(HEADER, payload), &keys, ISSUER, &audience, NOW)
            .map(|_| ())
            .map_err(TokenError::reason)
    };
    let good = claims().to_string();
    assert_eq!(judge(&good), Ok(()));
    assert_eq!(judge(&good.replacen('{', &format!("{{\"aud\":\"{AUDIENCE}\","), 1)), Err("malformed"));
    assert_eq!(judge(&good.replacen("\"jkt\"", "\"jkt\":\"AA\",\"jkt\"", 1)), Err("malformed"));
    assert_eq!(judge(&format!("{good} {{}}")), Err("malformed"));
    assert_eq!(judge("[]"), Err("malformed"));
    let mut deep = claims();
    for _ in 0..40 {
        let inner = deep["act"].take();
        deep["act"] = json!({"iss": ISSUER, "sub": AGENT, "sub_profile": "ai_agent", "act": inner});
    }
    assert_eq!(judge(&deep.to_string()), Err("malformed"));
}

#[test]
fn another_kind_of_token_or_another_key_is_refused() {
    let (key, other) = (TestKey::p256(), TestKey::p256());
    let keys = jwk_set(&[("k", &key)]);
    let audience = AudienceName::parse(AUDIENCE).unwrap();
    let judge =
        |token: &str| verify(token, &keys, ISSUER, &audience, NOW).map(|_| ()).map_err(TokenError::reason);
    let payload = claims().to_string();
    assert_eq!(judge(&key.jws(r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#, &payload)), Err("typ_mismatch"));
    assert_eq!(judge(&key.jws(r#"{"alg":"ES256","kid":"z","typ":"at+jwt"}"#, &payload)), Err("kid_unknown"));
    assert_eq!(judge(&other.jws(HEADER, &payload)), Err("bad_signature"));
    assert_eq!(judge("x"), Err("malformed"));
}
