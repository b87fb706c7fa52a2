//! The authority of the broker's own trust domain: an X.509 CA that signs SVIDs of that domain and nothing else.
//!
//! Its certificate follows the SPIFFE profile for signing certificates (X509-SVID §3–§5). Key and certificate lie in
//! two files; what is loaded is checked against each other, the trust domain and the time before it signs.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brevet_core::digest::Thumbprint;
use brevet_core::name::KeyId;
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use crate::key::{Curve, KeyError, Point};
use crate::{key_file, pem};

/// Certificates begin this much earlier than they are made, for peers whose clock is a little behind.
const BACKDATE: Duration = Duration::from_secs(60);

const CERTIFICATE: &str = "CERTIFICATE";

/// Why there is no authority.
#[derive(Debug, Error)]
pub enum CaError {
    /// One of the two files can't be used.
    #[error(transparent)]
    File(#[from] KeyError),
    /// The certificate file is there, but the key file is not.
    #[error("there is a certificate at {0}, but its private key is missing")]
    KeyMissing(PathBuf),
    /// The certificate is not one that this authority would have made.
    #[error("the authority's certificate is not usable")]
    Certificate(#[from] CertificateFault),
    /// A certificate could not be made.
    #[error("the certificate could not be made")]
    Signature,
}

/// What is wrong with an authority's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CertificateFault {
    /// It is not one certificate.
    #[error("it does not parse")]
    Malformed,
    /// It is for another key.
    #[error("it is for another key")]
    Key,
    /// Its signature is not its own key's.
    #[error("its signature does not verify")]
    Signature,
    /// It is not marked as an authority that signs certificates, or has no key identifier.
    #[error("it is not that of an authority")]
    NotAnAuthority,
    /// Its only URI is not the trust domain's SPIFFE ID without a path.
    #[error("it is for another trust domain")]
    TrustDomain,
    /// It has ended or not begun.
    #[error("it is not valid now")]
    Validity,
}

/// Why there is no server certificate.
#[derive(Debug, Error)]
pub enum ServerCertificateError {
    /// A DNS name is empty, too long, or has a character or label that DNS does not have.
    #[error("{0:?} is not a DNS name")]
    DnsName(String),
    /// It would not live: its life is zero, or the authority's has ended.
    #[error("the certificate would not live")]
    Lifetime,
    /// The key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate could not be made.
    #[error("the certificate could not be made")]
    Signature,
}

/// Where an authority is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFiles {
    /// The private key: PKCS#8 in PEM, for this user alone.
    pub key: PathBuf,
    /// The certificate in PEM, for everybody to read.
    pub certificate: PathBuf,
}

/// The names under which the broker is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ip: Vec<IpAddr>,
}

/// The broker's own identity: a certificate and a key that only memory holds.
pub struct ServerCertificate {
    /// The leaf in DER; the authority itself is in the bundle, not in the chain.
    pub chain: Vec<Vec<u8>>,
    /// The private key as PKCS#8 in DER.
    pub key: Zeroizing<Vec<u8>>,
    /// When it ends.
    pub end: Timestamp,
}

/// Says when it ends and nothing of the key.
impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("end", &self.end).finish_non_exhaustive()
    }
}

/// The authority's key with its certificate.
pub struct CaKey {
    pair: EcdsaKeyPair,
    point: Point,
    key_id: KeyId,
    trust_domain: TrustDomain,
    certificate: Vec<u8>,
    end: Timestamp,
}

impl CaKey {
    /// Reads the authority of a trust domain, or makes one with a life of `lifetime` if there is none.
    ///
    /// # Errors
    /// [`CaError`] if the files can't be used, don't belong together, or are another trust domain's.
    pub fn load_or_create(
        files: &CaFiles,
        trust_domain: &TrustDomain,
        now: Timestamp,
        lifetime: Duration,
        rng: &SystemRandom,
    ) -> Result<Self, CaError> {
        let certificate = load_certificate(&files.certificate)?;
        if certificate.is_some() && key_file::open(&files.key)?.is_none() {
            return Err(CaError::KeyMissing(files.certificate.clone()));
        }
        let key = AuthorityKey::from_pkcs8(&key_file::load_or_create(&files.key, rng)?, rng)
            .ok_or_else(|| KeyError::Malformed(files.key.clone()))?;
        // A key without a certificate is what a crash at the first start leaves; it has signed nothing.
        let certificate = match certificate {
            Some(certificate) => certificate,
            None => {
                let made = key.self_signed(trust_domain, now, lifetime, rng)?;
                key_file::create(&files.certificate, 0o644, pem::encode(CERTIFICATE, &made).as_bytes(), rng)?;
                made
            }
        };
        key.with_certificate(certificate, trust_domain, now)
    }

