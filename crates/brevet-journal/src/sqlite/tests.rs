use std::convert::Infallible;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::writer::WriteError;
use super::*;
use crate::chain::{ChainHash, Link};
use crate::checkpoint::{CheckpointSigner, Signature, SigningFailed};
use crate::sqlite::mark::{Mark, Marker, UNSYNCED_MAX};
use crate::sqlite::queue::Turn;
use crate::{Kind, Precedence};

struct NoKey;

impl CheckpointSigner for NoKey {
    fn key_id(&self) -> &str {
        "none"
    }

    fn sign(&self, _: &[u8]) -> Result<Signature, SigningFailed> {
        Ok([0; 64])
    }
}

fn writer(dir: &Path) -> Writer {
    let options =
        Options { reserve_bytes: 4096, space: SpaceProbe::new(|_| Ok(1 << 30)), ..Options::new(dir) };
    let verified = Sqlite::open(options).unwrap().replay(|_| Ok::<_, Infallible>(())).unwrap();
    verified.into_writer(Arc::new(NoKey), Arc::new(|| Timestamp::EPOCH)).unwrap()
}

#[test]
fn on_a_full_disk_the_reserve_is_given_up_once_and_then_the_journal_ends() {
    let dir = tempfile::tempdir().unwrap();
    let reserve = dir.path().join("journal.reserve");
    let mut writer = writer(dir.path());
    assert!(writer.reserve.look());
    assert!(reserve.exists());
    // SQLite answers that the disk is full when its file may not grow.
    let pages: i64 = writer.store.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    writer.store.connection().pragma_update(None, "max_page_count", pages).unwrap();
    let shared = Shared::new(
        Link::genesis(Incarnation(1)),
        Revision::ZERO,
        Limits {
            queue_records_max: 9,
            queue_bytes_max: 1 << 20,
            commit_window: Duration::ZERO,
            recent_bytes_max: 0,
        },
    );
    let outcome = writer.write(vec![vec![0; 100_000]], &shared);
    assert!(matches!(outcome, Err(WriteError::Commit(_))), "{outcome:?}");
    assert!(!reserve.exists());
    assert_eq!(shared.progress.durable(), Revision::ZERO);
}

#[test]
fn r1_what_grows_makes_way_for_denials_and_both_for_what_ends() {
    let limits = Limits {
        queue_records_max: 1 << 20,
        queue_bytes_max: 16_000,
        commit_window: Duration::ZERO,
        recent_bytes_max: 0,
    };
    let shared = Shared::new(Link::genesis(Incarnation(1)), Revision::ZERO, limits);
    shared.set_ample(true);
    // Nobody takes from this queue, so it fills up by bytes: to a half, to three quarters, to a last part, to the end.
    let fill = |precedence| {
        let entry = || Entry { kind: Kind::Note, precedence, body: vec![0; 1_000] };
        let taken = (0..9).take_while(|_| shared.append(entry(), &mut |_| {}).is_ok()).count();
        (taken, shared.append(entry(), &mut |_| {}).unwrap_err())
    };
    assert_eq!(fill(Precedence::Growth), (8, AppendError::Busy));
    assert_eq!(fill(Precedence::Denial), (4, AppendError::Busy));
    assert_eq!(fill(Precedence::Ending), (3, AppendError::Busy));
    assert_eq!(fill(Precedence::Stop), (1, AppendError::Busy));

    let shared = Shared::new(Link::genesis(Incarnation(1)), Revision::ZERO, limits);
    shared.set_scarce(true);
    let append = |precedence| {
        let entry = Entry { kind: Kind::Note, precedence, body: Vec::new() };
        shared.append(entry, &mut |_| {}).map(|_| ())
    };
    assert_eq!(append(Precedence::Growth), Err(AppendError::NoSpace));
    assert_eq!(append(Precedence::Denial), Err(AppendError::NoSpace));
    assert_eq!(append(Precedence::Ending), Ok(()));
    assert_eq!(append(Precedence::Stop), Ok(()));
}

#[test]
fn a_commit_waits_for_those_who_were_answered_by_the_last() {
    // Each part of this window is longer than the test may take.
    let limits = Limits {
        queue_records_max: 1 << 10,
        queue_bytes_max: 1 << 20,
        commit_window: Duration::from_secs(1 << 20),
        recent_bytes_max: 0,
    };
    let shared = Shared::new(Link::genesis(Incarnation(1)), Revision::ZERO, limits);
    let append = |body: u8| {
        let entry = Entry { kind: Kind::Note, precedence: Precedence::Ending, body: vec![body] };
        drop(shared.append(entry, &mut |_| {}).unwrap());
    };
    let turn = |last_batch| match shared.turn(last_batch, Duration::from_secs(1 << 20)) {
        Turn::Work { bodies, questions } => (bodies.concat(), questions.len()),
        _ => panic!("no work"),
    };
    // Nobody waits for a single caller, nor for more than come together.
    for alone in [0, 1] {
        append(alone);
        assert_eq!(turn(alone.into()), (vec![alone], 0));
    }
    (0..70).for_each(append);
    assert_eq!(turn(200).0.len(), 70);
    // Three come back one by one: one commit. Of many some more are expected than came the last time.
    for (returning, expected) in [(3, 3), (8, 10), (60, 64)] {
        std::thread::scope(|scope| {
            let gathering = scope.spawn(|| turn(returning));
            (0..expected).for_each(append);
            assert_eq!(gathering.join().unwrap(), ((0..expected).collect(), 0));
        });
    }
    // A question does not wait for them, and neither does the end.
    append(9);
    let (answer, _coming) = oneshot::channel();
    shared.ask(Question::Read { after: Revision::ZERO, limit: 1, answer });
    assert_eq!(turn(4), (vec![9], 1));
    append(8);
    shared.close();
    assert_eq!(turn(4), (vec![8], 0));
}

fn link(revision: u64) -> Link {
    Link { revision: Revision(revision), chain: ChainHash::from_bytes([revision as u8; 32]) }
}

#[test]
fn a_torn_slot_leaves_the_mark_that_was_synced_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mark");
    let mut found = mark::create(&path, Mark { incarnation: Incarnation(1), acknowledged: link(0) }).unwrap();
    for start in [1, 41, 81] {
        let mut marker = Marker::open(&path, found, link(start)).unwrap();
        let mut synced = start;
        for revision in start + 1..start + 40 {
            marker.acknowledge(link(revision)).unwrap();
            let newest = mark::read(&path).unwrap().unwrap();
            assert_eq!(newest.mark.acknowledged, link(revision));
            let copy = dir.path().join("copy");
            let mut seen = Vec::new();
            for slot in [0, 4096] {
                std::fs::copy(&path, &copy).unwrap();
                let torn = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
                torn.write_all_at(&[0xff; 40], slot + 20).unwrap();
                seen.push(mark::read(&copy).unwrap().unwrap().mark.acknowledged.revision.0);
            }
            seen.sort_unstable();
            assert_eq!(seen, [synced, revision]);
            assert!(revision - synced <= u64::from(UNSYNCED_MAX));
            if marker.is_due() {
                marker.sync().unwrap();
                synced = revision;
            }
        }
        // Not synced: the next process finds what this one wrote last, and keeps it until its own mark is durable.
        drop(marker);
        found = mark::read(&path).unwrap().unwrap();
        assert_eq!(found.mark.acknowledged, link(start + 39));
    }
}
