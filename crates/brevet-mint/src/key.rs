//! Signing keys: ES256, one file and one type for each purpose.
//!
//! A key knows what it is for. What takes a key for tokens does not take one for checkpoints, so that no signature
//! made for one can be passed off as the other. `ring` zeroises nothing of its own; every copy made here is.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::bookmark::Statement;
use brevet_core::digest::Thumbprint;
use brevet_core::name::KeyId;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use thiserror::Error;

pub use crate::key_file::KeyError;
use crate::{key_file, pem};

/// A SubjectPublicKeyInfo (RFC 5480 §2) of a P-256 key, up to its uncompressed point.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The same of a P-384 key.
const P384_PREFIX: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];

/// A key that signs task tokens; only a [`crate::signer::Signer`] uses it.
#[derive(Debug)]
pub enum TaskTokens {}

/// A key that signs JWT-SVIDs; only a [`crate::signer::Signer`] uses it.
#[derive(Debug)]
pub enum JwtSvids {}

/// A key that signs checkpoints of the audit log.
#[derive(Debug)]
pub enum Checkpoints {}

/// A key that signs bookmarks of revocation streams.
#[derive(Debug)]
pub enum Bookmarks {}

/// The signature could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signature could not be made")]
pub struct SigningFailed;

/// An ECDSA key on P-256 that signs with SHA-256 for one purpose.
pub struct SigningKey<Purpose> {
    pair: EcdsaKeyPair,
    public: PublicJwk,
    purpose: PhantomData<fn(Purpose)>,
}

impl<Purpose> SigningKey<Purpose> {
    /// Reads the key at `path`, or makes one there, durably, if there is none.
    ///
    /// # Errors
    /// [`KeyError`] if the file is not a regular file of this user alone that holds a P-256 key as PKCS#8 in PEM, or
    /// if it can't be made.
    pub fn load_or_create(path: &Path, rng: &SystemRandom) -> Result<Self, KeyError> {
        let pkcs8 = key_file::load_or_create(path, rng)?;
        Self::from_pkcs8(&pkcs8, rng).ok_or_else(|| KeyError::Malformed(path.into()))
    }

    /// Reads the key at `path` and makes nothing. None if there is none.
    ///
    /// # Errors
    /// [`KeyError`] as for [`SigningKey::load_or_create`].
    pub fn load(path: &Path, rng: &SystemRandom) -> Result<Option<Self>, KeyError> {
        let Some(pkcs8) = key_file::load_existing(path)? else { return Ok(None) };
        Self::from_pkcs8(&pkcs8, rng).ok_or_else(|| KeyError::Malformed(path.into())).map(Some)
    }

    /// A key that no file holds: it ends with the process.
    ///
    /// # Errors
    /// [`KeyError::Generation`] if none could be made.
    pub fn ephemeral(rng: &SystemRandom) -> Result<Self, KeyError> {
        Self::from_pkcs8(&key_file::generate(rng)?, rng).ok_or(KeyError::Generation)
    }

    fn from_pkcs8(pkcs8: &[u8], rng: &SystemRandom) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, rng).ok()?;
        let public = PublicJwk::of_point(pair.public_key().as_ref())?;
        Some(Self { pair, public, purpose: PhantomData })
    }

    /// The key's identifier: the RFC 7638 thumbprint of its public half, so no two keys ever share one.
    #[must_use]
    pub const fn kid(&self) -> &KeyId {
        &self.public.kid
    }

    /// The same thumbprint as a value.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.public.point.thumbprint()
    }

    /// The public half.
    #[must_use]
    pub const fn public_jwk(&self) -> &PublicJwk {
        &self.public
    }

    /// The public half as an uncompressed point (SEC 1 §2.3.3), for verifying with `ring`.
    #[must_use]
    pub fn public_point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public half as a SubjectPublicKeyInfo in PEM (RFC 7468 §13).
    #[must_use]
    pub fn public_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &[P256_PREFIX, self.public_point()].concat()).to_string()
    }

    /// `r || s`, as JWS has it (RFC 7518 §3.4).
    pub(crate) fn signature(&self, message: &[u8], rng: &SystemRandom) -> Result<[u8; 64], SigningFailed> {
        let signature = self.pair.sign(rng, message).map_err(|_| SigningFailed)?;
        signature.as_ref().try_into().map_err(|_| SigningFailed)
    }
}

