//! The thread that owns the database: takes all that is queued, hashes it, commits it, marks it, answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use brevet_core::revision::Revision;
use brevet_core::sabotage;
use rusqlite::ErrorCode;
use thiserror::Error;

use crate::chain::Link;
use crate::checkpoint::{Checkpoint, CheckpointSigner, SignedCheckpoint, SigningFailed};
use crate::sqlite::Clock;
use crate::sqlite::mark::Marker;
use crate::sqlite::queue::{Question, Shared, Turn};
use crate::sqlite::recovery::Lock;
use crate::sqlite::space::Reserve;
use crate::sqlite::store::{Damage, Identity, SnapshotRow, Store};
use crate::{ReadError, Record};

/// How many snapshots are kept: the newest, and the one before.
const SNAPSHOTS: usize = 2;

/// How often a queue without work looks whether there is room again.
const LOOK: Duration = Duration::from_secs(1);

/// After so long without work the head mark is synced.
const REST: Duration = Duration::from_millis(20);

/// What the thread owns.
pub(crate) struct Writer {
    pub(crate) store: Store,
    pub(crate) marker: Marker,
    pub(crate) reserve: Reserve,
    pub(crate) signer: Arc<dyn CheckpointSigner>,
    pub(crate) clock: Clock,
    pub(crate) identity: Identity,
    pub(crate) head: Link,
    pub(crate) last_checkpoint: Revision,
    pub(crate) checkpoint_records: u64,
    /// Held as long as the database is open.
    pub(crate) _lock: Lock,
}

/// Any of these ends the journal.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    #[error("cannot commit: {0}")]
    Commit(#[from] rusqlite::Error),
    #[error("cannot write the head mark: {0}")]
    Mark(#[from] io::Error),
    #[error("{0}")]
    Sign(#[from] SigningFailed),
    #[error("{0}")]
    Damaged(#[from] Damage),
}

impl Writer {
    /// Works until the journal is closed or something fails. Then everybody who still waits is told.
    pub(crate) fn run(mut self, shared: &Shared) {
        let end = SealAtEnd(shared);
        match self.turns(shared) {
            Ok(()) => {
                if let Err(error) = self.store.close() {
                    tracing::error!(%error, "cannot close the journal's database");
                }
            }
            Err(error) => {
                tracing::error!(%error, revision = %self.head.revision, "the journal is sealed");
            }
        }
        drop(end);
    }

    fn turns(&mut self, shared: &Shared) -> Result<(), WriteError> {
        let mut last_batch = 0;
        loop {
            let rest = if self.marker.is_synced() { LOOK } else { REST };
            match shared.turn(last_batch, rest) {
                Turn::Idle => {
                    last_batch = 0;
                    self.marker.sync()?;
                }
                Turn::Work { bodies, questions } => {
                    if !bodies.is_empty() {
                        last_batch = bodies.len();
                        self.write(bodies, shared)?;
                    }
                    for question in questions {
                        self.answer(question)?;
                    }
                }
                Turn::Close => {
                    self.marker.sync()?;
                    return self.checkpoint();
                }
            }
            shared.set_ample(self.reserve.look());
            shared.set_scarce(self.reserve.is_given_up());
        }
    }

    pub(crate) fn write(&mut self, mut bodies: Vec<Vec<u8>>, shared: &Shared) -> Result<(), WriteError> {
        if sabotage::on("commits_disorder") {
            bodies.reverse();
        }
        let mut head = self.head;
        let records: Vec<Arc<Record>> = bodies
            .into_iter()
            .map(|body| {
                head = head.next(&body);
                Arc::new(Record { revision: head.revision, chain: head.chain, body })
            })
            .collect();
        if sabotage::on("ack_before_fsync") {
            shared.progress.advance(head);
            std::thread::sleep(Duration::from_millis(2));
        }
        self.commit(&records, head)?;
        // INVARIANT: committed, then marked, then told.
        self.marker.acknowledge(head)?;
        shared.remember(records);
        shared.progress.advance(head);
        if self.marker.is_due() { Ok(self.marker.sync()?) } else { Ok(()) }
    }

    /// Commits records, and a checkpoint behind them if one is due.
    fn commit(&mut self, records: &[Arc<Record>], head: Link) -> Result<(), WriteError> {
        let due = head.revision.0.saturating_sub(self.last_checkpoint.0) >= self.checkpoint_records;
        let checkpoint = if due { Some(self.sign(head)?) } else { None };
        match self.store.commit(records, checkpoint.as_ref()) {
            // The transaction was rolled back before anything was synced; with the reserve gone it fits.
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DiskFull) && self.reserve.release() =>
            {
                self.store.commit(records, checkpoint.as_ref())?;
            }
            outcome => outcome?,
        }
        self.head = head;
        if checkpoint.is_some() {
            self.last_checkpoint = head.revision;
        }
        Ok(())
    }

    /// Closes what came since the last checkpoint with one.
    pub(crate) fn checkpoint(&mut self) -> Result<(), WriteError> {
        if self.head.revision > self.last_checkpoint {
            let checkpoint = self.sign(self.head)?;
            self.store.commit(&[], Some(&checkpoint))?;
            self.last_checkpoint = self.head.revision;
        }
        Ok(())
    }

    fn sign(&self, head: Link) -> Result<SignedCheckpoint, SigningFailed> {
        let checkpoint = Checkpoint {
            incarnation: self.identity.incarnation,
            revision: head.revision,
            head: head.chain,
            at: (self.clock)(),
        };
        let signature = self.signer.sign(&checkpoint.to_bytes())?;
        Ok(SignedCheckpoint { checkpoint, key_id: self.signer.key_id().to_owned(), signature })
    }

    fn answer(&mut self, question: Question) -> Result<(), WriteError> {
        match question {
            Question::Read { after, limit, answer } => {
                let answered = self.read(after, limit);
                let damaged = answered.is_err();
                if answer.send(answered.map_err(|damage| ReadError::Damaged(damage.to_string()))).is_err() {
                    tracing::trace!("nobody waits for these records any more");
                }
                if damaged { Err(Damage::Gap(after).into()) } else { Ok(()) }
            }
            Question::Snapshot { revision, digest, answer } => {
                let incarnation = self.identity.incarnation;
                let chain = self.store.chain_at(revision, incarnation)?.ok_or(Damage::Gap(revision))?;
                let row = SnapshotRow { at: Link { revision, chain }, digest };
                let kept = self.store.add_snapshot(row, SNAPSHOTS)?;
                if answer.send(kept.iter().map(|row| row.at.revision).collect()).is_err() {
                    tracing::trace!("nobody waits for this snapshot any more");
                }
                Ok(())
            }
        }
    }

    fn read(&self, after: Revision, limit: usize) -> Result<Vec<Arc<Record>>, Damage> {
        let chain = self.store.chain_at(after, self.identity.incarnation)?.ok_or(Damage::Gap(after))?;
        let mut records = Vec::new();
        let last = self.store.walk(Link { revision: after, chain }, limit, |link, body| {
            records.push(Arc::new(Record {
                revision: link.revision,
                chain: link.chain,
                body: body.to_owned(),
            }));
            Ok::<_, Damage>(())
        })?;
        // The end of a damaged table looks like its end.
        if records.len() < limit && last.revision < self.head.revision {
            Err(Damage::Gap(last.revision))
        } else {
            Ok(records)
        }
    }
}

/// Seals the journal whatever ends the thread, a panic included.
struct SealAtEnd<'a>(&'a Shared);

impl Drop for SealAtEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.progress.seal();
        self.0.forget_questions();
    }
}
