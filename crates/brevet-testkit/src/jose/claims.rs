//! Claims of JWT-SVIDs and of task tokens.

use serde_json::{Value, json};

use super::{AGENT, AT, AUDIENCE, ISSUER, Suite, TOKENS, compact, good_claims, good_header, with};

pub(super) fn add(suite: &mut Suite) {
    jwt_svids(suite);
    trust_domains(suite);
    task_tokens(suite);
    texts(suite);
}

fn jwt_svids(suite: &mut Suite) {
    let (now, kind) = (AT.seconds(), "jwt-svid");
    let several = json!([AUDIENCE, "https://other.example"]);
    let sub = |text: &str| Some(json!(text));
    let long = format!("spiffe://td.example/{}", "a".repeat(2_048));
    let cases: Vec<(&str, &str, Option<Value>, Result<(), &'static str>)> = vec![
        ("aud", "one-in-a-list", Some(json!([AUDIENCE])), Ok(())),
        ("aud", "absent", None, Err("aud_mismatch")),
        ("aud", "empty", Some(json!("")), Err("aud_mismatch")),
        ("aud", "empty-list", Some(json!([])), Err("aud_mismatch")),
        ("aud", "several", Some(several), Err("aud_mismatch")),
        ("aud", "twice", Some(json!([AUDIENCE, AUDIENCE])), Err("aud_mismatch")),
        ("aud", "prefix", Some(json!("https://files")), Err("aud_mismatch")),
        ("aud", "suffix", Some(json!("https://files.example.org")), Err("aud_mismatch")),
        ("aud", "slash", Some(json!("https://files.example/")), Err("aud_mismatch")),
        ("aud", "upper-case", Some(json!("https://FILES.example")), Err("aud_mismatch")),
        ("aud", "number", Some(json!(1)), Err("aud_mismatch")),
        ("aud", "nested", Some(json!([[AUDIENCE]])), Err("aud_mismatch")),
        ("sub", "absent", None, Err("sub_mismatch")),
        ("sub", "empty", sub(""), Err("sub_mismatch")),
        ("sub", "number", Some(json!(1)), Err("sub_mismatch")),
        ("sub", "list", Some(json!([AGENT])), Err("sub_mismatch")),
        ("sub", "person", sub("alice"), Err("sub_mismatch")),
        ("sub", "https", sub("https://td.example/agent/a"), Err("sub_mismatch")),
        ("sub", "no-path", sub("spiffe://td.example"), Err("sub_mismatch")),
        ("sub", "slash", sub("spiffe://td.example/agent/"), Err("sub_mismatch")),
        ("sub", "empty-segment", sub("spiffe://td.example//a"), Err("sub_mismatch")),
        ("sub", "dots", sub("spiffe://td.example/x/../a"), Err("sub_mismatch")),
        ("sub", "percent", sub("spiffe://td.example/%61"), Err("sub_mismatch")),
        ("sub", "upper-case-host", sub("spiffe://TD.example/a"), Err("sub_mismatch")),
        ("sub", "upper-case-scheme", sub("SPIFFE://td.example/a"), Err("sub_mismatch")),
        ("sub", "port", sub("spiffe://td.example:443/a"), Err("sub_mismatch")),
        ("sub", "userinfo", sub("spiffe://me@td.example/a"), Err("sub_mismatch")),
        ("sub", "query", sub("spiffe://td.example/a?b"), Err("sub_mismatch")),
        ("sub", "fragment", sub("spiffe://td.example/a#b"), Err("sub_mismatch")),
        ("sub", "space", sub("spiffe://td.example/a b"), Err("sub_mismatch")),
        ("sub", "long", sub(&long), Err("sub_mismatch")),
        ("exp", "absent", None, Err("time_invalid")),
        ("exp", "null", Some(json!(null)), Err("time_invalid")),
        ("exp", "text", Some(json!((now + 60).to_string())), Err("time_invalid")),
        ("exp", "negative", Some(json!(-1)), Err("time_invalid")),
        ("exp", "fraction", Some(json!(now as f64 + 60.5)), Err("time_invalid")),
        ("exp", "2-to-the-63", Some(json!(1_u64 << 63)), Err("time_invalid")),
        ("exp", "2-to-the-64", Some(json!(18_446_744_073_709_551_616_f64)), Err("time_invalid")),
        ("exp", "too-far", Some(json!(now + 3_600)), Err("time_invalid")),
        ("exp", "before-iat", Some(json!(now - 6)), Err("time_invalid")),
        ("exp", "now", Some(json!(now)), Err("expired")),
        ("exp", "a-second-ago", Some(json!(now - 1)), Err("expired")),
        ("exp", "in-a-second", Some(json!(now + 1)), Ok(())),
        ("iat", "absent", None, Err("time_invalid")),
        ("iat", "text", Some(json!("now")), Err("time_invalid")),
        ("iat", "in-a-second", Some(json!(now + 1)), Err("time_invalid")),
        ("iat", "a-minute-ago", Some(json!(now - 60)), Ok(())),
        ("iat", "too-old", Some(json!(now - 61)), Err("token_too_old")),
        ("nbf", "now", Some(json!(now)), Ok(())),
        ("nbf", "in-a-second", Some(json!(now + 1)), Err("time_invalid")),
        ("nbf", "text", Some(json!("now")), Err("time_invalid")),
        ("jti", "absent", None, Ok(())),
        ("jti", "number", Some(json!(1)), Err("malformed")),
        ("cnf", "unknown", Some(json!({"x5t#S256": "a"})), Err("cnf_mismatch")),
        ("cnf", "text", Some(json!("key")), Err("cnf_mismatch")),
        ("iss", "anything", Some(json!("https://issuer.example")), Ok(())),
        ("scope", "private", Some(json!(["a", {"b": 1}])), Ok(())),
    ];
    for (name, what, value, expected) in cases {
        let claims = with(&good_claims(kind), name, value).to_string();
        let token = compact(&suite.p256, "ES256", &good_header(kind), &claims);
        suite.token(kind, &format!("claims/{name}-{what}"), &token, expected);
    }
    for (name, what, value, expected) in [
        ("aud", "several", Some(json!([AUDIENCE, "https://other.example"])), Ok(())),
        ("aud", "others", Some(json!(["https://other.example"])), Err("aud_mismatch")),
        ("iat", "absent", None, Ok(())),
        ("iat", "old", Some(json!(1)), Ok(())),
        ("exp", "far", Some(json!(now + 86_400)), Ok(())),
        ("exp", "fraction", Some(json!(now as f64 + 0.5)), Ok(())),
        ("exp", "absent", None, Err("time_invalid")),
        ("exp", "now", Some(json!(now)), Err("expired")),
        ("nbf", "in-a-second", Some(json!(now + 1)), Err("time_invalid")),
    ] {
        let claims = with(&good_claims(kind), name, value).to_string();
        let token = compact(&suite.p256, "ES256", &good_header(kind), &claims);
        suite.token_by_the_letter(kind, &format!("{name}-{what}"), &token, expected);
    }
}

