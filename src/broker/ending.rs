//! Ending what was found in a tree, fact after fact, by whatever found it: the sweep of a lock, a deadline, an operator.
//!
//! A tree is searched once for all of its endings and once more at the end, and not for each: a wide one has thousands.

use std::collections::VecDeque;
use std::convert::Infallible;

use brevet_core::fact::{Envelope, Fact};
use brevet_core::id::RootTaskId;
use brevet_core::ledger::Ledger;
use brevet_core::proof::Evidence;
use brevet_core::request::CallerFacts;

use super::{Broker, Kind, Refusal};
use crate::table::{InForce, Undurable};

/// So many records are queued before whoever goes through the trees waits for the disk, so that the queue is never
/// full of them when a call needs it.
const QUEUED_MAX: usize = 64;

/// How many records are queued that nobody has waited for yet.
#[derive(Debug, Default)]
pub(crate) struct QueuedRecords(usize);

impl Broker {
    /// Commits what `find` finds to end in a tree, one fact after the other, until it finds nothing. The tree is held for
    /// one commit at a time. A tree that is forgotten meanwhile had nothing left to end.
    pub(super) async fn end_each(
        &self,
        root: RootTaskId,
        by: Option<(&CallerFacts, &Evidence)>,
        queued: &mut QueuedRecords,
        mut find: impl FnMut(&Ledger, &InForce) -> Vec<Fact>,
    ) -> Result<Undurable<Vec<Fact>>, Refusal> {
        let tenant = self.table.view(root, |ledger| ledger.tenant().clone());
        let (mut ended, mut pending) = (Vec::new(), VecDeque::new());
        loop {
            let who = by.map(|(who, _)| who);
            let mut found = None;
            let committed = self.decide(|| {
                let now = self.clock.now();
                let envelope =
                    Envelope { tenant: tenant.clone(), ..self.envelope(now, who, Some(root), None) };
                let evidence = by.map(|(_, evidence)| evidence);
                let committed = self.table.commit(root, &envelope, evidence, |ledger, in_force| {
                    found = next(&mut pending, ledger, || find(ledger, in_force));
                    Ok::<_, Infallible>((found.clone(), ()))
                });
                Ok(committed?)
            });
            let committed = match committed {
                Err(Refusal { kind: Kind::NotFound, .. }) => return Ok(self.table.read_control(|_| ended)),
                committed => committed?,
            };
            let Some(fact) = found else { return Ok(committed.map(|()| ended)) };
            self.count_ended(&fact);
            ended.push(fact);
            queued.0 = queued.0.saturating_add(1);
            if queued.0 >= QUEUED_MAX {
                self.table.durable(committed).await?;
                queued.0 = 0;
            }
        }
    }

    fn count_ended(&self, fact: &Fact) {
        let (kind, outcome, since, count) = match fact {
            Fact::TaskEnded { outcome, since, .. } => ("task", outcome.as_str(), since, 1),
            Fact::LeasesEnded { leases, outcome, since, .. } => {
                let count = u64::try_from(leases.len()).unwrap_or(u64::MAX);
                ("lease", outcome.as_str(), since, count)
            }
            _ => return,
        };
        self.metrics.ended(kind, outcome, count);
        // What had taken effect before it is recorded, a lock had done.
        if since.is_some() {
            self.metrics.locked(kind, count);
        }
    }
}

/// The next ending, as far as nothing has ended it meanwhile; once those that were found are over, of those that are
/// found then. None if there are none.
fn next(pending: &mut VecDeque<Fact>, ledger: &Ledger, find: impl FnOnce() -> Vec<Fact>) -> Option<Fact> {
    while let Some(found) = pending.pop_front() {
        if let Some(left) = ledger.left_of(found) {
            return Some(left);
        }
    }
    *pending = find().into();
    pending.pop_front()
}
