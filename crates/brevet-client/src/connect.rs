//! A connection to a broker, on which each end has proven its SPIFFE ID.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs};

use brevet_api::v1::audit_service_client::AuditServiceClient;
use brevet_api::v1::credential_service_client::CredentialServiceClient;
use brevet_api::v1::lease_service_client::LeaseServiceClient;
use brevet_api::v1::lock_service_client::LockServiceClient;
use brevet_api::v1::revocation_service_client::RevocationServiceClient;
use brevet_api::v1::task_service_client::TaskServiceClient;
use brevet_core::spiffe_id::SpiffeId;
use brevet_identity::tls;
use brevet_identity::trust::{self, Bundle};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use zeroize::Zeroize;

use crate::calls::{Calls, Shown, Token};
use crate::dpop::HolderKey;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The endpoint is not a URL of the form `https://{host}[:{port}]`.
    #[error("not an endpoint of the form https://host:port")]
    Endpoint,
    /// The identity's key is of a kind that TLS does not know, or does not belong to its certificate.
    #[error("the identity cannot be used")]
    Identity(#[source] rustls::Error),
    /// The broker was not reached in time, or one end refused the other. A broker that refuses a client's
    /// certificate does so after the handshake (RFC 8446 §4.4.2.4), so that its refusal may first show in a call.
    #[error("no connection to {endpoint}")]
    Unreachable {
        /// The endpoint as it was given.
        endpoint: String,
        /// What happened.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A file that cannot be read, or does not hold what it should.
#[derive(Debug, Error)]
#[error("cannot use {path}")]
pub struct IdentityError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

fn take<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, Box<dyn Error + Send + Sync>>,
) -> Result<T, IdentityError> {
    read().map_err(|source| IdentityError { path: path.to_owned(), source })
}

/// Whom the client is: an X.509-SVID with its private key, or a token with a key that it is bound to.
///
/// A connection keeps the identity that it was made with; after a rotation, load and connect again. A token's file is
/// read for each call, so that whoever rotates it need not tell.
pub struct Identity(Kind);

enum Kind {
    Certificate { chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static> },
    Token(Arc<Token>),
}

impl Identity {
    /// Reads a certificate chain, leaf first, and the leaf's private key, both in PEM.
    ///
    /// # Errors
    /// [`IdentityError`] names the file that cannot be read, or holds nothing of the kind.
    pub fn load(certificates: &Path, key: &Path) -> Result<Self, IdentityError> {
        let chain: Vec<_> = take(certificates, || {
            Ok(CertificateDer::pem_file_iter(certificates)?.collect::<Result<_, _>>()?)
        })?;
        if chain.is_empty() {
            return take(certificates, || Err(pem::Error::NoItemsFound.into()));
        }
        let key = take(key, || Ok(PrivateKeyDer::from_pem_file(key)?))?;
        Ok(Self(Kind::Certificate { chain, key }))
    }

    /// Shows the token in a file, a JWT-SVID or an issuer's, and proves this key with each call.
    #[must_use]
    pub fn token(token: &Path, key: HolderKey) -> Self {
        Self(Kind::Token(Arc::new(Token::new(token.to_owned(), key))))
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        if let Kind::Certificate { key, .. } = &mut self.0 {
            key.zeroize();
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Certificate { chain, .. } => {
                f.debug_struct("Identity").field("certificates", &chain.len()).finish_non_exhaustive()
            }
            Kind::Token(token) => f.debug_tuple("Identity").field(token).finish(),
        }
    }
}

/// Whom the client takes for the broker: one SPIFFE ID, vouched for by its own trust domain's authorities.
#[derive(Debug, Clone)]
pub struct ServerTrust {
    trust: Arc<trust::ServerTrust>,
    server: SpiffeId,
}

impl ServerTrust {
    /// Reads the certificate authorities of the server's trust domain, in PEM.
    ///
    /// # Errors
    /// [`IdentityError`] if the file cannot be read, holds no certificate, or one that is no SPIFFE authority.
    pub fn load(bundle: &Path, server: SpiffeId) -> Result<Self, IdentityError> {
        let trust = take(bundle, || {
            let authorities = Bundle::from_pem(&fs::read(bundle)?)?;
            Ok(trust::ServerTrust::new([(server.trust_domain(), authorities)])?)
        })?;
        Ok(Self { trust: Arc::new(trust), server })
    }
}

/// The limits of a connection, and its clock.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long connecting may take, the handshake included.
    pub connect_timeout: Duration,
    /// How long a call may take until its answer begins.
    pub request_timeout: Duration,
    /// How often an HTTP/2 ping asks whether the broker is there while a call is open.
    pub keep_alive_interval: Duration,
    /// How long the broker may leave a ping unanswered before the connection is given up.
    pub keep_alive_timeout: Duration,
    /// The longest answer, in bytes: a record of the audit log repeats what was asked for several times, and a message of
    /// the stream of revocations has up to 4,096 endings.
    pub answer_bytes_max: usize,
    /// What the validity of the broker's certificate is judged by: the system's clock by default.
    pub time: Arc<dyn TimeProvider>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(20),
            keep_alive_timeout: Duration::from_secs(10),
            answer_bytes_max: 1024 * 1024,
            time: Arc::new(DefaultTimeProvider),
        }
    }
}

