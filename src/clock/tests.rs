use std::time::Duration;

use brevet_core::time::{Now, Timestamp};
use proptest::prelude::*;

use super::{Clock, ClockState, ManualSource};

const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
const TOLERANCE: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3_600);

fn back(from: Timestamp, by: Duration) -> Timestamp {
    Timestamp::EPOCH.after(from.since(Timestamp::EPOCH).saturating_sub(by))
}

/// What can happen to a machine.
#[derive(Debug, Clone)]
enum Event {
    Elapse(Duration),
    SetWall(Timestamp),
}

fn event() -> impl Strategy<Value = Event> {
    let millis = prop_oneof![0..10_000_u64, 0..100_000_000_u64];
    prop_oneof![
        millis.prop_map(|millis| Event::Elapse(Duration::from_millis(millis))),
        any::<u64>().prop_map(|millis| Event::SetWall(Timestamp::from_millis(millis))),
        (-100_000_000..100_000_000_i64).prop_map(|offset| {
            Event::SetWall(Timestamp::from_millis(START.millis().saturating_add_signed(offset)))
        }),
    ]
}

fn happen(source: &ManualSource, event: &Event) -> Duration {
    match event {
        Event::Elapse(time) => {
            source.elapse(*time);
            *time
        }
        Event::SetWall(wall) => {
            source.set_wall(*wall);
            Duration::ZERO
        }
    }
}

proptest! {
    #[test]
    fn c1_both_clocks_advance_and_the_judge_is_never_behind(events in prop::collection::vec(event(), 1..60)) {
        let (clock, source) = Clock::manual(START);
        let mut last = clock.now();
        let mut elapsed = Duration::ZERO;
        for event in &events {
            elapsed += happen(&source, event);
            let now = clock.now();
            prop_assert_eq!(now.issue, START.after(elapsed), "the issuing clock counts elapsed time alone");
            prop_assert!(now.judge >= now.issue && now.judge >= source.wall() && now.judge >= last.judge);
            last = now;
        }
    }

    #[test]
    fn c2_c3_no_jump_of_the_wall_clock_lengthens_a_lease(
        before in prop::collection::vec(event(), 0..20),
        after in prop::collection::vec(event(), 0..40),
        life in 1..86_400_u64,
    ) {
        let (clock, source) = Clock::manual(START);
        for event in &before {
            happen(&source, event);
        }
        let life = Duration::from_secs(life);
        let end = clock.now().issue.after(life);
        let mut lived = Duration::ZERO;
        for event in &after {
            lived += happen(&source, event);
            if lived >= life {
                prop_assert!(clock.now().judge >= end, "alive {lived:?} after a minting for {life:?}");
            }
        }
    }

    #[test]
    fn c3_the_mark_only_rises_and_never_by_a_suspect_reading(events in prop::collection::vec(event(), 1..60)) {
        let (clock, source) = Clock::manual(START);
        let mut last = clock.mark();
        for event in &events {
            happen(&source, event);
            let mark = clock.mark();
            let now = clock.now();
            prop_assert!(mark >= last && mark <= now.issue.after(TOLERANCE));
            if !clock.state().may_mint() {
                prop_assert_eq!(mark, last);
            }
            last = mark;
        }
    }

    #[test]
    fn c5_no_start_falls_behind_the_mark(
        before in prop::collection::vec(event(), 0..30),
        wall in prop_oneof![any::<u64>(), 0..3_000_000_000_000_u64],
    ) {
        let (clock, source) = Clock::manual(START);
        for event in &before {
            happen(&source, event);
        }
        let mark = clock.mark();
        drop(clock);
        source.set_wall(Timestamp::from_millis(wall));
        let clock = source.clock(mark, TOLERANCE);
        prop_assert!(clock.now().judge >= mark);
        prop_assert_eq!(clock.state().may_mint(), source.wall().after(TOLERANCE) >= mark);
    }
}

#[test]
fn c2_a_lease_of_five_minutes_ends_after_five_minutes_when_the_wall_goes_back_an_hour() {
    let (clock, source) = Clock::manual(START);
    source.elapse(Duration::from_secs(99));
    let end = clock.now().issue.after(Duration::from_secs(300));
    source.elapse(Duration::from_secs(1));
    source.set_wall(back(source.wall(), HOUR));
    assert!(matches!(clock.state(), ClockState::WallBehind(by) if by == HOUR));
    assert!(clock.state().may_mint(), "issuing goes on by elapsed time");
    source.elapse(Duration::from_millis(298_999));
    assert!(clock.now().judge < end);
    source.elapse(Duration::from_millis(1));
    assert_eq!(clock.now(), Now::at(end));
}

#[test]
fn c3_a_forward_jump_seals_minting_and_a_restart_at_the_right_time_heals() {
    let (clock, source) = Clock::manual(START);
    source.set_wall(START.after(HOUR));
    assert_eq!(clock.now(), Now { issue: START, judge: START.after(HOUR), suspect: true });
    assert_eq!(clock.state(), ClockState::Suspect(HOUR));

    source.set_wall(START);
    assert_eq!(clock.now().judge, START.after(HOUR), "what was refused stays refused");
    assert_eq!(clock.state(), ClockState::Suspect(HOUR));

    let clock = source.clock(clock.mark(), TOLERANCE);
    assert_eq!(clock.state(), ClockState::Steady);
    assert_eq!(clock.now(), Now::at(START));
}

