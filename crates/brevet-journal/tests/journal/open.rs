//! Opening, refusing to open, and finding again what was recorded.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use brevet_core::digest::StateDigest;
use brevet_core::revision::Revision;
use brevet_journal::sqlite::{Damage, OpenError, Replayed, Sqlite};
use brevet_journal::{Cursor, Journal, Tail, TailError};
use brevet_testkit::journal::conformance::{control, tree};

use crate::fixture::{Key, append, clock, files, lay, options, replay, start, wait};

fn damage(error: OpenError) -> Damage {
    match error {
        OpenError::Damaged { damage, .. } => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn l6_a_restart_finds_every_record_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("k");
    let mut expected = Vec::new();
    let mut cursor: Option<Cursor> = None;
    for epoch in 1..=3 {
        let (found, verified) = replay(options(dir.path())).unwrap();
        assert_eq!(found.records, expected);
        let journal = verified.start(Revision::ZERO, key.clone(), clock()).unwrap();
        assert_eq!(journal.epoch(), epoch);
        append(&journal, (0..10).map(|turn| vec![turn; 2_000]));
        expected = wait(journal.read(Revision::ZERO, 99)).unwrap().iter().map(|r| (**r).clone()).collect();
        assert_eq!(expected.len() as u64, 10 * epoch);
        let head = journal.head();
        assert!(cursor.is_none_or(|cursor| cursor.incarnation == head.incarnation));
        // Whoever followed the last process goes on with this one.
        let journal = std::sync::Arc::new(journal);
        if let Some(cursor) = cursor {
            assert_eq!(
                wait(Tail::open(journal.clone(), cursor).unwrap().next()).unwrap().revision,
                cursor.revision.next()
            );
        }
        cursor = Some(Cursor { incarnation: head.incarnation, revision: head.durable });
        journal.close().unwrap();
    }
}

#[test]
fn t6_the_control_revision_binds_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = start(options(dir.path()), Key::new("k"));
    wait(journal.append(control(Revision::ZERO), &mut |_| ()).unwrap().durable()).unwrap();
    journal.close().unwrap();
    drop(journal);
    let (_, verified) = replay(options(dir.path())).unwrap();
    let journal = verified.start(Revision(1), Key::new("k"), clock()).unwrap();
    assert!(journal.append(tree(Revision::ZERO, b"decided before"), &mut |_| panic!()).is_err());
    assert!(journal.append(tree(Revision(1), b"decided behind"), &mut |_| ()).is_ok());
}

#[test]
fn a_second_handle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = start(options(dir.path()), Key::new("k"));
    assert!(matches!(Sqlite::open(options(dir.path())), Err(OpenError::InUse(_))));
    // Without its lock file the database still refuses.
    fs::remove_file(dir.path().join("journal.lock")).unwrap();
    assert!(matches!(Sqlite::open(options(dir.path())), Err(OpenError::InUse(_))));
    journal.close().unwrap();
    assert!(Sqlite::open(options(dir.path())).is_ok());
}

#[test]
fn what_others_may_write_or_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    start(options(dir.path()), Key::new("k")).close().unwrap();
    let exposed = || matches!(Sqlite::open(options(dir.path())), Err(OpenError::Exposed(_)));
    let set =
        |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for name in ["journal.db", "journal.mark", "journal.lock", "journal.reserve"] {
        let path = dir.path().join(name);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        set(&path, 0o640);
        assert!(exposed(), "{name}");
        set(&path, 0o600);
    }
    for mode in [0o720, 0o702, 0o1777] {
        set(dir.path(), mode);
        assert!(exposed(), "{mode:o}");
    }
    set(dir.path(), 0o755);
    assert!(!exposed());
}

#[test]
fn u3_a_missing_database_or_mark_is_refused_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let journal = start(options(dir.path()), Key::new("k"));
    append(&*journal, [vec![1], vec![2]]);
    journal.close().unwrap();
    drop(journal);
    let whole = files(dir.path());
    for (name, expected) in [("journal.db", "missing, but"), ("journal.mark", "head mark is missing")] {
        let mut cut = whole.clone();
        cut.remove(name).unwrap();
        lay(dir.path(), &cut);
        let refusal = damage(replay(options(dir.path())).unwrap_err());
        assert!(refusal.to_string().contains(expected), "{refusal}");
        assert!(!dir.path().join(name).exists());
    }
    let mut empty = whole.clone();
    empty.insert("journal.db".into(), Vec::new());
    lay(dir.path(), &empty);
    assert!(replay(options(dir.path())).is_err());
    lay(dir.path(), &whole);
    assert_eq!(replay(options(dir.path())).unwrap().0.records.len(), 2);
}

