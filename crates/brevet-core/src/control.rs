//! Control: what binds every task tree. Locks, the registry's and the policies' digests, and the revision of the
//! newest change among them, which every decision names as part of its basis.

use std::collections::{BTreeMap, BTreeSet};

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

/// The fold of all control facts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Control {
    revision: Revision,
    policy: Option<PolicyDigest>,
    registry: Option<RegistryDigest>,
    trust: Option<TrustDigest>,
    locks: BTreeMap<LockId, LockRecord>,
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

    /// Every lock whose record is kept, lifted ones too until their sweep is durable.
    #[must_use]
    pub const fn locks(&self) -> &BTreeMap<LockId, LockRecord> {
        &self.locks
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
                self.locks.entry(lock.id).or_insert(record);
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
        // A lock that forbids nothing any more is forgotten once all that it killed has an ending of its own. That
        // its time is over is not believed to a clock in doubt.
        let over = |record: &LockRecord| match record.lifted {
            Some(_) => true,
            None => !at.suspect && !record.forbids_issue(at.judge),
        };
        let swept = |record: &LockRecord| record.swept.is_some() || sabotage::on("lift_revives");
        self.locks.retain(|_, record| !swept(record) || !over(record));
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
