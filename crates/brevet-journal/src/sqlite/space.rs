//! Free space, looked at before it is gone: what grows is refused while endings, locks and denials still fit.
//!
//! Two walls. While less than the reserve is free, entries that grow are refused. When even that runs out, a file of
//! the same size is removed, and the endings that are still to come take its place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs};

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

/// Answers how many bytes are free for this process on the file system of a path.
#[derive(Clone)]
pub struct SpaceProbe(Arc<Probe>);

type Probe = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

impl SpaceProbe {
    /// A probe that answers as a closure does.
    pub fn new(probe: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(probe))
    }
}

/// Asks the file system.
impl Default for SpaceProbe {
    fn default() -> Self {
        Self::new(|path| {
            let answer = statvfs(path)?;
            Ok(answer.blocks_available().saturating_mul(answer.fragment_size()))
        })
    }
}

impl fmt::Debug for SpaceProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpaceProbe")
    }
}

/// The reserve in the state directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    probe: SpaceProbe,
    path: PathBuf,
    bytes: u64,
    held: bool,
    given_up: bool,
}

impl Reserve {
    pub(crate) fn new(probe: SpaceProbe, path: PathBuf, bytes: u64) -> Self {
        let held = bytes == 0 || fs::metadata(&path).is_ok_and(|found| found.len() == bytes);
        Self { probe, path, bytes, held, given_up: false }
    }

    /// Looks at the disk: whether there is room for what grows. Takes or gives up the reserve as that asks for.
    pub(crate) fn look(&mut self) -> bool {
        let free = match (self.probe.0)(&self.path.parent().map_or_else(PathBuf::new, Path::to_owned)) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "cannot learn how much space is free");
                return false;
            }
        };
        if self.held {
            if free < self.bytes / 4 {
                self.release();
            }
        } else if free / 3 >= self.bytes {
            // Twice the reserve must stay free behind it, or it would be taken and given up in turns.
            self.take();
        }
        self.held && free >= self.bytes
    }

    /// Whether the disk is so full that the reserve was given up for what ends.
    pub(crate) const fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Gives up the reserve. Returns whether there was one.
    pub(crate) fn release(&mut self) -> bool {
        if !self.held || self.bytes == 0 {
            return false;
        }
        self.held = false;
        self.given_up = true;
        tracing::error!(path = %self.path.display(), "the disk is full: the reserve is given up for endings");
        match fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "cannot give up the reserve");
                false
            }
        }
    }

    fn take(&mut self) {
        match self.allocate() {
            Ok(()) => {
                self.held = true;
                self.given_up = false;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take the reserve");
                // What was allocated of it would only use up the space it is meant to keep.
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::warn!(%error, "cannot remove the part of the reserve that was taken");
                }
            }
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        posix_fallocate(&file, 0, i64::try_from(self.bytes).unwrap_or(i64::MAX))?;
        file.sync_all()
    }
}
