//! Signing: takes what the journal holds, as a whole, and gives a credential or nothing.
//!
//! A signer trusts nobody's word. It takes no bytes, only terms with the journal's receipt, so it can live in another
//! process; it enforces bounds of its own (invariant K3); and it reads its product back before it lets go of it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::name::KeyId;
use brevet_core::proof::Recorded;
use brevet_core::task_svid::TaskSvidId;
use brevet_core::terms::{Content, JwtSvid, LIFETIME_MAX, Profile, TaskToken, Terms, X509Svid};
use ring::rand::SystemRandom;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::ca::CaKey;
use crate::key::{JwtSvids, Point, SigningKey, TaskTokens};
use crate::{check, jws, jwt_svid, task_token, x509_svid};

/// Why a signer gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignError {
    /// The terms name another key.
    #[error("the terms name another key")]
    KeyId,
    /// The terms name another issuer.
    #[error("the terms name another issuer")]
    Issuer,
    /// The life is zero, longer than [`LIFETIME_MAX`], not in whole seconds, or beyond the authority's.
    #[error("the terms have a life that is not signed")]
    Lifetime,
    /// There is no audience, or the scope is empty or names another.
    #[error("the terms are not for exactly one audience")]
    Audience,
    /// The terms name no agent.
    #[error("the terms name no agent")]
    Agent,
    /// The SPIFFE ID is not one that this trust domain has for a task.
    #[error("the spiffe id is not that of a task in this trust domain")]
    SpiffeId,
    /// The holder's key is not of an accepted kind, or is one of the signer's own.
    #[error("the holder's key is not one that is certified")]
    HolderKey,
    /// The lease's key is no positive number.
    #[error("the lease has no serial number")]
    Serial,
    /// The claims could not be written.
    #[error("the claims could not be written")]
    Encoding,
    /// The key could not be used.
    #[error("the signature could not be made")]
    Signature,
    /// What was signed differs from the terms. It is destroyed.
    #[error("the product differs from the terms in {field}")]
    ProductMismatch {
        /// The claim or field that differs.
        field: &'static str,
    },
}

/// The future that [`Signer::sign`] gives.
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<Credential, SignError>> + Send + 'a>>;

/// Whatever holds the keys of credentials: files, a token of hardware, another process.
pub trait Signer: Send + Sync {
    /// The key that it signs credentials of this form with.
    fn key_id(&self, profile: Profile) -> &KeyId;

    /// Signs terms that the journal holds.
    ///
    /// # Errors
    /// [`SignError`] if the terms are not this signer's to sign, or the product is not what they say.
    fn sign(&self, recorded: Recorded) -> Signing<'_>;
}

/// What was signed, to be handed to its holder.
#[derive(Clone, PartialEq, Eq)]
pub enum Product {
    /// A task token in compact form. It is destroyed when it is dropped.
    TaskToken(Zeroizing<String>),
    /// Certificates in DER, the SVID first. The authority itself is in the bundle, not in the chain.
    X509Svid(Vec<Vec<u8>>),
    /// A JWT-SVID in compact form. It is destroyed when it is dropped.
    JwtSvid(Zeroizing<String>),
}

/// Says which form it has and nothing else.
impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TaskToken(_) => "TaskToken(..)",
            Self::X509Svid(_) => "X509Svid(..)",
            Self::JwtSvid(_) => "JwtSvid(..)",
        })
    }
}

/// A signed credential that nobody has seen.
pub struct Credential {
    recorded: Recorded,
    product: Product,
}

impl Credential {
    /// What was signed, and the revision the lease was issued at.
    #[must_use]
    pub const fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// The token or the certificates.
    #[must_use]
    pub const fn product(&self) -> &Product {
        &self.product
    }

    /// The token or the certificates, to be handed to their holder.
    #[must_use]
    pub fn into_product(self) -> Product {
        self.product
    }
}

/// Says which lease it is of and nothing else.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("lease", &self.recorded.terms().id).finish_non_exhaustive()
    }
}

/// A signer in this process, with a key for each form in memory.
#[derive(Debug)]
pub struct LocalSigner {
    key: SigningKey<TaskTokens>,
    issuer: String,
    header: String,
    jwt_svid_key: SigningKey<JwtSvids>,
    jwt_svid_header: String,
    authority: Arc<CaKey>,
    rng: SystemRandom,
}

impl LocalSigner {
    /// A signer of tokens of `issuer` and of SVIDs of the authority's trust domain, and of no others.
    #[must_use]
    pub fn new(
        key: SigningKey<TaskTokens>,
        issuer: String,
        jwt_svid_key: SigningKey<JwtSvids>,
        authority: Arc<CaKey>,
        rng: SystemRandom,
    ) -> Self {
        let header = jws::header(key.kid(), task_token::TYPE);
        let jwt_svid_header = jws::header(jwt_svid_key.kid(), jwt_svid::TYPE);
        Self { key, issuer, header, jwt_svid_key, jwt_svid_header, authority, rng }
    }

