//! The picture: which of a broker's credentials have ended before their time, as far as a resource server was told,
//! and how long it may rely on that.
//!
//! A signature says that a credential was issued, the picture whether it still lives. It is drawn from one stream of
//! `WatchRevocations` after another, from nothing or from its own [`Picture::cursor`], and these are its rules:
//!
//! 1. A token is dead whose lease has ended, or whose `task` path holds a task that has. When it was issued does not
//!    matter: what has ended never lives again.
//! 2. Nothing lives by a picture without progress (invariant T3). Progress is a bookmark, and it counts from when the
//!    nonce was *sent* that the bookmark answers: what a proxy holds back refreshes nothing.
//! 3. A bookmark counts if it is signed by the broker's key, answers a nonce of this picture, is of the same life of
//!    the journal, and neither its revision nor its time is behind the one before. The newest is kept as a
//!    [`Witness`] of what the journal must contain.
//! 4. Expiry is judged by the later of two clocks (invariant C7): the local one, and the broker's as the newest
//!    bookmark told it and time since boot carries it on. Counted from when the nonce was sent, the latter is never
//!    behind the broker's own: a slow clock here accepts nothing past its end, and near its end a credential may be
//!    refused earlier by as long as the bookmark was under way.
//! 5. What ended is forgotten when, by the bookmark's clock, all that it ended has ended by itself. The local clock
//!    forgets nothing, for it may go back.
//!
//! A token that was issued after the newest bookmark is judged like any other: within the same bound its ending will
//! be told.
//!
//! Time since boot is `CLOCK_BOOTTIME`, which goes on while the machine is suspended and that nobody can set.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use brevet_core::bookmark::{Bookmark, Nonce};
use brevet_core::fact::ReasonCode;
use brevet_core::id::{Id, LeaseId, RootTaskId, TaskId};
use brevet_core::notice::{Ended, Endings, ToldEnding};
use brevet_core::revision::{Cursor, Revision};
use brevet_core::sabotage;
use brevet_core::time::Timestamp;
use brevet_identity::jwk_set::JwkSet;
use thiserror::Error;

use crate::Verified;

/// Nonces that may wait for a bookmark; of more, the oldest is given up.
const NONCES_MAX: usize = 64;

/// How a token stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It lives, as far as was told, and that is recent enough.
    Live,
    /// It is dead, for ever.
    Dead(Death),
    /// Nobody knows: there was no progress for too long.
    Stale,
}

/// Why a token is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// Its end has come.
    Expired,
    /// Its task, or one above it, has ended.
    Task(TaskId, ReasonCode),
    /// Its lease has ended.
    Lease(ReasonCode),
}

/// Why a bookmark does not count. Whoever gets one should not go on from where it was, but begin anew with an empty
/// picture, and tell people: the broker is not the one that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BookmarkError {
    /// It answers no nonce that waits.
    #[error("the bookmark answers no nonce that waits")]
    Nonce,
    /// Its path is none.
    #[error("the nonce is not among those that the bookmark answers")]
    Path,
    /// The broker has no such key.
    #[error("the bookmark's key is not known")]
    Key,
    /// It is not signed.
    #[error("the bookmark's signature is not valid")]
    Signature,
    /// It is of another life of the journal.
    #[error("the bookmark is of another incarnation")]
    Incarnation,
    /// It is behind the one before: the journal has lost what it had.
    #[error("the bookmark is behind an earlier one")]
    Behind,
    /// The journal's chain is another than it was.
    #[error("the bookmark is of another chain than an earlier one of the same revision")]
    Forked,
    /// The broker's time has gone back, as after a start with a clock that had been ahead.
    #[error("the bookmark's time is before that of an earlier one")]
    Time,
}

impl BookmarkError {
    /// A stable name for the log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Nonce => "nonce_unknown",
            Self::Path => "nonce_path",
            Self::Key => "kid_unknown",
            Self::Signature => "bad_signature",
            Self::Incarnation => "incarnation_changed",
            Self::Behind => "revision_behind",
            Self::Forked => "chain_forked",
            Self::Time => "time_behind",
        }
    }
}

/// Where a journal was when it was last heard of. A journal that does not contain it has lost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// The place.
    pub cursor: Cursor,
    /// The chain hash there.
    pub chain: [u8; 32],
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    witness: Witness,
    judge_time: Timestamp,
    /// When the nonce was sent that it answers, since boot.
    asked: Duration,
}

#[derive(Debug, Clone)]
struct Told {
    reason: ReasonCode,
    until: Timestamp,
}

/// What a resource server knows of endings.
#[derive(Debug, Clone)]
pub struct Picture {
    keys: JwkSet,
    tasks: BTreeMap<TaskId, Told>,
    leases: BTreeMap<LeaseId, Told>,
    told: Revision,
    asked: VecDeque<(Nonce, Duration)>,
    progress: Option<Progress>,
}

impl Picture {
    /// An empty picture, which takes nothing for live. `keys` are the broker's keys of bookmarks.
    #[must_use]
    pub fn new(keys: JwkSet) -> Self {
        Self {
            keys,
            tasks: BTreeMap::new(),
            leases: BTreeMap::new(),
            told: Revision::ZERO,
            asked: VecDeque::new(),
            progress: None,
        }
    }

    /// Notes that a nonce is about to be sent.
    pub fn asking(&mut self, nonce: Nonce, since_boot: Duration) {
        if self.asked.len() >= NONCES_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((nonce, since_boot));
    }

