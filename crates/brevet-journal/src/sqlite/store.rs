//! The database: its schema, reading records with their chain, writing a batch.
//!
//! SQLite's write-ahead log with `synchronous = FULL`: a commit that returned is on the disk. One connection in
//! exclusive mode: no second process reads or writes, and no shared-memory file exists.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use brevet_core::digest::StateDigest;
use brevet_core::revision::{Incarnation, Revision};
use brevet_core::sabotage;
use brevet_core::time::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};
use thiserror::Error;

use crate::Record;
use crate::chain::{ChainHash, Link, sha256};
use crate::checkpoint::{Checkpoint, SignedCheckpoint};

/// The layout of the files in the state directory.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    pub(crate) database: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) mark: PathBuf,
    pub(crate) lock: PathBuf,
    pub(crate) reserve: PathBuf,
}

const SNAPSHOT_PREFIX: &str = "journal.snapshot-";

impl Files {
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            database: dir.join("journal.db"),
            log: dir.join("journal.db-wal"),
            mark: dir.join("journal.mark"),
            lock: dir.join("journal.lock"),
            reserve: dir.join("journal.reserve"),
        }
    }

    pub(crate) fn snapshot(&self, revision: Revision) -> PathBuf {
        self.dir.join(format!("{SNAPSHOT_PREFIX}{revision}"))
    }

    /// Removes the files of snapshots that the database has forgotten.
    pub(crate) fn remove_snapshots_except(&self, kept: &[Revision]) -> io::Result<()> {
        let kept: Vec<PathBuf> = kept.iter().map(|revision| self.snapshot(*revision)).collect();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let is_snapshot = path
                .file_name()
                .and_then(OsStr::to_str)
                .is_some_and(|name| name.starts_with(SNAPSHOT_PREFIX));
            if is_snapshot && !kept.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// What is wrong with a store, and where.
#[derive(Debug, Error)]
pub enum Damage {
    /// SQLite cannot read it.
    #[error("the database cannot be read")]
    Unreadable(#[from] rusqlite::Error),
    /// Its tables are not those that this version writes.
    #[error("the tables are not those of this format")]
    Schema,
    /// The row that names the format, the incarnation and the epoch does not match its digest.
    #[error("the identity of the store does not match its digest")]
    Identity,
    /// A record is missing.
    #[error("the record after revision {0} is missing")]
    Gap(Revision),
    /// A record is not what was written there.
    #[error("record {0} does not match its chain hash")]
    Chain(Revision),
    /// A checkpoint contradicts the chain.
    #[error("the checkpoint at revision {0} contradicts the chain")]
    Checkpoint(Revision),
    /// A checkpoint is not signed by any known key.
    #[error("the checkpoint at revision {0} is not signed by a known key")]
    Signature(Revision),
    /// A snapshot is missing, or does not match its digest or the chain.
    #[error("the snapshot at revision {0} is missing or does not match")]
    Snapshot(Revision),
    /// Both slots of the head mark are invalid, or the file is missing or not of its size.
    #[error("the head mark is missing or unreadable")]
    Mark,
    /// The head mark names another chain than the one that the store holds.
    #[error("the head mark at revision {0} is of another history")]
    History(Revision),
    /// Acknowledged records are missing at the end: an older copy, or a damaged write-ahead log.
    #[error(
        "the head mark is at revision {mark}, the database ends at {head}: acknowledged records are missing"
    )]
    Lost {
        /// What was acknowledged.
        mark: Revision,
        /// What is there.
        head: Revision,
    },
    /// The database is missing while what lay beside it is there.
    #[error("the database is missing, but {0} is there")]
    Missing(PathBuf),
}

/// Which store this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) incarnation: Incarnation,
    /// How often it was opened for writing.
    pub(crate) epoch: u64,
}

impl Identity {
    fn digest(self) -> [u8; 32] {
        sha256(&[
            b"brevet:Identity\0",
            &FORMAT.to_be_bytes(),
            &self.incarnation.0.to_be_bytes(),
            &self.epoch.to_be_bytes(),
        ])
    }
}

/// What the database says of a snapshot; its bytes are a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotRow {
    pub(crate) at: Link,
    pub(crate) digest: StateDigest,
}

const FORMAT: u64 = 1;

/// One statement a line; the text that SQLite keeps is compared with it byte for byte.
const SCHEMA: [&str; 4] = [
    "CREATE TABLE checkpoints (revision INTEGER PRIMARY KEY, chain BLOB NOT NULL, at INTEGER NOT NULL, key_id TEXT NOT NULL, signature BLOB NOT NULL)",
    "CREATE TABLE identity (id INTEGER PRIMARY KEY, format INTEGER NOT NULL, incarnation INTEGER NOT NULL, epoch INTEGER NOT NULL, digest BLOB NOT NULL)",
    "CREATE TABLE records (revision INTEGER PRIMARY KEY, chain BLOB NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE snapshots (revision INTEGER PRIMARY KEY, chain BLOB NOT NULL, digest BLOB NOT NULL)",
];

