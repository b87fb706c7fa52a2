//! What is shown to the daemon as proof of who calls, and proves nobody.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use brevet_client::dpop::{Proof, prove};
use brevet_core::fact::Fact;
use brevet_testkit::x509::Key;
use ring::hmac;
use serde_json::{Value, json};
use tonic::codegen::http::{HeaderMap, HeaderValue};

use crate::forge::{Forge, Kind};
use crate::tokens::{AGENT, AUDIENCE, CREATE, ISSUER, OTHER_ISSUER, ROBOT, Tokens, send, sign};
use crate::world::{Written, next_second, now};

/// What one call shows.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) headers: HeaderMap,
    /// Why it is refused, as the journal has it. The caller is told the same in every case.
    pub(crate) recorded: &'static str,
}

/// The order of P-256 (SEC 2 §2.4.2).
pub(crate) const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The order of P-384 (SEC 2 §2.5.1).
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a,
    0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

/// The cases of one attack.
pub(crate) type Cases = fn(&Forge<'_>) -> Vec<Case>;

/// Shows all of it and holds the journal against it.
pub(crate) async fn run(attacks: impl Iterator<Item = (u8, Cases)>) {
    let tokens = Tokens::start();
    next_second().await;
    let stranger = tokens.client(None, "", &tokens.holder).await;
    let mut expected = Vec::new();
    for (number, cases) in attacks {
        for kind in [Kind::JwtSvid, Kind::Oidc] {
            for Case { what, headers, recorded } in cases(&Forge::of(kind, &tokens)) {
                let what = format!("{number}, {kind:?}: {what}");
                println!("{what}");
                send(&stranger, headers, recorded).await;
                expected.push((what, recorded));
            }
        }
    }
    drop(stranger);
    assert_recorded(&expected, &tokens.world.stop());
}

/// The journal has these refusals of strangers, one by one and in this order.
pub(crate) fn assert_recorded(expected: &[(String, &str)], journal: &[Written]) {
    let denied = |written: &Written| match &written.fact {
        Fact::Denied { reason, .. } => Some((reason.as_str().to_owned(), written.envelope.caller.is_none())),
        _ => None,
    };
    let recorded: Vec<_> = journal.iter().filter_map(denied).collect();
    for (index, (what, reason)) in expected.iter().enumerate() {
        assert_eq!(recorded.get(index), Some(&((*reason).to_owned(), true)), "{what}");
    }
    assert_eq!(recorded.len(), expected.len());
}

/// How many proofs were made: their names.
static PROOFS: AtomicU64 = AtomicU64::new(0);

/// The headers of a call that shows this token, with a proof made for it by the holder's key.
pub(crate) fn with_proof(tokens: &Tokens, token: &str) -> HeaderMap {
    let url = tokens.world.endpoints().grpc + CREATE;
    let id = PROOFS.fetch_add(1, Ordering::Relaxed).to_string();
    let proof = Proof { method: "POST", url: &url, issued_at: now(), id: &id, access_token: Some(token) };
    showing(token, &prove(&Tokens::key(&tokens.holder), &proof).unwrap())
}

/// The headers that show a token with a proof.
pub(crate) fn showing(token: &str, proof: &str) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value(&format!("Bearer {token}")));
    headers.insert("dpop", value(proof));
    headers
}

/// A token with a good proof.
fn token(tokens: &Forge<'_>, what: impl Into<String>, token: &str, recorded: &'static str) -> Case {
    Case { what: what.into(), headers: with_proof(tokens, token), recorded }
}

/// Good claims under this header, signed by the key `k`.
fn header(tokens: &Forge<'_>, header: &str, recorded: &'static str) -> Case {
    token(tokens, header, &sign(tokens.key(), header, &tokens.claims()), recorded)
}

fn headers(tokens: &Forge<'_>, texts: &[Value], recorded: &'static str) -> Vec<Case> {
    texts.iter().map(|text| header(tokens, &text.to_string(), recorded)).collect()
}

/// A good token with another claim, or with one of another value.
fn claim(tokens: &Forge<'_>, name: &str, value: Value, recorded: &'static str) -> Case {
    let mut claims = tokens.claims();
    let what = format!("{name} {value}");
    claims[name] = value;
    token(tokens, what, &tokens.signed(&claims), recorded)
}

