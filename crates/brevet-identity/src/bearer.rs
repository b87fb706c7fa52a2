//! Tokens of other issuers as proof of who calls: what JWT-SVIDs and OIDC tokens have in common (RFC 7519).
//!
//! Such a token is a bearer's: whoever has a copy can show it. So it is taken for a moment only, for this broker
//! alone, and its owner has to bind it to a key at first use, which is for the broker to remember. A token that is
//! bound already, by `cnf`, is its holder's alone.

use std::time::Duration;

use brevet_core::digest::{CertificateDigest, Thumbprint};
use brevet_core::sabotage;
use brevet_core::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::json;
use crate::jws::JwsError;

/// The greatest age that [`Limits`] may allow.
pub const AGE_MAX: Duration = Duration::from_secs(300);
/// The greatest leeway that [`Limits`] may allow.
pub const LEEWAY_MAX: Duration = Duration::from_secs(5);
/// The longest subject in bytes: as OpenID Connect Core §2 limits it.
pub const SUBJECT_BYTES_MAX: usize = 255;

/// Why a token proves no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BearerError {
    /// It is not a signed token of the profile.
    #[error("not a signed token")]
    Jws(#[from] JwsError),
    /// Its claims are not a strict JSON object.
    #[error("the claims are malformed")]
    Claims,
    /// Its issuer is none of those configured.
    #[error("the issuer is not known")]
    Issuer,
    /// Its subject is no workload, or one over which the issuer has no authority.
    #[error("the subject is not a workload of the issuer")]
    Subject,
    /// Its subject is of the trust domain whose credentials Brevet itself mints.
    #[error("the identity was minted by this broker")]
    OwnCredential,
    /// It is not for this broker alone.
    #[error("the token is for another audience")]
    Audience,
    /// A time is missing, is not one, or does not fit the others.
    #[error("the times of the token are not acceptable")]
    Time,
    /// It has ended.
    #[error("the token has expired")]
    Expired,
    /// It was issued longer ago than a bearer's token may have been.
    #[error("the token is too old")]
    Age,
    /// It is bound to another key than was proven, or in a way that is not known here.
    #[error("the token is bound to another key")]
    Holder,
}

impl BearerError {
    /// A stable name for the audit. A client never sees it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Jws(error) => error.reason(),
            Self::Claims => "malformed",
            Self::Issuer => "iss_mismatch",
            Self::Subject => "sub_mismatch",
            Self::OwnCredential => "own_credential",
            Self::Audience => "aud_mismatch",
            Self::Time => "time_invalid",
            Self::Expired => "expired",
            Self::Age => "token_too_old",
            Self::Holder => "cnf_mismatch",
        }
    }
}

/// By what a token is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// As the broker judges its callers' tokens.
    Strict(Limits),
    /// By the letter of the standards: several audiences, no `kid`, no `iat`, and any age will do.
    Specification,
}

/// How far the times of a token may be from the broker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How far the issuer's clock may be from this one.
    pub leeway: Duration,
    /// The longest time since `iat`.
    pub age_max: Duration,
    /// The longest time from `iat` to `exp`.
    pub lifetime_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            leeway: Duration::ZERO,
            age_max: Duration::from_secs(60),
            lifetime_max: Duration::from_secs(3_600),
        }
    }
}

/// What a token says besides who its subject is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `exp`: the token is dead at this time.
    pub end: Timestamp,
    /// `jti`.
    pub token_id: Option<String>,
    /// `cnf`.
    pub confirmation: Option<Confirmation>,
}

/// The key that a token is bound to (RFC 7800 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// `jkt` (RFC 9449 §6.1).
    pub jkt: Thumbprint,
    /// `x5t#S256` (RFC 8705 §3.1).
    #[serde(rename = "x5t#S256", default)]
    pub certificate: Option<CertificateDigest>,
}

impl Confirmation {
    /// Requires that who shows the token has proven the key, and made the connection with the certificate, if one is
    /// named.
    ///
    /// # Errors
    /// [`BearerError::Holder`] if it is another's.
    pub fn require(
        &self,
        key: Thumbprint,
        certificate: Option<CertificateDigest>,
    ) -> Result<(), BearerError> {
        let certificate_holds = self.certificate.is_none_or(|bound| certificate == Some(bound));
        if self.jkt == key && certificate_holds { Ok(()) } else { Err(BearerError::Holder) }
    }
}

