//! The broker's own certificate, and what it verifies callers by.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use brevet_identity::tls::{self, Certificates, RefusedChains, TrustSource};
use brevet_identity::trust::CallerTrust;
use brevet_mint::ca::{CaKey, ServerNames};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tracing::error;

use super::StartError;
use crate::broker::Broker;
use crate::config::{ClientCertificate, Config};
use crate::net::TlsConfig;

/// How long the broker's own certificate lives; it is renewed after half of that.
const SERVER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(86_400);
/// When a renewal that failed is tried again.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);

pub(super) fn server_tls(
    config: &Config,
    authority: &CaKey,
    broker: &Arc<Broker>,
) -> Result<Arc<rustls::ServerConfig>, StartError> {
    let names = ServerNames { dns: config.grpc.dns_names.clone(), ip: config.grpc.ip_addresses.clone() };
    let identity = authority.server_certificate(
        &names,
        broker.clock.now().issue,
        SERVER_CERTIFICATE_LIFETIME,
        &broker.rng,
    )?;
    let chain = identity.chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.to_vec()));
    let time = broker.clock.time_provider();
    let required = match config.grpc.client_certificate {
        ClientCertificate::Required => Certificates::Required,
        ClientCertificate::Optional => Certificates::Optional,
    };
    let refused: RefusedChains = {
        let broker = Arc::clone(broker);
        Arc::new(move |error| broker.refuse_handshake(error.reason()))
    };
    Ok(Arc::new(tls::server_config(chain, key, required, trust_of(broker), refused, time)?))
}

/// What callers are verified by, as it is in force at each look.
pub(super) fn trust_of(broker: &Arc<Broker>) -> TrustSource<CallerTrust> {
    let broker = Arc::clone(broker);
    Arc::new(move || Arc::clone(&broker.table.in_force().configuration.trust))
}

pub(super) async fn renew_server_certificate(
    config: Config,
    authority: Arc<CaKey>,
    broker: Arc<Broker>,
    tls: TlsConfig,
) -> Infallible {
    loop {
        broker.clock.sleep(SERVER_CERTIFICATE_LIFETIME / 2).await;
        while let Err(problem) = server_tls(&config, &authority, &broker).map(|renewed| tls.store(renewed)) {
            error!(%problem, "the server certificate could not be renewed");
            broker.clock.sleep(RENEWAL_RETRY).await;
        }
    }
}
