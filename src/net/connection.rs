//! One connection, from its handshake to its end.

use std::future::Future;
use std::io;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use brevet_core::sabotage;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::accept::{Accepted, Drain};
use super::admission::Place;
use super::answers::Answers;
use super::stream::{Metered, Replayed};
use super::{
    Admitted, ConnectionId, Counters, Lane, LocalPeer, NetLimits, Origin, Refusal, ReservedThreads, TlsPeer,
};
use crate::threads::run_on;

/// How an HTTP/2 connection begins (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a handshake may cost, and what is read after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandshakeLimits {
    pub(crate) bytes_max: usize,
    pub(crate) refused_max: Duration,
    pub(crate) bytes_per_second_max: NonZeroU32,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    #[error("the client didn't choose this protocol by ALPN")]
    Protocol,
    #[error("the connection broke before its preface")]
    Broken(#[source] io::Error),
    #[error("the client doesn't speak HTTP/2")]
    Preface,
    #[error("the deadline of the handshake has passed")]
    Deadline,
    #[error("made way for a newcomer before it was known who calls")]
    MadeWay,
    #[error("the peer is another user")]
    ForeignUser,
    #[error("nobody has shown who calls")]
    Unknown,
}

/// A TLS connection whose handshake is complete.
type TlsStart = TlsStream<Metered<TcpStream>>;

/// Runs the handshake of TLS in bounded bytes, and paces what comes after it.
async fn handshake(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    place: &Place,
    limits: HandshakeLimits,
) -> Result<TlsStart, HandshakeError> {
    let metered = Metered::new(stream, limits.bytes_max);
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), metered);
    let hello = match (&mut acceptor).await {
        Ok(hello) => hello,
        Err(error) => {
            if let Some(refused) = acceptor.take_io() {
                hear_out(refused, limits.refused_max).await;
            }
            return Err(HandshakeError::Tls(error));
        }
    };
    place.begun();
    let mut stream = match hello.into_stream(tls).into_fallible().await {
        Ok(stream) => stream,
        Err((error, refused)) => {
            hear_out(refused, limits.refused_max).await;
            return Err(HandshakeError::Tls(error));
        }
    };
    let (metered, session) = stream.get_mut();
    metered.pace(limits.bytes_per_second_max);
    if session.alpn_protocol() == Some(b"h2") { Ok(stream) } else { Err(HandshakeError::Protocol) }
}

/// Reads what a refused client still sends until it closes, within bounds. To close with bytes unread resets the
/// connection, and the reset overtakes the alert that says why.
async fn hear_out(mut refused: Metered<TcpStream>, time: Duration) {
    let discard = async {
        let mut bytes = [0; 1024];
        while refused.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    };
    // Whether it closed or took too long, there is nothing more to do for it.
    let _heard = timeout(time, discard).await;
}

/// Serves one TLS connection.
pub(super) async fn serve_tls<C: Clone + Send + Sync + 'static>(
    accepted: Accepted<TcpStream>,
    tls: Arc<ServerConfig>,
    routes: Router,
    limits: NetLimits,
    counters: Arc<Counters>,
    admit: &(dyn Fn(TlsPeer) -> Admitted<C> + Send + Sync),
) {
    let Accepted { stream, origin, place, drain } = accepted;
    let started = within(limits.handshake_max, &place, async {
        let mut stream = handshake(stream, tls, &place, limits.handshake()).await?;
        preface(&mut stream).await?;
        Ok(stream)
    });
    let stream = match started.await {
        Ok(stream) => stream,
        Err(error) => return refuse(&counters, origin, &error),
    };
    place.complete();
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().into();
    let (connection, probation) = (place.id(), place.probation());
    let admitted = admit(TlsPeer { certificates, connection, probation });
    let age = admitted.age_max.min(spread(limits.connection_age_max, connection));
    let reserved = admitted.lane.as_ref().is_some_and(|lane| lane.room.is_some());
    let serving = Serving { routes, limits, counters: Arc::clone(&counters), origin, age, drain, reserved };
    let served = async {
        match admitted.lane {
            Some(lane) => elsewhere(serving, stream, admitted.extension, lane).await,
            None => serving.http2(stream, admitted.extension).await,
        }
    };
    tokio::select! {
        () = served => {}
        () = place.makes_way() => refuse(&counters, origin, &HandshakeError::MadeWay),
        () = place.unknown_for(limits.probation_max) => refuse(&counters, origin, &HandshakeError::Unknown),
    }
}

/// Serves a connection on other threads than those that accepted it, as long as it is waited for.
async fn elsewhere<C: Clone + Send + Sync + 'static>(
    serving: Serving,
    mut stream: TlsStart,
    extension: C,
    Lane { runtime, room }: Lane,
) {
    let serve = async move {
        let (metered, _) = stream.get_mut();
        if let Some(room) = &room {
            metered.pace(room.bytes_per_second_max);
        }
        match metered.register_here() {
            Ok(()) => serving.http2(stream, extension).await,
            Err(error) => refuse(&serving.counters, serving.origin, &HandshakeError::Broken(error)),
        }
    };
    let _ended = run_on(&runtime, serve).await;
}