/// Whose workload, and whose signature (SPIFFE Federation §4.2).
fn trust_domains(suite: &mut Suite) {
    let kind = "jwt-svid";
    let foreign_header = good_header(kind).replace("\"k\"", "\"foreign\"");
    let of =
        |name: &str| with(&good_claims(kind), "sub", Some(json!(format!("spiffe://{name}/a")))).to_string();
    let (own, other) = (good_header(kind), "other.example");
    let tokens = [
        ("other-s-own", compact(&suite.foreign, "ES256", &foreign_header, &of(other)), Ok(())),
        (
            "ours-by-other",
            compact(&suite.foreign, "ES256", &foreign_header, &of("td.example")),
            Err("sub_mismatch"),
        ),
        ("other-s-by-us", compact(&suite.p256, "ES256", &own, &of(other)), Err("sub_mismatch")),
        ("nobody-s-by-us", compact(&suite.p256, "ES256", &own, &of("none.example")), Err("sub_mismatch")),
        ("sub-domain-by-us", compact(&suite.p256, "ES256", &own, &of("a.td.example")), Err("sub_mismatch")),
        ("ours-by-nobody", compact(&suite.foreign, "ES256", &own, &of("td.example")), Err("bad_signature")),
    ];
    for (what, token, expected) in tokens {
        suite.token(kind, &format!("trust/{what}"), &token, expected);
    }
    // Keys of a bundle that are for something else, and a bundle without keys.
    let token = compact(&suite.p256, "ES256", &own, &good_claims(kind).to_string());
    for (what, usage, reason) in [
        ("for-x509", Some("x509-svid"), "key_unacceptable"),
        ("for-signatures", Some("sig"), "key_unacceptable"),
        ("for-nothing", None, "key_unacceptable"),
        ("empty", Some(""), "kid_unknown"),
    ] {
        let mut body = suite.body(kind, &token);
        let mut jwk = super::named(&suite.p256, "k", &[]);
        jwk.extend(usage.map(|usage| ("use".to_owned(), json!(usage))));
        let keys = if what == "empty" { json!([]) } else { json!([jwk]) };
        body["bundles"]["td.example"] = json!({"keys": keys});
        suite.push(format!("{kind}/trust/keys-{what}"), kind, body, Err(reason));
    }
}

