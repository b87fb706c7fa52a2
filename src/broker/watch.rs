//! Watching revocations: a stream that tells an enforcer of every early ending of what was issued for its audiences,
//! in the order of the commits, each once and each commit whole.
//!
//! A stream has a position: the revision up to which everything was told. What comes behind it is in the ring of
//! notices, or, for whoever comes from further back, found by walking the trees once. Both give the same: an ending is
//! told at the revision at which it was first recorded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use brevet_core::bookmark::{Bookmark, Nonce};
use brevet_core::name::{AudienceName, TenantName};
use brevet_core::notice::{EarlyEnding, Endings, Notice, ToldEnding};
use brevet_core::proof::Caller;
use brevet_core::revision::{Cursor, Revision};
use brevet_core::sabotage;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Broker, Kind, Refusal};
use crate::bookmarks::Asking;
use crate::shares::Share;

/// Commits taken from the ring at once.
const COMMITS_MAX: usize = 64;
/// Endings in one message, which any client takes; more of a commit follow in the next.
pub const ENDINGS_TOLD_MAX: usize = 4_096;
/// Endings that one walk brings, but for those of its last commit; what lies behind them another walk finds.
const ENDINGS_MAX: usize = 16_384;

/// Where a stream begins, and what it is about.
#[derive(Debug, Clone, Default)]
pub struct WatchAsk {
    /// The audiences; none means all that the caller enforces.
    pub audiences: BTreeSet<AudienceName>,
    /// Up to where the caller was told; none means from nothing.
    pub cursor: Option<Cursor>,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The endings of one commit, or a part of them.
    Endings(Endings),
    /// Everything up to a revision was told.
    Bookmark(Box<Bookmark>),
}

impl Told {
    /// Everything up to here is told with it.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Endings(endings) => endings.told(),
            Self::Bookmark(bookmark) => bookmark.cursor.revision,
        }
    }
}

/// What a caller may be told, as of a moment.
#[derive(Debug, Clone)]
struct Authority {
    tenant: TenantName,
    audiences: BTreeSet<AudienceName>,
    control: Revision,
    /// Since when it enforces these, at the latest.
    configured: Revision,
}

impl Authority {
    fn covers(&self, tenant: &TenantName, ending: &EarlyEnding) -> bool {
        (*tenant == self.tenant && ending.reach.concerns(&self.audiences)) || sabotage::on("watch_for_anyone")
    }
}

/// One stream.
pub struct Watch {
    broker: Arc<Broker>,
    asked: BTreeSet<AudienceName>,
    authority: Authority,
    /// Everything up to here was queued.
    position: Revision,
    queue: VecDeque<Queued>,
    walking: JoinSet<Result<Look, Refusal>>,
    newest: watch::Receiver<Revision>,
    asking: Asking,
    bookmark: Option<Bookmark>,
}

enum Queued {
    /// A commit, of which so many endings were told, or are not to be told.
    Commit(Arc<Notice>, usize),
    Bookmark(Bookmark),
}

/// What lies behind a position.
struct Look {
    commits: Vec<Arc<Notice>>,
    /// The position that the commits lead to.
    reached: Revision,
}

impl Broker {
    /// Begins a stream. Its share is to be held for as long as anything of it may still be read.
    ///
    /// # Errors
    /// [`Refusal`] if the caller is nobody, does not enforce what it asks for, comes from elsewhere or has too many
    /// streams.
    pub fn watch(self: &Arc<Self>, caller: &Caller, ask: WatchAsk) -> Result<(Watch, Share), Refusal> {
        // 1. Who asks, and for what.
        let authority = self.authority(caller, &ask.audiences)?;

        // 2. From where.
        let head = self.table.journal().head();
        let position = match ask.cursor {
            None => Revision::ZERO,
            Some(Cursor { incarnation, .. }) if incarnation != head.incarnation => {
                let text = "the cursor is of another incarnation: begin without one";
                return Err(Refusal::new(Kind::Precondition, "incarnation_changed", text));
            }
            Some(Cursor { revision, .. }) if revision > head.durable => {
                return Err(Refusal::invalid("begin.cursor", "is from the future"));
            }
            // It may enforce more than it did when it was away, and was told nothing of that. Locks, which may be those of
            // other tenants, change nothing of it.
            Some(Cursor { revision, .. }) if ask.audiences.is_empty() && revision < authority.configured => {
                Revision::ZERO
            }
            Some(Cursor { revision, .. }) if sabotage::on("watch_repeats") => {
                Revision(revision.0.saturating_sub(1))
            }
            Some(Cursor { revision, .. }) => revision,
        };

        // 3. If there is room.
        let share = self.streams.take(caller.spiffe_id())?;
        let watch = Watch {
            broker: Arc::clone(self),
            asked: ask.audiences,
            asking: self.bookmarks.open(authority.tenant.clone()),
            authority,
            position,
            queue: VecDeque::new(),
            walking: JoinSet::new(),
            newest: self.table.notices().newest(),
            bookmark: None,
        };
        Ok((watch, share))
    }