/// Serves one connection of the local socket.
pub(super) async fn serve_local<C: Clone + Send + Sync + 'static>(
    accepted: Accepted<UnixStream>,
    routes: Router,
    limits: NetLimits,
    counters: Arc<Counters>,
    admit: &(dyn Fn(LocalPeer) -> C + Send + Sync),
) {
    let Accepted { mut stream, origin, place, drain } = accepted;
    let started = within(limits.handshake_max, &place, async {
        let peer = stream.peer_cred().map_err(HandshakeError::Broken)?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            return Err(HandshakeError::ForeignUser);
        }
        preface(&mut stream).await?;
        Ok(peer)
    });
    let peer = match started.await {
        Ok(peer) => peer,
        Err(error) => return refuse(&counters, origin, &error),
    };
    place.probation().pass(Duration::MAX);
    let extension = admit(LocalPeer { uid: peer.uid() });
    let age = spread(limits.connection_age_max, place.id());
    Serving { routes, limits, counters, origin, age, drain, reserved: true }.http2(stream, extension).await;
}

/// Runs a connection until it ends. Asks it to close by `close` when it is too old or the listener closes, and cuts
/// it when it then takes longer than `grace`.
pub(crate) async fn drive<T: Future<Output = Result<(), hyper::Error>>>(
    connection: T,
    close: impl FnOnce(Pin<&mut T>),
    age: Duration,
    grace: Duration,
    mut drain: Drain,
) {
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        result = &mut connection => Some(result),
        () = sleep(age) => None,
        () = drain.begun() => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            close(connection.as_mut());
            match timeout(grace, connection).await {
                Ok(result) => result,
                Err(_) => return tracing::debug!("connection cut after its grace"),
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(?error, "connection ended by an error");
    }
}

/// What an established connection is served with.
struct Serving {
    routes: Router,
    limits: NetLimits,
    counters: Arc<Counters>,
    origin: Origin,
    age: Duration,
    drain: Drain,
    reserved: bool,
}

/// The client left an answer untaken.
#[derive(Debug, thiserror::Error)]
#[error("an answer was not taken in time")]
struct Untaken;

impl Serving {
    async fn http2<S, C>(self, stream: S, extension: C)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C: Clone + Send + Sync + 'static,
    {
        let Self { routes, limits, counters, origin, age, drain, reserved } = self;
        let answers = Answers::default();
        let service = {
            let answers = answers.clone();
            service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(extension.clone());
                request.extensions_mut().insert(answers.clone());
                if reserved {
                    request.extensions_mut().insert(ReservedThreads);
                }
                let (answering, answers) = (routes.clone().call(request), answers.clone());
                async move { answering.await.map(|response| answers.watched(response)) }
            })
        };
        let resets_max = if sabotage::on("resets_are_free") { usize::MAX } else { limits.reset_streams_max };
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(limits.header_list_bytes_max)
            .initial_stream_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.connection_window_bytes)
            .max_send_buf_size(limits.send_buffer_bytes_max)
            .max_pending_accept_reset_streams(resets_max)
            .max_local_error_reset_streams(resets_max)
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout)
            .serve_connection(TokioIo::new(Replayed::new(PREFACE, stream)), service);
        let grace = limits.connection_grace;
        tokio::select! {
            () = drive(connection, http2::Connection::graceful_shutdown, age, grace, drain) => {}
            () = answers.left_untaken(limits.answer_max) => {
                counters.refuse(Refusal::AnswerUntaken, origin, &Untaken);
            }
        }
    }
}

/// Reads the preface, for which the HTTP/2 implementation itself would wait without end.
async fn preface(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), HandshakeError> {
    let mut read = [0; PREFACE.len()];
    stream.read_exact(&mut read).await.map_err(HandshakeError::Broken)?;
    if read == *PREFACE { Ok(()) } else { Err(HandshakeError::Preface) }
}

async fn within<T>(
    limit: Duration,
    place: &Place,
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::select! {
        biased;
        outcome = timeout(limit, handshake) => outcome.unwrap_or(Err(HandshakeError::Deadline)),
        () = place.makes_way() => Err(HandshakeError::MadeWay),
    }
}

pub(crate) fn refuse(counters: &Counters, origin: Origin, error: &HandshakeError) {
    let refusal = match error {
        HandshakeError::Deadline => Refusal::HandshakeDeadline,
        HandshakeError::MadeWay => Refusal::MadeWay,
        HandshakeError::ForeignUser => Refusal::ForeignUser,
        HandshakeError::Unknown => Refusal::Unknown,
        _ => Refusal::HandshakeFailed,
    };
    counters.refuse(refusal, origin, error);
}

/// Shortens an age by up to a tenth. Multiples of the golden ratio lie evenly between 0 and 1, so that connections
/// made together end apart.
fn spread(age: Duration, connection: ConnectionId) -> Duration {
    let fraction = (connection.number().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u32;
    age - age / 10 / 256 * fraction
}
