//! How far a journal is durable, and waking those who wait for it.
//!
//! One counter and one ordered list of wakers serve every ticket, read and stream: an append allocates nothing for
//! its answer, and a commit of many records takes the list's lock once.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use brevet_core::revision::Revision;
use thiserror::Error;

use crate::chain::Link;

/// The journal takes nothing any more. What was queued and is not durable was told to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the journal is sealed")]
pub struct Sealed;

/// Why an appended entry did not become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TicketError {
    /// The journal ended first.
    #[error("the journal is sealed")]
    Sealed,
    /// Another broker on the same database was first: the tree, and all queued behind this entry, must be dropped
    /// and loaded again. A journal of one process never answers this.
    #[error("another broker changed the tree first")]
    Conflict,
}

/// How far a journal is durable.
pub struct Progress {
    durable: AtomicU64,
    sealed: AtomicBool,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    /// The newest durable record. The revision alone is in the atomic as well.
    head: Link,
    next_key: u64,
    wakers: BTreeMap<(Revision, u64), Waker>,
}

impl Progress {
    /// Durable up to a place in the chain.
    #[must_use]
    pub fn new(head: Link) -> Arc<Self> {
        Arc::new(Self {
            durable: AtomicU64::new(head.revision.0),
            sealed: AtomicBool::new(false),
            waiting: Mutex::new(Waiting { head, next_key: 0, wakers: BTreeMap::new() }),
        })
    }

    /// The newest durable revision.
    #[must_use]
    pub fn durable(&self) -> Revision {
        Revision(self.durable.load(Ordering::Acquire))
    }

    /// The newest durable record's place in the chain.
    #[must_use]
    pub fn head(&self) -> Link {
        self.waiting().head
    }

    /// Whether the journal takes nothing any more.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// States that everything up to a place in the chain is durable. For implementations of the journal.
    pub fn advance(&self, to: Link) {
        let mut waiting = self.waiting();
        if to.revision > waiting.head.revision {
            // In this order, so that nobody who saw the revision finds an older head.
            waiting.head = to;
            self.durable.store(to.revision.0, Ordering::Release);
        }
        let later = waiting.wakers.split_off(&(to.revision.next(), 0));
        let ready = std::mem::replace(&mut waiting.wakers, later);
        drop(waiting);
        ready.into_values().for_each(Waker::wake);
    }

    /// States that nothing more becomes durable. For implementations of the journal.
    pub fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
        let all = std::mem::take(&mut self.waiting().wakers);
        all.into_values().for_each(Waker::wake);
    }

    /// Resolves when the revision is durable.
    pub fn wait(self: &Arc<Self>, revision: Revision) -> Durable {
        Durable { progress: Arc::clone(self), revision, registered: None }
    }

    /// Resolves when the journal is sealed.
    pub fn sealing(self: &Arc<Self>) -> Sealing {
        Sealing(self.wait(Revision(u64::MAX)))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in a critical section can fail halfway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self, revision: Revision) -> Option<Result<Revision, Sealed>> {
        // The order of these two reads matters: what became durable just before the seal is durable.
        let sealed = self.is_sealed();
        if self.durable() >= revision {
            Some(Ok(revision))
        } else if sealed {
            Some(Err(Sealed))
        } else {
            None
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress")
            .field("durable", &self.durable())
            .field("sealed", &self.is_sealed())
            .finish_non_exhaustive()
    }
}

/// Resolves when a revision is durable, or never will be.
#[derive(Debug)]
#[must_use = "nothing is known to be durable before this resolves"]
pub struct Durable {
    progress: Arc<Progress>,
    revision: Revision,
    registered: Option<u64>,
}

impl Future for Durable {
    type Output = Result<Revision, Sealed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(outcome) = this.progress.outcome(this.revision) {
            return Poll::Ready(outcome);
        }
        let mut waiting = this.progress.waiting();
        // A commit between the look above and the lock has already emptied the list.
        if let Some(outcome) = this.progress.outcome(this.revision) {
            return Poll::Ready(outcome);
        }
        let key = *this.registered.get_or_insert_with(|| {
            waiting.next_key += 1;
            waiting.next_key
        });
        waiting.wakers.insert((this.revision, key), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        if let Some(key) = self.registered
            && self.progress.outcome(self.revision).is_none()
        {
            self.progress.waiting().wakers.remove(&(self.revision, key));
        }
    }
}

/// Resolves when the journal takes nothing any more.
#[derive(Debug)]
#[must_use = "this only waits"]
pub struct Sealing(Durable);

impl Future for Sealing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context).map(|_| ())
    }
}

/// An entry that is queued. Nobody may learn of it before [`Ticket::durable`] says so.
#[derive(Debug)]
#[must_use = "nothing is known to be durable before the ticket says so"]
pub struct Ticket(Durable);

impl Ticket {
    /// The ticket of a queued revision. For implementations of the journal.
    pub fn new(progress: &Arc<Progress>, revision: Revision) -> Self {
        Self(progress.wait(revision))
    }

    /// The revision that the entry got.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.0.revision
    }

    /// Waits until the entry is durable.
    ///
    /// # Errors
    /// [`TicketError`]: the entry is not known to be durable, and what was folded must be told to nobody.
    pub async fn durable(self) -> Result<Revision, TicketError> {
        self.0.await.map_err(|Sealed| TicketError::Sealed)
    }
}
