//! Leases as operators see them: what has been issued in their tenant, and how to end it while the tasks go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use brevet_core::control::Control;
use brevet_core::fact::{Fact, LeaseOutcome, ReasonCode};
use brevet_core::id::{LeaseId, LeaseKey};
use brevet_core::ledger::{Ending, Ledger};
use brevet_core::lock::Selector;
use brevet_core::proof::{Caller, Permit};
use brevet_core::request::{CallerFacts, OperatorCall};
use brevet_core::revision::Revision;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::terms::Terms;
use brevet_core::time::Timestamp;

use super::ending::QueuedRecords;
use super::{Broker, Refusal};
use crate::metrics::DecisionOutcome;
use crate::table::InForce;

/// How many of the leases that a selector matches are named in the answer, so that it fits a message: all are counted.
const NAMED_MAX: usize = 100;

/// A lease as it is shown.
#[derive(Debug, Clone)]
pub struct LeaseView {
    /// Everything that was signed, but for the revision.
    pub terms: Arc<Terms>,
    /// The agent that it was issued to.
    pub agent: SpiffeId,
    /// How it ended; none while it lives.
    pub ending: Option<Ending<LeaseOutcome>>,
    /// The lease that it was asked for in place of.
    pub renews: Option<LeaseKey>,
    /// The revision it was issued at.
    pub issued: Revision,
    /// The newest change that this reading contains.
    pub revision: Revision,
}

/// Where a lease is in its life: none is live.
pub type LeaseState = Option<LeaseOutcome>;

/// Which leases are listed.
#[derive(Debug, Clone, Default)]
pub struct LeaseFilter {
    /// In this state only.
    pub state: Option<LeaseState>,
    /// Only those that this matches.
    pub selector: Option<Selector>,
    /// Behind this one.
    pub after: Option<LeaseId>,
    /// At most so many.
    pub limit: usize,
}

/// What the leases that a selector matches came to, or would come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// How many they are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<LeaseId>,
    /// The last change that this tells of.
    pub revision: Revision,
}

impl Broker {
    /// Shows a lease of the operator's tenant.
    ///
    /// # Errors
    /// [`Refusal`]; unknown and foreign are the same.
    pub async fn get_lease(&self, caller: &Caller, lease: LeaseId) -> Result<LeaseView, Refusal> {
        let now = self.clock.now();
        let (who, _) = self.operate(caller, OperatorCall::ListLeases, None, &self.table.in_force(), now)?;
        self.in_tenant(lease, &who)?;
        self.lease_view(lease).await?.ok_or_else(Refusal::not_found)
    }

    /// Lists the leases of the operator's tenant, in the order of their ids.
    ///
    /// # Errors
    /// [`Refusal`] if the caller may not see them, or the journal is sealed.
    pub async fn list_leases(&self, caller: &Caller, filter: LeaseFilter) -> Result<Vec<LeaseView>, Refusal> {
        // 1. Who asks, and whether it may.
        let now = self.clock.now();
        let selector = filter.selector.as_ref();
        let (who, _) =
            self.operate(caller, OperatorCall::ListLeases, selector, &self.table.in_force(), now)?;

        // 2. Which leases: that walks every tree, so only few do it at once, and none on a thread that serves calls.
        let turn = self.list_turn(caller, &who.tenant).await?;
        let mut first = First::new(filter.limit);
        let walked = tokio::task::block_in_place(|| {
            self.table.read_all(|ledger, in_force| {
                let is_own = *ledger.tenant() == who.tenant;
                is_own.then(|| listed(ledger, &filter, &in_force.control, now.judge, &mut first))
            })
        });
        drop(turn);

        // 3. The first of them, as they are now.
        let first = self.table.durable(walked.map(|_| first)).await?;
        let mut leases = Vec::with_capacity(first.ids.len());
        for lease in first.ids {
            leases.extend(self.lease_view(lease).await?);
        }
        Ok(leases)
    }

