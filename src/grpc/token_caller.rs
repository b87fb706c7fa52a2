//! Callers without a certificate: a token says who they are, a DPoP proof beside it which key is theirs.
//!
//! A token is anyone's who has a copy, so it lets in the first key that it is shown with and no other, on record. A
//! request that brings two proofs of who calls, of whatever kind, is refused: which of them would it be?

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use brevet_core::digest::Thumbprint;
use brevet_core::fact::{BearerBound, Fact};
use brevet_core::proof::Caller;
use brevet_core::spiffe_id::SpiffeId;
use brevet_identity::bearer::BearerError;
use brevet_identity::caller_token;
use brevet_identity::trust::CallerTrust;
use tracing::warn;

use super::door::Door;
use super::peer::Peer;
use super::possession::Remembered;
use crate::bearers::BindError;

/// The header of a proof (RFC 9449 §4.1).
const DPOP: &str = "dpop";
/// The scheme of a token that says who calls (RFC 6750 §2.1). Its spelling is exact.
const SCHEME: &str = "Bearer ";

/// What a request shows of who makes it.
pub(super) struct Shown(Result<Proofs, &'static str>);

struct Proofs {
    token: String,
    dpop: String,
    path: String,
}

impl Shown {
    /// What a request shows by itself, if it does. On the local root socket nothing is looked at.
    pub(super) fn by(request: &Request) -> Option<Self> {
        let headers = request.headers();
        let shows = [AUTHORIZATION.as_str(), "authorization-bin", DPOP, "dpop-bin"];
        if !shows.iter().any(|name| headers.contains_key(*name)) {
            return None;
        }
        let peer: &Peer = request.extensions().get()?;
        // One token, one proof, and no certificate besides.
        let proofs = || {
            let token = single(headers, AUTHORIZATION.as_str())?.strip_prefix(SCHEME);
            let dpop = single(headers, DPOP)?.to_owned();
            let token = token.filter(|_| !peer.has_certificate()).ok_or("ambiguous_credentials")?;
            Ok(Proofs { token: token.to_owned(), dpop, path: request.uri().path().to_owned() })
        };
        Some(Self(proofs()))
    }
}

impl Door {
    /// Whoever a request's own token proves, in the place of whoever its connection proves, if that is known within `max`.
    pub(super) async fn peer_of(&self, shown: Shown, max: Duration) -> Peer {
        let trust = Arc::clone(&self.broker.table.in_force().configuration.trust);
        let caller = match shown.0 {
            Ok(proofs) => {
                let proven = tokio::time::timeout(max, self.bearer(&trust, &proofs)).await;
                proven.unwrap_or(Err("deadline_exceeded"))
            }
            Err(reason) => Err(reason),
        };
        let broker = Arc::clone(&self.broker);
        let now = move || Arc::clone(&broker.table.in_force().configuration.trust);
        Peer::by_token(trust, Arc::new(now), caller)
    }

    /// The caller that a token and its proof prove; or why not, for the audit alone.
    async fn bearer(&self, trust: &CallerTrust, proofs: &Proofs) -> Result<Arc<Caller>, &'static str> {
        let Proofs { token, dpop, path } = proofs;
        let broker = &self.broker;
        let now = broker.clock.now().judge;
        // 1. Whose token it is.
        let verified = caller_token::verify(token, trust, &broker.issuer, now, broker.bearer_limits)
            .map_err(BearerError::reason)?;
        // 2. The key, proven for this token and this method, once.
        let proven = self.fresh_proof(dpop, path, Some(token), now)?;
        let key = proven.thumbprint;
        if let Some(confirmation) = verified.bearer.confirmation {
            confirmation.require(key, None).map_err(BearerError::reason)?;
        }
        // 3. The token is this key's from now on, or was before. An issuer may name any subject, so that only those who are
        // somebody here are remembered, and their tenant's auditors alone are told.
        let in_force = broker.table.in_force();
        let registry = in_force.registry();
        let tenant = registry
            .tenant_of(&verified.spiffe_id)
            .filter(|_| !registry.roles(&verified.spiffe_id).is_empty());
        let tenant = tenant.cloned().ok_or("not_registered")?;
        drop(in_force);
        let bearer = BearerBound {
            token: verified.digest,
            workload: verified.spiffe_id.clone(),
            key,
            until: verified.remembered_until,
        };
        let bound = broker.bearers.bind(bearer, now, |bearer| {
            let fact = Fact::BearerBound(bearer.clone());
            Ok(broker.note_of(&tenant, &bearer.workload, &fact)?.revision())
        });
        let revision = bound.map_err(|problem| {
            if problem == BindError::Other {
                self.shown_with_another_key(&verified.spiffe_id, key);
            }
            reason(problem)
        })?;
        // 4. The proof counts once. Whoever has no more than a copy of the token does not come so far: what is remembered is
        // the workload's own.
        match self.count_once(&verified.spiffe_id, proven, now) {
            Remembered::New => {}
            Remembered::Before => return Err("proof_replayed"),
            Remembered::Full => return Err("proofs_remembered_max"),
        }
        broker.table.journal().durable(revision).await.map_err(|_| "journal_sealed")?;
        Ok(Arc::new(Caller::verified_bearer(verified.spiffe_id, now, verified.until, key)))
    }
}

impl Door {
    /// Raises the alarm: one of two has a copy. Each is counted, and so many in a minute are told in the log.
    fn shown_with_another_key(&self, workload: &SpiffeId, key: Thumbprint) {
        self.broker.metrics.bearer_shown_with_another_key();
        if self.alarms.spend((), self.broker.clock.now().issue) {
            warn!(%workload, %key, "a token that is bound to one key was shown with another");
        }
    }
}

const fn reason(problem: BindError) -> &'static str {
    match problem {
        BindError::Other => "bearer_bound_elsewhere",
        BindError::Full => "bearers_bound_max",
        BindError::Journal(_) => "journal_unavailable",
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
