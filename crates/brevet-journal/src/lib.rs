//! The durable, hash-chained journal: the one place where a fact becomes irrevocable.
//!
//! An entry is queued under a lock that orders everything, folded there exactly once, and written together with
//! whatever else is queued. Its revision is known at once; that it is durable is known when its [`Ticket`] says so.
//! **Every reply, a read's included, waits until the revision that it was computed from is durable**: then whatever
//! a crash takes away was told to nobody. The body of a record is opaque here. The stored bytes are the hashed bytes.
//!
//! [`sqlite::Sqlite`] is the journal of one process. The trait leaves room for a database that several brokers
//! share, whose answer to an append may be a conflict that comes later ([`TicketError::Conflict`]).

pub mod chain;
pub mod checkpoint;
pub mod order;
pub mod progress;
pub mod sqlite;
pub mod tail;
pub mod verify;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use brevet_core::digest::StateDigest;
use brevet_core::id::RootTaskId;
use brevet_core::revision::{Basis, Incarnation, Revision};
use thiserror::Error;
use tokio::sync::oneshot;

pub use crate::chain::{ChainHash, Link};
pub use crate::progress::{Durable, Progress, Sealed, Sealing, Ticket, TicketError};
pub use crate::tail::{Cursor, Tail, TailError};

/// What both implementations promise.
pub trait Journal: Send + Sync {
    /// Queues one entry, all or nothing, under one new revision, and calls `fold` with it exactly once.
    ///
    /// The control revision is compared, the revision assigned and the state folded under one lock, so in one
    /// process a conflict never undoes anything. `fold` must not call the journal. That the tree has not moved since
    /// the decision is what the caller guarantees: it compares [`Basis::tree`] with the tree's last revision and calls
    /// this while it still holds the tree's lock. A database that several brokers share compares it again.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was queued and `fold` was not called.
    fn append(&self, entry: Entry, fold: &mut dyn FnMut(Revision)) -> Result<Ticket, AppendError>;

    /// Where the journal stands.
    fn head(&self) -> Head;

    /// The life of this journal, which never changes: asked for at each record, so no lock is taken for it.
    fn incarnation(&self) -> Incarnation;

    /// The newest durable record's place in the chain, as one pair: what a signed statement of the head says. It is
    /// never behind [`Head::durable`] as somebody has seen it before.
    fn durable_head(&self) -> Link {
        self.progress().head()
    }

    /// How far it is durable, and who waits for that.
    fn progress(&self) -> &Arc<Progress>;

    /// Durable records behind `after` in order, at most `limit` and at most a bounded number, without gaps.
    /// Empty if nothing behind `after` is durable.
    fn read(&self, after: Revision, limit: usize) -> Reply<Result<Vec<Arc<Record>>, ReadError>>;

    /// Keeps the state as it was at a durable revision, so that a restart replays only what came later. Returns the
    /// digest of the bytes. The caller appends a note that names it first, so that a snapshot which no record names
    /// was put there by somebody else. Blocks on the disk.
    ///
    /// # Errors
    /// [`SnapshotError`]; then the older snapshots still serve.
    fn store_snapshot(&self, revision: Revision, state: &[u8]) -> Result<StateDigest, SnapshotError>;

    /// Resolves when the revision is durable. What lies in the future is waited for.
    fn durable(&self, revision: Revision) -> Durable {
        self.progress().wait(revision)
    }

    /// Resolves when the journal takes nothing any more, by a fault or because it was closed.
    fn sealed(&self) -> Sealing {
        self.progress().sealing()
    }
}

/// What is to be recorded.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What the entry changes and what it was decided under.
    pub kind: Kind,
    /// What it makes way for.
    pub precedence: Precedence,
    /// The encoded record, complete but for its revision, which the row's key and the chain hash carry.
    pub body: Vec<u8>,
}

/// What an entry changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One transaction of one task tree.
    Tree {
        /// The tree.
        root: RootTaskId,
        /// What it was decided under.
        basis: Basis,
    },
    /// A change of the locks, the registry, the policy, the keys or the trust: it moves the control revision.
    Control {
        /// The control revision it was decided under.
        basis: Revision,
    },
    /// A denial, a first key, a start, a digest: it conflicts with nothing and moves nothing.
    Note,
}

/// What makes way for what when space, the queue or time gets short: each for those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precedence {
    /// It makes the state grow: opening, issuing, delegating, letting in. It is refused first.
    Growth,
    /// A denial that is about to be answered. Where it is refused, the caller answers that it cannot answer.
    Denial,
    /// What ends by itself or by whoever holds it, and whatever else is to be on record.
    Ending,
    /// What somebody ends for others: a lock, a revocation. The commit that takes it along waits for nobody.
    Stop,
}

/// A durable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub revision: Revision,
    /// The hash of this record and, through it, of every record before.
    pub chain: ChainHash,
    /// The bytes that were appended.
    pub body: Vec<u8>,
}

/// Where a journal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The life of this journal.
    pub incarnation: Incarnation,
    /// The first revision that can still be read.
    pub oldest: Revision,
    /// The newest queued revision.
    pub newest: Revision,
    /// The newest durable revision.
    pub durable: Revision,
    /// The newest queued control change.
    pub control: Revision,
}

/// Why an entry was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppendError {
    /// A control change came in between: decide again.
    #[error("decided under an older control revision")]
    Conflict,
    /// The rest of the disk is kept for endings, locks and denials.
    #[error("not enough free space to record what grows")]
    NoSpace,
    /// The disk is slower than the callers. The limit is stricter for what grows than for what ends.
    #[error("too many records wait for the disk")]
    Busy,
    /// Nothing is recorded any more.
    #[error("the journal is sealed")]
    Sealed,
}

/// Why records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// They were removed after a snapshot took their place.
    #[error("records before revision {oldest} were compacted")]
    Compacted {
        /// The first revision that can still be read.
        oldest: Revision,
    },
    /// The store does not hold what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The journal has ended.
    #[error("the journal is sealed")]
    Sealed,
}

/// Why a snapshot was not kept.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// A snapshot of what may yet be lost would survive it.
    #[error("revision {0} is not durable")]
    NotDurable(Revision),
    /// The disk refused.
    #[error("cannot write the snapshot")]
    Io(#[from] std::io::Error),
    /// The journal has ended.
    #[error("the journal is sealed")]
    Sealed,
}

/// An answer that is there at once or comes from the thread that owns the store.
#[derive(Debug)]
pub struct Reply<T>(Answer<T>);

#[derive(Debug)]
enum Answer<T> {
    Here(Option<T>),
    Coming(oneshot::Receiver<T>),
}

impl<T> Reply<T> {
    /// An answer known already.
    #[must_use]
    pub fn here(value: T) -> Self {
        Self(Answer::Here(Some(value)))
    }

    pub(crate) fn coming(receiver: oneshot::Receiver<T>) -> Self {
        Self(Answer::Coming(receiver))
    }
}

impl<T: Unpin, E: Unpin + From<Sealed>> Future for Reply<Result<T, E>> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::Here(value) => Poll::Ready(value.take().unwrap_or_else(|| Err(Sealed.into()))),
            // Only a thread that has ended drops the question unanswered.
            Answer::Coming(receiver) => {
                Pin::new(receiver).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(Sealed.into())))
            }
        }
    }
}

impl From<Sealed> for ReadError {
    fn from(_: Sealed) -> Self {
        Self::Sealed
    }
}
