//! Proofs: values that can only be had by taking the step that earns them.
//!
//! Their fields are private and none of them is `Clone`. Each has one constructor, and one file of the workspace
//! may call it; `tests/architecture.rs` names that file and fails if another does.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::digest::{CertificateDigest, PolicyDigest, Thumbprint};
use crate::name::TenantName;
use crate::registry::Registry;
use crate::request::{CallerFacts, DeterminingPolicy, Obligations, Operation, Request, Verification};
use crate::revision::{Basis, Revision};
use crate::spiffe_id::SpiffeId;
use crate::terms::Terms;
use crate::time::Timestamp;

/// A workload whose identity was verified: what a call is made by.
#[derive(Debug)]
pub struct Caller {
    spiffe_id: SpiffeId,
    verification: Verification,
    verified_at: Timestamp,
    valid_until: Timestamp,
    key: Thumbprint,
    certificate: Option<CertificateDigest>,
}

impl Caller {
    /// Constructor for the identity verifier alone: the workload of an X.509-SVID whose chain and leaf were
    /// checked at `verified_at` and whose key the TLS handshake proved.
    #[must_use]
    pub const fn verified_x509_svid(
        spiffe_id: SpiffeId,
        verified_at: Timestamp,
        valid_until: Timestamp,
        key: Thumbprint,
        certificate: CertificateDigest,
    ) -> Self {
        let (verification, certificate) = (Verification::X509Svid, Some(certificate));
        Self { spiffe_id, verification, verified_at, valid_until, key, certificate }
    }

    /// Constructor for whoever has verified a bearer's token at `verified_at`, a proof of `key` for the same request, and
    /// that the token is bound to this key on record.
    #[must_use]
    pub const fn verified_bearer(
        spiffe_id: SpiffeId,
        verified_at: Timestamp,
        valid_until: Timestamp,
        key: Thumbprint,
    ) -> Self {
        let verification = Verification::BearerBootstrap;
        Self { spiffe_id, verification, verified_at, valid_until, key, certificate: None }
    }

    /// The workload.
    #[must_use]
    pub const fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// When the identity document ends.
    #[must_use]
    pub const fn valid_until(&self) -> Timestamp {
        self.valid_until
    }

    /// The key that the connection, or the proof beside the token, proved possession of.
    #[must_use]
    pub const fn key(&self) -> Thumbprint {
        self.key
    }

    /// The certificate that the connection was made with, if it proves the caller.
    #[must_use]
    pub const fn certificate(&self) -> Option<CertificateDigest> {
        self.certificate
    }

    /// What policy sees of the caller. None if its trust domain belongs to no tenant.
    #[must_use]
    pub fn facts(&self, registry: &Registry, now: Timestamp) -> Option<CallerFacts> {
        let tenant: TenantName = registry.tenant_of(&self.spiffe_id)?.clone();
        Some(CallerFacts {
            spiffe_id: self.spiffe_id.clone(),
            tenant,
            roles: registry.roles(&self.spiffe_id),
            verified: self.verification,
            verified_age_seconds: now.since(self.verified_at).as_secs(),
        })
    }
}

/// What the journal keeps of a decision besides its effect: the whole typed input and what determined it, so that
/// the decision can be made again offline (invariant P1).
#[derive(Debug, Serialize)]
pub struct Evidence {
    /// The request as policy saw it.
    pub request: Request,
    /// The policies that determined the decision.
    pub determining: Vec<DeterminingPolicy>,
    /// The set of policies they belong to.
    pub policy: PolicyDigest,
}

/// Policy's yes to one request.
#[derive(Debug)]
pub struct Permit {
    evidence: Evidence,
    obligations: Obligations,
}

impl Permit {
    /// Constructor for the policy engine alone.
    #[must_use]
    pub const fn granted(evidence: Evidence, obligations: Obligations) -> Self {
        Self { evidence, obligations }
    }

    /// What was permitted.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.evidence.request.ask.operation()
    }

    /// The request that was permitted.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.evidence.request
    }

    /// The policies that permitted it.
    #[must_use]
    pub const fn policy(&self) -> PolicyDigest {
        self.evidence.policy
    }

    /// What it was computed from.
    #[must_use]
    pub const fn basis(&self) -> Basis {
        self.evidence.request.basis
    }

    /// The longest life policy allows, where it says.
    #[must_use]
    pub const fn lifetime_max(&self) -> Option<Duration> {
        self.obligations.lifetime_max
    }

    /// What the journal keeps of the decision.
    #[must_use]
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

/// A permit with the terms of the credential it was spent on.
#[derive(Debug)]
pub struct Plan {
    permit: Permit,
    terms: Arc<Terms>,
}

impl Plan {
    /// Constructor for the mint's planner alone.
    #[must_use]
    pub fn drawn(permit: Permit, terms: Terms) -> Self {
        Self { permit, terms: Arc::new(terms) }
    }

    /// The permit.
    #[must_use]
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The terms.
    #[must_use]
    pub const fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }
}

/// Terms that the journal durably holds, and the revision it holds them at. Only this can be signed.
#[derive(Debug)]
pub struct Recorded {
    terms: Arc<Terms>,
    revision: Revision,
}

impl Recorded {
    /// Constructor for the lease table alone, once the journal has said that `revision` is durable.
    #[must_use]
    pub const fn durable(terms: Arc<Terms>, revision: Revision) -> Self {
        Self { terms, revision }
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The revision that the lease was issued at: a token's `rev`.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }
}
