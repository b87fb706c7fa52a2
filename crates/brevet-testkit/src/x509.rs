//! Certificates encoded by hand, so that each can be wrong in exactly one way.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot make its input fails"
)]

pub mod der;
mod key;

use brevet_core::time::Timestamp;

pub use self::key::Key;

/// 2026-06-01T00:00:00Z: inside every validity that is not wrong on purpose.
pub const NOW: Timestamp = Timestamp::from_seconds(1_780_272_000);
/// 2027-01-01T00:00:00Z: the end of every validity that is not wrong on purpose.
pub const END: Timestamp = Timestamp::from_seconds(1_798_761_600);

/// The encoded purpose "TLS server" of an extended key usage (RFC 5280 §4.2.1.12).
pub const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// "TLS client".
pub const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
/// "Any purpose".
pub const ANY: &[u8] = &[0x55, 0x1d, 0x25, 0];

/// The fields of a certificate (RFC 5280 §4.1), each as it will be encoded.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The version with its tag; empty for version 1.
    pub version: Vec<u8>,
    /// The content of the serial number.
    pub serial: Vec<u8>,
    /// The algorithm inside of the signed part, where it is not the signer's.
    pub inner_algorithm: Option<Vec<u8>>,
    /// The algorithm beside the signature, where it is not the signer's.
    pub outer_algorithm: Option<Vec<u8>>,
    /// The issuer's name.
    pub issuer: Vec<u8>,
    /// The time from which it holds.
    pub not_before: Vec<u8>,
    /// The time until which it holds.
    pub not_after: Vec<u8>,
    /// The subject's name.
    pub subject: Vec<u8>,
    /// The subject's key.
    pub spki: Vec<u8>,
    /// The extension `basicConstraints`; empty for none.
    pub basic_constraints: Vec<u8>,
    /// The extension `keyUsage`.
    pub key_usage: Vec<u8>,
    /// The extension `extKeyUsage`.
    pub extended_key_usage: Vec<u8>,
    /// The extension `subjectAltName`.
    pub names: Vec<u8>,
    /// Any further extensions.
    pub other_extensions: Vec<u8>,
}

impl Spec {
    /// A good leaf with one URI name.
    #[must_use]
    pub fn leaf(issuer: &str, key: &Key, id: &str) -> Self {
        Self {
            version: der::tlv(0xa0, &der::tlv(2, &[2])),
            serial: vec![1],
            inner_algorithm: None,
            outer_algorithm: None,
            issuer: name(issuer),
            not_before: utc("260101000000Z"),
            not_after: utc("270101000000Z"),
            subject: name("leaf"),
            spki: key.spki(),
            basic_constraints: basic_constraints(false, None),
            key_usage: key_usage(true, 0x80),
            extended_key_usage: extended_key_usage(&[SERVER, CLIENT]),
            names: alternative_names(&[uri(id)]),
            other_extensions: Vec::new(),
        }
    }

    /// A good authority, self-signed or below another.
    #[must_use]
    pub fn authority(issuer: &str, subject: &str, key: &Key) -> Self {
        Self {
            subject: name(subject),
            basic_constraints: basic_constraints(true, None),
            key_usage: key_usage(true, 0x06),
            extended_key_usage: Vec::new(),
            names: Vec::new(),
            ..Self::leaf(issuer, key, "")
        }
    }

    /// Leaves out every extension: a certificate below version 3 has none.
    pub fn strip(&mut self) {
        for extension in [
            &mut self.basic_constraints,
            &mut self.key_usage,
            &mut self.extended_key_usage,
            &mut self.names,
            &mut self.other_extensions,
        ] {
            extension.clear();
        }
    }

    /// The certificate.
    #[must_use]
    pub fn sign(&self, key: &Key) -> Vec<u8> {
        let algorithm = key.signature_algorithm();
        let extensions = [
            &self.basic_constraints[..],
            &self.key_usage,
            &self.extended_key_usage,
            &self.names,
            &self.other_extensions,
        ]
        .concat();
        let extensions =
            if extensions.is_empty() { vec![] } else { der::tlv(0xa3, &der::tlv(0x30, &extensions)) };
        let signed = der::seq(&[
            self.version.clone(),
            der::tlv(2, &self.serial),
            self.inner_algorithm.clone().unwrap_or_else(|| algorithm.clone()),
            self.issuer.clone(),
            der::seq(&[self.not_before.clone(), self.not_after.clone()]),
            self.subject.clone(),
            self.spki.clone(),
            extensions,
        ]);
        let signature = der::bits(&key.sign(&signed));
        der::seq(&[signed, self.outer_algorithm.clone().unwrap_or(algorithm), signature])
    }
}

