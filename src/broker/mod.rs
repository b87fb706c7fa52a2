//! The broker: every use case as one numbered, linear story that decides, told over the table, the policies and the
//! mint. Whatever enters here has been parsed, and the caller has been verified.

mod audit;
mod budget;
mod credential;
mod delegation;
mod delivery;
mod denials;
mod ending;
mod introspect;
mod lease;
mod lock;
mod refusal;
#[cfg(test)]
pub(crate) mod sample;
mod sweep;
mod task;
mod watch;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use brevet_core::digest::RequestDigest;
use brevet_core::fact::{Envelope, Fact};
use brevet_core::id::{RootTaskId, TaskId};
use brevet_core::ledger::Ledger;
use brevet_core::lock::Selector;
use brevet_core::name::{RequestId, TenantName};
use brevet_core::proof::{Caller, Permit};
use brevet_core::registry::{Registry, Role};
use brevet_core::request::{Ask, CallerFacts, OperatorCall, Request};
use brevet_core::revision::{Basis, Revision};
use brevet_core::sabotage;
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::time::{Now, Timestamp};
use brevet_identity::jwk_set::JwkSet;
use brevet_journal::AppendError;
use brevet_mint::plan::Planner;
use brevet_mint::signer::Signer;
use brevet_mint::state_key::StateKey;
use brevet_policy::Denial;
use ring::rand::SystemRandom;
use serde::Serialize;
use tokio::sync::{Mutex, Notify};
use tokio::task::block_in_place;

pub use self::audit::{AuditView, Event, EventFilter, EventPage, EventTail};
use self::budget::MinuteBudget;
use self::credential::permitted;
pub use self::credential::{CredentialAsk, Possession, Wanted};
pub use self::delegation::DelegationAsk;
pub use self::delivery::{Issued, Undelivered};
pub use self::denials::Denials;
pub(crate) use self::ending::QueuedRecords;
pub use self::introspect::Introspection;
pub use self::lease::{LeaseFilter, LeaseState, LeaseView, Revoked};
pub use self::lock::{LockAsk, LockCaller, LockFilter, LockView};
pub use self::refusal::{Kind, Refusal};
pub use self::task::{Ended, Opened, TaskAsk, TaskFilter, TaskView};
pub use self::watch::{ENDINGS_TOLD_MAX, Told, Watch, WatchAsk};
use crate::bookmarks::Bookmarks;
use crate::clock::Clock;
use crate::config::Limits;
use crate::configuration::Configuration;
use crate::known_tokens::KnownTokens;
use crate::metrics::Metrics;
use crate::shares::{Share, Shares};
use crate::table::{InForce, Table, Undurable};
use crate::turns::{Turn, Turns};

/// Why a registry is refused by which something that exists would be another tenant's.
pub const TENANT_CHANGED: &str =
    "a trust domain or an audience would be another tenant's than that of tasks or locks which are kept";

/// What a broker is made of.
pub struct Parts {
    /// The task trees.
    pub table: Table,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The keys of credentials.
    pub signer: Arc<dyn Signer>,
    /// Draws up the terms of credentials.
    pub planner: Planner,
    /// The public halves of the keys of task tokens.
    pub keys: JwkSet,
    /// The public halves of the keys of JWT-SVIDs.
    pub jwt_svid_keys: JwkSet,
    /// Makes root task ids and claims.
    pub state_key: StateKey,
    /// Where streams of revocations get their bookmarks.
    pub bookmarks: Arc<Bookmarks>,
    /// The issuer of task tokens, which is also the one audience of tokens that callers show.
    pub issuer: String,
    /// The broker's own trust domain, which the SVIDs of tasks are of.
    pub trust_domain: TrustDomain,
    /// The limits of the configuration.
    pub limits: Limits,
    /// The source of randomness.
    pub rng: SystemRandom,
}

