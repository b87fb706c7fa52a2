//! The terms of a credential: everything that will be signed, but for the revision it is issued at.
//!
//! They are data. The journal holds them before the key is used, and a retry with the same `request_id` signs the
//! same terms again. What proves that a policy permitted them and that the journal holds them are the types of
//! [`crate::proof`].

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::{CertificateDigest, PolicyDigest, Thumbprint};
use crate::id::{Id, LeaseId};
use crate::name::{AudienceName, KeyId};
use crate::public_key::PublicKey;
use crate::scope::Scope;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

/// The longest life of any credential, whatever policy and configuration say.
pub const LIFETIME_MAX: Duration = Duration::from_secs(3_600);

/// The form of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// A JWT access token (RFC 9068) for one audience, bound to the task's holder key.
    TaskToken,
    /// An X.509-SVID for the task's own SPIFFE ID, over the task's holder key: an identity, which permits nothing.
    X509Svid,
    /// A JWT-SVID for the task's own SPIFFE ID and one audience: an identity, which a verifier that knows no more than
    /// the SPIFFE standards takes from whoever bears it.
    JwtSvid,
}

impl Profile {
    /// The name, the same in policy, wire and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskToken => "task_token",
            Self::X509Svid => "x509_svid",
            Self::JwtSvid => "jwt_svid",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that will be signed, but for the revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The lease: its last part is the `jti` of a token or a JWT-SVID.
    pub id: LeaseId,
    /// The key that will sign.
    pub key_id: KeyId,
    /// `iat`, a whole second.
    pub issued_at: Timestamp,
    /// `exp`, a whole second; a credential is dead at its end, not after it.
    pub end: Timestamp,
    /// `cnf.jkt`.
    pub holder: Thumbprint,
    /// The policies that permitted it.
    pub policy: PolicyDigest,
    /// What depends on the form.
    pub content: Content,
}

impl Terms {
    /// The form.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        match self.content {
            Content::TaskToken(_) => Profile::TaskToken,
            Content::X509Svid(_) => Profile::X509Svid,
            Content::JwtSvid(_) => Profile::JwtSvid,
        }
    }

    /// The audience, where the form has one.
    #[must_use]
    pub const fn audience(&self) -> Option<&AudienceName> {
        match &self.content {
            Content::TaskToken(token) => Some(&token.audience),
            Content::JwtSvid(svid) => Some(&svid.audience),
            Content::X509Svid(_) => None,
        }
    }

    /// What it permits, where the form permits anything.
    #[must_use]
    pub const fn scope(&self) -> Option<&Scope> {
        match &self.content {
            Content::TaskToken(token) => Some(&token.scope),
            Content::X509Svid(_) | Content::JwtSvid(_) => None,
        }
    }

    /// Whether it reaches no further than the scope of its task. An identity for an audience is for one that the task
    /// may do something at.
    #[must_use]
    pub fn is_within(&self, task: &Scope) -> bool {
        match &self.content {
            Content::TaskToken(token) => token.scope.is_within(task),
            Content::X509Svid(_) => true,
            Content::JwtSvid(svid) => task.audiences().contains(&svid.audience),
        }
    }
}

/// What depends on the form of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// The claims of a task token.
    TaskToken(TaskToken),
    /// The subject of an X.509-SVID.
    X509Svid(X509Svid),
    /// The subject of a JWT-SVID, and for whom it is.
    JwtSvid(JwtSvid),
}

/// What an X.509-SVID says that the common terms don't. Its serial number is the lease's own part of its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct X509Svid {
    /// The one URI in its subject alternative name:
    /// `spiffe://{own trust domain}/agent/{agent's trust domain}{agent's path}/task/{root}/…/{task}`.
    pub spiffe_id: SpiffeId,
    /// The public half of the holder key, whose thumbprint is [`Terms::holder`].
    pub public_key: PublicKey,
}

/// The claims of a JWT-SVID that the common terms don't hold. It says nothing of policies or permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtSvid {
    /// `sub`: the SPIFFE ID that an X.509-SVID of the same task has.
    pub spiffe_id: SpiffeId,
    /// `aud`: exactly one.
    pub audience: AudienceName,
    /// `cnf.x5t#S256`, where a certificate of the holder key was named (RFC 8705 §3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateDigest>,
    /// `task`: the ids from the root task to this one.
    pub path: Vec<Id>,
}

/// The claims of a task token that the common terms don't hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskToken {
    /// `iss`: the broker's issuer URL.
    pub issuer: String,
    /// `sub`: the agent; the delegator only where the audience understands `act`.
    pub subject: SpiffeId,
    /// `act`, outermost first: the agent, then whoever delegated to it, up to the root task's agent. Never cut.
    pub actors: Vec<SpiffeId>,
    /// `aud`: exactly one.
    pub audience: AudienceName,
    /// `authorization_details` (RFC 9396).
    pub scope: Scope,
    /// `cnf.x5t#S256`, where a certificate of the holder key was named (RFC 8705 §3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateDigest>,
    /// `task`: the ids from the root task to this one, so that a lock on any ancestor can be matched offline.
    pub path: Vec<Id>,
}
