//! X.509-SVIDs (X509-SVID §5): whether a chain of certificates proves a workload, and which.
//!
//! Paths are built and signatures verified by webpki; whatever SPIFFE asks beyond RFC 5280 is checked here, the
//! leaf before a path is built and the certificates above it on each candidate path. Paths lead to the bundle of
//! the SVID's **own** trust domain only. webpki matches no URI against a name constraint, so an authority with a
//! constraint on URIs, even one that would permit the identity, signs no acceptable SVID.
//!
//! What a stranger's chain costs is bounded before it is looked at: so many certificates, so many bytes, so many
//! signatures ([`SIGNATURES_MAX`]). webpki alone would verify a hundred for each set of authorities. Four certificates
//! make at most sixteen partial paths, so that of webpki's other budgets, 200,000 paths and 250,000 comparisons of names
//! with constraints, only the last can be spent, and by those alone whom an authority lets sign.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use brevet_core::digest::{CertificateDigest, Thumbprint};
use brevet_core::proof::Caller;
use brevet_core::sabotage;
use brevet_core::spiffe_id::{InvalidSpiffeId, SpiffeId, TrustDomain};
use brevet_core::time::Timestamp;
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime,
};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::certificate::{ANOTHER_PARTY, Certificate, Validity};
use crate::key::{InvalidKey, certificate_digest};
use crate::trust::{Authority, Bundle, Bundles, CallerTrust, ServerTrust};

/// The most certificates in a chain, the leaf included.
pub const CHAIN_CERTIFICATES_MAX: usize = 4;
/// The longest chain in bytes.
pub const CHAIN_BYTES_MAX: usize = 32 * 1024;
/// The most signatures that are verified for one chain. It is enough where ten authorities of one bundle share a name,
/// as those of an issuer that renews them often do; a signature on P-384 takes about a millisecond to verify. It is no
/// configuration, or one verifier would accept a chain that another refuses.
pub const SIGNATURES_MAX: usize = 32;

/// The signature algorithms of certificates: those of RFC 7518 that SVIDs may use, as webpki names them.
pub(crate) const SIGNATURE_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Why a chain proves no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum X509SvidError {
    /// A certificate is not distinguished encoding of RFC 5280, or is too large.
    #[error("a certificate is malformed")]
    Malformed,
    /// The leaf has none or several URI names.
    #[error("the leaf has {0} uri names instead of one")]
    SanCount(usize),
    /// The URI name is not a SPIFFE ID.
    #[error("the uri name is not a spiffe id")]
    IdInvalid(#[source] InvalidSpiffeId),
    /// The SPIFFE ID names a trust domain and no workload.
    #[error("the spiffe id has no path")]
    IdWithoutPath,
    /// The SPIFFE ID is of the trust domain whose SVIDs Brevet itself mints.
    #[error("the identity was minted by this broker")]
    OwnCredential,
    /// The trust domain has no bundle, or another trust domain's authority signed.
    #[error("the issuer has no authority over the trust domain")]
    NotAuthoritative,
    /// The server is another than the one called.
    #[error("the server has another spiffe id than expected")]
    UnexpectedId,
    /// A certificate does not fit the profile of X509-SVID §4.
    #[error("a certificate does not fit the svid profile: {0}")]
    Profile(&'static str),
    /// A certificate of the path, the authority included, does not hold at this time.
    #[error("a certificate does not hold at this time")]
    Time,
    /// An authority's name constraints don't admit the leaf.
    #[error("a name constraint does not admit the leaf")]
    NameConstraint,
    /// A key is not of an accepted kind or strength.
    #[error("a key is not acceptable")]
    Key(#[from] InvalidKey),
    /// No path leads to an authority.
    #[error("no path leads to an authority")]
    Chain,
}

impl X509SvidError {
    /// A stable name for the audit. A client never sees it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::SanCount(_) => "san_count",
            Self::IdInvalid(_) | Self::IdWithoutPath => "id_invalid",
            Self::OwnCredential => "own_credential",
            Self::NotAuthoritative => "id_not_authoritative",
            Self::UnexpectedId => "id_unexpected",
            Self::Profile(_) => "svid_profile",
            Self::Time => "cert_time",
            Self::NameConstraint => "nc_violation",
            Self::Key(_) => "key_unacceptable",
            Self::Chain => "chain_invalid",
        }
    }

    pub(crate) const fn from_webpki(error: &webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { .. } | E::CertNotValidYet { .. } | E::InvalidCertValidity | E::BadDerTime => {
                Self::Time
            }
            E::NameConstraintViolation | E::MalformedNameConstraint => Self::NameConstraint,
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
                Self::Profile("the extended key usage is another")
            }
            E::UnsupportedCriticalExtension => Self::Profile("an unknown extension is critical"),
            E::UnsupportedCertVersion => Self::Profile("not of version 3"),
            E::BadDer
            | E::TrailingData(_)
            | E::MalformedExtensions
            | E::ExtensionValueInvalid
            | E::InvalidSerialNumber
            | E::SignatureAlgorithmMismatch => Self::Malformed,
            _ => Self::Chain,
        }
    }
}

