//! Possession: what a request and its connection prove of a key.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::PoisonError;

use brevet_core::digest::{ClaimDigest, Thumbprint};
use brevet_core::fact::ReasonCode;
use brevet_core::ledger::IssueRefusal;
use brevet_core::proof::Caller;
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use brevet_identity::csr::{self, ProvenKey};
use brevet_identity::dpop::{self, DpopError, DpopProof};

use super::door::Door;
use super::peer::Peer;
use crate::broker::{Kind, Possession, Refusal};

/// The service whose methods take proofs; a DPoP proof names it and the method behind the broker's URL.
const SERVICE: &str = "brevet.v1.CredentialService";

/// What a request brings to prove a key.
#[derive(Clone, Copy, Default)]
pub(super) struct Proof<'a> {
    /// A DPoP proof.
    pub(super) dpop: Option<&'a str>,
    /// A certification request.
    pub(super) csr: Option<&'a [u8]>,
    /// A one-time claim.
    pub(super) claim: Option<&'a str>,
}

impl<'a> Proof<'a> {
    /// The key that the certification request names, if there is one; see [`Door::possession`] for what proves it.
    pub(super) fn key_of_csr(&self) -> Result<Option<ProvenKey>, Refusal> {
        let proven = self.csr.map(csr::verify).transpose();
        proven.map_err(|error| Refusal {
            reason: ReasonCode::of(error.reason()),
            ..Refusal::invalid("csr", error)
        })
    }

    pub(super) fn dpop(dpop: Option<&'a str>) -> Self {
        Self { dpop, ..Self::default() }
    }
}

impl Door {
    /// What the caller has proven of the key that its task is bound to: the connection's own key by the handshake, or
    /// another by a DPoP proof, which the connection then remembers (RFC 9449). The certification request that an
    /// X.509-SVID is asked for with says which of these keys is meant. It has no time in it, so that whoever has a copy
    /// could show it: it proves nothing by itself.
    pub(super) fn possession(
        &self,
        peer: Option<&Peer>,
        caller: &Caller,
        proof: Proof<'_>,
        requested: Option<&ProvenKey>,
        method: &str,
    ) -> Result<Possession, Refusal> {
        if sabotage::on("secrets_are_logged") {
            tracing::debug!(claim = proof.claim, dpop = proof.dpop, method, "a key is offered");
        }
        let claim = proof.claim.map(|claim| ClaimDigest::of(&[claim.as_bytes()]));
        let certificate = caller.certificate().map(|certificate| (caller.key(), certificate));
        let by_dpop = proof.dpop.map(|dpop| self.proven_by_dpop(peer, caller, dpop, method)).transpose()?;
        // Who offers a key means that key, whatever else the connection has proven.
        let proven = match by_dpop {
            Some(_) => Vec::new(),
            None => peer.map(Peer::proven).unwrap_or_default(),
        };
        let offered = by_dpop.unwrap_or_else(|| caller.key());
        let Some(meant) = requested.map(ProvenKey::thumbprint) else {
            return Ok(Possession { offered, proven, certificate, claim });
        };
        if meant != offered && !proven.contains(&meant) && !sabotage::on("copied_requests_prove") {
            return Err(IssueRefusal::WrongHolder.into());
        }
        Ok(Possession { offered: meant, proven: Vec::new(), certificate, claim })
    }

    fn proven_by_dpop(
        &self,
        peer: Option<&Peer>,
        caller: &Caller,
        proof: &str,
        method: &str,
    ) -> Result<Thumbprint, Refusal> {
        let refused = |reason: &'static str| {
            Refusal::new(Kind::Unauthenticated, reason, "the proof of possession is not accepted")
        };
        let now = self.broker.clock.now().judge;
        let proven = self.fresh_proof(proof, &format!("/{SERVICE}/{method}"), None, now).map_err(refused)?;
        let key = proven.thumbprint;
        let known = peer.is_some_and(|peer| peer.proven().contains(&key));
        match self.count_once(caller.spiffe_id(), proven, now) {
            Remembered::New => {}
            // A retry over the connection that has proven the key is no replay.
            Remembered::Before if known => {}
            Remembered::Before => return Err(refused("proof_replayed")),
            Remembered::Full => {
                return Err(Refusal::new(Kind::Exhausted, "proofs_remembered_max", "too many proofs"));
            }
        }
        if let Some(peer) = peer {
            peer.remember(key);
        }
        Ok(key)
    }

    /// What a proof proves that was made just now for the method at this path, and for this access token if there is one;
    /// or the stable reason why it proves nothing.
    pub(super) fn fresh_proof(
        &self,
        proof: &str,
        path: &str,
        access_token: Option<&str>,
        now: Timestamp,
    ) -> Result<DpopProof, &'static str> {
        let url = format!("{}{path}", self.url);
        let target = dpop::Target { method: "POST", url: &url, access_token, nonce: None };
        let proven = dpop::verify(proof, &target, now, dpop::Limits::default()).map_err(DpopError::reason)?;
        if proven.issued_at <= self.broker.proofs_after { Err("dpop_iat") } else { Ok(proven) }
    }

    /// Remembers a proof for as long as it could pass.
    pub(super) fn count_once(&self, workload: &SpiffeId, proof: DpopProof, now: Timestamp) -> Remembered {
        let limits = dpop::Limits::default();
        let ends = proof.issued_at.after(limits.age_max).after(limits.skew_max);
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.remember(workload, (proof.thumbprint, proof.jti), ends, now)
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
pub(super) enum Remembered {
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

    pub(super) fn remember(
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
