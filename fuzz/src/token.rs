//! Signed tokens: their form and header under every profile, and the claims behind a good signature.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::name::AudienceName;
use brevet_core::spiffe_id::TrustDomain;
use brevet_core::time::Timestamp;
use brevet_identity::bearer::{Limits, Rules};
use brevet_identity::jwk_set::JwkSet;
use brevet_identity::jws::{HeaderProfile, Jws, KeyReference, TokenType};
use brevet_identity::jwt_svid::JwtBundles;
use brevet_identity::key::PublicKey;
use brevet_identity::{dpop, jwt_svid, oidc, task_jwt_svid, task_token};
use brevet_testkit::jose::{AT, AUDIENCE, ISSUER};
use brevet_testkit::x509::Key;
use serde_json::{Map, Value, json};

/// Where a proof of possession is for.
const URL: &str = "https://broker.example/brevet.v1.CredentialService/IssueCredential";

/// The headers that some profile of the house names.
const HEADERS: [&str; 4] = ["alg", "typ", "kid", "jwk"];

const PROFILES: [HeaderProfile; 8] = [
    task_token::PROFILE,
    dpop::PROFILE,
    jwt_svid::PROFILE,
    oidc::PROFILE,
    task_jwt_svid::PROFILE,
    HeaderProfile { token_type: TokenType::Any, key: KeyReference::Kid, unread: &[] },
    HeaderProfile { token_type: TokenType::Any, key: KeyReference::KidOrNone, unread: &[] },
    HeaderProfile { token_type: TokenType::Any, key: KeyReference::Embedded, unread: &[] },
];

/// A JWK Set in the first line, a token in the second.
pub fn jws(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Some((keys, token)) = text.split_once('\n') else { return };
    let keys = JwkSet::parse(keys.as_bytes()).unwrap_or_default();
    for profile in PROFILES {
        let Ok(jws) = Jws::parse(token, profile) else { continue };
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3, "a token has three parts");
        assert!(parts.iter().all(|part| is_canonical(part)), "a part has another spelling");
        assert_eq!(URL_SAFE_NO_PAD.encode(jws.unverified_payload()), parts[1]);
        let header = URL_SAFE_NO_PAD.decode(parts[0]).expect("a header that was read");
        let header: Map<String, Value> = serde_json::from_slice(&header).expect("a header that was read");
        let named = |name: &str| HEADERS.contains(&name) || profile.unread.contains(&name);
        assert!(header.keys().all(|name| named(name)), "a header that no profile names");
        assert_eq!(header["alg"], jws.algorithm().as_str());
        if let Some(kid) = jws.kid() {
            assert_eq!(header["kid"], kid);
        }
        if let TokenType::Exactly(typ) = profile.token_type {
            assert_eq!(header["typ"], typ);
        }
        let payload = jws.unverified_payload().to_vec();
        let verified = verify(jws, profile, &keys);
        let again = Jws::parse(token, profile).expect("it was read once");
        assert_eq!(verified, verify(again, profile, &keys), "two readings differ");
        assert!(verified.is_none_or(|verified| verified == payload));
    }
    let _any = oidc::claimed_issuer(token);
}

fn verify(jws: Jws<'_>, profile: HeaderProfile, keys: &JwkSet) -> Option<Vec<u8>> {
    match profile.key {
        KeyReference::Embedded => jws.verify_embedded().ok().map(|(_, payload)| payload),
        KeyReference::Kid | KeyReference::KidOrNone => jws.verify_with(keys).ok(),
    }
}

/// Whether no other text has the same bytes in base64url without padding (RFC 4648 §3.5), by the letters alone.
fn is_canonical(part: &str) -> bool {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    let Some(values) = part.bytes().map(value).collect::<Option<Vec<u8>>>() else { return false };
    let unused = match values.len() % 4 {
        0 => 0,
        2 => 0b1111,
        3 => 0b11,
        _ => return false,
    };
    values.last().is_none_or(|last| last & unused == 0)
}