    /// An authority that no file holds: it ends with the process.
    ///
    /// # Errors
    /// [`CaError`] if it can't be made.
    pub fn ephemeral(
        trust_domain: &TrustDomain,
        now: Timestamp,
        lifetime: Duration,
        rng: &SystemRandom,
    ) -> Result<Self, CaError> {
        let key = AuthorityKey::from_pkcs8(&key_file::generate(rng)?, rng).ok_or(KeyError::Generation)?;
        let certificate = key.self_signed(trust_domain, now, lifetime, rng)?;
        key.with_certificate(certificate, trust_domain, now)
    }

    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authority's certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// When the authority's certificate ends.
    #[must_use]
    pub const fn end(&self) -> Timestamp {
        self.end
    }

    /// The key's identifier: the RFC 7638 thumbprint of its public half.
    #[must_use]
    pub const fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The same thumbprint as a value.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.point.thumbprint()
    }

    /// `x` and `y` of the public key in base64url (RFC 7518 §6.2.1).
    #[must_use]
    pub fn coordinates(&self) -> (&str, &str) {
        (&self.point.x, &self.point.y)
    }

    /// Makes the broker's own identity, `spiffe://{trust domain}/brevet`, with a new key. It ends after `lifetime`
    /// and never after the authority.
    ///
    /// # Errors
    /// [`ServerCertificateError`] if a name is not valid or the certificate would not live.
    pub fn server_certificate(
        &self,
        names: &ServerNames,
        now: Timestamp,
        lifetime: Duration,
        rng: &SystemRandom,
    ) -> Result<ServerCertificate, ServerCertificateError> {
        // 1. It lives, and within the authority's life.
        let end = now.after(lifetime).min(self.end).floor_to_second();
        if end <= now {
            return Err(ServerCertificateError::Lifetime);
        }

        // 2. The names: exactly one URI, whatever else there is (X509-SVID §2).
        let spiffe_id =
            SpiffeId::new(&self.trust_domain, "/brevet").map_err(|_| ServerCertificateError::Signature)?;
        let mut alternative_names = vec![uri(&spiffe_id)?];
        for name in &names.dns {
            alternative_names.push(dns_name(name)?);
        }
        alternative_names.extend(names.ip.iter().copied().map(SanType::IpAddress));

        // 3. The certificate, for a key that was just made.
        let key = key_file::generate(rng)?;
        let subject = AuthorityKey::from_pkcs8(&key, rng).ok_or(KeyError::Generation)?;
        let mut params = parameters(now, end, "brevet", rng)?;
        params.subject_alt_names = alternative_names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = self.sign(&params, &RcgenKey { pair: &subject.pair, rng }, rng)?;
        Ok(ServerCertificate { chain: vec![leaf], key, end })
    }

    /// Signs a leaf for a subject's key, as DER.
    pub(crate) fn sign(
        &self,
        leaf: &CertificateParams,
        subject: &impl PublicKeyData,
        rng: &SystemRandom,
    ) -> Result<Vec<u8>, rcgen::Error> {
        let signer = RcgenKey { pair: &self.pair, rng };
        let issuer = Issuer::from_ca_cert_der(&self.certificate.as_slice().into(), &signer)?;
        Ok(leaf.signed_by(subject, &issuer)?.der().to_vec())
    }
}

/// Says whose authority it is and nothing of the key.
impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaKey")
            .field("trust_domain", &self.trust_domain)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// A key whose certificate is still to be made or checked.
struct AuthorityKey {
    pair: EcdsaKeyPair,
    point: Point,
    key_id: KeyId,
}