/// The members of the claims.
pub(crate) fn claims(payload: &[u8]) -> Result<Map<String, Value>, BearerError> {
    json::parse_object(payload).map_err(|_| BearerError::Claims)
}

/// Judges all claims but issuer and subject.
pub(crate) fn judge(
    claims: &Map<String, Value>,
    audience: &str,
    now: Timestamp,
    rules: Rules,
) -> Result<Bearer, BearerError> {
    if !is_for(claims.get("aud"), audience, rules) {
        return Err(BearerError::Audience);
    }
    let (issued_at, end) = match rules {
        Rules::Strict(limits) => strict_times(claims, now, limits)?,
        Rules::Specification => specified_times(claims, now)?,
    };
    let token_id = match claims.get("jti") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(BearerError::Claims),
    };
    let confirmation = match (claims.get("cnf"), rules) {
        (Some(cnf), Rules::Strict(_)) => {
            Some(Confirmation::deserialize(cnf).map_err(|_| BearerError::Holder)?)
        }
        _ => None,
    };
    Ok(Bearer { issued_at, end, token_id, confirmation })
}

/// Whether `aud` (RFC 7519 §4.1.3) names the audience: alone, or by the letter among others.
fn is_for(aud: Option<&Value>, audience: &str, rules: Rules) -> bool {
    match (aud, rules) {
        (Some(Value::String(named)), _) => named == audience,
        (Some(Value::Array(named)), Rules::Strict(_)) => {
            named.len() == 1 && named.iter().all(|n| n == audience)
        }
        (Some(Value::Array(named)), Rules::Specification) => {
            named.iter().all(Value::is_string) && named.iter().any(|n| n == audience)
        }
        _ => false,
    }
}

type Times = (Option<Timestamp>, Timestamp);

/// `iat`, `nbf` and `exp` as whole seconds, in their order, of a token that is young and ends soon.
fn strict_times(claims: &Map<String, Value>, now: Timestamp, limits: Limits) -> Result<Times, BearerError> {
    let seconds = |name: &str| {
        let read = |value: &Value| value.as_u64().map(Timestamp::from_seconds).ok_or(BearerError::Time);
        claims.get(name).map(read).transpose()
    };
    let issued_at = seconds("iat")?.ok_or(BearerError::Time)?;
    let end = seconds("exp")?.ok_or(BearerError::Time)?;
    let not_before = seconds("nbf")?.unwrap_or(issued_at);
    let lifetime = end.since(issued_at);
    if lifetime.is_zero() || lifetime > limits.lifetime_max {
        return Err(BearerError::Time);
    }
    if issued_at.since(now) > limits.leeway || not_before.since(now) > limits.leeway {
        return Err(BearerError::Time);
    }
    if now >= end.after(limits.leeway) {
        return Err(BearerError::Expired);
    }
    let too_old = now.since(issued_at) > limits.age_max.saturating_add(limits.leeway);
    if too_old && !sabotage::on("old_bearers_pass") {
        return Err(BearerError::Age);
    }
    Ok((Some(issued_at), end))
}

/// `exp` and `nbf` as RFC 7519 §2 has a `NumericDate`, fractions included.
fn specified_times(claims: &Map<String, Value>, now: Timestamp) -> Result<Times, BearerError> {
    let time = |name: &str| {
        let read = |value: &Value| {
            let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0).ok_or(BearerError::Time)?;
            let elapsed = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            Ok::<_, BearerError>(Timestamp::EPOCH.after(elapsed))
        };
        claims.get(name).map(read).transpose()
    };
    let end = time("exp")?.ok_or(BearerError::Time)?;
    if time("nbf")?.is_some_and(|not_before| not_before > now) {
        return Err(BearerError::Time);
    }
    if now >= end {
        return Err(BearerError::Expired);
    }
    Ok((time("iat")?, end))
}
