//! Public keys: what may sign, what a holder may prove, and how a key is named.
//!
//! A key is taken in one spelling only: an uncompressed point on a named curve, or a minimal RSA modulus and
//! exponent. Whether a point lies on its curve is found when a signature is verified, and no key is believed
//! before it has verified one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::digest::{CertificateDigest, Thumbprint};
use ring::digest::{SHA256, digest};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, UnparsedPublicKey,
};
use serde_json::{Map, Value, json};
use thiserror::Error;
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
    /// A JWK with a member that it may not have, or one that says the key is for something else.
    #[error("a member of the jwk is not accepted")]
    Member,
}

/// A signature algorithm of JOSE (RFC 7518 §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
}

impl Algorithm {
    /// The value of `alg`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
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

    /// A P-256 or P-384 key from the members of a public JWK (RFC 7517, RFC 7518 §6.2.1).
    ///
    /// Besides the key itself only `kid`, `alg`, `use` and `key_ops` may be there, and the last three must say
    /// that the key verifies signatures of its own algorithm.
    ///
    /// # Errors
    /// [`InvalidKey`] if a member is missing, not accepted or private.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, InvalidKey> {
        if jwk.keys().any(|name| is_private_member(name)) {
            return Err(InvalidKey::NotPublic);
        }
        let text = |name: &str| jwk.get(name).and_then(Value::as_str).ok_or(InvalidKey::Malformed);
        if text("kty")? != "EC" {
            return Err(InvalidKey::Algorithm);
        }
        let name = text("crv")?;
        let curve = Curve::ALL.into_iter().find(|curve| curve.name() == name).ok_or(InvalidKey::Algorithm)?;
        let accepted = |(name, value): (&String, &Value)| match name.as_str() {
            "kty" | "crv" | "x" | "y" => true,
            "kid" => value.is_string(),
            "alg" => value == curve.algorithm().as_str(),
            "use" => value == "sig",
            "key_ops" => *value == json!(["verify"]),
            _ => false,
        };
        if !jwk.iter().all(accepted) {
            return Err(InvalidKey::Member);
        }
        let mut coordinates = Vec::with_capacity(2 * curve.coordinate_bytes());
        for name in ["x", "y"] {
            let coordinate = URL_SAFE_NO_PAD.decode(text(name)?).map_err(|_| InvalidKey::Malformed)?;
            if coordinate.len() != curve.coordinate_bytes() {
                return Err(InvalidKey::Malformed);
            }
            coordinates.extend(coordinate);
        }
        Self::from_coordinates(curve, &coordinates)
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

    /// The one algorithm that this key's signatures are verified with. None for RSA, whose keys are accepted in
    /// certificates alone: such a key can't be the holder key of a CSR or a DPoP proof.
    #[must_use]
    pub const fn algorithm(&self) -> Option<Algorithm> {
        match &self.0 {
            Kind::Elliptic(curve, _) => Some(curve.algorithm()),
            Kind::Rsa { .. } => None,
        }
    }

    /// Whether `signature`, in the fixed-length form of RFC 7518 §3.4, is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifies_by([&ECDSA_P256_SHA256_FIXED, &ECDSA_P384_SHA384_FIXED], message, signature)
    }

    /// The same for a signature in the form of RFC 3279 §2.2.3.
    pub(crate) fn verifies_der(&self, digest: Digest, message: &[u8], signature: &[u8]) -> bool {
        let algorithms: [&'static EcdsaVerificationAlgorithm; 2] = match digest {
            Digest::Sha256 => [&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1],
            Digest::Sha384 => [&ECDSA_P256_SHA384_ASN1, &ECDSA_P384_SHA384_ASN1],
        };
        self.verifies_by(algorithms, message, signature)
    }

    fn verifies_by(
        &self,
        [p256, p384]: [&'static EcdsaVerificationAlgorithm; 2],
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
        let whole = modulus.first().is_some_and(|first| first & 0x80 != 0);
        let odd = modulus.last().is_some_and(|last| last & 1 == 1);
        if !whole || !odd || !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&(modulus.len() * 8)) {
            return Err(InvalidKey::RsaModulus);
        }
        let exponent = key.try_exponent().map_err(|_| InvalidKey::RsaExponent)?;
        if exponent < RSA_EXPONENT_MIN || exponent % 2 == 0 {
            return Err(InvalidKey::RsaExponent);
        }
        let minimal = exponent.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        Ok(Self(Kind::Rsa { modulus: modulus.to_vec(), exponent: minimal }))
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

/// Whether a JWK with this member holds a private or a symmetric key (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
pub(crate) fn is_private_member(name: &str) -> bool {
    matches!(name, "d" | "p" | "q" | "dp" | "dq" | "qi" | "oth" | "k" | "priv")
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