/// Everything the use cases draw on, built once.
pub struct Broker {
    parts: Parts,
    /// Tokens that need no verification.
    pub known_tokens: KnownTokens,
    /// Credentials that are not handed over yet.
    pub undelivered: Undelivered,
    /// What each caller may make the journal keep of its denials.
    pub denials: Denials,
    /// Lists that callers have made or wait for.
    pub lists: Arc<Shares>,
    /// Turns to make a list: each walks every tree.
    pub list_turns: Turns,
    /// Turns to find by a walk over every tree what a stream has to tell. They are others, so that no list keeps a
    /// verifier waiting.
    pub walk_turns: Turns,
    /// Held by whoever records what has run out, so that nobody who needs the room it gives looks before it is there.
    pub reaping: Mutex<()>,
    /// Wakes the sweep when a lock was created.
    pub unswept: Notify,
    /// The streams of revocations that are open.
    pub streams: Arc<Shares>,
    /// Those that follow the audit log.
    pub audit_streams: Arc<Shares>,
    /// Those of each tenant.
    pub audit_streams_of_tenants: Arc<Shares<TenantName>>,
    /// Whether the daemon stops: what would go on for ever ends then.
    pub stopping: tokio::sync::watch::Sender<bool>,
}

impl Deref for Broker {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Broker {
    /// A broker of these parts, at work from now on.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let limits = &parts.limits;
        Self {
            known_tokens: KnownTokens::new(limits.tokens_known()),
            undelivered: Undelivered::default(),
            denials: Denials::new(
                limits.malformed_recorded_per_minute_max,
                limits.denials_recorded_per_minute_max,
                limits.strangers_recorded_per_minute_max,
            ),
            lists: Shares::new(limits.lists_of_callers()),
            list_turns: limits.lists(),
            walk_turns: limits.watch_walks(),
            reaping: Mutex::new(()),
            unswept: Notify::new(),
            streams: Shares::new(limits.watch_streams()),
            audit_streams: Shares::new(limits.audit_streams()),
            audit_streams_of_tenants: Shares::new(limits.audit_streams_of_tenants()),
            stopping: tokio::sync::watch::Sender::new(false),
            parts,
        }
    }

