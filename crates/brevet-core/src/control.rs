//! Control: what binds every task tree. Locks, the registry's and the policies' digests, and the revision of the
//! newest change among them, which every decision names as part of its basis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::{PolicyDigest, RegistryDigest, TrustDigest};
use crate::fact::Fact;
use crate::id::{LockId, TaskId};
use crate::lock::{Hop, LockRecord, Swept};
use crate::name::TenantName;
use crate::revision::Revision;
use crate::sabotage;
use crate::terms::Terms;
use crate::time::{Now, Timestamp};

/// How long a lock is kept that is over, so that a late retry of its creation finds it and does not lock anew. Like the
/// next it is no configuration: the journal must fold to the same state whatever the configuration says.
const LOCK_KEPT: Duration = Duration::from_secs(86_400);

/// How many such locks of one tenant are kept. Of more the oldest is forgotten: no stop is refused because of old ones.
pub(crate) const LOCKS_KEPT_MAX: usize = 1_000;

/// The fold of all control facts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Control {
    revision: Revision,
    policy: Option<PolicyDigest>,
    registry: Option<RegistryDigest>,
    trust: Option<TrustDigest>,
    locks: BTreeMap<LockId, LockRecord>,
    /// Shared, for it seldom changes and may be long. A snapshot from before there was this has none.
    #[serde(default)]
    past: Arc<BTreeMap<LockId, LockRecord>>,
    /// A snapshot from before there was this has no sweep that is newer than itself, so that none is missed.
    #[serde(default)]
    sweeps: Sweeps,
}

/// The revision of the newest sweep that was recorded: of a lock for all tenants, and of each tenant's locks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Sweeps {
    for_all: Revision,
    of_tenant: BTreeMap<TenantName, Revision>,
}

impl Sweeps {
    fn record(&mut self, tenant: Option<&TenantName>, revision: Revision) {
        match tenant {
            None => self.for_all = revision,
            Some(tenant) => {
                self.of_tenant.insert(tenant.clone(), revision);
            }
        }
    }

    /// Whose sweeps are newer than a revision; none is those for all tenants.
    fn behind(&self, revision: Revision) -> impl Iterator<Item = Option<&TenantName>> {
        let of_tenant = self.of_tenant.iter().map(|(tenant, swept)| (Some(tenant), *swept));
        let all = of_tenant.chain([(None, self.for_all)]);
        all.filter(move |(_, swept)| *swept > revision).map(|(tenant, _)| tenant)
    }
}

impl Control {
    /// The revision of the newest control change: the control revision.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The policies in force.
    #[must_use]
    pub const fn policy(&self) -> Option<PolicyDigest> {
        self.policy
    }

    /// The registry in force.
    #[must_use]
    pub const fn registry(&self) -> Option<RegistryDigest> {
        self.registry
    }

    /// The bundles in force.
    #[must_use]
    pub const fn trust(&self) -> Option<TrustDigest> {
        self.trust
    }

    /// Every lock that is still matched: those in force, and lifted ones until their sweep is durable.
    #[must_use]
    pub const fn locks(&self) -> &BTreeMap<LockId, LockRecord> {
        &self.locks
    }

    /// The locks that are over and swept, as long as they are kept: they forbid nothing, and what they killed has
    /// endings of its own.
    #[must_use]
    pub fn past(&self) -> &BTreeMap<LockId, LockRecord> {
        &self.past
    }

    /// A lock, matched or past.
    #[must_use]
    pub fn lock(&self, id: LockId) -> Option<&LockRecord> {
        self.locks.get(&id).or_else(|| self.past.get(&id))
    }

    /// Folds one fact. Facts of a task tree change nothing here.
    pub fn apply(&mut self, fact: &Fact, revision: Revision, at: Now) {
        match fact {
            Fact::ConfigurationLoaded { policy, registry, trust, .. } => {
                self.policy = Some(*policy);
                self.registry = Some(*registry);
                self.trust = Some(*trust);
            }
            Fact::LockCreated(lock) => {
                let record = LockRecord {
                    lock: lock.clone(),
                    created: revision,
                    created_at: at.judge,
                    lifted: None,
                    swept: None,
                };
                // INVARIANT: no lock takes the place of another, or what that has killed would live again.
                if self.lock(lock.id).is_none() {
                    self.locks.insert(lock.id, record);
                }
            }
            Fact::LockLifted { lock, .. } => {
                if let Some(record) = self.locks.get_mut(lock) {
                    record.lifted = Some(at.judge);
                }
            }
            Fact::LockSwept { lock, tasks, leases } => {
                if let Some(record) = self.locks.get_mut(lock) {
                    record.swept = Some(Swept { tasks: *tasks, leases: *leases });
                    self.sweeps.record(record.lock.tenant.as_ref(), revision);
                }
            }
            _ => return,
        }
        self.revision = revision;
        self.retire_locks(at);
    }

