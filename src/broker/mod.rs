//! The broker: every use case as one numbered, linear story that decides, told over the table, the policies and the
//! mint. Whatever enters here has been parsed, and the caller has been verified.

mod budget;
mod credential;
mod introspect;
mod refusal;
mod task;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use brevet_core::digest::RequestDigest;
use brevet_core::fact::{DeniedOperation, Envelope, Fact};
use brevet_core::id::{RootTaskId, TaskId};
use brevet_core::ledger::Ledger;
use brevet_core::name::{RequestId, TenantName};
use brevet_core::proof::Caller;
use brevet_core::registry::{Registry, Role};
use brevet_core::request::CallerFacts;
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::{Now, Timestamp};
use brevet_identity::jwk_set::JwkSet;
use brevet_journal::AppendError;
use brevet_mint::plan::Planner;
use brevet_mint::signer::Signer;
use brevet_mint::state_key::StateKey;
use brevet_policy::Denial;
use ring::rand::SystemRandom;
use serde::Serialize;
use tokio::sync::Semaphore;

pub use self::budget::MinuteBudget;
pub use self::credential::{CredentialAsk, Issued, Possession};
pub use self::introspect::Introspection;
pub use self::refusal::{Kind, Refusal};
pub use self::task::{Ended, Opened, TaskAsk, TaskFilter, TaskView};
use crate::clock::Clock;
use crate::config::Limits;
use crate::configuration::Configuration;
use crate::metrics::{DecisionOutcome, Metrics};
use crate::table::{InForce, Table, Undurable};

/// Everything the use cases draw on, built once.
pub struct Broker {
    /// The task trees.
    pub table: Table,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The key of task tokens.
    pub signer: Arc<dyn Signer>,
    /// Draws up the terms of credentials.
    pub planner: Planner,
    /// The public halves of the keys of task tokens.
    pub keys: JwkSet,
    /// Makes root task ids and claims.
    pub state_key: StateKey,
    /// The issuer of task tokens.
    pub issuer: String,
    /// The limits of the configuration.
    pub limits: Limits,
    /// Denials that each caller may make the journal keep.
    pub denials: MinuteBudget<SpiffeId>,
    /// Lists that are made at once: each walks every tree.
    pub lists: Semaphore,
    /// When the daemon started, by the judging clock.
    pub started_at: Timestamp,
    /// The source of randomness.
    pub rng: SystemRandom,
}

impl Broker {
    /// Puts a configuration in force, if it is not already.
    ///
    /// # Errors
    /// [`Refusal`] if the journal could not take it.
    pub async fn configure(&self, configuration: Configuration) -> Result<bool, Refusal> {
        let changed = self.decide(|| {
            if configuration.is_named_by(&self.table.in_force().control) {
                return Ok(None);
            }
            let fact = Fact::ConfigurationLoaded {
                policy: configuration.policies.digest(),
                registry: configuration.registry.digest(),
                trust: configuration.trust.digest(),
                proposer: None,
                confirmers: Vec::new(),
            };
            let envelope = self.envelope(self.clock.now(), None, None, None);
            Ok(Some(self.table.control(&envelope, &fact, Some(configuration.clone()))?))
        })?;
        let Some(changed) = changed else { return Ok(false) };
        self.table.durable(changed).await?;
        Ok(true)
    }

    /// Decides, and decides again when what it was decided from has changed meanwhile.
    fn decide<T>(&self, mut attempt: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
        for _ in 0..self.limits.conflict_retries_max {
            match attempt() {
                Err(Refusal { kind: Kind::Conflict, .. }) => {}
                decided => return decided,
            }
        }
        attempt()
    }

    /// Notes a fact that changes nothing and waits for nothing.
    ///
    /// # Errors
    /// [`AppendError`] if the journal does not take it, now or any more.
    pub fn note(&self, fact: &Fact) -> Result<Undurable<()>, AppendError> {
        self.table.note(&self.envelope(self.clock.now(), None, None, None), fact, None)
    }

    /// Records what has run out in a tree.
    ///
    /// # Errors
    /// [`Refusal`] if the journal does not take it now.
    pub fn expire(&self, root: RootTaskId, now: Now) -> Result<Undurable<()>, Refusal> {
        let tenant = self.table.view(root, |ledger| ledger.tenant().clone());
        let envelope = Envelope { tenant, tree: Some(root), ..self.envelope(now, None, None, None) };
        loop {
            let mut recorded = None;
            let expired = self.decide(|| {
                let expired = self.table.commit(root, &envelope, None, |ledger, _| {
                    recorded = ledger.expire(now.judge).into_iter().next();
                    Ok::<_, Infallible>((recorded.clone(), ()))
                });
                Ok(expired?)
            })?;
            match recorded {
                Some(Fact::TaskEnded { outcome, .. }) => self.metrics.ended("task", outcome.as_str(), 1),
                Some(Fact::LeasesEnded { leases, .. }) => {
                    let count = u64::try_from(leases.len()).unwrap_or(u64::MAX);
                    self.metrics.ended("lease", "expired", count);
                }
                _ => return Ok(expired),
            }
        }
    }

