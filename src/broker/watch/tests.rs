use std::time::Duration;

use brevet_core::fact::{Fact, LeaseOutcome, Outcome, ReasonCode};
use brevet_core::notice::Ended;
use brevet_core::revision::Incarnation;
use brevet_journal::Journal;

use super::*;
use crate::broker::sample::{Sample, X, X_SERVER, XY_SERVER, Y, audience, lease, lock, task};

fn from(revision: u64) -> WatchAsk {
    let cursor = Cursor { incarnation: Incarnation(7), revision: Revision(revision) };
    WatchAsk { audiences: [audience(X), audience(Y)].into(), cursor: Some(cursor) }
}

fn nonce(number: u64) -> Nonce {
    Nonce::new(&[number.to_be_bytes(), [0; 8]].concat()).unwrap()
}

async fn next(watch: &mut Watch) -> Told {
    loop {
        watch.ready().await.unwrap();
        if let Some(told) = watch.take() {
            return told;
        }
    }
}

async fn endings(watch: &mut Watch) -> (u64, Vec<Ended>) {
    match next(watch).await {
        Told::Endings(told) => {
            (told.revision.0, told.endings.into_iter().map(|ending| ending.ended).collect())
        }
        Told::Bookmark(bookmark) => panic!("a bookmark at {} and no ending", bookmark.cursor.revision),
    }
}

impl Sample {
    fn watch(&self, caller: &str, ask: WatchAsk) -> Result<(Watch, Share), Refusal> {
        self.broker.watch(&self.caller(caller), ask)
    }

    /// Answers the nonces that wait, as the daemon does once a second. How many there were.
    fn answer(&self) -> usize {
        self.broker.bookmarks.answer(&self.broker.table, || self.broker.clock.now().judge).unwrap()
    }

    /// A bookmark of now, which must be the next thing to be told.
    async fn bookmark(&self, watch: &mut Watch) -> Bookmark {
        watch.ask(nonce(1));
        assert_eq!(self.answer(), 1);
        match next(watch).await {
            Told::Bookmark(bookmark) => *bookmark,
            Told::Endings(endings) => panic!("{endings:?} and no bookmark"),
        }
    }
}

fn reason(refused: Result<impl Sized, Refusal>) -> String {
    refused.err().unwrap().reason.as_str().to_owned()
}

