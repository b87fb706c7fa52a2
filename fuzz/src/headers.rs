//! What a request says in its headers of who makes it and how long they wait.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::request::Builder;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet::dev::{BEARERS, FUNCTIONS, FUNCTIONS_BUNDLE, FUNCTIONS_KID};
use brevet_core::time::Timestamp;
use brevet_identity::dpop;
use brevet_identity::jws::TokenType;
use brevet_identity::key::PublicKey;
use brevet_testkit::x509::Key;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// The header fields that a request may have: who calls, which key is theirs, and how long they wait.
const NAMES: [&str; 3] = ["authorization", "dpop", "grpc-timeout"];

/// What a header field is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Field {
    /// It is not there.
    #[default]
    Absent,
    /// As it should be.
    Good,
    /// As it should be, twice.
    Twice,
    /// A signature over these claims; no claims are those of a good one.
    Signed(Vec<u8>),
    /// These bytes.
    Raw(Vec<u8>),
    /// These bytes, under the name that gRPC has for bytes.
    Binary(Vec<u8>),
}

/// The headers of one request, in the order of [`NAMES`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers([Field; 3]);

impl Headers {
    /// Takes them from the front of some bytes: for each a letter, and for those that hold bytes how many, in two bytes.
    pub(crate) fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut fields = [Field::Absent, Field::Absent, Field::Absent];
        for field in &mut fields {
            let kind = *bytes.split_off_first()?;
            let mut content = || {
                let length = bytes.split_off(..2)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                Some(bytes.split_off(..length)?.to_vec())
            };
            *field = match kind {
                b'-' => Field::Absent,
                b'g' => Field::Good,
                b't' => Field::Twice,
                b's' => Field::Signed(content()?),
                b'r' => Field::Raw(content()?),
                b'b' => Field::Binary(content()?),
                _ => return None,
            };
        }
        Some(Self(fields))
    }

    /// Whether they may prove who calls.
    pub(crate) fn may_prove(&self) -> bool {
        let [token, proof, _] = &self.0;
        [token, proof].iter().all(|field| matches!(field, Field::Good | Field::Signed(_)))
    }

    /// Whether they say anything of who calls.
    pub(crate) fn show(&self) -> bool {
        let [token, proof, _] = &self.0;
        *token != Field::Absent || *proof != Field::Absent
    }

    /// Those of the same request made once more: the same token, a proof of its own, and as long as it takes.
    pub(crate) fn again(&self) -> Self {
        let [token, proof, _] = &self.0;
        let proof = if *proof == Field::Absent { Field::Absent } else { Field::Good };
        Self([token.clone(), proof, Field::Absent])
    }
}

/// Who may call without a certificate.
pub(crate) struct Bearer {
    authority: Key,
    holder: Key,
    audience: String,
    now: Timestamp,
    proofs: AtomicU64,
}

impl Bearer {
    /// Puts an authority of the target's own in the place of the throw-away one. Its tokens are for the broker that calls
    /// itself so, and made at this time.
    pub(crate) fn new(folder: &Path, audience: &str, now: Timestamp) -> Self {
        let authority = Key::p256();
        let mut jwk = authority.jwk();
        jwk.insert("kid".to_owned(), FUNCTIONS_KID.into());
        jwk.insert("use".to_owned(), "jwt-svid".into());
        fs::write(folder.join(FUNCTIONS_BUNDLE), json!({ "keys": [jwk] }).to_string()).unwrap();
        let proofs = AtomicU64::default();
        Self { authority, holder: Key::p256(), audience: audience.to_owned(), now, proofs }
    }

    /// Adds headers to a request of the method at this URL.
    pub(crate) fn write(&self, headers: &Headers, url: &str, mut request: Builder) -> Builder {
        let [token, proof, _] = &headers.0;
        // What else than claims is shown as a token is not what a proof is made for.
        let token = match token {
            Field::Signed(claims) => self.token(claims),
            _ => self.token(&[]),
        };
        let claims = if let Field::Signed(claims) = proof { claims.as_slice() } else { &[] };
        let good = [format!("Bearer {token}"), self.proof(claims, url, &token), "20S".to_owned()];
        for ((name, field), good) in NAMES.into_iter().zip(&headers.0).zip(good) {
            request = match field {
                Field::Absent => request,
                Field::Good | Field::Signed(_) => request.header(name, good),
                Field::Twice => request.header(name, good.as_str()).header(name, good),
                Field::Raw(bytes) => request.header(name, bytes.as_slice()),
                Field::Binary(bytes) => request.header(format!("{name}-bin"), bytes.as_slice()),
            };
        }
        request
    }

    fn token(&self, claims: &[u8]) -> String {
        let (_, path) = BEARERS[0];
        let at = self.now.seconds();
        let good = json!({
            "sub": format!("spiffe://{FUNCTIONS}{path}"), "aud": self.audience, "iat": at, "exp": at + 60,
        });
        sign(&self.authority, &json!({"alg": "ES256", "kid": FUNCTIONS_KID}), &good, claims)
    }

    fn proof(&self, claims: &[u8], url: &str, token: &str) -> String {
        // No proof is taken that was made before the broker began, in this second.
        let at = self.now.seconds() + 1;
        let good = json!({
            "jti": self.proofs.fetch_add(1, Ordering::Relaxed).to_string(), "htm": "POST", "htu": url, "iat": at,
            "ath": URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())),
        });
        let TokenType::Exactly(typ) = dpop::PROFILE.token_type else { panic!("proofs have a type") };
        let jwk = PublicKey::from_spki(&self.holder.spki()).unwrap().to_jwk();
        sign(&self.holder, &json!({"alg": "ES256", "typ": typ, "jwk": jwk}), &good, claims)
    }
}

fn sign(key: &Key, header: &Value, good: &Value, claims: &[u8]) -> String {
    let good = good.to_string();
    let claims = if claims.is_empty() { good.as_bytes() } else { claims };
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims));
    let signature = key.sign_jose("ES256", signed.as_bytes());
    format!("{signed}.{}", encode(&signature))
}
