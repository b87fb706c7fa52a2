//! The caps on connections. A place is taken before a connection's first byte is read and given back when it closes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::accept::AcceptLimits;
use super::{ConnectionId, Counters, Origin, Refusal, peer_of};

/// Who has how many connections on one listener.
#[derive(Debug)]
pub(super) struct Admission {
    limits: AcceptLimits,
    counters: Arc<Counters>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    last_id: u64,
    connections: usize,
    handshakes: usize,
    /// Only peers that have a connection, so that it is bounded as connections are.
    peers: HashMap<Option<IpAddr>, Share>,
}

/// What one peer has of a listener.
#[derive(Debug, Default)]
struct Share {
    connections: usize,
    handshakes: usize,
}

/// A connection's place. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    peer: Option<IpAddr>,
    id: ConnectionId,
    in_handshake: bool,
}

impl Admission {
    pub(super) fn new(limits: AcceptLimits, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { limits, counters, book: Mutex::default() })
    }

    /// Takes a place for a connection that begins its handshake.
    pub(super) fn admit(self: &Arc<Self>, origin: Origin) -> Result<Place, Refusal> {
        let peer = peer_of(origin);
        let mut book = self.book();
        // A peer that is silent in its handshakes takes no more of them than leaves room for others.
        let is_full = |share: &Share| {
            share.connections >= self.limits.connections_per_peer_max
                || share.handshakes >= self.limits.handshakes_per_peer_max
        };
        if book.peers.get(&peer).is_some_and(is_full) {
            return Err(Refusal::PeerFull);
        }
        if book.connections >= self.limits.connections_max {
            return Err(Refusal::ConnectionsFull);
        }
        if book.handshakes >= self.limits.handshakes_max {
            return Err(Refusal::HandshakesFull);
        }
        book.last_id += 1;
        book.connections += 1;
        book.handshakes += 1;
        let share = book.peers.entry(peer).or_default();
        share.connections += 1;
        share.handshakes += 1;
        self.counters.opened();
        let id = ConnectionId(book.last_id);
        Ok(Place { admission: Arc::clone(self), peer, id, in_handshake: true })
    }

    /// Each change of the book is complete before its guard is dropped, so that a poisoned one is still right.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(crate) const fn id(&self) -> ConnectionId {
        self.id
    }

    /// The handshake is complete: its place among the handshakes is free again.
    pub(crate) fn established(&mut self) {
        if std::mem::take(&mut self.in_handshake) {
            let mut book = self.admission.book();
            book.handshakes -= 1;
            if let Some(share) = book.peers.get_mut(&self.peer) {
                share.handshakes -= 1;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.established();
        let mut book = self.admission.book();
        book.connections -= 1;
        if let Entry::Occupied(mut share) = book.peers.entry(self.peer) {
            share.get_mut().connections -= 1;
            if share.get().connections == 0 {
                share.remove();
            }
        }
        self.admission.counters.closed();
    }
}
