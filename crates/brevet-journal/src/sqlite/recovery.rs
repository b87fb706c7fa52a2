//! Opening a store: every doubt about what it holds is a refusal to start, with its place.
//!
//! Three steps, each consuming the one before: [`Sqlite::open`] takes the locks and compares the store with its head
//! mark, [`Recovery::replay`] hands out every record behind the newest snapshot and checks the chain on the way,
//! and only what was replayed whole can be started.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brevet_core::digest::StateDigest;
use brevet_core::revision::{Incarnation, Revision};
use brevet_core::sabotage;
use nix::unistd::geteuid;
use thiserror::Error;

use crate::chain::{ChainHash, Link};
use crate::checkpoint::CheckpointSigner;
use crate::sqlite::mark::{self, Found, Mark, Marker};
use crate::sqlite::space::Reserve;
use crate::sqlite::store::{Damage, Files, Identity, OpenStoreError, SnapshotRow, Store};
use crate::sqlite::writer::Writer;
use crate::sqlite::{Clock, Options, Sqlite};

/// Why a store was not opened. Nothing was changed in it.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or another handle of this one, has it open.
    #[error("another process has the store in {0} open")]
    InUse(PathBuf),
    /// Somebody else could put other files in the place of these.
    #[error("{0} may be written by others, or its files read by others")]
    Exposed(PathBuf),
    /// The store does not hold what was written.
    #[error("the store in {dir} is damaged")]
    Damaged {
        /// Where the store is.
        dir: PathBuf,
        /// What is wrong, and where.
        #[source]
        damage: Damage,
    },
    /// The caller could not use a record.
    #[error("cannot replay record {revision}")]
    Replay {
        /// Its place.
        revision: Revision,
        /// What the caller said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk, or the system, refused.
    #[error("cannot open the store in {dir}")]
    Io {
        /// Where the store is.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The checkpoint of the start could not be recorded.
    #[error("cannot record the checkpoint of the start")]
    Checkpoint,
}

/// The state as it was kept at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision up to which it holds everything.
    pub revision: Revision,
    /// The digest of the bytes, which a record of the chain should name.
    pub digest: StateDigest,
    /// The bytes.
    pub state: Vec<u8>,
}

/// A record as it is replayed.
#[derive(Debug, Clone, Copy)]
pub struct Replayed<'a> {
    /// Its place.
    pub revision: Revision,
    /// Its chain hash.
    pub chain: ChainHash,
    /// Its bytes.
    pub body: &'a [u8],
}

/// A store that is locked, and whose records are not read yet.
#[derive(Debug)]
pub struct Recovery {
    options: Options,
    files: Files,
    store: Store,
    lock: Lock,
    identity: Identity,
    found: Found,
    base: Link,
    snapshot: Option<Snapshot>,
}

/// A store whose records were all read and hang together.
#[derive(Debug)]
pub struct Verified {
    options: Options,
    files: Files,
    store: Store,
    lock: Lock,
    identity: Identity,
    found: Found,
    head: Link,
    last_checkpoint: Revision,
}

impl Sqlite {
    /// Takes the store in a state directory for this process; creates it if there is none.
    ///
    /// # Errors
    /// [`OpenError`]: in use, exposed to others, or not what was written.
    pub fn open(options: Options) -> Result<Recovery, OpenError> {
        let dir = options.dir.clone();
        let io_error = |source| OpenError::Io { dir: dir.clone(), source };
        let damaged = |damage| OpenError::Damaged { dir: dir.clone(), damage };
        let files = Files::of(&fs::canonicalize(&dir).map_err(io_error)?);
        check_exposure(&files).map_err(io_error)??;
        let lock = take_lock(&files).map_err(io_error)?.ok_or_else(|| OpenError::InUse(dir.clone()))?;
        if !files.database.try_exists().map_err(io_error)? {
            for left in [&files.mark, &files.log] {
                if left.try_exists().map_err(io_error)? {
                    return Err(damaged(Damage::Missing(left.clone())));
                }
            }
        }
        let mut store = Store::open(&files).map_err(|error| match error {
            OpenStoreError::InUse => OpenError::InUse(dir.clone()),
            OpenStoreError::Io(source) => io_error(source),
            OpenStoreError::Damaged(damage) => damaged(damage),
        })?;
        // A mark beside a database without tables belongs to a database that is gone.
        if !files.mark.try_exists().map_err(io_error)? {
            store.create().map_err(damaged)?;
        }
        let identity = store.identity().map_err(damaged)?;
        let found = compare_mark(&store, &files, identity.incarnation, damaged, io_error)?;
        let (base, snapshot) = match store.snapshots().map_err(damaged)?.first() {
            None => (Link::genesis(identity.incarnation), None),
            Some(row) => {
                let snapshot = load_snapshot(&store, &files, *row, identity.incarnation).map_err(damaged)?;
                (row.at, Some(snapshot))
            }
        };
        Ok(Recovery { options, files, store, lock, identity, found, base, snapshot })
    }
}