fn claims(tokens: &Forge<'_>, name: &str, values: &[Value], recorded: &'static str) -> Vec<Case> {
    values.iter().map(|value| claim(tokens, name, value.clone(), recorded)).collect()
}

/// A good token without a claim.
fn without(tokens: &Forge<'_>, name: &str, recorded: &'static str) -> Case {
    let mut claims = tokens.claims();
    claims.as_object_mut().unwrap().remove(name);
    token(tokens, format!("no {name}"), &tokens.signed(&claims), recorded)
}

/// These bytes as the payload of a well signed token.
fn payload(tokens: &Forge<'_>, bytes: &[u8]) -> Case {
    let what = String::from_utf8_lossy(bytes.get(..bytes.len().min(60)).unwrap()).into_owned();
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(tokens.with("typ", json!("JWT")).to_string()),
        URL_SAFE_NO_PAD.encode(bytes)
    );
    let signature = URL_SAFE_NO_PAD.encode(tokens.key().sign_jose("", input.as_bytes()));
    token(tokens, what, &format!("{input}.{signature}"), "malformed")
}

pub(crate) fn algorithms(tokens: &Forge<'_>) -> Vec<Case> {
    let names = ["none", "None", "nOnE", "NONE", "", " ES256", "es256", "ES256K", "EdDSA", "ES512", "es384"];
    let mut values: Vec<Value> = names.iter().map(|name| tokens.with("alg", json!(name))).collect();
    values
        .extend([json!(1), json!(["ES256"]), json!(null), json!({})].map(|value| tokens.with("alg", value)));
    values.push(json!({"kid": "k", "typ": "JWT"}));
    let mut cases = headers(tokens, &values, "alg_forbidden");
    // Unsigned, as RFC 7519 §6 has it.
    let signed = sign(tokens.key(), r#"{"alg":"none","kid":"k"}"#, &tokens.claims());
    let unsigned = signed.rsplit_once('.').unwrap().0.to_owned() + ".";
    cases.push(token(tokens, "unsigned", &unsigned, "alg_forbidden"));
    cases
}

pub(crate) fn public_keys_as_secrets(tokens: &Forge<'_>) -> Vec<Case> {
    let der = tokens.key().spki();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
    let jwk = Value::Object(tokens.key().jwk()).to_string();
    let secrets = [("der", der), ("pem", pem.into_bytes()), ("jwk", jwk.into_bytes()), ("empty", vec![])];
    let mac = |name: &str, algorithm: hmac::Algorithm, secret: &[u8]| {
        let header = tokens.with("alg", json!(name)).to_string();
        let claims = tokens.claims().to_string();
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let tag = hmac::sign(&hmac::Key::new(algorithm, secret), input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let algorithms =
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)];
    let each = |(name, algorithm): (&'static str, hmac::Algorithm)| {
        let one = move |(what, secret): &(&str, Vec<u8>)| {
            token(tokens, format!("{name} {what}"), &mac(name, algorithm, secret), "alg_forbidden")
        };
        secrets.iter().map(one).collect::<Vec<_>>()
    };
    algorithms.into_iter().flat_map(each).collect()
}

pub(crate) fn other_algorithms(tokens: &Forge<'_>) -> Vec<Case> {
    let values =
        ["RS256", "PS256", tokens.algorithms()[1], "RS512"].map(|name| tokens.with("alg", json!(name)));
    headers(tokens, &values, "alg_key_mismatch")
}

pub(crate) fn key_names(tokens: &Forge<'_>) -> Vec<Case> {
    let names = ["other", "K", "", "../../dev/null", "/etc/passwd", "' OR 1=1 --", "k\0", "k ", "\u{212a}"];
    let mut values: Vec<Value> = names.iter().map(|name| tokens.with("kid", json!(name))).collect();
    values.extend([json!(1), json!(["k"]), json!(null)].map(|value| tokens.with("kid", value)));
    values.push(json!({"alg": tokens.algorithms()[0]}));
    values.push(tokens.with("kid", json!("k".repeat(2_000))));
    headers(tokens, &values, "kid_unknown")
}

/// Whoever is led elsewhere connects to this listener.
pub(crate) async fn nobody_follows(tokens: &Tokens) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let stranger = tokens.client(None, "", &tokens.holder).await;
    for kind in [Kind::JwtSvid, Kind::Oidc] {
        let forge = Forge::of(kind, tokens);
        for name in ["jku", "x5u"] {
            let case = header(&forge, &forge.with(name, json!(url)).to_string(), "header_forbidden");
            send(&stranger, case.headers, case.recorded).await;
        }
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody connected");
}

pub(crate) fn pointers(tokens: &Forge<'_>) -> Vec<Case> {
    let urls = ["http://127.0.0.1/keys", "http://169.254.169.254/latest", "file:///etc/passwd", ""];
    let values = ["jku", "x5u"].into_iter().flat_map(|name| urls.map(|url| tokens.with(name, json!(url))));
    headers(tokens, &values.collect::<Vec<_>>(), "header_forbidden")
}

pub(crate) fn own_keys(tokens: &Forge<'_>) -> Vec<Case> {
    let key = Key::p256();
    let values =
        [("jwk", json!(key.jwk())), ("x5c", json!([STANDARD.encode(key.spki())])), ("jwk", json!({}))];
    let own = |(name, value): (&str, Value)| {
        let signed = sign(&key, &tokens.with(name, value).to_string(), &tokens.claims());
        token(tokens, format!("its own {name}"), &signed, "header_forbidden")
    };
    values.into_iter().map(own).collect()
}

pub(crate) fn extensions(tokens: &Forge<'_>) -> Vec<Case> {
    let mut values: Vec<Value> =
        [json!(["exp"]), json!([]), json!(["alg"]), json!(["b64"]), json!("alg"), json!(null)]
            .map(|value| tokens.with("crit", value))
            .into();
    values.extend([json!(false), json!(true)].map(|value| tokens.with("b64", value)));
    headers(tokens, &values, "crit_unsupported")
}

pub(crate) fn further_headers(tokens: &Forge<'_>) -> Vec<Case> {
    let names = ["cty", "x5t", "x5t#S256", "zip", "enc", "iss", "nonce", "brevet", ""];
    // Issuers say there which certificate their key has, and nothing is done with it.
    let passed_over = |name: &&str| tokens.kind == Kind::Oidc && name.starts_with("x5t");
    let names = names.into_iter().filter(|name| !passed_over(name));
    let values: Vec<Value> = names.map(|name| tokens.with(name, json!("x"))).collect();
    headers(tokens, &values, "header_forbidden")
}

pub(crate) fn types(tokens: &Forge<'_>) -> Vec<Case> {
    let names = ["at+jwt", "dpop+jwt", "logout+jwt", "secevent+jwt", "application/jwt", "jwt", " JWT", ""];
    let mut values: Vec<Value> = names.iter().map(|name| tokens.with("typ", json!(name))).collect();
    values.push(tokens.with("typ", json!(["JWT"])));
    headers(tokens, &values, "typ_mismatch")
}

pub(crate) fn serializations(tokens: &Forge<'_>) -> Vec<Case> {
    let good = tokens.signed(&tokens.claims());
    let [head, body, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let one = json!({"protected": head, "signature": signature});
    let mut cases: Vec<Case> = [
        json!({"payload": body, "signatures": [one]}).to_string(),
        json!({"payload": body, "signatures": [one, one]}).to_string(),
        json!({"payload": body, "protected": head, "signature": signature}).to_string(),
        format!("{head}.{body}"),
        format!("{head}.{body}.{signature}."),
        format!(".{head}.{body}.{signature}"),
        format!("{head}.{body}.{signature}.{signature}"),
        format!("{head}..{body}.{signature}.{signature}"),
        format!("{head}.{body}.{signature}.{signature}.{signature}.{signature}"),
        format!("{good}~"),
        format!("{good},{good}"),
        String::new(),
        "...".to_owned(),
    ]
    .iter()
    .map(|text| token(tokens, text.get(..text.len().min(30)).unwrap(), text, "malformed"))
    .collect();
    cases.push(payload(tokens, good.as_bytes()));
    cases
}

/// The text without so many bytes at its end.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.len() - bytes).unwrap()
}

pub(crate) fn encodings(tokens: &Forge<'_>) -> Vec<Case> {
    let good = tokens.signed(&tokens.claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    // Of the last character of 64 bytes only four bits count, and of 96 bytes, as an ES384 signature has, all do: their
    // text is lengthened by a character of which two bits count.
    let trailing_bits = match tokens.kind {
        Kind::JwtSvid => {
            let next = char::from(signature.as_bytes().last().unwrap() + 1);
            format!("{signed}.{}{next}", cut(signature, 1))
        }
        Kind::Oidc => format!("{good}AB"),
    };
    let standard = format!("{signed}.{}+/", cut(signature, 2));
    let mut cases: Vec<Case> = [
        format!("{good}="),
        format!("{good}=="),
        trailing_bits,
        standard,
        format!("{good} "),
        format!(" {good}"),
        good.replacen('.', " .", 1),
        // No bytes have a text of one more character than a multiple of four.
        format!("{signed}.{}", cut(signature, (signature.len() - 1) % 4)),
    ]
    .iter()
    .map(|text| token(tokens, text.get(text.len() - 9..).unwrap(), text, "malformed"))
    .collect();
    cases.push(token(tokens, "a letter that looks alike", &good.replace('e', "е"), "ambiguous_credentials"));
    cases
}

pub(crate) fn json_texts(tokens: &Forge<'_>) -> Vec<Case> {
    let good = tokens.claims().to_string();
    let inner = good.trim_start_matches('{').trim_end_matches('}');
    let mut texts: Vec<Vec<u8>> = [
        format!(r#"{{"sub":"{ROBOT}",{inner}}}"#),
        format!(r#"{{{inner},"sub":"{ROBOT}"}}"#),
        format!(r#"{{{inner},"x":{{"a":1,"a":2}}}}"#),
        format!(r#"{{{inner},"s\u0075b":"{AGENT}"}}"#),
        format!(r#"{{{inner},"x":{}{}}}"#, "[".repeat(4_000), "]".repeat(4_000)),
        format!(r#"{{{inner},"x":1e400}}"#),
        format!(r#"{{{inner},"x":NaN}}"#),
        format!(r#"{{{inner},"x":"\ud800"}}"#),
        format!(r#"{{{inner},"x":01}}"#),
        format!(r"{{{inner},}}"),
        format!("\u{feff}{good}"),
        format!("{good}x"),
        format!("{good}{good}"),
        format!("[{good}]"),
        "null".to_owned(),
        String::new(),
    ]
    .map(String::into_bytes)
    .into();
    texts.push(format!(r#"{{{inner},"x":"{}"}}"#, '\u{1}').into_bytes());
    texts.push([good.as_bytes(), &[0]].concat());
    texts.push([br#"{"x":""#.as_slice(), &[0xff], br#"","#, inner.as_bytes(), b"}"].concat());
    let mut cases: Vec<Case> = texts.iter().map(|text| payload(tokens, text)).collect();
    let [alg, _] = tokens.algorithms();
    for text in [
        format!(r#"{{"alg":"{alg}","kid":"k","alg":"none"}}"#),
        format!(r#"{{"alg":"none","kid":"k","alg":"{alg}"}}"#),
        format!(r#"{{"alg":"{alg}","kid":"k"}}x"#),
        format!("\u{feff}{{\"alg\":\"{alg}\",\"kid\":\"k\"}}"),
        format!(r#"["{alg}"]"#),
    ] {
        cases.push(header(tokens, &text, "malformed"));
    }
    cases
}

pub(crate) fn times_that_are_none(tokens: &Forge<'_>) -> Vec<Case> {
    let at = now().seconds();
    let mut cases = vec![without(tokens, "exp", "time_invalid"), without(tokens, "iat", "time_invalid")];
    let values = [
        json!(at.to_string()),
        json!(-1),
        json!(0),
        json!(i64::MIN),
        json!(1e30),
        json!(null),
        json!([at]),
        json!(true),
        json!(1u64 << 63),
        json!(u64::MAX),
        json!(at as f64 + 60.5),
        json!(at - 1),
        json!(at + 100_000),
    ];
    cases.extend(claims(tokens, "exp", &values, "time_invalid"));
    let values =
        [json!("now"), json!(-1), json!(at as f64 + 0.5), json!(null), json!(at + 300), json!(u64::MAX)];
    cases.extend(claims(tokens, "iat", &values, "time_invalid"));
    cases
}

pub(crate) fn times_past(tokens: &Forge<'_>) -> Vec<Case> {
    let at = now().seconds();
    let ends = |exp: u64| {
        let mut claims = tokens.claims();
        (claims["iat"], claims["exp"]) = (json!(at - 30), json!(exp));
        token(tokens, format!("ended {} s ago", at - exp), &tokens.signed(&claims), "expired")
    };
    vec![ends(at), ends(at - 1), ends(at - 20), claim(tokens, "iat", json!(at - 62), "token_too_old")]
}

pub(crate) fn times_to_come(tokens: &Forge<'_>) -> Vec<Case> {
    let at = now().seconds();
    let mut cases =
        claims(tokens, "nbf", &[json!(at + 60), json!(at + 299), json!(u64::MAX)], "time_invalid");
    cases.extend(claims(tokens, "iat", &[json!(at + 60), json!(at + 120)], "time_invalid"));
    cases
}

pub(crate) fn audiences(tokens: &Forge<'_>) -> Vec<Case> {
    let mut cases = vec![without(tokens, "aud", "aud_mismatch")];
    let values = [
        json!([]),
        json!([AUDIENCE, "https://files.dev.example"]),
        json!([AUDIENCE, AUDIENCE]),
        json!([[AUDIENCE]]),
        json!(AUDIENCE.trim_end_matches('e')),
        json!(format!("{AUDIENCE}/")),
        json!(format!("{AUDIENCE}.evil.example")),
        json!(AUDIENCE.to_uppercase()),
        json!(AUDIENCE.replace("https", "http")),
        json!(format!(" {AUDIENCE}")),
        json!(""),
        json!(1),
        json!(null),
        json!({"a": AUDIENCE}),
    ];
    cases.extend(claims(tokens, "aud", &values, "aud_mismatch"));
    cases
}

pub(crate) fn issuers(tokens: &Forge<'_>) -> Vec<Case> {
    // Those of the issuer are among these.
    if tokens.kind == Kind::Oidc {
        return Vec::new();
    }
    let of = |iss: Option<Value>, recorded| {
        let mut claims = Tokens::claims("robot");
        let what = format!("iss {iss:?}");
        if let Some(iss) = iss {
            claims["iss"] = iss;
        }
        token(tokens, what, &tokens.token(&claims), recorded)
    };
    // What names no issuer that is configured has to be a JWT-SVID, and this subject is no workload.
    let mut cases: Vec<Case> = [
        None,
        Some(json!([ISSUER])),
        Some(json!(1)),
        Some(json!(format!("{ISSUER}/"))),
        Some(json!(ISSUER.to_uppercase())),
        Some(json!(ISSUER.replace('i', "і"))),
        Some(json!("https://xn--ssuer-v4e.dev.example")),
        Some(json!(AUDIENCE)),
    ]
    .map(|iss| of(iss, "sub_mismatch"))
    .into();
    // Another authority's token in the issuer's name.
    let mut mixed_up = Tokens::claims("robot");
    mixed_up["iss"] = json!(ISSUER);
    cases.push(token(tokens, "mixed up", &tokens.svid(&mixed_up), "alg_key_mismatch"));
    cases.push(token(tokens, "another issuer's", &tokens.token_from_elsewhere(&mixed_up), "bad_signature"));
    mixed_up["iss"] = json!(OTHER_ISSUER);
    cases.push(token(tokens, "the issuer's in another's name", &tokens.token(&mixed_up), "bad_signature"));
    let own = sign(&Key::p384(), r#"{"alg":"ES384","kid":"k"}"#, &mixed_up);
    cases.push(token(tokens, "self-made", &own, "bad_signature"));
    cases
}

pub(crate) fn subjects(tokens: &Forge<'_>) -> Vec<Case> {
    // Those of the issuer are among these.
    if tokens.kind == Kind::Oidc {
        return Vec::new();
    }
    let mut cases = vec![without(tokens, "sub", "sub_mismatch")];
    let domain = AGENT.trim_end_matches("/agent");
    let values = [
        json!("agent"),
        json!(""),
        json!(1),
        json!([AGENT]),
        json!(domain),
        json!(format!("{domain}/")),
        json!(format!("{AGENT}/")),
        json!(format!("{domain}//agent")),
        json!(format!("{domain}/../agent")),
        json!(AGENT.to_uppercase()),
        json!(AGENT.replace("spiffe:", "SPIFFE:")),
        json!(format!("{AGENT}?x")),
        json!(format!("{AGENT}#x")),
        json!(format!("{AGENT}\0")),
        json!(AGENT.replace("//", "//u@")),
        json!(AGENT.replace("example", "example:443")),
        json!(AGENT.replace('a', "а")),
        json!("https://tokens.dev.example/agent"),
        // Of trust domains over which this authority has no say.
        json!("spiffe://workloads.dev.example/agent/a"),
        json!("spiffe://unknown.example/agent"),
        json!(ROBOT),
    ];
    cases.extend(claims(tokens, "sub", &values, "sub_mismatch"));
    // The issuer's own word for others.
    for sub in ["Robot", "robot ", "another", AGENT, ""] {
        let mut claims = Tokens::claims(sub);
        claims["iss"] = json!(ISSUER);
        cases.push(token(tokens, format!("the issuer's {sub:?}"), &tokens.token(&claims), "sub_mismatch"));
    }
    cases
}

pub(crate) fn signatures(tokens: &Forge<'_>) -> Vec<Case> {
    let order: &[u8] = match tokens.kind {
        Kind::JwtSvid => &P256_ORDER,
        Kind::Oidc => &P384_ORDER,
    };
    let length = order.len();
    let good = tokens.signed(&tokens.claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = signature.split_at(length);
    let (zero, one) = (vec![0; length], [&vec![0; length - 1][..], &[1]].concat());
    let another = match tokens.kind {
        Kind::JwtSvid => Key::p256(),
        Kind::Oidc => Key::p384(),
    };
    [
        ("r = 0", [&zero, s].concat()),
        ("s = 0", [r, &zero].concat()),
        ("both 0", [&zero[..], &zero].concat()),
        ("both 1", [&one[..], &one].concat()),
        ("r = n", [order, s].concat()),
        ("s = n", [r, order].concat()),
        ("both n", [order, order].concat()),
        ("all ones", vec![0xff; 2 * length]),
        ("swapped", [s, r].concat()),
        ("in DER", tokens.key().sign(signed.as_bytes())),
        ("short", signature[..2 * length - 1].to_vec()),
        ("long", [&signature[..], &[0]].concat()),
        ("of three numbers", [&zero[..], r, s].concat()),
        ("none", vec![]),
        ("of another text", tokens.key().sign_jose("", b"another")),
        ("by another key", another.sign_jose("", signed.as_bytes())),
    ]
    .into_iter()
    .map(|(what, bytes)| {
        token(tokens, what, &format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes)), "bad_signature")
    })
    .collect()
}

pub(crate) fn confirmations(tokens: &Forge<'_>) -> Vec<Case> {
    let own = Tokens::key(&tokens.holder).thumbprint().to_string();
    let values = [
        json!({"jkt": own, "x5t#S256": URL_SAFE_NO_PAD.encode([1; 32])}),
        json!({"x5t#S256": URL_SAFE_NO_PAD.encode([1; 32])}),
        json!({"jkt": URL_SAFE_NO_PAD.encode([1; 32])}),
        json!({"jkt": own, "jwk": tokens.svids.jwk()}),
        json!({"jwk": tokens.svids.jwk()}),
        json!({"kid": "k"}),
        json!({}),
        json!(null),
        json!(own),
    ];
    claims(tokens, "cnf", &values, "cnf_mismatch")
}

pub(crate) fn old_or_wide(tokens: &Forge<'_>) -> Vec<Case> {
    let at = now().seconds();
    vec![
        claim(tokens, "iat", json!(at - 120), "token_too_old"),
        claim(tokens, "aud", json!([AUDIENCE, "https://files.dev.example"]), "aud_mismatch"),
    ]
}

pub(crate) fn own_credentials(tokens: &Forge<'_>) -> Vec<Case> {
    // An issuer's word makes nobody that the broker's own trust domain knows.
    if tokens.kind == Kind::Oidc {
        return Vec::new();
    }
    let own = tokens.world.endpoints().server_spiffe_id.to_string();
    let task = own.replace("/brevet", "/agent/workloads.dev.example/agent/a/task/7zzzzzzzzzzzzzzzzzzzzzzzzz");
    claims(tokens, "sub", &[json!(own), json!(task)], "own_credential")
}
