//! When callers are answered, and what they are refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brevet_core::revision::Revision;
use brevet_journal::checkpoint::{CheckpointSigner, Signature, SigningFailed};
use brevet_journal::sqlite::{Options, SpaceProbe};
use brevet_journal::{AppendError, Entry, Journal, Precedence, TicketError};
use brevet_testkit::journal::conformance::{self, is_pending, note};

use crate::fixture::{Key, append, options, replay, start, wait};

#[test]
fn the_sqlite_journal_conforms() {
    let dirs = Mutex::new(Vec::new());
    conformance::run(|| {
        let dir = tempfile::tempdir().unwrap();
        // No memory of recent records for every other store: reads then come from the database.
        let recent_bytes_max = if dirs.lock().unwrap().len() % 2 == 0 { 0 } else { 1 << 20 };
        let journal = start(Options { recent_bytes_max, ..options(dir.path()) }, Key::new("k"));
        dirs.lock().unwrap().push(dir);
        journal
    });
}

/// Signs within the transaction, so a signer that waits holds a commit open.
struct Gate {
    entered: Sender<()>,
    leave: Mutex<Receiver<Result<Signature, SigningFailed>>>,
}

impl CheckpointSigner for Gate {
    fn key_id(&self) -> &str {
        "gate"
    }

    fn sign(&self, _: &[u8]) -> Result<Signature, SigningFailed> {
        self.entered.send(()).map_err(|_| SigningFailed)?;
        self.leave.lock().unwrap().recv().map_err(|_| SigningFailed)?
    }
}

fn gate() -> (Arc<Gate>, Receiver<()>, Sender<Result<Signature, SigningFailed>>) {
    let (entered, has_entered) = channel();
    let (let_go, leave) = channel();
    (Arc::new(Gate { entered, leave: Mutex::new(leave) }), has_entered, let_go)
}

#[test]
fn l1_nothing_is_acknowledged_or_read_before_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, has_entered, let_go) = gate();
    let journal = start(Options { checkpoint_records: 1, ..options(dir.path()) }, gate);
    let let_go = let_go; // dropped before the journal, whose end waits for the signer
    let mut ticket = Box::pin(journal.append(note(b"x"), &mut |_| ()).unwrap().durable());
    has_entered.recv().unwrap();
    wait(async {
        assert!(is_pending(&mut ticket).await);
        assert!(journal.read(Revision::ZERO, 9).await.unwrap().is_empty());
        assert_eq!(journal.head().durable, Revision::ZERO);
        let_go.send(Ok([0; 64])).unwrap();
        assert_eq!(ticket.await, Ok(Revision(1)));
        assert_eq!(journal.read(Revision::ZERO, 9).await.unwrap().len(), 1);
    });
}

#[test]
fn a_commit_that_fails_seals_the_journal_and_is_told_to_all_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, has_entered, let_go) = gate();
    let journal = start(Options { checkpoint_records: 2, ..options(dir.path()) }, gate);
    let let_go = let_go; // dropped before the journal, whose end waits for the signer
    append(&*journal, [b"durable".to_vec()]);
    let lost = journal.append(note(b"lost"), &mut |_| ()).unwrap();
    has_entered.recv().unwrap();
    let behind = journal.append(note(b"behind it"), &mut |_| ()).unwrap();
    let_go.send(Err(SigningFailed)).unwrap();
    wait(async {
        assert_eq!(lost.durable().await, Err(TicketError::Sealed));
        assert_eq!(behind.durable().await, Err(TicketError::Sealed));
        journal.sealed().await;
        assert_eq!(journal.durable(Revision(1)).await, Ok(Revision(1)));
    });
    assert_eq!(journal.append(note(b"y"), &mut |_| panic!()).unwrap_err(), AppendError::Sealed);
    assert!(journal.close().is_err());
    drop(journal);
    assert_eq!(replay(options(dir.path())).unwrap().0.records.len(), 1);
}