impl Recovery {
    /// The life of the journal.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// The newest snapshot. Its bytes match the digest beside them; the caller compares it with the chain's.
    #[must_use]
    pub const fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Leaves the snapshot aside, for a program that cannot read it: every record is replayed.
    #[must_use]
    pub fn from_the_first_record(self) -> Self {
        Self { base: Link::genesis(self.identity.incarnation), snapshot: None, ..self }
    }

    /// Hands out every record behind the snapshot in order, each checked against the chain.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] at the first record that is missing or not what was written, [`OpenError::Replay`] if
    /// the caller cannot use one.
    pub fn replay<E>(self, mut fold: impl FnMut(Replayed<'_>) -> Result<(), E>) -> Result<Verified, OpenError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { options, files, store, lock, identity, found, base, snapshot: _ } = self;
        let damaged = |damage| OpenError::Damaged { dir: options.dir.clone(), damage };
        let checkpoints = store.checkpoints(base.revision, identity.incarnation).map_err(damaged)?;
        let mut stated: BTreeMap<Revision, ChainHash> =
            checkpoints.iter().map(|signed| (signed.checkpoint.revision, signed.checkpoint.head)).collect();
        let last_checkpoint = stated.last_key_value().map_or(Revision::ZERO, |(revision, _)| *revision);
        let check = |stated: &mut BTreeMap<Revision, ChainHash>, link: Link| {
            let agrees = stated.remove(&link.revision).is_none_or(|head| head == link.chain);
            if agrees { Ok(()) } else { Err(Damage::Checkpoint(link.revision)) }
        };
        check(&mut stated, base).map_err(damaged)?;
        let head = store
            .walk(base, usize::MAX, |link, body| {
                check(&mut stated, link)?;
                fold(Replayed { revision: link.revision, chain: link.chain, body })
                    .map_err(|source| Halt::Replay(link.revision, source.into()))
            })
            .map_err(|halt| match halt {
                Halt::Damaged(damage) => damaged(damage),
                Halt::Replay(revision, source) => OpenError::Replay { revision, source },
            })?;
        if let Some(revision) = stated.keys().next() {
            return Err(damaged(Damage::Checkpoint(*revision)));
        }
        Ok(Verified { options, files, store, lock, identity, found, head, last_checkpoint })
    }
}

impl Verified {
    /// The newest revision.
    #[must_use]
    pub const fn head(&self) -> Revision {
        self.head.revision
    }

    /// Begins a new epoch and starts the thread that writes. `control` is the newest control change that the replay
    /// found. Records that came since the last checkpoint are closed with one.
    ///
    /// # Errors
    /// [`OpenError`] if the disk refuses or the checkpoint cannot be signed.
    pub fn start(
        self,
        control: Revision,
        signer: Arc<dyn CheckpointSigner>,
        clock: Clock,
    ) -> Result<Sqlite, OpenError> {
        let (options, files) = (self.options.clone(), self.files.clone());
        let mut writer = self.into_writer(signer, clock)?;
        writer.checkpoint().map_err(|error| {
            tracing::error!(%error, "cannot record the checkpoint of the start");
            OpenError::Checkpoint
        })?;
        let io_error = |source| OpenError::Io { dir: options.dir.clone(), source };
        Sqlite::run(writer, &options, files, control).map_err(io_error)
    }

