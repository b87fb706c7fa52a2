//! Possession: what a request and its connection prove of a key.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use brevet_core::digest::{BearerDigest, ClaimDigest, Thumbprint};
use brevet_core::fact::ReasonCode;
use brevet_core::ledger::IssueRefusal;
use brevet_core::name::TenantName;
use brevet_core::proof::Caller;
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use brevet_identity::csr::{self, ProvenKey};
use brevet_identity::dpop::{self, DpopError, DpopProof};

use super::door::Door;
use super::peer::Peer;
use crate::broker::{Kind, Possession, Refusal};
use crate::remembered::{Full, Remembered, RememberedLimits};

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
        if self.credentials.proofs.may_have_counted(&proven) {
            return Err(before_start());
        }
        let workload = caller.spiffe_id();
        let tenant = self.broker.table.in_force().registry().tenant_of(workload).cloned();
        let token = peer.and_then(Peer::token);
        let owner = token.map_or_else(|| ProofOwner::Workload(workload.clone()), ProofOwner::Token);
        match self.credentials.proofs.count_once(tenant, owner, proven, now) {
            Ok(()) => {}
            // A retry over the connection that has proven the key is no replay.
            Err(NotCounted::Replayed) if known => {}
            Err(replayed @ NotCounted::Replayed) => return Err(refused(replayed.reason())),
            Err(full @ NotCounted::Full) => {
                return Err(Refusal::new(Kind::Exhausted, full.reason(), "too many proofs"));
            }
        }
        if let Some(peer) = peer {
            peer.remember(key, self.broker.limits.keys_proven_max());
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
        dpop::verify(proof, &target, now, dpop::Limits::default()).map_err(DpopError::reason)
    }
}

/// A proof that is good and may have counted before the daemon's start, which has forgotten it.
pub(super) fn before_start() -> Refusal {
    Refusal::new(
        Kind::Unavailable,
        "proof_before_start",
        "the proof may have been accepted before the broker's start; make another",
    )
}

/// DPoP proofs that were accepted and could still pass, so that none is taken twice.
#[derive(Debug)]
pub struct ProofMemory {
    /// Proofs that are dated up to then are not taken: what was accepted before the start is forgotten, and so none of
    /// them may be that.
    after: Timestamp,
    seen: Mutex<Remembered<(Thumbprint, String), (), ProofOwner>>,
}

/// Whose proofs are counted together. Whoever has a copy of a token can bind it before its workload does, and then spends
/// what is that token's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProofOwner {
    /// Those of a workload that its certificate proved.
    Workload(SpiffeId),
    /// Those of whoever showed one token, beside it and in requests.
    Token(BearerDigest),
}

/// A proof that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotCounted {
    /// It has counted before.
    Replayed,
    /// As many are remembered as may be, so that it could count twice.
    Full,
}

impl NotCounted {
    /// The stable reason for the audit.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Replayed => "proof_replayed",
            Self::Full => "proofs_remembered_max",
        }
    }
}

impl ProofMemory {
    /// The memory of a process that begins now. Nothing was accepted before a first start; before any other there may
    /// have been, and by a client whose clock is ahead.
    #[must_use]
    pub fn new(now: Timestamp, is_first_start: bool, limits: RememberedLimits) -> Self {
        let after = if is_first_start { now } else { now.after(dpop::Limits::default().skew_max) };
        Self { after, seen: Mutex::new(Remembered::new(limits)) }
    }

    /// Whether a proof may have been accepted before the start.
    pub(super) fn may_have_counted(&self, proof: &DpopProof) -> bool {
        proof.issued_at <= self.after
    }

    /// Counts a proof, once for as long as it could pass.
    pub(super) fn count_once(
        &self,
        tenant: Option<TenantName>,
        owner: ProofOwner,
        proof: DpopProof,
        now: Timestamp,
    ) -> Result<(), NotCounted> {
        let limits = dpop::Limits::default();
        // At the last moment of its age it still passes.
        let end =
            proof.issued_at.after(limits.age_max).after(limits.skew_max).after(Duration::from_millis(1));
        let key = (proof.thumbprint, proof.jti);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.forget_until(now);
        if seen.get(&key).is_some() {
            return Err(NotCounted::Replayed);
        }
        seen.has_room(tenant.as_ref(), &owner).map_err(|Full| NotCounted::Full)?;
        seen.insert(key, (), (tenant, owner), end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RememberedLimits = RememberedLimits { per_tenant: 3, per_owner: 2 };

    fn count(
        memory: &ProofMemory,
        jti: &str,
        owner: ProofOwner,
        made: u64,
        now: u64,
    ) -> Result<(), NotCounted> {
        let issued_at = Timestamp::from_seconds(made);
        let proof = DpopProof { thumbprint: Thumbprint::from_bytes([1; 32]), jti: jti.to_owned(), issued_at };
        memory.count_once(None, owner, proof, Timestamp::from_seconds(now))
    }

    #[test]
    fn a_proof_is_taken_once_while_it_could_pass_and_forgotten_after() {
        let memory = ProofMemory::new(Timestamp::EPOCH, true, LIMITS);
        let life = (dpop::Limits::default().age_max + dpop::Limits::default().skew_max).as_secs();
        let count = |jti, made, now| {
            count(&memory, jti, ProofOwner::Workload("spiffe://td/a".parse().unwrap()), made, now)
        };
        assert_eq!(count("a", 1, 1), Ok(()));
        assert_eq!(count("a", 1, 1 + life), Err(NotCounted::Replayed), "it could pass for the last time");
        assert_eq!(count("b", 9, 9), Ok(()));
        assert_eq!(count("c", 9, 9), Err(NotCounted::Full));
        assert_eq!(count("c", 9, 2 + life), Ok(()));
    }

    #[test]
    fn a_thief_of_one_token_spends_nothing_that_is_another_token_s() {
        let memory = ProofMemory::new(Timestamp::EPOCH, true, LIMITS);
        let token = |byte| ProofOwner::Token(BearerDigest::from_bytes([byte; 32]));
        assert_eq!(count(&memory, "a", token(1), 1, 1), Ok(()));
        assert_eq!(count(&memory, "b", token(1), 1, 1), Ok(()));
        assert_eq!(count(&memory, "c", token(1), 1, 1), Err(NotCounted::Full));
        assert_eq!(count(&memory, "c", token(2), 1, 1), Ok(()));
    }
}