/// A broker that the client is connected to. Clones share the connection, which is made anew after a loss.
#[derive(Debug, Clone)]
pub struct Broker {
    channel: Channel,
    shown: Option<Shown>,
    answer_bytes_max: usize,
}

macro_rules! stub {
    ($(#[$doc:meta])* $name:ident, $stub:ident) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> $stub<Calls> {
            $stub::new(self.calls())
                .max_decoding_message_size(self.answer_bytes_max)
        }
    };
}

impl Broker {
    stub!(
        /// The task service.
        tasks, TaskServiceClient
    );
    stub!(
        /// The credential service.
        credentials, CredentialServiceClient
    );
    stub!(
        /// The revocation service.
        revocations, RevocationServiceClient
    );
    stub!(
        /// The lease service.
        leases, LeaseServiceClient
    );
    stub!(
        /// The lock service: all that the local root socket serves.
        locks, LockServiceClient
    );

    const fn over(channel: Channel, settings: &Settings) -> Self {
        Self { channel, shown: None, answer_bytes_max: settings.answer_bytes_max }
    }

    /// The connection for stubs: each call shows what the client is, if the connection does not.
    #[must_use]
    pub fn calls(&self) -> Calls {
        Calls::new(self.channel.clone(), self.shown.clone())
    }

    stub!(
        /// The audit service.
        audit, AuditServiceClient
    );

    /// The connection itself, for services with stubs of their own, such as health and reflection.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// Connects to a broker at `https://{host}[:{port}]`. Host and port say where to dial and nothing more: who answers
/// is judged by its SPIFFE ID alone.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    endpoint: &str,
    identity: &Identity,
    trust: &ServerTrust,
    settings: &Settings,
) -> Result<Broker, ConnectError> {
    let (origin, address) = parse(endpoint).ok_or(ConnectError::Endpoint)?;
    let server_name = ServerName::try_from(address.0.clone()).map_err(|_| ConnectError::Endpoint)?;
    let config = {
        let trusted = Arc::clone(&trust.trust);
        let source: tls::TrustSource<_> = Arc::new(move || Arc::clone(&trusted));
        let (server, time) = (trust.server.clone(), Arc::clone(&settings.time));
        match &identity.0 {
            Kind::Certificate { chain, key } => {
                tls::client_config(chain.clone(), key.clone_key(), source, server, time)
            }
            Kind::Token(_) => tls::client_config_without_certificate(source, server, time),
        }
        .map_err(ConnectError::Identity)?
    };
    let tls = TlsConnector::from(Arc::new(config));

    // This crate's connector speaks TLS itself, so tonic is given a URL without it to dial, and the true one to send.
    let plain = format!("http://{}", origin.authority().map_or("", |it| it.as_str()));
    let dialled = dialled(plain, settings)?.origin(origin);
    let connector = service_fn(move |_: Uri| {
        let (tls, address, server_name) = (tls.clone(), address.clone(), server_name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            tls.connect(server_name, stream).await.map(TokioIo::new)
        }
    });
    let unreachable = |source| ConnectError::Unreachable { endpoint: endpoint.to_owned(), source };
    let channel = dialled.connect_with_connector(connector).await.map_err(unreachable)?;
    let shown = match &identity.0 {
        Kind::Certificate { .. } => None,
        Kind::Token(token) => Some(Shown {
            token: Arc::clone(token),
            origin: endpoint.trim_end_matches('/').into(),
            time: Arc::clone(&settings.time),
        }),
    };
    Ok(Broker { shown, ..Broker::over(channel, settings) })
}

/// Connects to the local root socket of a broker on this machine. Neither end shows a certificate: the kernel tells the
/// broker whose process it is, and the socket's directory belongs to the broker's user or root.
///
/// # Errors
/// [`ConnectError::Unreachable`].
pub async fn connect_local(path: &Path, settings: &Settings) -> Result<Broker, ConnectError> {
    let dialled = dialled("http://localhost".to_owned(), settings)?;
    let connector = {
        let path = path.to_owned();
        service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        })
    };
    let unreachable = |source| ConnectError::Unreachable { endpoint: path.display().to_string(), source };
    let channel = dialled.connect_with_connector(connector).await.map_err(unreachable)?;
    Ok(Broker::over(channel, settings))
}

fn dialled(url: String, settings: &Settings) -> Result<Endpoint, ConnectError> {
    let endpoint = Endpoint::from_shared(url)
        .and_then(|it| it.user_agent(concat!("brevet-client/", env!("CARGO_PKG_VERSION"))))
        .map_err(|_| ConnectError::Endpoint)?;
    Ok(endpoint
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.request_timeout)
        .http2_keep_alive_interval(settings.keep_alive_interval)
        .keep_alive_timeout(settings.keep_alive_timeout))
}

/// The URL as tonic knows it, and the host and port to dial.
fn parse(endpoint: &str) -> Option<(Uri, (String, u16))> {
    let origin: Uri = endpoint.parse().ok()?;
    let authority = origin.authority()?;
    let no_more = origin.path() == "/" && origin.query().is_none() && !authority.as_str().contains('@');
    if origin.scheme_str() != Some("https") || !no_more {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(443);
    Some((origin, (host, port)))
}

#[cfg(test)]
mod tests;
