//! Certificates for tests, encoded by hand so that each can be wrong in exactly one way.

use brevet_core::spiffe_id::TrustDomain;
use brevet_core::time::Timestamp;

use crate::test_keys::{TestKey, der};
use crate::trust::Bundle;

/// 2026-06-01T00:00:00Z: inside every validity that is not wrong on purpose.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_780_272_000);
/// 2027-01-01T00:00:00Z: the end of every validity that is not wrong on purpose.
pub(crate) const END: Timestamp = Timestamp::from_seconds(1_798_761_600);

pub(crate) const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
pub(crate) const ANY: &[u8] = &[0x55, 0x1d, 0x25, 0];

pub(crate) fn trust_domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

/// The fields of a certificate, each as it will be encoded.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) version: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    /// The algorithm inside the signed part, where it is not the signer's.
    pub(crate) inner_algorithm: Option<Vec<u8>>,
    pub(crate) outer_algorithm: Option<Vec<u8>>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) not_before: Vec<u8>,
    pub(crate) not_after: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) basic_constraints: Vec<u8>,
    pub(crate) key_usage: Vec<u8>,
    pub(crate) extended_key_usage: Vec<u8>,
    pub(crate) names: Vec<u8>,
    pub(crate) other_extensions: Vec<u8>,
}

impl Spec {
    pub(crate) fn leaf(issuer: &str, key: &TestKey, id: &str) -> Self {
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

    pub(crate) fn authority(issuer: &str, subject: &str, key: &TestKey) -> Self {
        Self {
            subject: name(subject),
            basic_constraints: basic_constraints(true, None),
            key_usage: key_usage(true, 0x06),
            extended_key_usage: Vec::new(),
            names: Vec::new(),
            ..Self::leaf(issuer, key, "")
        }
    }

    pub(crate) fn sign(&self, key: &TestKey) -> Vec<u8> {
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
        let tbs = der::seq(&[
            self.version.clone(),
            der::tlv(2, &self.serial),
            self.inner_algorithm.clone().unwrap_or_else(|| algorithm.clone()),
            self.issuer.clone(),
            der::seq(&[self.not_before.clone(), self.not_after.clone()]),
            self.subject.clone(),
            self.spki.clone(),
            extensions,
        ]);
        let signature = der::tlv(3, &[&[0], &key.sign_asn1(&tbs)[..]].concat());
        der::seq(&[tbs, self.outer_algorithm.clone().unwrap_or(algorithm), signature])
    }
}

/// An authority with a self-signed certificate.
pub(crate) struct Root {
    pub(crate) name: &'static str,
    pub(crate) key: TestKey,
    pub(crate) certificate: Vec<u8>,
}

impl Root {
    pub(crate) fn new(name: &'static str) -> Self {
        let key = TestKey::p256();
        let certificate = Spec::authority(name, name, &key).sign(&key);
        Self { name, key, certificate }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::from_certificates(&[&self.certificate]).unwrap()
    }

    pub(crate) fn leaf(&self, key: &TestKey, id: &str) -> Spec {
        Spec::leaf(self.name, key, id)
    }

    pub(crate) fn svid(&self, key: &TestKey, id: &str) -> Vec<u8> {
        self.leaf(key, id).sign(&self.key)
    }
}

pub(crate) fn name(common_name: &str) -> Vec<u8> {
    let attribute = der::seq(&[der::oid(&[0x55, 4, 3]), der::tlv(12, common_name.as_bytes())]);
    der::seq(&[der::tlv(0x31, &attribute)])
}

pub(crate) fn utc(text: &str) -> Vec<u8> {
    der::tlv(0x17, text.as_bytes())
}

pub(crate) fn generalized(text: &str) -> Vec<u8> {
    der::tlv(0x18, text.as_bytes())
}

pub(crate) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der::tlv(1, &[0xff]) } else { vec![] };
    der::seq(&[der::oid(oid), critical, der::tlv(4, value)])
}

pub(crate) fn basic_constraints(authority: bool, path_length: Option<u8>) -> Vec<u8> {
    let mut parts = vec![];
    if authority {
        parts.push(der::tlv(1, &[0xff]));
    }
    parts.extend(path_length.map(|length| der::tlv(2, &[length])));
    extension(&[0x55, 0x1d, 19], true, &der::seq(&parts))
}

/// 0x80 is digitalSignature, 0x04 keyCertSign, 0x02 cRLSign.
pub(crate) fn key_usage(critical: bool, bits: u8) -> Vec<u8> {
    let unused = u8::try_from(bits.trailing_zeros().min(7)).unwrap();
    extension(&[0x55, 0x1d, 15], critical, &der::tlv(3, &[unused, bits]))
}

pub(crate) fn extended_key_usage(purposes: &[&[u8]]) -> Vec<u8> {
    let purposes: Vec<_> = purposes.iter().map(|purpose| der::oid(purpose)).collect();
    extension(&[0x55, 0x1d, 37], false, &der::seq(&purposes))
}

pub(crate) fn uri(text: &str) -> Vec<u8> {
    der::tlv(0x86, text.as_bytes())
}

pub(crate) fn dns(text: &str) -> Vec<u8> {
    der::tlv(0x82, text.as_bytes())
}

pub(crate) fn alternative_names(names: &[Vec<u8>]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 17], false, &der::seq(names))
}

/// Permitted (0xa0) or excluded (0xa1) subtrees.
pub(crate) fn name_constraints(kind: u8, base: &[u8]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 30], true, &der::seq(&[der::tlv(kind, &der::tlv(0x30, base))]))
}