/// The keys that claims are signed with and judged by.
struct Signed {
    key: Key,
    public: PublicKey,
    set: JwkSet,
    bundles: JwtBundles,
}

static SIGNED: LazyLock<Signed> = LazyLock::new(|| {
    let key = Key::p256();
    let set = |usage: &str| {
        let mut jwk = key.jwk();
        jwk.insert("kid".to_owned(), "k".into());
        jwk.insert("use".to_owned(), usage.into());
        json!({ "keys": [jwk] }).to_string()
    };
    let bundle = JwkSet::parse_bundle(set("jwt-svid").as_bytes()).unwrap();
    let trust_domain: TrustDomain = "td.example".parse().unwrap();
    Signed {
        public: PublicKey::from_spki(&key.spki()).unwrap(),
        set: JwkSet::parse(set("sig").as_bytes()).unwrap(),
        bundles: BTreeMap::from([(trust_domain, bundle)]),
        key,
    }
});

impl Signed {
    fn token(&self, header: &Value, payload: &[u8]) -> String {
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let input = format!("{}.{}", encode(header.to_string().as_bytes()), encode(payload));
        let signature = self.key.sign_jose("ES256", input.as_bytes());
        format!("{input}.{}", encode(&signature))
    }
}

/// What they are the claims of, `t` for a task token, `j` for a JWT-SVID, `o` for an OIDC token, `d` for a DPoP proof;
/// and the claims, which the target signs.
pub fn claims(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    match kind {
        b't' => task_token_claims(payload),
        b'j' => jwt_svid_claims(payload),
        b'o' => oidc_claims(payload),
        b'd' => dpop_claims(payload),
        _ => {}
    }
}

/// The claims as a reader sees them who is less strict, and the same in other words. Both say the same, or a name
/// stood there twice.
fn read_again(payload: &[u8]) -> (Value, Vec<u8>) {
    let claims: Value = serde_json::from_slice(payload).expect("what was accepted is JSON");
    let written = serde_json::to_vec(&claims).unwrap();
    (claims, written)
}

fn task_token_claims(payload: &[u8]) {
    let header = json!({"alg": "ES256", "kid": "k", "typ": "at+jwt"});
    let audience = AudienceName::parse(AUDIENCE).unwrap();
    let verify = |payload: &[u8], now| {
        let token = SIGNED.token(&header, payload);
        task_token::verify(&token, &SIGNED.set, ISSUER, &audience, now)
    };
    let Ok(token) = verify(payload, AT) else { return };
    let (second, written) = read_again(payload);
    let first = token.claims();
    assert_eq!(second["iss"], ISSUER);
    assert_eq!(second["aud"], AUDIENCE);
    assert_eq!(second["sub"], first.subject.as_str());
    assert_eq!(second["jti"], first.lease.to_string());
    assert_eq!(second["exp"], first.end.seconds());
    assert_eq!(second["iat"], first.issued_at.seconds());
    assert_eq!(second["rev"], first.revision.0);
    assert_eq!(second["cnf"]["jkt"], first.holder.to_string());
    let mut actor = &second["act"];
    for expected in &first.actors {
        assert_eq!(actor["sub"], expected.as_str());
        actor = &actor["act"];
    }
    assert!(actor.is_null(), "an actor that was not read");
    assert!(first.end > AT && first.issued_at < first.end);
    assert!(verify(payload, first.end).is_err(), "it outlives its end");
    let again = verify(&written, AT).expect("the same claims in other words");
    assert_eq!(format!("{first:?}"), format!("{:?}", again.claims()));
    assert_eq!(token.lease_id(), again.lease_id());
}

/// The strict rules and the standards' own.
fn rules() -> [Rules; 2] {
    [Rules::Strict(Limits::default()), Rules::Specification]
}

