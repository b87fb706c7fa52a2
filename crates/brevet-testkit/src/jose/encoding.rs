//! The compact form and the signature's bytes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{Suite, TOKENS, compact, good_claims, good_header};

/// The orders of the groups on P-256 and P-384.
const ORDERS: [&[u8]; 2] = [
    b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xc7\x63\x4d\x81\xf4\x37\x2d\xdf\x58\x1a\x0d\xb2\x48\xb0\xa7\x7a\xec\xec\x19\x6a\xcc\xc5\x29\x73",
];

pub(super) fn add(suite: &mut Suite) {
    for kind in TOKENS {
        serializations(suite, kind);
    }
    signatures(suite);
}

fn serializations(suite: &mut Suite, kind: &'static str) {
    let good = compact(&suite.p256, "ES256", &good_header(kind), &good_claims(kind).to_string());
    let parts: Vec<&str> = good.split('.').collect();
    let [h, p, s]: [&str; 3] = parts.try_into().unwrap();
    // The last character of a 64-byte signature holds two bits; the four others must be zero.
    let (last, neighbour) = (s.chars().last().unwrap(), |c: char| char::from(c as u8 + 1));
    let trailing_bits = format!("{h}.{p}.{}{}", s.strip_suffix(last).unwrap(), neighbour(last));
    for (what, token) in [
        ("empty", String::new()),
        ("one-dot", ".".into()),
        ("two-dots", "..".into()),
        ("no-signature", format!("{h}.{p}")),
        ("no-header", format!(".{p}.{s}")),
        ("trailing-dot", format!("{h}.{p}.{s}.")),
        ("four-parts", format!("{h}.{p}.{s}.{s}")),
        ("five-parts", format!("{h}.{p}.{s}.{s}.{s}")),
        ("signature-padded", format!("{h}.{p}.{s}=")),
        ("signature-padded-twice", format!("{h}.{p}.{s}==")),
        ("header-padded", format!("{h}=.{p}.{s}")),
        ("payload-padded", format!("{h}.{p}=.{s}")),
        ("leading-space", format!(" {h}.{p}.{s}")),
        ("trailing-newline", format!("{h}.{p}.{s}\n")),
        ("inner-newline", format!("{h}.\n{p}.{s}")),
        ("nul", format!("{h}.{p}.{s}\0")),
        ("full-width-dot", format!("{h}\u{ff0e}{p}.{s}")),
        ("look-alike", format!("{h}.{p}.{}", s.replacen(|c: char| c.is_ascii_alphanumeric(), "\u{430}", 1))),
        ("trailing-bits", trailing_bits),
        ("standard-alphabet", format!("{h}.{p}+/.{s}")),
        ("flattened", json!({"protected": h, "payload": p, "signature": s}).to_string()),
        ("general", json!({"payload": p, "signatures": [{"protected": h, "signature": s}]}).to_string()),
        ("too-long", compact(&suite.p256, "ES256", &good_header(kind), &"x".repeat(20_000))),
    ] {
        suite.token(kind, &format!("encoding/{what}"), &token, Err("malformed"));
    }
    suite.token(kind, "encoding/empty-signature", &format!("{h}.{p}."), Err("bad_signature"));
    let other = compact(&suite.p256, "ES256", &good_header(kind), "{}");
    let swapped = format!("{h}.{p}.{}", other.rsplit_once('.').unwrap().1);
    suite.token(kind, "encoding/signature-of-another", &swapped, Err("bad_signature"));
    let nested = compact(&suite.p256, "ES256", &good_header(kind), &good);
    let expected = if kind == "jws" { Ok(()) } else { Err("malformed") };
    suite.token(kind, "encoding/nested", &nested, expected);
}

fn signatures(suite: &mut Suite) {
    let input = |algorithm: &str, kid: &str| {
        let header = json!({"alg": algorithm, "kid": kid}).to_string();
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"))
    };
    for (algorithm, kid, order) in [("ES256", "k", ORDERS[0]), ("ES384", "k384", ORDERS[1])] {
        let (key, input) = (if kid == "k" { &suite.p256 } else { &suite.p384 }, input(algorithm, kid));
        let signature = key.sign_jose(algorithm, input.as_bytes());
        let (r, s) = signature.split_at(order.len());
        let zero = vec![0; order.len()];
        let wrong = [
            ("all-zero", vec![0; 2 * order.len()]),
            ("r-zero", [&zero, s].concat()),
            ("s-zero", [r, &zero].concat()),
            ("r-order", [order, s].concat()),
            ("s-order", [r, order].concat()),
            ("both-order", [order, order].concat()),
            ("all-ones", vec![0xff; 2 * order.len()]),
            ("swapped", [s, r].concat()),
            ("der", key.sign(input.as_bytes())),
            ("short", signature.iter().skip(1).copied().collect()),
            ("long", [&signature[..], &[0]].concat()),
            ("zero-prefixed", [&[0][..], r, &[0], s].concat()),
            ("of-another-text", key.sign_jose(algorithm, b"another")),
            ("of-another-key", suite.foreign.sign_jose(algorithm, input.as_bytes())),
        ];
        for (what, bytes) in wrong {
            let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(bytes));
            suite.token("jws", &format!("signature/{algorithm}-{what}"), &token, Err("bad_signature"));
        }
    }
    for (algorithm, kid, other) in [("RS256", "rs", "PS256"), ("PS256", "ps", "RS256")] {
        let input = input(algorithm, kid);
        let signature = suite.rsa.sign_jose(algorithm, input.as_bytes());
        let wrong = [
            ("empty", vec![]),
            ("all-zero", vec![0; signature.len()]),
            ("all-ones", vec![0xff; signature.len()]),
            ("short", signature.iter().skip(1).copied().collect()),
            ("long", [&[0][..], &signature].concat()),
            ("of-the-other-scheme", suite.rsa.sign_jose(other, input.as_bytes())),
            ("of-another-digest", suite.rsa.sign_jose("RS512", input.as_bytes())),
            ("of-another-text", suite.rsa.sign_jose(algorithm, b"another")),
        ];
        for (what, bytes) in wrong {
            let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(bytes));
            suite.token("jws", &format!("signature/{algorithm}-{what}"), &token, Err("bad_signature"));
        }
    }
    // A MAC under what everybody knows of the key is no signature.
    let secrets = [suite.p256.spki(), json!(suite.p256.jwk()).to_string().into_bytes()];
    for (what, secret) in ["spki", "jwk"].into_iter().zip(secrets) {
        let input = input("HS256", "k");
        let mac = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret), input.as_bytes());
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(mac));
        suite.token("jws", &format!("signature/mac-under-{what}"), &token, Err("alg_forbidden"));
    }
}