#[test]
fn c3_a_jump_within_the_tolerance_is_followed_by_the_judge_alone() {
    let (clock, source) = Clock::manual(START);
    let ahead = START.after(TOLERANCE);
    source.set_wall(ahead);
    assert_eq!(clock.now(), Now { issue: START, judge: ahead, suspect: false });
    assert_eq!(clock.state(), ClockState::Steady);
    assert_eq!(clock.mark(), ahead);
}

#[test]
fn c4_a_suspend_counts_before_the_first_answer() {
    let (clock, source) = Clock::manual(START);
    let end = clock.now().issue.after(Duration::from_secs(300));
    source.elapse(HOUR);
    assert!(clock.now().judge >= end);
    assert_eq!(clock.now().issue, START.after(HOUR));
    assert_eq!(clock.state(), ClockState::Steady);
}

#[test]
fn c5_a_start_behind_the_mark_is_sealed_until_time_has_caught_up() {
    let source = ManualSource::new(START);
    let mark = START.after(HOUR);
    let clock = source.clock(mark, TOLERANCE);
    assert_eq!(clock.state(), ClockState::BehindMark(HOUR));
    assert_eq!(clock.now(), Now { issue: START, judge: mark, suspect: true });
    assert_eq!(clock.mark(), mark);
    source.elapse(HOUR);
    assert_eq!(clock.state(), ClockState::Steady);
}

#[test]
fn c5_a_start_within_the_tolerance_goes_on_from_the_mark() {
    let source = ManualSource::new(START);
    let mark = START.after(TOLERANCE);
    let clock = source.clock(mark, TOLERANCE);
    assert_eq!(clock.now(), Now::at(mark));
    assert_eq!(clock.state(), ClockState::Steady);
}

#[test]
fn c6_the_edges_of_time_neither_panic_nor_wrap() {
    for wall in [0, 1, i64::MAX as u64, u64::MAX].map(Timestamp::from_millis) {
        for mark in [0, i64::MAX as u64, u64::MAX].map(Timestamp::from_millis) {
            let source = ManualSource::new(wall);
            let clock = source.clock(mark, TOLERANCE);
            source.elapse(Duration::MAX);
            source.set_wall(Timestamp::EPOCH);
            let now = clock.now();
            assert_eq!(now.issue, Timestamp::from_millis(u64::MAX), "it stands still at its end");
            assert!(now.judge >= now.issue && clock.mark() >= mark);
            let _ = clock.state();
        }
    }
}

#[test]
fn tls_judges_certificates_by_the_judging_clock() {
    let (clock, source) = Clock::manual(START);
    source.set_wall(START.after(HOUR));
    assert_eq!(clock.now().judge, START.after(HOUR));
    source.set_wall(START);
    let seen = clock.time_provider().current_time().unwrap();
    assert_eq!(seen.as_secs(), START.after(HOUR).seconds());
}

#[test]
fn the_system_clock_follows_the_wall_and_only_advances() {
    let clock = Clock::system(Timestamp::EPOCH, TOLERANCE).unwrap();
    let first = clock.now();
    let second = clock.now();
    assert!(first.issue >= Timestamp::from_seconds(1_700_000_000));
    assert!(second.issue >= first.issue && second.judge >= first.judge);
    assert_eq!(clock.state(), ClockState::Steady);
}

#[tokio::test]
async fn a_sleeper_wakes_when_the_judging_clock_reaches_its_deadline() {
    let (clock, source) = Clock::manual(START);
    clock.sleep_until(START).await;
    let sleeper = tokio::spawn({
        let clock = clock.clone();
        async move {
            clock.sleep_until(START.after(HOUR)).await;
            clock.now()
        }
    });
    tokio::task::yield_now().await;
    source.elapse(HOUR - Duration::from_millis(1));
    tokio::task::yield_now().await;
    assert!(!sleeper.is_finished());
    source.elapse(Duration::from_millis(1));
    assert_eq!(sleeper.await.unwrap(), Now::at(START.after(HOUR)));
}

#[tokio::test]
async fn a_period_passes_while_the_judging_clock_stands_still() {
    let (clock, source) = Clock::manual(START);
    source.set_wall(START.after(HOUR));
    assert_eq!(clock.now().judge, START.after(HOUR));
    source.set_wall(START);
    let sleeper = tokio::spawn({
        let clock = clock.clone();
        async move { clock.sleep(Duration::from_secs(1)).await }
    });
    tokio::task::yield_now().await;
    source.elapse(Duration::from_millis(999));
    // Nor does it pass by a jump.
    source.set_wall(START.after(HOUR));
    tokio::task::yield_now().await;
    assert!(!sleeper.is_finished());
    source.elapse(Duration::from_millis(1));
    sleeper.await.unwrap();
}