#[test]
fn l6_an_older_copy_beside_a_newer_mark_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("k");
    start(options(dir.path()), key.clone()).close().unwrap();
    let mut copies = Vec::new();
    for turn in 0..3 {
        let journal = start(options(dir.path()), key.clone());
        append(&*journal, [vec![turn]]);
        journal.close().unwrap();
        copies.push(files(dir.path()));
    }
    let mut older = copies[1].clone();
    older.insert("journal.mark".into(), copies[2]["journal.mark"].clone());
    lay(dir.path(), &older);
    let refusal = damage(replay(options(dir.path())).unwrap_err());
    assert!(matches!(refusal, Damage::Lost { mark: Revision(3), head: Revision(2) }), "{refusal:?}");
    // A mark that is behind says nothing against the database.
    let mut behind = copies[2].clone();
    behind.insert("journal.mark".into(), copies[1]["journal.mark"].clone());
    lay(dir.path(), &behind);
    assert_eq!(replay(options(dir.path())).unwrap().0.records.len(), 3);
    // A mark of another history of the same length does.
    lay(dir.path(), &copies[1]);
    let journal = start(options(dir.path()), key);
    append(&*journal, [b"another history".to_vec()]);
    journal.close().unwrap();
    drop(journal);
    let mut foreign = files(dir.path());
    foreign.insert("journal.mark".into(), copies[2]["journal.mark"].clone());
    lay(dir.path(), &foreign);
    let refusal = damage(replay(options(dir.path())).unwrap_err());
    assert!(matches!(refusal, Damage::History(Revision(3))), "{refusal:?}");
}

#[test]
fn a_restart_begins_at_the_newest_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let journal = start(options(dir.path()), Key::new("k"));
    for turn in 1..=5_u8 {
        append(&*journal, [vec![turn]]);
        if turn < 5 {
            let digest = journal.store_snapshot(Revision(turn.into()), &[turn; 9_000]).unwrap();
            assert_eq!(digest, StateDigest::of(&[&[turn; 9_000]]));
        }
    }
    journal.close().unwrap();
    drop(journal);
    let (found, verified) = replay(options(dir.path())).unwrap();
    let snapshot = found.snapshot.unwrap();
    assert_eq!((snapshot.revision, snapshot.state), (Revision(4), vec![4; 9_000]));
    assert_eq!(snapshot.digest, StateDigest::of(&[&[4; 9_000]]));
    assert_eq!(found.records.iter().map(|record| record.revision.0).collect::<Vec<_>>(), [5]);
    assert_eq!(verified.head(), Revision(5));
    drop(verified);
    // Whoever cannot read it has the records.
    let mut all = 0;
    let recovery = Sqlite::open(options(dir.path())).unwrap().from_the_first_record();
    let count = |_: Replayed<'_>| {
        all += 1;
        Ok::<_, std::convert::Infallible>(())
    };
    assert_eq!((recovery.replay(count).unwrap().head(), all), (Revision(5), 5));
    let kept: Vec<_> = files(dir.path()).into_keys().filter(|name| name.contains("snapshot")).collect();
    assert_eq!(kept, ["journal.snapshot-3", "journal.snapshot-4"]);
    fs::remove_file(dir.path().join("journal.snapshot-4")).unwrap();
    assert!(matches!(damage(replay(options(dir.path())).unwrap_err()), Damage::Snapshot(Revision(4))));
}

#[test]
fn w5_a_cursor_from_beyond_what_a_restore_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = start(options(dir.path()), Key::new("k"));
    append(&*journal, [vec![1]]);
    let cursor = Cursor { incarnation: journal.head().incarnation, revision: Revision(2) };
    assert_eq!(Tail::open(journal, cursor).unwrap_err(), TailError::Future);
}
