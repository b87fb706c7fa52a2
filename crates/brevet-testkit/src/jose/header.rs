//! Headers: the algorithm, the key, the type, and what has no place there.

use serde_json::json;

use super::{Expected, Suite, TOKENS, compact, good_claims, good_header, typ};

pub(super) fn add(suite: &mut Suite) {
    for kind in TOKENS {
        accepted(suite, kind);
        refused(suite, kind);
        types(suite, kind);
    }
    embedded_json(suite);
    by_the_letter(suite);
}

/// Each algorithm under the key that it belongs to.
fn accepted(suite: &mut Suite, kind: &'static str) {
    let claims = good_claims(kind).to_string();
    for (algorithm, kid) in [
        ("ES256", "k"),
        ("ES256", "other"),
        ("ES384", "k384"),
        ("RS256", "rs"),
        ("RS256", "rsa"),
        ("PS256", "ps"),
    ] {
        let header = json!({"alg": algorithm, "kid": kid, "typ": typ(kind)}).to_string();
        let token = sign(suite, kid, algorithm, &header, &claims);
        suite.token(kind, &format!("header/good-{algorithm}-{kid}"), &token, Ok(()));
    }
    // White space and the order of members mean nothing in JSON.
    let header = format!("\n{{ \"typ\" : \"{}\",\t\"kid\": \"k\", \"alg\": \"ES256\" }} ", typ(kind));
    let token = compact(&suite.p256, "ES256", &header, &claims);
    suite.token(kind, "header/good-spaces", &token, Ok(()));
    let token = compact(&suite.p256, "ES256", &good_header(kind).replace("ES256", "\\u0045S256"), &claims);
    suite.token(kind, "header/good-escape", &token, Ok(()));
}

