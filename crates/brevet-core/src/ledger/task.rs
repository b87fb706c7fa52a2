//! One task and its leases, as facts left them. Whether they live is computed elsewhere: see `liveness.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{ClaimDigest, RequestDigest};
use crate::fact::{Holder, LeaseOutcome, Outcome, ReasonCode, TaskOpened};
use crate::id::{Id, LeaseKey};
use crate::name::RequestId;
use crate::revision::Revision;
use crate::sabotage;
use crate::terms::Terms;
use crate::time::Timestamp;

/// One task and its leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub(super) opened: Arc<TaskOpened>,
    pub(super) revision: Revision,
    pub(super) holder: Holder,
    pub(super) ended: Option<Closed<Outcome>>,
    /// The tasks that were delegated from it.
    pub(super) children: Vec<Id>,
    /// When it has something to record that time has ended, as long as no task on its path has an ending.
    pub(super) due: Timestamp,
    /// Leases with no ending of their own: few, for a quota bounds those that live.
    pub(super) open: BTreeMap<LeaseKey, Lease>,
    /// Leases with an ending of their own.
    pub(super) closed: BTreeMap<LeaseKey, Lease>,
    pub(super) answered: BTreeMap<RequestId, Answered>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub(super) terms: Arc<Terms>,
    pub(super) revision: Revision,
    pub(super) renews: Option<LeaseKey>,
    pub(super) ended: Option<Closed<LeaseOutcome>>,
}

/// A request that was answered, remembered as long as its task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) body: RequestDigest,
    pub(super) lease: LeaseKey,
}

/// How and when something ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending<O> {
    /// How.
    pub outcome: O,
    /// Why.
    pub reason: ReasonCode,
    /// When, by the judging clock. What only time or a lock has ended so far ended when that came.
    pub at: Timestamp,
}

/// An ending that a fact recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closed<O> {
    pub(super) ending: Ending<O>,
    /// When an ending was first recorded.
    pub(super) revision: Revision,
}

impl<O> Closed<O> {
    /// The first ending stays, unless another is recorded late and had taken effect before it: what a lock had killed
    /// before time ended it ended by the lock. The revision is that of the first one recorded: then it was told, and
    /// whoever was away is told of it once.
    pub(super) fn settle_in(self, ended: &mut Option<Self>, is_late: bool) {
        match ended {
            None => *ended = Some(self),
            Some(before) if is_late && self.ending.at < before.ending.at => before.ending = self.ending,
            Some(_) => {}
        }
    }
}

impl Task {
    pub(super) fn begun_by(opened: &Arc<TaskOpened>, revision: Revision) -> Self {
        Self {
            opened: Arc::clone(opened),
            revision,
            holder: opened.holder,
            ended: None,
            due: opened.deadline,
            children: Vec::new(),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    /// How it was opened.
    #[must_use]
    pub const fn opened(&self) -> &Arc<TaskOpened> {
        &self.opened
    }

    /// The revision it was opened at.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The agent instance it is bound to.
    #[must_use]
    pub const fn holder(&self) -> Holder {
        self.holder
    }

    /// Its leases, live and dead.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.open.values().chain(self.closed.values())
    }

    /// How many leases it was ever given.
    #[must_use]
    pub fn leases_issued(&self) -> usize {
        self.open.len().saturating_add(self.closed.len())
    }

    pub(super) fn lease(&self, key: LeaseKey) -> Option<&Lease> {
        self.open.get(&key).or_else(|| self.closed.get(&key))
    }

    /// Folds the issue of a lease.
    pub(super) fn add(&mut self, lease: Lease) {
        let key = lease.terms.id.key;
        // INVARIANT: no lease takes the place of another, dead or live.
        if self.lease(key).is_none() || sabotage::on("leases_replace_each_other") {
            self.due = self.due.min(lease.terms.end);
            self.open.insert(key, lease);
        }
    }

    /// Folds the ending of a lease.
    pub(super) fn close(&mut self, key: LeaseKey, closed: Closed<LeaseOutcome>, is_late: bool) {
        if let Some(lease) = self.open.remove(&key) {
            if lease.terms.end <= self.due {
                let ends = self.open.values().map(|lease| lease.terms.end);
                self.due = ends.fold(self.opened.deadline, Timestamp::min);
            }
            self.closed.insert(key, lease);
        }
        if let Some(lease) = self.closed.get_mut(&key) {
            closed.settle_in(&mut lease.ended, is_late);
        }
    }

    pub(super) fn admits(&self, terms: &Terms, claim: Option<ClaimDigest>) -> bool {
        match self.holder {
            Holder::Key(key) => key == terms.holder || sabotage::on("any_holder"),
            Holder::Claim(expected) => claim == Some(expected),
        }
    }
}

impl Lease {
    /// Everything that was signed, but for the revision.
    #[must_use]
    pub const fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// The revision it was issued at.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The lease of the same task that it was asked for in place of.
    #[must_use]
    pub const fn renews(&self) -> Option<LeaseKey> {
        self.renews
    }
}
