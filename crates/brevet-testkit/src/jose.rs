//! Tokens, proofs and key sets for any verifier to judge, each with the verdict that the standards and Brevet's profile
//! ask for.
//!
//! As with the chains of [`crate::suite`], whoever made a case says what must become of it, and a case has at most one
//! thing wrong. The cases and their ids are the same in every run, their keys are not.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::type_complexity,
    reason = "a test that cannot make its input fails, and its tables are read as tables"
)]

mod claims;
mod encoding;
mod header;
mod proof;
mod set;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::x509::Key;

/// When every case is judged.
pub const AT: Timestamp = Timestamp::from_seconds(1_795_000_000);
/// The issuer of task tokens.
pub const ISSUER: &str = "https://broker.example";
/// The audience that every token is judged for.
pub const AUDIENCE: &str = "https://files.example";
/// The workload that tokens name.
pub const AGENT: &str = "spiffe://td.example/agent/a";

/// Something to judge.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name: the kind, the group, and what is right or wrong.
    pub id: String,
    /// What it is, as `brevet verify` names it.
    pub kind: &'static str,
    /// Whether it is judged by the letter of the standards instead of Brevet's stricter profile.
    pub by_the_letter: bool,
    /// The case without its id.
    pub body: Map<String, Value>,
    /// What must become of it: it is accepted, or refused with Brevet's stable name of why.
    pub expected: Result<(), &'static str>,
}

impl Case {
    /// The case as one line of JSON, without its verdict.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut case = self.body.clone();
        case.insert("id".to_owned(), self.id.clone().into());
        Value::Object(case).to_string()
    }
}

/// All cases, in the same order in every run.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut suite = Suite {
        p256: Key::p256(),
        p384: Key::p384(),
        rsa: Key::rsa(),
        other: Key::p256(),
        foreign: Key::p256(),
        cases: Vec::new(),
    };
    header::add(&mut suite);
    encoding::add(&mut suite);
    claims::add(&mut suite);
    proof::add(&mut suite);
    set::add(&mut suite);
    suite.cases
}

/// The kinds that are tokens named by `kid`.
const TOKENS: [&str; 3] = ["jws", "jwt-svid", "token"];

/// The cases so far, and the keys that they are made with: `p256` is `k`, `p384` is `k384`, `other` is `other`, and the
/// RSA key is `rs` where it says RS256, `ps` where it says PS256, and `rsa` where it says nothing. `foreign` is another
/// trust domain's.
struct Suite {
    p256: Key,
    p384: Key,
    rsa: Key,
    other: Key,
    foreign: Key,
    cases: Vec<Case>,
}

type Expected = Result<(), &'static str>;

impl Suite {
    fn push(&mut self, id: String, kind: &'static str, body: Value, expected: Expected) {
        let body = body.as_object().unwrap().clone();
        self.cases.push(Case { id, kind, by_the_letter: false, body, expected });
    }

    /// A token of a kind, judged under the keys that all tokens are judged under.
    fn token(&mut self, kind: &'static str, what: &str, token: &str, expected: Expected) {
        let body = self.body(kind, token);
        self.push(format!("{kind}/{what}"), kind, body, expected);
    }

    /// The same, by the letter.
    fn token_by_the_letter(&mut self, kind: &'static str, what: &str, token: &str, expected: Expected) {
        self.token(kind, &format!("letter/{what}"), token, expected);
        self.cases.last_mut().unwrap().by_the_letter = true;
    }

    fn body(&self, kind: &str, token: &str) -> Value {
        let at = AT.to_string();
        match kind {
            "jwt-svid" => {
                let foreign = json!({"keys": [named(&self.foreign, "foreign", &[("use", "jwt-svid")])]});
                let bundles =
                    json!({"td.example": self.keys(&[("use", "jwt-svid")]), "other.example": foreign});
                json!({"token": token, "bundles": bundles, "audience": AUDIENCE, "at": at})
            }
            "token" => {
                json!({"token": token, "jwks": self.keys(&[]), "issuer": ISSUER, "audience": AUDIENCE, "at": at})
            }
            _ => json!({"token": token, "jwks": self.keys(&[])}),
        }
    }

    fn keys(&self, usage: &[(&str, &str)]) -> Value {
        let with = |key, kid, more: &[(&str, &str)]| named(key, kid, &[usage, more].concat());
        json!({"keys": [
            with(&self.p256, "k", &[]),
            with(&self.p384, "k384", &[("alg", "ES384")]),
            with(&self.other, "other", &[]),
            with(&self.rsa, "rsa", &[]),
            with(&self.rsa, "rs", &[("alg", "RS256")]),
            with(&self.rsa, "ps", &[("alg", "PS256")]),
        ]})
    }
}

/// A key's JWK with its name and whatever else it says.
fn named(key: &Key, kid: &str, more: &[(&str, &str)]) -> Map<String, Value> {
    let mut jwk = key.jwk();
    jwk.insert("kid".to_owned(), kid.into());
    jwk.extend(more.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    jwk
}

/// The `typ` of a kind of token.
fn typ(kind: &str) -> &'static str {
    if kind == "token" { "at+jwt" } else { "JWT" }
}

/// The header of a good token, signed by the key `k`.
fn good_header(kind: &str) -> String {
    format!(r#"{{"alg":"ES256","kid":"k","typ":"{}"}}"#, typ(kind))
}

/// The claims of a good token.
fn good_claims(kind: &str) -> Value {
    let now = AT.seconds();
    if kind != "token" {
        return json!({"sub": AGENT, "aud": AUDIENCE, "iat": now - 5, "exp": now + 60, "jti": "j"});
    }
    let actor = json!({"iss": ISSUER, "sub": AGENT, "sub_profile": "ai_agent"});
    let digest = URL_SAFE_NO_PAD.encode([1; 32]);
    let id = "04106104106104106104106104";
    json!({
        "iss": ISSUER, "sub": AGENT, "act": actor, "client_id": AGENT, "aud": AUDIENCE,
        "iat": now, "exp": now + 300, "jti": id, "task": [id], "rev": 7, "pol": digest, "cnf": {"jkt": digest},
        "authorization_details":
            [{"type": "brevet", "locations": [AUDIENCE], "identifier": "team/**", "actions": ["read"]}],
    })
}

/// A compact token of the texts as they are, signed as `algorithm` has it.
fn compact(key: &Key, algorithm: &str, header: &str, payload: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = key.sign_jose(algorithm, input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The same claims with one of them set, or without it where the value is none.
fn with(claims: &Value, name: &str, value: Option<Value>) -> Value {
    let mut claims = claims.clone();
    let members = claims.as_object_mut().unwrap();
    match value {
        Some(value) => drop(members.insert(name.to_owned(), value)),
        None => drop(members.remove(name)),
    }
    claims
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn cases_have_names_of_their_own_and_are_the_same_in_every_run() {
        let names = || cases().into_iter().map(|case| case.id).collect::<Vec<_>>();
        let (first, again) = (names(), names());
        assert_eq!(first, again);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len(), "an id twice");
        assert!(first.len() >= 600, "{}", first.len());
        let accepted = cases().iter().filter(|case| case.expected.is_ok()).count();
        assert!(accepted * 10 >= first.len(), "{accepted} of {}", first.len());
    }
}
