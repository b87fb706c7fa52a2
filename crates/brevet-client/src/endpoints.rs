//! `endpoints.json`: where the throw-away trust domain of `brevet dev` is reached, and as whom.
//!
//! The daemon writes the file and everything that plays a part in it reads it; both sides use these types.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::connect::{
    Broker, ConnectError, Identity, IdentityError, ServerTrust, Settings, connect, connect_local,
};
use crate::dpop::{HolderKey, HolderKeyError};

/// The file's name in the directory.
pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// Why the file could not be read, written, or used.
#[derive(Debug, Error)]
pub enum EndpointsError {
    /// The file could not be read or written.
    #[error("cannot access {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file does not hold endpoints.
    #[error("{path} does not hold endpoints")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// No identity has this name.
    #[error("no identity named {0}")]
    UnknownIdentity(String),
    /// The identity's files are not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The identity's key cannot be proven with a token.
    #[error(transparent)]
    HolderKey(#[from] HolderKeyError),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// The name under which [`Endpoints::connect`] takes the local root socket, unless an identity is called so.
const ROOT: &str = "root";

/// What is reached where, and the identities to reach it with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The gRPC listener's URL, `https://{host}:{port}`.
    pub grpc: String,
    /// The HTTP listener's URL, `http://{host}:{port}`.
    pub http: String,
    /// The local root socket. In the file it may be relative to the file's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_socket: Option<PathBuf>,
    /// The broker's own trust domain.
    pub trust_domain: TrustDomain,
    /// The SPIFFE ID that the broker serves as.
    pub server_spiffe_id: SpiffeId,
    /// The identities, by name.
    pub identities: BTreeMap<String, IdentityFiles>,
    /// Those without a certificate, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bearers: BTreeMap<String, BearerFiles>,
}

/// The files of one identity. In the file a path may be relative to the file's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityFiles {
    /// The X.509-SVID with its intermediates, PEM, leaf first.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The certificate authorities of the broker's trust domain, PEM.
    pub bundle: PathBuf,
    /// The SPIFFE ID that the certificate is for.
    pub spiffe_id: SpiffeId,
}

/// The files of one identity that shows a token in the place of a certificate. In the file a path may be relative to the
/// file's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BearerFiles {
    /// The token, where whoever issues it puts it anew. It is read for each call.
    pub token: PathBuf,
    /// The private key that is proven with it, PEM.
    pub key: PathBuf,
    /// The certificate authorities of the broker's trust domain, PEM.
    pub bundle: PathBuf,
    /// The SPIFFE ID that the token is for.
    pub spiffe_id: SpiffeId,
}

impl Endpoints {
    /// Reads the file in `directory`. All paths are then relative to the directory's own base.
    ///
    /// # Errors
    /// [`EndpointsError::Io`] and [`EndpointsError::Content`].
    pub fn read(directory: &Path) -> Result<Self, EndpointsError> {
        let path = directory.join(ENDPOINTS_FILE);
        let text = fs::read(&path).map_err(|source| EndpointsError::Io { path: path.clone(), source })?;
        let mut endpoints: Self =
            serde_json::from_slice(&text).map_err(|source| EndpointsError::Content { path, source })?;
        let identities = endpoints.identities.values_mut();
        let files = identities.flat_map(|it| [&mut it.cert, &mut it.key, &mut it.bundle]);
        let bearers = endpoints.bearers.values_mut();
        let files = files.chain(bearers.flat_map(|it| [&mut it.token, &mut it.key, &mut it.bundle]));
        for file in files.chain(&mut endpoints.root_socket) {
            *file = directory.join(&file);
        }
        Ok(endpoints)
    }

