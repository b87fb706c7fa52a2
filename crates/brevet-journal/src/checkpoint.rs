//! Signed checkpoints: statements of where the chain stood, that hold against whoever can rewrite the store.
//!
//! The chain alone shows an edit only to one who knows its end. A checkpoint is that end, signed with ES256.

use brevet_core::revision::{Incarnation, Revision};
use brevet_core::time::Timestamp;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use thiserror::Error;

use crate::chain::ChainHash;

/// An ES256 signature as RFC 7518 §3.4 writes it: r ‖ s, 32 bytes each.
pub type Signature = [u8; 64];

/// Where the chain stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The life of the journal.
    pub incarnation: Incarnation,
    /// The newest revision that it vouches for.
    pub revision: Revision,
    /// The chain hash of that revision.
    pub head: ChainHash,
    /// When it was made, as the broker's clock said.
    pub at: Timestamp,
}

impl Checkpoint {
    /// The bytes that are signed: a label, then every field in order, integers as 8 bytes big-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(84);
        bytes.extend_from_slice(b"brevet:Checkpoint:1\0");
        bytes.extend_from_slice(&self.incarnation.0.to_be_bytes());
        bytes.extend_from_slice(&self.revision.0.to_be_bytes());
        bytes.extend_from_slice(self.head.as_bytes());
        bytes.extend_from_slice(&self.at.millis().to_be_bytes());
        bytes
    }
}

/// A checkpoint and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What is stated.
    pub checkpoint: Checkpoint,
    /// The key that signed it.
    pub key_id: String,
    /// Over [`Checkpoint::to_bytes`].
    pub signature: Signature,
}

impl SignedCheckpoint {
    /// Whether one of these keys, under the id that the checkpoint names, made the signature.
    #[must_use]
    pub fn is_signed_by(&self, keys: &[CheckpointKey]) -> bool {
        keys.iter().filter(|key| key.id == self.key_id).any(|key| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point)
                .verify(&self.checkpoint.to_bytes(), &self.signature)
                .is_ok()
        })
    }
}

/// Signs checkpoints. Called on the thread that writes, within the transaction that the checkpoint closes.
pub trait CheckpointSigner: Send + Sync {
    /// The id under which an auditor finds the public key.
    fn key_id(&self) -> &str;

    /// Signs with ES256.
    ///
    /// # Errors
    /// [`SigningFailed`], which seals the journal: without checkpoints there is no evidence.
    fn sign(&self, bytes: &[u8]) -> Result<Signature, SigningFailed>;
}

/// The key could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("cannot sign a checkpoint")]
pub struct SigningFailed;

/// The public half, as an auditor has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointKey {
    id: String,
    point: [u8; 65],
}

/// Bytes that are not a P-256 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a P-256 public key")]
pub struct InvalidKey;

/// A SubjectPublicKeyInfo (RFC 5480 §2) of a P-256 key, up to its uncompressed point.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl CheckpointKey {
    /// A key from its uncompressed point, 65 bytes.
    ///
    /// # Errors
    /// [`InvalidKey`] if it is anything else. That the point lies on the curve is seen at the first verification.
    pub fn from_point(id: &str, point: &[u8]) -> Result<Self, InvalidKey> {
        let point: [u8; 65] = point.try_into().map_err(|_| InvalidKey)?;
        if point.first() == Some(&4) { Ok(Self { id: id.to_owned(), point }) } else { Err(InvalidKey) }
    }

    /// A key from its DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`InvalidKey`] if it is not an uncompressed P-256 key.
    pub fn from_spki(id: &str, der: &[u8]) -> Result<Self, InvalidKey> {
        Self::from_point(id, der.strip_prefix(&SPKI_PREFIX).ok_or(InvalidKey)?)
    }
}
