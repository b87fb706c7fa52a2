//! A party's X.509-SVID and whom it trusts, from what `brevet dev` wrote.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_client::endpoints::IdentityFiles;
use brevet_core::digest::Thumbprint;
use brevet_core::spiffe_id::SpiffeId;
use brevet_identity::key::PublicKey;
use brevet_identity::trust::Bundle;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, string::Ia5String,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::Problem;

/// A certificate with its private key.
pub(super) struct Svid {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Svid {
    pub(super) fn load(files: &IdentityFiles) -> Result<Self, Problem> {
        let chain = CertificateDer::pem_file_iter(&files.cert)?.collect::<Result<_, _>>()?;
        Ok(Self { chain, key: PrivateKeyDer::from_pem_file(&files.key)? })
    }
}

/// The thumbprint of a party's key, by which a task is bound to it.
pub(super) fn thumbprint(key: &Path) -> Result<Thumbprint, Problem> {
    let key = KeyPair::from_pem(&Zeroizing::new(fs::read_to_string(key)?))?;
    Ok(PublicKey::from_spki(&key.subject_public_key_info())?.thumbprint())
}

/// The authorities of the workloads.
pub(super) fn workloads(dir: &Path) -> Result<Bundle, Problem> {
    Ok(Bundle::from_pem(&fs::read(dir.join("workloads.pem"))?)?)
}

/// A certification request (RFC 2986) that names a party's key and says nothing else.
pub(super) fn certification_request(files: &IdentityFiles) -> Result<Vec<u8>, Problem> {
    let key = KeyPair::from_pem(&Zeroizing::new(fs::read_to_string(&files.key)?))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&key)?.der().to_vec())
}

/// Keeps the X.509-SVID that a party was issued for a task, over its own key.
pub(super) fn keep(
    path: PathBuf,
    own: &IdentityFiles,
    spiffe_id: SpiffeId,
    chain: &[Vec<u8>],
) -> Result<IdentityFiles, Problem> {
    let pem = |der: &Vec<u8>| {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
    };
    fs::write(&path, chain.iter().map(pem).collect::<String>())?;
    Ok(IdentityFiles { cert: path, spiffe_id, ..own.clone() })
}

/// Makes a certificate for a SPIFFE ID that nobody gave, signed by itself, and writes it like any other.
pub(super) fn forge(dir: &Path, spiffe_id: &SpiffeId, bundle: &Path) -> Result<IdentityFiles, Problem> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(spiffe_id.as_str())?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let files = IdentityFiles {
        cert: dir.join("forged.pem"),
        key: dir.join("forged.key"),
        bundle: bundle.to_owned(),
        spiffe_id: spiffe_id.clone(),
    };
    fs::write(&files.cert, params.self_signed(&key)?.pem())?;
    fs::write(&files.key, Zeroizing::new(key.serialize_pem()))?;
    Ok(files)
}
