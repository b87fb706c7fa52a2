//! The door: who comes in, with which key, and what a refusal leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use brevet_core::digest::{ClaimDigest, Thumbprint};
use brevet_core::fact::{DeniedOperation, Fact, ReasonCode};
use brevet_core::id::RootTaskId;
use brevet_core::name::RequestId;
use brevet_core::proof::Caller;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use brevet_identity::dpop;
use tonic::{Request, Response, Status};
use tracing::debug;

use super::peer::Peer;
use super::status;
use crate::broker::{Broker, Kind, MinuteBudget, Possession, Refusal};

/// What every service shares.
#[derive(Clone)]
pub struct Door {
    /// The broker.
    pub(super) broker: Arc<Broker>,
    proofs: Arc<Mutex<ProofMemory>>,
    strangers: Arc<MinuteBudget<()>>,
    url: Arc<str>,
}

/// What a method was asked, for the record of a refusal.
pub(super) struct Asked {
    pub(super) method: &'static str,
    pub(super) tree: Option<RootTaskId>,
    pub(super) request_id: Option<RequestId>,
}

impl Asked {
    pub(super) const fn method(method: &'static str) -> Self {
        Self { method, tree: None, request_id: None }
    }

    pub(super) fn by(mut self, request_id: &str) -> Self {
        self.request_id = RequestId::parse(request_id).ok();
        self
    }

    pub(super) fn of(mut self, task: &str) -> Self {
        self.tree = brevet_core::id::TaskId::from_name(task).ok().map(|task| task.root());
        self
    }
}

impl Door {
    pub(super) fn new(broker: Arc<Broker>, proofs: ProofMemory, url: String) -> Self {
        let strangers = Arc::new(MinuteBudget::new(broker.limits.strangers_recorded_per_minute_max));
        Self { broker, proofs: Arc::new(Mutex::new(proofs)), strangers, url: url.into() }
    }

    /// The verified caller of a request. Whoever is none learns nothing but that.
    pub(super) fn caller<T>(
        &self,
        request: &Request<T>,
        method: &'static str,
    ) -> Result<Arc<Caller>, Status> {
        self.known(request.extensions().get::<Peer>(), method)
    }

    /// The verified caller at the other end of a connection.
    pub(super) fn known(&self, peer: Option<&Peer>, method: &str) -> Result<Arc<Caller>, Status> {
        let now = self.broker.clock.now().judge;
        peer.map_or(Err("no_connection"), |peer| peer.caller(now)).map_err(|reason| {
            self.stranger(method, reason, now);
            status::unauthenticated()
        })
    }

    /// Answers, and records what was refused.
    pub(super) fn answer<T>(
        &self,
        caller: &Caller,
        asked: &Asked,
        outcome: Result<T, Refusal>,
    ) -> Result<Response<T>, Status> {
        outcome.map(Response::new).map_err(|refusal| {
            let operation = DeniedOperation::Method(asked.method.to_owned());
            let request_id = asked.request_id.as_ref();
            match self.broker.refuse(caller, operation, asked.tree, request_id, &refusal) {
                Ok(()) => status::of(&refusal),
                Err(unrecorded) => status::of(&unrecorded),
            }
        })
    }

    /// What the caller has proven of the key that its task is bound to: the connection's own key by the handshake, or
    /// another by a DPoP proof, which the connection then remembers (RFC 9449).
    pub(super) fn possession(
        &self,
        peer: Option<&Peer>,
        caller: &Caller,
        proof: Option<&str>,
        claim: Option<&str>,
        method: &str,
    ) -> Result<Possession, Refusal> {
        let claim = claim.map(|claim| ClaimDigest::of(&[claim.as_bytes()]));
        let certificate = (caller.key(), caller.certificate());
        let Some(proof) = proof else {
            let proven = peer.map(Peer::proven).unwrap_or_default();
            return Ok(Possession { offered: caller.key(), proven, certificate, claim });
        };
        let refused = |reason: &'static str| {
            Refusal::new(Kind::Unauthenticated, reason, "the proof of possession is not accepted")
        };
        let now = self.broker.clock.now().judge;
        let url = format!("{}/{method}", self.url);
        let target = dpop::Target { method: "POST", url: &url, access_token: None, nonce: None };
        let limits = dpop::Limits::default();
        let proven = dpop::verify(proof, &target, now, limits).map_err(|error| refused(error.reason()))?;
        // What was accepted before a restart is forgotten, so what was made before it is not accepted after.
        if proven.issued_at <= self.broker.started_at {
            return Err(refused("dpop_iat"));
        }
        let ends = proven.issued_at.after(limits.age_max).after(limits.skew_max);
        let known = peer.is_some_and(|peer| peer.proven().contains(&proven.thumbprint));
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        match proofs.remember(caller.spiffe_id(), (proven.thumbprint, proven.jti), ends, now) {
            Remembered::New => {}
            // A retry over the connection that has proven the key is no replay.
            Remembered::Before if known => {}
            Remembered::Before => return Err(refused("proof_replayed")),
            Remembered::Full => {
                return Err(Refusal::new(Kind::Exhausted, "proofs_remembered_max", "too many proofs"));
            }
        }
        if let Some(peer) = peer {
            peer.remember(proven.thumbprint);
        }
        // Who offers a key means that key, whatever else the connection has proven.
        Ok(Possession { offered: proven.thumbprint, proven: Vec::new(), certificate, claim })
    }

    /// Records some refusals of strangers and counts all, so that nobody can fill the disk (invariant U1).
    fn stranger(&self, method: &str, reason: &'static str, now: Timestamp) {
        debug!(method, reason, "a stranger was refused");
        self.broker.metrics.refused_stranger();
        if !self.strangers.spend((), now) {
            return;
        }
        let operation = DeniedOperation::Method(method.to_owned());
        // It is a sample; a journal that is too busy for it has the count.
        let _sampled = self.broker.note(&Fact::Denied { operation, reason: ReasonCode::of(reason) });
    }
}

