//! The HTTP listener: what the public may know, and probes. It takes no bodies and changes nothing.
//!
//! Plain HTTP is for loopback alone: who can change the keys on their way can forge every credential.

mod documents;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use brevet_core::sabotage;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

pub use documents::PublicDocuments;

use crate::metrics::{self, Metrics};
use crate::net::{
    AcceptLimits, Accepted, Counters, Drain, HandshakeError, NetLimits, Place, accept_until, drive, listen,
    refuse,
};

/// The limits of the HTTP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at once. Of half as many, one that has asked for nothing of late makes way for a newcomer.
    pub connections_max: usize,
    /// Likewise from one peer: an IPv4 address or an IPv6 network of 64 bits.
    pub connections_per_peer_max: usize,
    /// How long a client may take to send a request's head, or leave its connection idle.
    pub header_read_max: Duration,
    /// The request line and header fields of one request, in bytes.
    pub header_bytes_max: usize,
    /// Header fields of one request.
    pub header_fields_max: usize,
    /// How long a connection is used at most.
    pub connection_age_max: Duration,
    /// How long an answer may still take once the connection is too old.
    pub connection_grace: Duration,
    /// How long answers may still take when the daemon was told to stop.
    pub drain_max: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            connections_per_peer_max: 128,
            header_read_max: Duration::from_secs(5),
            header_bytes_max: 8 * 1024,
            header_fields_max: 64,
            connection_age_max: Duration::from_secs(120),
            connection_grace: Duration::from_secs(5),
            drain_max: Duration::from_secs(5),
        }
    }
}

impl HttpLimits {
    fn accept(&self) -> AcceptLimits {
        AcceptLimits {
            connections_max: self.connections_max,
            connections_per_peer_max: self.connections_per_peer_max,
            // All of this machine are one network.
            connections_per_network_max: self.connections_max,
            // Beyond half of the places, one that is idle makes way; the rest is for those that are on their way out.
            handshakes_max: self.connections_max.div_ceil(2),
            handshakes_per_peer_max: self.connections_per_peer_max.div_ceil(2),
            drain_max: self.drain_max,
            ..NetLimits::default().accept()
        }
    }
}

/// Whether the daemon can do its work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why it can't, for everyone to read; none if it can.
    pub reasons: Vec<String>,
    /// What an operator should know although it can.
    pub warnings: Vec<String>,
}

/// What the HTTP listener answers from.
#[derive(Clone)]
pub struct Site {
    /// The published documents; what is stored here is served from then on.
    pub documents: Arc<ArcSwap<PublicDocuments>>,
    /// What `/metrics` tells.
    pub metrics: Arc<Metrics>,
    /// Reads the gauges anew, before `/metrics` tells them.
    pub gauges: Arc<dyn Fn(&Metrics) + Send + Sync>,
    /// What `/readyz` tells. It is called for each probe and must not block.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
}

impl Site {
    /// The routes.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/oauth/jwks", get(jwks))
            .route("/revocation/jwks", get(bookmark_jwks))
            .route("/.well-known/oauth-authorization-server", get(authorization_server))
            .route("/.well-known/openid-configuration", get(openid_configuration))
            .route("/spiffe/bundle", get(bundle))
            .route("/metrics", get(metrics_text))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .layer(from_fn(refuse_bodies))
            .with_state(self)
    }
}

/// A bound socket for plain HTTP.
#[derive(Debug)]
pub struct HttpListener(TcpListener);

/// Why the HTTP listener can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Plain HTTP beyond this machine.
    #[error("plain http is served on loopback addresses alone, and {0} is not one")]
    NotLoopback(SocketAddr),
    /// The system refused.
    #[error("the http socket can't be bound")]
    Io(#[from] std::io::Error),
}

