//! A test CA: X.509-SVIDs of a trust domain, good ones and ones that must be refused.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot make its input fails"
)]

use std::time::Duration;

use brevet_core::spiffe_id::TrustDomain;
use brevet_core::time::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SigningKey, date_time_ymd,
};

/// How long what is made lives, where nothing else is said.
pub const LIFETIME: Duration = Duration::from_secs(3_600);
/// How far back it begins.
pub const BACKDATED: Duration = Duration::from_secs(60);

/// The authority of a trust domain.
#[derive(Debug)]
pub struct TestCa {
    now: Timestamp,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, both in PEM.
#[derive(Debug, Clone)]
pub struct TestSvid {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// What a leaf says. [`Leaf::of`] is one that is accepted; every field can be made wrong.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The URI names.
    pub uris: Vec<String>,
    /// When it begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// Whether it says that it is an authority.
    pub is_authority: bool,
    /// The key usages.
    pub key_usages: Vec<KeyUsagePurpose>,
    /// The extended key usages.
    pub extended_key_usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Leaf {
    /// A good leaf with one URI name, valid around `now`.
    #[must_use]
    pub fn of(uri: impl Into<String>, now: Timestamp) -> Self {
        Self {
            uris: vec![uri.into()],
            not_before: before(now, BACKDATED),
            not_after: now.after(LIFETIME),
            is_authority: false,
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            extended_key_usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        }
    }

    /// Signs the leaf with a new key.
    #[must_use]
    pub fn signed_by<K: SigningKey>(&self, issuer: &Issuer<'_, K>) -> TestSvid {
        let key = KeyPair::generate().unwrap();
        let certificate = self.params().signed_by(&key, issuer).unwrap().pem();
        TestSvid { certificate, key: key.serialize_pem() }
    }

    /// Signs the leaf with its own new key.
    #[must_use]
    pub fn self_signed(&self) -> TestSvid {
        let key = KeyPair::generate().unwrap();
        let certificate = self.params().self_signed(&key).unwrap().pem();
        TestSvid { certificate, key: key.serialize_pem() }
    }

    fn params(&self) -> CertificateParams {
        let mut params = params(&self.uris, self.not_before, self.not_after);
        params.is_ca =
            if self.is_authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages.clone_from(&self.key_usages);
        params.extended_key_usages.clone_from(&self.extended_key_usages);
        params.use_authority_key_identifier_extension = true;
        params
    }
}

impl TestCa {
    /// A new authority, valid around `now`.
    #[must_use]
    pub fn new(trust_domain: &TrustDomain, now: Timestamp) -> Self {
        let uri = format!("spiffe://{trust_domain}");
        let mut params = params(&[uri], before(now, LIFETIME), now.after(LIFETIME * 24));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { now, issuer }
    }

    /// The authority's own certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A good SVID.
    #[must_use]
    pub fn svid(&self, spiffe_id: &str) -> TestSvid {
        self.sign(&Leaf::of(spiffe_id, self.now))
    }

    /// Whatever the leaf says, signed.
    #[must_use]
    pub fn sign(&self, leaf: &Leaf) -> TestSvid {
        leaf.signed_by(&self.issuer)
    }
}

fn params(uris: &[String], not_before: Timestamp, not_after: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, uris.first().map_or("", String::as_str));
    params.distinguished_name = subject;
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI(Ia5String::try_from(uri.as_str()).unwrap())).collect();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + not_before.since(Timestamp::EPOCH);
    params.not_after = epoch + not_after.since(Timestamp::EPOCH);
    params
}

fn before(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp::EPOCH.after(now.since(Timestamp::EPOCH).saturating_sub(by))
}