/// Judges the chain, leaf first, that a caller presented and whose key the TLS handshake proved.
///
/// # Errors
/// [`X509SvidError`] names the first check that failed.
pub fn verify_chain<C: AsRef<[u8]>>(
    chain: &[C],
    trust: &CallerTrust,
    now: Timestamp,
) -> Result<Caller, X509SvidError> {
    let svid = verify(chain, trust.trusted(), Some(trust.own()), KeyUsage::client_auth(), now)?;
    Ok(Caller::verified_x509_svid(svid.spiffe_id, now, svid.end, svid.key, svid.certificate))
}

/// Judges a chain, leaf first, as [`verify_chain`] does, but for nobody: no broker's own trust domain is set apart,
/// and no connection proved who holds the key.
///
/// # Errors
/// [`X509SvidError`] names the first check that failed.
pub fn judge<C: AsRef<[u8]>>(chain: &[C], bundles: &Bundles, now: Timestamp) -> Result<Svid, X509SvidError> {
    verify(chain, bundles, None, KeyUsage::client_auth(), now)
}

/// Judges the chain, leaf first, of the server that a client called and that must be `expected`.
///
/// # Errors
/// [`X509SvidError`] names the first check that failed.
pub fn verify_server<C: AsRef<[u8]>>(
    chain: &[C],
    trust: &ServerTrust,
    expected: &SpiffeId,
    now: Timestamp,
) -> Result<(), X509SvidError> {
    let svid = verify(chain, trust.trusted(), None, KeyUsage::server_auth(), now)?;
    if svid.spiffe_id == *expected { Ok(()) } else { Err(X509SvidError::UnexpectedId) }
}

/// The SPIFFE ID that a leaf claims. It is proven by nothing.
///
/// # Errors
/// [`X509SvidError`] if the certificate is malformed or has not exactly one valid SPIFFE ID with a path.
pub fn leaf_spiffe_id(der: &[u8]) -> Result<SpiffeId, X509SvidError> {
    Certificate::parse(der)?.spiffe_id()
}

/// Whether a path leads from the chain to an authority of any bundle: what a handshake asks for. It proves no
/// identity. The bundle of the trust domain that the leaf claims comes first: in others there may be many
/// authorities of the same name.
pub(crate) fn is_known(
    chain: &[&[u8]],
    bundles: &Bundles,
    usage: KeyUsage,
    now: Timestamp,
) -> Result<(), X509SvidError> {
    let search = Search { chain, usage, now, budget: &Budget::full() };
    check_size(chain)?;
    let claimed = chain.first().and_then(|leaf| leaf_spiffe_id(leaf).ok());
    let own = claimed.and_then(|id| bundles.of(&id.trust_domain()));
    if own.is_none_or(|bundle| search.path_to(bundle.anchors(), &|_| Ok(())).is_err()) {
        search.path_to(bundles.all_anchors(), &|_| Ok(()))?;
    }
    // A key that verifies nothing here is refused for that, not for the signature that it then cannot make.
    let leaf = chain.first().and_then(|leaf| Certificate::parse(leaf).ok());
    leaf.map_or(Ok(()), |leaf| leaf.public_key().map(drop))
}

