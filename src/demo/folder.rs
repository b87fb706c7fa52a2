//! The folder of one demo.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use super::Problem;

/// A folder that is removed when it is dropped, unless it was given or is to be kept.
pub(super) struct Folder {
    path: PathBuf,
    remove: bool,
}

impl Folder {
    /// The given folder, or a new one of this user alone.
    pub(super) fn new(given: Option<PathBuf>) -> Result<Self, Problem> {
        if let Some(path) = given {
            fs::create_dir_all(&path)?;
            return Ok(Self { path: path.canonicalize()?, remove: false });
        }
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
        let path = std::env::temp_dir().join(format!("brevet-demo-{:016x}", u64::from_be_bytes(random)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, remove: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn keep(&mut self) {
        self.remove = false;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.remove {
            // What is left behind is in the system's folder for such things.
            let _left_behind = fs::remove_dir_all(&self.path);
        }
    }
}
