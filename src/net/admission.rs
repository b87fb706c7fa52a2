//! The caps on connections. A place is taken before a connection's first byte is read and given back when it closes.
//!
//! A handshake costs a stranger nothing, so its place is not the stranger's to keep: when the handshakes are full, one
//! of them makes way for the newcomer, and whoever holds the most loses first. One that has not even sent its
//! ClientHello goes before any other. Of those that have, none goes for a newcomer from a network that holds as many
//! itself, so that clients of one network that all come back at once do not undo each other's handshakes.
//!
//! Where callers may show a token instead of a certificate, a complete handshake says nothing of who is there. So a
//! connection counts among the handshakes until its caller is known: it is on probation, and makes way before those whose
//! handshake goes on, for the first thing that a caller does is to call.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brevet_core::sabotage;
use tokio::sync::Notify;
use tokio::time::sleep;

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
    /// The handshakes that are not complete and the connections whose caller is not known, oldest first.
    handshakes: BTreeMap<u64, Handshake>,
    /// Only peers that have a connection, so that it is bounded as connections are.
    peers: HashMap<Option<IpAddr>, Share>,
    /// Likewise.
    networks: HashMap<Option<IpAddr>, Share>,
}

/// A handshake that is not complete, or a connection whose caller is not known.
#[derive(Debug)]
struct Handshake {
    whence: Whence,
    stage: Stage,
    /// Told when it is to make way.
    make_way: Arc<Notify>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum Stage {
    /// Its ClientHello has not come.
    Silent,
    /// It has.
    Begun,
    /// The handshake is complete.
    Unknown,
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
    /// Of those, the ones whose caller is not known, by their stage.
    unknown: [usize; 3],
}

impl Share {
    fn at(&self, stage: Stage) -> usize {
        self.unknown.get(stage as usize).copied().unwrap_or(0)
    }

    fn enter(&mut self, stage: Stage) {
        if let Some(count) = self.unknown.get_mut(stage as usize) {
            *count = count.saturating_add(1);
        }
    }

    fn leave(&mut self, stage: Stage) {
        if let Some(count) = self.unknown.get_mut(stage as usize) {
            *count = count.saturating_sub(1);
        }
    }
}

/// A connection's place. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    whence: Whence,
    probation: Probation,
    make_way: Arc<Notify>,
}

/// The time until a connection's caller is known, in which its place is not its own.
#[derive(Debug, Clone)]
pub struct Probation {
    admission: Arc<Admission>,
    id: ConnectionId,
    is_over: Arc<AtomicBool>,
}

impl Probation {
    /// The caller is known: the place is the connection's own from now on.
    pub fn pass(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.admission.book().end_handshake(self.id.0);
        }
    }
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
            if let Some(handshake) = book.end_handshake(last) {
                handshake.make_way.notify_one();
            }
        }
        book.last_id += 1;
        book.connections += 1;
        book.share(whence, |share| {
            share.connections += 1;
            share.enter(Stage::Silent);
        });
        let (id, make_way) = (book.last_id, Arc::new(Notify::new()));
        let handshake = Handshake { whence, stage: Stage::Silent, make_way: Arc::clone(&make_way) };
        book.handshakes.insert(id, handshake);
        self.counters.opened();
        let (admission, id) = (Arc::clone(self), ConnectionId(id));
        let probation = Probation { admission, id, is_over: Arc::default() };
        Ok(Place { whence, probation, make_way })
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
        let of_peer = self.peers.get(&whence.peer);
        if of_peer.map_or(0, |share| share.unknown.iter().sum()) >= limits.handshakes_per_peer_max {
            let own = |handshake: &Handshake| usize::from(handshake.whence.peer == whence.peer);
            let oldest = |stage| self.longest(stage, own).map(|(id, _)| id);
            let last = oldest(Stage::Silent).or_else(|| oldest(Stage::Unknown));
            return last.map(Some).ok_or(Refusal::PeerFull);
        }
        if self.handshakes.len() < limits.handshakes_max {
            return Ok(None);
        }
        let most = |stage| {
            let held = |handshake: &Handshake| {
                self.networks.get(&handshake.whence.network).map_or(0, |share| share.at(stage))
            };
            self.longest(stage, held)
        };
        let own = self.networks.get(&whence.network).map_or(0, |share| share.at(Stage::Begun));
        let last = most(Stage::Silent)
            .or_else(|| most(Stage::Unknown))
            .or_else(|| most(Stage::Begun).filter(|(_, held)| *held > own));
        last.map(|(id, _)| Some(id)).ok_or(Refusal::HandshakesFull)
    }

    /// The oldest at a stage of whoever holds the most, and how much that is.
    fn longest(&self, stage: Stage, held: impl Fn(&Handshake) -> usize) -> Option<(u64, usize)> {
        let at_stage = self.handshakes.iter().filter(|(_, handshake)| handshake.stage == stage);
        at_stage
            .map(|(id, handshake)| (*id, held(handshake)))
            .filter(|(_, held)| *held > 0)
            .fold(None, |longest, it| longest.filter(|(_, held)| *held >= it.1).or(Some(it)))
    }

    /// A handshake has come further.
    fn advance(&mut self, id: u64, stage: Stage) {
        let Some(handshake) = self.handshakes.get_mut(&id) else { return };
        let (before, whence) = (std::mem::replace(&mut handshake.stage, stage), handshake.whence);
        self.share(whence, |share| {
            share.leave(before);
            share.enter(stage);
        });
    }

    /// A handshake is complete, over, or has to make way: its place is free at once.
    fn end_handshake(&mut self, id: u64) -> Option<Handshake> {
        let ended = self.handshakes.remove(&id)?;
        self.share(ended.whence, |share| share.leave(ended.stage));
        Some(ended)
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

impl Place {
    pub(crate) const fn id(&self) -> ConnectionId {
        self.probation.id
    }

    /// What ends when the caller is known.
    pub(crate) fn probation(&self) -> Probation {
        self.probation.clone()
    }

    /// The client has sent its ClientHello.
    pub(crate) fn begun(&self) {
        self.probation.admission.book().advance(self.id().0, Stage::Begun);
    }

    /// The handshake is complete.
    pub(crate) fn complete(&self) {
        self.probation.admission.book().advance(self.id().0, Stage::Unknown);
    }

    /// Completes when the connection has to make way for another.
    pub(crate) fn makes_way(&self) -> impl Future<Output = ()> + Send + use<> {
        let make_way = Arc::clone(&self.make_way);
        async move { make_way.notified().await }
    }

    /// Completes if the caller is not known by then.
    pub(crate) fn unknown_after(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        let is_over = Arc::clone(&self.probation.is_over);
        async move {
            sleep(time).await;
            if is_over.load(Ordering::Relaxed) || sabotage::on("nobody_is_unknown") {
                std::future::pending().await
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.probation.pass();
        let mut book = self.probation.admission.book();
        book.connections -= 1;
        book.share(self.whence, |share| share.connections = share.connections.saturating_sub(1));
        self.probation.admission.counters.closed();
    }
}
