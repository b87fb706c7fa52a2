//! Public keys: what may sign, what a holder may prove, and how a key is named.
//!
//! A key is taken in one spelling only: an uncompressed point on a named curve, or a minimal RSA modulus and
//! exponent. Whether a point lies on its curve is found when a signature is verified, and no key is believed
//! before it has verified one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::digest::{CertificateDigest, Thumbprint};
use brevet_core::sabotage;
use ring::agreement;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Map, Value};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The least size of an RSA modulus in bits.
pub const RSA_BITS_MIN: usize = 2048;
/// The greatest size of an RSA modulus in bits.
pub const RSA_BITS_MAX: usize = 8192;

const RSA_EXPONENT_MIN: u64 = 65_537;

/// Why a public key is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidKey {
    /// It is not spelled as its standard says.
    #[error("not a well-formed public key")]
    Malformed,
    /// Its algorithm or curve is not one of those accepted.
    #[error("the key's algorithm or curve is not accepted")]
    Algorithm,
    /// An RSA key whose modulus is not 2,048 to 8,192 bits in whole bytes, or is even.
    #[error("the rsa modulus is not accepted")]
    RsaModulus,
    /// An RSA key whose public exponent is even or below 65,537.
    #[error("the rsa exponent is not accepted")]
    RsaExponent,
    /// A JWK that holds a private or a symmetric key.
    #[error("the key is not public")]
    NotPublic,
    /// A JWK that says it is for something else than verifying signatures here.
    #[error("the jwk is for something else")]
    Purpose,
    /// A JWK whose `x5c` has another key.
    #[error("the certificate of the jwk has another key")]
    Certificate,
}

/// A signature algorithm of JOSE (RFC 7518 §3.1): those that JWT-SVIDs may use, but for ES512.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Es256,
        Self::Es384,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];

    /// The algorithm with this `alg`, compared byte for byte.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// The value of `alg`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    /// How ring verifies it with an RSA key, if that is what it is for.
    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Es256 | Self::Es384 => None,
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
        }
    }
}

/// A digest that is signed with ECDSA. JOSE binds one to each curve, X.509 does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    Sha256,
    Sha384,
}

/// A public key of an accepted kind.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    /// The uncompressed point (SEC 1 §2.3.3).
    Elliptic(Curve, Vec<u8>),
    /// The modulus and the exponent, big-endian without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

impl Curve {
    const ALL: [Self; 2] = [Self::P256, Self::P384];

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

    /// What precedes the point's coordinates in a `SubjectPublicKeyInfo` (RFC 5480): DER leaves one spelling.
    const fn spki_prefix(self) -> &'static [u8] {
        match self {
            Self::P256 => {
                b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"
            }
            Self::P384 => {
                b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04"
            }
        }
    }

    const fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::Es256,
            Self::P384 => Algorithm::Es384,
        }
    }
}

impl PublicKey {
    /// A key from a DER `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
    ///
    /// # Errors
    /// [`InvalidKey`] if it is not exactly one key of an accepted kind: P-256, P-384, or RSA of 2,048 to 8,192
    /// bits with an odd exponent of at least 65,537.
    pub fn from_spki(der: &[u8]) -> Result<Self, InvalidKey> {
        for curve in Curve::ALL {
            if let Some(coordinates) = der.strip_prefix(curve.spki_prefix()) {
                return Self::from_coordinates(curve, coordinates);
            }
        }
        Self::rsa_from_spki(der)
    }