    /// Writes the file in `directory`: whoever waits for it never sees half of it.
    ///
    /// # Errors
    /// [`EndpointsError::Io`] and [`EndpointsError::Content`].
    pub fn write(&self, directory: &Path) -> Result<(), EndpointsError> {
        let path = directory.join(ENDPOINTS_FILE);
        let unfinished = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| EndpointsError::Content { path: path.clone(), source })?;
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(|source| EndpointsError::Io { path, source })
    }

    /// The files of an identity.
    ///
    /// # Errors
    /// [`EndpointsError::UnknownIdentity`].
    pub fn identity(&self, name: &str) -> Result<&IdentityFiles, EndpointsError> {
        self.identities.get(name).ok_or_else(|| EndpointsError::UnknownIdentity(name.to_owned()))
    }

    /// The file with the key of an identity, whether it has a certificate or a token.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&Path> {
        let of_identity = self.identities.get(name).map(|files| &files.key);
        of_identity.or_else(|| self.bearers.get(name).map(|files| &files.key)).map(PathBuf::as_path)
    }

    /// The files of an identity without a certificate.
    ///
    /// # Errors
    /// [`EndpointsError::UnknownIdentity`].
    pub fn bearer(&self, name: &str) -> Result<&BearerFiles, EndpointsError> {
        self.bearers.get(name).ok_or_else(|| EndpointsError::UnknownIdentity(name.to_owned()))
    }

    /// Connects as one of the identities, with a certificate or without, or as `root` over the local root socket, with the
    /// default settings.
    ///
    /// # Errors
    /// [`EndpointsError::UnknownIdentity`], [`EndpointsError::Identity`], [`EndpointsError::HolderKey`] and
    /// [`EndpointsError::Connect`].
    pub async fn connect(&self, name: &str) -> Result<Broker, EndpointsError> {
        if let (ROOT, false, Some(path)) = (name, self.identities.contains_key(ROOT), &self.root_socket) {
            return Ok(connect_local(path, &Settings::default()).await?);
        }
        let (identity, bundle) = match (self.identities.get(name), self.bearers.get(name)) {
            (None, Some(files)) => (files.with_token(&files.token)?, &files.bundle),
            _ => {
                let files = self.identity(name)?;
                (Identity::load(&files.cert, &files.key)?, &files.bundle)
            }
        };
        let trust = ServerTrust::load(bundle, self.server_spiffe_id.clone())?;
        Ok(connect(&self.grpc, &identity, &trust, &Settings::default()).await?)
    }
}

impl BearerFiles {
    /// Shows the token in a file with this identity's key.
    ///
    /// # Errors
    /// [`EndpointsError::Io`] and [`EndpointsError::HolderKey`].
    pub fn with_token(&self, token: &Path) -> Result<Identity, EndpointsError> {
        let pem = fs::read(&self.key).map(Zeroizing::new);
        let pem = pem.map_err(|source| EndpointsError::Io { path: self.key.clone(), source })?;
        Ok(Identity::token(token, HolderKey::from_pem(&pem)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{
      "grpc": "https://127.0.0.1:8443", "http": "http://127.0.0.1:8080", "trust_domain": "broker.example", "server_spiffe_id": "spiffe://broker.example/brevet",
      "identities": {
        "agent-a": {"cert": "agent-a/cert.pem", "key": "/run/keys/agent-a.pem", "bundle": "bundle.pem",
                    "spiffe_id": "spiffe://dev.example/agent-a"}
      },
      "bearers": {
        "agent-c": {"token": "agent-c.token", "key": "agent-c.key", "bundle": "bundle.pem",
                    "spiffe_id": "spiffe://functions.example/agent-c"}
      }
    }"#;

    #[test]
    fn paths_are_relative_to_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(ENDPOINTS_FILE), SAMPLE).unwrap();
        let endpoints = Endpoints::read(directory.path()).unwrap();
        let agent = endpoints.identity("agent-a").unwrap();
        assert_eq!(agent.cert, directory.path().join("agent-a/cert.pem"));
        assert_eq!(agent.key, Path::new("/run/keys/agent-a.pem"));
        assert!(matches!(endpoints.identity("agent-b"), Err(EndpointsError::UnknownIdentity(_))));
        let bearer = endpoints.bearer("agent-c").unwrap();
        assert_eq!(bearer.token, directory.path().join("agent-c.token"));
        assert_eq!(bearer.key, directory.path().join("agent-c.key"));
        assert!(matches!(endpoints.bearer("agent-a"), Err(EndpointsError::UnknownIdentity(_))));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(ENDPOINTS_FILE), SAMPLE).unwrap();
        let endpoints = Endpoints::read(directory.path()).unwrap();
        endpoints.write(directory.path()).unwrap();
        assert_eq!(Endpoints::read(directory.path()).unwrap(), endpoints);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_invalid_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let invalid = SAMPLE.replace("spiffe://broker.example/brevet", "https://broker.example/brevet");
        fs::write(directory.path().join(ENDPOINTS_FILE), invalid).unwrap();
        assert!(matches!(Endpoints::read(directory.path()), Err(EndpointsError::Content { .. })));
    }
}
