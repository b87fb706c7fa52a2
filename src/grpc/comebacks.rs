//! When whoever is refused for overload is asked to come back.
//!
//! A refusal is not free for either side. If all who are refused came back after the same time, they would be refused
//! again together, and the more of them there are, the less would be left for whoever is let in. So each gets a time of
//! its own behind the last one's: a few come back soon, and many come back one after the other, at a rate that costs
//! little whatever their number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nobody is asked back sooner.
const SOONEST: Duration = Duration::from_millis(500);
/// Nor later: times that are all given out are given out once more.
const LATEST: Duration = Duration::from_secs(10);
/// Between two that come back.
const APART: Duration = Duration::from_millis(2);

/// The times that were given out.
#[derive(Debug, Default)]
pub(super) struct Comebacks {
    /// The last one, in microseconds since boot.
    last: AtomicU64,
}

impl Comebacks {
    /// How long the next one is to wait.
    pub(super) fn next(&self, now: Duration) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (soonest, latest) = (micros(now + SOONEST), micros(now + LATEST));
        let after = |last: u64| {
            let next = last.saturating_add(micros(APART)).max(soonest);
            if next > latest { soonest } else { next }
        };
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last)));
        let (Ok(last) | Err(last)) = last;
        Duration::from_micros(after(last)).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r5_the_refused_come_back_one_after_the_other_and_none_waits_long() {
        let comebacks = Comebacks::default();
        let now = Duration::from_secs(1_000);
        assert_eq!(comebacks.next(now), SOONEST);
        let fit = (LATEST - SOONEST).as_millis() / APART.as_millis();
        for number in 1..=u32::try_from(fit).unwrap() {
            assert_eq!(comebacks.next(now), SOONEST + APART * number);
        }
        assert_eq!(comebacks.next(now), SOONEST, "times that are all given out are given out once more");
        assert_eq!(comebacks.next(now + LATEST), SOONEST, "whoever is alone comes back soon");
    }
}
