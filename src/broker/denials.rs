//! Denials: each has a record, as long as its caller is not denied too often, and what has none of its own is counted
//! in one that comes when the minute turns (invariant U1).
//!
//! A caller has one budget for requests that cannot be understood and another for those that are denied: rubbish, which
//! costs nobody a thought, hides no attempt at something real.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use brevet_core::fact::{DenialClass, DeniedOperation, Envelope, Fact, ReasonCode};
use brevet_core::id::RootTaskId;
use brevet_core::name::{RequestId, TenantName};
use brevet_core::proof::Caller;
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use tracing::{debug, warn};

use super::{Broker, Kind, MinuteBudget, Refusal};
use crate::metrics::DecisionOutcome;

/// What the record of a refused chain says instead of a method.
const HANDSHAKE: &str = "Handshake";

/// What each caller may still make the journal keep, and how much it was not.
#[derive(Debug)]
pub struct Denials {
    malformed: MinuteBudget<SpiffeId>,
    denied: MinuteBudget<SpiffeId>,
    turned_away: MinuteBudget<SpiffeId>,
    unproven: MinuteBudget<SpiffeId>,
    calls_of_strangers: MinuteBudget<()>,
    handshakes: MinuteBudget<()>,
    unrecorded: Mutex<BTreeMap<(SpiffeId, DenialClass), u64>>,
}

impl Denials {
    /// Budgets of so many in each minute for each caller, and for all strangers together.
    #[must_use]
    pub const fn new(malformed_max: NonZeroU32, denied_max: NonZeroU32, strangers_max: NonZeroU32) -> Self {
        Self {
            malformed: MinuteBudget::new(malformed_max),
            denied: MinuteBudget::new(denied_max),
            turned_away: MinuteBudget::new(malformed_max),
            unproven: MinuteBudget::new(malformed_max),
            calls_of_strangers: MinuteBudget::new(strangers_max),
            handshakes: MinuteBudget::new(strangers_max),
            unrecorded: Mutex::new(BTreeMap::new()),
        }
    }

    /// Spends one of a caller's, if any is left.
    fn spend(&self, caller: &SpiffeId, class: DenialClass, now: Timestamp) -> bool {
        let budget = match class {
            DenialClass::Malformed if !sabotage::on("rubbish_hides_denials") => &self.malformed,
            DenialClass::Malformed | DenialClass::Denied => &self.denied,
        };
        budget.spend(caller.clone(), now)
    }

    /// Counts some that have no record of their own. There are no more callers here than were denied since the last
    /// time that these were taken.
    fn miss(&self, caller: SpiffeId, class: DenialClass, count: u64) {
        let mut unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = unrecorded.entry((caller, class)).or_insert(0);
        *sum = sum.saturating_add(count);
    }

