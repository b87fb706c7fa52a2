//! The caps on connections. A place is taken before a connection's first byte is read and given back when it closes.
//!
//! A handshake costs a stranger nothing, so its place is not the stranger's to keep: when the handshakes are full, one
//! of them makes way for the newcomer, and whoever holds the most loses first. One that has not even sent its
//! ClientHello goes before any other. Of those that have, none goes for a newcomer from a network that holds as many
//! itself, so that clients of one network that all come back at once do not undo each other's handshakes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brevet_core::sabotage;
use tokio::sync::Notify;

use super::accept::AcceptLimits;
use super::{ConnectionId, Counters, Origin, Refusal, network_of, peer_of};

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
    /// The handshakes that are not complete, oldest first.
    handshakes: BTreeMap<u64, Handshake>,
    /// Only peers that have a connection, so that it is bounded as connections are.
    peers: HashMap<Option<IpAddr>, Share>,
    /// Likewise.
    networks: HashMap<Option<IpAddr>, Share>,
}

/// A handshake that is not complete.
#[derive(Debug)]
struct Handshake {
    whence: Whence,
    /// Whether its ClientHello has come.
    has_begun: bool,
    /// Told when it is to make way.
    make_way: Arc<Notify>,
}

/// Where a connection comes from. The local socket is one peer and one network.
#[derive(Debug, Clone, Copy)]
struct Whence {
    peer: Option<IpAddr>,
    network: Option<IpAddr>,
}

/// What one peer or network has of a listener.
#[derive(Debug, Default)]
struct Share {
    connections: usize,
    /// Handshakes whose ClientHello has not come.
    silent: usize,
    /// Handshakes whose ClientHello has come.
    begun: usize,
}

/// A connection's place. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    whence: Whence,
    id: ConnectionId,
    make_way: Arc<Notify>,
}

impl Admission {
    pub(super) fn new(limits: AcceptLimits, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { limits, counters, book: Mutex::default() })
    }

    /// Takes a place for a connection that begins its handshake. It costs at most a look at each handshake.
    pub(super) fn admit(self: &Arc<Self>, origin: Origin) -> Result<Place, Refusal> {
        let peer = peer_of(origin);
        let whence = Whence { peer, network: network_of(peer) };
        let mut book = self.book();
        book.has_room(&self.limits, whence)?;
        if let Some(last) = book.who_makes_way(&self.limits, whence)? {
            if sabotage::on("silence_keeps_its_place") {
                return Err(Refusal::HandshakesFull);
            }
            book.end_handshake(last);
        }
        book.last_id += 1;
        book.connections += 1;
        book.share(whence, |share| {
            share.connections += 1;
            share.silent += 1;
        });
        let (id, make_way) = (book.last_id, Arc::new(Notify::new()));
        let handshake = Handshake { whence, has_begun: false, make_way: Arc::clone(&make_way) };
        book.handshakes.insert(id, handshake);
        self.counters.opened();
        Ok(Place { admission: Arc::clone(self), whence, id: ConnectionId(id), make_way })
    }

    /// Each change of the book is complete before its guard is dropped, so that a poisoned one is still right.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn has_room(&self, limits: &AcceptLimits, whence: Whence) -> Result<(), Refusal> {
        let connections = |share: Option<&Share>| share.map_or(0, |share| share.connections);
        if connections(self.peers.get(&whence.peer)) >= limits.connections_per_peer_max {
            return Err(Refusal::PeerFull);
        }
        if connections(self.networks.get(&whence.network)) >= limits.connections_per_network_max {
            return Err(Refusal::NetworkFull);
        }
        if self.connections >= limits.connections_max { Err(Refusal::ConnectionsFull) } else { Ok(()) }
    }

    /// Which handshake makes way for a newcomer, if one has to.
    fn who_makes_way(&self, limits: &AcceptLimits, whence: Whence) -> Result<Option<u64>, Refusal> {
        let (mut silent, mut begun) = (Longest::default(), Longest::default());
        let of_peer = self.peers.get(&whence.peer).map_or(0, |share| share.silent + share.begun);
        if of_peer >= limits.handshakes_per_peer_max {
            for (id, handshake) in &self.handshakes {
                if handshake.whence.peer == whence.peer && !handshake.has_begun {
                    silent.look(*id, 1);
                }
            }
            return silent.id.map(Some).ok_or(Refusal::PeerFull);
        }
        if self.handshakes.len() < limits.handshakes_max {
            return Ok(None);
        }
        for (id, handshake) in &self.handshakes {
            let Some(share) = self.networks.get(&handshake.whence.network) else { continue };
            if handshake.has_begun {
                begun.look(*id, share.begun);
            } else {
                silent.look(*id, share.silent);
            }
        }
        let own = self.networks.get(&whence.network).map_or(0, |share| share.begun);
        let begun = begun.id.filter(|_| begun.held > own);
        silent.id.or(begun).map(Some).ok_or(Refusal::HandshakesFull)
    }

    /// A handshake is complete, over, or told to make way: its place is free at once.
    fn end_handshake(&mut self, id: u64) {
        let Some(Handshake { whence, has_begun, make_way }) = self.handshakes.remove(&id) else { return };
        self.share(whence, |share| {
            if has_begun {
                share.begun = share.begun.saturating_sub(1);
            } else {
                share.silent = share.silent.saturating_sub(1);
            }
        });
        make_way.notify_one();
    }

    fn share(&mut self, whence: Whence, change: impl Fn(&mut Share)) {
        change_share(&mut self.peers, whence.peer, &change);
        change_share(&mut self.networks, whence.network, &change);
    }
}

/// Changes a share, and forgets it when nothing is left of it.
fn change_share<K: Hash + Eq>(shares: &mut HashMap<K, Share>, key: K, change: impl Fn(&mut Share)) {
    match shares.entry(key) {
        Entry::Vacant(none) => change(none.insert(Share::default())),
        Entry::Occupied(mut share) => {
            change(share.get_mut());
            if share.get().connections == 0 {
                share.remove();
            }
        }
    }
}

/// The oldest handshake of whoever holds the most.
#[derive(Debug, Default)]
struct Longest {
    id: Option<u64>,
    held: usize,
}

impl Longest {
    /// Looks at the next younger one.
    const fn look(&mut self, id: u64, held: usize) {
        if held > self.held {
            *self = Self { id: Some(id), held };
        }
    }
}

impl Place {
    pub(crate) const fn id(&self) -> ConnectionId {
        self.id
    }

    /// The client has sent its ClientHello.
    pub(crate) fn begun(&self) {
        let mut book = self.admission.book();
        let Some(handshake) = book.handshakes.get_mut(&self.id.0) else { return };
        if !std::mem::replace(&mut handshake.has_begun, true) {
            book.share(self.whence, |share| {
                share.silent = share.silent.saturating_sub(1);
                share.begun += 1;
            });
        }
    }

    /// The handshake is complete: its place among the handshakes is free again.
    pub(crate) fn established(&self) {
        self.admission.book().end_handshake(self.id.0);
    }

    /// Completes when the handshake has to make way for another.
    pub(crate) fn makes_way(&self) -> impl Future<Output = ()> + Send + use<> {
        let make_way = Arc::clone(&self.make_way);
        async move { make_way.notified().await }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.established();
        let mut book = self.admission.book();
        book.connections -= 1;
        book.share(self.whence, |share| share.connections = share.connections.saturating_sub(1));
        self.admission.counters.closed();
    }
}
