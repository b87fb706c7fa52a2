//! The whole state as the fold of the journal: what a restart rebuilds, and the oracle that every test of the table
//! compares with.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::digest::{BearerDigest, StateDigest};
use crate::fact::{BearerBound, Envelope, Fact};
use crate::id::{RootTaskId, TaskId};
use crate::ledger::Ledger;
use crate::revision::Revision;
use crate::time::Timestamp;

/// The version of a snapshot. Unlike a record, a snapshot of another version is not read: the records are.
const FORMAT: u32 = 6;

#[derive(Serialize, Deserialize)]
struct Snapshot<S> {
    v: u32,
    state: S,
}

/// Every task tree and what binds them, as of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// The last record folded in.
    pub revision: Revision,
    /// The highest judging time ever recorded that was not suspect: the mark that the next start's clock begins at.
    pub judged: Timestamp,
    /// What binds every tree.
    pub control: Control,
    /// The tokens of bearers that could still be shown, and what they are bound to.
    pub bearers: BTreeMap<BearerDigest, BearerBound>,
    /// The trees.
    pub trees: BTreeMap<RootTaskId, Ledger>,
}

impl State {
    /// Folds one record.
    pub fn apply(&mut self, envelope: &Envelope, fact: &Fact, revision: Revision) {
        self.revision = revision;
        if !envelope.at.suspect {
            self.judged = self.judged.max(envelope.at.judge);
        }
        self.control.apply(fact, revision, envelope.at);
        if let Fact::BearerBound(bound) = fact {
            // By the issuing clock, which is never ahead: what could still be shown is kept. To look at all of them each time
            // would make a replay of many take for ever.
            if self.bearers.len().is_power_of_two() {
                self.bearers.retain(|_, earlier| earlier.until > envelope.at.issue);
            }
            self.bearers.entry(bound.token).or_insert_with(|| bound.clone());
        }
        let Some(root) = envelope.tree else { return };
        match (self.trees.get_mut(&root), fact, &envelope.tenant) {
            (Some(ledger), fact, _) => ledger.apply(fact, envelope, revision),
            (None, Fact::TaskOpened(opened), Some(tenant)) if opened.id == TaskId::root_of(root) => {
                self.trees.insert(root, Ledger::begun_by(opened, tenant.clone(), revision));
            }
            (None, _, _) => {}
        }
    }

    /// Drops the trees of which nobody has to be told any more. That changes nothing that lives: their root has ended.
    pub fn forget(&mut self, now: Timestamp, kept: Duration) {
        self.trees.retain(|_, ledger| ledger.forgotten_at(kept).is_none_or(|at| at > now));
    }

    /// The state as a snapshot stores it.
    ///
    /// # Errors
    /// None in practice: every part has a JSON form.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Snapshot { v: FORMAT, state: self })
    }

    /// A state from a snapshot. None if another version of this program wrote it: the records have it all.
    ///
    /// # Errors
    /// If the bytes are no snapshot.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        let Snapshot::<IgnoredAny> { v, state: _ } = serde_json::from_slice(bytes)?;
        if v != FORMAT {
            return Ok(None);
        }
        serde_json::from_slice(bytes).map(|snapshot: Snapshot<Self>| Some(snapshot.state))
    }

    /// The digest of a snapshot's bytes, which a record of the journal vouches for.
    #[must_use]
    pub fn digest(snapshot: &[u8]) -> StateDigest {
        StateDigest::of(&[snapshot])
    }
}

#[cfg(test)]
mod tests;
