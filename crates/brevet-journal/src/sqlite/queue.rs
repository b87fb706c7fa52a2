//! What callers and the writing thread share: the queue, how far it is durable, the newest records.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brevet_core::digest::StateDigest;
use brevet_core::revision::Revision;
use brevet_core::sabotage;
use tokio::sync::oneshot;

use crate::chain::Link;
use crate::order::Order;
use crate::progress::{Progress, Ticket};
use crate::{AppendError, Entry, Precedence, ReadError, Record};

/// A commit waits for so many records at most: beyond, what it costs by itself is a small part of what they cost.
const GATHERED_MAX: u32 = 64;

/// In each such part of the commit window another record has to come, or it is over.
const WINDOW_PARTS: u32 = 4;

pub(crate) struct Shared {
    pub(crate) progress: Arc<Progress>,
    queue: Mutex<Queue>,
    work: Condvar,
    recent: Mutex<Recent>,
    ample: AtomicBool,
    scarce: AtomicBool,
    limits: Limits,
}

/// What the queue may hold and how long it may gather.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) queue_records_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) commit_window: Duration,
    pub(crate) recent_bytes_max: usize,
}

struct Queue {
    order: Order,
    bodies: Vec<Vec<u8>>,
    bytes: usize,
    /// One of the records waits for no others.
    is_urgent: bool,
    questions: Vec<Question>,
    /// The writer sleeps until so many records are queued.
    sleeps_until: Option<usize>,
    closed: bool,
}

/// What only the thread with the database can answer.
pub(crate) enum Question {
    Read { after: Revision, limit: usize, answer: oneshot::Sender<Result<Vec<Arc<Record>>, ReadError>> },
    Snapshot { revision: Revision, digest: StateDigest, answer: Sender<Vec<Revision>> },
}

/// What the writer does next.
pub(crate) enum Turn {
    Work { bodies: Vec<Vec<u8>>, questions: Vec<Question> },
    Idle,
    Close,
}

#[derive(Default)]
struct Recent {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
}

impl Shared {
    pub(crate) fn new(head: Link, control: Revision, limits: Limits) -> Self {
        Self {
            progress: Progress::new(head),
            queue: Mutex::new(Queue {
                order: Order::after(head.revision, control),
                bodies: Vec::new(),
                bytes: 0,
                is_urgent: false,
                questions: Vec::new(),
                sleeps_until: None,
                closed: false,
            }),
            work: Condvar::new(),
            recent: Mutex::default(),
            ample: AtomicBool::new(false),
            scarce: AtomicBool::new(false),
            limits,
        }
    }

    pub(crate) fn append(&self, entry: Entry, fold: &mut dyn FnMut(Revision)) -> Result<Ticket, AppendError> {
        // What does not make the state grow has half of the queue to itself, what ends a quarter, and stops the last of it.
        let (has_space, sixteenths) = match entry.precedence {
            Precedence::Growth => (self.ample.load(Ordering::Relaxed), 8),
            Precedence::Denial => (!self.scarce.load(Ordering::Relaxed), 12),
            Precedence::Ending => (true, 15),
            Precedence::Stop => (true, 16),
        };
        if !has_space {
            return Err(AppendError::NoSpace);
        }
        // A fold that panicked left a state that nobody knows: nothing is recorded behind it.
        let mut queue = self.queue.lock().map_err(|_| AppendError::Sealed)?;
        if queue.closed || self.progress.is_sealed() {
            return Err(AppendError::Sealed);
        }
        let share = |max: usize| max.saturating_mul(sixteenths) / 16;
        if queue.bodies.len() >= share(self.limits.queue_records_max)
            || queue.bytes >= share(self.limits.queue_bytes_max)
        {
            return Err(AppendError::Busy);
        }
        let revision = queue.order.assign(&entry.kind)?;
        fold(revision);
        queue.bytes += entry.body.len();
        queue.bodies.push(entry.body);
        queue.is_urgent |= entry.precedence == Precedence::Stop && !sabotage::on("stops_wait_for_company");
        self.call(queue);
        Ok(Ticket::new(&self.progress, revision))
    }

