//! TLS 1.3 as Brevet speaks it (RFC 8446), on both sides, with X.509-SVIDs.
//!
//! The server's handshake proves possession of a key and that some configured authority signed its certificate;
//! whose it is, [`crate::x509_svid::verify_chain`] decides once per connection and again when the trust changes.
//! The client's handshake decides everything, for a client has no later step.
//!
//! Nothing is resumed: a ticket would let a workload in whose trust domain is trusted no longer.

use std::fmt;
use std::sync::Arc;

use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, ServerConfig, SignatureScheme,
};
use webpki::KeyUsage;
use zeroize::Zeroize;

use crate::trust::{CallerTrust, ServerTrust};
use crate::x509_svid::{self, SIGNATURE_ALGORITHMS, X509SvidError};

/// Where the current trust is read, at each handshake.
pub type TrustSource<T> = Arc<dyn Fn() -> Arc<T> + Send + Sync>;

const ALPN: &[u8] = b"h2";

/// What peers may sign a handshake with: a key that an SVID may have, under the one scheme that TLS 1.3 has for it.
const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: SIGNATURE_ALGORITHMS,
    mapping: &[
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[webpki::ring::ECDSA_P256_SHA256]),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[webpki::ring::ECDSA_P384_SHA384]),
        (SignatureScheme::RSA_PSS_SHA256, &[webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA384, &[webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA512, &[webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
    ],
};

/// Whether clients have to have a certificate. One that is shown is judged either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificates {
    /// They do.
    Required,
    /// They may show something else, once they are connected.
    Optional,
}

/// Told why a client's chain is refused in a handshake; the client hears nothing in particular.
pub type RefusedChains = Arc<dyn Fn(X509SvidError) + Send + Sync>;

/// The configuration of a server whose clients show certificates.
///
/// # Errors
/// [`Error`] if the key does not belong to the certificate.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificates: Certificates,
    callers: TrustSource<CallerTrust>,
    refused: RefusedChains,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, Error> {
    let identity = identity(chain, key)?;
    let mut config = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(CallerVerifier { certificates, trust: callers, refused }))
        .with_cert_resolver(identity);
    // INVARIANT: no resumption, by session or by ticket, and so no early data.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// The configuration of a client that presents its SVID and calls the server `expected` and no other.
///
/// # Errors
/// [`Error`] if the key does not belong to the certificate.
pub fn client_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    servers: TrustSource<ServerTrust>,
    expected: SpiffeId,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let identity = identity(chain, key)?;
    Ok(calling(client_builder(servers, expected, time)?.with_client_cert_resolver(identity)))
}

/// The configuration of a client that has no certificate and shows a token with its calls, to the server `expected` and
/// to no other.
///
/// # Errors
/// None in practice: TLS 1.3 is there.
pub fn client_config_without_certificate(
    servers: TrustSource<ServerTrust>,
    expected: SpiffeId,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    Ok(calling(client_builder(servers, expected, time)?.with_no_client_auth()))
}

fn client_builder(
    servers: TrustSource<ServerTrust>,
    expected: SpiffeId,
    time: Arc<dyn TimeProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    // Servers are named by their SPIFFE ID, so the verifier is not the one for host names.
    let verifier = Arc::new(ServerVerifier { trust: servers, expected });
    let builder = ClientConfig::builder_with_details(provider(), time);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

fn calling(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// What is presented in handshakes. The key's encoding is erased, whatever comes of it; what signs is `ring`'s and ends with
/// the configuration.
fn identity(
    chain: Vec<CertificateDer<'static>>,
    mut key: PrivateKeyDer<'static>,
) -> Result<Arc<SingleCertAndKey>, Error> {
    let signing = any_supported_type(&key);
    key.zeroize();
    let certified = CertifiedKey::new(chain, signing?);
    certified.keys_match()?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn provider() -> Arc<CryptoProvider> {
    let ring = rustls::crypto::ring::default_provider();
    Arc::new(CryptoProvider { signature_verification_algorithms: ALGORITHMS, ..ring })
}

struct CallerVerifier {
    certificates: Certificates,
    trust: TrustSource<CallerTrust>,
    refused: RefusedChains,
}

impl fmt::Debug for CallerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerVerifier")
    }
}

impl ClientCertVerifier for CallerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.certificates == Certificates::Required
    }

    /// Empty: the trust may change while the configuration lives, and an empty list admits every certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let trust = (self.trust)();
        let chain = chain(end_entity, intermediates);
        x509_svid::is_known(&chain, trust.trusted(), KeyUsage::client_auth(), timestamp(now))
            .map(|()| ClientCertVerified::assertion())
            .map_err(|error| {
                (self.refused)(error);
                refused(error)
            })
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

struct ServerVerifier {
    trust: TrustSource<ServerTrust>,
    expected: SpiffeId,
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerVerifier({})", self.expected)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        x509_svid::verify_server(&chain, &(self.trust)(), &self.expected, timestamp(now))
            .map(|()| ServerCertVerified::assertion())
            .map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

fn chain<'a>(end_entity: &'a CertificateDer<'_>, intermediates: &'a [CertificateDer<'_>]) -> Vec<&'a [u8]> {
    std::iter::once(end_entity).chain(intermediates).map(AsRef::as_ref).collect()
}

fn timestamp(now: UnixTime) -> Timestamp {
    Timestamp::from_seconds(now.as_secs())
}

/// Only TLS 1.3 is configured, so no handshake gets here.
fn tls12() -> Error {
    Error::General("tls 1.2 is not spoken".to_owned())
}

/// The alert tells the peer nothing in particular; the precise reason stays in the error for the server's log.
fn refused(error: X509SvidError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

#[cfg(test)]
mod tests;
