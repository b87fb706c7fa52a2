//! The order of a journal in one process: which revision is next, and what a decision may still be recorded under.

use brevet_core::revision::Revision;
use brevet_core::sabotage;

use crate::{AppendError, Kind};

/// The newest revisions. Kept under the lock that also guards the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    newest: Revision,
    control: Revision,
}

impl Order {
    /// An order that continues behind `newest`, with `control` as the newest control change.
    #[must_use]
    pub const fn after(newest: Revision, control: Revision) -> Self {
        Self { newest, control }
    }

    /// Assigns the next revision.
    ///
    /// # Errors
    /// [`AppendError::Conflict`] if it was decided under another control revision than the newest queued (T6, P3).
    pub fn assign(&mut self, kind: &Kind) -> Result<Revision, AppendError> {
        let basis = match kind {
            Kind::Tree { basis, .. } => basis.control,
            Kind::Control { basis } => *basis,
            Kind::Note => self.control,
        };
        // INVARIANT: nothing that was decided before a control change is recorded behind it.
        if basis != self.control && !sabotage::on("ignore_control_revision") {
            return Err(AppendError::Conflict);
        }
        self.newest = self.newest.next();
        if let Kind::Control { .. } = kind {
            self.control = self.newest;
        }
        Ok(self.newest)
    }

    /// The newest queued revision.
    #[must_use]
    pub const fn newest(&self) -> Revision {
        self.newest
    }

    /// The newest queued control change.
    #[must_use]
    pub const fn control(&self) -> Revision {
        self.control
    }
}
