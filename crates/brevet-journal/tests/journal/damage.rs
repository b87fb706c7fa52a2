//! U3: whatever byte of the files is flipped, and wherever they are cut, the start is refused or nothing is different.

use std::path::Path;

use brevet_core::revision::Revision;
use brevet_journal::Journal;
use brevet_journal::sqlite::Options;

use crate::fixture::{Files, Found, Key, append, files, lay, options, replay, start};

/// Every byte with `BREVET_EXHAUSTIVE=1`, else a sample that begins elsewhere with each seed.
struct Sample {
    step: usize,
    seed: usize,
}

impl Sample {
    fn new(step: usize) -> Self {
        let seed = match std::env::var("BREVET_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::process::id() as usize,
        };
        println!("BREVET_TEST_SEED={seed}");
        Self { step: if std::env::var_os("BREVET_EXHAUSTIVE").is_some() { 1 } else { step }, seed }
    }

    fn places(&self, from: usize, to: usize) -> impl Iterator<Item = usize> {
        (from + self.seed % self.step..to).step_by(self.step)
    }
}

/// A store with a snapshot, checkpoints, short and long records: as a kill leaves it, and as an orderly end does.
fn stores(dir: &Path) -> [Files; 2] {
    let journal = start(Options { checkpoint_records: 5, ..options(dir) }, Key::new("k"));
    append(&*journal, (0..4).map(|turn| vec![turn; 60]));
    journal.store_snapshot(Revision(3), &[7; 300]).unwrap();
    append(&*journal, (4..9).map(|turn| vec![turn; 900]));
    let mut killed = files(dir);
    killed.remove("journal.reserve");
    journal.close().unwrap();
    let mut closed = files(dir);
    closed.remove("journal.reserve");
    [killed, closed]
}

/// What a start finds, or nothing if it is refused.
fn attempt(dir: &Path, files: &Files) -> Option<Found> {
    lay(dir, files);
    replay(options(dir)).ok().map(|(found, _)| found)
}

/// Whether a start builds the same state: from the same snapshot and the records behind it, or, where the row that
/// names the snapshot cannot be seen any more, from all the records.
fn is_equal(found: &Found, whole: &Found) -> bool {
    let from_the_first =
        found.snapshot.is_none() && found.records.first().is_some_and(|r| r.revision == Revision(1));
    found == whole || (from_the_first && found.records.ends_with(&whole.records))
}

#[test]
fn u3_a_flipped_byte_is_refused_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let sample = Sample::new(131);
    for store in stores(dir.path()) {
        let whole = attempt(copy.path(), &store).unwrap();
        assert_eq!(whole.records.len(), 6);
        for (name, bytes) in &store {
            let mut refused = 0;
            for place in sample.places(0, bytes.len()) {
                let mut flipped = store.clone();
                flipped.get_mut(name).unwrap()[place] ^= 1 << ((place + sample.seed) % 8);
                match attempt(copy.path(), &flipped) {
                    Some(found) => assert!(is_equal(&found, &whole), "{name}, byte {place}"),
                    None => refused += 1,
                }
            }
            println!("{name}: {} bytes, {refused} flips refused", bytes.len());
        }
    }
}

#[test]
fn u3_a_cut_is_refused_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let sample = Sample::new(181);
    for store in stores(dir.path()) {
        let whole = attempt(copy.path(), &store).unwrap();
        for (name, bytes) in &store {
            for length in sample.places(0, bytes.len()) {
                let mut cut = store.clone();
                cut.get_mut(name).unwrap().truncate(length);
                if let Some(found) = attempt(copy.path(), &cut) {
                    assert!(is_equal(&found, &whole), "{name}, cut to {length} bytes");
                }
            }
        }
    }
}

#[test]
fn a_zeroed_or_repeated_block_is_refused_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    for store in stores(dir.path()) {
        let whole = attempt(copy.path(), &store).unwrap();
        for (name, bytes) in &store {
            for block in (0..bytes.len()).step_by(2048) {
                let end = (block + 2048).min(bytes.len());
                let mut zeroed = store.clone();
                zeroed.get_mut(name).unwrap()[block..end].fill(0);
                let mut repeated = store.clone();
                let again = bytes[block..end].to_vec();
                repeated.get_mut(name).unwrap().splice(end..end, again);
                for damaged in [zeroed, repeated] {
                    if let Some(found) = attempt(copy.path(), &damaged) {
                        assert!(is_equal(&found, &whole), "{name}, block at {block}");
                    }
                }
            }
        }
    }
}
