//! The door: who comes in, with which key, and what a refusal leaves behind.

use std::sync::{Arc, Mutex};

use brevet_core::fact::{DeniedOperation, Fact, ReasonCode};
use brevet_core::id::{LeaseId, RootTaskId, TaskId};
use brevet_core::name::RequestId;
use brevet_core::proof::Caller;
use tonic::{Request, Response, Status};
use tracing::debug;

use super::peer::Peer;
use super::possession::ProofMemory;
use super::status;
use crate::broker::{Broker, MinuteBudget, Refusal};

/// What every service shares.
#[derive(Clone)]
pub struct Door {
    /// The broker.
    pub(super) broker: Arc<Broker>,
    pub(super) proofs: Arc<Mutex<ProofMemory>>,
    strangers: Arc<MinuteBudget<()>>,
    /// Lines of the log that tell of tokens shown with another key.
    pub(super) alarms: Arc<MinuteBudget<()>>,
    /// The URL that clients reach the broker by.
    pub(super) url: Arc<str>,
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
    pub(super) fn new(broker: Arc<Broker>, proofs: ProofMemory, url: String) -> Self {
        let a_minute = || Arc::new(MinuteBudget::new(broker.limits.strangers_recorded_per_minute_max));
        let (strangers, alarms) = (a_minute(), a_minute());
        Self { broker, proofs: Arc::new(Mutex::new(proofs)), strangers, alarms, url: url.into() }
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
        let now = self.broker.clock.now().judge;
        peer.map_or(Err("no_connection"), |peer| peer.caller(now)).map_err(|reason| {
            self.stranger(method, reason);
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

    /// Records some refusals of strangers and counts all, so that nobody can fill the disk (invariant U1).
    fn stranger(&self, method: &str, reason: &'static str) {
        debug!(method, reason, "a stranger was refused");
        self.broker.metrics.refused_stranger();
        if !self.strangers.spend((), self.broker.clock.now().issue) {
            return;
        }
        let operation = DeniedOperation::Method(method.to_owned());
        // It is a sample; a journal that is too busy for it has the count.
        let denied = Fact::Denied { operation, reason: ReasonCode::of(reason), cause: None, uid: None };
        let _sampled = self.broker.note(&denied);
    }
}