    /// Ends a lease of the operator's tenant while its task goes on. To revoke it twice is to revoke it once.
    ///
    /// # Errors
    /// [`Refusal`]; the lease is as it was then.
    pub async fn revoke_lease(
        &self,
        caller: &Caller,
        lease: LeaseId,
        reason: ReasonCode,
    ) -> Result<LeaseView, Refusal> {
        // 1. Who asks, and whether it may. Policy is asked about the least selection that has the lease in it: its task.
        let now = self.clock.now();
        let task = Selector::Task(lease.task);
        let (who, permit) =
            self.operate(caller, OperatorCall::RevokeLeases, Some(&task), &self.table.in_force(), now)?;
        self.in_tenant(lease, &who)?;

        // 2. One fact ends it, and the answer waits for it.
        let by = Some((&who, Some(permit.evidence())));
        self.metrics.decided(DecisionOutcome::Permitted);
        self.end_lease_if(lease, LeaseOutcome::Revoked, reason, by, || true).await?;
        self.lease_view(lease).await?.ok_or_else(Refusal::not_found)
    }

    /// Ends every live lease of the operator's tenant that a selector matches, while the tasks go on.
    ///
    /// # Errors
    /// [`Refusal`]; if it comes from the journal, some may have ended.
    pub async fn revoke_leases(
        self: &Arc<Self>,
        caller: &Caller,
        selector: Selector,
        reason: ReasonCode,
    ) -> Result<Revoked, Refusal> {
        // 1. Who asks, and whether it may.
        let now = self.clock.now();
        let (who, permit) =
            self.operate(caller, OperatorCall::RevokeLeases, Some(&selector), &self.table.in_force(), now)?;

        // 2. Tree after tree, whether or not the client is still there.
        self.metrics.decided(DecisionOutcome::Permitted);
        let broker = Arc::clone(self);
        let revoking = async move { broker.revoke_everywhere(&selector, &reason, &who, &permit).await };
        tokio::spawn(revoking).await.map_err(|_| Refusal::outcome_unknown("revocation_failed"))?
    }

    /// What [`Self::revoke_leases`] would end now; nothing is.
    ///
    /// # Errors
    /// [`Refusal`] if the caller may not do it, or the journal is sealed.
    pub async fn preview_revocation(&self, caller: &Caller, selector: &Selector) -> Result<Revoked, Refusal> {
        let now = self.clock.now();
        let (who, _) =
            self.operate(caller, OperatorCall::RevokeLeases, Some(selector), &self.table.in_force(), now)?;
        let turn = self.list_turn(caller, &who.tenant).await?;
        let mut first = First::new(NAMED_MAX);
        let counted = tokio::task::block_in_place(|| {
            self.table.read_all(|ledger, InForce { control, .. }| {
                let matched = (*ledger.tenant() == who.tenant)
                    .then(|| ledger.end_matching(selector, &ReasonCode::of("preview"), control, now.judge))?;
                let leases: Vec<LeaseId> = matched.iter().flat_map(leases_of).collect();
                leases.iter().for_each(|lease| first.add(*lease));
                u64::try_from(leases.len()).ok()
            })
        });
        drop(turn);
        let revision = counted.revision();
        let count = self.table.durable(counted).await?.into_iter().sum();
        Ok(Revoked { count, first: first.ids.into_iter().collect(), revision })
    }

    async fn revoke_everywhere(
        &self,
        selector: &Selector,
        reason: &ReasonCode,
        who: &CallerFacts,
        permit: &Permit,
    ) -> Result<Revoked, Refusal> {
        // What is issued meanwhile is not meant, so that an agent which goes on asking does not keep this going.
        let newest = self.table.journal().head().newest;
        let mut queued = QueuedRecords::default();
        let mut revoked = self.table.read_control(|_| (0, Vec::new()));
        for root in self.table.roots(Some(&who.tenant)) {
            let matching = |ledger: &Ledger, in_force: &InForce| {
                let judge = self.clock.now().judge;
                let facts = ledger.end_matching(selector, reason, &in_force.control, judge);
                facts.into_iter().filter_map(|fact| issued_until(ledger, fact, newest)).collect()
            };
            let ended = self.end_each(root, Some((who, permit.evidence())), &mut queued, matching).await?;
            revoked = revoked.and(ended, |(count, first): (u64, Vec<LeaseId>), ended| {
                let leases: Vec<LeaseId> = ended.iter().flat_map(leases_of).collect();
                let more = u64::try_from(leases.len()).unwrap_or(u64::MAX);
                let first = first.into_iter().chain(leases).take(NAMED_MAX).collect();
                (count.saturating_add(more), first)
            });
            tokio::task::yield_now().await;
        }
        let revision = revoked.revision();
        let (count, first) = self.table.durable(revoked).await?;
        Ok(Revoked { count, first, revision })
    }

