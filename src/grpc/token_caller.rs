//! Callers without a certificate: a token says who they are, a DPoP proof beside it which key is theirs.
//!
//! A token is anyone's who has a copy, so it lets in the first key that it is shown with and no other, on record. A
//! request that brings two proofs of who calls, of whatever kind, is refused: which of them would it be?

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use brevet_core::fact::{BearerBound, Fact};
use brevet_core::name::TenantName;
use brevet_core::proof::Caller;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use brevet_identity::bearer::BearerError;
use brevet_identity::caller_token::{self, CallerToken};
use brevet_identity::dpop::DpopProof;
use brevet_identity::trust::CallerTrust;
use tracing::warn;

use super::door::Door;
use super::peer::Peer;
use super::possession::{ProofOwner, before_start};
use crate::broker::{Kind, Refusal};
use crate::token_bindings::BindError;

/// The header of a proof (RFC 9449 §4.1).
const DPOP: &str = "dpop";
/// The scheme of a token that says who calls (RFC 6750 §2.1). Its spelling is exact.
const SCHEME: &str = "Bearer ";

/// What a request shows of who makes it.
pub(super) struct Shown {
    /// The other end of its connection, which is nobody.
    connection: Peer,
    proofs: Result<Proofs, &'static str>,
}

struct Proofs {
    token: String,
    dpop: String,
    path: String,
}

/// A token that holds, a fresh proof of a key beside it, and the tenant whose workload it names. Whether the key is that
/// workload's is not known yet.
pub(super) struct Claimed {
    connection: Peer,
    trust: Arc<CallerTrust>,
    tenant: TenantName,
    token: CallerToken,
    proof: DpopProof,
    /// When it was verified.
    at: Timestamp,
}

impl Shown {
    /// What a request shows by itself, if it does. On the local root socket nothing is looked at.
    pub(super) fn by(request: &Request) -> Option<Self> {
        let headers = request.headers();
        let shows = [AUTHORIZATION.as_str(), "authorization-bin", DPOP, "dpop-bin"];
        if !shows.iter().any(|name| headers.contains_key(*name)) {
            return None;
        }
        let connection: &Peer = request.extensions().get()?;
        // One token, one proof, and no certificate besides.
        let proofs = || {
            let token = single(headers, AUTHORIZATION.as_str())?.strip_prefix(SCHEME);
            let dpop = single(headers, DPOP)?.to_owned();
            let token = token.filter(|_| !connection.has_certificate()).ok_or("ambiguous_credentials")?;
            Ok(Proofs { token: token.to_owned(), dpop, path: request.uri().path().to_owned() })
        };
        Some(Self { connection: connection.clone(), proofs: proofs() })
    }
}

impl Shown {
    /// The other end of the connection.
    pub(super) const fn connection(&self) -> &Peer {
        &self.connection
    }
}

impl Claimed {
    /// The workload that the token names.
    pub(super) const fn workload(&self) -> &SpiffeId {
        &self.token.spiffe_id
    }
}

impl Door {
    /// Verifies what a request shows; or why it proves nothing, for the audit alone.
    pub(super) fn claimed(&self, shown: Shown) -> Result<Claimed, &'static str> {
        let Shown { connection, proofs } = shown;
        let Proofs { token, dpop, path } = proofs?;
        let (broker, limits) = (&self.broker, self.credentials.token_limits);
        let (in_force, at) = (broker.table.in_force(), broker.clock.now().judge);
        let trust = Arc::clone(&in_force.configuration.trust);
        // 1. Whose token it is.
        let verified = caller_token::verify(&token, &trust, &broker.issuer, at, limits);
        let verified = verified.map_err(BearerError::reason)?;
        // 2. The key, proven for this token and this method.
        let proof = self.fresh_proof(&dpop, &path, Some(&token), at)?;
        if let Some(confirmation) = verified.bearer.confirmation {
            confirmation.require(proof.thumbprint, None).map_err(BearerError::reason)?;
        }
        // 3. Whether the workload is somebody here. An issuer may name any subject.
        let registry = in_force.registry();
        let tenant = registry.tenant_of(&verified.spiffe_id);
        let tenant = tenant.filter(|_| !registry.roles(&verified.spiffe_id).is_empty());
        let tenant = tenant.cloned().ok_or("not_registered")?;
        drop(in_force);
        Ok(Claimed { connection, trust, tenant, token: verified, proof, at })
    }

    /// Whether a token could let the key in, before anything of the workload's is spent for it.
    ///
    /// # Errors
    /// [`Refusal`] whose record is the workload's and its tenant's.
    pub(super) fn foresee(&self, claimed: &Claimed) -> Result<(), Refusal> {
        let Claimed { token, proof, at, .. } = claimed;
        if self.credentials.bindings.is_of_another(&token.digest, proof.thumbprint, *at) {
            return Err(unbound(BindError::Other));
        }
        if self.credentials.proofs.may_have_counted(proof) { Err(before_start()) } else { Ok(()) }
    }

    /// Lets the first key in that a token is shown with, for one request.
    ///
    /// # Errors
    /// [`Refusal`] whose record is the workload's and its tenant's.
    pub(super) async fn bound(&self, claimed: Claimed) -> Result<(Peer, Arc<Caller>), Refusal> {
        let Claimed { connection, trust, tenant, token, proof, at } = claimed;
        let CallerToken { spiffe_id, digest, until, remembered_until, .. } = token;
        let (broker, key) = (&self.broker, proof.thumbprint);
        // 1. The token is this key's from now on, or was before.
        let bearer = BearerBound { token: digest, workload: spiffe_id.clone(), key, until: remembered_until };
        let bound = self.credentials.bindings.bind(&tenant, bearer, at, |bearer| {
            let fact = Fact::BearerBound(bearer.clone());
            Ok(broker.note_of(&tenant, &bearer.workload, &fact)?.revision())
        });
        let revision = bound.map_err(unbound)?;
        // 2. The proof counts once.
        let counted = self.credentials.proofs.count_once(Some(tenant), ProofOwner::Token(digest), proof, at);
        counted
            .map_err(|not| Refusal::new(Kind::Unauthenticated, not.reason(), "the proof does not count"))?;
        // 3. It is on record before anyone is let in.
        broker.table.journal().durable(revision).await.map_err(Refusal::from)?;
        let caller = Arc::new(Caller::verified_bearer(spiffe_id, at, until, key));
        Ok((connection.with_token(trust, Arc::clone(&caller), digest, at), caller))
    }

    /// Raises the alarm: one of two has a copy. Each is counted, and told in the log as often as it is recorded.
    pub(super) fn shown_with_another_key(&self, workload: &SpiffeId, is_recorded: bool) {
        self.broker.metrics.bearer_shown_with_another_key();
        if is_recorded {
            warn!(%workload, "a token that is bound to one key was shown with another");
        }
    }
}

/// The reason of a token that is another key's.
pub(super) const BOUND_ELSEWHERE: &str = "bearer_bound_elsewhere";

fn unbound(problem: BindError) -> Refusal {
    match problem {
        BindError::Other => {
            Refusal::new(Kind::Unauthenticated, BOUND_ELSEWHERE, "the token is another key's")
        }
        BindError::Full(_) => {
            Refusal::new(Kind::Exhausted, "bearers_bound_max", "too many tokens were shown")
        }
        BindError::Journal(problem) => problem.into(),
    }
}

/// The one value of a header, in visible ASCII.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, &'static str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err("ambiguous_credentials");
    };
    if headers.contains_key(format!("{name}-bin")) {
        return Err("ambiguous_credentials");
    }
    value.to_str().map_err(|_| "ambiguous_credentials")
}
