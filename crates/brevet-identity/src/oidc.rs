//! Tokens of an OpenID provider or of Kubernetes (OpenID Connect Core §2, RFC 7519) as a workload's proof.
//!
//! Which provider a token is of it says itself, in `iss`, and only that provider's keys may then verify it: a token that
//! one provider signed in another's name is refused (RFC 8725 §3.10).

use std::collections::BTreeMap;

use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::time::Timestamp;
use serde_json::Value;
use thiserror::Error;

use crate::bearer::{self, Bearer, BearerError, Rules, SUBJECT_BYTES_MAX};
use crate::jwk_set::JwkSet;
use crate::jws::{HeaderProfile, Jws, KeyReference, TokenType};

/// The headers of an issuer's token.
pub const PROFILE: HeaderProfile = HeaderProfile {
    token_type: TokenType::AbsentOr(&["JWT"]),
    key: KeyReference::Kid,
    // Names of the certificate, which providers add and nobody needs.
    unread: &["x5t", "x5t#S256"],
};

/// Why a provider's subjects name no workloads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidIssuer {
    /// A subject that no token can have.
    #[error("no token has the subject {0:?}")]
    Subject(String),
    /// A path that makes no SPIFFE ID.
    #[error("the path {0:?} makes no spiffe id")]
    Path(String),
    /// Two subjects would be one workload.
    #[error("two subjects are {0}")]
    Duplicate(SpiffeId),
    /// More subjects than [`SUBJECTS_MAX`].
    #[error("more than {SUBJECTS_MAX} subjects")]
    TooMany,
}

/// The most subjects of one provider that may be workloads.
pub const SUBJECTS_MAX: usize = 10_000;

/// A provider whose word is taken for some workloads, which are named one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    url: String,
    trust_domain: TrustDomain,
    keys: JwkSet,
    workloads: BTreeMap<String, SpiffeId>,
}

impl Issuer {
    /// A provider with its keys. `subjects` says which of its subjects is which workload, by the path of the SPIFFE ID in
    /// the trust domain that stands for this provider alone.
    ///
    /// # Errors
    /// [`InvalidIssuer`] if a subject or a path is none, or two subjects would be one workload.
    pub fn new(
        url: String,
        trust_domain: TrustDomain,
        keys: JwkSet,
        subjects: &BTreeMap<String, String>,
    ) -> Result<Self, InvalidIssuer> {
        if subjects.len() > SUBJECTS_MAX {
            return Err(InvalidIssuer::TooMany);
        }
        let (mut workloads, mut paths) = (BTreeMap::new(), BTreeMap::new());
        for (subject, path) in subjects {
            if !is_subject(subject) {
                return Err(InvalidIssuer::Subject(subject.clone()));
            }
            let workload = SpiffeId::new(&trust_domain, path).ok().filter(|_| !path.is_empty());
            let workload = workload.ok_or_else(|| InvalidIssuer::Path(path.clone()))?;
            if paths.insert(path, ()).is_some() {
                return Err(InvalidIssuer::Duplicate(workload));
            }
            workloads.insert(subject.clone(), workload);
        }
        Ok(Self { url, trust_domain, keys, workloads })
    }

    /// The `iss` of its tokens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The trust domain of its workloads.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The keys that verify its tokens.
    #[must_use]
    pub const fn keys(&self) -> &JwkSet {
        &self.keys
    }

    /// The same provider with these keys and no others.
    #[must_use]
    pub fn with_keys(self, keys: JwkSet) -> Self {
        Self { keys, ..self }
    }

    /// Verifies a token of this provider and says which workload it is.
    ///
    /// # Errors
    /// [`BearerError`] names the first check that failed.
    pub fn verify(
        &self,
        token: &str,
        audience: &str,
        now: Timestamp,
        rules: Rules,
    ) -> Result<(SpiffeId, Bearer), BearerError> {
        let verified = verify(token, &self.url, &self.keys, audience, now, rules)?;
        let workload = self.workloads.get(&verified.subject).ok_or(BearerError::Subject)?;
        Ok((workload.clone(), verified.bearer))
    }

    /// What tells it from another.
    pub(crate) fn identity(&self) -> impl Iterator<Item = Vec<u8>> {
        let workloads = self.workloads.iter().map(|(subject, id)| format!("{subject} {id}").into_bytes());
        let names = [self.url.clone().into_bytes(), self.trust_domain.as_str().as_bytes().to_vec()];
        names.into_iter().chain(self.keys.identity()).chain(workloads)
    }
}

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
    if !is_subject(subject) {
        return Err(BearerError::Subject);
    }
    Ok(OidcToken { subject: subject.to_owned(), bearer: bearer::judge(&claims, audience, now, rules)? })
}

fn is_subject(text: &str) -> bool {
    (1..=SUBJECT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests;
