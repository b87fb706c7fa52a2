//! The certificates of the test kit, and what these tests make of them.

use brevet_core::digest::Thumbprint;
use brevet_core::spiffe_id::TrustDomain;
pub(crate) use brevet_testkit::x509::*;

use crate::key::PublicKey;
use crate::trust::Bundle;

pub(crate) fn trust_domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

pub(crate) fn bundle(root: &Root) -> Bundle {
    Bundle::from_certificates(&[&root.certificate]).unwrap()
}

pub(crate) fn public(key: &Key) -> PublicKey {
    PublicKey::from_spki(&key.spki()).unwrap()
}

pub(crate) fn thumbprint(key: &Key) -> Thumbprint {
    public(key).thumbprint()
}
