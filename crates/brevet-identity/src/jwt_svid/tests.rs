use brevet_core::digest::Thumbprint;
use serde_json::json;

use super::*;
use crate::bearer::Limits;
use crate::jwk::KeyUse;
use crate::test_keys::TestKey;

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
const ID: &str = "spiffe://td.example/agent";
const AUDIENCE: &str = "https://broker.example";
const HEADER: &str = r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#;

struct Fixture {
    key: TestKey,
    other: TestKey,
    bundles: JwtBundles,
}

fn bundle(kid: &str, key: &TestKey) -> JwkSet {
    let mut jwk = key.jwk(kid);
    jwk.insert("use".into(), "jwt-svid".into());
    JwkSet::of(&[jwk], KeyUse::JwtSvid).unwrap()
}

fn fixture() -> Fixture {
    let (key, other) = (TestKey::p256(), TestKey::p256());
    let bundles = [("td.example", bundle("k", &key)), ("other.example", bundle("o", &other))];
    let bundles = bundles.into_iter().map(|(name, keys)| (name.parse().unwrap(), keys)).collect();
    Fixture { key, other, bundles }
}

fn claims() -> Value {
    let now = NOW.seconds();
    json!({"sub": ID, "aud": AUDIENCE, "iat": now - 5, "exp": now + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

impl Fixture {
    fn judge_by(&self, rules: Rules, header: &str, claims: &Value) -> Result<JwtSvid, &'static str> {
        let token = self.key.jws(header, &claims.to_string());
        verify(&token, &self.bundles, None, AUDIENCE, NOW, rules).map_err(BearerError::reason)
    }

    fn judge(&self, header: &str, claims: &Value) -> Result<JwtSvid, &'static str> {
        self.judge_by(Rules::Strict(Limits::default()), header, claims)
    }

    fn refuses(&self, claims: &Value, reason: &str) {
        assert_eq!(self.judge(HEADER, claims).unwrap_err(), reason, "{claims}");
    }
}

#[test]
fn a_good_token_names_its_workload() {
    let f = fixture();
    let svid = f.judge(HEADER, &with("aud", json!([AUDIENCE]))).unwrap();
    assert_eq!(svid.spiffe_id.to_string(), ID);
    assert_eq!(svid.bearer.end, Timestamp::from_seconds(NOW.seconds() + 60));
    assert_eq!((svid.bearer.token_id, svid.bearer.confirmation), (None, None));
}

#[test]
fn jw_01_only_the_compact_serialization_is_read() {
    let f = fixture();
    let token = f.key.jws(HEADER, &claims().to_string());
    let [h, p, s]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    for other in [
        json!({"protected": h, "payload": p, "signature": s}).to_string(),
        json!({"payload": p, "signatures": [{"protected": h, "signature": s}]}).to_string(),
    ] {
        let verdict = verify(&other, &f.bundles, None, AUDIENCE, NOW, Rules::Specification);
        assert_eq!(verdict.map_err(BearerError::reason).unwrap_err(), "malformed");
    }
}

#[test]
fn jw_02_a_header_that_the_profile_does_not_name_is_refused() {
    let f = fixture();
    for extra in [r#""cty":"JWT""#, r#""x5t":"a""#, r#""jku":"https://a""#, r#""jwk":{}"#] {
        let header = HEADER.replacen('{', &format!("{{{extra},"), 1);
        for rules in [Rules::Strict(Limits::default()), Rules::Specification] {
            assert_eq!(f.judge_by(rules, &header, &claims()).unwrap_err(), "header_forbidden", "{header}");
        }
    }
}

#[test]
fn jw_04_another_algorithm_is_refused_before_anything_else() {
    let f = fixture();
    for alg in ["none", "HS256", "HS384", "HS512", "EdDSA", "ES256K", "es256", ""] {
        // Everything else about it is wrong too.
        let header = json!({"alg": alg, "typ": "at+jwt", "crit": []}).to_string();
        assert_eq!(f.judge(&header, &json!({})).unwrap_err(), "alg_forbidden", "{alg}");
    }
    for alg in ["ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let header = HEADER.replace("ES256", alg);
        assert_eq!(f.judge(&header, &claims()).unwrap_err(), "alg_key_mismatch", "{alg}");
    }
}

#[test]
fn jw_05_the_type_is_jwt_or_jose_or_not_said() {
    let f = fixture();
    for (header, verdict) in [
        (r#"{"alg":"ES256","kid":"k"}"#, None),
        (r#"{"alg":"ES256","kid":"k","typ":"JOSE"}"#, None),
        (r#"{"alg":"ES256","kid":"k","typ":"jwt"}"#, Some("typ_mismatch")),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#, Some("typ_mismatch")),
        (r#"{"alg":"ES256","kid":"k","typ":"application/jwt"}"#, Some("typ_mismatch")),
        (r#"{"alg":"ES256","kid":"k","typ":""}"#, Some("typ_mismatch")),
        (r#"{"alg":"ES256","kid":"k","typ":null}"#, Some("typ_mismatch")),
        (r#"{"alg":"ES256","kid":"k","typ":["JWT"]}"#, Some("typ_mismatch")),
    ] {
        assert_eq!(f.judge(header, &claims()).err(), verdict, "{header}");
    }
}

#[test]
fn jw_06_a_token_without_kid_is_accepted_by_the_letter_alone() {
    let f = fixture();
    let header = r#"{"alg":"ES256","typ":"JWT"}"#;
    assert_eq!(f.judge(header, &claims()).unwrap_err(), "kid_unknown");
    assert!(f.judge_by(Rules::Specification, header, &claims()).is_ok());
    let stranger = TestKey::p256().jws(header, &claims().to_string());
    let verdict = verify(&stranger, &f.bundles, None, AUDIENCE, NOW, Rules::Specification);
    assert_eq!(verdict.unwrap_err().reason(), "bad_signature");
}

#[test]
fn jw_07_the_subject_is_a_workload() {
    let f = fixture();
    f.refuses(&without("sub"), "sub_mismatch");
    for sub in [
        json!(""),
        json!(1),
        json!([ID]),
        json!("agent"),
        json!("spiffe://td.example"),
        json!("spiffe://td.example/"),
        json!("spiffe://TD.example/agent"),
        json!("spiffe://td.example/a/../agent"),
        json!("https://td.example/agent"),
    ] {
        f.refuses(&with("sub", sub), "sub_mismatch");
    }
}

#[test]
fn jw_09_the_audience_is_this_one_and_strictly_no_other() {
    let f = fixture();
    f.refuses(&without("aud"), "aud_mismatch");
    let several = json!([AUDIENCE, "other"]);
    for aud in [
        json!([]),
        json!(""),
        json!(1),
        json!("https://broker.example/"),
        json!("https://broker"),
        json!("HTTPS://broker.example"),
        json!([[AUDIENCE]]),
        several.clone(),
    ] {
        f.refuses(&with("aud", aud), "aud_mismatch");
    }
    assert!(f.judge_by(Rules::Specification, HEADER, &with("aud", several)).is_ok());
    for aud in [json!(["other"]), json!([AUDIENCE, 1]), json!([])] {
        assert!(f.judge_by(Rules::Specification, HEADER, &with("aud", aud)).is_err());
    }
}

#[test]
fn jw_11_a_token_without_end_or_past_it_is_refused() {
    let f = fixture();
    let now = NOW.seconds();
    for rules in [Rules::Strict(Limits::default()), Rules::Specification] {
        let judge = |claims: &Value| f.judge_by(rules, HEADER, claims).map(|_| ()).unwrap_err();
        assert_eq!(judge(&without("exp")), "time_invalid");
        assert_eq!(judge(&with("exp", json!((now + 60).to_string()))), "time_invalid");
        assert_eq!(judge(&with("exp", json!(-1))), "time_invalid");
        assert_eq!(judge(&with("exp", json!(now))), "expired");
        assert_eq!(judge(&with("exp", json!(now - 1))), "expired");
    }
    f.refuses(&with("exp", json!(now as f64 + 60.5)), "time_invalid");
    assert!(f.judge_by(Rules::Specification, HEADER, &with("exp", json!(now as f64 + 0.5))).is_ok());
}

#[test]
fn jw_12_times_are_whole_seconds_in_their_order() {
    let f = fixture();
    let now = NOW.seconds();
    for (name, value, reason) in [
        ("exp", json!(u64::MAX), "time_invalid"),
        ("exp", json!(1u64 << 63), "time_invalid"),
        ("exp", json!(1e30), "time_invalid"),
        ("exp", json!(now + 3_600), "time_invalid"),
        ("exp", json!(now - 5), "time_invalid"),
        ("exp", json!(now - 6), "time_invalid"),
        ("iat", json!(now + 1), "time_invalid"),
        ("iat", json!("now"), "time_invalid"),
        ("iat", json!(now - 61), "token_too_old"),
        ("nbf", json!(now + 1), "time_invalid"),
        ("nbf", json!(null), "time_invalid"),
    ] {
        f.refuses(&with(name, value), reason);
    }
    f.refuses(&without("iat"), "time_invalid");
    assert!(f.judge(HEADER, &with("nbf", json!(now))).is_ok());
    assert!(f.judge(HEADER, &with("iat", json!(now - 60))).is_ok());
    // A foreign clock may be a little ahead or behind, as configured.
    let limits = Limits { leeway: std::time::Duration::from_secs(5), ..Limits::default() };
    for (name, value, accepted) in [
        ("exp", now - 4, true),
        ("exp", now - 5, false),
        ("iat", now + 5, true),
        ("iat", now + 6, false),
        ("nbf", now + 5, true),
        ("nbf", now + 6, false),
    ] {
        let mut claims = with(name, json!(value));
        if name == "exp" {
            claims["iat"] = json!(now - 30);
        }
        assert_eq!(f.judge_by(Rules::Strict(limits), HEADER, &claims).is_ok(), accepted, "{claims}");
    }
}

#[test]
fn jw_13_only_the_subject_s_own_trust_domain_vouches_for_it() {
    let f = fixture();
    let judge = |key: &TestKey, header: &str, claims: &Value| {
        verify(&key.jws(header, &claims.to_string()), &f.bundles, None, AUDIENCE, NOW, Rules::Specification)
            .map_err(BearerError::reason)
            .map(|svid| svid.spiffe_id.to_string())
    };
    let foreign = with("sub", json!("spiffe://other.example/agent"));
    let header = HEADER.replace("\"k\"", "\"o\"");
    assert_eq!(judge(&f.other, &header, &foreign).as_deref(), Ok("spiffe://other.example/agent"));
    // Another trust domain's key, for this one's workload; this one's key, for another's and for nobody's.
    assert_eq!(judge(&f.other, &header, &claims()), Err("sub_mismatch"));
    assert_eq!(judge(&f.key, HEADER, &foreign), Err("sub_mismatch"));
    assert_eq!(judge(&f.key, HEADER, &with("sub", json!("spiffe://none.example/a"))), Err("sub_mismatch"));
    assert_eq!(judge(&f.other, HEADER, &claims()), Err("bad_signature"));
    assert_eq!(judge(&f.key, &header, &claims()), Err("kid_unknown"));
}

#[test]
fn jw_15_only_keys_for_jwt_svids_are_used() {
    let f = fixture();
    let token = f.key.jws(HEADER, &claims().to_string());
    for usage in [None, Some("sig"), Some("x509-svid"), Some("JWT-SVID")] {
        let mut jwk = f.key.jwk("k");
        if let Some(usage) = usage {
            jwk.insert("use".into(), usage.into());
        }
        let keys = JwkSet::of(&[jwk], KeyUse::JwtSvid).unwrap();
        let bundles = JwtBundles::from([("td.example".parse().unwrap(), keys)]);
        let verdict = verify(&token, &bundles, None, AUDIENCE, NOW, Rules::Specification);
        assert_eq!(verdict.unwrap_err().reason(), "key_unacceptable", "{usage:?}");
    }
}

#[test]
fn t8_what_this_broker_minted_proves_nobody() {
    let f = fixture();
    let token = f.key.jws(HEADER, &claims().to_string());
    let own = "td.example".parse().unwrap();
    let rules = Rules::Strict(Limits::default());
    let verdict = verify(&token, &f.bundles, Some(&own), AUDIENCE, NOW, rules);
    assert_eq!(verdict.unwrap_err().reason(), "own_credential");
}

#[test]
fn a_bound_token_is_its_holder_s() {
    let f = fixture();
    let (jkt, other) = (Thumbprint::from_bytes([7; 32]), Thumbprint::from_bytes([8; 32]));
    let bound = f.judge(HEADER, &with("cnf", json!({"jkt": jkt.to_string()}))).unwrap();
    let confirmation = bound.bearer.confirmation.unwrap();
    assert_eq!(confirmation.require(jkt, None), Ok(()));
    assert_eq!(confirmation.require(other, None), Err(BearerError::Holder));
    for cnf in [json!({}), json!({"jwk": {}}), json!({"jkt": "x"}), json!(1), json!(null)] {
        f.refuses(&with("cnf", cnf), "cnf_mismatch");
    }
    f.refuses(&with("jti", json!(1)), "malformed");
}
