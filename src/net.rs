//! The edge towards the network: who may connect, how many, for how long.
//!
//! A stock gRPC server waits for ever on a silent handshake, takes any number of them, spins when the process has
//! no descriptors left and never lets go of a connection. Everything a stranger can make this process do is bounded
//! here instead, before a byte of a request is read (invariants R1, R2): a deadline over the TLS handshake and the
//! HTTP/2 preface, a limit on the bytes read until then, caps on connections in all, per peer, per network and in
//! handshake, of which those that have shown the least make way for newcomers, a pause at exhaustion. What comes after is bounded by HTTP/2's own limits, by pings that find dead peers, and by
//! an age after which a connection is asked to close and then cut.
//!
//! The same loop serves TLS sockets, local sockets and the HTTP listener of [`crate::http`].

mod accept;
mod admission;
mod answers;
mod connection;
mod counters;
mod local;
mod stream;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use brevet_core::name::TenantName;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::runtime::Handle;

use crate::shares::Share;

pub(crate) use accept::{AcceptLimits, Accepted, Drain, accept_until};
pub(crate) use admission::Place;
pub use admission::Probation;
pub use answers::{Answers, Endless};
pub(crate) use connection::{HandshakeError, HandshakeLimits, drive, refuse};
pub use counters::{Counters, Refusal};
pub use local::{BindError, LocalListener};

/// The limits of one gRPC listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one peer: an IPv4 address or an IPv6 network of 64 bits. The local socket is one
    /// peer.
    pub connections_per_peer_max: usize,
    /// Connections at once from one network: an IPv4 network of 24 bits or an IPv6 network of 48 bits.
    pub connections_per_network_max: usize,
    /// Connections at once whose handshake is not complete. When there are as many, one of whoever has the most of
    /// them makes way for a newcomer.
    pub handshakes_max: usize,
    /// Connections at once from one peer whose handshake is not complete.
    pub handshakes_per_peer_max: usize,
    /// From accepting a connection to its TLS handshake and HTTP/2 preface being complete.
    pub handshake_max: Duration,
    /// How long a handshake takes from one stage to the next if it makes progress. Who takes longer makes way for others
    /// as one does that has said nothing.
    pub handshake_stage_max: Duration,
    /// Bytes that a client may send in its handshake.
    pub handshake_bytes_max: usize,
    /// How long a client whose handshake was refused may take to hear why.
    pub handshake_refused_max: Duration,
    /// From a complete handshake to its caller being known, by a certificate or by a call that shows a token.
    pub probation_max: Duration,
    /// Bytes that a client may send in a second, and at once beyond that; what is more waits unread.
    pub bytes_per_second_max: NonZeroU32,
    /// How long a connection is used at most. It is shortened by up to a tenth, differently for each connection,
    /// so that the clients of a restarted daemon don't all come back at once.
    pub connection_age_max: Duration,
    /// How long calls may go on after the client was told that its connection is too old.
    pub connection_grace: Duration,
    /// How long calls may go on after the daemon was told to stop.
    pub drain_max: Duration,
    /// Calls at once on one connection.
    pub streams_max: u32,
    /// Header fields of one request, in bytes as HTTP/2 counts them (RFC 9113 section 6.5.2).
    pub header_list_bytes_max: u32,
    /// Bytes that a client may send on one call before they are read.
    pub stream_window_bytes: u32,
    /// Bytes that a client may send on all calls of a connection before they are read.
    pub connection_window_bytes: u32,
    /// Bytes of answers kept for one call until the client takes them.
    pub send_buffer_bytes_max: usize,
    /// Calls that the client opened and reset before they were taken up, and likewise calls reset for the client's
    /// errors: more of either ends the connection (rapid reset, CVE-2023-44487 and CVE-2025-8671).
    pub reset_streams_max: usize,
    /// How long a client may take to take an answer, or a part of one that goes on; it is cut within twice that time.
    pub answer_max: Duration,
    /// How often a client is pinged.
    pub keepalive_interval: Duration,
    /// How long a client may take to answer a ping.
    pub keepalive_timeout: Duration,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_peer_max: 512,
            connections_per_network_max: 2_048,
            handshakes_max: 256,
            handshakes_per_peer_max: 64,
            handshake_max: Duration::from_secs(5),
            handshake_stage_max: Duration::from_millis(100),
            // Two certificate chains of a hundred fit.
            handshake_bytes_max: 64 * 1024,
            handshake_refused_max: Duration::from_secs(1),
            probation_max: Duration::from_secs(10),
            bytes_per_second_max: NonZeroU32::MIN.saturating_add(8 * 1024 * 1024 - 1),
            connection_age_max: Duration::from_secs(900),
            connection_grace: Duration::from_secs(30),
            drain_max: Duration::from_secs(5),
            streams_max: 128,
            header_list_bytes_max: 16 * 1024,
            stream_window_bytes: 128 * 1024,
            connection_window_bytes: 256 * 1024,
            send_buffer_bytes_max: 128 * 1024,
            reset_streams_max: 20,
            answer_max: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