    /// Asks the thread with the database. The question is dropped if it has ended.
    pub(crate) fn ask(&self, question: Question) {
        let mut queue = self.queue();
        if !queue.closed {
            queue.questions.push(question);
            self.call(queue);
        }
    }

    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        self.call(queue);
    }

    /// Drops what was asked and not answered, so that nobody waits for it.
    pub(crate) fn forget_questions(&self) {
        self.queue().questions.clear();
    }

    pub(crate) fn order(&self) -> Order {
        self.queue().order
    }

    pub(crate) fn set_ample(&self, ample: bool) {
        self.ample.store(ample, Ordering::Relaxed);
    }

    pub(crate) fn set_scarce(&self, scarce: bool) {
        self.scarce.store(scarce, Ordering::Relaxed);
    }

    /// Waits for work, for a time, and takes all of it.
    ///
    /// Those who were answered together tend to come back together, and a few more with them: they are waited for as long
    /// as they keep coming, for each longer the more they were, up to a part of the commit window. If they do not come, the
    /// commit holds fewer, and the next one waits for fewer. A single caller never waits, nor does a stop.
    pub(crate) fn turn(&self, last_batch: usize, rest: Duration) -> Turn {
        let mut queue = self.sleep(self.queue(), 1, rest);
        let returning = u32::try_from(last_batch).unwrap_or(GATHERED_MAX).min(GATHERED_MAX);
        let expected = expected(returning);
        let patience = self.limits.commit_window / GATHERED_MAX * returning.saturating_sub(1);
        let patience = patience.min(self.limits.commit_window / WINDOW_PARTS);
        for _ in 0..WINDOW_PARTS {
            let came = queue.bodies.len();
            if came == 0 || queue.calls_for(expected) {
                break;
            }
            queue = self.sleep(queue, expected, patience);
            if queue.bodies.len() == came {
                break;
            }
        }
        if queue.is_empty() {
            return if queue.closed { Turn::Close } else { Turn::Idle };
        }
        queue.bytes = 0;
        queue.is_urgent = false;
        let room = Vec::with_capacity(queue.bodies.len());
        Turn::Work {
            bodies: std::mem::replace(&mut queue.bodies, room),
            questions: std::mem::take(&mut queue.questions),
        }
    }

    /// Keeps the newest records at hand for those who follow.
    pub(crate) fn remember(&self, records: Vec<Arc<Record>>) {
        let mut recent = self.recent();
        recent.bytes += records.iter().map(|record| record.body.len()).sum::<usize>();
        recent.records.extend(records);
        while recent.bytes > self.limits.recent_bytes_max
            && let Some(oldest) = recent.records.pop_front()
        {
            recent.bytes = recent.bytes.saturating_sub(oldest.body.len());
        }
    }

    /// Records behind a revision, if the newest records reach back that far.
    pub(crate) fn recall(&self, after: Revision, limit: usize) -> Option<Vec<Arc<Record>>> {
        let recent = self.recent();
        let first = recent.records.front()?.revision;
        let skip = after.next().0.checked_sub(first.0)?;
        Some(recent.records.iter().skip(usize::try_from(skip).ok()?).take(limit).cloned().collect())
    }

    /// Sleeps until so many records are queued, or something else is to be done, or the time is over.
    fn sleep<'a>(
        &self,
        mut queue: MutexGuard<'a, Queue>,
        records: usize,
        time: Duration,
    ) -> MutexGuard<'a, Queue> {
        if !queue.calls_for(records) && !time.is_zero() {
            queue.sleeps_until = Some(records);
            let waited = self.work.wait_timeout_while(queue, time, |queue| !queue.calls_for(records));
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            queue.sleeps_until = None;
        }
        queue
    }

    /// Wakes the writer if it sleeps and has slept enough.
    fn call(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.sleeps_until.is_some_and(|records| queue.calls_for(records)) {
            // Nobody else need call it too: that is a system call each time.
            queue.sleeps_until = None;
            drop(queue);
            self.work.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many records are waited for after a commit of so many. From four on it is some more than came, or commits that
/// once got small would stay so.
fn expected(returning: u32) -> usize {
    let more = if returning < 4 { 0 } else { returning / 4 };
    usize::try_from(returning.saturating_add(more).min(GATHERED_MAX)).unwrap_or(usize::MAX)
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.bodies.is_empty() && self.questions.is_empty()
    }

    /// Whether the writer is to be woken that sleeps until so many records are queued.
    fn calls_for(&self, records: usize) -> bool {
        self.bodies.len() >= records || self.is_urgent || !self.questions.is_empty() || self.closed
    }
}
