use serde_json::json;

use super::*;
use crate::test_keys::{TestKey, jwk_set};

const PROFILE: HeaderProfile =
    HeaderProfile { token_type: TokenType::Exactly("at+jwt"), key: KeyReference::Kid, unread: &[] };
const EMBEDDED: HeaderProfile =
    HeaderProfile { token_type: TokenType::Exactly("dpop+jwt"), key: KeyReference::Embedded, unread: &[] };
const GOOD: &str = r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#;

struct Fixture {
    key: TestKey,
    keys: JwkSet,
}

fn fixture() -> Fixture {
    let key = TestKey::p256();
    let keys = jwk_set(&[("k", &key), ("other", &TestKey::p256()), ("k384", &TestKey::p384())]);
    Fixture { key, keys }
}

impl Fixture {
    fn judge(&self, token: &str) -> Result<Vec<u8>, &'static str> {
        Jws::parse(token, PROFILE).and_then(|jws| jws.verify_with(&self.keys)).map_err(JwsError::reason)
    }
}

#[test]
fn a_good_token_yields_its_payload() {
    let f = fixture();
    assert_eq!(f.judge(&f.key.jws(GOOD, r#"{"a":1}"#)).unwrap(), br#"{"a":1}"#);
    let any = HeaderProfile { token_type: TokenType::Any, key: KeyReference::Kid, unread: &[] };
    let untyped = f.key.jws(r#"{"alg":"ES256","kid":"k"}"#, "x");
    assert_eq!(Jws::parse(&untyped, any).unwrap().verify_with(&f.keys).unwrap(), b"x");
}

#[test]
fn a_header_outside_the_profile_is_refused_with_its_reason() {
    let f = fixture();
    let kid_64k = format!(r#"{{"alg":"ES256","kid":"{}","typ":"at+jwt"}}"#, "k".repeat(12_000 / 4 * 3));
    let deep = format!(r#"{{"alg":"ES256","kid":"k","typ":{}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    for (header, reason) in [
        // The algorithm.
        (r#"{"alg":"none","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"None","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"nOnE","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":1,"kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":["ES256"],"kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"es256","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"ES256 ","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"HS256","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"HS512","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"EdDSA","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"ES256K","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"ECDH-ES","kid":"k","typ":"at+jwt"}"#, "alg_forbidden"),
        (r#"{"alg":"RS256","kid":"k","typ":"at+jwt"}"#, "alg_key_mismatch"),
        (r#"{"alg":"PS256","kid":"k","typ":"at+jwt"}"#, "alg_key_mismatch"),
        (r#"{"alg":"ES384","kid":"k","typ":"at+jwt"}"#, "alg_key_mismatch"),
        (r#"{"alg":"ES256","kid":"k384","typ":"at+jwt"}"#, "alg_key_mismatch"),
        // The key.
        (r#"{"alg":"ES256","typ":"at+jwt"}"#, "kid_unknown"),
        (r#"{"alg":"ES256","kid":"","typ":"at+jwt"}"#, "kid_unknown"),
        (r#"{"alg":"ES256","kid":"K","typ":"at+jwt"}"#, "kid_unknown"),
        (r#"{"alg":"ES256","kid":1,"typ":"at+jwt"}"#, "kid_unknown"),
        (r#"{"alg":"ES256","kid":null,"typ":"at+jwt"}"#, "kid_unknown"),
        (r#"{"alg":"ES256","kid":["k"],"typ":"at+jwt"}"#, "kid_unknown"),
        (r#"{"alg":"ES256","kid":"k\u0000","typ":"at+jwt"}"#, "kid_unknown"),
        (r#"{"alg":"ES256","kid":"../../dev/null","typ":"at+jwt"}"#, "kid_unknown"),
        (r#"{"alg":"ES256","kid":"' OR 1=1","typ":"at+jwt"}"#, "kid_unknown"),
        (&kid_64k, "kid_unknown"),
        (r#"{"alg":"ES256","kid":"other","typ":"at+jwt"}"#, "bad_signature"),
        // The type.
        (r#"{"alg":"ES256","kid":"k"}"#, "typ_mismatch"),
        (r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#, "typ_mismatch"),
        (r#"{"alg":"ES256","kid":"k","typ":"AT+JWT"}"#, "typ_mismatch"),
        (r#"{"alg":"ES256","kid":"k","typ":"application/at+jwt"}"#, "typ_mismatch"),
        (r#"{"alg":"ES256","kid":"k","typ":"dpop+jwt"}"#, "typ_mismatch"),
        (r#"{"alg":"ES256","kid":"k","typ":["at+jwt"]}"#, "typ_mismatch"),
        // Headers that lead elsewhere.
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","jku":"http://169.254.169.254/"}"#, "header_forbidden"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","x5u":"file:///etc/passwd"}"#, "header_forbidden"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","x5c":[]}"#, "header_forbidden"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","jwk":{}}"#, "header_forbidden"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","cty":"JWT"}"#, "header_forbidden"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","zip":"DEF"}"#, "header_forbidden"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","":0}"#, "header_forbidden"),
        // Extensions.
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","crit":["exp"],"exp":1}"#, "crit_unsupported"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","crit":[]}"#, "crit_unsupported"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","crit":["alg"]}"#, "crit_unsupported"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt","b64":false}"#, "crit_unsupported"),
        // The header's JSON.
        (r#"{"alg":"ES256","alg":"ES256","kid":"k","typ":"at+jwt"}"#, "malformed"),
        (r#"{"alg":"none","alg":"ES256","kid":"k","typ":"at+jwt"}"#, "malformed"),
        (r#"{"alg":"ES256","kid":"k","\u006bid":"k","typ":"at+jwt"}"#, "malformed"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt"} x"#, "malformed"),
        (r#"["alg"]"#, "malformed"),
        ("", "malformed"),
        ("{", "malformed"),
        (&deep, "malformed"),
    ] {
        assert_eq!(f.judge(&f.key.jws(header, "{}")), Err(reason), "{header:.100}");
    }
}

#[test]
fn only_the_canonical_compact_form_is_read() {
    let f = fixture();
    let good = f.key.jws(GOOD, "{\"a\":\"\u{e4}??>>\"}");
    assert!(f.judge(&good).is_ok());
    let [h, p, s]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    // The last character of a 64-byte signature holds two bits; the four others must be zero.
    let last = s.chars().last().unwrap();
    let neighbour = char::from(last as u8 + 1);
    let trailing_bits = format!("{h}.{p}.{}{neighbour}", s.strip_suffix(last).unwrap());
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        format!("{h}.{p}"),
        format!("{h}.{p}."),
        format!("{h}.{p}.{s}."),
        format!("{h}.{p}.{s}.{s}.{s}"),
        format!(".{p}.{s}"),
        format!("{h}.{p}.{s}="),
        format!("{h}=.{p}.{s}"),
        format!("{h}.{p}==.{s}"),
        format!(" {h}.{p}.{s}"),
        format!("{h}.{p}.{s}\n"),
        format!("{h}.\n{p}.{s}"),
        format!("{h}.{}.{s}", p.replace('_', "/")),
        format!("{h}.{}.{s}", p.replace('-', "+")),
        format!("{h}\u{ff0e}{p}.{s}"),
        trailing_bits,
        format!(r#"{{"protected":"{h}","payload":"{p}","signature":"{s}"}}"#),
        format!(r#"{{"payload":"{p}","signatures":[{{"protected":"{h}","signature":"{s}"}}]}}"#),
        f.key.jws(GOOD, &"x".repeat(TOKEN_BYTES_MAX)),
    ] {
        let verdict = f.judge(&bad);
        if bad == format!("{h}.{p}.") {
            assert_eq!(verdict, Err("bad_signature"));
        } else if bad != good {
            assert_eq!(verdict, Err("malformed"), "{bad:.120}");
        }
    }
}

#[test]
fn any_other_signature_or_text_is_refused() {
    let f = fixture();
    let good = f.key.jws(GOOD, r#"{"a":1}"#);
    let (input, signature) = good.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let with = |bytes: &[u8]| format!("{input}.{}", URL_SAFE_NO_PAD.encode(bytes));
    let n = b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
    let (r, s) = signature.split_at(32);
    for bad in [
        vec![],
        vec![0; 64],
        [&[0; 32][..], s].concat(),
        [r, &[0; 32]].concat(),
        [&n[..], s].concat(),
        [r, &n[..]].concat(),
        [&n[..], &n[..]].concat(),
        [s, r].concat(),
        signature[..63].to_vec(),
        [&signature[..], &[0]].concat(),
        [&[0][..], r, &[0], s].concat(),
        f.key.sign_asn1(input.as_bytes()),
        f.key.sign(b"another text"),
        TestKey::p256().sign(input.as_bytes()),
        TestKey::p384().sign(input.as_bytes()),
    ] {
        assert_eq!(f.judge(&with(&bad)), Err("bad_signature"), "{bad:02x?}");
    }
    for flipped in 0..signature.len() * 8 {
        let mut bad = signature.clone();
        bad[flipped / 8] ^= 1 << (flipped % 8);
        assert_eq!(f.judge(&with(&bad)), Err("bad_signature"), "bit {flipped}");
    }
    let other = f.key.jws(GOOD, r#"{"a":2}"#);
    assert_eq!(
        f.judge(&format!("{}.{}", other.rsplit_once('.').unwrap().0, URL_SAFE_NO_PAD.encode(&signature))),
        Err("bad_signature")
    );
}

#[test]
fn a_mac_under_the_public_key_is_no_signature() {
    let f = fixture();
    let header = r#"{"alg":"HS256","kid":"k","typ":"at+jwt"}"#;
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"));
    for secret in [f.key.spki(), Value::Object(f.key.public().to_jwk()).to_string().into_bytes()] {
        let mac = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret), input.as_bytes());
        assert_eq!(f.judge(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(mac))), Err("alg_forbidden"));
    }
}

#[test]
fn an_embedded_key_is_public_and_proves_itself() {
    let judge =
        |token: &str| Jws::parse(token, EMBEDDED).and_then(Jws::verify_embedded).map_err(JwsError::reason);
    for key in [TestKey::p256(), TestKey::p384()] {
        let jwk = Value::Object(key.public().to_jwk());
        let with = |jwk: &Value| json!({"alg": key.alg(), "typ": "dpop+jwt", "jwk": jwk}).to_string();
        let (proven, payload) = judge(&key.jws(&with(&jwk), "{}")).unwrap();
        assert_eq!((proven, payload), (key.public(), b"{}".to_vec()));
        let foreign = Value::Object(
            if key.alg() == "ES256" { TestKey::p256() } else { TestKey::p384() }.public().to_jwk(),
        );
        let mut private = jwk.clone();
        private["d"] = json!("AA");
        for (header, reason) in [
            (with(&foreign), "bad_signature"),
            (with(&private), "key_unacceptable"),
            (with(&json!({"kty": "oct", "k": "AA"})), "key_unacceptable"),
            (with(&json!("k")), "key_unacceptable"),
            (json!({"alg": key.alg(), "typ": "dpop+jwt"}).to_string(), "key_unacceptable"),
            (
                json!({"alg": key.alg(), "typ": "dpop+jwt", "kid": "k", "jwk": jwk}).to_string(),
                "header_forbidden",
            ),
        ] {
            assert_eq!(judge(&key.jws(&header, "{}")).unwrap_err(), reason, "{header}");
        }
    }
}
