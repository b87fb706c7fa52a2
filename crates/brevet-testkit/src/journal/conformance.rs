//! What every journal must do, written once. Each check gets an empty journal, and panics if it finds a fault.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a check that fails panics")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use brevet_core::digest::StateDigest;
use brevet_core::id::{Id, RootTaskId};
use brevet_core::revision::{Basis, Incarnation, Revision};
use brevet_journal::{
    AppendError, ChainHash, Cursor, Entry, Journal, Kind, Link, Precedence, SnapshotError, Tail, TailError,
};

/// Runs every check.
pub fn run<J: Journal + 'static>(open: impl Fn() -> Arc<J>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let on = |check: &dyn Fn(Arc<dyn Journal>) -> Pin<Box<dyn Future<Output = ()>>>| {
        runtime.block_on(check(open()))
    };
    on(&|journal| Box::pin(each_entry_is_folded_once_under_the_next_revision(journal)));
    on(&|journal| Box::pin(t6_nothing_decided_before_a_control_change_is_recorded_behind_it(journal)));
    on(&|journal| Box::pin(u2_many_callers_get_one_order_without_gaps(journal)));
    on(&|journal| Box::pin(u3_the_chain_links_every_record(journal)));
    on(&|journal| Box::pin(the_durable_head_is_one_place_in_the_chain(journal)));
    on(&|journal| Box::pin(w1_to_w5_a_tail_gives_every_record_once_in_order(journal)));
    on(&|journal| Box::pin(a_foreign_or_future_cursor_is_refused(journal)));
    on(&|journal| Box::pin(only_durable_state_is_kept_as_a_snapshot(journal)));
}

/// An entry of some tree, decided under a control revision.
#[must_use]
pub fn tree(control: Revision, body: &[u8]) -> Entry {
    let root = RootTaskId(Id::from_bytes([1; 16]));
    let basis = Basis { tree: Revision::ZERO, control };
    Entry { kind: Kind::Tree { root, basis }, precedence: Precedence::Ending, body: body.to_owned() }
}

/// A control change, decided under a control revision.
#[must_use]
pub fn control(basis: Revision) -> Entry {
    Entry { kind: Kind::Control { basis }, precedence: Precedence::Ending, body: b"control".to_vec() }
}

/// A note.
#[must_use]
pub fn note(body: &[u8]) -> Entry {
    Entry { kind: Kind::Note, precedence: Precedence::Ending, body: body.to_owned() }
}

/// Whether a future is still unresolved after one look.
pub async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending())).await
}

async fn append(journal: &dyn Journal, entry: Entry) -> Revision {
    journal.append(entry, &mut |_| ()).unwrap().durable().await.unwrap()
}

async fn each_entry_is_folded_once_under_the_next_revision(journal: Arc<dyn Journal>) {
    for expected in 1..=5 {
        let mut folded = Vec::new();
        let ticket = journal.append(note(b"x"), &mut |revision| folded.push(revision)).unwrap();
        assert_eq!(folded, [Revision(expected)]);
        assert_eq!(ticket.revision(), Revision(expected));
        assert_eq!(ticket.durable().await, Ok(Revision(expected)));
        let head = journal.head();
        assert_eq!((head.newest, head.durable), (Revision(expected), Revision(expected)));
        assert_eq!(journal.durable(Revision(expected)).await, Ok(Revision(expected)));
    }
    assert!(is_pending(&mut journal.durable(Revision(6))).await);
    assert!(is_pending(&mut journal.sealed()).await);
}

async fn t6_nothing_decided_before_a_control_change_is_recorded_behind_it(journal: Arc<dyn Journal>) {
    let refused = |entry| {
        let refusal = journal.append(entry, &mut |_| panic!("a conflict must not fold"));
        assert_eq!(refusal.unwrap_err(), AppendError::Conflict);
    };
    let before = journal.head().control;
    append(&*journal, tree(before, b"before")).await;
    // It binds from the moment it is queued, durable or not.
    let ticket = journal.append(control(before), &mut |_| ()).unwrap();
    let after = ticket.revision();
    refused(tree(before, b"too late"));
    refused(control(before));
    refused(tree(after.next(), b"from nowhere"));
    assert_eq!(ticket.durable().await, Ok(after));
    assert_eq!(append(&*journal, note(b"conflicts with nothing")).await, after.next());
    assert_eq!(journal.head().control, after);
    append(&*journal, tree(after, b"after")).await;
    let bodies: Vec<_> =
        journal.read(Revision::ZERO, 9).await.unwrap().iter().map(|r| r.body.clone()).collect();
    assert_eq!(bodies, [&b"before"[..], b"control", b"conflicts with nothing", b"after"]);
}

