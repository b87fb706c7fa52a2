//! Trust bundles: which authorities may sign the SVIDs of which trust domain.
//!
//! A trust is an immutable value: a reload makes another. Bundles are never merged (SPIFFE Federation §4.2): an
//! authority speaks for the trust domain it was configured for and for no other. That a broker must not accept what
//! it minted itself while its clients must accept its certificate is told apart by two types: [`CallerTrust`] can't
//! hold the broker's own trust domain, and only [`ServerTrust`] judges servers.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_core::digest::TrustDigest;
use brevet_core::sabotage;
use brevet_core::spiffe_id::TrustDomain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::certificate::{Certificate, Validity};
use crate::jwk::KeyUse;
use crate::jwk_set::{self, Ignored, InvalidJwkSet, JwkSet};
use crate::jwt_svid::JwtBundles;
use crate::oidc::Issuer;
use crate::x509_svid::X509SvidError;

/// The longest bundle in bytes.
pub const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
/// The most keys or certificates in a bundle.
pub const BUNDLE_KEYS_MAX: usize = 256;

/// Why a text is not a trust bundle.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidBundle {
    /// It is not a JWK Set.
    #[error("not a jwk set")]
    JwkSet(#[from] InvalidJwkSet),
    /// It is longer than the limit or has too many certificates.
    #[error("the bundle is too large")]
    TooLarge,
    /// `spiffe_sequence` or `spiffe_refresh_hint` is not a whole number.
    #[error("{0} is not a whole number")]
    Parameter(&'static str),
    /// The PEM text is damaged, holds no certificate, or holds a private key.
    #[error("not a pem text of certificates alone")]
    Pem,
    /// The `x5c` of an element is not a certificate in base64.
    #[error("element {0} has no certificate in its x5c")]
    X5c(usize),
    /// The key of an element is not that of its certificate.
    #[error("element {0} has another key than its certificate")]
    KeyMismatch(usize),
    /// A certificate is not fit to be an authority.
    #[error("certificate {0} is not an acceptable authority")]
    Authority(usize, #[source] X509SvidError),
}

impl InvalidBundle {
    /// A stable name for the audit.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::JwkSet(error) => error.reason(),
            Self::TooLarge => "bundle_size",
            Self::Parameter(_) | Self::Pem | Self::X5c(_) => "bundle_malformed",
            Self::KeyMismatch(_) => "key_unacceptable",
            Self::Authority(_, error) => error.reason(),
        }
    }
}

/// Why bundles make no trust.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidTrust {
    /// A bundle is for the broker's own trust domain, whose workloads are no callers.
    #[error("the broker's own trust domain can't be trusted for callers")]
    OwnTrustDomain,
    /// Two bundles, or a bundle and an issuer of tokens, are for one trust domain.
    #[error("two authorities for trust domain {0}")]
    Duplicate(TrustDomain),
    /// Two issuers have one URL.
    #[error("two issuers {0}")]
    DuplicateIssuer(String),
}

/// The authorities of one trust domain.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    authorities: Vec<Authority>,
    /// Those that sign JWT-SVIDs.
    jwt: JwkSet,
    /// The same authorities in the form that paths are built to, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    sequence: Option<u64>,
    refresh_hint: Option<Duration>,
    ignored: Vec<(usize, Ignored)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    pub(crate) validity: Validity,
    pub(crate) path_length: Option<u32>,
    /// Whose it says that it is.
    pub(crate) stated: Option<TrustDomain>,
}

