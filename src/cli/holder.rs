//! The agent's own holder key: proofs of possession and certification requests from the file that holds it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use brevet_client::dpop::{HolderKey, Proof, prove};
use brevet_core::time::Timestamp;
use clap::Args;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::exit::{Failure, Usage};
use super::{request_id, secret};
use crate::clock::Clock;

/// Whose key the task is bound to.
#[derive(Debug, Args)]
pub(super) struct Holder {
    /// The file with the task's holder key, P-256 in PEM, if that is not the caller's own.
    #[arg(long, value_name = "FILE")]
    holder_key: Option<PathBuf>,
}

impl Holder {
    /// A proof of possession for one call of a method of the credential service, if the key is not the connection's.
    pub(super) fn proof(&self, endpoint: &str, method: &str) -> Result<Option<String>, Failure> {
        let Some(path) = &self.holder_key else { return Ok(None) };
        let key = HolderKey::from_pem(secret::read(path)?.as_bytes())?;
        let issued_at = Clock::system(Timestamp::EPOCH, Duration::ZERO)?.now().issue;
        let url = format!("{endpoint}/brevet.v1.CredentialService/{method}");
        let id = request_id()?;
        let proof = Proof { method: "POST", url: &url, issued_at, id: id.as_str(), access_token: None };
        Ok(Some(prove(&key, &proof)?))
    }

    /// A certification request, which names the holder key and says nothing else.
    pub(super) fn certification_request(&self, own: Option<&Path>) -> Result<Vec<u8>, Failure> {
        let Some(path) = self.holder_key.as_deref().or(own) else {
            return Err(Usage("an X.509-SVID needs a key").into());
        };
        let key = KeyPair::from_pem(&secret::read(path)?)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&key)?.der().to_vec())
    }
}
