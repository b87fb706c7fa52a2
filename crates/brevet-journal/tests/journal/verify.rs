//! Offline verification against those who can rewrite the store.

use std::path::Path;

use brevet_core::revision::{Incarnation, Revision};
use brevet_core::time::Timestamp;
use brevet_journal::checkpoint::{Checkpoint, CheckpointKey, CheckpointSigner};
use brevet_journal::sqlite::{Damage, Options};
use brevet_journal::verify::{VerifyError, VerifyReport, verify};
use brevet_journal::{ChainHash, Journal};
use rusqlite::{Connection, params};

use crate::fixture::{Key, append, files, lay, options, start};

/// Twelve records with checkpoints at 5, 10 and 12.
fn store(dir: &Path, key: std::sync::Arc<Key>) -> VerifyReport {
    let public = key.public();
    let journal = start(Options { checkpoint_records: 5, ..options(dir) }, key);
    append(&*journal, (1..=12).map(|turn| vec![turn; 40]));
    journal.store_snapshot(Revision(6), b"state").unwrap();
    journal.close().unwrap();
    drop(journal);
    verify(dir, &[public], None).unwrap()
}

fn forge(dir: &Path, change: impl FnOnce(&Connection)) {
    let connection = Connection::open(dir.join("journal.db")).unwrap();
    change(&connection);
    connection.close().unwrap();
}

fn damage(outcome: Result<VerifyReport, VerifyError>) -> Damage {
    match outcome.unwrap_err() {
        VerifyError::Damaged(damage) => damage,
        other => panic!("{other:?}"),
    }
}

/// Computes the whole chain anew, as a forger would; signs the checkpoints anew if it has a key.
fn rehash(connection: &Connection, incarnation: Incarnation, key: Option<&Key>) {
    let mut chain = ChainHash::genesis(incarnation);
    let last: i64 = connection.query_row("SELECT max(revision) FROM records", [], |row| row.get(0)).unwrap();
    for revision in 1..=last {
        let body: Vec<u8> = connection
            .query_row("SELECT body FROM records WHERE revision = ?1", [revision], |row| row.get(0))
            .unwrap();
        let place = Revision(revision.cast_unsigned());
        chain = chain.link(place, &body);
        let bytes = chain.as_bytes();
        for table in ["records", "checkpoints", "snapshots"] {
            let sql = format!("UPDATE {table} SET chain = ?2 WHERE revision = ?1");
            if table == "records" || key.is_some() {
                connection.execute(&sql, params![revision, bytes]).unwrap();
            }
        }
        if let Some(key) = key {
            let sql = "SELECT at FROM checkpoints WHERE revision = ?1";
            if let Ok(at) = connection.query_row(sql, [revision], |row| row.get(0)) {
                let at = Timestamp::from_millis(i64::cast_unsigned(at));
                let checkpoint = Checkpoint { incarnation, revision: place, head: chain, at };
                let signature = key.sign(&checkpoint.to_bytes()).unwrap();
                connection
                    .execute(
                        "UPDATE checkpoints SET signature = ?2 WHERE revision = ?1",
                        params![revision, signature],
                    )
                    .unwrap();
            }
        }
    }
}

#[test]
fn u3_a_whole_store_is_vouched_for_to_its_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("k");
    let report = store(dir.path(), key.clone());
    let vouched = report.vouched.unwrap();
    assert_eq!((report.head, report.checkpoints, report.acknowledged), (Revision(12), 3, Some(Revision(12))));
    assert_eq!(
        (vouched.revision, vouched.head, vouched.incarnation),
        (Revision(12), report.chain, report.incarnation)
    );
    let before = files(dir.path());
    assert_eq!(verify(dir.path(), &[key.public()], Some(vouched)).unwrap(), report);
    assert_eq!(files(dir.path()), before, "verification changes nothing");
}

#[test]
fn u3_a_store_as_a_kill_leaves_it_is_verified_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let key = Key::new("k");
    let journal = start(Options { checkpoint_records: 2, ..options(dir.path()) }, key.clone());
    append(&*journal, [vec![1], vec![2], vec![3]]);
    assert!(matches!(verify(dir.path(), &[key.public()], None), Err(VerifyError::InUse(_))));
    let killed = files(dir.path());
    assert!(!killed["journal.db-wal"].is_empty());
    lay(copy.path(), &killed);
    let report = verify(copy.path(), &[key.public()], None).unwrap();
    assert_eq!((report.head, report.vouched.unwrap().revision), (Revision(3), Revision(2)));
    assert_eq!(files(copy.path()), killed, "verification changes nothing");
}

