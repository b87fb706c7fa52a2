//! One certificate, read to the profile that SVIDs and their authorities share (RFC 5280, X509-SVID §4).
//!
//! Two parsers must agree on every certificate: x509-parser, which gives its fields, and webpki, which insists on
//! distinguished encoding.

use brevet_core::sabotage;
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::time::Timestamp;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::{self, Oid, oid};
use x509_parser::extensions::{BasicConstraints, ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use crate::key::PublicKey;
use crate::x509_svid::X509SvidError;

/// The longest certificate in bytes.
pub(crate) const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

const SERIAL_BYTES_MAX: usize = 20;
const URI_TAG: u32 = 6;

/// The extensions that are processed; any other that is critical makes the certificate unusable.
const PROCESSED: [Oid<'static>; 5] = [
    oid!(2.5.29.15), // keyUsage
    oid!(2.5.29.17), // subjectAltName
    oid!(2.5.29.19), // basicConstraints
    oid!(2.5.29.30), // nameConstraints
    oid!(2.5.29.37), // extKeyUsage
];

pub(crate) const ANOTHER_PARTY: &str = "a signing certificate has the spiffe id of another party";

/// When a certificate holds, both ends included (RFC 5280 §4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Validity {
    pub(crate) fn contains(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// A certificate of version 3 with a sound serial number, no extension twice and no critical one unknown.
#[derive(Debug)]
pub(crate) struct Certificate<'a> {
    x509: X509Certificate<'a>,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, X509SvidError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(X509SvidError::Malformed);
        }
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| X509SvidError::Malformed)?;
        if !rest.is_empty() {
            return Err(X509SvidError::Malformed);
        }
        if x509.version() != X509Version::V3 {
            return Err(X509SvidError::Profile("not of version 3"));
        }
        check_serial(x509.raw_serial())?;
        x509.extensions_map().map_err(|_| X509SvidError::Malformed)?;
        for extension in x509.extensions() {
            let processed = PROCESSED.contains(&extension.oid);
            if extension.critical && !processed {
                return Err(X509SvidError::Profile("an unknown extension is critical"));
            }
            let broken = matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. });
            // The field parser ignores what follows a value inside its extension.
            let whole = |value| der_parser::parse_der(value).is_ok_and(|(rest, _)| rest.is_empty());
            if processed && (broken || !whole(extension.value)) {
                return Err(X509SvidError::Malformed);
            }
        }
        let der = CertificateDer::from(der);
        EndEntityCert::try_from(&der).map_err(|error| X509SvidError::from_webpki(&error))?;
        Ok(Self { x509 })
    }

    pub(crate) fn validity(&self) -> Validity {
        let clamp = |seconds: i64| Timestamp::from_seconds(u64::try_from(seconds).unwrap_or(0));
        let validity = self.x509.validity();
        Validity {
            not_before: clamp(validity.not_before.timestamp()),
            not_after: clamp(validity.not_after.timestamp()),
        }
    }

    pub(crate) fn public_key(&self) -> Result<PublicKey, X509SvidError> {
        Ok(PublicKey::from_spki(self.x509.public_key().raw)?)
    }

    /// How many certificates that are not self-issued may stand between this one and the leaf.
    pub(crate) fn path_length(&self) -> Option<u32> {
        self.basic_constraints().and_then(|constraints| constraints.path_len_constraint)
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.x509.subject().as_raw() == self.x509.issuer().as_raw()
    }

    /// The checks of a leaf that need no trust (X509-SVID §4, §5.2).
    pub(crate) fn check_leaf(&self) -> Result<(), X509SvidError> {
        if self.basic_constraints().is_some_and(|constraints| constraints.ca) {
            return Err(X509SvidError::Profile("the leaf is a certificate authority"));
        }
        let Some((usage, critical)) = self.key_usage() else {
            return Err(X509SvidError::Profile("the leaf has no key usage"));
        };
        if (usage.key_cert_sign() || usage.crl_sign()) && !sabotage::on("signing_leaves_pass") {
            return Err(X509SvidError::Profile("the leaf may sign certificates or revocation lists"));
        }
        if !critical {
            return Err(X509SvidError::Profile("the key usage is not critical"));
        }
        if !usage.digital_signature() {
            return Err(X509SvidError::Profile("the leaf may not sign"));
        }
        // §4.4: where there is an extended key usage, it names both sides. "Any" stands for neither.
        if self.extended_key_usage().is_some_and(|usage| !(usage.client_auth && usage.server_auth)) {
            return Err(X509SvidError::Profile("the extended key usage does not name server and client"));
        }
        Ok(())
    }

    /// The checks of a signing certificate (X509-SVID §3.2, §4). Its SPIFFE ID, if it has one, has no path and is
    /// that of the trust domain it signs for.
    pub(crate) fn check_signing(&self, trust_domain: Option<&TrustDomain>) -> Result<(), X509SvidError> {
        if !self.basic_constraints().is_some_and(|constraints| constraints.ca) {
            return Err(X509SvidError::Profile("a signing certificate is no certificate authority"));
        }
        if !self.key_usage().is_some_and(|(usage, _)| usage.key_cert_sign()) {
            return Err(X509SvidError::Profile("a signing certificate may not sign certificates"));
        }
        self.public_key()?;
        let stated = self.signing_trust_domain()?;
        if trust_domain.zip(stated).is_some_and(|(expected, stated)| *expected != stated) {
            return Err(X509SvidError::Profile(ANOTHER_PARTY));
        }
        Ok(())
    }

    /// The trust domain that a signing certificate says it is of. If it says so, that is its only URI (X509-SVID §2).
    pub(crate) fn signing_trust_domain(&self) -> Result<Option<TrustDomain>, X509SvidError> {
        let names = self.uri_names()?;
        let is_spiffe = |uri: &str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
        if !names.iter().copied().flatten().any(is_spiffe) {
            return Ok(None);
        }
        let [Some(uri)] = names[..] else { return Err(X509SvidError::SanCount(names.len())) };
        let id: SpiffeId = uri.parse().map_err(X509SvidError::IdInvalid)?;
        if id.path().is_empty() {
            Ok(Some(id.trust_domain()))
        } else {
            Err(X509SvidError::Profile(ANOTHER_PARTY))
        }
    }

    /// The workload's SPIFFE ID: the only URI among the subject's alternative names (X509-SVID §2, §5.2).
    pub(crate) fn spiffe_id(&self) -> Result<SpiffeId, X509SvidError> {
        let names = self.uri_names()?;
        let [name] = names.as_slice() else {
            return Err(X509SvidError::SanCount(names.len()));
        };
        let id: SpiffeId = name.unwrap_or_default().parse().map_err(X509SvidError::IdInvalid)?;
        if id.path().is_empty() {
            return Err(X509SvidError::IdWithoutPath);
        }
        Ok(id)
    }

    /// The URI names; none stands for one that is not ASCII.
    fn uri_names(&self) -> Result<Vec<Option<&str>>, X509SvidError> {
        let Some(names) = self.extension(|parsed| match parsed {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        }) else {
            return Ok(Vec::new());
        };
        let mut uris = Vec::new();
        for name in names.0 {
            match name {
                GeneralName::URI(uri) => uris.push(Some(*uri)),
                GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => uris.push(None),
                GeneralName::Invalid(..) => return Err(X509SvidError::Malformed),
                _ => {}
            }
        }
        Ok(uris)
    }

    fn basic_constraints(&self) -> Option<&BasicConstraints> {
        let found = self.extension(|parsed| match parsed {
            ParsedExtension::BasicConstraints(constraints) => Some(constraints),
            _ => None,
        });
        found.map(|(constraints, _)| constraints)
    }

    fn key_usage(&self) -> Option<(&KeyUsage, bool)> {
        self.extension(|parsed| match parsed {
            ParsedExtension::KeyUsage(usage) => Some(usage),
            _ => None,
        })
    }

    fn extended_key_usage(&self) -> Option<&ExtendedKeyUsage<'a>> {
        let found = self.extension(|parsed| match parsed {
            ParsedExtension::ExtendedKeyUsage(usage) => Some(usage),
            _ => None,
        });
        found.map(|(usage, _)| usage)
    }

    /// The one extension that `select` takes, and whether it is critical.
    fn extension<'s, T>(
        &'s self,
        select: impl Fn(&'s ParsedExtension<'a>) -> Option<&'s T>,
    ) -> Option<(&'s T, bool)> {
        self.x509
            .extensions()
            .iter()
            .find_map(|extension| Some((select(extension.parsed_extension())?, extension.critical)))
    }
}

/// A positive integer of at most 20 bytes (RFC 5280 §4.1.2.2).
fn check_serial(serial: &[u8]) -> Result<(), X509SvidError> {
    let positive =
        serial.first().is_some_and(|first| first & 0x80 == 0) && serial.iter().any(|byte| *byte != 0);
    if positive && serial.len() <= SERIAL_BYTES_MAX { Ok(()) } else { Err(X509SvidError::Malformed) }
}
