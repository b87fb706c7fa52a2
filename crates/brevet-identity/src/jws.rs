//! Strict JWS (RFC 7515): compact serialization, the headers that a profile names, and a key that decides the
//! algorithm.
//!
//! What a token says about itself is never a reason to trust it. Its `alg` must be the key's, its key must be
//! found by `kid` among keys already held (or, for a proof of possession, be proven by the signature itself), and a
//! header that could lead elsewhere (`jku`, `x5u`, `x5c`) or change the meaning of the rest (`crit`, `b64`) is
//! refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::sabotage;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::json;
use crate::jwk::{Jwk, KeyUse};
use crate::jwk_set::{JwkSet, KID_BYTES_MAX};
use crate::key::{Algorithm, InvalidKey, PublicKey};

/// The longest token in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a token is not a JWS of the expected profile with a good signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JwsError {
    /// It is not a compact JWS of three canonical parts with a strict JSON header.
    #[error("not a compact jws")]
    Malformed,
    /// `alg` is missing, `none`, symmetric or unknown.
    #[error("the algorithm is not allowed")]
    Algorithm,
    /// `crit` or `b64` asks for what is not supported.
    #[error("a critical extension is not supported")]
    Critical,
    /// A header that the profile does not name.
    #[error("a header is not allowed")]
    Header,
    /// `typ` is not the profile's.
    #[error("the token is of another type")]
    Type,
    /// `kid` is missing or names no key of the set.
    #[error("the key is not known")]
    KeyUnknown,
    /// The key does not sign with this algorithm.
    #[error("the algorithm is not the key's")]
    AlgorithmMismatch,
    /// The key that `jwk` holds or `kid` names is not accepted.
    #[error("the key is not acceptable")]
    Key(#[from] InvalidKey),
    /// The signature is not the key's.
    #[error("the signature is not valid")]
    Signature,
}

impl JwsError {
    /// A stable name for the audit. A client never sees it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "alg_forbidden",
            Self::Critical => "crit_unsupported",
            Self::Header => "header_forbidden",
            Self::Type => "typ_mismatch",
            Self::KeyUnknown => "kid_unknown",
            Self::AlgorithmMismatch => "alg_key_mismatch",
            Self::Key(_) => "key_unacceptable",
            Self::Signature => "bad_signature",
        }
    }
}

/// What a header must say of the token's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// `typ` is there and is exactly this.
    Exactly(&'static str),
    /// `typ` is missing or exactly one of these.
    AbsentOr(&'static [&'static str]),
    /// `typ` may be anything or missing: for judging signatures alone, never for accepting a token.
    Any,
}

/// How a header names the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyReference {
    /// By `kid`, in a set of keys already held.
    Kid,
    /// By `kid` or not at all, as the letter of some standards has it: then each key of the set is tried.
    KidOrNone,
    /// By `jwk`: the token proves possession of the key that it holds.
    Embedded,
}

/// The headers of one kind of token: `alg`, `typ` and the reference to the key, and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderProfile {
    /// The type.
    pub token_type: TokenType,
    /// The key.
    pub key: KeyReference,
    /// Further headers that may be there and say nothing.
    pub unread: &'static [&'static str],
}

/// A token whose form and header are those of its profile and whose signature is not verified yet.
#[derive(Debug)]
pub struct Jws<'a> {
    signing_input: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
    algorithm: Algorithm,
    key: TokenKey,
}

#[derive(Debug)]
enum TokenKey {
    Kid(String),
    /// Not named, which its profile permits.
    Any,
    Embedded(PublicKey),
}

