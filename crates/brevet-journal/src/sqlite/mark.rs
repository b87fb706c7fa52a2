//! The head mark: the last acknowledged revision and its chain hash, in a small file beside the database.
//!
//! SQLite cannot tell a damaged acknowledged frame of its log from a torn tail, and opens cleanly with fewer commits.
//! The mark can. It is written after a commit and before its answers, so a process that is killed leaves it exact. It
//! is synced after every [`UNSYNCED_MAX`] commits, and when the journal comes to rest: after a loss of power it may be
//! that many commits behind, never ahead. Two slots take turns, each in a block of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use brevet_core::revision::{Incarnation, Revision};

use crate::chain::{ChainHash, Link, sha256};
use crate::sqlite::store::sync_dir;

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) incarnation: Incarnation,
    pub(crate) acknowledged: Link,
}

/// After how many commits the mark is synced: that costs as much as one of them, and what an older mark fails to show
/// takes both, a loss of power and damage to the commits just before it.
pub(crate) const UNSYNCED_MAX: u32 = 16;

const SLOT: u64 = 4096;
const SIZE: u64 = 2 * SLOT;
const MAGIC: &[u8; 8] = b"BRVTMRK1";
const MARK_BYTES: usize = 88;

impl Mark {
    fn to_bytes(self) -> [u8; MARK_BYTES] {
        let incarnation = self.incarnation.0.to_be_bytes();
        let revision = self.acknowledged.revision.0.to_be_bytes();
        let chain = self.acknowledged.chain;
        let sum = sha256(&[MAGIC, &incarnation, &revision, chain.as_bytes()]);
        let parts = [MAGIC.as_slice(), &incarnation, &revision, chain.as_bytes(), &sum];
        let mut bytes = [0; MARK_BYTES];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
        let (_, rest) = bytes.split_first_chunk::<8>()?;
        let (incarnation, rest) = rest.split_first_chunk()?;
        let (revision, rest) = rest.split_first_chunk()?;
        let (chain, _) = rest.split_first_chunk()?;
        let mark = Self {
            incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
            acknowledged: Link {
                revision: Revision(u64::from_be_bytes(*revision)),
                chain: ChainHash::from_bytes(*chain),
            },
        };
        (mark.to_bytes() == *bytes).then_some(mark)
    }
}

/// A mark as it was found in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) mark: Mark,
    in_second_slot: bool,
}

/// Reads the newest valid slot. `None` if the file is not of its size or no slot is valid.
pub(crate) fn read(path: &Path) -> io::Result<Option<Found>> {
    let file = File::open(path)?;
    if file.metadata()?.len() != SIZE {
        return Ok(None);
    }
    let slot = |offset| -> io::Result<Option<Found>> {
        let mut bytes = [0; MARK_BYTES];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(Mark::from_bytes(&bytes).map(|mark| Found { mark, in_second_slot: offset > 0 }))
    };
    let slots = [slot(0)?, slot(SLOT)?];
    Ok(slots.into_iter().flatten().max_by_key(|found| found.mark.acknowledged.revision))
}

/// Creates the file in one step: it is there whole or not at all.
pub(crate) fn create(path: &Path, mark: Mark) -> io::Result<Found> {
    let mut bytes = mark.to_bytes().to_vec();
    bytes.resize(usize::try_from(SIZE).unwrap_or(0), 0);
    write_whole(path, &bytes)?;
    Ok(Found { mark, in_second_slot: false })
}

/// Writes a file, readable by its owner alone, under another name, and gives it its name when it is durable.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Writes marks into one slot until they are synced, then into the other.
#[derive(Debug)]
pub(crate) struct Marker {
    incarnation: Incarnation,
    file: File,
    second_slot: bool,
    /// Marks written since the last sync.
    unsynced: u32,
}

impl Marker {
    /// Takes over the file and has it say where the store begins now.
    pub(crate) fn open(path: &Path, found: Found, now: Link) -> io::Result<Self> {
        let mut marker = Self {
            incarnation: found.mark.incarnation,
            file: OpenOptions::new().write(true).open(path)?,
            // INVARIANT: the slot that is overwritten is never the one that holds the newest synced mark.
            second_slot: !found.in_second_slot,
            unsynced: 0,
        };
        // The newest mark that was found may be in the system's memory only.
        marker.file.sync_data()?;
        marker.acknowledge(now)?;
        marker.sync()?;
        Ok(marker)
    }

    /// Writes the mark of a commit.
    pub(crate) fn acknowledge(&mut self, acknowledged: Link) -> io::Result<()> {
        let mark = Mark { incarnation: self.incarnation, acknowledged };
        self.file.write_all_at(&mark.to_bytes(), if self.second_slot { SLOT } else { 0 })?;
        self.unsynced += 1;
        Ok(())
    }

    /// Whether every mark is durable.
    pub(crate) const fn is_synced(&self) -> bool {
        self.unsynced == 0
    }

    /// Whether as many marks were written as may be without a sync.
    pub(crate) const fn is_due(&self) -> bool {
        self.unsynced >= UNSYNCED_MAX
    }

    /// Makes the newest mark durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced > 0 {
            self.file.sync_data()?;
            self.unsynced = 0;
            self.second_slot = !self.second_slot;
        }
        Ok(())
    }
}
