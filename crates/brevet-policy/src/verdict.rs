//! Verdicts: what a set of policies said of a request, remembered for the next one that it cannot tell from it.
//!
//! Agents ask for much the same again and again, and conditions read little of what they ask. The key of a verdict is
//! all that the policies in question can read of a request, times and counts included where one of them reads such. So
//! a verdict that is recalled is what evaluating would give (invariants P2 and P4), and what is forgotten is evaluated.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brevet_core::fact::DenialCause;
use brevet_core::request::{DeterminingPolicy, Obligations};
use brevet_core::sabotage;

use crate::slice::Candidate;

/// How many verdicts are remembered.
const VERDICTS_MAX: usize = 4_096;
/// The longest key of one that is, in bytes.
const KEY_BYTES_MAX: usize = 1_024;

/// What a set of policies says of a request.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// What a permit demands, or why there is none.
    pub(crate) outcome: Result<Obligations, DenialCause>,
    /// The policies that determined it.
    pub(crate) determining: Arc<[DeterminingPolicy]>,
}

impl Verdict {
    pub(crate) fn permitted(obligations: Obligations, by: &[&Candidate]) -> Self {
        Self { outcome: Ok(obligations), determining: places(by) }
    }

    pub(crate) fn denied(cause: DenialCause, by: &[&Candidate]) -> Self {
        Self { outcome: Err(cause), determining: places(by) }
    }
}

/// Policies are indexed in no particular order; the same decision leaves the same evidence.
fn places(policies: &[&Candidate]) -> Arc<[DeterminingPolicy]> {
    if sabotage::on("decisions_unexplained") {
        return Arc::default();
    }
    let place = |policy: &&Candidate| DeterminingPolicy {
        id: policy.id.clone(),
        file: policy.provenance.file.to_string(),
        line: policy.provenance.line,
    };
    let mut places: Vec<DeterminingPolicy> = policies.iter().map(place).collect();
    places.sort_by(|a, b| a.id.cmp(&b.id));
    places.into()
}

/// The verdicts of one set of policies, by their keys.
#[derive(Debug, Default)]
pub(crate) struct Verdicts(Mutex<HashMap<Vec<u8>, Arc<Verdict>>>);

impl Verdicts {
    /// The verdict of a key, which is found now if it is not remembered.
    pub(crate) fn recall(&self, key: Vec<u8>, find: impl FnOnce() -> Verdict) -> Arc<Verdict> {
        if let Some(known) = self.lock().get(&key) {
            return Arc::clone(known);
        }
        let found = Arc::new(find());
        if key.len() <= KEY_BYTES_MAX {
            let mut known = self.lock();
            if known.len() >= VERDICTS_MAX {
                // What is still asked for is soon remembered again.
                known.clear();
            }
            known.insert(key, Arc::clone(&found));
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Verdict>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_verdicts_take_bounded_room() {
        let verdicts = Verdicts::default();
        let none = || Verdict::denied(DenialCause::NoPermit, &[]);
        for number in 0..=VERDICTS_MAX {
            verdicts.recall(number.to_be_bytes().into(), none);
            assert!(verdicts.lock().len() <= VERDICTS_MAX);
        }
        verdicts.recall(vec![0; KEY_BYTES_MAX + 1], none);
        assert!(verdicts.lock().keys().all(|key| key.len() <= KEY_BYTES_MAX));
        // The last of them is remembered, and what is remembered is not found again.
        let last = VERDICTS_MAX.to_be_bytes().into();
        verdicts.recall(last, || panic!("it is remembered"));
    }
}
