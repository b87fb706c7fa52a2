//! The record: what one commit leaves in the journal. It is JSON, so that an auditor needs no tool of ours to read
//! it, and the stored bytes are the bytes that the chain hashes: nothing is encoded twice.
//!
//! A record has an envelope, a small fact that replay folds, and evidence that only audit reads. Its revision is the
//! key it is stored under; the chain covers both.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::fact::{Envelope, Fact};

/// The version that this code writes. Older ones stay readable.
pub const FORMAT: u8 = 1;

/// Why bytes are not a record.
#[derive(Debug, Error)]
pub enum InvalidRecord {
    /// It was written by a later version.
    #[error("record format {0} is newer than this program, which reads up to {FORMAT}")]
    Newer(u8),
    /// It is not the JSON of a record.
    #[error("not a record")]
    Malformed(#[source] serde_json::Error),
}

#[derive(Serialize)]
struct Written<'a, E> {
    v: u8,
    envelope: &'a Envelope,
    fact: &'a Fact,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'a E>,
}

/// A record that was read.
#[derive(Debug, Deserialize)]
pub struct Record<'a> {
    v: u8,
    /// Who, when and where.
    pub envelope: Envelope,
    /// What.
    pub fact: Fact,
    /// What it was decided by, as JSON.
    #[serde(borrow, default)]
    pub evidence: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Version {
    v: u8,
}

/// Writes a record.
///
/// # Errors
/// None in practice: every type of a record has a JSON form.
pub fn encode<E: Serialize>(
    envelope: &Envelope,
    fact: &Fact,
    evidence: Option<&E>,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(2048);
    serde_json::to_writer(&mut bytes, &Written { v: FORMAT, envelope, fact, evidence })?;
    Ok(bytes)
}

/// Reads a record.
///
/// # Errors
/// [`InvalidRecord`] if it is none, or one of a later version.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, InvalidRecord> {
    match serde_json::from_slice::<Record<'_>>(bytes) {
        Ok(record) if record.v <= FORMAT => Ok(record),
        Ok(record) => Err(InvalidRecord::Newer(record.v)),
        // A later version may have facts that this one cannot read: say that rather than "malformed".
        Err(error) => match serde_json::from_slice::<Version>(bytes) {
            Ok(Version { v }) if v > FORMAT => Err(InvalidRecord::Newer(v)),
            _ => Err(InvalidRecord::Malformed(error)),
        },
    }
}
