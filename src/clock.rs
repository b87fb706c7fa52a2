//! The only file that reads a clock. Everything else takes time as an argument.
//!
//! A wall clock can be set back or forward by anyone who runs the machine, so it alone must not decide how long a
//! credential lives. There are two clocks. The issuing clock takes the wall clock once, at the start, and from then
//! on counts the time elapsed since boot, suspend included; it stamps what is issued. The judging clock is the
//! highest of the issuing clock, the wall clock and every reading before; it judges what exists. A jump back
//! therefore prolongs nothing, a jump forward mints nothing longer and ends what it must end early (C1–C4).
//!
//! The highest trusted reading, the mark, outlives the process in the journal, so that a start with the wall clock
//! set back is noticed (C5).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use brevet_core::sabotage;
use brevet_core::time::{Now, Timestamp};
use nix::time::ClockId;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tokio::sync::watch;

/// The longest single sleep of the system clock. The runtime's timers stand still while the machine is suspended; waking
/// this often bounds how late a sleeper notices.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Both clocks of one process. Clones share their state.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    /// What the issuing clock showed when `booted` was read.
    anchor: Timestamp,
    /// Time since boot at the start of this clock.
    booted: Duration,
    /// The mark that an earlier process left.
    mark_at_start: Timestamp,
    tolerance: Duration,
    /// The highest reading of the judging clock, in milliseconds since the epoch.
    // INVARIANT: only ever raised.
    judged: AtomicU64,
    /// The highest reading of the judging clock that was not suspect, in milliseconds since the epoch.
    // INVARIANT: only ever raised.
    mark: AtomicU64,
}

/// How far the clocks can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// The clocks agree within the tolerance.
    Steady,
    /// The wall clock was set back: it is behind the issuing clock by this much. Issuing goes on by elapsed time
    /// and an operator should know; a restart takes the wall clock as the new anchor (C2).
    WallBehind(Duration),
    /// The judging clock is ahead of the issuing clock by this much, because the wall clock jumped forward.
    /// Nothing is minted, and what the judging clock refuses is to be ended by an event before the answer (C3).
    Suspect(Duration),
    /// The wall clock was behind the mark at the start, and the issuing clock still is by this much: sealed for
    /// minting (C5).
    BehindMark(Duration),
}

impl ClockState {
    /// Whether credentials may be minted and renewed and approvals given.
    #[must_use]
    pub const fn may_mint(self) -> bool {
        matches!(self, Self::Steady | Self::WallBehind(_))
    }
}

impl fmt::Display for ClockState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steady => f.write_str("clock steady"),
            Self::WallBehind(by) => write!(f, "wall clock set back by {} s", by.as_secs()),
            Self::Suspect(by) => {
                write!(f, "clock suspect: the wall clock jumped ahead by {} s", by.as_secs())
            }
            Self::BehindMark(by) => write!(f, "clock {} s behind the highest time recorded", by.as_secs()),
        }
    }
}

/// Why there is no clock.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// Elapsed time that counts suspend can't be read, so that no life could be measured.
    #[error("CLOCK_BOOTTIME can't be read")]
    BootTime(#[source] nix::Error),
}

impl Clock {
    /// The clocks of this machine.
    ///
    /// `mark` is what [`Clock::mark`] of an earlier process left in the journal, [`Timestamp::EPOCH`] if there was
    /// none. `tolerance` is how far the clocks may differ before they are not trusted.
    ///
    /// # Errors
    /// If the kernel doesn't tell the time since boot.
    pub fn system(mark: Timestamp, tolerance: Duration) -> Result<Self, ClockError> {
        ClockId::CLOCK_BOOTTIME.now().map_err(ClockError::BootTime)?;
        Ok(Self::start(Source::System, mark, tolerance))
    }

    /// Clocks that move only when the returned source is told to, starting at `wall`, without a mark and with a
    /// tolerance of 5 s.
    #[must_use]
    pub fn manual(wall: Timestamp) -> (Self, ManualSource) {
        let source = ManualSource::new(wall);
        (source.clock(Timestamp::EPOCH, Duration::from_secs(5)), source)
    }

    fn start(source: Source, mark: Timestamp, tolerance: Duration) -> Self {
        let Reading { wall, since_boot } = source.read();
        let behind = mark.since(wall);
        let anchor = if behind > tolerance { wall } else { wall.max(mark) };
        Self(Arc::new(Inner {
            source,
            anchor,
            booted: since_boot,
            mark_at_start: mark,
            tolerance,
            judged: AtomicU64::new(mark.max(anchor).millis()),
            mark: AtomicU64::new(mark.max(anchor).millis()),
        }))
    }