    /// The key of a DER certificate. Nothing else of the certificate is looked at.
    ///
    /// # Errors
    /// [`InvalidKey`] if it is no certificate, or its key is not acceptable.
    pub fn from_certificate(der: &[u8]) -> Result<Self, InvalidKey> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| InvalidKey::Malformed)?;
        if rest.is_empty() {
            Self::from_spki(certificate.public_key().raw)
        } else {
            Err(InvalidKey::Malformed)
        }
    }

    /// The key that a JWK describes by the members of its type (RFC 7518 §6), whatever its other members say.
    ///
    /// # Errors
    /// [`InvalidKey`] if a member is missing or the key is not of an accepted kind and strength.
    pub(crate) fn from_jwk_members(jwk: &Map<String, Value>) -> Result<Self, InvalidKey> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str).ok_or(InvalidKey::Malformed);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).map_err(|_| InvalidKey::Malformed);
        match jwk.get("kty").and_then(Value::as_str) {
            Some("EC") => {
                let name = text("crv")?;
                let curve = Curve::ALL.into_iter().find(|curve| curve.name() == name);
                let curve = curve.ok_or(InvalidKey::Algorithm)?;
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != curve.coordinate_bytes() {
                    return Err(InvalidKey::Malformed);
                }
                Self::from_coordinates(curve, &[x, y].concat())
            }
            Some("RSA") => Self::from_rsa(&bytes("n")?, &bytes("e")?),
            _ => Err(InvalidKey::Algorithm),
        }
    }

    /// The public JWK: the members that RFC 7638 §3.2 requires and no others.
    #[must_use]
    pub fn to_jwk(&self) -> Map<String, Value> {
        let members = match &self.0 {
            Kind::Elliptic(curve, point) => {
                let (x, y) = coordinates(*curve, point);
                vec![("crv", curve.name().to_owned()), ("kty", "EC".to_owned()), ("x", x), ("y", y)]
            }
            Kind::Rsa { modulus, exponent } => vec![
                ("e", URL_SAFE_NO_PAD.encode(exponent)),
                ("kty", "RSA".to_owned()),
                ("n", URL_SAFE_NO_PAD.encode(modulus)),
            ],
        };
        members.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
    }

    /// The RFC 7638 thumbprint: the SHA-256 of the required members in lexicographic order without white space.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        let canonical = match &self.0 {
            Kind::Elliptic(curve, point) => {
                let (x, y) = coordinates(*curve, point);
                format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, curve.name())
            }
            Kind::Rsa { modulus, exponent } => {
                let (e, n) = (URL_SAFE_NO_PAD.encode(exponent), URL_SAFE_NO_PAD.encode(modulus));
                format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
            }
        };
        Thumbprint::from_bytes(sha256(canonical.as_bytes()))
    }

    /// The one algorithm that an elliptic curve leaves. None for RSA: such a key signs as its owner says, and it
    /// can't be the holder key of a CSR or a DPoP proof.
    #[must_use]
    pub const fn algorithm(&self) -> Option<Algorithm> {
        match &self.0 {
            Kind::Elliptic(curve, _) => Some(curve.algorithm()),
            Kind::Rsa { .. } => None,
        }
    }

    /// Whether this kind of key signs with an algorithm.
    #[must_use]
    pub fn signs_with(&self, algorithm: Algorithm) -> bool {
        match &self.0 {
            Kind::Elliptic(curve, _) => curve.algorithm() == algorithm,
            Kind::Rsa { .. } => algorithm.rsa().is_some(),
        }
    }

    /// Whether `signature`, in the form of RFC 7518 §3.3 to §3.5, is this key's over `message` by `algorithm`.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let is_zero = || signature.iter().all(|byte| *byte == 0);
        if sabotage::on("any_signature_verifies") || (sabotage::on("zero_signatures_verify") && is_zero()) {
            return true;
        }
        match &self.0 {
            Kind::Elliptic(curve, _) => {
                curve.algorithm() == algorithm
                    && self.verifies_by(
                        [&ECDSA_P256_SHA256_FIXED, &ECDSA_P384_SHA384_FIXED],
                        message,
                        signature,
                    )
            }
            Kind::Rsa { modulus, exponent } => algorithm.rsa().is_some_and(|parameters| {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, signature).is_ok()
            }),
        }
    }

    /// Whether an elliptic key is a point of its curve. A signature by one that is not never verifies, but a key that
    /// is published should be told from a broken one before it is needed.
    #[must_use]
    pub fn is_on_its_curve(&self) -> bool {
        let Kind::Elliptic(curve, point) = &self.0 else { return true };
        let curve = match curve {
            Curve::P256 => &agreement::ECDH_P256,
            Curve::P384 => &agreement::ECDH_P384,
        };
        // ring checks the other side's point before it agrees with it on anything.
        let own = agreement::EphemeralPrivateKey::generate(curve, &SystemRandom::new());
        let point = agreement::UnparsedPublicKey::new(curve, point);
        own.and_then(|own| agreement::agree_ephemeral(own, &point, |_| ())).is_ok()
    }

    /// The same for a signature in the form of RFC 3279 §2.2.3.
    pub(crate) fn verifies_der(&self, digest: Digest, message: &[u8], signature: &[u8]) -> bool {
        let algorithms: [&'static dyn VerificationAlgorithm; 2] = match digest {
            Digest::Sha256 => [&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1],
            Digest::Sha384 => [&ECDSA_P256_SHA384_ASN1, &ECDSA_P384_SHA384_ASN1],
        };
        self.verifies_by(algorithms, message, signature)
    }

    fn verifies_by(
        &self,
        [p256, p384]: [&'static dyn VerificationAlgorithm; 2],
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        match &self.0 {
            Kind::Elliptic(curve, point) => {
                let algorithm = match curve {
                    Curve::P256 => p256,
                    Curve::P384 => p384,
                };
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
            Kind::Rsa { .. } => false,
        }
    }

    fn from_coordinates(curve: Curve, coordinates: &[u8]) -> Result<Self, InvalidKey> {
        if coordinates.len() != 2 * curve.coordinate_bytes() {
            return Err(InvalidKey::Malformed);
        }
        Ok(Self(Kind::Elliptic(curve, [&[0x04], coordinates].concat())))
    }

    fn rsa_from_spki(der: &[u8]) -> Result<Self, InvalidKey> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| InvalidKey::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidKey::Malformed);
        }
        let Ok(ParsedKey::RSA(key)) = spki.parsed() else {
            return Err(InvalidKey::Algorithm);
        };
        // In DER a positive integer whose first bit is set begins with one zero byte, and only such a modulus
        // fills whole bytes.
        let modulus = key.modulus.strip_prefix(&[0]).ok_or(InvalidKey::RsaModulus)?;
        let exponent = match key.exponent {
            [0, positive @ ..] if positive.first().is_some_and(|first| first & 0x80 != 0) => positive,
            [first, ..] if first & 0x80 == 0 => key.exponent,
            _ => return Err(InvalidKey::RsaExponent),
        };
        Self::from_rsa(modulus, exponent)
    }

    /// Takes a modulus and an exponent, big-endian without leading zeros.
    fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, InvalidKey> {
        let whole = modulus.first().is_some_and(|first| first & 0x80 != 0);
        let odd = modulus.last().is_some_and(|last| last & 1 == 1);
        if !whole || !odd || !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&(modulus.len() * 8)) {
            return Err(InvalidKey::RsaModulus);
        }
        if exponent.first() == Some(&0) || exponent.len() > size_of::<u64>() {
            return Err(InvalidKey::RsaExponent);
        }
        let value = exponent.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        if value < RSA_EXPONENT_MIN || value % 2 == 0 {
            return Err(InvalidKey::RsaExponent);
        }
        Ok(Self(Kind::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() }))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.thumbprint())
    }
}

/// The SHA-256 of a DER certificate (RFC 8705 §3.1).
#[must_use]
pub fn certificate_digest(der: &[u8]) -> CertificateDigest {
    CertificateDigest::from_bytes(sha256(der))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The coordinates of an uncompressed point as a JWK writes them.
fn coordinates(curve: Curve, point: &[u8]) -> (String, String) {
    let (x, y) =
        point.get(1..).unwrap_or_default().split_at_checked(curve.coordinate_bytes()).unwrap_or_default();
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

#[cfg(test)]
mod tests;
