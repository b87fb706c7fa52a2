//! Private keys on disk: a PKCS#8 document in a PEM file that nobody but its owner can touch.
//!
//! A file appears under its name only when it is whole and durable. A crash at any point leaves either no file, and
//! the next start makes another key, or the file with the key that was used.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::pem;

/// The most bytes read from a file; a P-256 key takes about 240, a certificate with a long trust domain some 1,500.
const FILE_BYTES_MAX: u64 = 16 * 1024;

const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Why a private key can't be had.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The operating system refuses.
    #[error("no access to {path}")]
    Io {
        /// The file or its directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// The path names a symbolic link, whose target someone else may choose.
    #[error("{0} is a symbolic link")]
    SymbolicLink(PathBuf),
    /// The path names a directory, a socket or a device.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// Others than the owner have access.
    #[error("{path} has mode {mode:04o}, but only its owner may have access to a private key: chmod 600")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to someone else.
    #[error("{path} belongs to user {owner}, but this process runs as user {user}")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The effective user of this process.
        user: u32,
    },
    /// The file holds something else.
    #[error("{0} does not hold the expected private key in PEM")]
    Malformed(PathBuf),
    /// The random number generator or the key generation failed.
    #[error("no key could be generated")]
    Generation,
}

/// Reads the P-256 key at `path`, or makes one there if there is none.
pub(crate) fn load_or_create(path: &Path, rng: &SystemRandom) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    load_or_create_as(PRIVATE_KEY, path, rng, generate)
}

/// Reads the P-256 key at `path`. None if there is none.
pub(crate) fn load_existing(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    load(PRIVATE_KEY, path)
}

/// Reads the secret in the PEM block `label` at `path`, or puts one that `generate` makes there if there is none.
pub(crate) fn load_or_create_as(
    label: &str,
    path: &Path,
    rng: &SystemRandom,
    generate: impl FnOnce(&SystemRandom) -> Result<Zeroizing<Vec<u8>>, KeyError>,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if let Some(secret) = load(label, path)? {
        return Ok(secret);
    }
    let secret = generate(rng)?;
    match create(path, 0o600, pem::encode(label, &secret).as_bytes(), rng) {
        // Another process made one between the two looks: there is one key at this path, and it is that one.
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            load(label, path)?.ok_or_else(|| KeyError::Malformed(path.into()))
        }
        result => result.map(|()| secret),
    }
}

/// A new P-256 key as a PKCS#8 document.
pub(crate) fn generate(rng: &SystemRandom) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, rng)
        .map_err(|_| KeyError::Generation)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

/// Makes a file that is whole and durable when it gets its name. There must be none of that name.
pub(crate) fn create(path: &Path, mode: u32, content: &[u8], rng: &SystemRandom) -> Result<(), KeyError> {
    let io = |source| KeyError::Io { path: path.into(), source };
    let mut suffix = [0; 8];
    rng.fill(&mut suffix).map_err(|_| KeyError::Generation)?;
    let unnamed = path.with_added_extension(format!("{:016x}", u64::from_be_bytes(suffix)));
    let result = write_new(&unnamed, mode, content)
        // A link, unlike a rename, never replaces what is there.
        .and_then(|()| fs::hard_link(&unnamed, path));
    let removed = fs::remove_file(&unnamed);
    result.and(removed).and_then(|()| sync_directory(path)).map_err(io)
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

fn load(label: &str, path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let Some(file) = open(path)? else { return Ok(None) };
    let io = |source| KeyError::Io { path: path.into(), source };
    // What is judged is what was opened: the path may name another file by now.
    let metadata = file.metadata().map_err(io)?;
    let user = geteuid().as_raw();
    if metadata.uid() != user {
        return Err(KeyError::Owner { path: path.into(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.into(), mode });
    }
    let text = read(file).map_err(io)?;
    let text = std::str::from_utf8(&text).map_err(|_| KeyError::Malformed(path.into()))?;
    pem::decode(label, text).map(Some).ok_or_else(|| KeyError::Malformed(path.into()))
}

/// Opens a regular file that is not reached through a symbolic link. None if there is none.
pub(crate) fn open(path: &Path) -> Result<Option<File>, KeyError> {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) if path.is_symlink() => return Err(KeyError::SymbolicLink(path.into())),
        Err(source) => return Err(KeyError::Io { path: path.into(), source }),
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(Some(file)),
        Ok(_) => Err(KeyError::NotAFile(path.into())),
        Err(source) => Err(KeyError::Io { path: path.into(), source }),
    }
}

/// Reads a file that is no longer than any key or certificate.
pub(crate) fn read(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let length = file.metadata()?.len();
    if length > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let capacity = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // One spare byte lets the read see the end without the buffer growing, which would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity + 1));
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}
