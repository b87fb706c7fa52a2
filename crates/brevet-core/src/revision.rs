//! Positions in the journal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a commit: 1 for the first, without gaps. Zero means "before anything".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Before anything was recorded.
    pub const ZERO: Self = Self(0);

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One life of a journal. A restore from a backup begins a new one and retires every signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// A place in one life of a journal: everything up to the revision has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The life of the journal.
    pub incarnation: Incarnation,
    /// The newest revision that has been seen.
    pub revision: Revision,
}

/// What a decision was computed from. A commit names it, and a commit whose basis has moved is a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The revision of the last change to the task tree; zero if the tree does not exist yet.
    pub tree: Revision,
    /// The revision of the newest lock, policy, key, trust or registry change.
    pub control: Revision,
}