impl SigningKey<Checkpoints> {
    /// Signs a checkpoint: `r || s` over its bytes.
    ///
    /// # Errors
    /// [`SigningFailed`] if the random number generator fails.
    pub fn sign(&self, checkpoint: &[u8], rng: &SystemRandom) -> Result<[u8; 64], SigningFailed> {
        self.signature(checkpoint, rng)
    }
}

impl SigningKey<Bookmarks> {
    /// Signs a bookmark: `r || s` over the bytes of its statement.
    ///
    /// # Errors
    /// [`SigningFailed`] if the random number generator fails.
    pub fn sign(&self, statement: &Statement, rng: &SystemRandom) -> Result<[u8; 64], SigningFailed> {
        self.signature(&statement.to_bytes(), rng)
    }
}

/// Says which key it is and nothing else.
impl<Purpose> fmt::Debug for SigningKey<Purpose> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", self.kid()).finish_non_exhaustive()
    }
}

/// The public half of a signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicJwk {
    kid: KeyId,
    point: Point,
}

impl PublicJwk {
    /// The key of a SubjectPublicKeyInfo in DER. None if it is not an uncompressed point on P-256.
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        Self::of_point(der.strip_prefix(P256_PREFIX)?)
    }

    fn of_point(uncompressed: &[u8]) -> Option<Self> {
        let point = Point::of_uncompressed(Curve::P256, uncompressed)?;
        Some(Self { kid: point.key_id()?, point })
    }

    /// The key's identifier.
    #[must_use]
    pub const fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// `x` and `y` in base64url (RFC 7518 §6.2.1).
    #[must_use]
    pub fn coordinates(&self) -> (&str, &str) {
        (&self.point.x, &self.point.y)
    }
}

/// A curve that a holder's key may be on; the broker's own keys are on P-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// A point, its coordinates in base64url. Whether it lies on its curve is not looked at here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) curve: Curve,
    pub(crate) x: String,
    pub(crate) y: String,
}

impl Point {
    /// Takes the uncompressed form: `04 || x || y`.
    pub(crate) fn of_uncompressed(curve: Curve, bytes: &[u8]) -> Option<Self> {
        let [4, coordinates @ ..] = bytes else { return None };
        let length = curve.coordinate_bytes();
        let (x, y) = coordinates.split_at_checked(length).filter(|(_, y)| y.len() == length)?;
        Some(Self { curve, x: URL_SAFE_NO_PAD.encode(x), y: URL_SAFE_NO_PAD.encode(y) })
    }

    /// Takes a SubjectPublicKeyInfo in DER, which leaves one spelling, and gives the uncompressed form as well.
    pub(crate) fn of_spki(der: &[u8]) -> Option<(Self, &[u8])> {
        [(Curve::P256, P256_PREFIX), (Curve::P384, P384_PREFIX)].into_iter().find_map(|(curve, prefix)| {
            let uncompressed = der.strip_prefix(prefix)?;
            Some((Self::of_uncompressed(curve, uncompressed)?, uncompressed))
        })
    }

    /// RFC 7638 §3: the required members in lexical order, without white space.
    pub(crate) fn thumbprint(&self) -> Thumbprint {
        let Self { curve, x, y } = self;
        let json = format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, curve.name());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, json.as_bytes()).as_ref());
        Thumbprint::from_bytes(bytes)
    }

    /// The thumbprint as a key's identifier.
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        KeyId::parse(&self.thumbprint().to_string()).ok()
    }
}

#[cfg(test)]
mod tests;
