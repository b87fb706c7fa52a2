//! `brevet audit verify`: what an auditor does with a stopped store or a copy, and the public keys from outside.

use std::fs;
use std::path::{Path, PathBuf};

use brevet_core::revision::{Incarnation, Revision};
use brevet_core::time::Timestamp;
use brevet_journal::ChainHash;
use brevet_journal::checkpoint::{Checkpoint, CheckpointKey};
use brevet_journal::verify::{VerifyReport, verify};
use brevet_mint::key::PublicJwk;
use clap::Args;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cli::exit::Failure;
use crate::cli::output::{self, Format, Row};

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The state directory, or a copy of it.
    path: PathBuf,
    /// Public keys of checkpoints in PEM, as `brevet key show -o pem` prints them; all that ever signed for the store.
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// An earlier report (`-o json`) on the same store: what it vouched for must still be there.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The form of the report.
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORM", default_value = "table")]
    output: Format,
}

/// What an auditor brought that cannot be used.
#[derive(Debug, Error)]
enum EvidenceError {
    #[error("cannot read {0}")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("{0} holds no public key in PEM")]
    NoKey(PathBuf),
    #[error("{0} holds something that is not a public key on P-256")]
    Key(PathBuf),
    #[error("{0} is not a report with a checkpoint")]
    Report(PathBuf),
}

/// A store that is whole, but for which nobody vouches.
#[derive(Debug, Error)]
#[error("no checkpoint vouches for any of the {0} records")]
struct NotVouched(u64);

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut keys = Vec::new();
        for path in &self.keys {
            keys.extend(read_keys(path)?);
        }
        let expected = self.checkpoint.as_deref().map(read_checkpoint).transpose()?;
        let report = Report::from(verify(&self.path, &keys, expected)?);
        output::one(self.output, &report)?;
        if report.checkpoint.is_none() {
            return Err(NotVouched(report.records).into());
        }
        Ok(())
    }
}

fn read_keys(path: &Path) -> Result<Vec<CheckpointKey>, EvidenceError> {
    let text = fs::read(path).map_err(|source| EvidenceError::Io(path.to_owned(), source))?;
    let key = |der: Result<SubjectPublicKeyInfoDer<'_>, _>| {
        let der = der.map_err(|_| EvidenceError::NoKey(path.to_owned()))?;
        let public = PublicJwk::from_spki(&der);
        let key = public.and_then(|public| CheckpointKey::from_spki(public.kid().as_str(), &der).ok());
        key.ok_or_else(|| EvidenceError::Key(path.to_owned()))
    };
    let keys = SubjectPublicKeyInfoDer::pem_slice_iter(&text).map(key).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(EvidenceError::NoKey(path.to_owned())) } else { Ok(keys) }
}

fn read_checkpoint(path: &Path) -> Result<Checkpoint, EvidenceError> {
    let text = fs::read(path).map_err(|source| EvidenceError::Io(path.to_owned(), source))?;
    let report: Option<Report> = serde_json::from_slice(&text).ok();
    report
        .and_then(|report| report.checkpoint)
        .and_then(|checkpoint| checkpoint.parse())
        .ok_or_else(|| EvidenceError::Report(path.to_owned()))
}

/// What was found, and what a later verification takes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    /// How many records there are, each chained to the one before.
    records: u64,
    /// The chain hash of the newest.
    head: String,
    /// How many checkpoints there are, each signed by a given key.
    checkpoints: u64,
    /// The newest checkpoint: up to its revision a key vouches for every record.
    checkpoint: Option<CheckpointJson>,
    /// What the head mark says was acknowledged.
    acknowledged_revision: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointJson {
    /// The life of the journal.
    incarnation: String,
    revision: u64,
    /// The chain hash at that revision, in hexadecimal.
    head: String,
    /// Milliseconds since the epoch.
    time_millis: u64,
}

impl CheckpointJson {
    fn parse(&self) -> Option<Checkpoint> {
        let bytes = |text: &str| {
            let digits =
                text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
            digits.collect::<Option<Vec<u8>>>()
        };
        Some(Checkpoint {
            incarnation: Incarnation(self.incarnation.parse().ok()?),
            revision: Revision(self.revision),
            head: ChainHash::from_bytes(bytes(&self.head)?.try_into().ok()?),
            at: Timestamp::from_millis(self.time_millis),
        })
    }
}

impl From<VerifyReport> for Report {
    fn from(report: VerifyReport) -> Self {
        Self {
            records: report.head.0,
            head: report.chain.to_string(),
            checkpoints: report.checkpoints,
            checkpoint: report.vouched.map(|checkpoint| CheckpointJson {
                incarnation: checkpoint.incarnation.0.to_string(),
                revision: checkpoint.revision.0,
                head: checkpoint.head.to_string(),
                time_millis: checkpoint.at.millis(),
            }),
            acknowledged_revision: report.acknowledged.map(|revision| revision.0),
        }
    }
}

impl Row for Report {
    const COLUMNS: &'static [&'static str] =
        &["RECORDS", "VOUCHED UP TO", "CHECKPOINTS", "ACKNOWLEDGED", "HEAD"];

    fn cells(&self) -> Vec<String> {
        let text = |revision: Option<u64>| revision.map(|it| it.to_string()).unwrap_or_default();
        let vouched = self.checkpoint.as_ref().map(|checkpoint| checkpoint.revision);
        vec![
            self.records.to_string(),
            text(vouched),
            self.checkpoints.to_string(),
            text(self.acknowledged_revision),
            self.head.clone(),
        ]
    }

    fn name(&self) -> Option<&str> {
        None
    }
}
