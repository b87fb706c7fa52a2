//! Reads an X.509-SVID back and compares it with the terms and with the authority's certificate.
//!
//! The parser is not strict: it passes over what follows the last field of a structure, over lengths that are not the
//! shortest and over the class of a tag. So the fields, once compared, are spelled again, in the one way that DER
//! leaves, and the certificate is compared with that.

use brevet_core::proof::Recorded;
use brevet_core::task_svid::{TaskSvidId, lease_of_serial};
use brevet_core::terms::{Content, Terms, X509Svid};
use brevet_core::time::{Civil, Timestamp};
use ring::digest::{SHA256, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::ParsedExtension;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, X509Version};

use super::{Mismatch, same};
use crate::ca::CaKey;
use crate::key::Point;

const ECDSA_WITH_SHA256: Oid<'static> = oid!(1.2.840.10045.4.3.2);
const SUBJECT_KEY_IDENTIFIER: Oid<'static> = oid!(2.5.29.14);
const KEY_USAGE: Oid<'static> = oid!(2.5.29.15);
const SUBJECT_ALTERNATIVE_NAME: Oid<'static> = oid!(2.5.29.17);
const BASIC_CONSTRAINTS: Oid<'static> = oid!(2.5.29.19);
const AUTHORITY_KEY_IDENTIFIER: Oid<'static> = oid!(2.5.29.35);
const EXTENDED_KEY_USAGE: Oid<'static> = oid!(2.5.29.37);

/// An empty sequence: a subject without a name, constraints of what is no authority.
const EMPTY: &[u8] = &[0x30, 0];
/// The bit string of digitalSignature alone.
const DIGITAL_SIGNATURE: &[u8] = &[3, 2, 7, 0x80];
/// serverAuth and clientAuth.
const SERVER_AND_CLIENT: &[u8] =
    &[0x30, 0x14, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];
/// The `AlgorithmIdentifier` of ecdsa-with-SHA256, which has no parameters (RFC 5758 §3.2).
const ALGORITHM: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const KEY_IDENTIFIER_BYTES: usize = 20;

/// Compares a certificate with the terms it was to be made of and the authority that was to sign it.
pub(crate) fn product(der: &[u8], recorded: &Recorded, authority: &CaKey) -> Result<(), Mismatch> {
    let (rest, certificate) = parse_x509_certificate(der).map_err(|_| "certificate")?;
    same("certificate", rest.is_empty())?;
    let (_, issuer) = parse_x509_certificate(authority.certificate()).map_err(|_| "issuer")?;

    // INVARIANT: the terms are taken apart completely, so that a new one does not compile uncompared. A certificate
    // says nothing of policies.
    let Terms { id, key_id, issued_at, end, holder, policy: _, content } = recorded.terms();
    let Content::X509Svid(X509Svid { spiffe_id, public_key }) = content else { return Err("form") };

    same("version", certificate.version() == X509Version::V3)?;
    same("serial", lease_of_serial(certificate.raw_serial()) == Some(id.key))?;
    same("issuer", certificate.issuer().as_raw() == issuer.subject().as_raw())?;
    let signer = Point::of_spki(issuer.public_key().raw).and_then(|(point, _)| point.key_id());
    same("key id", signer.as_ref() == Some(key_id))?;
    // In milliseconds: what was rounded is not what the journal holds. The last second belongs to the certificate.
    let millis = |time: ASN1Time, more: i64| time.timestamp().checked_add(more)?.checked_mul(1000);
    let validity = certificate.validity();
    same("notBefore", millis(validity.not_before, 0) == i64::try_from(issued_at.millis()).ok())?;
    same("notAfter", millis(validity.not_after, 1) == i64::try_from(end.millis()).ok())?;
    same("subject", certificate.subject().as_raw() == EMPTY)?;
    same("unique id", certificate.issuer_uid.is_none() && certificate.subject_uid.is_none())?;
    same("public key", certificate.public_key().raw == public_key.as_der())?;
    let key = Point::of_spki(certificate.public_key().raw);
    same("holder", key.is_some_and(|(point, _)| point.thumbprint() == *holder))?;
    same("signature algorithm", is_ecdsa_with_sha256(&certificate.signature_algorithm))?;
    same("signature algorithm", is_ecdsa_with_sha256(&certificate.tbs_certificate.signature))?;
    same("signature", is_ecdsa_signature(&certificate.signature_value.data))?;
    same("signature", certificate.signature_value.unused_bits == 0)?;

    // Six extensions, each there, and so no other and none twice.
    same("extensions", certificate.extensions().len() == 6)?;
    let own = digest(&SHA256, public_key.as_der());
    let own = own.as_ref().get(..KEY_IDENTIFIER_BYTES).ok_or("subjectKeyIdentifier")?;
    let issuers = key_identifier(&issuer).ok_or("authorityKeyIdentifier")?;
    let name = element(0x86, &[spiffe_id.as_str().as_bytes()]);
    for (extension, oid, critical, value) in [
        ("basicConstraints", BASIC_CONSTRAINTS, true, EMPTY),
        ("keyUsage", KEY_USAGE, true, DIGITAL_SIGNATURE),
        ("extKeyUsage", EXTENDED_KEY_USAGE, false, SERVER_AND_CLIENT),
        ("subjectKeyIdentifier", SUBJECT_KEY_IDENTIFIER, false, &element(4, &[own])),
        ("authorityKeyIdentifier", AUTHORITY_KEY_IDENTIFIER, false, &sequence(&[&element(0x80, &[issuers])])),
        // The subject is empty, so the one name is critical.
        ("subjectAltName", SUBJECT_ALTERNATIVE_NAME, true, &sequence(&[&name])),
    ] {
        let found = certificate.extensions().iter().find(|found| found.oid == oid).ok_or(extension)?;
        same(extension, found.critical == critical && found.value == value)?;
    }

    // The name is the task's, and the task the lease's.
    let task = TaskSvidId::parse(spiffe_id, authority.trust_domain()).ok_or("task")?;
    same("task", task.path().first() == Some(&id.task.root().0))?;
    same("task", task.path().last() == Some(&id.task.node()))?;

    same("encoding", spelled(&certificate, *issued_at, *end) == der)
}