    /// Takes the endings of one commit, or a part of them. What is told again changes nothing.
    pub fn apply(&mut self, endings: &Endings) {
        let told = if sabotage::on("parts_are_the_whole") { endings.revision } else { endings.told() };
        self.told = self.told.max(told);
        for ToldEnding { ended, reason, until } in &endings.endings {
            let told = Told { reason: reason.clone(), until: *until };
            // INVARIANT: the later `until` counts, or it could be forgotten too early.
            let keep = |before: &mut Told| before.until = before.until.max(*until);
            match ended {
                Ended::Task(task) => drop(self.tasks.entry(*task).and_modify(keep).or_insert(told)),
                Ended::Lease(lease) => drop(self.leases.entry(*lease).and_modify(keep).or_insert(told)),
            }
        }
    }

    /// Takes a bookmark, and forgets what is of no use any more.
    ///
    /// # Errors
    /// [`BookmarkError`]; the picture is as it was, and gets stale.
    pub fn bookmark(&mut self, bookmark: &Bookmark) -> Result<(), BookmarkError> {
        // 1. It was made after a nonce was sent, and says when.
        let position = self.asked.iter().position(|(nonce, _)| *nonce == bookmark.nonce);
        let position = position.ok_or(BookmarkError::Nonce)?;
        let statement = bookmark.statement().ok_or(BookmarkError::Path)?;

        // 2. The broker made it.
        let key = self.keys.key(bookmark.key_id.as_str()).ok_or(BookmarkError::Key)?;
        if !key.verifies(&statement.to_bytes(), &bookmark.signature)
            && !sabotage::on("unsigned_bookmarks_count")
        {
            return Err(BookmarkError::Signature);
        }

        // 3. It goes on from the one before.
        if let Some(Progress { witness, judge_time, .. }) = self.progress {
            let (before, after) = (witness.cursor, bookmark.cursor);
            if after.incarnation != before.incarnation {
                return Err(BookmarkError::Incarnation);
            }
            if after.revision < before.revision {
                return Err(BookmarkError::Behind);
            }
            if after.revision == before.revision && bookmark.chain != witness.chain {
                return Err(BookmarkError::Forked);
            }
            if bookmark.judge_time < judge_time {
                return Err(BookmarkError::Time);
            }
        }

        // 4. Older nonces need no answer any more.
        let Some((_, asked)) = self.asked.drain(..=position).next_back() else {
            return Err(BookmarkError::Nonce);
        };
        let witness = Witness { cursor: bookmark.cursor, chain: bookmark.chain };
        self.progress = Some(Progress { witness, judge_time: bookmark.judge_time, asked });
        self.tasks.retain(|_, told| told.until > bookmark.judge_time);
        self.leases.retain(|_, told| told.until > bookmark.judge_time);
        Ok(())
    }

    /// How a token stands. `staleness_max` is how long the picture may be relied on without progress; `since_boot` and
    /// `wall` are the local clocks.
    #[must_use]
    pub fn judge(
        &self,
        token: &Verified,
        staleness_max: Duration,
        since_boot: Duration,
        wall: Timestamp,
    ) -> Standing {
        let claims = token.claims();
        if claims.end <= self.time(since_boot, wall) {
            return Standing::Dead(Death::Expired);
        }
        if let Some(told) = self.leases.get(&token.lease()) {
            return Standing::Dead(Death::Lease(told.reason.clone()));
        }
        let ended = tasks_of(&claims.path).find_map(|task| Some((task, self.tasks.get(&task)?)));
        if let Some((task, told)) = ended {
            return Standing::Dead(Death::Task(task, told.reason.clone()));
        }
        let is_fresh = self.age(since_boot).is_some_and(|age| age < staleness_max);
        if is_fresh || sabotage::on("stale_is_live") { Standing::Live } else { Standing::Stale }
    }

    /// The time to judge by: the local clock's, or the broker's where that is later.
    #[must_use]
    pub fn time(&self, since_boot: Duration, wall: Timestamp) -> Timestamp {
        let brokers =
            |progress: Progress| progress.judge_time.after(since_boot.saturating_sub(progress.asked));
        let progress = self.progress.filter(|_| !sabotage::on("local_clocks_judge"));
        progress.map_or(wall, |progress| wall.max(brokers(progress)))
    }

    /// How long ago the nonce was sent that the newest bookmark answers. None without a bookmark.
    #[must_use]
    pub fn age(&self, since_boot: Duration) -> Option<Duration> {
        self.progress.map(|progress| since_boot.saturating_sub(progress.asked))
    }

    /// The newest bookmark, as a witness of what the journal must contain.
    #[must_use]
    pub fn witness(&self) -> Option<Witness> {
        self.progress.map(|progress| progress.witness)
    }

    /// Where the next stream goes on: behind everything that was told. None before there was a bookmark, which says of
    /// which life of the journal that is.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        let Cursor { incarnation, revision } = self.witness()?.cursor;
        Some(Cursor { incarnation, revision: revision.max(self.told) })
    }

    /// How many endings it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len().saturating_add(self.leases.len())
    }

    /// Whether it holds no ending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The task of a token with every task above it, from a path of ids that begins at the root.
fn tasks_of(path: &[Id]) -> impl Iterator<Item = TaskId> {
    let root = path.first().copied().map(RootTaskId);
    let above = if sabotage::on("ancestors_do_not_end") { path.len().saturating_sub(1) } else { 0 };
    path.iter().skip(above).filter_map(move |node| {
        let root = root?;
        Some(TaskId::child_of(root, *node).unwrap_or_else(|_| TaskId::root_of(root)))
    })
}

#[cfg(test)]
mod tests;