/// An authority with a self-signed certificate.
#[derive(Debug)]
pub struct Root {
    /// The common name.
    pub name: &'static str,
    /// The key.
    pub key: Key,
    /// The certificate.
    pub certificate: Vec<u8>,
}

impl Root {
    /// A new one with a key on P-256.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let key = Key::p256();
        let certificate = Spec::authority(name, name, &key).sign(&key);
        Self { name, key, certificate }
    }

    /// A good leaf that names this authority as its issuer.
    #[must_use]
    pub fn leaf(&self, key: &Key, id: &str) -> Spec {
        Spec::leaf(self.name, key, id)
    }

    /// The same, signed.
    #[must_use]
    pub fn svid(&self, key: &Key, id: &str) -> Vec<u8> {
        self.leaf(key, id).sign(&self.key)
    }
}

/// A distinguished name of one common name.
#[must_use]
pub fn name(common_name: &str) -> Vec<u8> {
    let attribute = der::seq(&[der::oid(&[0x55, 4, 3]), der::tlv(12, common_name.as_bytes())]);
    der::seq(&[der::tlv(der::SET, &attribute)])
}

/// A time with two digits for the year.
#[must_use]
pub fn utc(text: &str) -> Vec<u8> {
    der::tlv(0x17, text.as_bytes())
}

/// A time with four digits for the year.
#[must_use]
pub fn generalized(text: &str) -> Vec<u8> {
    der::tlv(0x18, text.as_bytes())
}

/// An extension from its encoded object identifier and its value.
#[must_use]
pub fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der::tlv(1, &[0xff]) } else { vec![] };
    der::seq(&[der::oid(oid), critical, der::tlv(4, value)])
}

/// `basicConstraints`, critical.
#[must_use]
pub fn basic_constraints(authority: bool, path_length: Option<u8>) -> Vec<u8> {
    let mut parts = vec![];
    if authority {
        parts.push(der::tlv(1, &[0xff]));
    }
    parts.extend(path_length.map(|length| der::tlv(2, &[length])));
    extension(&[0x55, 0x1d, 19], true, &der::seq(&parts))
}

/// `keyUsage`: 0x80 is digitalSignature, 0x04 keyCertSign, 0x02 cRLSign.
#[must_use]
pub fn key_usage(critical: bool, bits: u8) -> Vec<u8> {
    let unused = u8::try_from(bits.trailing_zeros().min(7)).unwrap();
    extension(&[0x55, 0x1d, 15], critical, &der::tlv(3, &[unused, bits]))
}

/// `extKeyUsage`.
#[must_use]
pub fn extended_key_usage(purposes: &[&[u8]]) -> Vec<u8> {
    let purposes: Vec<_> = purposes.iter().map(|purpose| der::oid(purpose)).collect();
    extension(&[0x55, 0x1d, 37], false, &der::seq(&purposes))
}

/// A URI among alternative names.
#[must_use]
pub fn uri(text: &str) -> Vec<u8> {
    der::tlv(0x86, text.as_bytes())
}

/// A DNS name among alternative names.
#[must_use]
pub fn dns(text: &str) -> Vec<u8> {
    der::tlv(0x82, text.as_bytes())
}

/// `subjectAltName`, not critical.
#[must_use]
pub fn alternative_names(names: &[Vec<u8>]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 17], false, &der::seq(names))
}

/// `nameConstraints` with one base: permitted (0xa0) or excluded (0xa1).
#[must_use]
pub fn name_constraints(critical: bool, kind: u8, base: &[u8]) -> Vec<u8> {
    let subtree = der::tlv(kind, &der::tlv(der::SEQUENCE, base));
    extension(&[0x55, 0x1d, 30], critical, &der::seq(&[subtree]))
}
