//! Certification requests (PKCS #10, RFC 2986): a public key, and that whoever asks holds the private half.
//!
//! Nothing else in a request counts. What its subject says and what its attributes ask for, names, extensions and
//! authority, is passed over unread, so that none of it can find its way into a certificate. A request is not fresh: it
//! proves possession at some time, and who presents it is for the connection to prove.

use brevet_core::digest::Thumbprint;
use brevet_core::public_key::PublicKey as CertifiedKey;
use brevet_core::sabotage;
use thiserror::Error;

use crate::key::{Digest, InvalidKey, PublicKey};

/// The longest request in bytes.
pub const CSR_BYTES_MAX: usize = 8 * 1024;

/// How deep elements may lie in each other inside of what is passed over.
const DEPTH_MAX: u8 = 16;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const ATTRIBUTES: u8 = 0xa0;

/// ecdsa-with-SHA256 and ecdsa-with-SHA384, without parameters (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ECDSA_WITH_SHA384: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";

/// Why a request proves no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CsrError {
    /// It is longer than [`CSR_BYTES_MAX`].
    #[error("the request is too long")]
    Size,
    /// It is not distinguished encoding of RFC 2986 §4 and nothing else.
    #[error("the request is malformed")]
    Malformed,
    /// The key is not on P-256 or P-384.
    #[error("the key is not acceptable")]
    Key(#[from] InvalidKey),
    /// The signature is not ECDSA with SHA-256 or SHA-384.
    #[error("the signature algorithm is not ecdsa with sha-256 or sha-384")]
    Algorithm,
    /// The signature is not the key's own.
    #[error("the signature does not verify")]
    Signature,
}

impl CsrError {
    /// A stable name for the audit and the refusal.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Size => "csr_size",
            Self::Malformed => "csr_malformed",
            Self::Key(_) => "csr_key",
            Self::Algorithm => "csr_alg",
            Self::Signature => "csr_signature",
        }
    }
}

/// A public key whose private half the maker of a request held.
#[derive(Debug)]
pub struct ProvenKey {
    public_key: CertifiedKey,
    thumbprint: Thumbprint,
    ignored_attributes: bool,
}

impl ProvenKey {
    /// The key, as a certificate states it.
    #[must_use]
    pub const fn public_key(&self) -> &CertifiedKey {
        &self.public_key
    }

    /// Its RFC 7638 thumbprint.
    #[must_use]
    pub const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// Whether the request had attributes, such as extensions it asked for. They were passed over.
    #[must_use]
    pub const fn ignored_attributes(&self) -> bool {
        self.ignored_attributes
    }
}

/// Takes the key out of a request that the key itself signed.
///
/// # Errors
/// [`CsrError`] names the first check that failed.
pub fn verify(der: &[u8]) -> Result<ProvenKey, CsrError> {
    // 1. Its form, to the last byte.
    if der.len() > CSR_BYTES_MAX {
        return Err(CsrError::Size);
    }
    let request = Request::parse(der).ok_or(CsrError::Malformed)?;

    // 2. The key is one that is certified, and the algorithm one for such keys. Either digest goes with either curve:
    //    what common tools make by default has SHA-256 for P-384 (RFC 5758 §3.2 binds them no closer).
    let key = PublicKey::from_spki(request.public_key)?;
    key.algorithm().ok_or(InvalidKey::Algorithm)?;
    let digest = match request.algorithm {
        ECDSA_WITH_SHA256 => Digest::Sha256,
        ECDSA_WITH_SHA384 => Digest::Sha384,
        _ => return Err(CsrError::Algorithm),
    };

    // 3. Its holder made the request.
    let is_signed = key.verifies_der(digest, request.signed, request.signature);
    if !is_signed && !sabotage::on("any_request_proves_its_key") {
        return Err(CsrError::Signature);
    }
    Ok(ProvenKey {
        public_key: CertifiedKey::from_der(request.public_key).map_err(|_| CsrError::Malformed)?,
        thumbprint: key.thumbprint(),
        ignored_attributes: !request.attributes.is_empty(),
    })
}

/// The parts of a request.
struct Request<'a> {
    signed: &'a [u8],
    public_key: &'a [u8],
    attributes: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(der: &'a [u8]) -> Option<Self> {
        let mut outer = Elements(der);
        let mut request = Elements(outer.take(SEQUENCE)?.content);
        outer.end()?;
        let signed = request.take(SEQUENCE)?;
        let algorithm = request.take(SEQUENCE)?.content;
        // No bit of the last byte is unused.
        let signature = request.take(BIT_STRING)?.content.strip_prefix(&[0])?;
        request.end()?;

        let mut info = Elements(signed.content);
        let version = info.take(INTEGER)?.content;
        let subject = info.take(SEQUENCE)?.content;
        let public_key = info.take(SEQUENCE)?.whole;
        let attributes = info.take(ATTRIBUTES)?.content;
        info.end()?;
        let sound = version == [0] && is_sound(subject, DEPTH_MAX) && is_sound(attributes, DEPTH_MAX);
        sound.then_some(Self { signed: signed.whole, public_key, attributes, algorithm, signature })
    }
}

/// Whether what is passed over consists of elements, whatever they mean.
fn is_sound(content: &[u8], depth: u8) -> bool {
    let mut elements = Elements(content);
    while !elements.0.is_empty() {
        let Some(element) = elements.next_element() else { return false };
        if element.is_constructed() && (depth == 0 || !is_sound(element.content, depth - 1)) {
            return false;
        }
    }
    true
}

/// Elements of distinguished encoding one after the other.
struct Elements<'a>(&'a [u8]);

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

impl Element<'_> {
    const fn is_constructed(&self) -> bool {
        self.tag & 0x20 != 0
    }
}

impl<'a> Elements<'a> {
    /// The next element, which has this tag.
    fn take(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next_element().filter(|element| element.tag == tag)
    }

    /// The next element, if its tag has one byte and its length the shortest form.
    fn next_element(&mut self) -> Option<Element<'a>> {
        let (length, rest) = match *self.0 {
            [_, length @ 0..=0x7f, ref rest @ ..] => (usize::from(length), rest),
            [_, 0x81, length @ 0x80..=0xff, ref rest @ ..] => (usize::from(length), rest),
            [_, 0x82, high @ 1..=0xff, low, ref rest @ ..] => {
                (usize::from(u16::from_be_bytes([high, low])), rest)
            }
            _ => return None,
        };
        let tag = *self.0.first().filter(|tag| *tag & 0x1f != 0x1f)?;
        let (content, rest) = if sabotage::on("lengths_are_believed") {
            rest.split_at(length)
        } else {
            rest.split_at_checked(length)?
        };
        let (whole, _) = self.0.split_at_checked(self.0.len() - rest.len())?;
        self.0 = rest;
        Some(Element { tag, content, whole })
    }

    /// That nothing follows.
    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests;
