//! When whoever is refused for overload is asked to come back.
//!
//! A refusal is not free for either side. If all who are refused came back after the same time, they would be refused
//! again together, and the more of them there are, the less would be left for whoever is let in. So each gets a time of
//! its own behind the last one's: a few come back soon, and many come back one after the other, at a rate that costs
//! little whatever their number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use brevet_core::sabotage;

use crate::config::RetryDelays;

/// The times that were given out.
#[derive(Debug)]
pub(super) struct Comebacks {
    delays: RetryDelays,
    /// The last one, in microseconds since boot.
    last: AtomicU64,
}

impl Comebacks {
    /// None was given out.
    pub(super) const fn new(delays: RetryDelays) -> Self {
        Self { delays, last: AtomicU64::new(0) }
    }

    /// How long the next one is to wait.
    pub(super) fn next(&self, now: Duration) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let RetryDelays { min, max, apart } = self.delays;
        let (soonest, latest) = (micros(now + min), micros(now + max));
        let after = |last: u64| {
            let next = last.saturating_add(micros(apart)).max(soonest);
            if next > latest || sabotage::on("all_come_back_at_once") { soonest } else { next }
        };
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last)));
        let (Ok(last) | Err(last)) = last;
        Duration::from_micros(after(last)).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[test]
    fn r5_the_refused_come_back_one_after_the_other_and_none_waits_long() {
        let few = RetryDelays {
            min: Duration::from_secs(3),
            max: Duration::from_secs(4),
            apart: Duration::from_millis(250),
        };
        for (delays, fit) in [(Limits::default().retry_delays(), 4_750), (few, 4)] {
            let RetryDelays { min, max, apart } = delays;
            let comebacks = Comebacks::new(delays);
            let now = Duration::from_secs(1_000);
            for number in 0..=fit {
                assert_eq!(comebacks.next(now), min + apart * number);
            }
            assert_eq!(comebacks.next(now), min, "times that are all given out are given out once more");
            assert_eq!(comebacks.next(now + max), min, "whoever is alone comes back soon");
        }
    }
}