impl Bundle {
    /// Reads a bundle in SPIFFE's format (SPIFFE Trust Domain and Bundle §4, X509-SVID §6).
    ///
    /// An element whose `use` is not `x509-svid`, whose key type is unknown, or that has no certificate is left
    /// out. A bundle may be empty: then every SVID of its trust domain is invalid.
    ///
    /// # Errors
    /// [`InvalidBundle`] if the text is no bundle or an authority is not acceptable. An expired authority is
    /// accepted here and refused when a path is built to it.
    pub fn from_spiffe_json(text: &[u8]) -> Result<Self, InvalidBundle> {
        let (members, elements) = jwk_set::elements(text, BUNDLE_BYTES_MAX, BUNDLE_KEYS_MAX)?;
        let number = |name: &'static str| match members.get(name) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or(InvalidBundle::Parameter(name)),
        };
        let mut bundle = Self {
            sequence: number("spiffe_sequence")?,
            refresh_hint: number("spiffe_refresh_hint")?.map(Duration::from_secs),
            jwt: JwkSet::of(&elements, KeyUse::JwtSvid)?,
            ..Self::default()
        };
        let mut ignored = bundle.jwt.ignored().to_vec();
        for (index, element) in elements.iter().enumerate() {
            if let Some(der) = x509_authority(index, element)? {
                ignored.retain(|(other, _)| *other != index);
                let key = bundle.push(index, &der)?;
                if key.iter().any(|(name, value)| element.get(name).is_some_and(|stated| stated != value)) {
                    return Err(InvalidBundle::KeyMismatch(index));
                }
            }
        }
        bundle.ignored = ignored;
        Ok(bundle)
    }

    /// Reads a bundle of PEM certificates (RFC 7468).
    ///
    /// # Errors
    /// [`InvalidBundle`] as for [`Bundle::from_spiffe_json`], and if there is no certificate or a private key.
    pub fn from_pem(text: &[u8]) -> Result<Self, InvalidBundle> {
        if text.len() > BUNDLE_BYTES_MAX {
            return Err(InvalidBundle::TooLarge);
        }
        if text.windows(PRIVATE_KEY.len()).any(|window| window == PRIVATE_KEY) {
            return Err(InvalidBundle::Pem);
        }
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let certificates = certificates.map_err(|_| InvalidBundle::Pem)?;
        if certificates.is_empty() {
            return Err(InvalidBundle::Pem);
        }
        Self::from_certificates(&certificates)
    }

    /// Takes DER certificates.
    ///
    /// # Errors
    /// [`InvalidBundle::Authority`] if one is not acceptable, [`InvalidBundle::TooLarge`] if there are too many.
    pub fn from_certificates<C: AsRef<[u8]>>(certificates: &[C]) -> Result<Self, InvalidBundle> {
        if certificates.len() > BUNDLE_KEYS_MAX {
            return Err(InvalidBundle::TooLarge);
        }
        let mut bundle = Self::default();
        for (index, certificate) in certificates.iter().enumerate() {
            bundle.push(index, certificate.as_ref())?;
        }
        Ok(bundle)
    }

    /// The authorities as DER certificates.
    pub fn authorities(&self) -> impl Iterator<Item = &[u8]> {
        self.authorities.iter().map(|authority| authority.certificate.as_ref())
    }

    /// `spiffe_sequence`: changes with the content of the bundle.
    #[must_use]
    pub const fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// `spiffe_refresh_hint`: how often to look for another.
    #[must_use]
    pub const fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// Which elements were left out, by their position, and why.
    #[must_use]
    pub fn ignored(&self) -> &[(usize, Ignored)] {
        &self.ignored
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The authorities that a path to this anchor may end in: renewed ones share their name and key.
    pub(crate) fn authorities_of<'s>(
        &'s self,
        anchor: &TrustAnchor<'_>,
    ) -> impl Iterator<Item = &'s Authority> {
        let of_anchor = self.anchors.iter().map(move |candidate| candidate == anchor);
        self.authorities.iter().zip(of_anchor).filter_map(|(authority, is)| is.then_some(authority))
    }

    /// Adds an authority and yields its key as a JWK.
    fn push(&mut self, index: usize, der: &[u8]) -> Result<Map<String, Value>, InvalidBundle> {
        let refuse = |source| InvalidBundle::Authority(index, source);
        let parsed = Certificate::parse(der).map_err(refuse)?;
        parsed.check_signing(None).map_err(refuse)?;
        let certificate = CertificateDer::from(der.to_vec());
        let mut anchor = webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|error| refuse(X509SvidError::from_webpki(&error)))?
            .to_owned();
        let key = parsed.public_key().map_err(refuse)?.to_jwk();
        self.authorities.push(Authority {
            certificate,
            validity: parsed.validity(),
            path_length: parsed.path_length(),
            stated: parsed.signing_trust_domain().map_err(refuse)?,
        });
        if sabotage::on("authorities_are_unconstrained") {
            anchor.name_constraints = None;
        }
        self.anchors.push(anchor);
        Ok(key)
    }
}

