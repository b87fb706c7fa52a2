//! Brevet's own task token as a resource server reads it (RFC 9068, RFC 8693, RFC 9396, RFC 7800).
//!
//! Every claim is there, in one form, or the token is refused: there is no optional meaning. A token is dead at its
//! end, without leeway; only its beginning allows for a resource server whose clock is a little behind the broker's.
//! Only a holder whose key is the token's may use it, so what is verified here is worth nothing before
//! [`VerifiedToken::require_holder`] was asked.

use brevet_core::digest::{CertificateDigest, PolicyDigest, Thumbprint};
use brevet_core::id::{Id, LeaseId, LeaseKey, RootTaskId, TaskId};
use brevet_core::name::AudienceName;
use brevet_core::revision::Revision;
use brevet_core::sabotage;
use brevet_core::scope::Scope;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::terms::LIFETIME_MAX;
use brevet_core::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::authorization_details;
use crate::json;
use crate::jwk_set::JwkSet;
use crate::jws::{HeaderProfile, Jws, JwsError, KeyReference, TokenType};

/// How many seconds the broker's clock may be ahead of the resource server's.
pub const ISSUED_AHEAD_SECONDS_MAX: u64 = 5;

/// The headers of a task token (RFC 9068 §2.1).
pub const PROFILE: HeaderProfile =
    HeaderProfile { token_type: TokenType::Exactly("at+jwt"), key: KeyReference::Kid, unread: &[] };

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is not signed by one of the issuer's keys.
    #[error("not a token signed by the issuer")]
    Jws(#[from] JwsError),
    /// Its claims are not exactly those of a task token.
    #[error("the claims of the token are malformed")]
    Claims,
    /// `iss` is not the issuer.
    #[error("the token has another issuer")]
    Issuer,
    /// `sub`, `client_id` or `act` does not name the workloads it must.
    #[error("the token's subject or actors are not consistent")]
    Subject,
    /// `aud` is not exactly this audience.
    #[error("the token is for another audience")]
    Audience,
    /// `iat` or `exp` is missing, not a whole number, in the future, or they are too far apart.
    #[error("the times of the token are not acceptable")]
    Time,
    /// It is past its end.
    #[error("the token is past its end")]
    Expired,
    /// It belongs to another holder.
    #[error("the token belongs to another holder")]
    Holder,
}

impl TokenError {
    /// A stable name for the audit. A client never sees it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Jws(error) => error.reason(),
            Self::Claims => "malformed",
            Self::Issuer => "iss_mismatch",
            Self::Subject => "sub_mismatch",
            Self::Audience => "aud_mismatch",
            Self::Time => "time_invalid",
            Self::Expired => "expired",
            Self::Holder => "cnf_mismatch",
        }
    }
}

/// The claims of a task token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskTokenClaims {
    /// `iss`: the broker's issuer URL.
    pub issuer: String,
    /// `sub`: the agent, or the delegator where the audience understands `act`.
    pub subject: SpiffeId,
    /// `act`, outermost first: the agent, then whoever delegated to it, up to the root task's agent.
    pub actors: Vec<SpiffeId>,
    /// `aud`.
    pub audience: AudienceName,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`: the token is dead at this time.
    pub end: Timestamp,
    /// `jti`: the lease within its task.
    pub lease: LeaseKey,
    /// `authorization_details`.
    pub scope: Scope,
    /// `cnf.jkt`.
    pub holder: Thumbprint,
    /// `cnf.x5t#S256`.
    pub certificate: Option<CertificateDigest>,
    /// `task`: the ids from the root task to this one; never empty.
    pub path: Vec<Id>,
    /// `rev`: what the token was issued at.
    pub revision: Revision,
    /// `pol`: the policies that permitted it.
    pub policy: PolicyDigest,
}

impl TaskTokenClaims {
    /// `client_id`: the agent, which is the outermost actor.
    #[must_use]
    pub fn agent(&self) -> Option<&SpiffeId> {
        self.actors.first()
    }
}

/// A token that the issuer signed for this audience and that has not ended.
#[derive(Debug)]
pub struct VerifiedToken {
    claims: TaskTokenClaims,
    lease_id: LeaseId,
}

impl VerifiedToken {
    /// The claims.
    #[must_use]
    pub const fn claims(&self) -> &TaskTokenClaims {
        &self.claims
    }

    /// The lease that the token was issued under.
    #[must_use]
    pub const fn lease_id(&self) -> LeaseId {
        self.lease_id
    }

    /// Requires that who presents the token has proven the holder key, and where the token names a certificate,
    /// that the connection was made with it (RFC 7800 §3.1, RFC 8705 §3, RFC 9449 §6).
    ///
    /// # Errors
    /// [`TokenError::Holder`] if it is another's.
    pub fn require_holder(
        &self,
        key: Thumbprint,
        certificate: Option<CertificateDigest>,
    ) -> Result<(), TokenError> {
        let certificate_holds = self.claims.certificate.is_none_or(|bound| certificate == Some(bound));
        let key_holds = self.claims.holder == key || sabotage::on("any_holder");
        if key_holds && certificate_holds { Ok(()) } else { Err(TokenError::Holder) }
    }
}

