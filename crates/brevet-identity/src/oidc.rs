//! Tokens of an OpenID provider or of Kubernetes (OpenID Connect Core §2, RFC 7519) as a workload's proof.
//!
//! Which provider a token is of it says itself, in `iss`, and only that provider's keys may then verify it: a token that
//! one provider signed in another's name is refused (RFC 8725 §3.10).

use brevet_core::time::Timestamp;
use serde_json::Value;

use crate::bearer::{self, Bearer, BearerError, Rules, SUBJECT_BYTES_MAX};
use crate::jwk_set::JwkSet;
use crate::jws::{HeaderProfile, Jws, KeyReference, TokenType};

const PROFILE: HeaderProfile = HeaderProfile {
    token_type: TokenType::AbsentOr(&["JWT"]),
    key: KeyReference::Kid,
    // Names of the certificate, which providers add and nobody needs.
    unread: &["x5t", "x5t#S256"],
};

/// What a token proves of its provider's subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcToken {
    /// `sub`: the provider's own name for it, at most 255 bytes of printable ASCII.
    pub subject: String,
    /// The other claims.
    pub bearer: Bearer,
}

/// The `iss` that a token states. Nothing vouches for it: it says which provider to ask.
///
/// # Errors
/// [`BearerError`] if it is no token, or states none.
pub fn claimed_issuer(token: &str) -> Result<String, BearerError> {
    let claims = bearer::claims(Jws::parse(token, PROFILE)?.unverified_payload())?;
    claims.get("iss").and_then(Value::as_str).map(str::to_owned).ok_or(BearerError::Issuer)
}

/// Verifies a token of `issuer` for one audience at `now`.
///
/// # Errors
/// [`BearerError`] names the first check that failed.
pub fn verify(
    token: &str,
    issuer: &str,
    keys: &JwkSet,
    audience: &str,
    now: Timestamp,
    rules: Rules,
) -> Result<OidcToken, BearerError> {
    let claims = bearer::claims(&Jws::parse(token, PROFILE)?.verify_with(keys)?)?;
    if claims.get("iss").is_none_or(|stated| stated != issuer) {
        return Err(BearerError::Issuer);
    }
    let subject = claims.get("sub").and_then(Value::as_str).ok_or(BearerError::Subject)?;
    if !(1..=SUBJECT_BYTES_MAX).contains(&subject.len()) || !subject.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(BearerError::Subject);
    }
    Ok(OidcToken { subject: subject.to_owned(), bearer: bearer::judge(&claims, audience, now, rules)? })
}

#[cfg(test)]
mod tests;
