//! Following the journal: every durable record once, in order, from a cursor (W1–W5).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

pub use brevet_core::revision::Cursor;
use brevet_core::revision::Revision;
use thiserror::Error;

use crate::{Journal, ReadError, Record, Sealed};

/// How many records are fetched at once.
const FETCH: usize = 256;

/// Why records cannot be followed, or no further.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TailError {
    /// The cursor belongs to another life of the journal.
    #[error("the cursor is of another incarnation")]
    Incarnation,
    /// The cursor names a revision that is not durable: it was never given out, or the journal lost what it had.
    #[error("the cursor is from the future")]
    Future,
    /// What the cursor asks for is gone.
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

/// Follows a journal.
pub struct Tail {
    journal: Arc<dyn Journal>,
    cursor: Cursor,
    fetched: VecDeque<Arc<Record>>,
}

impl Tail {
    /// Follows a journal from a cursor.
    ///
    /// # Errors
    /// [`TailError`] if the cursor is of another incarnation, from the future, or compacted away.
    pub fn open(journal: Arc<dyn Journal>, cursor: Cursor) -> Result<Self, TailError> {
        let head = journal.head();
        if cursor.incarnation != head.incarnation {
            return Err(TailError::Incarnation);
        }
        if cursor.revision > head.durable {
            return Err(TailError::Future);
        }
        if cursor.revision.next() < head.oldest {
            return Err(TailError::Compacted { oldest: head.oldest });
        }
        Ok(Self { journal, cursor, fetched: VecDeque::new() })
    }

    /// The next durable record. Losing this future loses no record.
    ///
    /// # Errors
    /// [`TailError`] when no further record will come.
    pub async fn next(&mut self) -> Result<Arc<Record>, TailError> {
        while self.fetched.is_empty() {
            self.journal.durable(self.cursor.revision.next()).await?;
            self.fetched = self.journal.read(self.cursor.revision, FETCH).await?.into();
        }
        self.fetched_next().ok_or(TailError::Sealed)
    }

    /// The next record if it has been fetched already: whoever writes out a stream takes these before flushing.
    pub fn fetched_next(&mut self) -> Option<Arc<Record>> {
        let record = self.fetched.pop_front()?;
        self.cursor.revision = record.revision;
        Some(record)
    }

    /// Everything up to here was handed out.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl From<Sealed> for TailError {
    fn from(_: Sealed) -> Self {
        Self::Sealed
    }
}

impl From<ReadError> for TailError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted { oldest } => Self::Compacted { oldest },
            ReadError::Damaged(place) => Self::Damaged(place),
            ReadError::Sealed => Self::Sealed,
        }
    }
}