    /// The public half of the tokens' key is what verifiers need.
    #[must_use]
    pub const fn key(&self) -> &SigningKey<TaskTokens> {
        &self.key
    }

    fn sign_now(&self, recorded: Recorded) -> Result<Credential, SignError> {
        let terms = recorded.terms();
        self.admit(terms)?;
        let product = match &terms.content {
            Content::TaskToken(token) => {
                self.admit_token(token)?;
                Product::TaskToken(self.token(&recorded, token)?)
            }
            Content::X509Svid(svid) => {
                self.admit_svid(terms, svid)?;
                Product::X509Svid(vec![self.certificate(&recorded, svid)?])
            }
            Content::JwtSvid(svid) => {
                self.admit_jwt_svid(svid)?;
                Product::JwtSvid(self.jwt_svid(&recorded, svid)?)
            }
        };
        Ok(Credential { recorded, product })
    }

    fn token(&self, recorded: &Recorded, token: &TaskToken) -> Result<Zeroizing<String>, SignError> {
        let mut text =
            task_token::signing_input(&self.header, recorded, token).map_err(|_| SignError::Encoding)?;
        let signature = self.key.signature(text.as_bytes(), &self.rng).map_err(|_| SignError::Signature)?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        check::task_token::product(&text, recorded).map_err(|field| SignError::ProductMismatch { field })?;
        Ok(text)
    }

    fn certificate(&self, recorded: &Recorded, svid: &X509Svid) -> Result<Vec<u8>, SignError> {
        let certificate = x509_svid::certificate(recorded.terms(), svid, &self.authority, &self.rng)
            .ok_or(SignError::Signature)?;
        check::x509_svid::product(&certificate, recorded, &self.authority)
            .map_err(|field| SignError::ProductMismatch { field })?;
        Ok(certificate)
    }

    fn jwt_svid(&self, recorded: &Recorded, svid: &JwtSvid) -> Result<Zeroizing<String>, SignError> {
        let mut text = jwt_svid::signing_input(&self.jwt_svid_header, recorded.terms(), svid)
            .map_err(|_| SignError::Encoding)?;
        let signature =
            self.jwt_svid_key.signature(text.as_bytes(), &self.rng).map_err(|_| SignError::Signature)?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        check::jwt_svid::product(&text, recorded, self.authority.trust_domain())
            .map_err(|field| SignError::ProductMismatch { field })?;
        Ok(text)
    }

    /// The second wall: what this signer would not sign even if the journal holds it, whatever the form.
    fn admit(&self, terms: &Terms) -> Result<(), SignError> {
        if terms.key_id != *self.key_id(terms.profile()) {
            return Err(SignError::KeyId);
        }
        let whole =
            terms.issued_at.floor_to_second() == terms.issued_at && terms.end.floor_to_second() == terms.end;
        let lifetime = terms.end.since(terms.issued_at);
        if !whole || lifetime.is_zero() || lifetime > LIFETIME_MAX {
            return Err(SignError::Lifetime);
        }
        Ok(())
    }

    fn admit_token(&self, token: &TaskToken) -> Result<(), SignError> {
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

    fn admit_jwt_svid(&self, svid: &JwtSvid) -> Result<(), SignError> {
        TaskSvidId::parse(&svid.spiffe_id, self.authority.trust_domain()).map(drop).ok_or(SignError::SpiffeId)
    }

    fn admit_svid(&self, terms: &Terms, svid: &X509Svid) -> Result<(), SignError> {
        if terms.end > self.authority.end() {
            return Err(SignError::Lifetime);
        }
        if TaskSvidId::parse(&svid.spiffe_id, self.authority.trust_domain()).is_none() {
            return Err(SignError::SpiffeId);
        }
        let (point, _) = Point::of_spki(svid.public_key.as_der()).ok_or(SignError::HolderKey)?;
        let own = [self.authority.thumbprint(), self.key.thumbprint(), self.jwt_svid_key.thumbprint()];
        if own.contains(&point.thumbprint()) {
            return Err(SignError::HolderKey);
        }
        if terms.id.key.0.as_bytes().iter().all(|byte| *byte == 0) {
            return Err(SignError::Serial);
        }
        Ok(())
    }
}

impl Signer for LocalSigner {
    fn key_id(&self, profile: Profile) -> &KeyId {
        match profile {
            Profile::TaskToken => self.key.kid(),
            Profile::X509Svid => self.authority.key_id(),
            Profile::JwtSvid => self.jwt_svid_key.kid(),
        }
    }

    fn sign(&self, recorded: Recorded) -> Signing<'_> {
        Box::pin(async move { self.sign_now(recorded) })
    }
}

#[cfg(test)]
mod tests;
