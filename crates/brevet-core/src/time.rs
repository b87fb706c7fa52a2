//! Time as a value. Nothing in this crate reads a clock; whoever calls brings the time.
//!
//! There are two clocks (invariants C1–C3). What is issued is stamped by the issuing clock, which counts elapsed
//! time and ignores jumps of the wall clock. What exists is judged by the judging clock, which never falls behind
//! the issuing clock, the wall clock or its own highest reading. A jump of the wall clock therefore prolongs nothing.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC, leap seconds not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

/// The last second that RFC 3339 can write: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

const DAY_SECONDS: u64 = 86_400;

impl Timestamp {
    /// The epoch itself.
    pub const EPOCH: Self = Self(0);

    /// A time from milliseconds since the epoch; later than the year 9999 is the end of 9999.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        if millis > LAST_SECOND * 1000 { Self(LAST_SECOND * 1000) } else { Self(millis) }
    }

    /// A time from whole seconds since the epoch; later than the year 9999 is the end of 9999.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down: the form in which a credential states its end.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The same time with its milliseconds cut off.
    #[must_use]
    pub const fn floor_to_second(self) -> Self {
        Self(self.0 - self.0 % 1000)
    }

    /// The first moment of the next day, in UTC.
    #[must_use]
    pub const fn end_of_day(self) -> Self {
        Self::from_seconds((self.day() + 1) * DAY_SECONDS)
    }

    /// How many days of UTC have passed since the epoch.
    #[must_use]
    pub const fn day(self) -> u64 {
        self.seconds() / DAY_SECONDS
    }

    /// This time and a while later, at most the end of the year 9999.
    #[must_use]
    pub const fn after(self, elapsed: Duration) -> Self {
        let millis = elapsed.as_millis();
        let millis = if millis > LAST_SECOND as u128 * 1000 { LAST_SECOND * 1000 } else { millis as u64 };
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// How long it is from `earlier` to this time; zero if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The parts of the civil date and time of day in UTC.
    #[must_use]
    pub const fn civil(self) -> Civil {
        let days = self.0 / 86_400_000;
        let rest = self.0 % 86_400_000;
        // Days to civil date in the proleptic Gregorian calendar, counted in eras of 400 years from 0000-03-01.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
        Civil {
            year: year as u16,
            month: month as u8,
            day: day as u8,
            hour: (rest / 3_600_000) as u8,
            minute: (rest / 60_000 % 60) as u8,
            second: (rest / 1_000 % 60) as u8,
            milli: (rest % 1_000) as u16,
            // 1970-01-01 was a Thursday, the fourth day of an ISO week.
            weekday: ((days + 3) % 7 + 1) as u8,
        }
    }
}

/// Writes RFC 3339 in UTC with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.civil();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            c.year, c.month, c.day, c.hour, c.minute, c.second, c.milli
        )
    }
}

/// A civil date and time of day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// Year, 1970 to 9999.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
    /// Millisecond, 0 to 999.
    pub milli: u16,
    /// Day of the ISO week, 1 (Monday) to 7 (Sunday).
    pub weekday: u8,
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Stamps what is issued.
    pub issue: Timestamp,
    /// Judges what exists. Never less than `issue`.
    pub judge: Timestamp,
    /// The judging clock is further ahead than it should be, as after a forward jump of the wall clock: what it says
    /// is not kept for the next start (invariant C3).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
}

impl Now {
    /// A reading in which both clocks agree.
    #[must_use]
    pub const fn at(time: Timestamp) -> Self {
        Self { issue: time, judge: time, suspect: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates_are_written_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (2_147_483_648, "2038-01-19T03:14:08.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (LAST_SECOND, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(Timestamp::from_seconds(seconds).to_string(), text);
        }
    }

    #[test]
    fn weekdays_follow_iso_8601() {
        assert_eq!(Timestamp::EPOCH.civil().weekday, 4);
        assert_eq!(Timestamp::from_seconds(1_795_348_800).civil().weekday, 7, "2026-11-22 is a Sunday");
    }

    #[test]
    fn a_day_ends_when_the_next_begins() {
        for (millis, day, end) in [(0, 0, 1), (86_399_999, 0, 1), (86_400_000, 1, 2), (86_400_001, 1, 2)] {
            let time = Timestamp::from_millis(millis);
            assert_eq!((time.day(), time.end_of_day()), (day, Timestamp::from_seconds(end * DAY_SECONDS)));
        }
        assert_eq!(Timestamp::from_millis(u64::MAX).end_of_day(), Timestamp::from_seconds(LAST_SECOND));
    }

    #[test]
    fn c6_the_edges_of_time_saturate() {
        let last = Timestamp::from_seconds(LAST_SECOND);
        assert_eq!(Timestamp::from_millis(u64::MAX), last);
        assert_eq!(Timestamp::from_seconds(u64::MAX), last);
        assert_eq!(last.after(Duration::MAX), last);
        assert_eq!(Timestamp::EPOCH.since(last), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(1_999).floor_to_second(), Timestamp::from_seconds(1));
    }
}
