//! Control: what binds every task tree. Locks, the registry's and the policies' digests, and the revision of the
//! newest change among them, which every decision names as part of its basis.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{PolicyDigest, RegistryDigest, TrustDigest};
use crate::fact::Fact;
use crate::id::{LockId, TaskId};
use crate::lock::{Hop, LockRecord};
use crate::name::TenantName;
use crate::revision::Revision;
use crate::terms::Terms;
use crate::time::Timestamp;

/// The fold of all control facts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Control {
    revision: Revision,
    policy: Option<PolicyDigest>,
    registry: Option<RegistryDigest>,
    trust: Option<TrustDigest>,
    locks: BTreeMap<LockId, LockRecord>,
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
    pub fn apply(&mut self, fact: &Fact, revision: Revision, judge: Timestamp) {
        match fact {
            Fact::ConfigurationLoaded { policy, registry, trust, .. } => {
                self.policy = Some(*policy);
                self.registry = Some(*registry);
                self.trust = Some(*trust);
            }
            Fact::LockCreated(lock) => {
                let record =
                    LockRecord { lock: lock.clone(), created: revision, created_at: judge, lifted: None };
                // INVARIANT: no lock takes the place of another, or what that has killed would live again.
                self.locks.entry(lock.id).or_insert(record);
            }
            Fact::LockLifted { lock, .. } => {
                if let Some(record) = self.locks.get_mut(lock) {
                    record.lifted = Some(judge);
                }
            }
            _ => return,
        }
        self.revision = revision;
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
            record.created > opened && record.binds(tenant) && record.lock.selector.stops_task(task, path())
        };
        self.locks.values().filter(killed).min_by_key(|record| record.created)
    }

    /// The first lock that has killed a lease recorded at `issued` by what the lease says, if one has.
    #[must_use]
    pub fn lock_on_terms(&self, tenant: &TenantName, terms: &Terms, issued: Revision) -> Option<&LockRecord> {
        let killed = |record: &&LockRecord| {
            record.created > issued && record.binds(tenant) && record.lock.selector.stops_terms(terms)
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
        self.locks.values().find(|record| {
            record.forbids_issue(judge)
                && record.binds(tenant)
                && record.lock.selector.stops_task(task, path())
        })
    }

    /// The lock that forbids to issue these terms now, if one does.
    #[must_use]
    pub fn lock_on_issue(&self, tenant: &TenantName, terms: &Terms, judge: Timestamp) -> Option<&LockRecord> {
        self.locks.values().find(|record| {
            record.forbids_issue(judge) && record.binds(tenant) && record.lock.selector.stops_terms(terms)
        })
    }
}

#[cfg(test)]
mod tests;
