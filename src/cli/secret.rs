//! Secrets come from files or standard input and go to files: a command line is visible to every user of the machine.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::exit::Failure;
use super::request_id;

/// The most bytes of a token, a claim or a key.
const SECRET_BYTES_MAX: usize = 256 * 1024;

/// A secret that cannot be read or written.
#[derive(Debug, Error)]
pub(super) enum SecretError {
    /// The file, or standard input.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// The file.
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    /// More than any token or key has.
    #[error("{0} holds no token, claim or key: it is too long, empty, or no text")]
    Content(PathBuf),
}

/// Reads a secret without the white space around it; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let unreadable = |source| SecretError::Read(path.to_owned(), source);
    let malformed = || SecretError::Content(path.to_owned());
    let source = if path == OsStr::new("-") {
        // Not through the buffer of `Stdin`, which nobody erases.
        File::from(io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?)
    } else {
        File::open(path).map_err(unreadable)?
    };
    // As long as it can get: a buffer that grew would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 2));
    let length_max = u64::try_from(SECRET_BYTES_MAX + 1).unwrap_or(u64::MAX);
    let length = source.take(length_max).read_to_end(&mut bytes).map_err(unreadable)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?.trim();
    if text.is_empty() || length > SECRET_BYTES_MAX {
        return Err(malformed());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Puts a secret into a file that only its owner may read. What was there before is replaced as a whole.
pub(super) fn write(path: &Path, secret: &str) -> Result<(), Failure> {
    let unfinished = path.with_added_extension(request_id()?.as_str());
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(secret.as_bytes()).and_then(|()| file.write_all(b"\n")))
        .and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|source| {
        // Nothing is left behind that has no name.
        let _removed = fs::remove_file(&unfinished);
        SecretError::Write(path.to_owned(), source).into()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_written_for_its_owner_alone_even_over_a_public_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "public").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, "a.b.c").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().as_str(), "a.b.c");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        for bad in [&b" \n"[..], b"\xff", &vec![b'a'; 256 * 1024 + 1]] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(read(&path), Err(SecretError::Content(_))));
        }
        assert!(matches!(read(&directory.path().join("none")), Err(SecretError::Read(..))));
    }
}