#[test]
fn u2_commits_shared_by_many_callers_keep_every_record() {
    let dir = tempfile::tempdir().unwrap();
    let journal = start(Options { commit_window_micros_max: 2_000, ..options(dir.path()) }, Key::new("k"));
    std::thread::scope(|scope| {
        for caller in 0..16_u8 {
            let journal = &journal;
            scope.spawn(move || append(&**journal, (0..20).map(|turn| vec![caller, turn])));
        }
    });
    journal.close().unwrap();
    drop(journal);
    let (found, _) = replay(options(dir.path())).unwrap();
    assert!(found.records.iter().map(|record| record.revision.0).eq(1..=320));
    for caller in 0..16_u8 {
        let own = found.records.iter().filter(|record| record.body[0] == caller).map(|record| record.body[1]);
        assert!(own.eq(0..20), "the records of one caller are in its order");
    }
}

#[test]
fn r5_a_stop_waits_for_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, has_entered, let_go) = gate();
    // Whoever is waited for is waited for longer than the test may take.
    let options =
        Options { checkpoint_records: 1, commit_window_micros_max: u32::MAX, ..options(dir.path()) };
    let journal = start(options, gate);
    let let_go = let_go; // dropped before the journal, whose end waits for the signer
    let add = |precedence| drop(journal.append(Entry { precedence, ..note(b"x") }, &mut |_| ()).unwrap());
    let commits = || has_entered.recv_timeout(Duration::from_secs(20));
    add(Precedence::Ending);
    commits().unwrap();
    // Eight come while that is committed, and are committed together; as many are waited for thereafter.
    (0..8).for_each(|_| add(Precedence::Ending));
    let_go.send(Ok([0; 64])).unwrap();
    commits().unwrap();
    add(Precedence::Ending);
    let_go.send(Ok([0; 64])).unwrap();
    assert!(has_entered.recv_timeout(Duration::from_millis(20)).is_err());
    add(Precedence::Stop);
    commits().unwrap();
    let_go.send(Ok([0; 64])).unwrap();
    wait(journal.durable(Revision(11))).unwrap();
}

#[test]
fn short_of_space_only_endings_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(1 << 30));
    let probe = {
        let free = Arc::clone(&free);
        SpaceProbe::new(move |_| Ok(free.load(Ordering::SeqCst)))
    };
    let reserve = dir.path().join("journal.reserve");
    let journal =
        start(Options { reserve_bytes: 1 << 20, space: probe, ..options(dir.path()) }, Key::new("k"));
    let grow =
        || journal.append(Entry { precedence: Precedence::Growth, ..note(b"mint") }, &mut |_| ()).map(|_| ());
    // Two endings: the look at the disk comes after the answer to the first.
    let look = || append(&*journal, [b"ending".to_vec(), b"ending".to_vec()]);
    assert_eq!(grow(), Ok(()));
    assert_eq!(reserve.metadata().unwrap().len(), 1 << 20);
    free.store((1 << 20) - 1, Ordering::SeqCst);
    look();
    assert_eq!(grow(), Err(AppendError::NoSpace));
    assert!(reserve.exists());
    // Nearly nothing is left: the reserve goes, and what it frees is not for minting.
    free.store(1 << 10, Ordering::SeqCst);
    look();
    assert!(!reserve.exists());
    free.store(2 << 20, Ordering::SeqCst);
    look();
    assert_eq!(grow(), Err(AppendError::NoSpace));
    free.store(4 << 20, Ordering::SeqCst);
    look();
    assert_eq!(grow(), Ok(()));
    assert!(reserve.exists());
}

#[test]
fn a_slow_disk_sheds_what_grows_before_what_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, has_entered, let_go) = gate();
    let journal = start(Options { checkpoint_records: 1, queue_records_max: 4, ..options(dir.path()) }, gate);
    let let_go = let_go; // dropped before the journal, whose end waits for the signer
    let add = |precedence| journal.append(Entry { precedence, ..note(b"x") }, &mut |_| ()).map(|_| ());
    let [grow, end, stop] = [Precedence::Growth, Precedence::Ending, Precedence::Stop].map(|precedence| {
        let add = &add;
        move || add(precedence)
    });
    end().unwrap();
    has_entered.recv().unwrap();
    assert_eq!([grow(), grow(), grow()], [Ok(()), Ok(()), Err(AppendError::Busy)]);
    assert_eq!(
        [end(), end(), stop(), stop()],
        [Ok(()), Err(AppendError::Busy), Ok(()), Err(AppendError::Busy)]
    );
    for _ in 0..2 {
        let_go.send(Ok([0; 64])).unwrap();
    }
    wait(journal.durable(Revision(5))).unwrap();
}
