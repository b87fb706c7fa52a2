//! What the journal says once the daemon has stopped. A figure counts only if every mint is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use brevet_core::fact::Fact;
use brevet_core::record::{self, InvalidRecord};
use brevet_journal::sqlite::{Options, Sqlite};

use crate::{Failure, load};

/// Holds the journal against the leases that were handed over: each has its record, each record its lease. Gives
/// their number.
pub(crate) fn every_mint_is_recorded(dir: &Path) -> Result<usize, Failure> {
    let noted = fs::read_to_string(dir.join(load::LEASES))?;
    let handed_over: BTreeSet<String> = noted.lines().map(str::to_owned).collect();
    if handed_over.len() != noted.lines().count() {
        return Err("a lease was handed over twice".into());
    }
    let mut recorded = BTreeSet::new();
    let mut twice = false;
    // The snapshot goes unused: each record is read, and the chain over all of them verified.
    Sqlite::open(Options::new(dir.join("state")))?.replay(|replayed| {
        if let Fact::LeaseIssued { terms, .. } = record::decode(replayed.body)?.fact {
            twice |= !recorded.insert(terms.id.to_string());
        }
        Ok::<_, InvalidRecord>(())
    })?;
    if twice || recorded != handed_over {
        let (journal, clients) = (recorded.len(), handed_over.len());
        return Err(format!("the journal has {journal} leases, the clients were given {clients}").into());
    }
    Ok(recorded.len())
}

/// The body of a record of a mint, from the journal of a daemon that has stopped.
pub(crate) fn sample(dir: &Path) -> Result<Vec<u8>, Failure> {
    let mut found = None;
    Sqlite::open(Options::new(dir.join("state")))?.replay(|replayed| {
        if matches!(record::decode(replayed.body)?.fact, Fact::LeaseIssued { .. }) {
            found = Some(replayed.body.to_owned());
        }
        Ok::<_, InvalidRecord>(())
    })?;
    found.ok_or_else(|| "the journal has no mint".into())
}