fn task_tokens(suite: &mut Suite) {
    let (now, kind) = (AT.seconds(), "token");
    let actor = |sub: &str, iss: &str| json!({"iss": iss, "sub": sub, "sub_profile": "ai_agent"});
    let good = good_claims(kind);
    let id = good["jti"].as_str().unwrap().to_owned();
    let details = |name: &str, value: Value| {
        let mut detail = good["authorization_details"][0].clone();
        detail[name] = value;
        Some(json!([detail]))
    };
    let cases: Vec<(&str, &str, Option<Value>, Result<(), &'static str>)> = vec![
        ("iss", "absent", None, Err("iss_mismatch")),
        ("iss", "slash", Some(json!(format!("{ISSUER}/"))), Err("iss_mismatch")),
        ("iss", "upper-case", Some(json!("https://BROKER.example")), Err("iss_mismatch")),
        ("iss", "look-alike", Some(json!("https://br\u{43e}ker.example")), Err("iss_mismatch")),
        ("iss", "list", Some(json!([ISSUER])), Err("iss_mismatch")),
        ("aud", "list", Some(json!([AUDIENCE])), Err("aud_mismatch")),
        ("aud", "other", Some(json!("https://other.example")), Err("aud_mismatch")),
        ("aud", "absent", None, Err("aud_mismatch")),
        ("sub", "person", Some(json!("alice")), Err("sub_mismatch")),
        ("sub", "delegator", Some(json!("spiffe://people.example/alice")), Ok(())),
        ("client_id", "other", Some(json!("spiffe://td.example/b")), Err("sub_mismatch")),
        ("client_id", "absent", None, Err("sub_mismatch")),
        ("act", "absent", None, Err("sub_mismatch")),
        ("act", "other", Some(actor("spiffe://td.example/b", ISSUER)), Err("sub_mismatch")),
        ("act", "of-another-issuer", Some(actor(AGENT, "https://other.example")), Err("sub_mismatch")),
        ("exp", "absent", None, Err("time_invalid")),
        ("exp", "fraction", Some(json!(now as f64 + 60.5)), Err("time_invalid")),
        ("exp", "now", Some(json!(now)), Err("time_invalid")),
        ("exp", "too-far", Some(json!(now + 3_601)), Err("time_invalid")),
        ("iat", "ahead", Some(json!(now + 6)), Err("time_invalid")),
        ("iat", "absent", None, Err("time_invalid")),
        ("jti", "absent", None, Err("malformed")),
        ("jti", "upper-case", Some(json!(id.to_uppercase())), Ok(())),
        ("jti", "short", Some(json!("0")), Err("malformed")),
        ("task", "absent", None, Err("malformed")),
        ("task", "empty", Some(json!([])), Err("malformed")),
        ("rev", "negative", Some(json!(-1)), Err("malformed")),
        ("rev", "text", Some(json!("7")), Err("malformed")),
        ("pol", "absent", None, Err("malformed")),
        ("cnf", "absent", None, Err("malformed")),
        ("cnf", "empty", Some(json!({})), Err("malformed")),
        ("cnf", "more", Some(json!({"jkt": good["cnf"]["jkt"], "jwk": {}})), Err("malformed")),
        ("scope", "unknown", Some(json!("all")), Err("malformed")),
        ("authorization_details", "absent", None, Err("malformed")),
        ("authorization_details", "type", details("type", json!("other")), Err("malformed")),
        ("authorization_details", "wildcard", details("identifier", json!("*")), Err("malformed")),
        ("authorization_details", "dots", details("identifier", json!("a/../b")), Err("malformed")),
        (
            "authorization_details",
            "audience",
            details("locations", json!(["https://other.example"])),
            Err("aud_mismatch"),
        ),
    ];
    for (name, what, value, expected) in cases {
        let claims = with(&good, name, value).to_string();
        let token = compact(&suite.p256, "ES256", &good_header(kind), &claims);
        suite.token(kind, &format!("claims/{name}-{what}"), &token, expected);
    }
    let ended = with(&with(&good, "iat", Some(json!(now - 60))), "exp", Some(json!(now))).to_string();
    let token = compact(&suite.p256, "ES256", &good_header(kind), &ended);
    suite.token(kind, "claims/ended-now", &token, Err("expired"));
}

/// Claims that are no strict JSON object.
fn texts(suite: &mut Suite) {
    for kind in TOKENS.into_iter().filter(|kind| *kind != "jws") {
        let good = good_claims(kind).to_string();
        let twice = good.replacen('{', "{\"aud\":\"x\",", 1);
        for (what, text) in [
            ("empty", ""),
            ("list", "[]"),
            ("text", "\"sub\""),
            ("twice", twice.as_str()),
            ("trailing", &format!("{good} x")),
            ("bom", &format!("\u{feff}{good}")),
        ] {
            let token = compact(&suite.p256, "ES256", &good_header(kind), text);
            suite.token(kind, &format!("claims/json-{what}"), &token, Err("malformed"));
        }
    }
}