/// The open database.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
}

impl Store {
    /// Opens the database for writing; creates it, readable by its owner alone, if the file is missing.
    pub(crate) fn open(files: &Files) -> Result<Self, OpenStoreError> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&files.database) {
            Ok(file) => file.sync_all().and_then(|()| sync_dir(&files.dir))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        let store = Self::connect(Connection::open_with_flags(
            &files.database,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?)?;
        store.connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        let mode: String =
            store.connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(Damage::Schema.into());
        }
        store.connection.pragma_update(None, "synchronous", "FULL")?;
        store.connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES_MAX)?;
        Ok(store)
    }

    /// Opens a stopped store, or a copy of one, and changes nothing.
    pub(crate) fn open_read_only(files: &Files) -> Result<Self, OpenStoreError> {
        // An exclusive lock cannot be taken on a file that may only be read; the lock file says whether it is in use.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::connect(Connection::open_with_flags_and_vfs(&files.database, flags, c"unix-none")?)
    }

    fn connect(connection: Connection) -> Result<Self, OpenStoreError> {
        connection.busy_timeout(Duration::ZERO)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // After a refusal or a fault the log is evidence: it stays as it is unless the store is closed in order.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(Self { connection })
    }

    /// Creates the tables in one transaction, unless a file of this name held some already.
    pub(crate) fn create(&mut self) -> Result<(), Damage> {
        let tables: u32 =
            self.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 {
            return Ok(());
        }
        let identity = Identity { incarnation: random_incarnation()?, epoch: 0 };
        let transaction = self.connection.transaction()?;
        for statement in SCHEMA {
            transaction.execute_batch(statement)?;
        }
        write_identity(&transaction, identity)?;
        Ok(transaction.commit()?)
    }

    /// Checks the tables and reads which store this is.
    pub(crate) fn identity(&self) -> Result<Identity, Damage> {
        let mut statement = self.connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name")?;
        let tables =
            statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        if tables != SCHEMA {
            return Err(Damage::Schema);
        }
        let row = self
            .connection
            .query_row("SELECT format, incarnation, epoch, digest FROM identity WHERE id = 1", [], |row| {
                let identity =
                    Identity { incarnation: Incarnation(unsigned(row, 1)?), epoch: unsigned(row, 2)? };
                Ok((unsigned(row, 0)?, identity, row.get::<_, [u8; 32]>(3)?))
            })
            .optional()?;
        match row {
            Some((FORMAT, identity, digest)) if digest == identity.digest() => Ok(identity),
            _ => Err(Damage::Identity),
        }
    }

    /// Begins the next epoch.
    pub(crate) fn begin_epoch(&mut self, identity: Identity) -> Result<Identity, Damage> {
        let next = Identity { epoch: identity.epoch.saturating_add(1), ..identity };
        let transaction = self.connection.transaction()?;
        write_identity(&transaction, next)?;
        transaction.commit()?;
        Ok(next)
    }

    /// Reads records behind `from` in order, at most `limit`, and checks each against the chain. Returns the last.
    pub(crate) fn walk<E: From<Damage>>(
        &self,
        from: Link,
        limit: usize,
        mut each: impl FnMut(Link, &[u8]) -> Result<(), E>,
    ) -> Result<Link, E> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT revision, chain, body FROM records WHERE revision > ?1 ORDER BY revision LIMIT ?2",
            )
            .map_err(Damage::from)?;
        let mut rows = statement.query(params![signed(from.revision.0), limit]).map_err(Damage::from)?;
        let mut last = from;
        while let Some(row) = rows.next().map_err(Damage::from)? {
            let revision = Revision(unsigned(row, 0).map_err(Damage::from)?);
            if revision != last.revision.next() {
                return Err(Damage::Gap(last.revision).into());
            }
            let stored = chain_of(row, 1).map_err(Damage::from)?;
            let body = match row.get_ref(2).map_err(Damage::from)? {
                ValueRef::Blob(body) => body,
                _ => return Err(Damage::Chain(revision).into()),
            };
            if last.chain.link(revision, body) != stored && !sabotage::on("skip_chain_check") {
                return Err(Damage::Chain(revision).into());
            }
            last = Link { revision, chain: stored };
            each(last, body)?;
        }
        Ok(last)
    }

    /// The chain hash that is stored for a revision.
    pub(crate) fn chain_at(
        &self,
        revision: Revision,
        incarnation: Incarnation,
    ) -> Result<Option<ChainHash>, Damage> {
        if revision == Revision::ZERO {
            return Ok(Some(ChainHash::genesis(incarnation)));
        }
        let mut statement =
            self.connection.prepare_cached("SELECT chain FROM records WHERE revision = ?1")?;
        Ok(statement.query_row([signed(revision.0)], |row| chain_of(row, 0)).optional()?)
    }

    /// The first and the last revision that are there.
    pub(crate) fn ends(&self) -> Result<Option<(Revision, Revision)>, Damage> {
        let (first, last) = self.connection.query_row(
            "SELECT (SELECT min(revision) FROM records), (SELECT max(revision) FROM records)",
            [],
            |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)),
        )?;
        Ok(first
            .zip(last)
            .map(|(first, last)| (Revision(first.cast_unsigned()), Revision(last.cast_unsigned()))))
    }

    /// The checkpoints at or behind a revision, in order.
    pub(crate) fn checkpoints(
        &self,
        from: Revision,
        incarnation: Incarnation,
    ) -> Result<Vec<SignedCheckpoint>, Damage> {
        let mut statement = self.connection.prepare(
            "SELECT revision, chain, at, key_id, signature FROM checkpoints WHERE revision >= ?1 ORDER BY revision",
        )?;
        let rows = statement.query_map([signed(from.0)], |row| {
            Ok(SignedCheckpoint {
                checkpoint: Checkpoint {
                    incarnation,
                    revision: Revision(unsigned(row, 0)?),
                    head: chain_of(row, 1)?,
                    at: Timestamp::from_millis(unsigned(row, 2)?),
                },
                key_id: row.get(3)?,
                signature: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The snapshots, newest first.
    pub(crate) fn snapshots(&self) -> Result<Vec<SnapshotRow>, Damage> {
        let mut statement = self
            .connection
            .prepare("SELECT revision, chain, digest FROM snapshots ORDER BY revision DESC")?;
        let rows = statement.query_map([], |row| {
            Ok(SnapshotRow {
                at: Link { revision: Revision(unsigned(row, 0)?), chain: chain_of(row, 1)? },
                digest: StateDigest::from_bytes(row.get(2)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds a snapshot and forgets all but the newest `keep`, whose rows it returns.
    pub(crate) fn add_snapshot(&mut self, row: SnapshotRow, keep: usize) -> Result<Vec<SnapshotRow>, Damage> {
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "INSERT OR REPLACE INTO snapshots (revision, chain, digest) VALUES (?1, ?2, ?3)",
            params![signed(row.at.revision.0), row.at.chain.as_bytes(), row.digest.as_bytes()],
        )?;
        transaction.execute(
            "DELETE FROM snapshots WHERE revision NOT IN (SELECT revision FROM snapshots ORDER BY revision DESC LIMIT ?1)",
            [i64::try_from(keep).unwrap_or(i64::MAX)],
        )?;
        transaction.commit()?;
        self.snapshots()
    }

    /// Writes records and the checkpoint that closes them in one transaction. When this returns they are durable.
    pub(crate) fn commit(
        &mut self,
        records: &[Arc<Record>],
        checkpoint: Option<&SignedCheckpoint>,
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO records (revision, chain, body) VALUES (?1, ?2, ?3)")?;
            for record in records {
                insert.execute(params![signed(record.revision.0), record.chain.as_bytes(), record.body])?;
            }
        }
        if let Some(signed_by) = checkpoint {
            let Checkpoint { revision, head, at, .. } = signed_by.checkpoint;
            transaction.execute(
                "INSERT OR REPLACE INTO checkpoints (revision, chain, at, key_id, signature) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![signed(revision.0), head.as_bytes(), signed(at.millis()), signed_by.key_id, signed_by.signature],
            )?;
        }
        transaction.commit()
    }

    /// Moves the log into the database and closes it.
    pub(crate) fn close(self) -> rusqlite::Result<()> {
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        self.connection.close().map_err(|(_, error)| error)
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Why the database was not opened.
#[derive(Debug, Error)]
pub(crate) enum OpenStoreError {
    #[error("another process has the store open")]
    InUse,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Damaged(#[from] Damage),
}

impl From<rusqlite::Error> for OpenStoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse,
            _ => Self::Damaged(error.into()),
        }
    }
}

/// A commit of 64 records is a few pages of this size; with SQLite's 4,096 bytes it is dozens, and a third dearer.
const PAGE_BYTES: i64 = 16_384;

/// The log is moved into the database after this many pages, by the commit that fills it. Whoever waits for that commit
/// waits for all of them, so they are few. Until the log is full for the first time, its blocks are new, which costs a
/// change of the file's size at each commit; afterwards they are overwritten.
const WAL_PAGES_MAX: i64 = 250;

/// Makes a new name in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn random_incarnation() -> Result<Incarnation, Damage> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Damage::Identity)?;
    // 53 bits, so that every reader of JSON gets it whole.
    Ok(Incarnation(u64::from_be_bytes(bytes) >> 11))
}

fn write_identity(connection: &Connection, identity: Identity) -> rusqlite::Result<usize> {
    connection.execute(
        "INSERT OR REPLACE INTO identity (id, format, incarnation, epoch, digest) VALUES (1, ?1, ?2, ?3, ?4)",
        params![signed(FORMAT), signed(identity.incarnation.0), signed(identity.epoch), identity.digest()],
    )
}

/// SQLite's integers are signed; every number here is below 2^63 unless the file is damaged.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

fn chain_of(row: &Row<'_>, column: usize) -> rusqlite::Result<ChainHash> {
    Ok(ChainHash::from_bytes(row.get(column)?))
}
