//! The emergency stop: pulling it, looking at it and lifting it, as an operator over the network or over the local root
//! socket, which no lock binds.

use std::collections::{BTreeMap, Bound};
use std::sync::Arc;
use std::time::Duration;

use brevet_core::control::Control;
use brevet_core::fact::{Envelope, Fact};
use brevet_core::id::{LockId, TaskId};
use brevet_core::ledger::Ledger;
use brevet_core::lock::{Hop, Lock, LockRecord, Selector};
use brevet_core::name::{RequestId, TenantName};
use brevet_core::proof::{Caller, Evidence, Permit};
use brevet_core::request::{CallerFacts, OperatorCall};
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::{Now, Timestamp};
use tracing::warn;

use super::{Broker, Kind, Refusal};
use crate::metrics::DecisionOutcome;
use crate::table::{InForce, Undurable};

/// Who pulls emergency stops and lifts them.
#[derive(Debug, Clone)]
pub enum LockCaller {
    /// An operator, for its tenant, as policy lets it.
    Operator(Arc<Caller>),
    /// A process at the local root socket, for all tenants. Neither policy nor any lock is asked: there may be none that
    /// lets anybody through.
    Root {
        /// Its user: the daemon's own, or root.
        uid: u32,
    },
}

/// What is asked for when an emergency stop is pulled.
#[derive(Debug, Clone)]
pub struct LockAsk {
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// What it stops.
    pub selector: Selector,
    /// What the stopped party is told.
    pub message: String,
    /// How long it forbids new issue; none means until it is lifted.
    pub lifetime: Option<Duration>,
}

/// A lock as it is shown.
#[derive(Debug, Clone)]
pub struct LockView {
    /// The lock with its life.
    pub record: LockRecord,
    /// Whether it forbids new issue.
    pub in_force: bool,
}

impl LockView {
    fn of(record: LockRecord, judge: Timestamp) -> Self {
        Self { in_force: record.forbids_issue(judge), record }
    }
}

/// Which locks are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct LockFilter {
    /// Behind this one.
    pub after: Option<LockId>,
    /// At most so many.
    pub limit: usize,
}

/// In whose name something is done to locks, and why it may be.
struct Authority {
    operator: Option<(CallerFacts, Permit)>,
}

impl Authority {
    /// The tenant that it reaches; none is all of them.
    const fn tenant(&self) -> Option<&TenantName> {
        match &self.operator {
            Some((who, _)) => Some(&who.tenant),
            None => None,
        }
    }

    /// The creator's part of a lock's id.
    fn creator(&self) -> &str {
        self.operator.as_ref().map_or("", |(who, _)| who.spiffe_id.as_str())
    }

    const fn evidence(&self) -> Option<&Evidence> {
        match &self.operator {
            Some((_, permit)) => Some(permit.evidence()),
            None => None,
        }
    }
}

impl Broker {
    /// Pulls the emergency stop. It has taken effect when this answers, and cannot be lost.
    ///
    /// # Errors
    /// [`Refusal`]; there is no such lock then, unless the journal was sealed before it was durable.
    pub async fn create_lock(&self, by: &LockCaller, ask: LockAsk) -> Result<LockView, Refusal> {
        self.record_root_use(by, "CreateLock", Some(&ask.request_id)).await?;
        let created = self.decide(|| self.try_create_lock(by, &ask))?;
        let record = self.table.durable(created).await?;
        Ok(LockView::of(record, self.clock.now().judge))
    }

    fn try_create_lock(&self, by: &LockCaller, ask: &LockAsk) -> Result<Undurable<LockRecord>, Refusal> {
        // 1. Who asks, and whether it may. The clock may be in doubt: stopping is safe at any time.
        let now = self.clock.now();
        let in_force = self.table.in_force();
        let authority =
            self.authority_over_locks(by, OperatorCall::CreateLock, Some(&ask.selector), &in_force, now)?;
        let tenant = authority.tenant();

        // 2. A retry finds its lock by the id that the same request always gets, and a late one finds it lifted.
        let id = self.state_key.lock_id(tenant, authority.creator(), &ask.request_id);
        if let Some(before) = in_force.control.lock(id) {
            return if is_same(before, ask) {
                Ok(self.table.read_control(|_| before.clone()))
            } else {
                Err(Refusal::request_id_reused())
            };
        }

        // 3. One tenant's locks leave room for another's, and no number of them stops root. Those that are lifted before
        //    they are swept are still matched, and as many of them again may wait for that.
        let past = in_force.control.past().values().filter(|_| sabotage::on("past_locks_count"));
        let of_tenant = in_force
            .control
            .locks()
            .values()
            .filter(|record| record.forbids_issue(now.judge))
            .chain(past)
            .filter(|record| record.lock.tenant.as_ref() == tenant);
        if tenant.is_some() && of_tenant.count() >= self.limits.locks_max() {
            let text = "the tenant has as many locks as it may: lift some";
            return Err(Refusal::new(Kind::Exhausted, "locks_max", text));
        }
        let of_tenant =
            in_force.control.locks().values().filter(|record| record.lock.tenant.as_ref() == tenant);
        if tenant.is_some() && of_tenant.count() >= self.limits.locks_max().saturating_mul(2) {
            let text = "too many of the tenant's locks are not swept yet: try again later";
            return Err(Refusal::new(Kind::Exhausted, "locks_max", text));
        }

        // 4. The journal first, then at once for everybody: what was decided under the control revision before it
        //    cannot commit any more (invariant T6).
        let lock = Lock {
            id,
            tenant: tenant.cloned(),
            selector: ask.selector.clone(),
            message: ask.message.clone(),
            until: ask.lifetime.map(|lifetime| now.judge.after(lifetime)),
        };
        let fact = Fact::LockCreated(lock.clone());
        let pulled = self.change_locks(&authority, &in_force, Some(&ask.request_id), &fact, now)?;

        // 5. What it has killed gets endings of its own from the sweep, which nothing waits for.
        self.unswept.notify_one();
        warn!(lock = %lock.id, kind = lock.selector.kind(), tenant = tenant.map(TenantName::as_str), "a lock was created");
        let created = pulled.revision();
        Ok(pulled.map(|()| LockRecord { lock, created, created_at: now.judge, lifted: None, swept: None }))
    }