/// What an accepted chain proves of whoever holds the key of its leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    spiffe_id: SpiffeId,
    key: Thumbprint,
    certificate: CertificateDigest,
    end: Timestamp,
}

impl Svid {
    /// Who it is.
    #[must_use]
    pub const fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The RFC 7638 thumbprint of the leaf's key.
    #[must_use]
    pub const fn key(&self) -> Thumbprint {
        self.key
    }

    /// The SHA-256 of the leaf (RFC 8705 §3.1).
    #[must_use]
    pub const fn certificate(&self) -> CertificateDigest {
        self.certificate
    }

    /// When the first certificate of its path ends, the authority included.
    #[must_use]
    pub const fn end(&self) -> Timestamp {
        self.end
    }
}

fn verify<C: AsRef<[u8]>>(
    chain: &[C],
    bundles: &Bundles,
    own: Option<&TrustDomain>,
    usage: KeyUsage,
    now: Timestamp,
) -> Result<Svid, X509SvidError> {
    let chain: Vec<&[u8]> = chain.iter().take(CHAIN_CERTIFICATES_MAX + 1).map(AsRef::as_ref).collect();
    verify_within(&Search { chain: &chain, usage, now, budget: &Budget::full() }, bundles, own)
}

fn verify_within(
    search: &Search<'_>,
    bundles: &Bundles,
    own: Option<&TrustDomain>,
) -> Result<Svid, X509SvidError> {
    // 1. The leaf by itself.
    check_size(search.chain)?;
    let leaf_der = *search.chain.first().ok_or(X509SvidError::Malformed)?;
    let leaf = Certificate::parse(leaf_der)?;
    leaf.check_leaf()?;
    let spiffe_id = leaf.spiffe_id()?;
    // 2. What this broker minted is no caller's identity, whoever signed it.
    let trust_domain = spiffe_id.trust_domain();
    if own == Some(&trust_domain) {
        return Err(X509SvidError::OwnCredential);
    }
    let key = leaf.public_key()?.thumbprint();
    // 3. A path to the bundle of its own trust domain, and of no other.
    let bundle = bundles.of(&trust_domain).ok_or(X509SvidError::NotAuthoritative)?;
    let end = Cell::new(leaf.validity().not_after);
    let judge = |path: &VerifiedPath<'_>| {
        end.set(judge_path(path, &leaf, bundle, &trust_domain, search.now)?);
        Ok(())
    };
    // A chain that another trust domain's authority signed is told from one that nobody known did.
    let foreign = |path: &VerifiedPath<'_>| match bundle.authorities_of(path.anchor()).next() {
        None => Ok(()),
        Some(_) => Err(X509SvidError::Chain),
    };
    match search.path_to(bundle.anchors(), &judge) {
        Ok(()) => Ok(Svid { spiffe_id, key, certificate: certificate_digest(leaf_der), end: end.get() }),
        Err(X509SvidError::Chain) if search.path_to(bundles.all_anchors(), &foreign).is_ok() => {
            Err(X509SvidError::NotAuthoritative)
        }
        Err(error) => Err(error),
    }
}

fn check_size(chain: &[&[u8]]) -> Result<(), X509SvidError> {
    if chain.len() > CHAIN_CERTIFICATES_MAX {
        return Err(X509SvidError::Chain);
    }
    if chain.iter().map(|certificate| certificate.len()).sum::<usize>() > CHAIN_BYTES_MAX {
        return Err(X509SvidError::Malformed);
    }
    Ok(())
}

/// The search for a path from one chain, and what is left of what it may cost.
struct Search<'a> {
    /// Leaf first.
    chain: &'a [&'a [u8]],
    usage: KeyUsage,
    now: Timestamp,
    budget: &'a Budget,
}

