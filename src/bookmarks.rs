//! The desk at which streams of revocations leave their nonces and get bookmarks.
//!
//! Once a second, if any nonce waits, one statement of where the journal is durable is signed for all of them: 10,000
//! streams cost one signature. Each stream gets the path of its own nonce.
//!
//! A bookmark says that everything up to its revision was told. So a stream gets none while a lock that was created up
//! to there has killed what has no ending of its own yet: those endings come with the lock's sweep, and until then its
//! verifier had better take nothing for live. A lock of one tenant holds up the streams of that tenant alone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brevet_core::bookmark::{Bookmark, Nonce, Statement};
use brevet_core::merkle::Tree;
use brevet_core::name::TenantName;
use brevet_core::revision::Cursor;
use brevet_core::sabotage;
use brevet_core::time::Timestamp;
use brevet_journal::Link;
use brevet_mint::key::{self, PublicJwk, SigningFailed, SigningKey};
use ring::rand::SystemRandom;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::broker::Broker;
use crate::table::Table;

/// How long there is between two statements.
const PERIOD: Duration = Duration::from_secs(1);

/// The desk.
#[derive(Debug)]
pub struct Bookmarks {
    key: SigningKey<key::Bookmarks>,
    rng: SystemRandom,
    waiting: Mutex<Waiting>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    /// Of each tenant, the newest nonce of each stream that waits, and where the answer goes.
    nonces: BTreeMap<TenantName, BTreeMap<u64, (Nonce, Answer)>>,
}

type Answer = watch::Sender<Option<Bookmark>>;

/// A stream's place at the desk.
#[derive(Debug)]
pub struct Asking {
    desk: Arc<Bookmarks>,
    tenant: TenantName,
    id: u64,
    answer: Answer,
    answered: watch::Receiver<Option<Bookmark>>,
}

impl Bookmarks {
    /// A desk that signs with this key.
    #[must_use]
    pub fn new(key: SigningKey<key::Bookmarks>, rng: SystemRandom) -> Arc<Self> {
        Arc::new(Self { key, rng, waiting: Mutex::default(), asked: Notify::new() })
    }

    /// The public half of the key.
    #[must_use]
    pub const fn public_jwk(&self) -> &PublicJwk {
        self.key.public_jwk()
    }

    /// A place for one stream of a tenant.
    #[must_use]
    pub fn open(self: &Arc<Self>, tenant: TenantName) -> Asking {
        let (answer, answered) = watch::channel(None);
        let mut waiting = self.lock();
        waiting.last = waiting.last.wrapping_add(1);
        Asking { desk: Arc::clone(self), tenant, id: waiting.last, answer, answered }
    }

    /// Answers by one statement every nonce whose tenant is to be told of nothing more up to the durable head. Returns
    /// how many there were; the others wait.
    ///
    /// # Errors
    /// [`SigningFailed`]; then the nonces are gone, and newer ones will come.
    pub fn answer(&self, table: &Table, judge: impl FnOnce() -> Timestamp) -> Result<usize, SigningFailed> {
        // 1. The nonces first, so that all of the statement is newer than they are.
        let mut waiting = self.lock();
        let Link { revision, chain } = table.journal().durable_head();
        // INVARIANT: looked at in this order. What was durable has been folded before, so that control as it is seen now
        // contains every lock up to the head that was not swept by then.
        let in_force = table.in_force();
        let settled = in_force.control.settled(revision);
        let is_told = |tenant: &TenantName| settled(tenant) || sabotage::on("bookmark_before_sweep");
        let answered = waiting.nonces.extract_if(.., |tenant, _| is_told(tenant));
        let nonces: Vec<_> = answered.flat_map(|(_, nonces)| nonces.into_values()).collect();
        drop(waiting);

        // 2. One statement for all of them.
        let tree = Tree::over(nonces.iter().map(|(nonce, _)| nonce.as_bytes()));
        let (Some(tree), Ok(nonce_count)) = (tree, u32::try_from(nonces.len())) else { return Ok(0) };
        let cursor = Cursor { incarnation: table.journal().incarnation(), revision };
        let (chain, judge_time) = (*chain.as_bytes(), judge());
        let statement = Statement { cursor, chain, judge_time, root: tree.root() };
        let signature = self.key.sign(&statement, &self.rng)?;

        // 3. To each its own path.
        for (nonce_index, (nonce, answer)) in (0..nonce_count).zip(nonces) {
            let nonce_path = tree.path(usize::try_from(nonce_index).unwrap_or(usize::MAX));
            let key_id = self.key.kid().clone();
            answer.send_replace(Some(Bookmark {
                cursor,
                chain,
                judge_time,
                nonce,
                nonce_index,
                nonce_count,
                nonce_path,
                key_id,
                signature,
            }));
        }
        usize::try_from(nonce_count).map_err(|_| SigningFailed)
    }

    /// Resolves when a nonce waits.
    async fn asked(&self) {
        while self.lock().nonces.is_empty() {
            // A nonce that came since the look has left a permit.
            self.asked.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    /// Leaves a nonce, in the place of an older one that still waits.
    pub fn ask(&self, nonce: Nonce) {
        let asked = (nonce, self.answer.clone());
        self.desk.lock().nonces.entry(self.tenant.clone()).or_default().insert(self.id, asked);
        self.desk.asked.notify_one();
    }

    /// The newest bookmark, once.
    pub fn take(&mut self) -> Option<Bookmark> {
        if self.answered.has_changed().unwrap_or(false) {
            self.answered.borrow_and_update().clone()
        } else {
            None
        }
    }

    /// Resolves when there is another bookmark.
    pub async fn answered(&mut self) {
        // It stays unseen for `take`. The sender lives as long as this does.
        let _open = self.answered.changed().await;
        self.answered.mark_changed();
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut waiting = self.desk.lock();
        let Some(of_tenant) = waiting.nonces.get_mut(&self.tenant) else { return };
        of_tenant.remove(&self.id);
        if of_tenant.is_empty() {
            waiting.nonces.remove(&self.tenant);
        }
    }
}

/// Answers nonces for as long as the daemon lives.
pub async fn run(broker: Arc<Broker>) -> Infallible {
    loop {
        broker.bookmarks.asked().await;
        if let Err(problem) = broker.bookmarks.answer(&broker.table, || broker.clock.now().judge) {
            warn!(%problem, "no bookmarks could be signed");
        }
        broker.clock.sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests;