    /// Leases of other tenants are as if they were not.
    fn in_tenant(&self, lease: LeaseId, who: &CallerFacts) -> Result<(), Refusal> {
        let found = self.table.view(lease.task.root(), |ledger| {
            *ledger.tenant() == who.tenant && ledger.lease(lease).is_some()
        });
        if found == Some(true) { Ok(()) } else { Err(Refusal::not_found()) }
    }

    async fn lease_view(&self, lease: LeaseId) -> Result<Option<LeaseView>, Refusal> {
        let judge = self.clock.now().judge;
        let root = lease.task.root();
        let view = self.table.read(root, |ledger, in_force| view_of(ledger, lease, &in_force.control, judge));
        let Some(view) = view else { return Ok(None) };
        let view = self.table.durable(view).await?;
        if view.as_ref().is_some_and(|view| view.ending.is_some()) {
            self.settle(root).await?;
        }
        Ok(view)
    }
}

fn view_of(ledger: &Ledger, id: LeaseId, control: &Control, judge: Timestamp) -> Option<LeaseView> {
    let lease = ledger.lease(id)?;
    Some(LeaseView {
        terms: Arc::clone(lease.terms()),
        agent: ledger.task(id.task)?.opened().agent.clone(),
        ending: ledger.lease_ending(id, control, judge),
        renews: lease.renews(),
        issued: lease.revision(),
        revision: ledger.version().max(control.revision()),
    })
}

/// The first of many leases, in the order of their ids: no more are held than there may be.
struct First {
    ids: BTreeSet<LeaseId>,
    max: usize,
}

impl First {
    const fn new(max: usize) -> Self {
        Self { ids: BTreeSet::new(), max }
    }

    /// Whether one belongs to the first, of those there are so far.
    fn takes(&self, lease: LeaseId) -> bool {
        self.ids.len() < self.max || self.ids.last().is_some_and(|last| lease < *last)
    }

    fn add(&mut self, lease: LeaseId) {
        if self.takes(lease) {
            self.ids.insert(lease);
            if self.ids.len() > self.max {
                self.ids.pop_last();
            }
        }
    }
}

/// Adds the leases of one tree that a filter lets through.
fn listed(ledger: &Ledger, filter: &LeaseFilter, control: &Control, judge: Timestamp, first: &mut First) {
    for task in ledger.tasks() {
        let id = task.opened().id;
        let whole = filter.selector.as_ref().is_none_or(|it| it.stops_task(id, ledger.path(id)));
        for terms in task.leases().map(|lease| lease.terms()) {
            let lease = terms.id;
            let is_meant = whole || filter.selector.as_ref().is_some_and(|it| it.stops_terms(terms));
            let is_behind = filter.after.is_none_or(|after| lease > after);
            let in_state = || {
                let ending = ledger.lease_ending(lease, control, judge);
                filter.state.is_none_or(|wanted| ending.map(|ending| ending.outcome) == wanted)
            };
            if is_meant && is_behind && first.takes(lease) && in_state() {
                first.add(lease);
            }
        }
    }
}

/// The fact as far as it ends what was issued by then; none if that is nothing.
fn issued_until(ledger: &Ledger, fact: Fact, newest: Revision) -> Option<Fact> {
    let Fact::LeasesEnded { task, mut leases, outcome, reason, since } = fact else { return None };
    leases.retain(|key| {
        ledger.lease(LeaseId { task, key: *key }).is_some_and(|lease| lease.revision() <= newest)
    });
    (!leases.is_empty()).then_some(Fact::LeasesEnded { task, leases, outcome, reason, since })
}

fn leases_of(fact: &Fact) -> Vec<LeaseId> {
    match fact {
        Fact::LeasesEnded { task, leases, .. } => {
            leases.iter().map(|key| LeaseId { task: *task, key: *key }).collect()
        }
        _ => Vec::new(),
    }
}
