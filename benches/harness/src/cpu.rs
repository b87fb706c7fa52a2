//! CPU time as the kernel's scheduler counts it, in nanoseconds, thread by thread.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Failure;

/// How the names of the threads begin that write the journal.
const JOURNALS: &str = "journal";

/// What every thread of a process had used at one moment.
#[derive(Debug)]
pub(crate) struct Usage(BTreeMap<String, Thread>);

#[derive(Debug)]
struct Thread {
    name: String,
    nanos: u64,
}

/// What a process used between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    /// In nanoseconds, by all threads.
    pub(crate) total: f64,
    /// In nanoseconds, by the threads that write the journal.
    pub(crate) journal: f64,
}

/// A thread ended, and what it had used is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thread ended during the measurement")]
pub(crate) struct ThreadEnded;

impl Usage {
    /// Reads every thread of a process.
    pub(crate) fn of(pid: u32) -> Result<Self, Failure> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = fs::read_to_string(path.join("comm"))?.trim_end().to_owned();
            threads.insert(id, Thread { name, nanos: nanos(&path.join("schedstat"))? });
        }
        Ok(Self(threads))
    }

    /// What was used since an earlier moment. A thread that is new has used all of its time since.
    pub(crate) fn since(&self, before: &Self) -> Result<Spent, ThreadEnded> {
        if before.0.keys().any(|id| !self.0.contains_key(id)) {
            return Err(ThreadEnded);
        }
        let mut spent = Spent::default();
        for (id, thread) in &self.0 {
            let earlier = before.0.get(id).map_or(0, |thread| thread.nanos);
            let used = float(thread.nanos.saturating_sub(earlier));
            spent.total += used;
            if thread.name.starts_with(JOURNALS) {
                spent.journal += used;
            }
        }
        Ok(spent)
    }
}

/// What the calling thread has used, in nanoseconds.
pub(crate) fn own_nanos() -> Result<u64, Failure> {
    nanos(Path::new("/proc/thread-self/schedstat"))
}

/// The first number of a schedstat file: the time on the CPU.
fn nanos(path: &Path) -> Result<u64, Failure> {
    let text = fs::read_to_string(path)?;
    let first = text.split_whitespace().next().ok_or("the kernel counts no CPU time")?;
    Ok(first.parse()?)
}

/// Counts and nanoseconds of a run are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "a run's nanoseconds are far below 2^53")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(threads: &[(&str, &str, u64)]) -> Usage {
        let threads =
            threads.iter().map(|&(id, name, nanos)| (id.to_owned(), Thread { name: name.to_owned(), nanos }));
        Usage(threads.collect())
    }

    #[test]
    fn what_was_used_is_the_difference_and_new_threads_count_whole() {
        let before = usage(&[("1", "main", 10), ("2", "journal", 20)]);
        let after = usage(&[("1", "main", 15), ("2", "journal", 27), ("3", "tokio-rt-worker", 4)]);
        let spent = after.since(&before).unwrap();
        assert!((spent.total - 16.0).abs() < f64::EPSILON && (spent.journal - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_thread_that_ended_spoils_the_measurement() {
        let before = usage(&[("1", "main", 10), ("2", "tokio-rt-worker", 20)]);
        let after = usage(&[("1", "main", 15), ("3", "tokio-rt-worker", 1)]);
        assert_eq!(after.since(&before).unwrap_err(), ThreadEnded);
    }

    #[test]
    fn the_kernel_counts_what_this_thread_does() {
        let thread = fs::read_link("/proc/thread-self").unwrap().file_name().unwrap().to_owned();
        let id = thread.into_string().unwrap();
        let before = own_nanos().unwrap();
        while own_nanos().unwrap() < before + 2_000_000 {}
        let all = Usage::of(std::process::id()).unwrap();
        assert!(all.0.get(&id).unwrap().nanos >= before + 2_000_000);
    }
}
