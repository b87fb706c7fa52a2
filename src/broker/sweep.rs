//! The sweep: what a lock has killed gets endings of its own, so that those who watch learn of them and the lock's record
//! can go once it forbids nothing any more. It is bookkeeping: the dead are dead by the lock itself, swept or not.
//!
//! Each tenant's locks are swept by themselves, as are those for all tenants, so that nobody's wait for another's. One
//! sweep takes every lock of its tenant that there is, goes from tree to tree and holds none while it waits. A daemon
//! that dies on the way sweeps again at its next start; endings that are recorded already are found and not written
//! twice, and counted all the same.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use brevet_core::fact::{Envelope, Fact};
use brevet_core::id::RootTaskId;
use brevet_core::ledger::Ledger;
use brevet_core::lock::{LockRecord, Swept};
use brevet_core::name::TenantName;
use brevet_core::sabotage;
use tokio::task::{self, JoinSet};
use tracing::{info, warn};

use super::ending::QueuedRecords;
use super::{Broker, Refusal};
use crate::table::{InForce, Undurable};

/// When a sweep that did not get through is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The sweeps that run.
#[derive(Debug, Default)]
struct Sweeps {
    running: JoinSet<()>,
    /// Whose locks each of them is of; none is those for all tenants.
    tenants: BTreeMap<task::Id, Option<TenantName>>,
}

impl Sweeps {
    /// Waits until one of them is over.
    async fn over(&mut self) {
        match self.running.join_next_with_id().await {
            Some(ended) => self.tenants.remove(&ended.map_or_else(|failed| failed.id(), |(id, ())| id)),
            None => pending().await,
        };
    }
}

impl Broker {
    /// Sweeps every lock there is, and each that comes, for as long as the daemon lives.
    pub async fn sweep_locks(self: &Arc<Self>) -> Infallible {
        let mut sweeps = Sweeps::default();
        loop {
            self.begin_sweeps(&mut sweeps);
            tokio::select! {
                () = self.unswept.notified() => {}
                () = sweeps.over() => {}
            }
        }
    }

    /// Begins a sweep of each tenant that has unswept locks and none running, as far as so many may run.
    fn begin_sweeps(self: &Arc<Self>, sweeps: &mut Sweeps) {
        let in_force = self.table.in_force();
        let mut unswept: Vec<_> = in_force.control.unswept().collect();
        // The first that was pulled is swept first: what several have killed is dead by that one. And whoever has waited
        // the longest is next.
        unswept.sort_by_key(|lock| lock.created);
        for first in &unswept {
            let tenant = &first.lock.tenant;
            let max = match sabotage::on("tenants_hold_each_other_up") {
                true => 1,
                false => self.limits.lock_sweeps_max(),
            };
            // What stops all tenants waits for none of them.
            if sweeps.running.len() >= max && tenant.is_some() {
                continue;
            }
            if sweeps.tenants.values().any(|running| running == tenant) {
                continue;
            }
            let of_tenant = unswept.iter().filter(|lock| lock.lock.tenant == *tenant);
            let locks: Vec<LockRecord> = of_tenant.map(|lock| (*lock).clone()).collect();
            let (broker, whose) = (Arc::clone(self), tenant.clone());
            let running = sweeps.running.spawn(async move {
                let tenant = whose.as_ref();
                if let Err(problem) = broker.sweep(tenant, &locks).await {
                    let (tenant, reason) = (tenant.map(TenantName::as_str), problem.reason.as_str());
                    warn!(tenant, reason, "a sweep goes on later");
                    broker.clock.sleep(RETRY).await;
                }
            });
            sweeps.tenants.insert(running.id(), tenant.clone());
        }
    }

    /// Sweeps the locks of a tenant, or those for all tenants.
    async fn sweep(&self, tenant: Option<&TenantName>, locks: &[LockRecord]) -> Result<(), Refusal> {
        // 1. Every tree that there was when the locks came, one after the other, and in each lock after lock, so that no
        //    tree is held for long.
        let mut queued = QueuedRecords::default();
        let mut totals = vec![Swept::default(); locks.len()];
        let mut told = self.table.read_control(|_| ());
        for root in self.table.roots(tenant) {
            for (lock, total) in locks.iter().zip(&mut totals) {
                let swept = self.sweep_tree(root, lock, &mut queued).await?;
                told = told.and(swept, |(), swept| *total = total.and(swept));
                task::yield_now().await;
            }
        }
        self.table.durable(told).await?;

        // 2. Only now the journal says so. One at a time, since each makes what is being decided be decided again.
        for (lock, Swept { tasks, leases }) in locks.iter().zip(totals) {
            let fact = Fact::LockSwept { lock: lock.lock.id, tasks, leases };
            let recorded = self.decide(|| {
                let basis = self.table.in_force().control.revision();
                let tenant = tenant.cloned();
                let envelope = Envelope { tenant, ..self.envelope(self.clock.now(), None, None, None) };
                Ok(self.table.control(&envelope, None, basis, &fact, None)?)
            })?;
            self.table.durable(recorded).await?;
            info!(lock = %lock.lock.id, tenant = tenant.map(TenantName::as_str), tasks, leases, "a lock is swept");
        }
        Ok(())
    }

    /// Sweeps one tree, and says what the lock has ended there. Of two sweeps at once that find the same task, both may
    /// count it.
    async fn sweep_tree(
        &self,
        root: RootTaskId,
        lock: &LockRecord,
        queued: &mut QueuedRecords,
    ) -> Result<Undurable<Swept>, Refusal> {
        let killed = |ledger: &Ledger, _: &InForce| match sabotage::on("sweeps_skip") {
            true => Vec::new(),
            false => ledger.sweep(lock),
        };
        let ended = self.end_each(root, None, queued, killed).await?;
        let swept = self.table.read(root, |ledger, _| ledger.swept(lock));
        let none = || self.table.read_control(|_| Swept::default());
        Ok(ended.and(swept.unwrap_or_else(none), |_, swept| swept))
    }
}

#[cfg(test)]
mod tests;