    /// Reads both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        self.read().0
    }

    /// How far the clocks can be trusted at this moment.
    ///
    /// It stays suspect after a forward jump was taken back, since the judging clock never goes back: what would be
    /// minted would be refused at once. A restart takes a new anchor.
    #[must_use]
    pub fn state(&self) -> ClockState {
        let (now, wall) = self.read();
        let Inner { mark_at_start, tolerance, .. } = &*self.0;
        let behind_mark = mark_at_start.since(now.issue);
        let ahead = now.judge.since(now.issue);
        let wall_behind = now.issue.since(wall);
        if behind_mark > *tolerance {
            ClockState::BehindMark(behind_mark)
        } else if ahead > *tolerance {
            ClockState::Suspect(ahead)
        } else if wall_behind > *tolerance {
            ClockState::WallBehind(wall_behind)
        } else {
            ClockState::Steady
        }
    }

    /// The high-water mark: what the records of this process leave for the next start at most, since the state is
    /// folded from their times. A suspect reading never raises it, or a forward jump would seal the next start as well.
    #[must_use]
    pub fn mark(&self) -> Timestamp {
        self.read();
        Timestamp::from_millis(self.0.mark.load(Ordering::SeqCst))
    }

    /// Returns when the judging clock has reached `deadline`, or shortly after: for the ends of what exists.
    ///
    /// After a jump ahead that was taken back the judging clock stands still, so no period is measured by it.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        self.sleep_while(|| deadline.since(self.now().judge)).await;
    }

    /// Returns when so much time has passed, suspend included, or shortly after: for periods, whatever the wall clock
    /// does.
    pub async fn sleep(&self, time: Duration) {
        if sabotage::on("periods_stand_still") {
            return self.sleep_until(self.now().judge.after(time)).await;
        }
        let end = self.since_boot().saturating_add(time);
        self.sleep_while(|| end.saturating_sub(self.since_boot())).await;
    }

    /// The time since boot, suspend included: what periods are measured by.
    #[must_use]
    pub fn since_boot(&self) -> Duration {
        self.0.source.read().since_boot
    }

    async fn sleep_while(&self, left: impl Fn() -> Duration) {
        match &self.0.source {
            Source::System => loop {
                let left = left();
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(SLEEP_MAX)).await;
            },
            Source::Manual(reading) => {
                let mut changes = reading.subscribe();
                while !left().is_zero() {
                    // The sender lives in this clock, so that it can't be closed here.
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// The judging clock as TLS asks for it: certificates are judged, not issued, by it.
    #[must_use]
    pub fn time_provider(&self) -> Arc<dyn TimeProvider> {
        Arc::new(JudgingTime(self.clone()))
    }

    fn read(&self) -> (Now, Timestamp) {
        let inner = &*self.0;
        let Reading { wall, since_boot } = inner.source.read();
        let elapsed = since_boot.saturating_sub(inner.booted);
        let elapsed = if sabotage::on("suspend_stops_time") { elapsed.min(SLEEP_MAX) } else { elapsed };
        let issue = match sabotage::on("time_wraps") {
            true => Timestamp::from_seconds(inner.anchor.seconds().wrapping_add(elapsed.as_secs())),
            false => inner.anchor.after(elapsed),
        };
        let issue = if sabotage::on("issue_follows_the_wall") { wall } else { issue };
        let highest = issue.max(wall);
        let before = inner.judged.fetch_max(highest.millis(), Ordering::SeqCst);
        let before =
            if sabotage::on("judge_goes_back") { Timestamp::EPOCH } else { Timestamp::from_millis(before) };
        let judge = highest.max(before);
        let suspect = judge.since(issue) > inner.tolerance && !sabotage::on("never_suspect");
        if !suspect {
            inner.mark.fetch_max(judge.millis(), Ordering::SeqCst);
        }
        (Now { issue, judge, suspect }, wall)
    }
}

/// The time since boot, suspend included. Every process of a machine reads the same, so that what one did can be set
/// against what another saw; zero if the kernel doesn't tell.
#[must_use]
pub fn since_boot() -> Duration {
    ClockId::CLOCK_BOOTTIME.now().map_or(Duration::ZERO, Duration::from)
}

/// The judging clock for rustls.
#[derive(Debug)]
struct JudgingTime(Clock);

impl TimeProvider for JudgingTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now().judge.millis())))
    }
}

/// One look at what both clocks are made of.
#[derive(Debug, Clone, Copy)]
struct Reading {
    wall: Timestamp,
    /// Counts while the machine is suspended.
    since_boot: Duration,
}

#[derive(Debug)]
enum Source {
    System,
    Manual(Arc<watch::Sender<Reading>>),
}

impl Source {
    fn read(&self) -> Reading {
        match self {
            Self::System => Reading {
                wall: SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(Timestamp::EPOCH, |since| Timestamp::EPOCH.after(since)),
                // It was readable at the start. If it no longer were, the issuing clock would fall back to its
                // anchor, which mints nothing longer and soon makes the clock suspect.
                since_boot: since_boot(),
            },
            Self::Manual(reading) => *reading.borrow(),
        }
    }
}

/// Moves the clocks made from it: time for tests and simulations. It outlives a clock as a machine outlives a
/// process. Clones are the same source.
#[derive(Debug, Clone)]
pub struct ManualSource(Arc<watch::Sender<Reading>>);

impl ManualSource {
    /// A machine that was just booted, whose wall clock shows `wall`.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        Self(Arc::new(watch::Sender::new(Reading { wall, since_boot: Duration::ZERO })))
    }

    /// The clocks of a process that starts now on this machine. The arguments are those of [`Clock::system`].
    #[must_use]
    pub fn clock(&self, mark: Timestamp, tolerance: Duration) -> Clock {
        Clock::start(Source::Manual(Arc::clone(&self.0)), mark, tolerance)
    }

    /// Lets time pass, awake or suspended.
    pub fn elapse(&self, time: Duration) {
        self.0.send_modify(|reading| {
            reading.wall = reading.wall.after(time);
            reading.since_boot = reading.since_boot.saturating_add(time);
        });
    }

    /// Sets the wall clock, as an operator or a time server may. No time passes.
    pub fn set_wall(&self, wall: Timestamp) {
        self.0.send_modify(|reading| reading.wall = wall);
    }

    /// What the wall clock shows.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.0.borrow().wall
    }
}

#[cfg(test)]
mod tests;