    /// What a caller may be told now: of the audiences that it enforces, by the registry in force.
    fn authority(&self, caller: &Caller, asked: &BTreeSet<AudienceName>) -> Result<Authority, Refusal> {
        let now = self.clock.now();
        let in_force = self.table.in_force();
        let who = self.facts_of(caller, &in_force, now)?;
        let enforced = in_force.registry().enforced_by(&who.spiffe_id);
        if enforced.is_empty() || !asked.is_subset(&enforced) {
            let text = "the caller does not enforce the audience";
            return Err(Refusal::new(Kind::Denied, "not_enforcer", text));
        }
        let audiences = if asked.is_empty() { enforced } else { asked.clone() };
        let control = in_force.control.revision();
        let configured = if sabotage::on("locks_begin_streams_anew") { control } else { in_force.configured };
        Ok(Authority { tenant: who.tenant, audiences, control, configured })
    }

    /// Finds what ended behind a revision by a look at every tree.
    async fn walk(&self, authority: Authority, after: Revision) -> Result<Look, Refusal> {
        // 1. That is work, so only few do it at once, and none on a thread that serves calls.
        let turn = self.walk_turns.take(&authority.tenant).await;

        // 2. What is durable was folded before, so that the walk finds it. What comes later is left to the ring, or
        //    to another walk if the ring has lost it by then.
        let reached = self.table.journal().progress().durable();
        // By the issuing clock, which is never ahead, as in the ring.
        let now = self.clock.now().issue;
        let found = tokio::task::block_in_place(|| {
            self.table.read_all(|ledger, _| {
                let tenant = ledger.tenant();
                let mut found = ledger.early_endings_since(after, now);
                found.retain(|(revision, ending)| *revision <= reached && authority.covers(tenant, ending));
                (!found.is_empty()).then_some(found)
            })
        });
        drop(turn);

        // 3. In the order of the commits, each as a whole; as many as one stream may hold.
        let found = self.table.durable(found).await?;
        let mut commits = BTreeMap::<Revision, Vec<EarlyEnding>>::new();
        for (revision, ending) in found.into_iter().flatten() {
            commits.entry(revision).or_default().push(ending);
        }
        let mut look = Look { commits: Vec::new(), reached };
        let mut held = 0_usize;
        for (revision, endings) in commits {
            if held >= ENDINGS_MAX {
                look.reached = look.commits.last().map_or(after, |commit| commit.revision);
                break;
            }
            held = held.saturating_add(endings.len());
            let tenant = authority.tenant.clone();
            look.commits.push(Arc::new(Notice { revision, tenant, endings }));
        }
        Ok(look)
    }
}

impl Watch {
    /// Leaves a nonce for the next bookmark.
    pub fn ask(&self, nonce: Nonce) {
        self.asking.ask(nonce);
    }

    /// The control revision by which its caller may be told.
    #[must_use]
    pub const fn control(&self) -> Revision {
        self.authority.control
    }

    /// Looks again whether the caller may be told, by what is in force now.
    ///
    /// # Errors
    /// [`Refusal`] if it may not, or may be told more than before: what it was not told of cannot be made up for in
    /// the middle of a stream.
    pub fn authorise(&mut self, caller: &Caller) -> Result<(), Refusal> {
        let authority = self.broker.authority(caller, &self.asked)?;
        let before = &self.authority;
        if authority.tenant != before.tenant || !authority.audiences.is_subset(&before.audiences) {
            let text = "the caller enforces other audiences now: begin without a cursor";
            return Err(Refusal::new(Kind::Precondition, "audiences_changed", text));
        }
        self.authority = authority;
        Ok(())
    }

