//! The journal read back: the state is its fold, from a snapshot that one of its records vouches for.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use brevet_core::fact::{Envelope, Fact};
use brevet_core::record::{self, InvalidRecord};
use brevet_core::revision::Revision;
use brevet_core::state::State;
use brevet_core::time::Now;
use brevet_journal::sqlite::{Options, Sqlite, Verified};
use brevet_journal::{Entry, Journal, Kind, Precedence, Sealed};

use super::StartError;
use crate::config::Config;

/// What the journal yields before it takes anything new.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) verified: Verified,
    /// What the snapshot held that the replay began with.
    pub(super) snapshot: Option<Revision>,
}

/// Reads the journal, and makes it at the first start.
pub(super) fn recover(config: &Config) -> Result<Recovered, StartError> {
    let directory = &config.state_directory;
    create_state_directory(directory)
        .map_err(|source| StartError::StateDirectory { path: directory.clone(), source })?;
    let recovery = Sqlite::open(Options {
        reserve_bytes: config.journal.reserve_bytes,
        checkpoint_records: config.journal.checkpoint_records.get(),
        commit_window_micros_max: config.journal.commit_window_micros_max,
        ..Options::new(directory)
    })?;
    let kept = match recovery.snapshot() {
        None => None,
        Some(kept) => State::from_snapshot(&kept.state)
            .map_err(StartError::Snapshot)?
            .map(|state| (state, (kept.revision, kept.digest))),
    };
    let (recovery, mut state, snapshot) = match kept {
        Some((state, snapshot)) => (recovery, state, Some(snapshot)),
        None => (recovery.from_the_first_record(), State::default(), None),
    };
    let mut vouched = snapshot.is_none();
    let verified = recovery.replay(|replayed| {
        let record = record::decode(replayed.body)?;
        if let Fact::SnapshotTaken { revision, digest } = &record.fact {
            vouched |= snapshot == Some((*revision, *digest));
        }
        state.apply(&record.envelope, &record.fact, replayed.revision);
        Ok::<_, InvalidRecord>(())
    })?;
    if !vouched {
        return Err(StartError::UnvouchedSnapshot);
    }
    Ok(Recovered { state, verified, snapshot: snapshot.map(|(revision, _)| revision) })
}

/// Keeps the replayed state, so that the next start replays only what comes after it. The chain names the digest
/// before there is a snapshot, so that a snapshot which no record names was put there by somebody else.
pub(super) async fn keep_snapshot(journal: &Arc<Sqlite>, state: &State, now: Now) -> Result<(), StartError> {
    let snapshot = state.to_snapshot().map_err(StartError::Snapshot)?;
    let revision = state.revision;
    let fact = Fact::SnapshotTaken { revision, digest: State::digest(&snapshot) };
    let envelope = Envelope {
        incarnation: journal.incarnation(),
        at: now,
        tenant: None,
        tree: None,
        caller: None,
        request_id: None,
    };
    let body = record::encode(&envelope, &fact, None::<&()>).map_err(StartError::Snapshot)?;
    let entry = Entry { kind: Kind::Note, precedence: Precedence::Ending, body };
    let noted = journal.append(entry, &mut |_| {})?;
    journal.durable(noted.revision()).await?;
    let journal = Arc::clone(journal);
    let kept = tokio::task::spawn_blocking(move || journal.store_snapshot(revision, &snapshot)).await;
    kept.map_err(|_| Sealed)??;
    Ok(())
}

fn create_state_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}