    /// Shows a lock.
    ///
    /// # Errors
    /// [`Refusal`]; unknown and foreign are the same.
    pub async fn get_lock(&self, by: &LockCaller, lock: LockId) -> Result<LockView, Refusal> {
        let now = self.clock.now();
        let authority =
            self.authority_over_locks(by, OperatorCall::ListLocks, None, &self.table.in_force(), now)?;
        let found = self.table.read_control(|in_force| found(authority.tenant(), &in_force.control, lock));
        Ok(LockView::of(self.table.durable(found).await??, now.judge))
    }

    /// Lists the locks that are kept, in the order of their ids.
    ///
    /// # Errors
    /// [`Refusal`] if the caller may not see them, or the journal is sealed.
    pub async fn list_locks(&self, by: &LockCaller, filter: LockFilter) -> Result<Vec<LockView>, Refusal> {
        let now = self.clock.now();
        let authority =
            self.authority_over_locks(by, OperatorCall::ListLocks, None, &self.table.in_force(), now)?;
        let found = self.table.read_control(|in_force| {
            let control = &in_force.control;
            let behind = filter.after.map_or(Bound::Unbounded, Bound::Excluded);
            let first = |locks: &BTreeMap<LockId, LockRecord>| -> Vec<LockRecord> {
                let locks = locks.range((behind, Bound::Unbounded)).map(|(_, record)| record);
                locks.filter(|record| sees(authority.tenant(), record)).take(filter.limit).cloned().collect()
            };
            let mut seen = first(control.locks());
            seen.extend(first(control.past()));
            seen.sort_by_key(|record| record.lock.id);
            seen.truncate(filter.limit);
            seen.into_iter().map(|record| LockView::of(record, now.judge)).collect()
        });
        Ok(self.table.durable(found).await?)
    }

    /// Lifts a lock: new issue is permitted from then on, and what it has killed stays dead.
    ///
    /// # Errors
    /// [`Refusal`]; the lock is in force then, unless the journal was sealed before its lifting was durable.
    pub async fn lift_lock(&self, by: &LockCaller, lock: LockId) -> Result<LockView, Refusal> {
        self.record_root_use(by, "LiftLock", None).await?;
        let lifted = self.decide(|| self.try_lift_lock(by, lock))?;
        let record = self.table.durable(lifted).await?;
        Ok(LockView::of(record, self.clock.now().judge))
    }

    fn try_lift_lock(&self, by: &LockCaller, lock: LockId) -> Result<Undurable<LockRecord>, Refusal> {
        // 1. Which lock, if it is the caller's to see: what policy is asked depends on what it stops.
        let now = self.clock.now();
        let in_force = self.table.in_force();
        let control = &in_force.control;
        let tenant = match by {
            LockCaller::Operator(caller) => Some(self.facts_of(caller, &in_force, now)?.tenant),
            LockCaller::Root { .. } => None,
        };
        let mut record = found(tenant.as_ref(), control, lock)?;

        // 2. Who asks, and whether it may.
        let selector = record.lock.selector.clone();
        let authority =
            self.authority_over_locks(by, OperatorCall::LiftLock, Some(&selector), &in_force, now)?;

        // 3. Nobody frees itself, and no tenant frees the others.
        if let Some((who, _)) = &authority.operator {
            if record.lock.tenant.is_none() {
                let text = "it stops all tenants, so that the local root socket alone lifts it";
                return Err(Refusal::new(Kind::Precondition, "locked", text));
            }
            if self.stops(&record.lock.selector, &who.spiffe_id, &in_force)
                && !sabotage::on("stopped_lift_their_locks")
            {
                return Err(Refusal::locked(lock).with_message(control));
            }
        }

        // 4. To lift it twice is to lift it once, and what is over by itself is not lifted any more.
        if record.lifted.is_some() || control.past().contains_key(&lock) {
            return Ok(self.table.read_control(|_| record));
        }
        let fact = Fact::LockLifted { lock, proposer: None, confirmers: Vec::new() };
        let lifted = self.change_locks(&authority, &in_force, None, &fact, now)?;
        warn!(%lock, "a lock was lifted");
        record.lifted = Some(now.judge);
        Ok(lifted.map(|()| record))
    }

