//! What is measured when somebody looks at the metrics.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use brevet_core::sabotage;
use tokio::task::block_in_place;

use crate::broker::Broker;
use crate::metrics::Metrics;

/// Leases are counted no oftener: it takes a walk over every tree, and anybody may look.
const COUNTS_APART: Duration = Duration::from_secs(1);

/// Measures what can be told at once, and counts the leases unless that was done just now or is being done.
pub(super) fn gauges(broker: &Arc<Broker>) -> Arc<dyn Fn(&Metrics) + Send + Sync> {
    let broker = Arc::clone(broker);
    // The time since boot at which they were counted last.
    let counted = Mutex::new(None::<Duration>);
    Arc::new(move |metrics| {
        metrics.set_durable_revision(broker.table.journal().progress().durable().0);
        metrics.set_locks_in_force(broker.locks_in_force());
        metrics.set_streams_open("revocations", broker.streams.len());
        metrics.set_streams_open("audit", broker.audit_streams.len());
        let Ok(mut counted) = counted.try_lock() else { return };
        let now = || broker.clock.since_boot();
        let is_fresh = counted.is_some_and(|last| now() < last + COUNTS_APART);
        if !is_fresh || sabotage::on("anybody_counts_leases") {
            metrics.set_live_leases(block_in_place(|| broker.leases_live()));
            *counted = Some(now());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::sample::{Sample, X};

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn r2_leases_are_counted_once_a_second_however_many_look() {
        let sample = Sample::with(2, 8).await;
        let (look, metrics) = (gauges(&sample.broker), Metrics::new(Vec::new()));
        let live = || {
            look(&metrics);
            let text = metrics.text().unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("brevet_live_leases ")).unwrap();
            line.parse::<u64>().unwrap()
        };
        assert_eq!(live(), 4);
        sample.end_leases(1, &[X]);
        assert_eq!(live(), 4, "what was counted just now stands");
        sample.time.elapse(COUNTS_APART);
        assert_eq!(live(), 3);
    }
}
