//! The accept loop.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::admission::{Admission, Place};
use super::counters::REPORT_INTERVAL;
use super::{Counters, Origin, Refusal};

/// The first and the longest pause after the process ran out of descriptors or memory. An accept that fails so
/// leaves the connection in the queue and the listener readable, so that without a pause the loop would spin.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The limits that the accept loop itself keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AcceptLimits {
    pub(crate) connections_max: usize,
    pub(crate) connections_per_peer_max: usize,
    pub(crate) connections_per_network_max: usize,
    pub(crate) handshakes_max: usize,
    pub(crate) handshakes_per_peer_max: usize,
    pub(crate) handshake_stage_max: Duration,
    pub(crate) drain_max: Duration,
}

/// A connection that was given a place.
#[derive(Debug)]
pub(crate) struct Accepted<S> {
    pub(crate) stream: S,
    pub(crate) origin: Origin,
    pub(crate) place: Place,
    pub(crate) drain: Drain,
}

/// Tells a connection that the listener is closing.
#[derive(Debug, Clone)]
pub(crate) struct Drain(watch::Receiver<bool>);

impl Drain {
    /// Completes when the listener closes. Cancel safe.
    pub(crate) async fn begun(&mut self) {
        // An error means that the accept loop itself is gone, which is the same news.
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}

/// A socket that connections come from.
pub(crate) trait Listen {
    type Stream: Send + 'static;

    /// The next connection. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Origin)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Origin)> {
        let (stream, address) = Self::accept(self).await?;
        // Answers are small and complete: waiting to join them costs a thousandfold in calls a second.
        stream.set_nodelay(true)?;
        Ok((stream, Some(address)))
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Origin)> {
        let (stream, _) = Self::accept(self).await?;
        Ok((stream, None))
    }
}

/// Accepts connections and runs `connection` for each until `shutdown` completes. Then closes the listener, tells
/// the connections, waits for them as long as the drain lasts, cuts the rest and returns.
pub(crate) async fn accept_until<L, H, F>(
    listener: L,
    limits: AcceptLimits,
    counters: Arc<Counters>,
    shutdown: impl Future<Output = ()>,
    connection: H,
) where
    L: Listen,
    H: Fn(Accepted<L::Stream>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let admission = Admission::new(limits, Arc::clone(&counters));
    let (draining, drain) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut reports = interval(REPORT_INTERVAL);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pause = PAUSES.0;
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            _ = reports.tick() => {
                counters.report();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, origin)) => {
                pause = PAUSES.0;
                match admission.admit(origin) {
                    Ok(place) => {
                        let drain = Drain(drain.clone());
                        connections.spawn(connection(Accepted { stream, origin, place, drain }));
                    }
                    Err(refusal) => counters.refuse(refusal, origin, &Full),
                }
            }
            Err(error) if is_exhaustion(&error) => {
                counters.refuse(Refusal::Exhausted, None, &error);
                tokio::select! {
                    () = sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                    // A connection that closes gives its descriptor back.
                    Some(_) = connections.join_next() => {}
                    () = &mut shutdown => break,
                }
            }
            // The connection that was waiting is gone, and with it the error.
            Err(error) => counters.refuse(Refusal::HandshakeFailed, None, &error),
        }
    }
    drop(listener);
    let _ = draining.send(true);
    let drained = timeout(limits.drain_max, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            listener = counters.listener(),
            cut = connections.len(),
            "connections outlived the drain"
        );
        connections.shutdown().await;
    }
    counters.report();
}

/// A cap is reached.
#[derive(Debug, thiserror::Error)]
#[error("no place left")]
struct Full;

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
}