fn jwt_svid_claims(payload: &[u8]) {
    let header = json!({"alg": "ES256", "kid": "k", "typ": "JWT"});
    let token = SIGNED.token(&header, payload);
    let verify =
        |token: &str, rules, now| jwt_svid::verify(token, &SIGNED.bundles, None, AUDIENCE, now, rules);
    let [strict, letter] = rules().map(|rules| verify(&token, rules, AT));
    assert!(strict.is_err() || letter.is_ok(), "the strict rules permit what the standards forbid");
    for (rules, accepted) in rules().into_iter().zip([strict, letter]) {
        let Ok(svid) = accepted else { continue };
        let (second, written) = read_again(payload);
        assert_eq!(second["sub"], svid.spiffe_id.as_str());
        assert_eq!(svid.spiffe_id.trust_domain_name(), "td.example");
        is_for_us_and_ends(&second, svid.bearer.end, |now| verify(&token, rules, now).is_err());
        let again = verify(&SIGNED.token(&header, &written), rules, AT).expect("the same claims");
        assert_eq!((svid.spiffe_id, svid.bearer), (again.spiffe_id, again.bearer));
        let own: TrustDomain = "td.example".parse().unwrap();
        let refused = jwt_svid::verify(&token, &SIGNED.bundles, Some(&own), AUDIENCE, AT, rules);
        assert!(refused.is_err(), "the broker's own trust domain authenticates a caller");
    }
}

fn oidc_claims(payload: &[u8]) {
    let header = json!({"alg": "ES256", "kid": "k", "typ": "JWT"});
    let token = SIGNED.token(&header, payload);
    let verify = |token: &str, rules, now| oidc::verify(token, ISSUER, &SIGNED.set, AUDIENCE, now, rules);
    let [strict, letter] = rules().map(|rules| verify(&token, rules, AT));
    assert!(strict.is_err() || letter.is_ok(), "the strict rules permit what the standards forbid");
    for (rules, accepted) in rules().into_iter().zip([strict, letter]) {
        let Ok(accepted) = accepted else { continue };
        let (second, written) = read_again(payload);
        assert_eq!(second["iss"], ISSUER);
        assert_eq!(second["sub"], accepted.subject);
        assert_eq!(oidc::claimed_issuer(&token).as_deref(), Ok(ISSUER));
        is_for_us_and_ends(&second, accepted.bearer.end, |now| verify(&token, rules, now).is_err());
        assert_eq!(verify(&SIGNED.token(&header, &written), rules, AT), Ok(accepted));
    }
}

fn is_for_us_and_ends(claims: &Value, end: Timestamp, is_refused_at: impl Fn(Timestamp) -> bool) {
    let audiences = claims["aud"].as_array().map_or(std::slice::from_ref(&claims["aud"]), Vec::as_slice);
    assert!(audiences.iter().any(|audience| audience == AUDIENCE));
    let leeway = Limits::default().leeway;
    assert!(end.after(leeway) > AT, "it has ended");
    assert!(is_refused_at(end.after(leeway)), "it outlives its end");
}

fn dpop_claims(payload: &[u8]) {
    let header = json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": SIGNED.public.to_jwk()});
    let target = dpop::Target { method: "POST", url: URL, access_token: None, nonce: None };
    let verify =
        |payload: &[u8]| dpop::verify(&SIGNED.token(&header, payload), &target, AT, dpop::Limits::default());
    let Ok(proof) = verify(payload) else { return };
    let (second, written) = read_again(payload);
    assert_eq!(proof.thumbprint, SIGNED.public.thumbprint());
    assert_eq!(second["jti"], proof.jti);
    assert_eq!(second["htm"], "POST");
    assert_eq!(second["htu"], URL);
    assert_eq!(second["iat"], proof.issued_at.seconds());
    assert!(second.get("nonce").is_none_or(Value::is_null) && second.get("ath").is_none_or(Value::is_null));
    assert_eq!(verify(&written), Ok(proof));
}