    /// Begins a new epoch.
    pub(crate) fn into_writer(
        self,
        signer: Arc<dyn CheckpointSigner>,
        clock: Clock,
    ) -> Result<Writer, OpenError> {
        let Self { options, files, mut store, lock, identity, found, head, last_checkpoint } = self;
        let io_error = |source| OpenError::Io { dir: options.dir.clone(), source };
        let damaged = |damage| OpenError::Damaged { dir: options.dir.clone(), damage };
        let identity = store.begin_epoch(identity).map_err(damaged)?;
        let marker = Marker::open(&files.mark, found, head).map_err(io_error)?;
        let reserve = Reserve::new(options.space.clone(), files.reserve.clone(), options.reserve_bytes);
        Ok(Writer {
            store,
            marker,
            reserve,
            signer,
            clock,
            identity,
            head,
            last_checkpoint,
            checkpoint_records: options.checkpoint_records.max(1),
            _lock: lock,
        })
    }
}

enum Halt {
    Damaged(Damage),
    Replay(Revision, Box<dyn std::error::Error + Send + Sync>),
}

impl From<Damage> for Halt {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// Nobody but this user, or root, may replace files in the directory, and nobody else may read or write ours.
fn check_exposure(files: &Files) -> io::Result<Result<(), OpenError>> {
    let dir = fs::metadata(&files.dir)?;
    if !dir.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let own = |owner: u32| owner == geteuid().as_raw() || owner == 0;
    if dir.permissions().mode() & 0o022 != 0 || !own(dir.uid()) {
        return Ok(Err(OpenError::Exposed(files.dir.clone())));
    }
    for path in [&files.database, &files.log, &files.mark, &files.lock, &files.reserve] {
        match fs::symlink_metadata(path) {
            Ok(file) if !file.is_file() || file.permissions().mode() & 0o077 != 0 || !own(file.uid()) => {
                return Ok(Err(OpenError::Exposed(path.clone())));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(()))
}

/// The lock of a state directory.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being spawned holds a copy of the descriptor until it execs.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot give up the lock of the state directory");
        }
    }
}

fn take_lock(files: &Files) -> io::Result<Option<Lock>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&files.lock)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Refuses a store that ends before what was acknowledged, or that holds another history.
fn compare_mark(
    store: &Store,
    files: &Files,
    incarnation: Incarnation,
    damaged: impl Fn(Damage) -> OpenError,
    io_error: impl Fn(io::Error) -> OpenError,
) -> Result<Found, OpenError> {
    let ends = store.ends().map_err(&damaged)?;
    let head = match ends {
        None => Revision::ZERO,
        Some((Revision(1), last)) => last,
        Some(_) => return Err(damaged(Damage::Gap(Revision::ZERO))),
    };
    if ends.is_none() && !files.mark.try_exists().map_err(&io_error)? {
        let mark = Mark { incarnation, acknowledged: Link::genesis(incarnation) };
        return mark::create(&files.mark, mark).map_err(io_error);
    }
    let found = match mark::read(&files.mark) {
        Ok(found) => found.ok_or_else(|| damaged(Damage::Mark))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged(Damage::Mark)),
        Err(error) => return Err(io_error(error)),
    };
    let acknowledged = found.mark.acknowledged;
    // INVARIANT: what was acknowledged is there, or there is no start.
    if sabotage::on("ignore_head_mark") {
        return Ok(found);
    }
    if found.mark.incarnation != incarnation {
        return Err(damaged(Damage::History(acknowledged.revision)));
    }
    if acknowledged.revision > head {
        return Err(damaged(Damage::Lost { mark: acknowledged.revision, head }));
    }
    match store.chain_at(acknowledged.revision, incarnation).map_err(&damaged)? {
        Some(chain) if chain == acknowledged.chain => Ok(found),
        _ => Err(damaged(Damage::History(acknowledged.revision))),
    }
}

/// Loads a snapshot that matches its digest and stands where the chain says.
pub(crate) fn load_snapshot(
    store: &Store,
    files: &Files,
    row: SnapshotRow,
    incarnation: Incarnation,
) -> Result<Snapshot, Damage> {
    let revision = row.at.revision;
    let state = fs::read(files.snapshot(revision)).map_err(|_| Damage::Snapshot(revision))?;
    let on_chain = store.chain_at(revision, incarnation)? == Some(row.at.chain);
    if on_chain && StateDigest::of(&[&state]) == row.digest {
        Ok(Snapshot { revision, digest: row.digest, state })
    } else {
        Err(Damage::Snapshot(revision))
    }
}

/// Whether another process has the store open. Takes nothing and creates nothing.
pub(crate) fn is_in_use(lock: &Path) -> io::Result<bool> {
    match File::open(lock) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
