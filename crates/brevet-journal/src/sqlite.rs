//! The journal of one process, in SQLite.
//!
//! One thread owns the database. Callers queue under one lock, and the thread commits all that is queued at once. An
//! error of a write or a sync ends the journal: nothing is retried, and everybody who waits is told. What the next
//! start must find is kept twice, in the database and in the head mark beside it.

pub(crate) mod mark;
mod queue;
pub(crate) mod recovery;
mod space;
pub(crate) mod store;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use brevet_core::digest::StateDigest;
use brevet_core::revision::{Incarnation, Revision};
use brevet_core::time::Timestamp;
use tokio::sync::oneshot;

use crate::progress::{Progress, Sealed, Ticket};
use crate::sqlite::queue::{Limits, Question, Shared};
use crate::sqlite::store::Files;
use crate::sqlite::writer::Writer;
use crate::{AppendError, Entry, Head, Journal, ReadError, Record, Reply, SnapshotError};

pub use crate::sqlite::recovery::{OpenError, Recovery, Replayed, Snapshot, Verified};
pub use crate::sqlite::space::SpaceProbe;
pub use crate::sqlite::store::Damage;

/// Tells the time that checkpoints carry.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// At most this many records are read in one turn of the writing thread.
const READ_RECORDS_MAX: usize = 1024;

/// Where the store is and what it may take.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state directory. It must exist, and nobody else may write to it.
    pub dir: PathBuf,
    /// Below this much free space nothing that grows is recorded; a file of this size is kept for endings besides.
    /// Until three times as much was free once, the reserve is not taken and nothing that grows is recorded.
    pub reserve_bytes: u64,
    /// How long, in microseconds, a commit waits at most for those who were answered by the last, if they were many.
    /// For a few it waits less, for a single one not at all. Zero: never.
    pub commit_window_micros_max: u32,
    /// How many records may wait for the disk; for what grows half as many, for denials three quarters.
    pub queue_records_max: usize,
    /// How many bytes of records may wait for the disk, in the same shares.
    pub queue_bytes_max: usize,
    /// After how many records a checkpoint is signed.
    pub checkpoint_records: u64,
    /// How many bytes of the newest records are kept in memory for those who follow.
    pub recent_bytes_max: usize,
    /// Answers how much space is free.
    pub space: SpaceProbe,
}

impl Options {
    /// The defaults, for a store in a directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            reserve_bytes: 64 << 20,
            commit_window_micros_max: 4_000,
            queue_records_max: 16_384,
            queue_bytes_max: 64 << 20,
            checkpoint_records: 10_000,
            recent_bytes_max: 8 << 20,
            space: SpaceProbe::default(),
        }
    }
}

/// The journal of one process. Opened by [`Sqlite::open`], closed by [`Sqlite::close`] or by dropping it.
pub struct Sqlite {
    shared: Arc<Shared>,
    files: Files,
    incarnation: Incarnation,
    epoch: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// One snapshot at a time: they share the name of the draft.
    snapshots: Mutex<()>,
}

impl Sqlite {
    fn run(mut writer: Writer, options: &Options, files: Files, control: Revision) -> io::Result<Self> {
        let limits = Limits {
            queue_records_max: options.queue_records_max,
            queue_bytes_max: options.queue_bytes_max,
            commit_window: Duration::from_micros(options.commit_window_micros_max.into()),
            recent_bytes_max: options.recent_bytes_max,
        };
        let shared = Arc::new(Shared::new(writer.head, control, limits));
        shared.set_ample(writer.reserve.look());
        let identity = writer.identity;
        let owned = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(&owned))?;
        Ok(Self {
            shared,
            files,
            incarnation: identity.incarnation,
            epoch: identity.epoch,
            thread: Mutex::new(Some(thread)),
            snapshots: Mutex::new(()),
        })
    }

    /// How often this store was opened for writing, this time included.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes nothing more, makes durable what is queued, signs a checkpoint and closes the files. Blocks.
    ///
    /// # Errors
    /// [`Sealed`] if not all that was queued became durable.
    pub fn close(&self) -> Result<(), Sealed> {
        self.shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread died");
        }
        if self.shared.progress.durable() == self.shared.order().newest() { Ok(()) } else { Err(Sealed) }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        if self.close().is_err() {
            tracing::error!("the journal was closed with records that are not durable");
        }
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("dir", &self.files.dir)
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

impl Journal for Sqlite {
    fn append(&self, entry: Entry, fold: &mut dyn FnMut(Revision)) -> Result<Ticket, AppendError> {
        self.shared.append(entry, fold)
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn head(&self) -> Head {
        let order = self.shared.order();
        Head {
            incarnation: self.incarnation,
            oldest: Revision(1),
            newest: order.newest(),
            durable: self.shared.progress.durable(),
            control: order.control(),
        }
    }

    fn progress(&self) -> &Arc<Progress> {
        &self.shared.progress
    }

    fn read(&self, after: Revision, limit: usize) -> Reply<Result<Vec<Arc<Record>>, ReadError>> {
        if limit == 0 || after >= self.shared.progress.durable() {
            return Reply::here(Ok(Vec::new()));
        }
        let limit = limit.min(READ_RECORDS_MAX);
        if let Some(records) = self.shared.recall(after, limit) {
            return Reply::here(Ok(records));
        }
        let (answer, coming) = oneshot::channel();
        self.shared.ask(Question::Read { after, limit, answer });
        Reply::coming(coming)
    }

    fn store_snapshot(&self, revision: Revision, state: &[u8]) -> Result<StateDigest, SnapshotError> {
        let _one = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        if revision > self.shared.progress.durable() {
            return Err(SnapshotError::NotDurable(revision));
        }
        let digest = StateDigest::of(&[state]);
        mark::write_whole(&self.files.snapshot(revision), state)?;
        let (answer, coming) = mpsc::channel();
        self.shared.ask(Question::Snapshot { revision, digest, answer });
        let kept = coming.recv().map_err(|_| SnapshotError::Sealed)?;
        self.files.remove_snapshots_except(&kept)?;
        Ok(digest)
    }
}
