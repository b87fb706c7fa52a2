//! The record: what one commit leaves in the journal. It is JSON, so that an auditor needs no tool of ours to read
//! it, and the stored bytes are the bytes that the chain hashes: nothing is encoded twice.
//!
//! A record has an envelope, a small fact that replay folds, and evidence that only audit reads. Its revision is the
//! key it is stored under; the chain covers both.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::fact::{Envelope, Fact};
use crate::sabotage;

/// The version that this code writes. Older ones stay readable.
pub const FORMAT: u32 = 1;

/// Records without long scopes or chains fit in this many bytes.
const RECORD_CAPACITY: usize = 3072;

/// Why bytes are not a record.
#[derive(Debug, Error)]
pub enum InvalidRecord {
    /// It was written by a later version.
    #[error("record format {0} is newer than this program, which reads up to {FORMAT}")]
    Newer(u32),
    /// It names a version that never was.
    #[error("record format 0 does not exist")]
    Unversioned,
    /// It is not the JSON of a record.
    #[error("not a record")]
    Malformed(#[source] serde_json::Error),
}

#[derive(Serialize)]
struct Written<'a, E> {
    v: u32,
    envelope: &'a Envelope,
    fact: &'a Fact,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'a E>,
}

/// A record that was read.
#[derive(Debug, Deserialize)]
pub struct Record<'a> {
    v: u32,
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
    v: u32,
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
    let record = Written { v: FORMAT, envelope, fact, evidence };
    let mut bytes = Vec::with_capacity(RECORD_CAPACITY);
    serde_json::to_writer(&mut bytes, &record)?;
    // Nearly every record is printable as it is: to look at it once is cheaper than at each of its strings.
    if !is_printable(&bytes) && !sabotage::on("records_unescaped") {
        bytes.clear();
        record.serialize(&mut Serializer::with_formatter(&mut bytes, Ascii))?;
    }
    Ok(bytes)
}

/// Without a way out of the loop, many bytes are looked at at once.
fn is_printable(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |all, byte| all & matches!(byte, b' '..=b'~'))
}

/// Writes text in printable ASCII and everything else as its escape, so that nothing a caller wrote ends a line,
/// turns the direction of the text, or reaches the terminal of whoever reads the journal (invariant U6).
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if is_printable(fragment.as_bytes()) {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if matches!(character, ' '..='~') {
                write!(writer, "{character}")?;
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// Reads a record.
///
/// # Errors
/// [`InvalidRecord`] if it is none, or one of a later version.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, InvalidRecord> {
    match serde_json::from_slice::<Record<'_>>(bytes) {
        Ok(Record { v: 0, .. }) => Err(InvalidRecord::Unversioned),
        Ok(record) if record.v > FORMAT => Err(InvalidRecord::Newer(record.v)),
        Ok(mut record) if sabotage::on("replay_forgets") => {
            record.envelope.request_id = None;
            Ok(record)
        }
        Ok(record) => Ok(record),
        // A later version may have facts that this one cannot read: say that rather than "malformed".
        Err(error) => match serde_json::from_slice::<Version>(bytes) {
            Ok(Version { v }) if v > FORMAT => Err(InvalidRecord::Newer(v)),
            _ => Err(InvalidRecord::Malformed(error)),
        },
    }
}

#[cfg(test)]
mod tests;
