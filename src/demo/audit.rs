//! What the stopped daemon's journal says, read by someone who holds the public key and trusts nothing else.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use brevet_core::fact::Fact;
use brevet_core::id::LeaseId;
use brevet_core::record::{self, InvalidRecord};
use brevet_core::request::DeterminingPolicy;
use brevet_core::state::State;
use brevet_core::time::Timestamp;
use brevet_journal::sqlite::{Options, Sqlite};
use serde::Deserialize;

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
    /// The policies that determined a denial, each once, with file and line.
    pub(super) denied_by: Vec<String>,
}

#[derive(Deserialize)]
struct Determined {
    determining: Vec<DeterminingPolicy>,
}

/// Folds the journal anew, and lists what policy denied.
pub(super) fn read(state_directory: &Path, now: Timestamp) -> Result<Journal, Problem> {
    let mut state = State::default();
    let mut journal = Journal::default();
    let recovery = Sqlite::open(Options::new(state_directory))?;
    recovery.replay(|replayed| {
        let record = record::decode(replayed.body)?;
        state.apply(&record.envelope, &record.fact, replayed.revision);
        if let (Fact::Denied { .. }, Some(evidence)) = (&record.fact, record.evidence) {
            let evidence: Determined =
                serde_json::from_str(evidence.get()).map_err(InvalidRecord::Malformed)?;
            for policy in evidence.determining {
                let place = format!("{} ({}:{})", policy.id, policy.file, policy.line);
                if !journal.denied_by.contains(&place) {
                    journal.denied_by.push(place);
                }
            }
        }
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
