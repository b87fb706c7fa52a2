//! Fetching a document: one GET, over TLS, of bounded length, in bounded time, and led nowhere else.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use brevet_identity::json;
use brevet_identity::jwk_set::{InvalidJwkSet, JWK_SET_BYTES_MAX, JwkSet};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where Debian and most others have the certificates that everybody trusts.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why a document could not be had.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    /// It took too long.
    #[error("it took too long")]
    Late,
    /// The URL is none that is fetched.
    #[error("{0} is no https url of a host")]
    Url(String),
    /// The certificates to trust could not be read.
    #[error("cannot read the certificates in {0}")]
    Ca(String, #[source] io::Error),
    /// The server was not reached.
    #[error("the server was not reached: {0}")]
    Connect(#[from] io::Error),
    /// The name is none of a host.
    #[error("the url has no host name")]
    Name(#[from] InvalidDnsNameError),
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

/// The keys that an issuer publishes: first its metadata, then the set that these name.
pub(super) async fn keys_of(issuer: &str, ca: Option<&Path>, within: Duration) -> Result<JwkSet, FetchError> {
    tokio::time::timeout(within, async {
        let tls = client(ca)?;
        let metadata = get(&format!("{issuer}/.well-known/openid-configuration"), &tls).await?;
        let metadata = json::parse_object(&metadata).map_err(|_| FetchError::Metadata)?;
        // OpenID Connect Discovery §4.3: exactly, or the document is another's.
        if metadata.get("issuer").is_none_or(|stated| stated != issuer) {
            return Err(FetchError::Metadata);
        }
        let keys = metadata.get("jwks_uri").and_then(|url| url.as_str()).ok_or(FetchError::Metadata)?;
        Ok(JwkSet::parse(&get(keys, &tls).await?)?)
    })
    .await
    .map_err(|_| FetchError::Late)?
}

fn client(ca: Option<&Path>) -> Result<Arc<ClientConfig>, FetchError> {
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
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn get(url: &str, tls: &Arc<ClientConfig>) -> Result<Vec<u8>, FetchError> {
    let refused = || FetchError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else { return Err(refused()) };
    if authority.as_str().contains('@') {
        return Err(refused());
    }
    // Without TLS on this machine alone.
    let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let plain = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => false,
        Some(scheme) if *scheme == Scheme::HTTP && local => true,
        _ => return Err(refused()),
    };
    let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((bare.as_str(), port)).await?;
    if plain {
        return exchange(stream, &uri).await;
    }
    let stream = TlsConnector::from(Arc::clone(tls)).connect(ServerName::try_from(bare)?, stream).await?;
    exchange(stream, &uri).await
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
    let request = request.body(Body::empty()).map_err(|_| FetchError::Url(uri.to_string()))?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        connection.abort();
        return Err(FetchError::Status(response.status()));
    }
    let body = to_bytes(Body::new(response.into_body()), JWK_SET_BYTES_MAX).await;
    connection.abort();
    body.map(|bytes| bytes.to_vec()).map_err(|_| FetchError::Body)
}