/// DPoP proofs that were accepted and could still pass, so that none is taken twice.
#[derive(Debug)]
pub struct ProofMemory {
    seen: BTreeSet<(Thumbprint, String)>,
    ends: BTreeMap<(Timestamp, u64), (SpiffeId, (Thumbprint, String))>,
    by_caller: BTreeMap<SpiffeId, usize>,
    count: u64,
    max: usize,
    max_per_caller: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Remembered {
    New,
    Before,
    Full,
}

impl ProofMemory {
    /// A memory of at most so many proofs, and of at most so many of one caller.
    #[must_use]
    pub fn new(max: NonZeroU32, max_per_caller: NonZeroU32) -> Self {
        let count = |max: NonZeroU32| usize::try_from(max.get()).unwrap_or(usize::MAX);
        Self {
            seen: BTreeSet::new(),
            ends: BTreeMap::new(),
            by_caller: BTreeMap::new(),
            count: 0,
            max: count(max),
            max_per_caller: count(max_per_caller),
        }
    }

    fn remember(
        &mut self,
        caller: &SpiffeId,
        proof: (Thumbprint, String),
        ends: Timestamp,
        now: Timestamp,
    ) -> Remembered {
        self.forget_before(now);
        if self.seen.contains(&proof) {
            return Remembered::Before;
        }
        let own = self.by_caller.get(caller).copied().unwrap_or(0);
        if self.seen.len() >= self.max || own >= self.max_per_caller {
            return Remembered::Full;
        }
        self.by_caller.insert(caller.clone(), own.saturating_add(1));
        self.count = self.count.wrapping_add(1);
        self.ends.insert((ends, self.count), (caller.clone(), proof.clone()));
        self.seen.insert(proof);
        Remembered::New
    }

    fn forget_before(&mut self, now: Timestamp) {
        while let Some(entry) = self.ends.first_entry()
            && entry.key().0 < now
        {
            let (caller, proof) = entry.remove();
            self.seen.remove(&proof);
            match self.by_caller.get_mut(&caller) {
                Some(count) if *count > 1 => *count = count.saturating_sub(1),
                _ => drop(self.by_caller.remove(&caller)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_taken_once_while_it_could_pass_and_forgotten_after() {
        let count = |n| NonZeroU32::new(n).unwrap();
        let mut memory = ProofMemory::new(count(2), count(2));
        let caller = "spiffe://td/a".parse().unwrap();
        let proof = |jti: &str| (Thumbprint::from_bytes([1; 32]), jti.to_owned());
        let at = Timestamp::from_seconds;
        assert_eq!(memory.remember(&caller, proof("a"), at(65), at(0)), Remembered::New);
        assert_eq!(memory.remember(&caller, proof("a"), at(65), at(65)), Remembered::Before);
        assert_eq!(memory.remember(&caller, proof("b"), at(70), at(1)), Remembered::New);
        assert_eq!(memory.remember(&caller, proof("c"), at(70), at(1)), Remembered::Full);
        assert_eq!(memory.remember(&caller, proof("c"), at(99), at(66)), Remembered::New);
        assert_eq!(memory.seen.len(), memory.ends.len());
        assert_eq!(memory.by_caller.values().sum::<usize>(), memory.seen.len());
    }

    #[test]
    fn no_caller_can_fill_the_memory_for_others() {
        let count = |n| NonZeroU32::new(n).unwrap();
        let mut memory = ProofMemory::new(count(9), count(1));
        let caller = |path: &str| format!("spiffe://td/{path}").parse().unwrap();
        let proof = |n: u8| (Thumbprint::from_bytes([n; 32]), "j".to_owned());
        let at = Timestamp::from_seconds;
        assert_eq!(memory.remember(&caller("a"), proof(1), at(65), at(0)), Remembered::New);
        assert_eq!(memory.remember(&caller("a"), proof(2), at(65), at(0)), Remembered::Full);
        assert_eq!(memory.remember(&caller("b"), proof(2), at(65), at(0)), Remembered::New);
        assert_eq!(memory.remember(&caller("a"), proof(3), at(99), at(66)), Remembered::New);
    }
}
