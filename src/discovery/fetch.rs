//! Fetching a document: one GET, over TLS, of bounded length, in bounded time, and led nowhere else.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use brevet_core::sabotage;
use brevet_identity::json;
use brevet_identity::jwk_set::{InvalidJwkSet, JWK_SET_BYTES_MAX, JwkSet};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Source;
use crate::config::HostName;

/// Where Debian and most others have the certificates that everybody trusts.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The most bytes that are read for one document, with all that is around it. It follows from what a JWK Set may have,
/// which is the same for every verifier, and so is no configuration.
const ANSWER_BYTES_MAX: u64 = 2 * JWK_SET_BYTES_MAX as u64;

/// Why a document could not be had.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    /// It took too long.
    #[error("it took too long")]
    Late,
    /// A URL is none that is fetched. It may be the issuer's text, which the log is not to repeat.
    #[error("the url of the issuer, or that of its keys, is no https url of a host")]
    Url,
    /// The certificates to trust could not be read.
    #[error("cannot read the certificates in {0}")]
    Ca(String, #[source] io::Error),
    /// The server was not reached.
    #[error("the server was not reached: {0}")]
    Connect(#[from] io::Error),
    /// The keys are where nobody said that they may be.
    #[error("the issuer's keys are at {0}, which is neither its own host nor named in jwks_hosts")]
    Host(HostName),
    /// The configuration of TLS is not accepted.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// HTTP failed.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// It answered with something else than a document; where it would lead to is not followed.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// The document is too long, or broke off.
    #[error("the document is longer than {JWK_SET_BYTES_MAX} bytes, or broke off")]
    Body,
    /// The document is none of a provider, or another provider's.
    #[error("the document is none of this issuer")]
    Metadata,
    /// The keys are refused.
    #[error("the keys are refused: {0}")]
    Keys(#[from] InvalidJwkSet),
}

impl FetchError {
    /// Why the keys are refused, if they were had.
    pub(super) const fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Keys(problem) => Some(problem.reason()),
            _ => None,
        }
    }
}

/// The keys that an issuer publishes: first its metadata, then the set that these name.
pub(super) async fn keys_of(source: &Source, within: Duration) -> Result<JwkSet, FetchError> {
    tokio::time::timeout(within, async {
        let Source { issuer, ca, .. } = source;
        let tls = client(ca.as_deref())?;
        let reach = Reach::of(source)?;
        let metadata = format!("{issuer}/.well-known/openid-configuration");
        let metadata = get(&metadata, &reach, &tls).await?;
        let metadata = json::parse_object(&metadata).map_err(|_| FetchError::Metadata)?;
        // OpenID Connect Discovery §4.3: exactly, or the document is another's.
        if metadata.get("issuer").is_none_or(|stated| stated != issuer) {
            return Err(FetchError::Metadata);
        }
        let keys = metadata.get("jwks_uri").and_then(|url| url.as_str()).ok_or(FetchError::Metadata)?;
        Ok(JwkSet::parse(&get(keys, &reach, &tls).await?)?)
    })
    .await
    .map_err(|_| FetchError::Late)?
}

pub(super) fn client(ca: Option<&Path>) -> Result<Arc<ClientConfig>, FetchError> {
    let path = ca.unwrap_or(Path::new(SYSTEM_CA));
    let unreadable = |problem| FetchError::Ca(path.display().to_string(), problem);
    let text = match std::fs::read(path) {
        Err(problem) if ca.is_none() && problem.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(unreadable)?,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Whether a host is this machine by what it is called (RFC 6761 §6.3). What a name leads to by DNS is its owner's to say.
pub(super) fn is_local(host: &HostName) -> bool {
    let name = host.as_str();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|it| it.to_canonical().is_loopback() || it.is_unspecified())
}

/// Where an issuer may lead.
pub(super) struct Reach {
    /// To its own host, and to those that the owner named.
    hosts: BTreeSet<HostName>,
    /// To what listens on this machine, for an issuer of this machine.
    this_machine: bool,
    /// There also without TLS, for an issuer that has none.
    plain: bool,
}

impl Reach {
    pub(super) fn of(source: &Source) -> Result<Self, FetchError> {
        let url: Uri = source.issuer.parse().map_err(|_| FetchError::Url)?;
        let own = HostName::parse(url.host().unwrap_or_default()).map_err(|_| FetchError::Url)?;
        Ok(Self {
            this_machine: is_local(&own),
            plain: url.scheme() == Some(&Scheme::HTTP),
            hosts: source.jwks_hosts.iter().cloned().chain([own]).collect(),
        })
    }
}

pub(super) async fn get(url: &str, reach: &Reach, tls: &Arc<ClientConfig>) -> Result<Vec<u8>, FetchError> {
    let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
    let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else { return Err(FetchError::Url) };
    let host = HostName::parse(host).map_err(|_| FetchError::Url)?;
    let local = is_local(&host);
    let may_be_local = reach.this_machine || sabotage::on("foreign_issuers_lead_here");
    if authority.as_str().contains('@') || (local && !may_be_local) {
        return Err(FetchError::Url);
    }
    let plain = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => false,
        Some(scheme) if *scheme == Scheme::HTTP && local && reach.plain => true,
        _ => return Err(FetchError::Url),
    };
    if !reach.hosts.contains(&host) && !sabotage::on("issuers_lead_anywhere") {
        return Err(FetchError::Host(host));
    }
    let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
    let stream = bounded(TcpStream::connect((host.as_str(), port)).await?);
    if plain {
        return exchange(stream, &uri).await;
    }
    let name = ServerName::try_from(host.as_str().to_owned()).map_err(|_| FetchError::Url)?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
    exchange(stream, &uri).await
}

/// A connection that ends after so many bytes, whatever they are: records of TLS, answers that announce the answer, headers.
/// None of them costs more than that, also where nothing counts them.
fn bounded(stream: TcpStream) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    let (read, write) = stream.into_split();
    tokio::io::join(read.take(ANSWER_BYTES_MAX), write)
}

async fn exchange<S>(stream: S, uri: &Uri) -> Result<Vec<u8>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let request = Request::get(path).header("host", host).header("accept", "application/json");
    let request = request.body(Body::empty()).map_err(|_| FetchError::Url)?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        connection.abort();
        return Err(FetchError::Status(response.status()));
    }
    let body = to_bytes(Body::new(response.into_body()), JWK_SET_BYTES_MAX).await;
    connection.abort();
    body.map(|bytes| bytes.to_vec()).map_err(|_| FetchError::Body)
}