    fn take(&self) -> BTreeMap<(SpiffeId, DenialClass), u64> {
        std::mem::take(&mut self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Broker {
    /// Counts and notes a refusal that an authenticated caller is answered.
    ///
    /// # Errors
    /// [`Refusal`] to be answered in its place if it gets no record of its own.
    pub fn refuse(
        &self,
        caller: &Caller,
        operation: DeniedOperation,
        tree: Option<RootTaskId>,
        request_id: Option<&RequestId>,
        refusal: &Refusal,
    ) -> Result<(), Refusal> {
        let envelope = Envelope {
            tree,
            tenant: self.tenant_now(caller.spiffe_id()),
            caller: Some(caller.spiffe_id().clone()),
            request_id: request_id.cloned(),
            ..self.envelope(self.clock.now(), None, None, None)
        };
        self.metrics.decided(match refusal.kind {
            Kind::Denied => DecisionOutcome::Denied,
            _ => DecisionOutcome::Refused,
        });
        let (class, limit) = match refusal.kind {
            Kind::Invalid => (DenialClass::Malformed, "malformed_recorded_per_minute_max"),
            _ => (DenialClass::Denied, "denials_recorded_per_minute_max"),
        };
        let unrecorded = if self.denials.spend(caller.spiffe_id(), class, envelope.at.issue) {
            if sabotage::on("denials_unrecorded") {
                return Ok(());
            }
            let fact =
                Fact::Denied { operation, reason: refusal.reason.clone(), cause: refusal.cause, uid: None };
            match self.table.note(&envelope, &fact, refusal.evidence.as_deref()) {
                Ok(_durable_within_a_second) => return Ok(()),
                Err(_) => Refusal::unavailable("denial_unrecorded"),
            }
        } else {
            Refusal::new(
                Kind::Exhausted,
                limit,
                "refused, as was too much in this minute: try again in the next",
            )
        };
        self.metrics.denial_unrecorded();
        self.denials.miss(caller.spiffe_id().clone(), class, 1);
        Err(unrecorded)
    }

    /// Notes that a caller is told that there is too much, with a budget of its own, so that haste hides no attempt at
    /// something real. Beyond it is counted with what else has no record of its own.
    pub fn turn_away(&self, caller: &SpiffeId, method: &str, reason: &'static str) {
        self.note_refusal(&self.denials.turned_away, caller, method, ReasonCode::of(reason));
    }

    /// Notes that somebody was refused who showed a workload's token and is not known to be that workload, with a budget of
    /// its own, so that no thief uses up the workload's. Yields whether it has a record of its own.
    pub fn refuse_unproven(&self, workload: &SpiffeId, method: &str, reason: &ReasonCode) -> bool {
        self.note_refusal(&self.denials.unproven, workload, method, reason.clone())
    }

    fn note_refusal(
        &self,
        budget: &MinuteBudget<SpiffeId>,
        caller: &SpiffeId,
        method: &str,
        reason: ReasonCode,
    ) -> bool {
        self.metrics.decided(DecisionOutcome::Refused);
        let now = self.clock.now();
        let recorded = budget.spend(caller.clone(), now.issue) && {
            let envelope = Envelope {
                tenant: self.tenant_now(caller),
                caller: Some(caller.clone()),
                ..self.envelope(now, None, None, None)
            };
            let operation = DeniedOperation::Method(method.to_owned());
            let fact = Fact::Denied { operation, reason, cause: None, uid: None };
            self.table.note(&envelope, &fact, None).is_ok()
        };
        if !recorded {
            self.metrics.denial_unrecorded();
            self.denials.miss(caller.clone(), DenialClass::Denied, 1);
        }
        recorded
    }

    /// Counts a refusal of a call whose caller is not known, and notes it if there is a budget for it.
    pub fn refuse_stranger(&self, method: &str, reason: &'static str) {
        debug!(method, reason, "a stranger was refused");
        self.metrics.refused_stranger();
        self.sample(&self.denials.calls_of_strangers, method, reason);
    }

    /// Notes a chain that was refused in a handshake, if there is a budget for it. The listener counts the connection.
    pub fn refuse_handshake(&self, reason: &'static str) {
        if !sabotage::on("handshakes_unrecorded") {
            self.sample(&self.denials.handshakes, HANDSHAKE, reason);
        }
    }

    /// Of what strangers do some is recorded, so that none of them fills the disk. A journal that is too busy for it has the
    /// count.
    fn sample(&self, budget: &MinuteBudget<()>, method: &str, reason: &'static str) {
        if budget.spend((), self.clock.now().issue) {
            let operation = DeniedOperation::Method(method.to_owned());
            let reason = ReasonCode::of(reason);
            let _sampled = self.note(&Fact::Denied { operation, reason, cause: None, uid: None });
        }
    }

    /// Notes a refusal that somebody at the local root socket is answered. There is no budget: whoever gets there may do
    /// anything with the journal.
    ///
    /// # Errors
    /// [`Refusal`] to be answered in its place if the journal does not take it.
    pub fn refuse_root(&self, uid: u32, method: &str, refusal: &Refusal) -> Result<(), Refusal> {
        warn!(uid, method, reason = refusal.reason.as_str(), "a call over the root socket is refused");
        let operation = DeniedOperation::Method(method.to_owned());
        let fact = Fact::Denied { operation, reason: refusal.reason.clone(), cause: None, uid: Some(uid) };
        if sabotage::on("root_refusals_unrecorded") {
            return Ok(());
        }
        match self.note(&fact) {
            Ok(_durable_within_a_second) => Ok(()),
            Err(_) => Err(Refusal::unavailable("denial_unrecorded")),
        }
    }

    /// Records at each turn of the minute how much has no record of its own, for as long as the daemon lives.
    pub async fn sum_up_denials(&self) -> Infallible {
        loop {
            // By the issuing clock, as the budgets are.
            let left = 60_u64.saturating_sub(self.clock.now().issue.seconds() % 60);
            self.clock.sleep(Duration::from_secs(left)).await;
            self.record_unrecorded();
        }
    }

    /// Records how much has no record of its own, once for each caller and class.
    pub fn record_unrecorded(&self) {
        for ((caller, class), count) in self.denials.take() {
            if sabotage::on("denials_vanish") {
                continue;
            }
            let envelope = Envelope {
                tenant: self.tenant_now(&caller),
                caller: Some(caller.clone()),
                ..self.envelope(self.clock.now(), None, None, None)
            };
            let fact = Fact::DenialsUnrecorded { class, count };
            if self.table.note(&envelope, &fact, None).is_err() {
                // They come with those of the next minute.
                self.denials.miss(caller, class, count);
            }
        }
    }

    fn tenant_now(&self, caller: &SpiffeId) -> Option<TenantName> {
        self.table.in_force().registry().tenant_of(caller).cloned()
    }
}