impl<'a> Jws<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`JwsError`] if it is not in canonical compact form or its header is not the profile's.
    pub fn parse(token: &'a str, profile: HeaderProfile) -> Result<Self, JwsError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwsError::Malformed);
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(JwsError::Malformed)?;
        // A fourth part would leave a full stop in the payload, which base64url does not have.
        let [header, payload, signature] =
            [header, payload, signature].map(|part| URL_SAFE_NO_PAD.decode(part));
        let (Ok(header), Ok(payload), Ok(signature)) = (header, payload, signature) else {
            return Err(JwsError::Malformed);
        };
        let header = json::parse_object(&header).map_err(|_| JwsError::Malformed)?;
        let (algorithm, key) = read_header(&header, profile)?;
        Ok(Self { signing_input, payload, signature, algorithm, key })
    }

    /// The algorithm that the header names.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The `kid`, where the profile names the key so.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        match &self.key {
            TokenKey::Kid(kid) => Some(kid),
            TokenKey::Any | TokenKey::Embedded(_) => None,
        }
    }

    /// The payload, which nothing vouches for: for finding out whose keys to verify with.
    #[must_use]
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// Verifies the signature with the key that `kid` names and yields the payload.
    ///
    /// # Errors
    /// [`JwsError::KeyUnknown`] if the set has no such key, [`JwsError::Key`] if it has one that verifies nothing here,
    /// [`JwsError::AlgorithmMismatch`] if the key signs with another algorithm, [`JwsError::Signature`] if the
    /// signature is not the key's.
    pub fn verify_with(self, keys: &JwkSet) -> Result<Vec<u8>, JwsError> {
        self.check(keys)?;
        Ok(self.payload)
    }

    /// What [`Jws::verify_with`] checks.
    pub(crate) fn check(&self, keys: &JwkSet) -> Result<(), JwsError> {
        match &self.key {
            TokenKey::Kid(kid) => match keys.key(kid) {
                Some(jwk) => self.check_by(jwk.key(), self.algorithm == jwk.algorithm()),
                None if keys.leaves_out(kid) => Err(InvalidKey::Purpose.into()),
                None => Err(JwsError::KeyUnknown),
            },
            TokenKey::Any => {
                let verdict = |jwk: &Jwk| self.check_by(jwk.key(), jwk.could_verify(self.algorithm));
                let verdicts: Vec<_> = keys.all().map(verdict).collect();
                // Any key that verifies it will do; if none does, the refusal that came closest is the answer.
                let closest = [Ok(()), Err(JwsError::Signature), Err(JwsError::AlgorithmMismatch)];
                closest.into_iter().find(|it| verdicts.contains(it)).unwrap_or(Err(JwsError::KeyUnknown))
            }
            TokenKey::Embedded(key) => self.check_by(key, key.algorithm() == Some(self.algorithm)),
        }
    }

    fn check_by(&self, key: &PublicKey, is_its_algorithm: bool) -> Result<(), JwsError> {
        if !is_its_algorithm {
            return Err(JwsError::AlgorithmMismatch);
        }
        if !key.verifies(self.algorithm, self.signing_input.as_bytes(), &self.signature) {
            return Err(JwsError::Signature);
        }
        Ok(())
    }

    /// Verifies the signature with the key in the header and yields that key and the payload.
    ///
    /// # Errors
    /// [`JwsError::KeyUnknown`] if the profile names keys by `kid`, else as for [`Jws::verify_with`].
    pub fn verify_embedded(self) -> Result<(PublicKey, Vec<u8>), JwsError> {
        let TokenKey::Embedded(key) = &self.key else {
            return Err(JwsError::KeyUnknown);
        };
        self.check_by(key, key.algorithm() == Some(self.algorithm))?;
        Ok((key.clone(), self.payload))
    }
}

fn read_header(
    header: &Map<String, Value>,
    profile: HeaderProfile,
) -> Result<(Algorithm, TokenKey), JwsError> {
    // 1. The algorithm, before anything that depends on it (RFC 8725 §3.1).
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::from_name);
    let algorithm = algorithm.ok_or(JwsError::Algorithm)?;
    // 2. No extension is understood, so each is refused (RFC 7515 §4.1.11, RFC 7797 §3).
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(JwsError::Critical);
    }
    // 3. The headers of the profile and no others.
    let reference = match profile.key {
        KeyReference::Kid | KeyReference::KidOrNone => "kid",
        KeyReference::Embedded => "jwk",
    };
    let known = |name: &str| ["alg", "typ", reference].contains(&name) || profile.unread.contains(&name);
    if !header.keys().all(|name| known(name)) && !sabotage::on("any_header_passes") {
        return Err(JwsError::Header);
    }
    // 4. The type.
    let typ = header.get("typ");
    let fits = match profile.token_type {
        TokenType::Exactly(expected) => typ.is_some_and(|typ| typ == expected),
        TokenType::AbsentOr(expected) => {
            typ.is_none_or(|typ| expected.iter().any(|expected| typ == expected))
        }
        TokenType::Any => true,
    };
    if !fits {
        return Err(JwsError::Type);
    }
    // 5. The key.
    let key = match (profile.key, header.get(reference)) {
        (KeyReference::Kid | KeyReference::KidOrNone, Some(Value::String(kid)))
            if (1..=KID_BYTES_MAX).contains(&kid.len()) =>
        {
            TokenKey::Kid(kid.clone())
        }
        (KeyReference::KidOrNone, None) => TokenKey::Any,
        (KeyReference::Kid | KeyReference::KidOrNone, _) => return Err(JwsError::KeyUnknown),
        (KeyReference::Embedded, Some(Value::Object(jwk))) => {
            let key = Jwk::parse(jwk, KeyUse::Signature)?.key().clone();
            // A holder key is an elliptic one.
            key.algorithm().ok_or(InvalidKey::Algorithm)?;
            TokenKey::Embedded(key)
        }
        (KeyReference::Embedded, _) => return Err(JwsError::Key(InvalidKey::Malformed)),
    };
    Ok((algorithm, key))
}

#[cfg(test)]
mod tests;
