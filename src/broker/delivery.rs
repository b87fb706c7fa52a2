//! Handing over: a recorded lease becomes a credential, and the credential its holder's, or nobody's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brevet_core::fact::{Envelope, LeaseOutcome, ReasonCode};
use brevet_core::id::LeaseId;
use brevet_core::ledger::{End, EndRefusal};
use brevet_core::proof::Evidence;
use brevet_core::request::CallerFacts;
use brevet_core::revision::Revision;
use brevet_core::sabotage;
use brevet_mint::signer::{Credential, Product};
use tokio::runtime::Handle;
use tracing::warn;

use super::{Broker, Refusal};

/// A credential, ready to be handed to its holder.
#[derive(Debug)]
pub struct Issued(pub Credential);

/// Leases that nobody has got the credential of yet, with the calls that may still hand it over.
///
/// Calls come and leases are given up while the lease's tree is held, so that of a retry and the end of its lease the
/// one always knows of the other.
#[derive(Debug, Default)]
pub struct Undelivered(Mutex<BTreeMap<LeaseId, Calls>>);

#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    waiting: u32,
    /// Counts the calls that were there, so that one that came since is noticed.
    seen: u64,
}

impl Undelivered {
    /// A call issues a lease that nobody can ask for yet.
    pub(super) fn first(&self, lease: LeaseId) {
        self.lock().insert(lease, Calls { waiting: 1, seen: 1 });
    }

    /// A call asks once more for a lease. If it may have been handed over before, even by an earlier life of the daemon,
    /// it ends nothing when its caller goes too.
    pub(super) fn again(&self, lease: LeaseId) {
        if let Some(calls) = self.lock().get_mut(&lease) {
            calls.waiting = calls.waiting.saturating_add(1);
            calls.seen = calls.seen.wrapping_add(1);
        }
    }

    /// Nobody waits for a lease any more: it was handed over, or there will be none.
    pub(super) fn answered(&self, lease: LeaseId) {
        self.lock().remove(&lease);
    }

    /// A caller has gone. If it was the last one, gives by what it is told whether another came since.
    fn abandoned(&self, lease: LeaseId) -> Option<u64> {
        let mut undelivered = self.lock();
        let calls = undelivered.get_mut(&lease)?;
        calls.waiting = calls.waiting.saturating_sub(1);
        (calls.waiting == 0).then_some(calls.seen)
    }