/// What a broker accepts callers by: the bundles of other trust domains, the issuers of tokens that are no SVIDs, and
/// the name of its own trust domain, which no caller may bear.
#[derive(Debug, Clone)]
pub struct CallerTrust {
    own: TrustDomain,
    bundles: Bundles,
    jwt_bundles: JwtBundles,
    issuers: BTreeMap<String, Issuer>,
}

impl CallerTrust {
    /// Takes the broker's own trust domain and a bundle for each trust domain whose workloads may call.
    ///
    /// # Errors
    /// [`InvalidTrust`] if one of them is the broker's own, or one occurs twice.
    pub fn new(
        own: TrustDomain,
        bundles: impl IntoIterator<Item = (TrustDomain, Bundle)>,
    ) -> Result<Self, InvalidTrust> {
        let bundles = Bundles::new(bundles)?;
        if bundles.of(&own).is_some() && !sabotage::on("own_trust_domain_trusted") {
            return Err(InvalidTrust::OwnTrustDomain);
        }
        let named = bundles.by_trust_domain.iter();
        let jwt_bundles = named.map(|(name, bundle)| (name.clone(), bundle.jwt.clone())).collect();
        Ok(Self { own, bundles, jwt_bundles, issuers: BTreeMap::new() })
    }

    /// Adds issuers of tokens, each with a trust domain of its own for the workloads that it names.
    ///
    /// # Errors
    /// [`InvalidTrust`] if a trust domain is the broker's or another authority's, or an issuer occurs twice.
    pub fn with_issuers(mut self, issuers: impl IntoIterator<Item = Issuer>) -> Result<Self, InvalidTrust> {
        for issuer in issuers {
            let taken = self.issuers.values().any(|other| other.trust_domain() == issuer.trust_domain());
            if *issuer.trust_domain() == self.own {
                return Err(InvalidTrust::OwnTrustDomain);
            }
            if taken || self.bundles.of(issuer.trust_domain()).is_some() {
                return Err(InvalidTrust::Duplicate(issuer.trust_domain().clone()));
            }
            if let Some(twice) = self.issuers.insert(issuer.url().to_owned(), issuer) {
                return Err(InvalidTrust::DuplicateIssuer(twice.url().to_owned()));
            }
        }
        Ok(self)
    }

    /// The same trust where these issuers, by URL, have these keys and no others; those that are not trusted are left out.
    /// `None` if they have them already.
    #[must_use]
    pub fn with_keys(&self, keys: impl IntoIterator<Item = (String, JwkSet)>) -> Option<Self> {
        let differ = |(url, keys): (String, JwkSet)| {
            self.issuers
                .get(&url)
                .filter(|issuer| *issuer.keys() != keys)
                .map(|it| it.clone().with_keys(keys))
        };
        let mut changed = keys.into_iter().filter_map(differ).peekable();
        changed.peek()?;
        let mut trust = self.clone();
        trust.issuers.extend(changed.map(|issuer| (issuer.url().to_owned(), issuer)));
        Some(trust)
    }

    /// The broker's own trust domain.
    #[must_use]
    pub const fn own(&self) -> &TrustDomain {
        &self.own
    }

