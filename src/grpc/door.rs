//! The door: who comes in, with which key, and what a refusal leaves behind.

use std::sync::Arc;

use brevet_core::fact::{DeniedOperation, ReasonCode};
use brevet_core::id::{LeaseId, RootTaskId, TaskId};
use brevet_core::name::RequestId;
use brevet_core::proof::Caller;
use brevet_core::time::Timestamp;
use brevet_identity::bearer;
use tonic::{Request, Response, Status};

use super::peer::Peer;
use super::possession::ProofMemory;
use super::status;
use crate::broker::{Broker, Refusal};
use crate::remembered::RememberedLimits;
use crate::token_bindings::TokenBindings;

/// What every service shares.
#[derive(Clone)]
pub struct Door {
    /// The broker.
    pub(super) broker: Arc<Broker>,
    pub(super) credentials: Arc<CallerCredentials>,
    /// The URL that clients reach the broker by.
    pub(super) url: Arc<str>,
}

/// What is asked and remembered of the tokens and proofs that callers show.
#[derive(Debug)]
pub struct CallerCredentials {
    /// The keys that tokens are bound to.
    pub bindings: TokenBindings,
    /// What is asked of the times of tokens.
    pub token_limits: bearer::Limits,
    /// The proofs that have counted.
    pub proofs: ProofMemory,
}

impl CallerCredentials {
    /// Where nobody shows any.
    #[must_use]
    pub fn none() -> Self {
        let limits = RememberedLimits { per_tenant: 0, per_owner: 0 };
        Self {
            bindings: TokenBindings::restored([], |_| None, limits),
            token_limits: bearer::Limits::default(),
            proofs: ProofMemory::new(Timestamp::EPOCH, true, limits),
        }
    }
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
        self.tree = TaskId::from_name(task).ok().map(|task| task.root());
        self
    }

    pub(super) fn of_lease(mut self, lease: &str) -> Self {
        self.tree = lease.parse().ok().map(|lease: LeaseId| lease.task.root());
        self
    }
}

impl Door {
    pub(super) fn new(broker: Arc<Broker>, credentials: CallerCredentials, url: String) -> Self {
        Self { broker, credentials: Arc::new(credentials), url: url.into() }
    }

    /// The most that a page of a list has.
    pub(super) fn page_size_max(&self) -> usize {
        usize::try_from(self.broker.limits.page_size_max.get()).unwrap_or(usize::MAX)
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
        let Some(peer) = peer else { return Err(self.stranger(method, "no_connection")) };
        peer.caller(self.broker.clock.now().judge).map_err(|reason| match peer.proven_by_token() {
            // It was somebody when it was let in, and waited too long.
            Some(workload) => {
                self.broker.refuse_unproven(&workload, method, &ReasonCode::of(reason));
                status::unauthenticated()
            }
            None => self.stranger(method, reason),
        })
    }

    /// Answers, and records what was refused.
    pub(super) fn answer<T>(
        &self,
        caller: &Caller,
        asked: &Asked,
        outcome: Result<T, Refusal>,
    ) -> Result<Response<T>, Status> {
        outcome.map(Response::new).map_err(|refusal| self.refused(caller, asked, &refusal))
    }

    /// Records a refusal, and what the caller is told of it.
    pub(super) fn refused(&self, caller: &Caller, asked: &Asked, refusal: &Refusal) -> Status {
        let operation = DeniedOperation::Method(asked.method.to_owned());
        match self.broker.refuse(caller, operation, asked.tree, asked.request_id.as_ref(), refusal) {
            Ok(()) => status::of(refusal),
            Err(unrecorded) => status::of(&unrecorded),
        }
    }

    /// Tells a stranger that it is one. Some of these refusals are recorded and all counted, so that nobody can fill the
    /// disk (invariant U1).
    pub(super) fn stranger(&self, method: &str, reason: &'static str) -> Status {
        self.broker.refuse_stranger(method, reason);
        status::unauthenticated()
    }
}