impl NetLimits {
    pub(crate) fn accept(&self) -> AcceptLimits {
        AcceptLimits {
            connections_max: self.connections_max,
            connections_per_peer_max: self.connections_per_peer_max,
            connections_per_network_max: self.connections_per_network_max,
            // Beyond half of the places one that has shown nothing makes way; nothing else would when all are taken.
            handshakes_max: self.handshakes_max.min(self.connections_max.div_ceil(2)),
            handshakes_per_peer_max: self
                .handshakes_per_peer_max
                .min(self.connections_per_peer_max.div_ceil(2)),
            handshake_stage_max: self.handshake_stage_max,
            drain_max: self.drain_max,
        }
    }

    pub(crate) const fn handshake(&self) -> HandshakeLimits {
        HandshakeLimits {
            bytes_max: self.handshake_bytes_max,
            refused_max: self.handshake_refused_max,
            bytes_per_second_max: self.bytes_per_second_max,
        }
    }
}

/// The TLS configuration that the next handshake uses. It must offer ALPN `h2` for gRPC.
pub type TlsConfig = Arc<ArcSwap<ServerConfig>>;

/// The number of a connection, unique in its listener while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The number itself.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Who is at the other end of a TLS connection. The handshake proved the key of the first certificate, nothing else
/// is known of it yet.
#[derive(Debug, Clone)]
pub struct TlsPeer {
    /// The certificates the client sent, its own first; none if it sent none.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// The connection.
    pub connection: ConnectionId,
    /// To be passed when the caller is known: until then the connection is nobody's, makes way for others, and ends soon.
    pub probation: Probation,
}

/// Who is at the other end of a connection on the local socket: the daemon's own user or root.
#[derive(Debug, Clone, Copy)]
pub struct LocalPeer {
    /// The user that connected.
    pub uid: u32,
}

/// Threads that serve a connection instead of those that accepted it.
#[derive(Debug)]
pub struct Lane {
    /// The threads.
    pub runtime: Handle,
    /// What it takes up there, where there is little room.
    pub room: Option<Room>,
}

/// What a connection takes up of threads that have little room.
#[derive(Debug)]
pub struct Room {
    /// Bytes that the client may send there in a second, and at once beyond that; what is more waits unread.
    pub bytes_per_second_max: NonZeroU32,
    /// One of the caller's and one of its tenant's connections there, for as long as it is served.
    pub places: (Share, Share<TenantName>),
}

/// Marks the requests of a connection whose threads are kept for few: the local root socket's, and those with little room.
#[derive(Debug, Clone, Copy)]
pub struct ReservedThreads;