/// While endings are committed as fast as it goes, a stream that is cut again and again, and that the ring of two
/// notices is always ahead of, tells each of them once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w1_w2_w4_w5_every_ending_comes_once_and_in_order_whatever_the_ring_has_lost() {
    const TREES: u64 = 300;
    let sample = Arc::new(Sample::with(TREES, 2).await);
    let writer = {
        let sample = Arc::clone(&sample);
        tokio::task::spawn_blocking(move || {
            (1..=TREES).map(|number| (sample.end(number).0, task(number))).collect::<Vec<_>>()
        })
    };
    let (mut watch, mut place) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    let mut told = Vec::new();
    while told.len() < usize::try_from(TREES).unwrap() {
        let (revision, ended) = endings(&mut watch).await;
        let [Ended::Task(task)] = ended[..] else { panic!("{ended:?}") };
        told.push((revision, task));
        if revision % 17 == 0 {
            drop((watch, place));
            (watch, place) = sample.watch(XY_SERVER, from(revision)).unwrap();
        }
    }
    assert_eq!(told, writer.await.unwrap());
    let bookmark = sample.bookmark(&mut watch).await;
    assert_eq!(bookmark.cursor.revision.0, told.last().unwrap().0, "and nothing else");
    drop(place);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w2_w5_a_stream_goes_on_behind_its_cursor_and_tells_nothing_twice() {
    let sample = Sample::with(4, 100).await;
    let ended = [1, 2].map(|number| sample.end(number).0);
    for (cursor, expected) in [(ended[0] - 1, &ended[..]), (ended[0], &ended[1..]), (ended[1], &[])] {
        let (mut watch, _place) = sample.watch(XY_SERVER, from(cursor)).unwrap();
        for revision in expected {
            assert_eq!(endings(&mut watch).await.0, *revision, "behind {cursor}");
        }
        sample.bookmark(&mut watch).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w3_what_ends_together_is_told_together() {
    let sample = Sample::with(2, 100).await;
    // Once from the trees and once from the ring.
    let (mut late, _place) = {
        let revision = sample.end_leases(1, &[X, Y]);
        let (mut late, place) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
        let both = [X, Y].map(|name| Ended::Lease(lease(1, name))).to_vec();
        assert_eq!(endings(&mut late).await, (revision.0, both));
        (late, place)
    };
    let revision = sample.end_leases(2, &[X, Y]);
    let both = [X, Y].map(|name| Ended::Lease(lease(2, name))).to_vec();
    assert_eq!(endings(&mut late).await, (revision.0, both));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w3_what_is_too_much_for_one_message_is_told_in_parts_with_nothing_in_between() {
    let sample = Sample::with(2, 100).await;
    let leases = sample.issue_many(1, ENDINGS_TOLD_MAX + 1);
    let (mut near, _near) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    let before = sample.bookmark(&mut near).await.cursor.revision;
    let (outcome, reason) = (LeaseOutcome::Revoked, ReasonCode::of("revoked"));
    let keys: Vec<_> = leases.iter().map(|lease| lease.key).collect();
    let ended = Fact::LeasesEnded { task: task(1), leases: keys, outcome, reason, since: None };
    let revision = sample.commit(1, &ended);
    near.ask(nonce(9));
    sample.answer();
    // From the ring, and from the trees.
    let (mut far, _far) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    for watch in [&mut near, &mut far] {
        let mut told = Vec::new();
        for (count, more) in [(ENDINGS_TOLD_MAX, true), (1, false)] {
            let next = next(watch).await;
            let reached = if more { Revision(revision.0 - 1) } else { revision };
            assert_eq!(next.revision(), reached, "a part is not the whole");
            let Told::Endings(endings) = next else { panic!("a bookmark in between") };
            assert_eq!((endings.revision, endings.endings.len(), endings.more), (revision, count, more));
            told.extend(endings.endings.into_iter().map(|ending| ending.ended));
        }
        told.sort_unstable();
        assert!(told.into_iter().eq(leases.iter().map(|lease| Ended::Lease(*lease))));
    }
    assert!(matches!(next(&mut near).await, Told::Bookmark(_)));

    // Who may be told of less by then is still told that there is no more.
    drop((far, _far));
    let (mut watch, _watch) = sample.watch(XY_SERVER, from(before.0)).unwrap();
    watch.ready().await.unwrap();
    assert_eq!(watch.take().unwrap().revision(), Revision(revision.0 - 1));
    watch.authority.audiences = [audience(Y)].into();
    let last = Told::Endings(Endings { revision, endings: Vec::new(), more: false });
    assert_eq!(next(&mut watch).await, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w4_what_comes_right_behind_a_walk_is_not_lost() {
    let sample = Sample::with(3, 100).await;
    sample.end(1);
    let (mut watch, _place) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    endings(&mut watch).await;
    for number in [2, 3] {
        let revision = sample.end(number);
        watch.ask(nonce(number));
        sample.answer();
        assert_eq!(endings(&mut watch).await, (revision.0, vec![Ended::Task(task(number))]));
        assert!(matches!(next(&mut watch).await, Told::Bookmark(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w1_endings_come_in_the_order_of_their_commits() {
    let sample = Sample::with(6, 100).await;
    let mut ended: Vec<u64> = [3, 1, 2].map(|number| sample.end(number).0).to_vec();
    // Three from the trees, and three from the ring.
    let (mut watch, _place) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    let mut told = vec![endings(&mut watch).await.0];
    ended.extend([6, 5, 4].map(|number| sample.end(number).0));
    while told.len() < 6 {
        told.push(endings(&mut watch).await.0);
    }
    assert_eq!(told, ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w4_what_stands_behind_much_that_is_not_for_the_caller_is_told_at_once() {
    let trees = u64::try_from(3 * COMMITS_MAX).unwrap();
    let sample = Sample::with(trees, 1_000).await;
    let (mut watch, _place) = sample.watch(X_SERVER, WatchAsk::default()).unwrap();
    sample.bookmark(&mut watch).await;
    for number in 1..trees {
        sample.end_leases(number, &[Y]);
    }
    let revision = sample.end(trees);
    // Nothing else comes that could wake the stream.
    let told = tokio::time::timeout(Duration::from_secs(20), endings(&mut watch)).await;
    assert_eq!(told.expect("the stream sleeps").0, revision.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w4_nothing_is_told_that_could_still_be_lost() {
    let sample = Sample::with(2, 100).await;
    let (mut watch, _place) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    let before = sample.bookmark(&mut watch).await.cursor.revision;
    sample.journal.hold();
    let revision = sample.end(1);
    // The bookmark is of what is durable, so it comes first although it was asked for later.
    assert_eq!(sample.bookmark(&mut watch).await.cursor.revision, before);
    let mut ready = Box::pin(watch.ready());
    assert!(futures_are_pending(&mut ready).await);
    sample.journal.release();
    ready.await.unwrap();
    assert_eq!(watch.take().unwrap().revision(), revision);
    // What never becomes durable is never told.
    sample.journal.fail_next_commit();
    sample.end(2);
    assert_eq!(watch.ready().await.unwrap_err().kind, Kind::Unavailable);
}

async fn futures_are_pending<F: Future + Unpin>(future: &mut F) -> bool {
    tokio::select! {
        biased;
        _done = future => false,
        () = std::future::ready(()) => true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w6_before_a_bookmark_comes_everything_up_to_it() {
    let sample = Sample::with(3, 100).await;
    sample.end(1);
    // From the trees, and then from the ring.
    let (mut watch, _place) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    for number in [2, 3] {
        watch.ask(nonce(number));
        assert_eq!(sample.answer(), 1);
        let bookmarked = sample.journal.durable_head();
        endings(&mut watch).await;
        let Told::Bookmark(bookmark) = next(&mut watch).await else { panic!("another ending") };
        assert_eq!(bookmark.cursor, Cursor { incarnation: Incarnation(7), revision: bookmarked.revision });
        assert_eq!(bookmark.chain, *bookmarked.chain.as_bytes());
        assert_eq!(bookmark.nonce, nonce(number));
        sample.end(number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w6_one_signature_answers_every_stream_and_each_stream_its_newest_nonce() {
    let sample = Sample::with(1, 100).await;
    let (mut first, _first) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    let (mut second, _second) = sample.watch(X_SERVER, WatchAsk::default()).unwrap();
    let (silent, _silent) = sample.watch(X_SERVER, WatchAsk::default()).unwrap();
    for (number, watch) in [(1, &first), (2, &second), (3, &first), (4, &silent)] {
        watch.ask(nonce(number));
    }
    drop(silent);
    assert_eq!((sample.answer(), sample.answer()), (2, 0));
    let mut bookmarks = Vec::new();
    for watch in [&mut first, &mut second] {
        let Told::Bookmark(bookmark) = next(watch).await else { panic!("an ending") };
        bookmarks.push(*bookmark);
    }
    assert_eq!([&bookmarks[0].nonce, &bookmarks[1].nonce], [&nonce(3), &nonce(2)]);
    assert_eq!(bookmarks[0].signature, bookmarks[1].signature);
    assert_eq!(bookmarks[0].statement().unwrap(), bookmarks[1].statement().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t6_w6_there_is_no_bookmark_while_a_lock_has_killed_what_was_not_told() {
    let sample = Sample::with(2, 100).await;
    let (mut watch, _place) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    let before = sample.bookmark(&mut watch).await.cursor.revision;
    let lock = lock(9, None);
    let id = lock.id;
    // As long as the lock is not durable, the head is before it: nobody was told that it has killed anything.
    sample.journal.hold();
    let created = sample.control(&Fact::LockCreated(lock));
    assert_eq!(sample.bookmark(&mut watch).await.cursor.revision, before);
    sample.journal.release();
    watch.ask(nonce(2));
    assert_eq!(sample.answer(), 0);

    let (outcome, reason) = (Outcome::Revoked, ReasonCode::of("locked"));
    let first = sample.commit(1, &Fact::TaskEnded { task: task(1), outcome, reason, since: None });
    assert_eq!(sample.answer(), 0, "half a sweep is none");
    let leases = [X, Y].map(|name| lease(2, name).key).to_vec();
    let (outcome, reason) = (LeaseOutcome::Revoked, ReasonCode::of("locked"));
    let second = sample.commit(2, &Fact::LeasesEnded { task: task(2), leases, outcome, reason, since: None });
    // It is swept and may even be forgotten, but the head is before the sweep, and maybe before the endings.
    sample.journal.hold();
    let swept = sample.control(&Fact::LockSwept { lock: id, tasks: 1, leases: 2 });
    sample.control(&Fact::LockLifted { lock: id, proposer: None, confirmers: Vec::new() });
    assert!(sample.broker.table.in_force().control.locks().is_empty());
    assert_eq!(sample.answer(), 0, "what could still be lost is not said to be told");
    sample.journal.release_to(swept);
    assert_eq!(sample.answer(), 1, "the nonce has waited");
    assert!(before < created && created < first);
    assert_eq!(endings(&mut watch).await.0, first.0);
    assert_eq!(endings(&mut watch).await.0, second.0);
    let Told::Bookmark(bookmark) = next(&mut watch).await else { panic!("another ending") };
    assert_eq!((bookmark.cursor.revision, bookmark.nonce), (swept, nonce(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t7_who_enforces_one_audience_is_told_nothing_of_another() {
    let sample = Sample::with(4, 100).await;
    sample.end_leases(1, &[Y]);
    sample.end_leases(2, &[X, Y]);
    let (mut watch, _place) = sample.watch(X_SERVER, WatchAsk::default()).unwrap();
    assert_eq!(endings(&mut watch).await.1, [Ended::Lease(lease(2, X))], "from the trees");
    sample.end_leases(3, &[Y]);
    sample.end_leases(4, &[X, Y]);
    assert_eq!(endings(&mut watch).await.1, [Ended::Lease(lease(4, X))], "from the ring");
    sample.bookmark(&mut watch).await;

    // Who enforces both may ask for one.
    let ask = WatchAsk { audiences: [audience(X)].into(), cursor: None };
    let (mut watch, _place) = sample.watch(XY_SERVER, ask).unwrap();
    assert_eq!(endings(&mut watch).await.1, [Ended::Lease(lease(2, X))]);
    let foreign = WatchAsk { audiences: [audience(X), audience(Y)].into(), cursor: None };
    assert_eq!(reason(sample.watch(X_SERVER, foreign)), "not_enforcer");
    assert_eq!(reason(sample.watch("spiffe://td.example/nobody", WatchAsk::default())), "not_enforcer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w5_a_cursor_of_another_journal_or_from_the_future_is_refused() {
    let sample = Sample::with(1, 100).await;
    let head = sample.journal.head().durable.0;
    assert!(sample.watch(XY_SERVER, from(head)).is_ok());
    assert_eq!(reason(sample.watch(XY_SERVER, from(head + 1))), "invalid_argument");
    let cursor = Some(Cursor { incarnation: Incarnation(8), revision: Revision(1) });
    assert_eq!(reason(sample.watch(XY_SERVER, WatchAsk { cursor, ..from(1) })), "incarnation_changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w8_a_stream_tells_what_its_caller_enforces_now_and_ends_if_that_is_more() {
    let sample = Sample::with(2, 100).await;
    let (mut watch, _place) = sample.watch(XY_SERVER, WatchAsk::default()).unwrap();
    let (mut asked, _asked) = sample.watch(XY_SERVER, from(1)).unwrap();

    // It enforces less: it is told less, even of what was queued; or, if it asked for just that, nothing more.
    sample.end_leases(1, &[X, Y]);
    watch.ready().await.unwrap();
    sample.enforcers(&[(X, &[XY_SERVER]), (Y, &[X_SERVER])]).await;
    watch.authorise(&sample.caller(XY_SERVER)).unwrap();
    assert_eq!(endings(&mut watch).await.1, [Ended::Lease(lease(1, X))]);
    assert_eq!(reason(asked.authorise(&sample.caller(XY_SERVER))), "not_enforcer");

    // It enforces more: what it was not told of cannot be made up for in the middle of a stream.
    sample.enforcers(&[(X, &[XY_SERVER]), (Y, &[XY_SERVER])]).await;
    assert_eq!(reason(watch.authorise(&sample.caller(XY_SERVER))), "audiences_changed");
    // It enforces nothing.
    sample.enforcers(&[(X, &[X_SERVER]), (Y, &[X_SERVER])]).await;
    assert_eq!(reason(watch.authorise(&sample.caller(XY_SERVER))), "not_enforcer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w4_who_enforces_more_when_it_comes_back_is_told_of_that_from_the_beginning() {
    let sample = Sample::with(1, 100).await;
    let revision = sample.end_leases(1, &[Y]);
    let cursor = from(revision.0).cursor;
    sample.enforcers(&[(X, &[X_SERVER]), (Y, &[X_SERVER])]).await;
    let (mut watch, _place) = sample.watch(X_SERVER, WatchAsk { cursor, ..WatchAsk::default() }).unwrap();
    assert_eq!(endings(&mut watch).await.0, revision.0, "it was told nothing of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn w2_w5_no_lock_makes_a_stream_begin_anew() {
    let sample = Sample::with(2, 100).await;
    let cursor = from(sample.end(1).0).cursor;
    let lock = lock(9, Some("another"));
    let id = lock.id;
    sample.control(&Fact::LockCreated(lock));
    sample.control(&Fact::LockSwept { lock: id, tasks: 0, leases: 0 });
    let (mut watch, _place) = sample.watch(XY_SERVER, WatchAsk { cursor, ..WatchAsk::default() }).unwrap();
    let revision = sample.end(2);
    assert_eq!(endings(&mut watch).await.0, revision.0, "what was told is not told again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nobody_has_more_streams_than_it_may() {
    let sample = Sample::with(1, 100).await;
    let open = |caller| sample.watch(caller, WatchAsk::default());
    let (first, _second) = (open(XY_SERVER).unwrap(), open(XY_SERVER).unwrap());
    assert_eq!(reason(open(XY_SERVER)), "watch_streams_per_caller_max");
    let _another = open(X_SERVER).unwrap();
    drop(first);
    assert!(open(XY_SERVER).is_ok());
}
