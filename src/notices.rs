//! The newest notices of early endings, in the order of their commits, for those who watch.
//!
//! A notice is pushed when its commit is queued, so that order is the journal's; whoever reads it waits until the
//! journal has it. What has left the ring is told from the ledgers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brevet_core::notice::Notice;
use brevet_core::revision::Revision;
use tokio::sync::watch;

/// The ring.
#[derive(Debug)]
pub struct Notices {
    ring: Mutex<Ring>,
    newest: watch::Sender<Revision>,
    max: usize,
}

#[derive(Debug)]
struct Ring {
    /// Every notice behind this revision is here.
    floor: Revision,
    notices: VecDeque<Arc<Notice>>,
}

impl Notices {
    /// An empty ring of at most so many notices, which knows nothing of what came up to `floor`.
    #[must_use]
    pub fn behind(floor: Revision, max: usize) -> Self {
        Self {
            ring: Mutex::new(Ring { floor, notices: VecDeque::new() }),
            newest: watch::Sender::new(floor),
            max,
        }
    }

    /// Adds the notice of the commit that is being queued.
    ///
    /// INVARIANT: called from within the append of that commit, and nowhere else, so that the order is the journal's (W1).
    pub fn push(&self, notice: Notice) {
        let revision = notice.revision;
        let mut ring = self.lock();
        if ring.notices.len() >= self.max
            && let Some(oldest) = ring.notices.pop_front()
        {
            ring.floor = oldest.revision;
        }
        ring.notices.push_back(Arc::new(notice));
        drop(ring);
        self.newest.send_replace(revision);
    }

    /// At most `limit` notices behind a revision, in order. None if some of them have left the ring.
    #[must_use]
    pub fn after(&self, seen: Revision, limit: usize) -> Option<Vec<Arc<Notice>>> {
        let ring = self.lock();
        if seen < ring.floor {
            return None;
        }
        let first = ring.notices.partition_point(|notice| notice.revision <= seen);
        Some(ring.notices.iter().skip(first).take(limit).cloned().collect())
    }

    /// Changes with every notice.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<Revision> {
        self.newest.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use brevet_core::name::TenantName;

    use super::*;

    fn notice(revision: u64) -> Notice {
        Notice { revision: Revision(revision), tenant: TenantName::default(), endings: Vec::new() }
    }

    #[test]
    fn w4_what_is_behind_a_cursor_comes_in_order_or_is_said_to_be_gone() {
        let notices = Notices::behind(Revision(5), 3);
        let after = |seen, limit| {
            let found = notices.after(Revision(seen), limit)?;
            Some(found.iter().map(|notice| notice.revision.0).collect::<Vec<_>>())
        };
        assert_eq!(after(4, 9), None);
        assert_eq!(after(5, 9), Some(vec![]));
        for revision in [7, 8, 11] {
            notices.push(notice(revision));
        }
        assert_eq!(after(5, 9), Some(vec![7, 8, 11]));
        assert_eq!(after(7, 1), Some(vec![8]));
        notices.push(notice(12));
        assert_eq!(after(6, 9), None);
        assert_eq!(after(7, 9), Some(vec![8, 11, 12]));
        assert_eq!(*notices.newest().borrow(), Revision(12));
    }
}
