//! A journal in memory, with faults, and the suite that every journal must pass.

pub mod conformance;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brevet_core::digest::StateDigest;
use brevet_core::revision::{Incarnation, Revision};
use brevet_journal::order::Order;
use brevet_journal::{
    AppendError, Entry, Head, Journal, Kind, Link, Precedence, Progress, ReadError, Record, Reply,
    SnapshotError, Ticket,
};

/// A journal in memory. What is queued is durable at once, unless durability is held.
#[derive(Debug)]
pub struct Memory {
    incarnation: Incarnation,
    progress: Arc<Progress>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    order: Order,
    /// The newest queued record.
    head: Link,
    /// Every record with whether it was a control change, the first one at `oldest`.
    records: Vec<(Arc<Record>, bool)>,
    oldest: Revision,
    snapshot: Option<(Revision, Vec<u8>)>,
    held: bool,
    full: bool,
    fails: bool,
}

impl Memory {
    /// An empty journal.
    #[must_use]
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            progress: Progress::new(Link::genesis(incarnation)),
            state: Mutex::new(State {
                order: Order::after(Revision::ZERO, Revision::ZERO),
                head: Link::genesis(incarnation),
                records: Vec::new(),
                oldest: Revision(1),
                snapshot: None,
                held: false,
                full: false,
                fails: false,
            }),
        }
    }

    /// From now on nothing becomes durable until it is released.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Everything queued becomes durable, and durability is no longer held.
    pub fn release(&self) {
        let mut state = self.state();
        state.held = false;
        self.progress.advance(state.head);
    }

    /// What is queued up to a revision becomes durable; the rest is still held.
    pub fn release_to(&self, revision: Revision) {
        let state = self.state();
        let released = state.records.iter().rev().find(|(record, _)| record.revision <= revision);
        if let Some((record, _)) = released {
            self.progress.advance(Link { revision: record.revision, chain: record.chain });
        }
    }

    /// The next commit fails: the journal is sealed, and what is queued and not durable is lost.
    pub fn fail_next_commit(&self) {
        self.state().fails = true;
    }

    /// Seals the journal as a failed sync would.
    pub fn seal(&self) {
        self.progress.seal();
    }

    /// Whether the disk is short of space.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Removes the durable records before a revision.
    pub fn compact(&self, oldest: Revision) {
        let mut state = self.state();
        let oldest = oldest.min(self.progress.durable().next());
        state.records.retain(|(record, _)| record.revision >= oldest);
        state.oldest = state.oldest.max(oldest);
    }

    /// The durable records.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<Record>> {
        let durable = self.progress.durable();
        let state = self.state();
        state.records.iter().map(|(record, _)| Arc::clone(record)).filter(|r| r.revision <= durable).collect()
    }

    /// The newest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<(Revision, Vec<u8>)> {
        self.state().snapshot.clone()
    }

    /// The journal as a crash leaves it for the next process: what was not durable is gone, and so are the faults.
    #[must_use]
    pub fn after_crash(&self) -> Self {
        let head = self.progress.head();
        let state = self.state();
        let records: Vec<_> =
            state.records.iter().filter(|(r, _)| r.revision <= head.revision).cloned().collect();
        let control = records.iter().rev().find(|(_, control)| *control).map(|(record, _)| record.revision);
        Self {
            incarnation: self.incarnation,
            progress: Progress::new(head),
            state: Mutex::new(State {
                order: Order::after(head.revision, control.unwrap_or(Revision::ZERO)),
                head,
                records,
                oldest: state.oldest,
                snapshot: state.snapshot.clone(),
                held: false,
                full: false,
                fails: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Memory {
    fn append(&self, entry: Entry, fold: &mut dyn FnMut(Revision)) -> Result<Ticket, AppendError> {
        let mut state = self.state();
        if self.progress.is_sealed() {
            return Err(AppendError::Sealed);
        }
        if entry.precedence == Precedence::Growth && state.full {
            return Err(AppendError::NoSpace);
        }
        let revision = state.order.assign(&entry.kind)?;
        fold(revision);
        state.head = state.head.next(&entry.body);
        let record = Record { revision, chain: state.head.chain, body: entry.body };
        state.records.push((Arc::new(record), matches!(entry.kind, Kind::Control { .. })));
        let ticket = Ticket::new(&self.progress, revision);
        if state.fails {
            self.progress.seal();
        } else if !state.held {
            self.progress.advance(state.head);
        }
        Ok(ticket)
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn head(&self) -> Head {
        let state = self.state();
        Head {
            incarnation: self.incarnation,
            oldest: state.oldest,
            newest: state.order.newest(),
            durable: self.progress.durable(),
            control: state.order.control(),
        }
    }

    fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    fn read(&self, after: Revision, limit: usize) -> Reply<Result<Vec<Arc<Record>>, ReadError>> {
        let oldest = self.state().oldest;
        if after.next() < oldest {
            return Reply::here(Err(ReadError::Compacted { oldest }));
        }
        Reply::here(Ok(self.records().into_iter().filter(|r| r.revision > after).take(limit).collect()))
    }

    fn store_snapshot(&self, revision: Revision, bytes: &[u8]) -> Result<StateDigest, SnapshotError> {
        if revision > self.progress.durable() {
            return Err(SnapshotError::NotDurable(revision));
        }
        self.state().snapshot = Some((revision, bytes.to_owned()));
        Ok(StateDigest::of(&[bytes]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Entry {
        Entry { kind: Kind::Note, precedence: Precedence::Growth, body: b"note".to_vec() }
    }

    fn memory() -> Arc<Memory> {
        Arc::new(Memory::new(Incarnation(7)))
    }

    #[test]
    fn the_memory_journal_conforms() {
        conformance::run(memory);
    }

    #[tokio::test]
    async fn l1_a_held_commit_is_told_to_nobody_until_it_is_released() {
        let journal = memory();
        journal.hold();
        let mut ticket = Box::pin(journal.append(note(), &mut |_| ()).unwrap().durable());
        assert!(conformance::is_pending(&mut ticket).await);
        assert!(journal.read(Revision::ZERO, 9).await.unwrap().is_empty());
        assert_eq!(journal.after_crash().head().newest, Revision::ZERO);
        journal.release_to(Revision(1));
        assert_eq!(ticket.await, Ok(Revision(1)));
        assert_eq!(journal.after_crash().records(), journal.records());
    }

    #[tokio::test]
    async fn a_failed_commit_seals_the_journal() {
        let journal = memory();
        journal.fail_next_commit();
        let ticket = journal.append(note(), &mut |_| ()).unwrap();
        assert!(ticket.durable().await.is_err());
        journal.sealed().await;
        assert_eq!(journal.append(note(), &mut |_| ()).unwrap_err(), AppendError::Sealed);
        assert!(journal.records().is_empty());
    }

    #[test]
    fn a_full_disk_refuses_only_what_grows() {
        let journal = memory();
        journal.set_full(true);
        assert_eq!(journal.append(note(), &mut |_| panic!()).unwrap_err(), AppendError::NoSpace);
        assert!(journal.append(Entry { precedence: Precedence::Ending, ..note() }, &mut |_| ()).is_ok());
    }

    #[tokio::test]
    async fn w5_a_compacted_cursor_is_told_so() {
        use brevet_journal::{Cursor, Tail, TailError};
        let journal = memory();
        for _ in 0..3 {
            journal.append(note(), &mut |_| ()).unwrap().durable().await.unwrap();
        }
        journal.compact(Revision(3));
        let from = |revision| {
            Tail::open(journal.clone(), Cursor { incarnation: Incarnation(7), revision: Revision(revision) })
        };
        assert_eq!(from(1).unwrap_err(), TailError::Compacted { oldest: Revision(3) });
        assert_eq!(from(2).unwrap().next().await.unwrap().revision, Revision(3));
    }
}
