//! Verifies task tokens at a resource server.
//!
//! A resource server asks three things of a token, in this order: whether the broker issued it to whoever presents
//! it ([`Verifier::verify`]), whether it permits the call ([`Verified::permits`]), and whether its lease still lives,
//! which no signature can say: [`Picture::judge`] answers from what the broker's stream of revocations told, or
//! [`Verified::lease`] names the lease to ask the broker about. Whatever is in doubt is refused.
//!
//! Nothing here reads a clock, a file or a socket.

mod picture;

use std::collections::BTreeMap;

use brevet_core::digest::{CertificateDigest, Thumbprint};
use brevet_core::id::LeaseId;
use brevet_core::name::{ActionName, ArgumentName, AudienceName};
use brevet_core::proof::Caller;
use brevet_core::scope::{ResourcePattern, Value};
use brevet_core::time::Timestamp;
pub use brevet_identity::jwk_set::{InvalidJwkSet, JwkSet};
use brevet_identity::task_token::{self, VerifiedToken};
pub use brevet_identity::task_token::{TaskTokenClaims, TokenError};
use thiserror::Error;

pub use crate::picture::{BookmarkError, Death, Picture, Standing, Witness};

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is not a token that the issuer signed for this audience and that holds at this time.
    #[error("the token is not acceptable")]
    Token(#[source] TokenError),
    /// Whoever presents it has not proven the key that it is bound to: it is a copy.
    #[error("the token belongs to another holder")]
    Holder(#[source] TokenError),
}

impl Refusal {
    /// A stable name for the log. Whoever presented the token learns only that it is refused.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Token(error) | Self::Holder(error) => error.reason(),
        }
    }
}

/// What whoever presents a token has proven on the connection that it came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presenter {
    /// The key: that of the client certificate, or of a DPoP proof (RFC 9449).
    pub key: Thumbprint,
    /// The client certificate, where there is one (RFC 8705).
    pub certificate: Option<CertificateDigest>,
}

impl From<&Caller> for Presenter {
    fn from(caller: &Caller) -> Self {
        Self { key: caller.key(), certificate: caller.certificate() }
    }
}

/// Judges the tokens of one issuer for one audience.
#[derive(Debug, Clone)]
pub struct Verifier {
    issuer: String,
    audience: AudienceName,
    keys: JwkSet,
}

impl Verifier {
    /// A verifier that takes tokens of this issuer, signed with one of these keys, for this audience and no other.
    #[must_use]
    pub const fn new(issuer: String, audience: AudienceName, keys: JwkSet) -> Self {
        Self { issuer, audience, keys }
    }

    /// The audience.
    #[must_use]
    pub const fn audience(&self) -> &AudienceName {
        &self.audience
    }

    /// Verifies a token that was presented at `now`: signature, profile, issuer, audience, times and holder. There is
    /// no token without a holder, so none is verified without its presenter.
    ///
    /// # Errors
    /// [`Refusal`] names the first check that failed.
    pub fn verify(&self, token: &str, presenter: &Presenter, now: Timestamp) -> Result<Verified, Refusal> {
        let token = task_token::verify(token, &self.keys, &self.issuer, &self.audience, now)
            .map_err(Refusal::Token)?;
        token.require_holder(presenter.key, presenter.certificate).map_err(Refusal::Holder)?;
        Ok(Verified(token))
    }
}

/// A token that its holder presented. It was issued; whether its lease still lives is another question.
#[derive(Debug)]
pub struct Verified(VerifiedToken);

impl Verified {
    /// The claims.
    #[must_use]
    pub const fn claims(&self) -> &TaskTokenClaims {
        self.0.claims()
    }

    /// The lease that the token was issued under, and that must live for the token to mean anything.
    #[must_use]
    pub const fn lease(&self) -> LeaseId {
        self.0.lease_id()
    }

    /// Whether one call is permitted. An argument that the token constrains and the call leaves out is not.
    #[must_use]
    pub fn permits(
        &self,
        audience: &AudienceName,
        resource: &ResourcePattern,
        action: &ActionName,
        arguments: &BTreeMap<ArgumentName, Value>,
    ) -> bool {
        self.claims().scope.permits(audience, resource, action, arguments)
    }
}

#[cfg(test)]
mod tests;
