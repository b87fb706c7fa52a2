//! The reaper: records what has run out. It reclaims; it does not enforce, for liveness is computed from the time and
//! waits for nobody. What it adds is that an ending which time brought is in the journal like any other, and that trees
//! which ended long ago leave the memory.
//!
//! It sleeps until the next of the table's deadlines, each of which is a hint to look at a tree.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use brevet_core::time::Now;
use tracing::warn;

use crate::broker::{Broker, QueuedRecords};

/// When an expiry that could not be recorded is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Reaps at each deadline for as long as the daemon lives.
pub async fn run(broker: Arc<Broker>) -> Infallible {
    loop {
        let deadlines = broker.table.deadlines();
        let sooner = deadlines.sooner();
        match deadlines.next() {
            Some(next) => {
                tokio::select! {
                    () = broker.clock.sleep_until(next) => {
                        if run_once(&broker, broker.clock.now()).await == Reaped::InPart {
                            broker.clock.sleep(RETRY).await;
                        }
                    }
                    () = sooner => {}
                }
            }
            None => sooner.await,
        }
    }
}

/// How far the reaper has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// What had run out is recorded.
    All,
    /// Some of it is not and is still due: the journal did not take it.
    InPart,
}

/// The same as [`run_once`], whether or not whoever waits for it stays: what it has taken from the queue of deadlines is
/// looked at by nobody else.
pub async fn run_apart(broker: &Arc<Broker>) {
    let broker = Arc::clone(broker);
    let reaping = tokio::spawn(async move { run_once(&broker, broker.clock.now()).await });
    if reaping.await.is_err() {
        warn!("what has run out could not be recorded");
    }
}

/// Records everything that has run out by now. Not to be dropped before it is over: see [`run_apart`].
pub async fn run_once(broker: &Broker, now: Now) -> Reaped {
    let _turn = broker.reaping.lock().await;
    let mut reaped = Reaped::All;
    let mut queued = QueuedRecords::default();
    for root in broker.table.deadlines().take(now.judge) {
        if let Err(problem) = broker.expire(root, now.judge, &mut queued).await {
            // It is dead all the same; only the record of it comes later.
            warn!(%root, reason = problem.reason.as_str(), "an expiry could not be recorded");
            broker.table.deadlines().expect(now.judge, root);
            reaped = Reaped::InPart;
        }
        broker.table.forget(root, now);
    }
    reaped
}
