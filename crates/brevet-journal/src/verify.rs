//! Offline verification of a stopped store, or of a copy, by somebody who has nothing but the public key.
//!
//! The chain shows any edit, deletion or reordering before its end; the checkpoints show who vouches for that end; a
//! checkpoint that the auditor brought shows a truncation, and a chain that was rewritten whole and signed anew.

use std::io;
use std::path::{Path, PathBuf};

use brevet_core::revision::{Incarnation, Revision};
use thiserror::Error;

use crate::chain::{ChainHash, Link};
use crate::checkpoint::{Checkpoint, CheckpointKey};
use crate::sqlite::Damage;
use crate::sqlite::mark;
use crate::sqlite::recovery::{is_in_use, load_snapshot};
use crate::sqlite::store::{Files, OpenStoreError, Store};

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyReport {
    /// The life of the journal.
    pub incarnation: Incarnation,
    /// The newest revision; as many records are there.
    pub head: Revision,
    /// Its chain hash.
    pub chain: ChainHash,
    /// How many checkpoints are there, each signed by a given key.
    pub checkpoints: u64,
    /// The newest of them: up to its revision a key vouches for every record. What is newer is only chained.
    pub vouched: Option<Checkpoint>,
    /// What the head mark says was acknowledged; absent if the copy has none.
    pub acknowledged: Option<Revision>,
}

/// Why a store is not what its keys vouch for.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// A daemon has it open: stop it, or verify a copy.
    #[error("another process has the store in {0} open")]
    InUse(PathBuf),
    /// It is not what was written.
    #[error("the store is damaged")]
    Damaged(#[from] Damage),
    /// It ends before a checkpoint that the auditor holds.
    #[error("the store ends at revision {head}, before the checkpoint at {expected}")]
    Truncated {
        /// What the auditor holds.
        expected: Revision,
        /// What is there.
        head: Revision,
    },
    /// It holds another history than the checkpoint that the auditor holds.
    #[error("the store contradicts the checkpoint at revision {0}")]
    Contradicted(Revision),
    /// The files cannot be read.
    #[error("cannot read the store")]
    Io(#[from] io::Error),
}

impl From<OpenStoreError> for VerifyError {
    fn from(error: OpenStoreError) -> Self {
        match error {
            OpenStoreError::InUse => Self::InUse(PathBuf::new()),
            OpenStoreError::Io(error) => Self::Io(error),
            OpenStoreError::Damaged(damage) => Self::Damaged(damage),
        }
    }
}

/// Verifies every record, checkpoint and snapshot of a store, and its head mark if there is one.
///
/// `keys` are all the keys that ever signed checkpoints of this store; `expected` is a checkpoint (or a bookmark's
/// head) that the auditor got earlier and from elsewhere, its signature already verified.
///
/// # Errors
/// [`VerifyError`] with the first place at which the store is not what the keys vouch for.
pub fn verify(
    dir: &Path,
    keys: &[CheckpointKey],
    expected: Option<Checkpoint>,
) -> Result<VerifyReport, VerifyError> {
    let files = Files::of(&dir.canonicalize()?);
    if is_in_use(&files.lock)? {
        return Err(VerifyError::InUse(dir.to_owned()));
    }
    if !files.database.try_exists()? {
        return Err(io::Error::from(io::ErrorKind::NotFound).into());
    }
    let store = Store::open_read_only(&files).map_err(|error| match error {
        OpenStoreError::InUse => VerifyError::InUse(dir.to_owned()),
        other => other.into(),
    })?;
    let incarnation = store.identity()?.incarnation;
    if let Some((first, _)) = store.ends()?
        && first != Revision(1)
    {
        return Err(Damage::Gap(Revision::ZERO).into());
    }
    let head = store.walk(Link::genesis(incarnation), usize::MAX, |_, _| Ok::<_, Damage>(()))?;

    let checkpoints = store.checkpoints(Revision::ZERO, incarnation)?;
    for signed in &checkpoints {
        let Checkpoint { revision, head, .. } = signed.checkpoint;
        if store.chain_at(revision, incarnation)? != Some(head) {
            return Err(Damage::Checkpoint(revision).into());
        }
        if !signed.is_signed_by(keys) {
            return Err(Damage::Signature(revision).into());
        }
    }
    for row in store.snapshots()? {
        load_snapshot(&store, &files, row, incarnation)?;
    }
    let acknowledged = check_mark(&store, &files, incarnation, head)?;
    if let Some(expected) = expected {
        check_expected(&store, incarnation, head, expected)?;
    }
    Ok(VerifyReport {
        incarnation,
        head: head.revision,
        chain: head.chain,
        checkpoints: checkpoints.len() as u64,
        vouched: checkpoints.last().map(|signed| signed.checkpoint),
        acknowledged,
    })
}

fn check_mark(
    store: &Store,
    files: &Files,
    incarnation: Incarnation,
    head: Link,
) -> Result<Option<Revision>, VerifyError> {
    if !files.mark.try_exists()? {
        return Ok(None);
    }
    let mark = mark::read(&files.mark)?.ok_or(Damage::Mark)?.mark;
    let Link { revision, chain } = mark.acknowledged;
    if revision > head.revision {
        return Err(Damage::Lost { mark: revision, head: head.revision }.into());
    }
    if mark.incarnation != incarnation || store.chain_at(revision, incarnation)? != Some(chain) {
        return Err(Damage::History(revision).into());
    }
    Ok(Some(revision))
}

fn check_expected(
    store: &Store,
    incarnation: Incarnation,
    head: Link,
    expected: Checkpoint,
) -> Result<(), VerifyError> {
    if expected.revision > head.revision {
        return Err(VerifyError::Truncated { expected: expected.revision, head: head.revision });
    }
    let agrees = expected.incarnation == incarnation
        && store.chain_at(expected.revision, incarnation)? == Some(expected.head);
    if agrees { Ok(()) } else { Err(VerifyError::Contradicted(expected.revision)) }
}