    /// Whether nobody has asked since.
    fn nobody_asks(&self, lease: LeaseId, seen: u64) -> bool {
        sabotage::on("retries_count_for_nothing")
            || self.lock().get(&lease).is_some_and(|calls| calls.seen == seen)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LeaseId, Calls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lives as long as the call that is to be answered. Dropped unanswered, it ends the lease after a while in which
/// nobody asked again.
struct Handover {
    broker: Arc<Broker>,
    lease: Option<LeaseId>,
}

impl Handover {
    fn answered(mut self) {
        if let Some(lease) = self.lease.take() {
            self.broker.undelivered.answered(lease);
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let Some(seen) = self.broker.undelivered.abandoned(lease) else { return };
        // Where nothing runs any more, the daemon stops, and the lease lives to its own end.
        let Ok(runtime) = Handle::try_current() else { return };
        let broker = Arc::clone(&self.broker);
        runtime.spawn(async move {
            let wait = Duration::from_secs(broker.limits.undelivered_seconds.get().into());
            broker.clock.sleep(wait).await;
            if sabotage::on("undelivered_lives_on") {
                return;
            }
            let (outcome, reason) = (LeaseOutcome::Undelivered, ReasonCode::of("caller_gone"));
            let nobody_asks = || broker.undelivered.nobody_asks(lease, seen);
            if let Err(problem) = broker.end_lease_if(lease, outcome, reason, None, nobody_asks).await {
                // It ends by its own end all the same.
                warn!(%lease, reason = problem.reason.as_str(), "an undelivered lease could not be ended");
            }
            if nobody_asks() {
                broker.undelivered.answered(lease);
            }
        });
    }
}

impl Broker {
    /// Delivers the credential of a lease that this call is counted for. A caller that goes away meanwhile may ask again.
    pub(super) async fn hand_over(self: &Arc<Self>, lease: LeaseId) -> Result<Issued, Refusal> {
        let handover = Handover { broker: Arc::clone(self), lease: Some(lease) };
        let delivered = self.deliver(lease).await;
        handover.answered();
        delivered
    }

    /// Signs what the journal holds, and hands it over only if it still lives.
    async fn deliver(&self, lease: LeaseId) -> Result<Issued, Refusal> {
        // 1. Durable before disclosed (invariant L1).
        let recorded = self.table.recorded(lease).await?.ok_or_else(Refusal::not_found)?;

        // 2. The key is used, and the product compared with its plan. An error leaves nothing behind (invariant L10).
        let credential = match self.signer.sign(recorded).await {
            Ok(credential) => credential,
            Err(problem) => {
                let (outcome, reason) = (LeaseOutcome::Undelivered, ReasonCode::of("signer_failed"));
                if !sabotage::on("error_keeps_lease") {
                    self.end_lease(lease, outcome, reason, None).await?;
                }
                return Err(problem.into());
            }
        };

        // Whoever waited for the same commit is signed for before any of them is answered, so that the answers share the
        // writes to their connections.
        tokio::task::yield_now().await;

        // 3. What ended meanwhile is dropped unseen.
        let judge = self.clock.now().judge;
        let ending = self.table.view(lease.task.root(), |ledger| {
            ledger.lease_ending(lease, &self.table.in_force().control, judge)
        });
        match ending {
            Some(None) => {
                let terms = credential.recorded().terms();
                if let Product::TaskToken(token) | Product::JwtSvid(token) = credential.product() {
                    self.known_tokens.remember(token, lease, terms.end, judge);
                }
                self.metrics.minted(credential.recorded().terms().profile().as_str());
                Ok(Issued(credential))
            }
            Some(Some(_)) | None => {
                self.settle(lease.task.root()).await?;
                Err(Refusal::lease_ended())
            }
        }
    }

    /// Ends one lease while its task goes on, and waits until that cannot be lost.
    pub(super) async fn end_lease(
        &self,
        lease: LeaseId,
        outcome: LeaseOutcome,
        reason: ReasonCode,
        who: Option<&CallerFacts>,
    ) -> Result<Revision, Refusal> {
        self.end_lease_if(lease, outcome, reason, who.map(|who| (who, None)), || true).await
    }

    /// The same in somebody's name, by the decision that let it, and only if a condition holds while its tree is held.
    pub(super) async fn end_lease_if(
        &self,
        lease: LeaseId,
        outcome: LeaseOutcome,
        reason: ReasonCode,
        by: Option<(&CallerFacts, Option<&Evidence>)>,
        condition: impl Fn() -> bool,
    ) -> Result<Revision, Refusal> {
        let (who, evidence) = (by.map(|(who, _)| who), by.and_then(|(_, evidence)| evidence));
        let root = lease.task.root();
        let tenant = self.table.view(root, |ledger| ledger.tenant().clone());
        let ended = self.decide(|| {
            let now = self.clock.now();
            let envelope = Envelope { tenant: tenant.clone(), ..self.envelope(now, who, Some(root), None) };
            let ended = self.table.commit(root, &envelope, evidence, |ledger, in_force| {
                if !condition() {
                    return Ok((None, false));
                }
                match ledger.end_lease(lease, outcome, reason.clone(), &in_force.control, now.judge)? {
                    End::Now(fact, _) => Ok((Some(fact), true)),
                    End::Already => Ok::<_, EndRefusal>((None, false)),
                }
            });
            Ok(ended?)
        })?;
        let revision = ended.revision();
        if self.table.durable(ended).await? {
            self.metrics.ended("lease", outcome.as_str(), 1);
        } else {
            self.settle(root).await?;
        }
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use brevet_core::id::{Id, LeaseKey, RootTaskId, TaskId};

    use super::*;

    fn lease(n: u8) -> LeaseId {
        let task = TaskId::root_of(RootTaskId(Id::from_bytes([1; 16])));
        LeaseId { task, key: LeaseKey(Id::from_bytes([n; 16])) }
    }

    #[test]
    fn l2_a_lease_is_given_up_only_when_nobody_got_it_and_nobody_asks() {
        let undelivered = Undelivered::default();

        // The only caller goes.
        undelivered.first(lease(1));
        let seen = undelivered.abandoned(lease(1)).unwrap();
        assert!(undelivered.nobody_asks(lease(1), seen));
        undelivered.answered(lease(1));
        assert!(!undelivered.nobody_asks(lease(1), seen));

        // Another comes in time, and goes too; then one comes and stays.
        undelivered.first(lease(2));
        let early = undelivered.abandoned(lease(2)).unwrap();
        undelivered.again(lease(2));
        assert!(!undelivered.nobody_asks(lease(2), early));
        let later = undelivered.abandoned(lease(2)).unwrap();
        undelivered.again(lease(2));
        undelivered.answered(lease(2));
        assert!(!undelivered.nobody_asks(lease(2), early) && !undelivered.nobody_asks(lease(2), later));

        // Of two at once the one is answered and the other goes, in either order.
        undelivered.first(lease(3));
        undelivered.again(lease(3));
        assert_eq!(undelivered.abandoned(lease(3)), None);
        undelivered.answered(lease(3));
        undelivered.first(lease(4));
        undelivered.again(lease(4));
        undelivered.answered(lease(4));
        assert_eq!(undelivered.abandoned(lease(4)), None);

        // What was handed over once is not undelivered by a repetition that nobody waits for.
        undelivered.again(lease(4));
        assert_eq!(undelivered.abandoned(lease(4)), None);
        assert!(undelivered.lock().is_empty());
    }
}