/// What becomes of a new connection.
#[derive(Debug)]
pub struct Admitted<C> {
    /// Each request on the connection carries a clone of this among its extensions.
    pub extension: C,
    /// How long the connection may be used: the rest of its certificate's life. The listener's own limit applies
    /// besides. Zero closes the connection before its first call, so that a peer whose calls are to be refused one
    /// by one, with a status, needs more.
    pub age_max: Duration,
    /// Where it is served, if not where it was accepted.
    pub lane: Option<Lane>,
}

/// gRPC services and the limits under which they are reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The services; a tonic `Routes` turns into one.
    pub routes: Router,
    /// The limits of this listener.
    pub limits: NetLimits,
    /// What the listener counts.
    pub counters: Arc<Counters>,
}

impl Endpoint {
    /// Serves HTTP/2 over TLS until `shutdown` completes, lets running calls go on for the drain time and returns.
    ///
    /// `admit` is called once for each connection, on the threads that accept it, so that an identity is verified once
    /// and not for each call.
    pub async fn serve_tls<C, A>(
        self,
        listener: TcpListener,
        tls: TlsConfig,
        admit: A,
        shutdown: impl Future<Output = ()>,
    ) where
        C: Clone + Send + Sync + 'static,
        A: Fn(TlsPeer) -> Admitted<C> + Send + Sync + 'static,
    {
        let Self { routes, limits, counters } = self;
        let (routes, admit) = (routes.with_state(()), Arc::new(admit));
        let connection = {
            let counters = Arc::clone(&counters);
            move |accepted: Accepted<TcpStream>| {
                let (tls, admit) = (tls.load_full(), Arc::clone(&admit));
                let (routes, counters) = (routes.clone(), Arc::clone(&counters));
                async move { connection::serve_tls(accepted, tls, routes, limits, counters, &*admit).await }
            }
        };
        accept_until(listener, limits.accept(), counters, shutdown, connection).await;
    }

    /// Serves HTTP/2 in the clear on the local socket until `shutdown` completes, as [`Endpoint::serve_tls`] does.
    /// A peer that is neither the daemon's own user nor root is refused.
    pub async fn serve_local<C, A>(
        self,
        listener: LocalListener,
        admit: A,
        shutdown: impl Future<Output = ()>,
    ) where
        C: Clone + Send + Sync + 'static,
        A: Fn(LocalPeer) -> C + Send + Sync + 'static,
    {
        let Self { routes, limits, counters } = self;
        let (routes, admit) = (routes.with_state(()), Arc::new(admit));
        let connection = {
            let counters = Arc::clone(&counters);
            move |accepted: Accepted<UnixStream>| {
                let (admit, routes, counters) = (Arc::clone(&admit), routes.clone(), Arc::clone(&counters));
                async move { connection::serve_local(accepted, routes, limits, counters, &*admit).await }
            }
        };
        accept_until(listener.into_inner(), limits.accept(), counters, shutdown, connection).await;
    }
}

/// Connections that wait to be accepted; the system may have a smaller bound.
const BACKLOG: u32 = 1_024;

/// Listens. The threads in whose context this is called wait for connections.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // What is left of the last daemon's connections does not keep the next one from starting.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Where a connection comes from, as far as caps and logs need it. The local socket has no address.
pub(crate) type Origin = Option<SocketAddr>;

/// The unit that the cap per peer counts: a provider hands out IPv6 addresses by networks of 64 bits.
fn peer_of(origin: Origin) -> Option<IpAddr> {
    match origin?.ip().to_canonical() {
        IpAddr::V6(address) => Some(IpAddr::V6((u128::from(address) >> 64 << 64).into())),
        address => Some(address),
    }
}

/// The unit that the cap per network counts: what one party can easily have many addresses of.
fn network_of(peer: Option<IpAddr>) -> Option<IpAddr> {
    Some(match peer? {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) >> 8 << 8).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 80 << 80).into()),
    })
}

#[cfg(test)]
pub(crate) mod tests;
