//! The other end of a connection: verified once, and again whenever the trust snapshot changes. A request that shows a
//! token instead has another end of its own.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use brevet_core::digest::{BearerDigest, Thumbprint};
use brevet_core::proof::Caller;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use brevet_identity::tls::TrustSource;
use brevet_identity::trust::CallerTrust;
use brevet_identity::x509_svid::{self, X509SvidError};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::rates::Allowance;
use crate::net::Probation;

/// One connection's other end, of which each of its requests carries a clone, or one request's.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    /// Passed when a token proves a caller.
    probation: Option<Probation>,
    certificates: Arc<[CertificateDer<'static>]>,
    trust: TrustSource<CallerTrust>,
    verified: ArcSwapOption<Verified>,
    proven: Mutex<BTreeSet<Thumbprint>>,
    allowance: OnceLock<Arc<Allowance>>,
    /// By what the token is known, if there is one.
    token: Option<BearerDigest>,
    /// The turn to have a token looked at as long as the connection is on probation.
    turn: Semaphore,
}

struct Verified {
    trust: Arc<CallerTrust>,
    /// The caller, or the stable reason why it is none.
    caller: Result<Arc<Caller>, &'static str>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

impl Peer {
    /// A connection whose handshake proved the key of the first certificate. It is on probation if it has none.
    #[must_use]
    pub fn new(
        certificates: Arc<[CertificateDer<'static>]>,
        trust: TrustSource<CallerTrust>,
        probation: Option<Probation>,
    ) -> Self {
        Self(Arc::new(Inner {
            probation,
            certificates,
            trust,
            verified: ArcSwapOption::empty(),
            proven: Mutex::new(BTreeSet::new()),
            allowance: OnceLock::new(),
            token: None,
            turn: Semaphore::const_new(1),
        }))
    }

    /// The other end of one request on this connection, whose token proved a caller by this trust. It is somebody as long
    /// as the same vouches for it.
    #[must_use]
    pub(super) fn with_token(
        &self,
        trust: Arc<CallerTrust>,
        caller: Arc<Caller>,
        token: BearerDigest,
        now: Timestamp,
    ) -> Self {
        if let Some(probation) = &self.0.probation {
            probation.pass(caller.valid_until().since(now));
        }
        Self(Arc::new(Inner {
            probation: None,
            certificates: Arc::new([]),
            trust: Arc::clone(&self.0.trust),
            verified: ArcSwapOption::from_pointee(Verified { trust, caller: Ok(caller) }),
            proven: Mutex::new(BTreeSet::new()),
            allowance: OnceLock::new(),
            token: Some(token),
            turn: Semaphore::const_new(1),
        }))
    }

    /// Waits until it is this call's turn among those of a connection whose caller has never been known; of one whose
    /// caller was, each call has its turn at once.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        match &self.0.probation {
            Some(probation) if probation.goes_on() => self.0.turn.acquire().await.ok(),
            _ => None,
        }
    }

    /// Whether a token has never proven a caller on this connection.
    pub(super) fn is_on_probation(&self) -> bool {
        self.0.probation.as_ref().is_some_and(Probation::goes_on)
    }

    /// By what the token is known that proved the caller, if one did.
    pub(super) fn token(&self) -> Option<BearerDigest> {
        self.0.token
    }

    /// The workload that a token proved when its request was let in, whether or not that still holds.
    pub(super) fn proven_by_token(&self) -> Option<SpiffeId> {
        let known = self.0.verified.load();
        let caller = known.as_deref().filter(|_| self.0.token.is_some())?.caller.as_ref();
        caller.ok().map(|caller| caller.spiffe_id().clone())
    }

    /// Whether it came with a certificate.
    #[must_use]
    pub(super) fn has_certificate(&self) -> bool {
        !self.0.certificates.is_empty()
    }

    /// The verified workload.
    ///
    /// # Errors
    /// The stable reason why it is none, for the audit alone.
    pub fn caller(&self, now: Timestamp) -> Result<Arc<Caller>, &'static str> {
        let trust = (self.0.trust)();
        let known = self.0.verified.load();
        let caller = match known.as_deref() {
            Some(known) if Arc::ptr_eq(&known.trust, &trust) => known.caller.clone(),
            // The token is not kept, so that it cannot be judged again.
            Some(known) if self.0.certificates.is_empty() => known.caller.clone().and_then(|caller| {
                let trust_domain = caller.spiffe_id().trust_domain();
                let [before, now] = [&known.trust, &trust].map(|trust| trust.token_authority(&trust_domain));
                if before == now && now.is_some() { Ok(caller) } else { Err("trust_changed") }
            }),
            _ => {
                let chain: Vec<&[u8]> = self.0.certificates.iter().map(AsRef::as_ref).collect();
                let caller = match chain.as_slice() {
                    [] => Err("no_credentials"),
                    chain => x509_svid::verify_chain(chain, &trust, now)
                        .map(Arc::new)
                        .map_err(X509SvidError::reason),
                };
                self.0.verified.store(Some(Arc::new(Verified { trust, caller: caller.clone() })));
                caller
            }
        };
        let caller = caller?;
        // Neither a connection nor a request outlives its identity.
        let over = if self.0.token.is_some() { "time_invalid" } else { "cert_time" };
        if caller.valid_until() <= now { Err(over) } else { Ok(caller) }
    }

    /// What the connection's caller may do how often, looked up at its first call: a connection has one certificate, and
    /// a certificate one caller.
    pub(super) fn allowance(&self, look_up: impl FnOnce() -> Arc<Allowance>) -> &Allowance {
        self.0.allowance.get_or_init(look_up)
    }

    /// The keys that the connection has proven besides its own.
    #[must_use]
    pub fn proven(&self) -> Vec<Thumbprint> {
        self.0.proven.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Remembers that the connection has proven this key, unless it has proven as many as it may.
    pub fn remember(&self, key: Thumbprint, proven_max: usize) {
        let mut proven = self.0.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.len() < proven_max {
            proven.insert(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_a_connection_is_known_by_no_more_keys_than_it_may_prove() {
        let trust = Arc::new(CallerTrust::new("broker.example".parse().unwrap(), []).unwrap());
        let peer = Peer::new(Arc::new([]), Arc::new(move || Arc::clone(&trust)), None);
        for byte in 0..9_u8 {
            peer.remember(Thumbprint::of(&[&[byte]]), 3);
        }
        assert_eq!(peer.proven().len(), 3);
    }
}