#[test]
fn u3_edits_deletions_and_reorderings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("k");
    let report = store(dir.path(), key.clone());
    let keys = [key.public()];
    let whole = files(dir.path());
    let after = |change: &dyn Fn(&Connection)| {
        lay(dir.path(), &whole);
        forge(dir.path(), change);
        damage(verify(dir.path(), &keys, None))
    };
    let run = |sql: &'static str| after(&move |connection| connection.execute_batch(sql).unwrap());
    assert!(matches!(run("UPDATE records SET body = x'00' WHERE revision = 4"), Damage::Chain(Revision(4))));
    assert!(matches!(run("DELETE FROM records WHERE revision = 7"), Damage::Gap(Revision(6))));
    assert!(matches!(run("DELETE FROM records WHERE revision = 1"), Damage::Gap(Revision(0))));
    assert!(matches!(run("DELETE FROM records WHERE revision = 12"), Damage::Checkpoint(Revision(12))));
    let reordered = "UPDATE records SET revision = 99 WHERE revision = 2;
        UPDATE records SET revision = 2 WHERE revision = 3; UPDATE records SET revision = 3 WHERE revision = 99";
    assert!(matches!(run(reordered), Damage::Chain(Revision(2))));
    assert!(matches!(
        run("UPDATE checkpoints SET at = at + 1 WHERE revision = 5"),
        Damage::Signature(Revision(5))
    ));
    let swapped = "UPDATE checkpoints SET signature = (SELECT signature FROM checkpoints WHERE revision = 5)
        WHERE revision = 10";
    assert!(matches!(run(swapped), Damage::Signature(Revision(10))));
    assert!(matches!(run("UPDATE identity SET incarnation = incarnation + 1"), Damage::Identity));
    assert!(matches!(run("CREATE TABLE more (x)"), Damage::Schema));
    // Whoever computes the chain anew contradicts the first checkpoint behind the edit.
    let rehashed = after(&|connection| {
        connection.execute("UPDATE records SET body = x'00' WHERE revision = 4", []).unwrap();
        rehash(connection, report.incarnation, None);
    });
    assert!(matches!(rehashed, Damage::Checkpoint(Revision(5))), "{rehashed:?}");
}

#[test]
fn u3_a_chain_signed_anew_by_another_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (key, other) = (Key::new("k"), Key::new("k"));
    let report = store(dir.path(), key.clone());
    std::fs::remove_file(dir.path().join("journal.mark")).unwrap();
    forge(dir.path(), |connection| {
        connection.execute("UPDATE records SET body = x'00' WHERE revision = 4", []).unwrap();
        rehash(connection, report.incarnation, Some(&other));
    });
    assert!(matches!(damage(verify(dir.path(), &[key.public()], None)), Damage::Signature(Revision(5))));
    assert!(matches!(damage(verify(dir.path(), &[], None)), Damage::Signature(Revision(5))));
    // Even the true key cannot rewrite what an auditor has seen.
    forge(dir.path(), |connection| rehash(connection, report.incarnation, Some(&key)));
    assert!(verify(dir.path(), &[key.public()], None).is_ok());
    let outcome = verify(dir.path(), &[key.public()], report.vouched);
    assert!(matches!(outcome, Err(VerifyError::Contradicted(Revision(12)))), "{outcome:?}");
}

#[test]
fn u3_a_truncation_shows_against_the_mark_or_a_later_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("k");
    let report = store(dir.path(), key.clone());
    let keys = [key.public()];
    forge(dir.path(), |connection| {
        connection
            .execute_batch(
                "DELETE FROM records WHERE revision > 10; DELETE FROM checkpoints WHERE revision > 10",
            )
            .unwrap();
    });
    assert!(matches!(
        damage(verify(dir.path(), &keys, None)),
        Damage::Lost { mark: Revision(12), head: Revision(10) }
    ));
    std::fs::remove_file(dir.path().join("journal.mark")).unwrap();
    assert_eq!(verify(dir.path(), &keys, None).unwrap().vouched.unwrap().revision, Revision(10));
    let outcome = verify(dir.path(), &keys, report.vouched);
    assert!(
        matches!(outcome, Err(VerifyError::Truncated { expected: Revision(12), head: Revision(10) })),
        "{outcome:?}"
    );
}

#[test]
fn keys_are_read_from_either_form_and_nothing_else() {
    let point = [[4].as_slice(), &[7; 64]].concat();
    let prefix = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let spki = [prefix.as_slice(), &point].concat();
    assert_eq!(CheckpointKey::from_spki("k", &spki), CheckpointKey::from_point("k", &point));
    assert!(CheckpointKey::from_spki("k", &spki).is_ok());
    for bad in [&point[..64], &spki[..], &[2; 65], &[]] {
        assert!(CheckpointKey::from_point("k", bad).is_err());
    }
}