    /// Puts a configuration in force, if it is not already.
    ///
    /// # Errors
    /// [`Refusal`] if the journal could not take it.
    pub async fn configure(&self, configuration: Configuration) -> Result<bool, Refusal> {
        let changed = self.decide(|| {
            let in_force = self.table.in_force();
            if configuration.is_named_by(&in_force.control) {
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
            let (basis, next) = (in_force.control.revision(), Some(configuration.clone()));
            Ok(Some(self.table.control(&envelope, None, basis, &fact, next)?))
        })?;
        let Some(changed) = changed else { return Ok(false) };
        self.table.durable(changed).await?;
        Ok(true)
    }

    /// Whether nothing that exists would change its tenant by this registry. Unless it is another one than before, it does
    /// not.
    pub fn keeps_tenants(&self, registry: &Registry) -> bool {
        if self.table.in_force().control.registry() == Some(registry.digest())
            || sabotage::on("tenants_change")
        {
            return true;
        }
        block_in_place(|| self.table.all(|tree| registry.keeps_tree(tree), |lock| registry.keeps_lock(lock)))
    }

    /// Whether policy lets an operator do something in its tenant.
    ///
    /// # Errors
    /// [`Refusal`] if the caller is nobody, or policy does not permit it.
    pub(crate) fn operate(
        &self,
        caller: &Caller,
        call: OperatorCall,
        selector: Option<&Selector>,
        in_force: &InForce,
        now: Now,
    ) -> Result<(CallerFacts, Permit), Refusal> {
        let who = self.facts_of(caller, in_force, now)?;
        let ask = Ask::Operate { call, tenant: who.tenant.clone(), selector: selector.cloned() };
        let basis = Basis { tree: Revision::ZERO, control: in_force.control.revision() };
        let permit = permitted(in_force, Request { caller: who.clone(), ask, time: now.judge, basis })?;
        Ok((who, permit))
    }

    /// A caller's turn to make a list, for as long as it is held. Nobody waits for more of them than its share.
    async fn list_turn(&self, caller: &Caller, tenant: &TenantName) -> Result<(Turn<'_>, Share), Refusal> {
        let share = self.lists.take(caller.spiffe_id())?;
        Ok((self.list_turns.take(tenant).await, share))
    }

    /// Completes when the daemon stops.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as the broker.
        let _stopped = stopping.wait_for(|stops| *stops).await;
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

    /// Notes what one workload of a tenant did: it is told to that tenant's auditors alone.
    ///
    /// # Errors
    /// [`AppendError`] if the journal does not take it, now or any more.
    pub fn note_of(
        &self,
        tenant: &TenantName,
        workload: &SpiffeId,
        fact: &Fact,
    ) -> Result<Undurable<()>, AppendError> {
        let nobody = self.envelope(self.clock.now(), None, None, None);
        let envelope = Envelope { tenant: Some(tenant.clone()), caller: Some(workload.clone()), ..nobody };
        self.table.note(&envelope, fact, None)
    }

    /// Records what has run out in a tree. That may be much: it is recorded a little at a time, and whoever shares the
    /// thread is served in between.
    ///
    /// # Errors
    /// [`Refusal`] if the journal does not take it now.
    pub(crate) async fn expire(
        &self,
        root: RootTaskId,
        judge: Timestamp,
        queued: &mut QueuedRecords,
    ) -> Result<Undurable<()>, Refusal> {
        let due = |ledger: &Ledger, _: &InForce| ledger.expire(judge);
        Ok(self.end_each(root, None, queued, due).await?.map(drop))
    }

    /// Before anyone is told that something in a tree has run out, the journal has it: then no clock can bring it
    /// back (invariant C3).
    async fn settle(&self, root: RootTaskId) -> Result<(), Refusal> {
        let expired = self.expire(root, self.clock.now().judge, &mut QueuedRecords::default()).await?;
        Ok(self.table.durable(expired).await?)
    }

    /// How many leases live.
    #[must_use]
    pub fn leases_live(&self) -> u64 {
        let judge = self.clock.now().judge;
        self.table.count(|ledger, control| {
            u64::from(ledger.leases_live_below(TaskId::root_of(ledger.root()), control, judge))
        })
    }

    fn envelope(
        &self,
        now: Now,
        who: Option<&CallerFacts>,
        tree: Option<RootTaskId>,
        request_id: Option<&RequestId>,
    ) -> Envelope {
        Envelope {
            incarnation: self.table.journal().incarnation(),
            at: now,
            tenant: who.map(|facts| facts.tenant.clone()),
            tree,
            caller: who.map(|facts| facts.spiffe_id.clone()),
            request_id: request_id.cloned(),
        }
    }

    /// What the configuration in force says of the caller. It was verified before this was decided: if its trust
    /// domain has been taken away meanwhile, or belongs to no tenant, it is nobody (invariant P3).
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
///
/// INVARIANT: the JSON form of an ask is a promise: with another one, no retry from before an upgrade is recognised (L9).
fn body_of(method: &str, ask: &impl Serialize) -> RequestDigest {
    // The types of an ask all have a JSON form; if one had none, no retry of it would be taken for the same.
    let body = serde_json::to_vec(ask).unwrap_or_default();
    RequestDigest::of(&[method.as_bytes(), &body])
}

/// What a caller is told of a denial: that there is one. Which policies determined it is the audit's.
fn denied(denial: Denial) -> Refusal {
    let mut refusal = Refusal::new(Kind::Denied, "policy_denied", "policy does not permit this");
    refusal.cause = Some(denial.cause).filter(|_| !sabotage::on("denials_unexplained"));
    refusal.evidence = Some(Box::new(denial.evidence));
    refusal
}

#[cfg(test)]
mod tests;