async fn u2_many_callers_get_one_order_without_gaps(journal: Arc<dyn Journal>) {
    const CALLERS: u8 = 8;
    const EACH: u8 = 100;
    let folded = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (journal, folded) = (&journal, &folded);
            scope.spawn(move || {
                for turn in 0..EACH {
                    let fold = &mut |revision| folded.lock().unwrap().push((revision, vec![caller, turn]));
                    drop(journal.append(note(&[caller, turn]), fold).unwrap());
                }
            });
        }
    });
    let folded = folded.into_inner().unwrap();
    let newest = Revision(u64::from(CALLERS) * u64::from(EACH));
    assert_eq!(journal.durable(newest).await, Ok(newest));
    let read = journal.read(Revision::ZERO, usize::MAX).await.unwrap();
    assert!(read.iter().map(|record| record.revision.0).eq(1..=newest.0));
    assert!(read.iter().map(|record| (record.revision, record.body.clone())).eq(folded));
}

async fn u3_the_chain_links_every_record(journal: Arc<dyn Journal>) {
    for turn in 0..20_u8 {
        append(&*journal, note(&[turn; 50])).await;
    }
    let mut chain = ChainHash::genesis(journal.head().incarnation);
    let mut last = Revision::ZERO;
    // In uneven pieces, so that some begin in the middle.
    while last < Revision(20) {
        let piece = journal.read(last, 7).await.unwrap();
        assert!(!piece.is_empty() && piece.len() <= 7);
        for record in piece {
            chain = chain.link(record.revision, &record.body);
            assert_eq!(record.chain, chain);
            last = record.revision;
        }
    }
    assert!(journal.read(last, 7).await.unwrap().is_empty());
}

async fn the_durable_head_is_one_place_in_the_chain(journal: Arc<dyn Journal>) {
    let mut expected = Link::genesis(journal.head().incarnation);
    assert_eq!(journal.durable_head(), expected);
    for turn in 0..20_u8 {
        expected = expected.next(&[turn]);
        assert_eq!(append(&*journal, note(&[turn])).await, expected.revision);
        assert_eq!(journal.durable_head(), expected);
    }
    // While records are being written, it is never a revision with another's hash, and never behind what is known.
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let writing = scope
            .spawn(|| (0..200_u8).for_each(|turn| drop(journal.append(note(&[turn]), &mut |_| ()).unwrap())));
        while !writing.is_finished() {
            let known = journal.head().durable;
            let head = journal.durable_head();
            assert!(head.revision >= known);
            if seen.last() != Some(&head) {
                seen.push(head);
            }
        }
    });
    for head in seen {
        let before = Revision(head.revision.0 - 1);
        let records = journal.read(before, 1).await.unwrap();
        let found = records.first().map(|record| Link { revision: record.revision, chain: record.chain });
        assert_eq!(found, Some(head));
    }
}

async fn w1_to_w5_a_tail_gives_every_record_once_in_order(journal: Arc<dyn Journal>) {
    let incarnation = journal.head().incarnation;
    let from = |revision| Tail::open(Arc::clone(&journal), Cursor { incarnation, revision }).unwrap();
    let mut whole = from(Revision::ZERO);
    let mut seen = Vec::new();
    for round in 0..30_u8 {
        drop(journal.append(note(&[round]), &mut |_| ()).unwrap());
        append(&*journal, note(&[round])).await;
        seen.push(whole.next().await.unwrap().revision.0);
        while let Some(record) = whole.fetched_next() {
            seen.push(record.revision.0);
        }
    }
    while seen.len() < 60 {
        seen.push(whole.next().await.unwrap().revision.0);
    }
    assert!(seen.into_iter().eq(1..=60));
    assert_eq!(whole.cursor().revision, Revision(60));
    assert!(is_pending(&mut Box::pin(whole.next())).await);
    // Whoever stops and comes back goes on where he stopped.
    let mut resumed = from(Revision(41));
    for expected in 42..=60 {
        assert_eq!(resumed.next().await.unwrap().revision, Revision(expected));
    }
}

async fn a_foreign_or_future_cursor_is_refused(journal: Arc<dyn Journal>) {
    append(&*journal, note(b"x")).await;
    let incarnation = journal.head().incarnation;
    let open = |incarnation, revision| {
        Tail::open(Arc::clone(&journal), Cursor { incarnation, revision }).unwrap_err()
    };
    assert_eq!(open(Incarnation(incarnation.0 ^ 1), Revision(1)), TailError::Incarnation);
    assert_eq!(open(incarnation, Revision(2)), TailError::Future);
}

async fn only_durable_state_is_kept_as_a_snapshot(journal: Arc<dyn Journal>) {
    append(&*journal, note(b"x")).await;
    assert!(matches!(
        journal.store_snapshot(Revision(2), b"state"),
        Err(SnapshotError::NotDurable(Revision(2)))
    ));
    assert_eq!(journal.store_snapshot(Revision(1), b"state").unwrap(), StateDigest::of(&[b"state"]));
    assert_eq!(append(&*journal, note(b"y")).await, Revision(2));
}