impl Search<'_> {
    /// Builds a path to one of the anchors that satisfies `judge`. If none does, the last refusal of `judge` is the
    /// answer: such a path was sound but for that.
    fn path_to(
        &self,
        anchors: &[TrustAnchor<'_>],
        judge: &dyn Fn(&VerifiedPath<'_>) -> Result<(), X509SvidError>,
    ) -> Result<(), X509SvidError> {
        let certificates: Vec<CertificateDer<'_>> =
            self.chain.iter().map(|der| CertificateDer::from(*der)).collect();
        let (leaf, intermediates) = certificates.split_first().ok_or(X509SvidError::Malformed)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|error| X509SvidError::from_webpki(&error))?;
        let refusal = Cell::new(None);
        let candidate = |path: &VerifiedPath<'_>| {
            judge(path).map_err(|error| {
                refusal.set(Some(error));
                webpki::Error::UnknownIssuer
            })
        };
        let metered: Vec<_> = SIGNATURE_ALGORITHMS
            .iter()
            .map(|algorithm| Metered { algorithm: *algorithm, budget: self.budget })
            .collect();
        let algorithms: Vec<_> =
            metered.iter().map(|metered| metered as &dyn SignatureVerificationAlgorithm).collect();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(self.now.seconds()));
        let verified = leaf.verify_for_usage(
            &algorithms,
            anchors,
            intermediates,
            time,
            self.usage,
            None,
            Some(&candidate),
        );
        match verified {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal.get().unwrap_or_else(|| X509SvidError::from_webpki(&error))),
        }
    }
}

/// How many more signatures are verified for a chain.
#[derive(Debug)]
struct Budget(AtomicUsize);

impl Budget {
    const fn full() -> Self {
        Self(AtomicUsize::new(SIGNATURES_MAX))
    }

    /// Takes one, if there is one.
    fn spend(&self) -> Result<(), InvalidSignature> {
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        spent.map(drop).map_err(|_| InvalidSignature)
    }
}

/// An algorithm that verifies within a budget, and nothing beyond it.
#[derive(Debug)]
struct Metered<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    budget: &'a Budget,
}

impl SignatureVerificationAlgorithm for Metered<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.budget.spend()?;
        self.algorithm.verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

/// Judges what webpki does not: the times to the millisecond, the SPIFFE profile of the signing certificates, and
/// whether the authority itself still holds. Yields when the first certificate of the path ends.
fn judge_path(
    path: &VerifiedPath<'_>,
    leaf: &Certificate<'_>,
    bundle: &Bundle,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<Timestamp, X509SvidError> {
    let mut validities = vec![leaf.validity()];
    let mut path_length = 0;
    for intermediate in path.intermediate_certificates() {
        let der = intermediate.der();
        let certificate = Certificate::parse(&der)?;
        certificate.check_signing(Some(trust_domain))?;
        validities.push(certificate.validity());
        path_length += u32::from(!certificate.is_self_issued());
    }
    if !validities.iter().all(|validity| validity.contains(now)) {
        return Err(X509SvidError::Time);
    }
    let holds = |validity: Validity| validity.contains(now) || sabotage::on("ended_authorities_sign");
    let holding = || bundle.authorities_of(path.anchor()).filter(|authority| holds(authority.validity));
    if holding().next().is_none() {
        return Err(X509SvidError::Time);
    }
    let is_its_own =
        |authority: &&Authority| authority.stated.as_ref().is_none_or(|stated| stated == trust_domain);
    if holding().all(|authority| !is_its_own(&authority)) {
        return Err(X509SvidError::Profile(ANOTHER_PARTY));
    }
    let anchor_end = holding()
        .filter(is_its_own)
        .filter(|authority| {
            authority.path_length.is_none_or(|max| path_length <= max || sabotage::on("paths_are_endless"))
        })
        .map(|authority| authority.validity.not_after)
        .max()
        .ok_or(X509SvidError::Chain)?;
    Ok(validities.iter().map(|validity| validity.not_after).fold(anchor_end, Timestamp::min))
}

#[cfg(test)]
mod tests;