fn key_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
        _ => None,
    })
}

fn is_ecdsa_with_sha256(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    algorithm.algorithm == ECDSA_WITH_SHA256 && algorithm.parameters.is_none()
}

/// Two positive integers of at most 32 bytes, and a leading zero where the first bit is set (RFC 3279 §2.2.3).
fn is_ecdsa_signature(der: &[u8]) -> bool {
    let after_integer = |der: &[u8]| -> Option<usize> {
        let [2, length, rest @ ..] = der else { return None };
        let (number, rest) = rest.split_at_checked(usize::from(*length))?;
        let sound = match number {
            [0, 0x80..=0xff, ..] => number.len() <= 33,
            [1..0x80, ..] => number.len() <= 32,
            _ => false,
        };
        sound.then_some(rest.len())
    };
    let [0x30, length @ 0..0x80, numbers @ ..] = der else { return false };
    usize::from(*length) == numbers.len()
        && after_integer(numbers)
            .and_then(|left| numbers.get(numbers.len() - left..))
            .is_some_and(|second| after_integer(second) == Some(0))
}

/// The one spelling of a certificate that has these fields and this validity.
fn spelled(certificate: &X509Certificate<'_>, issued_at: Timestamp, end: Timestamp) -> Vec<u8> {
    let extensions: Vec<Vec<u8>> = certificate
        .extensions()
        .iter()
        .map(|extension| {
            let critical: &[u8] = if extension.critical { &[1, 1, 0xff] } else { &[] };
            sequence(&[&element(6, &[extension.oid.as_bytes()]), critical, &element(4, &[extension.value])])
        })
        .collect();
    let last = Timestamp::from_millis(end.millis().saturating_sub(1000));
    let signed = sequence(&[
        &element(0xa0, &[&[2, 1, 2]]),
        &element(2, &[certificate.raw_serial()]),
        ALGORITHM,
        certificate.issuer().as_raw(),
        &sequence(&[&time(issued_at), &time(last)]),
        certificate.subject().as_raw(),
        certificate.public_key().raw,
        &element(0xa3, &[&sequence(&[&extensions.concat()])]),
    ]);
    sequence(&[&signed, ALGORITHM, &element(3, &[&[0], &certificate.signature_value.data])])
}

/// Until 2049 with two digits for the year, then with four (RFC 5280 §4.1.2.5).
fn time(time: Timestamp) -> Vec<u8> {
    let Civil { year, month, day, hour, minute, second, .. } = time.civil();
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    if (1950..2050).contains(&year) {
        element(0x17, &[format!("{:02}{rest}", year % 100).as_bytes()])
    } else {
        element(0x18, &[format!("{year:04}{rest}").as_bytes()])
    }
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, parts)
}

/// A tag, the length in its shortest form, and the content.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [.., high, low] = content.len().to_be_bytes();
    let length: &[u8] = match content.len() {
        0..=0x7f => &[low],
        0x80..=0xff => &[0x81, low],
        // Nothing here is longer: a SPIFFE ID has at most 2,048 bytes and a key 1,100.
        _ => &[0x82, high, low],
    };
    [&[tag], length, &content].concat()
}

#[cfg(test)]
mod tests;