impl HttpListener {
    /// Binds it. The threads in whose context this is called wait for connections.
    ///
    /// # Errors
    /// If the address is not a loopback address or can't be bound.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        if !address.ip().to_canonical().is_loopback() {
            return Err(ListenError::NotLoopback(address));
        }
        Ok(Self(listen(address)?))
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves HTTP/1.1 until `shutdown` completes, lets running answers go on for the drain time and returns.
    pub async fn serve(
        self,
        routes: Router,
        limits: HttpLimits,
        counters: Arc<Counters>,
        shutdown: impl Future<Output = ()>,
    ) {
        let routes = routes.with_state(());
        let connection = {
            let counters = Arc::clone(&counters);
            move |accepted| {
                let (routes, counters) = (routes.clone(), Arc::clone(&counters));
                async move { serve_connection(accepted, routes, &limits, &counters).await }
            }
        };
        accept_until(self.0, limits.accept(), counters, shutdown, connection).await;
    }
}

async fn serve_connection(
    accepted: Accepted<TcpStream>,
    routes: Router,
    limits: &HttpLimits,
    counters: &Counters,
) {
    let Accepted { stream, origin, place, drain } = accepted;
    if sabotage::on("probes_are_kept_out") {
        place.probation().pass(Duration::MAX);
    }
    tokio::select! {
        () = serve_http1(stream, routes, limits, &place, drain) => {}
        () = place.makes_way() => refuse(counters, origin, &HandshakeError::MadeWay),
    }
}

/// Whoever comes here stays a stranger, so its place never becomes its own: one that has asked for nothing of late makes
/// way for a newcomer, or a few that are silent would keep out the probes.
async fn serve_http1(stream: TcpStream, routes: Router, limits: &HttpLimits, place: &Place, drain: Drain) {
    let routes = TowerToHyperService::new(routes);
    let answer = service_fn(|request| {
        place.begun();
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_max)
        .max_header_size(limits.header_bytes_max)
        .max_headers(limits.header_fields_max)
        // The implementation panics at less.
        .max_buf_size(limits.header_bytes_max.max(8_192))
        .serve_connection(TokioIo::new(stream), answer);
    let (age, grace) = (limits.connection_age_max, limits.connection_grace);
    drive(connection, http1::Connection::graceful_shutdown, age, grace, drain).await;
}

/// Nothing here reads a body, and what is not read must not be sent.
async fn refuse_bodies(request: Request<Body>, next: Next) -> Response {
    if request.body().is_end_stream() {
        next.run(request).await
    } else {
        StatusCode::PAYLOAD_TOO_LARGE.into_response()
    }
}

async fn jwks(State(site): State<Site>) -> Response {
    let documents = site.documents.load();
    published("application/jwk-set+json", &documents.jwks, documents.max_age)
}

async fn bookmark_jwks(State(site): State<Site>) -> Response {
    let documents = site.documents.load();
    published("application/jwk-set+json", &documents.bookmark_jwks, documents.max_age)
}

async fn bundle(State(site): State<Site>) -> Response {
    let documents = site.documents.load();
    published("application/json", &documents.bundle, documents.max_age)
}

async fn authorization_server(State(site): State<Site>) -> Response {
    let documents = site.documents.load();
    published("application/json", &documents.authorization_server, documents.max_age)
}

async fn openid_configuration(State(site): State<Site>) -> Response {
    let documents = site.documents.load();
    published("application/json", &documents.openid_configuration, documents.max_age)
}

async fn metrics_text(State(site): State<Site>) -> Response {
    (site.gauges)(&site.metrics);
    match site.metrics.text() {
        Ok(text) => unpublished(StatusCode::OK, metrics::CONTENT_TYPE, text.into()),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn livez() -> Response {
    unpublished(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"ok\n"))
}

async fn readyz(State(site): State<Site>) -> Response {
    let Readiness { reasons, warnings } = (site.readiness)();
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": ready, "reasons": reasons, "warnings": warnings });
    unpublished(status, "application/json", body.to_string().into())
}

fn published(content_type: &'static str, document: &Bytes, max_age: Duration) -> Response {
    let cache = HeaderValue::try_from(format!("public, max-age={}", max_age.as_secs()))
        .unwrap_or(HeaderValue::from_static("no-store"));
    answer(StatusCode::OK, content_type, cache, document.clone())
}

fn unpublished(status: StatusCode, content_type: &'static str, body: Bytes) -> Response {
    answer(status, content_type, HeaderValue::from_static("no-store"), body)
}

fn answer(status: StatusCode, content_type: &'static str, cache: HeaderValue, body: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, cache),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests;