/// Verifies a token at `now`: signature, profile, issuer, audience and times.
///
/// # Errors
/// [`TokenError`] names the first check that failed.
pub fn verify(
    token: &str,
    keys: &JwkSet,
    issuer: &str,
    audience: &AudienceName,
    now: Timestamp,
) -> Result<VerifiedToken, TokenError> {
    let verified = authenticate(token, keys, issuer)?;
    if verified.claims.audience != *audience {
        return Err(TokenError::Audience);
    }
    check_times(verified.claims.issued_at, verified.claims.end, now)?;
    Ok(verified)
}

/// Verifies that the issuer made a token, for whatever audience and time: for the issuer alone, whose ledger knows
/// both better.
///
/// # Errors
/// [`TokenError`] names the first check that failed.
pub fn authenticate(token: &str, keys: &JwkSet, issuer: &str) -> Result<VerifiedToken, TokenError> {
    let payload = Jws::parse(token, PROFILE)?.verify_with(keys)?;
    let members = json::parse_object(&payload).map_err(|_| TokenError::Claims)?;
    let claims = read_claims(members, issuer)?;
    let lease_id = lease_id(&claims)?;
    Ok(VerifiedToken { claims, lease_id })
}

/// The claims that have no reason of their own for being refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherClaims {
    jti: LeaseKey,
    authorization_details: Value,
    cnf: Confirmation,
    task: Vec<Id>,
    rev: u64,
    pol: PolicyDigest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    jkt: Thumbprint,
    #[serde(rename = "x5t#S256", default, deserialize_with = "present")]
    certificate: Option<CertificateDigest>,
}

/// A member that may be left out but is never null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<CertificateDigest>, D::Error> {
    CertificateDigest::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Actor {
    iss: String,
    sub: SpiffeId,
    sub_profile: SubjectProfile,
    #[serde(default)]
    act: Option<Box<Actor>>,
}

#[derive(Deserialize)]
enum SubjectProfile {
    #[serde(rename = "ai_agent")]
    AiAgent,
}

fn read_claims(mut members: Map<String, Value>, issuer: &str) -> Result<TaskTokenClaims, TokenError> {
    let mut take = |name: &str| members.remove(name).unwrap_or_default();
    if take("iss") != issuer {
        return Err(TokenError::Issuer);
    }
    // Exactly one audience, as a string: a list, even of one, is not what Brevet signs.
    let audience: AudienceName = serde_json::from_value(take("aud")).map_err(|_| TokenError::Audience)?;
    let spiffe_id = |value: Value| serde_json::from_value(value).map_err(|_| TokenError::Subject);
    let subject: SpiffeId = spiffe_id(take("sub"))?;
    let client: SpiffeId = spiffe_id(take("client_id"))?;
    let actors = read_actors(take("act"), issuer)?;
    if actors.first() != Some(&client) {
        return Err(TokenError::Subject);
    }
    let seconds = |value: Value| value.as_u64().map(Timestamp::from_seconds).ok_or(TokenError::Time);
    let (issued_at, end) = (seconds(take("iat"))?, seconds(take("exp"))?);
    let other: OtherClaims =
        serde_json::from_value(Value::Object(members)).map_err(|_| TokenError::Claims)?;
    let scope =
        authorization_details::from_json(other.authorization_details).map_err(|_| TokenError::Claims)?;
    if scope.audiences().into_iter().any(|named| *named != audience) {
        return Err(TokenError::Audience);
    }
    Ok(TaskTokenClaims {
        issuer: issuer.to_owned(),
        subject,
        actors,
        audience,
        issued_at,
        end,
        lease: other.jti,
        scope,
        holder: other.cnf.jkt,
        certificate: other.cnf.certificate,
        path: other.task,
        revision: Revision(other.rev),
        policy: other.pol,
    })
}

/// The chain of actors, outermost first. The reader of JSON has bounded its depth.
fn read_actors(act: Value, issuer: &str) -> Result<Vec<SpiffeId>, TokenError> {
    let mut next: Option<Box<Actor>> = Some(serde_json::from_value(act).map_err(|_| TokenError::Subject)?);
    let mut actors = Vec::new();
    while let Some(actor) = next {
        let Actor { iss, sub, sub_profile: SubjectProfile::AiAgent, act } = *actor;
        if iss != issuer {
            return Err(TokenError::Subject);
        }
        actors.push(sub);
        next = act;
    }
    Ok(actors)
}

fn check_times(issued_at: Timestamp, end: Timestamp, now: Timestamp) -> Result<(), TokenError> {
    let lifetime = end.since(issued_at).as_secs();
    if lifetime == 0 || lifetime > LIFETIME_MAX.as_secs() {
        return Err(TokenError::Time);
    }
    if issued_at.since(now).as_millis() > u128::from(ISSUED_AHEAD_SECONDS_MAX) * 1000 {
        return Err(TokenError::Time);
    }
    if now >= end {
        return Err(TokenError::Expired);
    }
    Ok(())
}

fn lease_id(claims: &TaskTokenClaims) -> Result<LeaseId, TokenError> {
    let (Some(root), Some(node)) = (claims.path.first(), claims.path.last()) else {
        return Err(TokenError::Claims);
    };
    let task = if claims.path.len() == 1 {
        TaskId::root_of(RootTaskId(*root))
    } else {
        TaskId::child_of(RootTaskId(*root), *node).map_err(|_| TokenError::Claims)?
    };
    Ok(LeaseId { task, key: claims.lease })
}

#[cfg(test)]
mod tests;
