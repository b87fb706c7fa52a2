use serde_json::json;

use super::*;
use crate::test_keys::{TestKey, jwk_set};

fn own() -> TrustDomain {
    "broker.example".parse().unwrap()
}

fn id(byte: u8) -> String {
    Id::from_bytes([byte; 16]).to_string()
}

fn header(kid: &str, typ: &str) -> String {
    json!({ "alg": "ES256", "kid": kid, "typ": typ }).to_string()
}

/// The claims of a JWT-SVID for the task at the end of a path.
fn claims(path: &[String]) -> Value {
    json!({
        "sub": format!("spiffe://broker.example/agent/td.example/agent/a/task/{}", path.join("/")),
        "aud": "https://legacy.example",
        "iat": 1_800_000_000,
        "exp": 1_800_000_300,
        "jti": id(9),
        "cnf": {"jkt": "gKyzHLxtkoNcSy197DW-ulDoJj85TDgowNov0OfStmE"},
        "task": path,
    })
}

fn judge(claims: &Value) -> Result<String, TaskJwtSvidError> {
    let key = TestKey::p256();
    let token = key.jws(&header("k", "JWT"), &claims.to_string());
    authenticate(&token, &jwk_set(&[("k", &key)]), &own()).map(|lease| lease.to_string())
}

#[test]
fn it_names_its_lease_whatever_its_audience_and_time() {
    assert_eq!(judge(&claims(&[id(3)])), Ok(format!("tasks/{}/leases/{}", id(3), id(9))));
    let below = [id(3), id(5), id(4)];
    assert_eq!(judge(&claims(&below)), Ok(format!("tasks/{}-{}/leases/{}", id(3), id(4), id(9))));
}

#[test]
fn what_names_no_task_of_this_broker_is_refused() {
    let of = |name: &str, value: Value| {
        let mut claims = claims(&[id(3), id(4)]);
        claims[name] = value;
        judge(&claims)
    };
    let task = format!("{}/{}", id(3), id(4));
    for (name, value) in [
        ("sub", json!("spiffe://td.example/agent/a")),
        ("sub", json!(format!("spiffe://other.example/agent/td.example/agent/a/task/{task}"))),
        ("sub", json!(format!("spiffe://broker.example/agent/td.example/agent/a/task/{}", id(3)))),
        ("sub", json!("alice")),
        ("sub", Value::Null),
        ("task", json!([id(4), id(3)])),
        ("task", json!([id(3)])),
        ("task", json!([])),
        ("jti", json!("x")),
        ("jti", Value::Null),
    ] {
        assert_eq!(of(name, value.clone()), Err(TaskJwtSvidError::Claims), "{name} {value}");
    }
    let circle = claims(&[id(3), id(3)]);
    assert_eq!(judge(&circle), Err(TaskJwtSvidError::Claims), "no task is below itself");
}

#[test]
fn what_another_key_signed_or_as_something_else_is_refused() {
    let (key, other) = (TestKey::p256(), TestKey::p256());
    let claims = claims(&[id(3)]).to_string();
    let keys = jwk_set(&[("k", &key)]);
    let judge = |token: &str| authenticate(token, &keys, &own()).map(drop);
    assert_eq!(judge(&key.jws(&header("k", "JWT"), &claims)), Ok(()));
    for (token, problem) in [
        (key.jws(&header("k", "at+jwt"), &claims), JwsError::Type),
        (key.jws(&header("k", "JOSE"), &claims), JwsError::Type),
        (key.jws(&header("other", "JWT"), &claims), JwsError::KeyUnknown),
        (other.jws(&header("k", "JWT"), &claims), JwsError::Signature),
        (key.jws(r#"{"alg":"ES256","typ":"JWT"}"#, &claims), JwsError::KeyUnknown),
        (key.jws(&header("k", "JWT").replacen('{', r#"{"jku":"https://x","#, 1), &claims), JwsError::Header),
        (key.jws(&header("k", "JWT").replacen("ES256", "none", 1), &claims), JwsError::Algorithm),
        ("a.b".to_owned(), JwsError::Malformed),
    ] {
        assert_eq!(judge(&token), Err(TaskJwtSvidError::Jws(problem)), "{token}");
    }
}
