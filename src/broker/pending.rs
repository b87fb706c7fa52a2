//! Endings of one tree that were found together and are recorded one after the other.
//!
//! A tree is searched once for all of them and once more at the end, and not for each: a wide one has thousands.

use std::collections::VecDeque;

use brevet_core::fact::Fact;
use brevet_core::ledger::Ledger;

/// What is left to record.
#[derive(Debug, Default)]
pub(super) struct Pending(VecDeque<Fact>);

impl Pending {
    /// The next ending, as far as nothing has ended it meanwhile; once those that were found are over, of those that are
    /// found then. None if there are none.
    pub(super) fn next(&mut self, ledger: &Ledger, find: impl FnOnce() -> Vec<Fact>) -> Option<Fact> {
        while let Some(found) = self.0.pop_front() {
            if let Some(left) = ledger.left_of(found) {
                return Some(left);
            }
        }
        self.0 = find().into();
        self.0.pop_front()
    }
}
