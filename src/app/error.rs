//! Why the daemon does not start, and why it stops.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use brevet_identity::jwk_set::InvalidJwkSet;
use brevet_journal::sqlite::OpenError;
use brevet_journal::{AppendError, Sealed, SnapshotError};
use brevet_mint::ca::{CaError, ServerCertificateError};
use brevet_mint::key_file::KeyError;
use nix::errno::Errno;
use thiserror::Error;

use crate::clock::ClockError;
use crate::config::ConfigError;
use crate::configuration::ConfigurationError;
use crate::http::ListenError;
use crate::net::BindError;

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The description of the services does not read.
    #[error("the description of the services does not read")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The registry, a policy or a bundle is refused.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path}")]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process may not open as many files as it may have connections.
    #[error(
        "the limits on connections need {needed} descriptors, and the process may have {hard}: raise its limit (LimitNOFILE of systemd, ulimit -Hn) or lower connections_max"
    )]
    Descriptors {
        /// As many as are needed.
        needed: u64,
        /// As many as it may have at most.
        hard: u64,
    },
    /// The system does not say how many files may be open, or keeps the process from opening more.
    #[error("the limit on open files cannot be set")]
    Limit(#[source] Errno),
    /// The journal is refused.
    #[error("the journal is refused: {0}")]
    Journal(#[from] OpenError),
    /// The snapshot is not one of this program's, or could not be made.
    #[error("the snapshot of the state is refused")]
    Snapshot(#[source] serde_json::Error),
    /// The snapshot is not the one that the chain of records names.
    #[error("no record names the snapshot of the state: somebody has put it there")]
    UnvouchedSnapshot,
    /// A snapshot could not be kept.
    #[error("a snapshot of the state could not be kept")]
    KeepSnapshot(#[from] SnapshotError),
    /// A private key is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The journal has records, and a key that belongs to them is gone.
    #[error("{0} is missing beside a journal that has records")]
    KeyMissing(PathBuf),
    /// The broker's own authority is refused.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The broker's own certificate could not be made.
    #[error(transparent)]
    ServerCertificate(#[from] ServerCertificateError),
    /// The published keys do not read back.
    #[error("the published keys do not read back")]
    PublishedKeys(#[from] InvalidJwkSet),
    /// There is no clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// TLS refuses the broker's own certificate.
    #[error("TLS refuses the broker's own certificate")]
    Tls(#[from] rustls::Error),
    /// A socket cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The HTTP socket cannot be bound.
    #[error(transparent)]
    Http(#[from] ListenError),
    /// The local root socket cannot be bound.
    #[error("cannot listen on {path}")]
    Root {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BindError,
    },
    /// The journal could not record that the configuration is in force.
    #[error("the configuration could not be put in force: {0}")]
    Configure(String),
    /// The journal did not take the record of the start.
    #[error("the start could not be recorded: {0}")]
    NotRecorded(#[from] AppendError),
    /// The journal ended before the record of the start was durable.
    #[error("the start could not be recorded: {0}")]
    Sealed(#[from] Sealed),
}

/// Why the daemon stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StopError {
    /// The journal sealed itself: what was acknowledged is safe, and nothing more can be.
    #[error("the journal is sealed")]
    Sealed,
}
