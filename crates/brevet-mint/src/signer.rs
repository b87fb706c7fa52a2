//! Signing: takes what the journal holds, as a whole, and gives a credential or nothing.
//!
//! A signer trusts nobody's word. It takes no bytes, only terms with the journal's receipt, so it can live in another
//! process; it enforces bounds of its own (invariant K3); and it reads its product back before it lets go of it.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::name::KeyId;
use brevet_core::proof::Recorded;
use brevet_core::terms::{Content, Terms};
use ring::rand::SystemRandom;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::{SigningKey, TaskTokens};
use crate::{check, jwt};

/// The longest life that is ever signed, whatever policy and configuration say.
pub const LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// Why a signer gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignError {
    /// The terms name another key.
    #[error("the terms name another key")]
    KeyId,
    /// The terms name another issuer.
    #[error("the terms name another issuer")]
    Issuer,
    /// The life is zero, longer than [`LIFETIME_MAX`], or not in whole seconds.
    #[error("the terms have a life that is not signed")]
    Lifetime,
    /// There is no audience, or the scope is empty or names another.
    #[error("the terms are not for exactly one audience")]
    Audience,
    /// The terms name no agent.
    #[error("the terms name no agent")]
    Agent,
    /// The claims could not be written.
    #[error("the claims could not be written")]
    Encoding,
    /// The key could not be used.
    #[error("the signature could not be made")]
    Signature,
    /// What was signed differs from the terms. It is destroyed.
    #[error("the product differs from the terms in {claim}")]
    ProductMismatch {
        /// The claim that differs.
        claim: &'static str,
    },
}

/// The future that [`Signer::sign`] gives.
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<Credential, SignError>> + Send + 'a>>;

/// Whatever holds the key of task tokens: a file, a token of hardware, another process.
pub trait Signer: Send + Sync {
    /// The key that it signs with.
    fn key_id(&self) -> &KeyId;

    /// Signs terms that the journal holds.
    ///
    /// # Errors
    /// [`SignError`] if the terms are not this signer's to sign, or the product is not what they say.
    fn sign(&self, recorded: Recorded) -> Signing<'_>;
}

/// A signed credential that nobody has seen. It is destroyed when it is dropped.
pub struct Credential {
    recorded: Recorded,
    token: Zeroizing<String>,
}

impl Credential {
    /// What was signed, and the revision the lease was issued at.
    #[must_use]
    pub const fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// The token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.token
    }

    /// The token, to be handed to its holder.
    #[must_use]
    pub fn into_token(self) -> Zeroizing<String> {
        self.token
    }
}

/// Says which lease it is of and nothing else.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("lease", &self.recorded.terms().id).finish_non_exhaustive()
    }
}

/// A signer in this process, with the key in memory.
#[derive(Debug)]
pub struct LocalSigner {
    key: SigningKey<TaskTokens>,
    issuer: String,
    header: String,
    rng: SystemRandom,
}

impl LocalSigner {
    /// A signer of tokens of `issuer`, and of no others.
    #[must_use]
    pub fn new(key: SigningKey<TaskTokens>, issuer: String, rng: SystemRandom) -> Self {
        let header = jwt::header(key.kid());
        Self { key, issuer, header, rng }
    }

    /// The key's public half is what verifiers need.
    #[must_use]
    pub const fn key(&self) -> &SigningKey<TaskTokens> {
        &self.key
    }

    fn sign_now(&self, recorded: Recorded) -> Result<Credential, SignError> {
        self.admit(recorded.terms())?;
        let mut token = jwt::signing_input(&self.header, &recorded).map_err(|_| SignError::Encoding)?;
        let signature = self.key.signature(token.as_bytes(), &self.rng).map_err(|_| SignError::Signature)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        check::product(&token, &recorded).map_err(|claim| SignError::ProductMismatch { claim })?;
        Ok(Credential { recorded, token })
    }

    /// The second wall: what this signer would not sign even if the journal holds it.
    fn admit(&self, terms: &Terms) -> Result<(), SignError> {
        if terms.key_id != *self.key.kid() {
            return Err(SignError::KeyId);
        }
        let whole =
            terms.issued_at.floor_to_second() == terms.issued_at && terms.end.floor_to_second() == terms.end;
        let lifetime = terms.end.since(terms.issued_at);
        if !whole || lifetime.is_zero() || lifetime > LIFETIME_MAX {
            return Err(SignError::Lifetime);
        }
        let Content::TaskToken(token) = &terms.content;
        if token.issuer != self.issuer {
            return Err(SignError::Issuer);
        }
        let permissions = token.scope.permissions();
        if token.audience.as_str().is_empty()
            || permissions.is_empty()
            || permissions.iter().any(|permission| *permission.audience() != token.audience)
        {
            return Err(SignError::Audience);
        }
        if token.actors.is_empty() {
            return Err(SignError::Agent);
        }
        Ok(())
    }
}

impl Signer for LocalSigner {
    fn key_id(&self) -> &KeyId {
        self.key.kid()
    }

    fn sign(&self, recorded: Recorded) -> Signing<'_> {
        Box::pin(async move { self.sign_now(recorded) })
    }
}

#[cfg(test)]
mod tests;
