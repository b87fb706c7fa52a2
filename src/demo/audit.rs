//! What the stopped daemon's journal says, read by someone who holds the public key and trusts nothing else.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use brevet_core::fact::Fact;
use brevet_core::id::LeaseId;
use brevet_core::record::{self, InvalidRecord, Record};
use brevet_core::request::DeterminingPolicy;
use brevet_core::state::State;
use brevet_core::time::Timestamp;
use brevet_journal::sqlite::{Options, Sqlite};
use serde::Deserialize;

use super::message::Denial;
use super::{Problem, process};

/// What `brevet audit verify` reports, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    /// How many records there are.
    pub(super) records: u64,
    /// How many signed checkpoints.
    pub(super) checkpoints: u64,
    checkpoint: Option<Newest>,
}

#[derive(Debug, Deserialize)]
struct Newest {
    revision: u64,
}

impl Report {
    /// Up to which record a key vouches for every one.
    pub(super) fn vouched(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |newest| newest.revision)
    }
}

/// Has the chain and its checkpoints verified as an auditor does, by the public key.
pub(super) async fn verify(dir: &Path, state: &Path) -> Result<Report, Problem> {
    let key = dir.join("checkpoint.pem");
    let (config, state) = (dir.join("brevet.toml"), state.as_os_str());
    let public =
        process::output(["key", "show", "-o", "pem", "--config"].map(OsStr::new), [config.as_os_str()]);
    fs::write(&key, public.await?)?;
    let report =
        process::output(["audit", "verify", "-o", "json", "--key"].map(OsStr::new), [key.as_os_str(), state]);
    Ok(serde_json::from_slice(&report.await?)?)
}

/// What the journal says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    /// Leases that live.
    pub(super) live: usize,
    /// Leases that ended by time without a record that says so.
    pub(super) overdue: usize,
    /// Leases in all.
    pub(super) leases: usize,
    /// What was denied.
    pub(super) denials: Vec<Denial>,
}

#[derive(Deserialize)]
struct Determined {
    determining: Vec<DeterminingPolicy>,
}

/// What a record says of a denial; none if it is of something else.
pub(super) fn denial(record: &[u8]) -> Result<Option<Denial>, InvalidRecord> {
    denial_of(&record::decode(record)?)
}

fn denial_of(record: &Record<'_>) -> Result<Option<Denial>, InvalidRecord> {
    let Fact::Denied { reason, cause, .. } = &record.fact else { return Ok(None) };
    let determining = match record.evidence {
        Some(evidence) => {
            serde_json::from_str::<Determined>(evidence.get()).map_err(InvalidRecord::Malformed)?.determining
        }
        None => Vec::new(),
    };
    let place = |policy: DeterminingPolicy| format!("{} ({}:{})", policy.id, policy.file, policy.line);
    Ok(Some(Denial {
        caller: record.envelope.caller.as_ref().map(ToString::to_string),
        reason: reason.as_str().to_owned(),
        cause: *cause,
        policies: determining.into_iter().map(place).collect(),
    }))
}

/// The policies that determined denials, each once.
pub(super) fn denied_by(denials: &[Denial]) -> Vec<String> {
    let mut places: Vec<String> = Vec::new();
    for place in denials.iter().flat_map(|denial| &denial.policies) {
        if !places.contains(place) {
            places.push(place.clone());
        }
    }
    places
}

/// Folds the journal anew, and lists what was denied.
pub(super) fn read(state_directory: &Path, now: Timestamp) -> Result<Journal, Problem> {
    let mut state = State::default();
    let mut journal = Journal::default();
    let recovery = Sqlite::open(Options::new(state_directory))?;
    recovery.replay(|replayed| {
        let record = record::decode(replayed.body)?;
        state.apply(&record.envelope, &record.fact, replayed.revision);
        journal.denials.extend(denial_of(&record)?);
        Ok::<_, InvalidRecord>(())
    })?;
    for ledger in state.trees.values() {
        for task in ledger.tasks() {
            for lease in task.leases() {
                let id: LeaseId = lease.terms().id;
                let ended_at = |time| ledger.lease_ending(id, &state.control, time).is_some();
                journal.leases += 1;
                journal.live += usize::from(!ended_at(now));
                // At the epoch nothing has ended by time, only by what is recorded.
                journal.overdue += usize::from(ended_at(now) && !ended_at(Timestamp::EPOCH));
            }
        }
    }
    Ok(journal)
}