    /// The digest of the whole.
    #[must_use]
    pub fn digest(&self) -> TrustDigest {
        let mut parts = vec![self.own.as_str().as_bytes().to_vec()];
        for (trust_domain, bundle) in self.bundles() {
            parts.push(trust_domain.as_str().as_bytes().to_vec());
            parts.extend(bundle.authorities().map(<[u8]>::to_vec));
            parts.extend(bundle.jwt.identity());
            // The empty part ends a bundle: nothing else is empty.
            parts.push(Vec::new());
        }
        for issuer in self.issuers.values() {
            parts.extend(issuer.identity());
            parts.push(Vec::new());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        TrustDigest::of(&parts)
    }

    /// The digest of what vouches for the tokens of a trust domain's workloads; none if nothing does.
    #[must_use]
    pub fn token_authority(&self, trust_domain: &TrustDomain) -> Option<TrustDigest> {
        let issuer = self.issuers.values().find(|issuer| issuer.trust_domain() == trust_domain);
        let parts: Vec<Vec<u8>> = match (issuer, self.bundles.of(trust_domain)) {
            (Some(issuer), _) => issuer.identity().collect(),
            (None, Some(bundle)) => bundle.jwt.identity().collect(),
            (None, None) => return None,
        };
        Some(TrustDigest::of(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()))
    }

    /// Whether workloads of a trust domain may call at all.
    #[must_use]
    pub fn has(&self, trust_domain: &TrustDomain) -> bool {
        self.bundles.of(trust_domain).is_some()
            || self.issuers.values().any(|issuer| issuer.trust_domain() == trust_domain)
    }

    /// The issuer with this URL, compared byte for byte.
    #[must_use]
    pub fn issuer(&self, url: &str) -> Option<&Issuer> {
        self.issuers.get(url)
    }

    /// The JWT authorities of each trust domain.
    #[must_use]
    pub const fn jwt_bundles(&self) -> &JwtBundles {
        &self.jwt_bundles
    }

    /// The trust domains and their bundles.
    pub fn bundles(&self) -> impl Iterator<Item = (&TrustDomain, &Bundle)> {
        self.bundles.by_trust_domain.iter()
    }

    pub(crate) const fn trusted(&self) -> &Bundles {
        &self.bundles
    }
}

/// What a client accepts servers by.
#[derive(Debug, Clone)]
pub struct ServerTrust(Bundles);

impl ServerTrust {
    /// Takes a bundle for each trust domain whose servers may be called.
    ///
    /// # Errors
    /// [`InvalidTrust::Duplicate`] if a trust domain occurs twice.
    pub fn new(bundles: impl IntoIterator<Item = (TrustDomain, Bundle)>) -> Result<Self, InvalidTrust> {
        Bundles::new(bundles).map(Self)
    }

    pub(crate) const fn trusted(&self) -> &Bundles {
        &self.0
    }
}

/// A bundle for each trust domain, and none for two.
#[derive(Debug, Clone)]
pub struct Bundles {
    by_trust_domain: BTreeMap<TrustDomain, Bundle>,
    /// The anchors of all bundles. A path to one of them lets a handshake pass; it never makes an identity valid.
    all_anchors: Vec<TrustAnchor<'static>>,
}

impl Bundles {
    /// Takes a bundle for each trust domain whose SVIDs are to be judged.
    ///
    /// # Errors
    /// [`InvalidTrust::Duplicate`] if a trust domain occurs twice.
    pub fn new(bundles: impl IntoIterator<Item = (TrustDomain, Bundle)>) -> Result<Self, InvalidTrust> {
        let mut by_trust_domain = BTreeMap::new();
        let mut all_anchors = Vec::new();
        for (trust_domain, bundle) in bundles {
            all_anchors.extend_from_slice(&bundle.anchors);
            if by_trust_domain.insert(trust_domain.clone(), bundle).is_some() {
                return Err(InvalidTrust::Duplicate(trust_domain));
            }
        }
        Ok(Self { by_trust_domain, all_anchors })
    }

    pub(crate) fn of(&self, trust_domain: &TrustDomain) -> Option<&Bundle> {
        self.by_trust_domain.get(trust_domain)
    }

    pub(crate) fn all_anchors(&self) -> &[TrustAnchor<'static>] {
        &self.all_anchors
    }
}

const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";

/// The certificate of an element, where it is an X.509 authority (X509-SVID §6.2).
fn x509_authority(index: usize, element: &Map<String, Value>) -> Result<Option<Vec<u8>>, InvalidBundle> {
    let known = matches!(element.get("kty").and_then(Value::as_str), Some("EC" | "RSA"));
    if !known || element.get("use").is_none_or(|usage| usage != "x509-svid") {
        return Ok(None);
    }
    match element.get("x5c") {
        None => Ok(None),
        Some(Value::Array(chain)) => match chain.first() {
            None => Ok(None),
            Some(first) => {
                let der = first.as_str().and_then(|text| STANDARD.decode(text).ok());
                der.map(Some).ok_or(InvalidBundle::X5c(index))
            }
        },
        Some(_) => Err(InvalidBundle::X5c(index)),
    }
}

#[cfg(test)]
mod tests;
