//! A process that is killed at random moments loses nothing that it acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use brevet_core::revision::Revision;
use brevet_journal::Journal;
use brevet_journal::sqlite::{OpenError, Options, Sqlite};
use brevet_testkit::journal::conformance::note;

use crate::fixture::{Key, options, replay, start, wait};

const DIR: &str = "BREVET_TEST_KILL_DIR";
const KILLS: u32 = 20;

/// Small checkpoints, so that kills hit them too.
fn child_options(dir: &Path) -> Options {
    Options { checkpoint_records: 7, ..options(dir) }
}

/// Not a test but the process that is killed: it appends from four threads and writes out what was acknowledged.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let journal = start(child_options(&dir), Key::new("k"));
    std::thread::scope(|scope| {
        for caller in 0..4_u64 {
            let journal = &journal;
            scope.spawn(move || {
                for turn in 0_u64.. {
                    let body = [caller.to_be_bytes(), turn.to_be_bytes()].concat();
                    let Ok(ticket) = journal.append(note(&body), &mut |_| ()) else { return };
                    let Ok(Revision(revision)) = wait(ticket.durable()) else { return };
                    let mut out = std::io::stdout().lock();
                    if writeln!(out, "\nack {revision} {caller} {turn}").and_then(|()| out.flush()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn spawn(dir: &Path) -> (Child, Receiver<(u64, Vec<u8>)>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture", "--test-threads", "1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, acknowledged) = channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let Some(line) = line.strip_prefix("ack ") else { continue };
            // The last line may be cut: an acknowledgement that was not wholly told.
            let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
            let [revision, caller, turn] = numbers[..] else { continue };
            if sender.send((revision, [caller.to_be_bytes(), turn.to_be_bytes()].concat())).is_err() {
                return;
            }
        }
    });
    (child, acknowledged)
}

#[test]
fn l1_twenty_kills_lose_nothing_acknowledged() {
    let seed: u64 = match std::env::var("BREVET_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::process::id().into(),
    };
    println!("BREVET_TEST_SEED={seed}");
    let mut random = seed;
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for _ in 0..KILLS {
        let (mut child, acks) = spawn(dir.path());
        acknowledged.push(acks.recv().unwrap());
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(acks.iter());
        let (found, _) = replay(options(dir.path())).unwrap();
        for (revision, body) in &acknowledged {
            let place = usize::try_from(revision - 1).unwrap();
            assert_eq!(
                found.records.get(place).map(|record| &record.body),
                Some(body),
                "revision {revision}"
            );
        }
    }
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, acks) = spawn(dir.path());
    acks.recv().unwrap();
    assert!(matches!(Sqlite::open(options(dir.path())), Err(OpenError::InUse(_))));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(Sqlite::open(options(dir.path())).is_ok());
}
