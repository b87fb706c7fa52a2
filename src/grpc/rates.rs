//! How often a caller may call: a token bucket for each SPIFFE ID and each kind of call.
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate algorithm of ITU-T I.371), so
//! that taking from it is one atomic exchange. A bucket that is full is like one that never was, so that a caller can be
//! forgotten once all of its buckets are full, and nobody gains by coming back. A connection looks its caller up once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;

use super::class::Class;
use crate::config::RateLimit;

/// The buckets of all callers.
#[derive(Debug)]
pub(super) struct Rates {
    limit: RateLimit,
    callers_max: usize,
    known: Mutex<HashMap<SpiffeId, Arc<Allowance>>>,
    /// Shared by those for whom there is no room.
    others: Arc<Allowance>,
}

/// The buckets of one caller. Each is full at the time since boot that it holds, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Allowance([AtomicU64; Class::COUNT]);

impl Rates {
    /// Full buckets, of so many callers at most.
    pub(super) fn new(limit: RateLimit, callers_max: usize) -> Self {
        Self { limit, callers_max, known: Mutex::default(), others: Arc::default() }
    }

    /// The buckets of a caller. Those who come while as many callers are known as may be share theirs.
    pub(super) fn of(&self, caller: &SpiffeId, now: Duration) -> Arc<Allowance> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(allowance) = known.get(caller) {
            return Arc::clone(allowance);
        }
        if known.len() >= self.callers_max {
            known.retain(|_, allowance| Arc::strong_count(allowance) > 1 || !allowance.is_full(now));
        }
        if known.len() >= self.callers_max {
            return Arc::clone(&self.others);
        }
        Arc::clone(known.entry(caller.clone()).or_default())
    }

    /// Takes one call of a kind.
    ///
    /// # Errors
    /// How long it takes until there will be one.
    pub(super) fn take(&self, allowance: &Allowance, class: Class, now: Duration) -> Result<(), Duration> {
        let class = if sabotage::on("one_bucket_for_all") { Class::Issue } else { class };
        let Some(full_at) = allowance.0.get(class as usize) else { return Ok(()) };
        let now = nanos(now);
        let one = 1_000_000_000 / u64::from(self.limit.per_second.get());
        let all = one.saturating_mul(self.limit.burst.get().into());
        let taken = |full_at: u64| full_at.max(now).saturating_add(one);
        let take = |full_at| Some(taken(full_at)).filter(|then| then.saturating_sub(now) <= all);
        match full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(full_at) => Err(Duration::from_nanos(taken(full_at).saturating_sub(now).saturating_sub(all))),
        }
    }
}

impl Allowance {
    fn is_full(&self, now: Duration) -> bool {
        self.0.iter().all(|full_at| full_at.load(Ordering::Relaxed) <= nanos(now))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rates(callers_max: usize) -> Rates {
        let [per_second, burst] = [10, 3].map(|count| NonZeroU32::new(count).unwrap());
        Rates::new(RateLimit { per_second, burst }, callers_max)
    }

    fn id(path: &str) -> SpiffeId {
        format!("spiffe://td/{path}").parse().unwrap()
    }

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000_000 + millis)
    }

    #[test]
    fn r5_a_bucket_gives_a_burst_and_then_as_much_as_flows_in_and_says_when() {
        let rates = rates(9);
        let own = rates.of(&id("a"), at(0));
        let take = |time| rates.take(&own, Class::Issue, at(time));
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        assert_eq!(take(0), Err(Duration::from_millis(100)));
        assert_eq!(take(99), Err(Duration::from_millis(1)), "a refusal costs nothing");
        assert_eq!(take(100), Ok(()));
        assert_eq!(take(100), Err(Duration::from_millis(100)));
        assert_eq!([take(9_000), take(9_000), take(9_000)], [Ok(()); 3], "it never holds more than a burst");
        assert!(take(9_000).is_err());
    }

    #[test]
    fn r5_no_kind_of_call_uses_up_another_and_no_caller_anothers() {
        let rates = rates(9);
        let [own, other] = ["a", "b"].map(|path| rates.of(&id(path), at(0)));
        while rates.take(&own, Class::Issue, at(0)).is_ok() {}
        for class in [Class::Revoke, Class::Introspect, Class::Complete, Class::Read] {
            assert_eq!(rates.take(&own, class, at(0)), Ok(()), "{}", class.as_str());
        }
        assert_eq!(rates.take(&other, Class::Issue, at(0)), Ok(()));
        let again = rates.of(&id("a"), at(0));
        assert!(rates.take(&again, Class::Issue, at(0)).is_err(), "another connection is no other caller");
    }

    #[test]
    fn r1_callers_are_forgotten_when_they_gain_nothing_by_it_and_are_never_too_many() {
        let rates = rates(2);
        let spend = |path: &str, time| {
            let own = rates.of(&id(path), at(time));
            (0..9).filter(|_| rates.take(&own, Class::Issue, at(time)).is_ok()).count()
        };
        assert_eq!((spend("a", 0), spend("b", 0)), (3, 3));
        assert_eq!((spend("c", 0), spend("d", 0)), (3, 0), "the others share one");
        assert_eq!(spend("a", 0), 0);
        assert_eq!((spend("c", 300), spend("a", 300)), (3, 3), "what is full is forgotten");
        assert!(rates.known.lock().unwrap().len() <= 2);
        let connected = rates.of(&id("e"), at(9_000));
        let _room = (rates.of(&id("f"), at(9_000)), rates.of(&id("g"), at(9_000)));
        assert!(Arc::ptr_eq(&connected, &rates.of(&id("e"), at(9_000))), "who is connected is not forgotten");
    }
}