    /// Before anyone is told that something in a tree has run out, the journal has it: then no clock can bring it
    /// back (invariant C3).
    async fn settle(&self, root: RootTaskId) -> Result<(), Refusal> {
        let expired = self.expire(root, self.clock.now())?;
        Ok(self.table.durable(expired).await?)
    }

    /// How many leases live.
    #[must_use]
    pub fn leases_live(&self) -> u64 {
        let judge = self.clock.now().judge;
        self.table.count(|ledger, control| {
            ledger.tasks().map(|task| u64::from(ledger.leases_live(task.opened().id, control, judge))).sum()
        })
    }

    /// Counts and notes a refusal that an authenticated caller is answered (invariant U1).
    ///
    /// # Errors
    /// [`Refusal`] to be answered in its place if the journal does not take it.
    pub fn refuse(
        &self,
        caller: &Caller,
        operation: DeniedOperation,
        tree: Option<RootTaskId>,
        request_id: Option<&RequestId>,
        refusal: &Refusal,
    ) -> Result<(), Refusal> {
        let tenant = self.table.in_force().registry().tenant_of(caller.spiffe_id()).cloned();
        let envelope = Envelope {
            tree,
            tenant,
            caller: Some(caller.spiffe_id().clone()),
            request_id: request_id.cloned(),
            ..self.envelope(self.clock.now(), None, None, None)
        };
        let fact = Fact::Denied { operation, reason: refusal.reason.clone() };
        self.metrics.decided(match refusal.kind {
            Kind::Denied => DecisionOutcome::Denied,
            _ => DecisionOutcome::Refused,
        });
        if !self.denials.spend(caller.spiffe_id().clone(), envelope.at.judge) {
            self.metrics.denial_unrecorded();
            let text = "too many refusals in this minute";
            return Err(Refusal::new(Kind::Exhausted, "denials_recorded_per_minute_max", text));
        }
        if sabotage::on("denials_unrecorded") {
            return Ok(());
        }
        match self.table.note(&envelope, &fact, refusal.evidence.as_deref()) {
            Ok(_durable_within_a_second) => Ok(()),
            Err(_) => {
                self.metrics.denial_unrecorded();
                Err(Refusal::unavailable("denial_unrecorded"))
            }
        }
    }

    fn envelope(
        &self,
        now: Now,
        who: Option<&CallerFacts>,
        tree: Option<RootTaskId>,
        request_id: Option<&RequestId>,
    ) -> Envelope {
        Envelope {
            incarnation: self.table.journal().head().incarnation,
            at: now,
            tenant: who.map(|facts| facts.tenant.clone()),
            tree,
            caller: who.map(|facts| facts.spiffe_id.clone()),
            request_id: request_id.cloned(),
        }
    }

    /// What the configuration in force says of the caller. It was verified before this was decided: if its trust domain has been taken
    /// away meanwhile, or belongs to no tenant, it is nobody (invariant P3).
    fn facts_of(&self, caller: &Caller, in_force: &InForce, now: Now) -> Result<CallerFacts, Refusal> {
        let nobody = |reason| Refusal::new(Kind::Unauthenticated, reason, "the caller is not known");
        if !in_force.configuration.trust.has(&caller.spiffe_id().trust_domain()) {
            return Err(nobody("id_not_authoritative"));
        }
        caller.facts(in_force.registry(), now.issue).ok_or_else(|| nobody("no_tenant"))
    }

    /// Nothing is minted while the clock is in doubt (invariants C3 and C5).
    fn minting_clock(&self) -> Result<Now, Refusal> {
        let now = self.clock.now();
        if self.clock.state().may_mint() { Ok(now) } else { Err(Refusal::unavailable("clock_in_doubt")) }
    }
}

/// Who may see a task: its agent, its owners, and the operators of its tenant.
fn may_see(ledger: &Ledger, task: TaskId, who: &CallerFacts) -> bool {
    let agent = ledger.task(task).is_some_and(|task| task.opened().agent == who.spiffe_id);
    *ledger.tenant() == who.tenant
        && (agent
            || ledger.is_owner(task, &who.spiffe_id)
            || is_operator(who, &[Role::Stopper, Role::Auditor]))
}

fn is_operator(who: &CallerFacts, roles: &[Role]) -> bool {
    roles.iter().any(|role| who.roles.contains(role))
}

/// Whether a workload belongs to a tenant, by the registry.
fn belongs(registry: &Registry, workload: &SpiffeId, tenant: &TenantName) -> bool {
    registry.tenant_of(workload) == Some(tenant)
}

/// The shorter of what was asked for, or else of the default, and the longest allowed.
fn lifetime(asked: Option<Duration>, default: Duration, max: Duration) -> Duration {
    asked.unwrap_or(default).min(max)
}

/// The digest by which a retry is told from another request with the same id.
fn body_of(method: &str, ask: &impl Serialize) -> RequestDigest {
    // The types of an ask all have a JSON form; if one had none, no retry of it would be taken for the same.
    let body = serde_json::to_vec(ask).unwrap_or_default();
    RequestDigest::of(&[method.as_bytes(), &body])
}

/// What a caller is told of a denial: that there is one. Which policies determined it is the audit's.
fn denied(denial: Denial) -> Refusal {
    let mut refusal = Refusal::new(Kind::Denied, "policy_denied", "policy does not permit this");
    refusal.evidence = Some(Box::new(denial.evidence));
    refusal
}