    /// How many locks forbid new issue.
    #[must_use]
    pub fn locks_in_force(&self) -> u64 {
        let judge = self.clock.now().judge;
        let in_force = self.table.in_force();
        let forbidding = in_force.control.locks().values().filter(|record| record.forbids_issue(judge));
        u64::try_from(forbidding.count()).unwrap_or(u64::MAX)
    }

    /// Whether a lock stops an operator, under whichever of its identities and in whichever part.
    fn stops(&self, selector: &Selector, who: &SpiffeId, in_force: &InForce) -> bool {
        let person = in_force.registry().operator(who).map(|operator| &operator.identities);
        person.into_iter().flatten().chain([who]).any(|identity| match selector {
            Selector::Task(task) => {
                let party = |hop: Hop<'_>| [hop.agent, hop.delegator, hop.opener].contains(&identity);
                self.table.view(task.root(), |ledger| ledger.path(*task).any(party)) == Some(true)
            }
            Selector::Delegator(delegator) => delegator == identity,
            _ => selector.stops_workload(identity),
        })
    }

    /// Whether the caller may do something to locks.
    fn authority_over_locks(
        &self,
        by: &LockCaller,
        call: OperatorCall,
        selector: Option<&Selector>,
        in_force: &InForce,
        now: Now,
    ) -> Result<Authority, Refusal> {
        let operator = match by {
            LockCaller::Operator(caller) => Some(self.operate(caller, call, selector, in_force, now)?),
            LockCaller::Root { .. } => None,
        };
        Ok(Authority { operator })
    }

    fn change_locks(
        &self,
        authority: &Authority,
        in_force: &InForce,
        request_id: Option<&RequestId>,
        fact: &Fact,
        now: Now,
    ) -> Result<Undurable<()>, Refusal> {
        let who = authority.operator.as_ref().map(|(who, _)| who);
        let envelope = self.envelope(now, who, None, request_id);
        let basis = in_force.control.revision();
        let changed = self.table.control(&envelope, authority.evidence(), basis, fact, None)?;
        self.metrics.decided(DecisionOutcome::Permitted);
        Ok(changed)
    }

    /// What is done over the root socket is on record, and has raised its alarm, before it is done.
    async fn record_root_use(
        &self,
        by: &LockCaller,
        method: &'static str,
        request_id: Option<&RequestId>,
    ) -> Result<(), Refusal> {
        let LockCaller::Root { uid } = by else { return Ok(()) };
        self.metrics.root_socket_used();
        warn!(uid, method, "the root socket is used");
        if sabotage::on("root_unrecorded") {
            return Ok(());
        }
        let fact = Fact::RootSocketUsed { uid: *uid, method: method.to_owned() };
        let envelope =
            Envelope { request_id: request_id.cloned(), ..self.envelope(self.clock.now(), None, None, None) };
        let noted = self.table.note(&envelope, &fact, None)?;
        Ok(self.table.durable(noted).await?)
    }
}

/// The lock, if it is the caller's to see.
fn found(tenant: Option<&TenantName>, control: &Control, lock: LockId) -> Result<LockRecord, Refusal> {
    let found = control.lock(lock).filter(|record| sees(tenant, record));
    found.cloned().ok_or_else(Refusal::not_found)
}

/// Whether a lock is somebody's to see: a tenant sees what binds it.
fn sees(tenant: Option<&TenantName>, record: &LockRecord) -> bool {
    tenant.is_none_or(|tenant| record.binds(tenant))
}

/// Whether a lock is what is asked for once more: it says all that was asked then.
fn is_same(record: &LockRecord, ask: &LockAsk) -> bool {
    let lock = &record.lock;
    lock.selector == ask.selector
        && lock.message == ask.message
        && lock.until == ask.lifetime.map(|lifetime| record.created_at.after(lifetime))
}

/// The lock that has killed a task, or the one it was delegated from, while its record is kept.
pub(super) fn killer(ledger: &Ledger, task: TaskId, control: &Control) -> Option<LockId> {
    let killed = |id: TaskId| {
        let opened = ledger.task(id)?.revision();
        let lock = control.lock_on_task(ledger.tenant(), id, opened, || ledger.path(id))?;
        Some(lock.lock.id)
    };
    let hops = ledger
        .path(task)
        .map(|hop| TaskId::child_of(task.root(), hop.node).unwrap_or_else(|_| TaskId::root_of(task.root())));
    hops.into_iter().find_map(killed)
}