impl AuthorityKey {
    fn from_pkcs8(pkcs8: &[u8], rng: &SystemRandom) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, rng).ok()?;
        let point = Point::of_uncompressed(Curve::P256, pair.public_key().as_ref())?;
        Some(Self { pair, key_id: point.key_id()?, point })
    }

    fn self_signed(
        &self,
        trust_domain: &TrustDomain,
        now: Timestamp,
        lifetime: Duration,
        rng: &SystemRandom,
    ) -> Result<Vec<u8>, CaError> {
        let end = now.after(lifetime).floor_to_second();
        // The thumbprint makes the name unique, so that two authorities of one trust domain are told apart.
        let name = format!("Brevet CA {}", self.key_id);
        let spiffe_id = SpiffeId::new(trust_domain, "").map_err(|_| CaError::Signature)?;
        let mut params = parameters(now, end, &name, rng)?;
        params.subject_alt_names = vec![uri(&spiffe_id)?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.self_signed(&RcgenKey { pair: &self.pair, rng })?;
        Ok(certificate.der().to_vec())
    }

    fn with_certificate(
        self,
        der: Vec<u8>,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<CaKey, CaError> {
        let end = check_certificate(&der, self.pair.public_key().as_ref(), trust_domain, now)?;
        let Self { pair, point, key_id } = self;
        Ok(CaKey { pair, point, key_id, trust_domain: trust_domain.clone(), certificate: der, end })
    }
}

/// Checks an authority's certificate and gives its end.
fn check_certificate(
    der: &[u8],
    public_key: &[u8],
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<Timestamp, CertificateFault> {
    let (rest, certificate) = parse_x509_certificate(der).map_err(|_| CertificateFault::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateFault::Malformed);
    }
    if *certificate.public_key().subject_public_key.data != *public_key {
        return Err(CertificateFault::Key);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
        .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
        .map_err(|_| CertificateFault::Signature)?;
    let signs_certificates = certificate
        .key_usage()
        .ok()
        .flatten()
        .is_some_and(|usage| usage.critical && usage.value.key_cert_sign());
    // RFC 5280 §4.2.1.2: what it signs refers to it by this.
    let has_key_identifier = certificate
        .extensions()
        .iter()
        .any(|extension| matches!(extension.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_)));
    if !certificate.is_ca()
        || !signs_certificates
        || !has_key_identifier
        || certificate.subject() != certificate.issuer()
    {
        return Err(CertificateFault::NotAnAuthority);
    }
    let spiffe_id = SpiffeId::new(trust_domain, "").map_err(|_| CertificateFault::TrustDomain)?;
    if uris(&certificate) != [spiffe_id.as_str()] {
        return Err(CertificateFault::TrustDomain);
    }
    let seconds = |time: i64| u64::try_from(time).map_err(|_| CertificateFault::Validity);
    let begin = seconds(certificate.validity().not_before.timestamp())?;
    let end = seconds(certificate.validity().not_after.timestamp())?;
    if now.seconds() < begin || now.seconds() >= end {
        return Err(CertificateFault::Validity);
    }
    Ok(Timestamp::from_seconds(end))
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    names.filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect()
}

fn load_certificate(path: &Path) -> Result<Option<Vec<u8>>, CaError> {
    let Some(file) = key_file::open(path)? else { return Ok(None) };
    let text = key_file::read(file).map_err(|source| KeyError::Io { path: path.into(), source })?;
    let text = std::str::from_utf8(&text).map_err(|_| CertificateFault::Malformed)?;
    let der = pem::decode(CERTIFICATE, text).ok_or(CertificateFault::Malformed)?;
    Ok(Some(der.to_vec()))
}

fn parameters(
    now: Timestamp,
    end: Timestamp,
    common_name: &str,
    rng: &SystemRandom,
) -> Result<CertificateParams, rcgen::Error> {
    let epoch = date_time_ymd(1970, 1, 1);
    let begin = now.since(Timestamp::EPOCH).saturating_sub(BACKDATE).as_secs();
    let mut serial = [0; 16];
    rng.fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Brevet");
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(begin);
    params.not_after = epoch + Duration::from_secs(end.seconds());
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn uri(spiffe_id: &SpiffeId) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(spiffe_id.as_str().try_into()?))
}

/// A host name in the preferred syntax (RFC 1034 §3.5) without a wildcard; letters may be of either case.
/// Whether a name is one of DNS (RFC 1123 §2.1).
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    let label_is_valid = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label_is_valid)
}

fn dns_name(name: &str) -> Result<SanType, ServerCertificateError> {
    let invalid = || ServerCertificateError::DnsName(name.to_owned());
    if !is_dns_name(name) {
        return Err(invalid());
    }
    Ok(SanType::DnsName(name.try_into().map_err(|_| invalid())?))
}

/// Lets `rcgen` sign with a key that it never holds a copy of.
struct RcgenKey<'a> {
    pair: &'a EcdsaKeyPair,
    rng: &'a SystemRandom,
}

impl PublicKeyData for RcgenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for RcgenKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(self.rng, message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

// Every input was parsed before: what `rcgen` can still report is a failure to sign.
impl From<rcgen::Error> for CaError {
    fn from(_: rcgen::Error) -> Self {
        Self::Signature
    }
}

impl From<rcgen::Error> for ServerCertificateError {
    fn from(_: rcgen::Error) -> Self {
        Self::Signature
    }
}

#[cfg(test)]
mod tests;