fn refused(suite: &mut Suite, kind: &'static str) {
    let (claims, typ) = (good_claims(kind).to_string(), typ(kind));
    let long = format!(r#""{}""#, "k".repeat(6_000));
    let cases: &[(&str, &str, &str, &str)] = &[
        // The algorithm (RFC 8725 §3.1).
        ("alg", r#""none""#, "none", "alg_forbidden"),
        ("alg", r#""None""#, "None", "alg_forbidden"),
        ("alg", r#""nOnE""#, "nOnE", "alg_forbidden"),
        ("alg", r#""""#, "empty", "alg_forbidden"),
        ("alg", "null", "null", "alg_forbidden"),
        ("alg", "256", "number", "alg_forbidden"),
        ("alg", r#"["ES256"]"#, "array", "alg_forbidden"),
        ("alg", r#""es256""#, "lower-case", "alg_forbidden"),
        ("alg", r#""ES256 ""#, "space", "alg_forbidden"),
        ("alg", r#""ES256\u0000""#, "nul", "alg_forbidden"),
        ("alg", r#""HS256""#, "HS256", "alg_forbidden"),
        ("alg", r#""HS384""#, "HS384", "alg_forbidden"),
        ("alg", r#""HS512""#, "HS512", "alg_forbidden"),
        ("alg", r#""EdDSA""#, "EdDSA", "alg_forbidden"),
        ("alg", r#""ES256K""#, "ES256K", "alg_forbidden"),
        ("alg", r#""ES512""#, "ES512", "alg_forbidden"),
        ("alg", r#""RSA-OAEP""#, "RSA-OAEP", "alg_forbidden"),
        ("alg", r#""dir""#, "dir", "alg_forbidden"),
        ("alg", r#""ES384""#, "ES384-of-p256", "alg_key_mismatch"),
        ("alg", r#""RS256""#, "RS256-of-p256", "alg_key_mismatch"),
        ("alg", r#""PS512""#, "PS512-of-p256", "alg_key_mismatch"),
        // The key.
        ("kid", r#""""#, "empty", "kid_unknown"),
        ("kid", r#""K""#, "case", "kid_unknown"),
        ("kid", r#""k ""#, "space", "kid_unknown"),
        ("kid", r#""k\u0000""#, "nul", "kid_unknown"),
        ("kid", "1", "number", "kid_unknown"),
        ("kid", "null", "null", "kid_unknown"),
        ("kid", r#"["k"]"#, "array", "kid_unknown"),
        ("kid", r#""../../dev/null""#, "path", "kid_unknown"),
        ("kid", r#""' OR 1=1 --""#, "sql", "kid_unknown"),
        ("kid", r#""https://127.0.0.1/key""#, "url", "kid_unknown"),
        ("kid", long.as_str(), "long", "kid_unknown"),
        ("kid", r#""other""#, "other", "bad_signature"),
        ("kid", r#""k384""#, "k384", "alg_key_mismatch"),
        ("kid", r#""rs""#, "rs", "alg_key_mismatch"),
        // What leads elsewhere, or changes what the rest means.
        ("jku", r#""http://169.254.169.254/keys""#, "link-local", "header_forbidden"),
        ("jku", r#""https://127.0.0.1:1/keys""#, "loopback", "header_forbidden"),
        ("x5u", r#""file:///etc/passwd""#, "file", "header_forbidden"),
        ("x5c", "[]", "empty", "header_forbidden"),
        ("x5t", r#""a""#, "thumbprint", "header_forbidden"),
        ("jwk", "{}", "empty", "header_forbidden"),
        ("cty", r#""JWT""#, "nested", "header_forbidden"),
        ("zip", r#""DEF""#, "compressed", "header_forbidden"),
        ("epk", "{}", "agreement", "header_forbidden"),
        ("", "0", "nameless", "header_forbidden"),
        ("Alg", r#""ES256""#, "upper-case", "header_forbidden"),
        ("crit", "[]", "empty", "crit_unsupported"),
        ("crit", r#"["exp"]"#, "unknown", "crit_unsupported"),
        ("crit", r#"["alg"]"#, "alg", "crit_unsupported"),
        ("crit", r#"["b64"]"#, "b64", "crit_unsupported"),
        ("b64", "false", "false", "crit_unsupported"),
        ("b64", "true", "true", "crit_unsupported"),
    ];
    for (name, value, what, reason) in cases {
        let members = [("alg", r#""ES256""#), ("kid", r#""k""#)];
        let mut header = format!(r#"{{"typ":"{typ}""#);
        for (member, good) in members {
            if member != *name {
                header += &format!(r#","{member}":{good}"#);
            }
        }
        header += &format!(r#","{name}":{value}}}"#);
        let token = compact(&suite.p256, "ES256", &header, &claims);
        suite.token(kind, &format!("header/{name}-{what}"), &token, Err(reason));
    }
    for (what, header, reason) in [
        ("without-alg", format!(r#"{{"kid":"k","typ":"{typ}"}}"#), "alg_forbidden"),
        ("without-kid", format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#), "kid_unknown"),
    ] {
        let token = compact(&suite.p256, "ES256", &header, &claims);
        suite.token(kind, &format!("header/{what}"), &token, Err(reason));
    }
    // An RSA key that says one algorithm, or nothing, verifies no other.
    for (kid, algorithm) in
        [("rs", "PS256"), ("ps", "RS256"), ("rs", "RS512"), ("rsa", "PS256"), ("rsa", "RS384")]
    {
        let header = json!({"alg": algorithm, "kid": kid, "typ": typ}).to_string();
        let token = sign(suite, kid, algorithm, &header, &claims);
        suite.token(kind, &format!("header/{algorithm}-by-{kid}"), &token, Err("alg_key_mismatch"));
    }
}

fn types(suite: &mut Suite, kind: &'static str) {
    let claims = good_claims(kind).to_string();
    let exact = |value: &str| -> Expected {
        match kind {
            "jws" => Ok(()),
            "token" => {
                if value == r#""at+jwt""# {
                    Ok(())
                } else {
                    Err("typ_mismatch")
                }
            }
            _ => {
                if [r#""JWT""#, r#""JOSE""#].contains(&value) {
                    Ok(())
                } else {
                    Err("typ_mismatch")
                }
            }
        }
    };
    for value in [
        r#""JWT""#,
        r#""JOSE""#,
        r#""jwt""#,
        r#""at+jwt""#,
        r#""AT+JWT""#,
        r#""application/at+jwt""#,
        r#""dpop+jwt""#,
        r#""logout+jwt""#,
        r#""""#,
        "null",
        "1",
        r#"["JWT"]"#,
    ] {
        let header = format!(r#"{{"alg":"ES256","kid":"k","typ":{value}}}"#);
        let token = compact(&suite.p256, "ES256", &header, &claims);
        suite.token(kind, &format!("header/typ-{}", value.trim_matches('"')), &token, exact(value));
    }
    let token = compact(&suite.p256, "ES256", r#"{"alg":"ES256","kid":"k"}"#, &claims);
    let expected = if kind == "token" { Err("typ_mismatch") } else { Ok(()) };
    suite.token(kind, "header/typ-absent", &token, expected);
}

/// Texts that are no strict JSON object, or one with two meanings.
fn embedded_json(suite: &mut Suite) {
    let deep = format!(r#"{{"alg":"ES256","kid":"k","typ":{}1{}}}"#, "[".repeat(4_000), "]".repeat(4_000));
    let cases = [
        ("empty", ""),
        ("open", "{"),
        ("array", r#"["alg"]"#),
        ("string", r#""alg""#),
        ("null", "null"),
        ("trailing", r#"{"alg":"ES256","kid":"k"} x"#),
        ("two-objects", r#"{"alg":"ES256","kid":"k"}{}"#),
        ("trailing-comma", r#"{"alg":"ES256","kid":"k",}"#),
        ("comment", r#"{"alg":"ES256",/**/"kid":"k"}"#),
        ("single-quotes", "{'alg':'ES256','kid':'k'}"),
        ("bom", "\u{feff}{\"alg\":\"ES256\",\"kid\":\"k\"}"),
        ("twice-alg", r#"{"alg":"none","alg":"ES256","kid":"k"}"#),
        ("twice-alg-same", r#"{"alg":"ES256","alg":"ES256","kid":"k"}"#),
        ("twice-kid-escaped", r#"{"alg":"ES256","kid":"x","\u006bid":"k"}"#),
        ("surrogate", r#"{"alg":"ES256","kid":"k","typ":"\ud800"}"#),
        ("control", "{\"alg\":\"ES256\",\"kid\":\"k\n\"}"),
        ("nan", r#"{"alg":"ES256","kid":"k","typ":NaN}"#),
        ("huge-number", r#"{"alg":"ES256","kid":"k","typ":1e400}"#),
        ("deep", deep.as_str()),
    ];
    for (what, header) in cases {
        let token = compact(&suite.p256, "ES256", header, "{}");
        suite.token("jws", &format!("json/{what}"), &token, Err("malformed"));
    }
}

fn by_the_letter(suite: &mut Suite) {
    for kind in ["jws", "jwt-svid"] {
        let claims = good_claims(kind).to_string();
        let token = compact(&suite.p256, "ES256", r#"{"alg":"ES256","typ":"JWT"}"#, &claims);
        suite.token_by_the_letter(kind, "without-kid", &token, Ok(()));
        let token = compact(&suite.rsa, "PS384", r#"{"alg":"PS384","typ":"JWT"}"#, &claims);
        suite.token_by_the_letter(kind, "without-kid-PS384", &token, Ok(()));
        let token = compact(&suite.foreign, "ES256", r#"{"alg":"ES256","typ":"JWT"}"#, &claims);
        let expected = if kind == "jws" { "bad_signature" } else { "sub_mismatch" };
        suite.token_by_the_letter(kind, "without-kid-foreign", &token, Err(expected));
    }
}

fn sign(suite: &Suite, kid: &str, algorithm: &str, header: &str, claims: &str) -> String {
    let key = match kid {
        "k" => &suite.p256,
        "k384" => &suite.p384,
        "other" => &suite.other,
        _ => &suite.rsa,
    };
    compact(key, algorithm, header, claims)
}
