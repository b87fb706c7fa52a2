//! The sweep: what a lock has killed gets endings of its own, so that those who watch learn of them and the lock's record
//! can go once it forbids nothing any more. It is bookkeeping: the dead are dead by the lock itself, swept or not.
//!
//! It goes from tree to tree and holds none while it waits. A daemon that dies on the way sweeps again at its next
//! start; endings that are recorded already are found and not written twice, and counted all the same.

use std::convert::Infallible;
use std::time::Duration;

use brevet_core::fact::{Envelope, Fact};
use brevet_core::id::RootTaskId;
use brevet_core::ledger::Ledger;
use brevet_core::lock::{LockRecord, Swept};
use brevet_core::proof::Evidence;
use brevet_core::request::CallerFacts;
use brevet_core::sabotage;
use tracing::{info, warn};

use super::pending::Pending;
use super::{Broker, Kind, Refusal};
use crate::table::{InForce, Undurable};

/// When a sweep that did not get through is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// So many records are queued before whoever goes through the trees waits for the disk, so that the queue is never
/// full of them when a call needs it.
const QUEUED_MAX: usize = 64;

/// How many records are queued that nobody has waited for yet.
#[derive(Debug, Default)]
pub(crate) struct Queued(usize);

impl Broker {
    /// Sweeps every lock there is, and each that comes, for as long as the daemon lives.
    pub async fn sweep_locks(&self) -> Infallible {
        loop {
            // The first that was pulled is swept first: what several have killed is dead by that one.
            let unswept = self.table.in_force().control.unswept().min_by_key(|lock| lock.created).cloned();
            let Some(lock) = unswept else {
                self.unswept.notified().await;
                continue;
            };
            if let Err(problem) = self.sweep(&lock).await {
                warn!(lock = %lock.lock.id, reason = problem.reason.as_str(), "a sweep goes on later");
                self.clock.sleep_until(self.clock.now().judge.after(RETRY)).await;
            }
        }
    }

    /// Sweeps one lock.
    async fn sweep(&self, lock: &LockRecord) -> Result<(), Refusal> {
        // 1. Every tree that there was when the lock came, one after the other.
        let mut queued = Queued::default();
        let mut total = self.table.read_control(|_| Swept { tasks: 0, leases: 0 });
        for root in self.table.roots() {
            let mut pending = Pending::default();
            let killed = |ledger: &Ledger, _: &InForce| {
                pending.next(ledger, || ledger.sweep(lock)).filter(|_| !sabotage::on("sweeps_skip"))
            };
            let ended = self.end_each(root, None, &mut queued, killed).await?;
            let Some(swept) = self.table.read(root, |ledger, _| ledger.swept(lock)) else { continue };
            total = total.and(ended.and(swept, |_, swept| swept), |total, swept| Swept {
                tasks: total.tasks.saturating_add(swept.tasks),
                leases: total.leases.saturating_add(swept.leases),
            });
            tokio::task::yield_now().await;
        }
        let Swept { tasks, leases } = self.table.durable(total).await?;

        // 2. Only now the journal says so.
        let fact = Fact::LockSwept { lock: lock.lock.id, tasks, leases };
        let recorded = self.decide(|| {
            let basis = self.table.in_force().control.revision();
            let tenant = lock.lock.tenant.clone();
            let envelope = Envelope { tenant, ..self.envelope(self.clock.now(), None, None, None) };
            Ok(self.table.control(&envelope, None, basis, &fact, None)?)
        })?;
        self.table.durable(recorded).await?;
        info!(lock = %lock.lock.id, tasks, leases, "a lock is swept");
        Ok(())
    }

    /// Commits what `next` finds to end in a tree, one fact after the other, until it finds nothing. The tree is held for
    /// one commit at a time. A tree that is forgotten meanwhile had nothing left to end.
    pub(super) async fn end_each(
        &self,
        root: RootTaskId,
        by: Option<(&CallerFacts, &Evidence)>,
        queued: &mut Queued,
        mut next: impl FnMut(&Ledger, &InForce) -> Option<Fact>,
    ) -> Result<Undurable<Vec<Fact>>, Refusal> {
        let tenant = self.table.view(root, |ledger| ledger.tenant().clone());
        let mut ended = Vec::new();
        loop {
            let who = by.map(|(who, _)| who);
            let mut found = None;
            let committed = self.decide(|| {
                let now = self.clock.now();
                let envelope =
                    Envelope { tenant: tenant.clone(), ..self.envelope(now, who, Some(root), None) };
                let evidence = by.map(|(_, evidence)| evidence);
                let committed = self.table.commit(root, &envelope, evidence, |ledger, in_force| {
                    found = next(ledger, in_force);
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
