//! Writes an X.509-SVID (X509-SVID §2–§4, RFC 5280 §4): an identity and nothing else.
//!
//! The subject is empty, so that no verifier takes a name from it and the alternative name is critical (RFC 5280
//! §4.1.2.6). The serial number is the lease's own part of its id as a positive integer, of 16 bytes, or 17 where the
//! first bit is set. The last second of the validity belongs to it (§4.1.2.5), and a credential is dead at its end:
//! `notAfter` is the second before.

use std::time::Duration;

use brevet_core::terms::{Terms, X509Svid};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use ring::rand::SystemRandom;

use crate::ca::CaKey;
use crate::key::{Curve, Point};

/// The certificate of the terms, signed by the authority, as DER. None if it could not be made.
pub(crate) fn certificate(
    terms: &Terms,
    svid: &X509Svid,
    authority: &CaKey,
    rng: &SystemRandom,
) -> Option<Vec<u8>> {
    let subject = SubjectKey::of_spki(svid.public_key.as_der())?;
    authority.sign(&parameters(terms, svid)?, &subject, rng).ok()
}

/// Everything but the keys.
pub(crate) fn parameters(terms: &Terms, svid: &X509Svid) -> Option<CertificateParams> {
    let epoch = date_time_ymd(1970, 1, 1);
    let last = terms.end.seconds().checked_sub(1)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(terms.id.key.0.as_bytes()));
    params.not_before = epoch + Duration::from_secs(terms.issued_at.seconds());
    params.not_after = epoch + Duration::from_secs(last);
    params.subject_alt_names = vec![SanType::URI(svid.spiffe_id.as_str().try_into().ok()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Some(params)
}

/// Lets `rcgen` write a key that nobody here holds the private half of.
pub(crate) struct SubjectKey<'a> {
    curve: Curve,
    uncompressed: &'a [u8],
}

impl<'a> SubjectKey<'a> {
    pub(crate) fn of_spki(der: &'a [u8]) -> Option<Self> {
        let (point, uncompressed) = Point::of_spki(der)?;
        Some(Self { curve: point.curve, uncompressed })
    }
}

impl PublicKeyData for SubjectKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.uncompressed
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.curve {
            Curve::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Curve::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        }
    }
}
