//! The caps on connections. A place is taken before a connection's first byte is read and given back when it closes.
//!
//! A handshake costs a stranger nothing, so its place is not the stranger's to keep: when the handshakes are full, one
//! of them makes way for the newcomer. Those that are idle go first, of whoever has the most of them: they have not sent
//! their ClientHello, or not come further for a while. Of the others none goes for a newcomer from a network that holds as
//! many itself, so that clients of one network that all come back at once do not undo each other's handshakes.
//!
//! Where callers may show a token instead of a certificate, a complete handshake says nothing of who is there. So a
//! connection counts among the handshakes until its caller is known: it is on probation.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brevet_core::sabotage;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::accept::AcceptLimits;
use super::{ConnectionId, Counters, Origin, Refusal, network_of, peer_of};
use crate::clock::since_boot;

/// Who has how many connections on one listener.
#[derive(Debug)]
pub(super) struct Admission {
    limits: AcceptLimits,
    counters: Arc<Counters>,
    /// The time since boot.
    clock: fn() -> Duration,
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
    /// The time since boot at which it came so far.
    since: Duration,
    /// Told when it is to make way.
    make_way: Arc<Notify>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its ClientHello has not come.
    Silent,
    /// It has.
    Begun,
    /// The handshake is complete.
    Complete,
}

impl Handshake {
    fn is_idle(&self, now: Duration, stage_max: Duration) -> bool {
        self.stage == Stage::Silent || now.saturating_sub(self.since) > stage_max
    }
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
    /// Of those, the ones whose caller is not known.
    unknown: usize,
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
    /// The time since boot until which the caller is known, in milliseconds; zero if it never was.
    known_until: Arc<AtomicU64>,
}

impl Probation {
    /// The caller is known for this long: the place is the connection's own from now on, and as long as that lasts.
    pub fn pass(&self, time: Duration) {
        let until = millis((self.admission.clock)().saturating_add(time));
        if self.known_until.fetch_max(until, Ordering::Relaxed) == 0 {
            self.admission.book().end_handshake(self.id.0);
        }
    }

    /// Whether the caller has never been known.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.known_until.load(Ordering::Relaxed) == 0
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Admission {
    pub(super) fn new(limits: AcceptLimits, counters: Arc<Counters>) -> Arc<Self> {
        Self::by(since_boot, limits, counters)
    }

    pub(super) fn by(clock: fn() -> Duration, limits: AcceptLimits, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { limits, counters, clock, book: Mutex::default() })
    }

    /// Takes a place for a connection that begins its handshake. It costs at most a look at each handshake.
    pub(super) fn admit(self: &Arc<Self>, origin: Origin) -> Result<Place, Refusal> {
        let peer = peer_of(origin);
        let whence = Whence { peer, network: network_of(peer) };
        let since = (self.clock)();
        let mut book = self.book();
        book.has_room(&self.limits, whence)?;
        if let Some(last) = book.who_makes_way(&self.limits, whence, since)? {
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
            share.unknown += 1;
        });
        let (id, make_way) = (book.last_id, Arc::new(Notify::new()));
        let handshake = Handshake { whence, stage: Stage::Silent, since, make_way: Arc::clone(&make_way) };
        book.handshakes.insert(id, handshake);
        self.counters.opened();
        let (admission, id) = (Arc::clone(self), ConnectionId(id));
        let probation = Probation { admission, id, known_until: Arc::default() };
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
    fn who_makes_way(
        &self,
        limits: &AcceptLimits,
        whence: Whence,
        now: Duration,
    ) -> Result<Option<u64>, Refusal> {
        let stage_max = limits.handshake_stage_max;
        let idle = || self.handshakes.iter().filter(|(_, handshake)| handshake.is_idle(now, stage_max));
        if self.peers.get(&whence.peer).map_or(0, |share| share.unknown) >= limits.handshakes_per_peer_max {
            let mut own = idle().filter(|(_, handshake)| handshake.whence.peer == whence.peer);
            return own.next().map(|(id, _)| Some(*id)).ok_or(Refusal::PeerFull);
        }
        if self.handshakes.len() < limits.handshakes_max {
            return Ok(None);
        }
        // 1. The oldest idle one of the network that has the most of them.
        let mut by_network = BTreeMap::new();
        for (id, handshake) in idle() {
            by_network.entry(handshake.whence.network).or_insert((0, Reverse(*id))).0 += 1;
        }
        if let Some((_, Reverse(id))) = by_network.into_values().max() {
            return Ok(Some(id));
        }
        // 2. Of the network that holds the most, if the newcomer's holds fewer, one whose handshake is complete before one
        // that goes on: the first thing that a caller does is to call.
        let held = |network: &Option<IpAddr>| self.networks.get(network).map_or(0, |share| share.unknown);
        let networks = self.handshakes.values().map(|handshake| handshake.whence.network);
        let crowd =
            networks.max_by_key(|network| held(network)).filter(|crowd| held(crowd) > held(&whence.network));
        let crowd = crowd.ok_or(Refusal::HandshakesFull)?;
        let of_crowd = || self.handshakes.iter().filter(|(_, handshake)| handshake.whence.network == crowd);
        let complete = of_crowd().find(|(_, handshake)| handshake.stage == Stage::Complete);
        complete.or_else(|| of_crowd().next()).map(|(id, _)| Some(*id)).ok_or(Refusal::HandshakesFull)
    }

    /// A handshake has come further.
    fn advance(&mut self, id: u64, stage: Stage, now: Duration) {
        if let Some(handshake) = self.handshakes.get_mut(&id) {
            (handshake.stage, handshake.since) = (stage, now);
        }
    }

    /// A handshake is complete, over, or has to make way: its place is free at once.
    fn end_handshake(&mut self, id: u64) -> Option<Handshake> {
        let ended = self.handshakes.remove(&id)?;
        self.share(ended.whence, |share| share.unknown = share.unknown.saturating_sub(1));
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
        Entry::Vacant(none) => {
            let mut share = Share::default();
            change(&mut share);
            // One that is known too late, when its connection is gone already, begins none.
            if share.connections > 0 {
                none.insert(share);
            }
        }
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
        self.advance(Stage::Begun);
    }

    /// The handshake is complete.
    pub(crate) fn complete(&self) {
        self.advance(Stage::Complete);
    }

    fn advance(&self, stage: Stage) {
        let Probation { admission, id, .. } = &self.probation;
        admission.book().advance(id.0, stage, (admission.clock)());
    }

    /// Completes when the connection has to make way for another.
    pub(crate) fn makes_way(&self) -> impl Future<Output = ()> + Send + use<> {
        let make_way = Arc::clone(&self.make_way);
        async move { make_way.notified().await }
    }

    /// Completes when the caller has not been known for so long.
    pub(crate) fn unknown_for(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (clock, known_until) = (self.probation.admission.clock, Arc::clone(&self.probation.known_until));
        let begun = clock();
        async move {
            loop {
                let known = Duration::from_millis(known_until.load(Ordering::Relaxed));
                let end = begun.max(known).saturating_add(time);
                let left = end.saturating_sub(clock());
                if left.is_zero() && !sabotage::on("nobody_is_unknown") {
                    return;
                }
                sleep(left.max(Duration::from_millis(1))).await;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.probation.pass(Duration::ZERO);
        let mut book = self.probation.admission.book();
        book.connections -= 1;
        book.share(self.whence, |share| share.connections = share.connections.saturating_sub(1));
        self.probation.admission.counters.closed();
    }
}
