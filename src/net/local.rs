//! The local socket: for the daemon's own user and root, who need no certificate.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;

use tokio::net::UnixListener;

/// A bound local socket, mode 0600.
#[derive(Debug)]
pub struct LocalListener(UnixListener);

/// Why the local socket can't be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Others could put something in the socket's place.
    #[error("the socket's directory must belong to the daemon's user or root and be writable by no one else")]
    OpenDirectory,
    /// What is there was not left by a daemon: a file, a directory, a symbolic link.
    #[error("something that is not a socket is in the socket's place")]
    NotASocket,
    /// Someone answers there.
    #[error("another process listens on the socket")]
    InUse,
    /// The system refused.
    #[error("the socket can't be bound")]
    Io(#[from] io::Error),
}

impl LocalListener {
    /// Binds the socket at `path`, after removing one that a dead process left there. Must be called within the
    /// runtime.
    ///
    /// Some gRPC clients send the path as the authority, which HTTP/2 refuses unless its last component contains
    /// an `@`.
    ///
    /// # Errors
    /// If the directory is open to others, something else has the name, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        // INVARIANT: nobody else can rename or create anything here, so that what was looked at is what is used.
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = std::fs::metadata(directory)?;
        let owners = [0, nix::unistd::geteuid().as_raw()];
        if !owners.contains(&directory.uid()) || directory.mode() & 0o022 != 0 {
            return Err(BindError::OpenDirectory);
        }
        remove_stale(path)?;
        let listener = StdListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self(UnixListener::from_std(listener)?))
    }

    pub(super) fn into_inner(self) -> UnixListener {
        self.0
    }
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(found) if !found.file_type().is_socket() => Err(BindError::NotASocket),
        Ok(_) => match StdStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(std::fs::remove_file(path)?),
            Ok(_) => Err(BindError::InUse),
            Err(error) => Err(error.into()),
        },
    }
}
