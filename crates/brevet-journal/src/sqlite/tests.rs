use std::convert::Infallible;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::writer::WriteError;
use super::*;
use crate::chain::ChainHash;
use crate::checkpoint::{CheckpointSigner, Signature, SigningFailed};
use crate::sqlite::mark::{Mark, Marker};
use crate::sqlite::store::Link;

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
fn f4_on_a_full_disk_the_reserve_is_given_up_once_and_then_the_journal_ends() {
    let dir = tempfile::tempdir().unwrap();
    let reserve = dir.path().join("journal.reserve");
    let mut writer = writer(dir.path());
    assert!(writer.reserve.look());
    assert!(reserve.exists());
    // SQLite answers that the disk is full when its file may not grow.
    let pages: i64 = writer.store.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    writer.store.connection().pragma_update(None, "max_page_count", pages).unwrap();
    let shared = Shared::new(
        Order::after(Revision::ZERO, Revision::ZERO),
        Limits { queue_records_max: 9, commit_window: Duration::ZERO, recent_bytes_max: 0 },
    );
    let outcome = writer.write(vec![vec![0; 100_000]], &shared);
    assert!(matches!(outcome, Err(WriteError::Commit(_))), "{outcome:?}");
    assert!(!reserve.exists());
    assert_eq!(shared.progress.durable(), Revision::ZERO);
}

fn link(revision: u64) -> Link {
    Link { revision: Revision(revision), chain: ChainHash::from_bytes([revision as u8; 32]) }
}

#[test]
fn a_torn_slot_leaves_the_mark_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mark");
    let mut found = mark::create(&path, Mark { incarnation: Incarnation(1), acknowledged: link(0) }).unwrap();
    for start in [1, 4, 7] {
        let mut marker = Marker::open(&path, found, link(start)).unwrap();
        for revision in start + 1..start + 3 {
            marker.acknowledge(link(revision)).unwrap();
            marker.sync();
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
            assert_eq!(seen, [revision - 1, revision]);
        }
        drop(marker);
        found = mark::read(&path).unwrap().unwrap();
    }
}