    /// Waits until there is something to tell that cannot be lost any more. May be dropped and begun again.
    ///
    /// # Errors
    /// [`Refusal`] if the journal is sealed.
    pub async fn ready(&mut self) -> Result<(), Refusal> {
        loop {
            match self.queue.front() {
                Some(Queued::Bookmark(_)) => return Ok(()),
                Some(Queued::Commit(commit, _)) => {
                    let durable = self.broker.table.journal().durable(commit.revision);
                    return Ok(durable.await.map(drop)?);
                }
                None => {}
            }

            // 1. A bookmark is taken before the look, so that the look sees everything up to it.
            if self.bookmark.is_none() {
                self.bookmark = self.asking.take();
            }
            if sabotage::on("bookmark_before_endings")
                && let Some(bookmark) = self.bookmark.take()
            {
                self.queue.push_back(Queued::Bookmark(bookmark));
                continue;
            }
            self.newest.borrow_and_update();

            // 2. What lies behind the position.
            let look = self.look().await?;
            let nothing = look.commits.is_empty();
            self.queue_up(look);

            // 3. If that is nothing, whatever comes next. What is not for this caller may stand before what is.
            if nothing && self.queue.is_empty() {
                tokio::select! {
                    _changed = self.newest.changed() => {}
                    () = self.asking.answered() => {}
                }
            }
        }
    }

    /// What is to be told next, if [`Self::ready`] has resolved and the caller may still be told of it.
    pub fn take(&mut self) -> Option<Told> {
        match self.queue.pop_front()? {
            Queued::Bookmark(bookmark) => Some(Told::Bookmark(Box::new(bookmark))),
            Queued::Commit(commit, from) => {
                let endings = commit.endings.iter().enumerate().skip(from);
                let mut covered = endings.filter(|(_, it)| self.authority.covers(&commit.tenant, it));
                let mut endings: Vec<_> =
                    covered.by_ref().take(ENDINGS_TOLD_MAX).map(|(_, it)| told(it)).collect();
                let rest = covered.next().map(|(next, _)| next);
                let (revision, more) = (commit.revision, rest.is_some());
                if sabotage::on("watch_splits") {
                    endings.truncate(1);
                } else if let Some(next) = rest {
                    // INVARIANT: nothing comes between the parts of a commit (W3).
                    self.queue.push_front(Queued::Commit(commit, next));
                }
                // A part that said that more will come has a last one, even if the caller may be told of less by then.
                let is_due = from > 0 || !endings.is_empty();
                is_due.then_some(Told::Endings(Endings { revision, endings, more }))
            }
        }
    }

    /// Looks behind the position: into the ring, or into the trees if the ring has lost some of it.
    async fn look(&mut self) -> Result<Look, Refusal> {
        if self.walking.is_empty() {
            // Before the ring is read: then it holds every notice up to there.
            let durable = self.broker.table.journal().progress().durable();
            let after = if sabotage::on("watch_skips") { self.position.next() } else { self.position };
            if let Some(commits) = self.broker.table.notices().after(after, COMMITS_MAX) {
                let last = commits.last().map_or(self.position, |last| last.revision);
                let all = commits.len() < COMMITS_MAX;
                let reached = if all { last.max(durable) } else { last };
                return Ok(Look { commits, reached });
            }
            let (broker, authority) = (Arc::clone(&self.broker), self.authority.clone());
            let after = self.position;
            self.walking.spawn(async move { broker.walk(authority, after).await });
        }
        // A task of its own keeps its turn while the stream looks after other things, and ends with the stream.
        match self.walking.join_next().await {
            Some(Ok(look)) => look,
            Some(Err(_)) | None => Err(Refusal::unavailable("walk_failed")),
        }
    }

    /// Queues what a look found, and a bookmark at its place in it.
    fn queue_up(&mut self, look: Look) {
        let Look { commits, reached } = look;
        for commit in commits {
            if let Some(bookmark) = self.bookmark.take_if(|it| it.cursor.revision < commit.revision) {
                self.queue.push_back(Queued::Bookmark(bookmark));
            }
            if !commit.endings.iter().any(|ending| self.authority.covers(&commit.tenant, ending)) {
                continue;
            }
            if sabotage::on("watch_disorders") {
                self.queue.push_front(Queued::Commit(commit, 0));
            } else {
                self.queue.push_back(Queued::Commit(commit, 0));
            }
        }
        self.position = self.position.max(reached);
        if let Some(bookmark) = self.bookmark.take_if(|it| it.cursor.revision <= self.position) {
            self.queue.push_back(Queued::Bookmark(bookmark));
        }
    }
}

fn told(ending: &EarlyEnding) -> ToldEnding {
    ToldEnding { ended: ending.ended, reason: ending.reason.clone(), until: ending.until }
}

#[cfg(test)]
mod tests;