    /// A lock that forbids nothing any more is past once all that it killed has an ending of its own, and forgotten some
    /// time after it was over. That its time is over is not believed to a clock in doubt.
    fn retire_locks(&mut self, at: Now) {
        let is_over = |record: &LockRecord| match record.lifted {
            Some(_) => true,
            None => !at.suspect && !record.forbids_issue(at.judge),
        };
        let is_swept = |record: &LockRecord| record.swept.is_some() || sabotage::on("lift_revives");
        let retired = self.locks.extract_if(.., |_, record| is_swept(record) && is_over(record));
        for (id, record) in retired.collect::<Vec<_>>() {
            let tenant = record.lock.tenant.clone();
            let past = Arc::make_mut(&mut self.past);
            past.insert(id, record);
            let of_tenant = past.values().filter(|record| record.lock.tenant == tenant);
            if of_tenant.clone().count() > LOCKS_KEPT_MAX
                && let Some(oldest) =
                    of_tenant.min_by_key(|record| record.created).map(|record| record.lock.id)
            {
                past.remove(&oldest);
            }
        }
        let is_kept = |record: &LockRecord| {
            let kept_until = record.over_since().map(|over| over.after(LOCK_KEPT));
            (at.suspect || kept_until.is_none_or(|until| at.judge < until))
                && !sabotage::on("past_locks_forgotten")
        };
        if !self.past.values().all(is_kept) {
            Arc::make_mut(&mut self.past).retain(|_, record| is_kept(record));
        }
    }

    /// The locks that have killed what has no ending of its own yet, if there is any.
    pub fn unswept(&self) -> impl Iterator<Item = &LockRecord> {
        self.locks.values().filter(|record| record.swept.is_none())
    }

    /// Tells of a tenant whether everything that locks up to a revision have killed of it has endings of its own up to
    /// there.
    ///
    /// A lock from up to there is still unswept, or it was swept: if only behind the revision, then the newest sweep is
    /// behind it too. So that is enough to know, and a lock that is forgotten needs no record.
    pub fn settled(&self, revision: Revision) -> impl Fn(&TenantName) -> bool {
        let unswept = self.unswept().filter(move |record| record.created <= revision);
        let mut unsettled: BTreeSet<_> = unswept.map(|record| record.lock.tenant.as_ref()).collect();
        if !sabotage::on("bookmark_before_swept_is_durable") {
            unsettled.extend(self.sweeps.behind(revision));
        }
        move |tenant| {
            let own = match sabotage::on("tenants_hold_each_other_up") {
                true => !unsettled.is_empty(),
                false => unsettled.contains(&Some(tenant)),
            };
            !own && !unsettled.contains(&None)
        }
    }

    /// The first lock that has killed a task recorded at `opened`, if one has.
    #[must_use]
    pub fn lock_on_task<'a, I: Iterator<Item = Hop<'a>>>(
        &self,
        tenant: &TenantName,
        task: TaskId,
        opened: Revision,
        path: impl Fn() -> I,
    ) -> Option<&LockRecord> {
        let killed = |record: &&LockRecord| {
            record.kills(opened) && record.binds(tenant) && record.lock.selector.stops_task(task, path())
        };
        self.locks.values().filter(killed).min_by_key(|record| record.created)
    }

    /// Whether there is any lock, in force or not.
    pub(crate) fn has_locks(&self) -> bool {
        !self.locks.is_empty()
    }

    /// The first lock that has killed a lease recorded at `issued` by what the lease says, if one has.
    #[must_use]
    pub fn lock_on_terms(&self, tenant: &TenantName, terms: &Terms, issued: Revision) -> Option<&LockRecord> {
        let killed = |record: &&LockRecord| {
            record.kills(issued) && record.binds(tenant) && record.lock.selector.stops_terms(terms)
        };
        self.locks.values().filter(killed).min_by_key(|record| record.created)
    }

    /// The lock that forbids to open a task now, if one does.
    #[must_use]
    pub fn lock_on_opening<'a, I: Iterator<Item = Hop<'a>>>(
        &self,
        tenant: &TenantName,
        task: TaskId,
        judge: Timestamp,
        path: impl Fn() -> I,
    ) -> Option<&LockRecord> {
        if sabotage::on("locks_forbid_nothing") {
            return None;
        }
        self.locks.values().find(|record| {
            record.forbids_issue(judge)
                && record.binds(tenant)
                && record.lock.selector.stops_task(task, path())
        })
    }

    /// The lock that forbids to issue these terms now, if one does.
    #[must_use]
    pub fn lock_on_issue(&self, tenant: &TenantName, terms: &Terms, judge: Timestamp) -> Option<&LockRecord> {
        if sabotage::on("locks_forbid_nothing") {
            return None;
        }
        self.locks.values().find(|record| {
            record.forbids_issue(judge) && record.binds(tenant) && record.lock.selector.stops_terms(terms)
        })
    }
}

#[cfg(test)]
mod tests;
