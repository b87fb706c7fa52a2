//! X.509-SVIDs for any verifier to judge, each with the verdict that the standards ask for.
//!
//! Whoever made a case says what must become of it; no verdict is computed. A case is a good chain of some shape with
//! at most one thing wrong: every good thing is tried in many shapes, and so is every bad one. The cases and their ids
//! are the same in every run, their keys are not.

#![expect(clippy::unwrap_used, reason = "a test that cannot make its input fails")]

mod chain;
mod constraint;
mod draft;
mod identifier;
mod leaf;
mod time;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_core::time::Timestamp;
use serde_json::{Value, json};

use self::draft::{Draft, Keys};

/// A chain to judge.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name: the group, what is right or wrong, and the shape of the chain.
    pub id: String,
    /// The DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The DER authorities of each trust domain.
    pub bundles: BTreeMap<String, Vec<Vec<u8>>>,
    /// When it is judged.
    pub at: Timestamp,
    /// What must become of it.
    pub expected: Expected,
}

/// The verdict that a case asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The chain proves a workload.
    Accept {
        /// Which.
        spiffe_id: String,
    },
    /// It proves nobody.
    Refuse {
        /// Brevet's stable name of why; another verifier has others.
        reason: &'static str,
    },
}

impl Case {
    /// What the case is about: the first part of its id.
    #[must_use]
    pub fn group(&self) -> &str {
        self.id.split('/').next().unwrap_or_default()
    }

    /// The case as one line of JSON, without its verdict: `id`, `chain` and `bundles` in base64, `at` in RFC 3339.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = |certificates: &[Vec<u8>]| -> Vec<String> {
            certificates.iter().map(|der| STANDARD.encode(der)).collect()
        };
        let bundles: BTreeMap<&str, Value> = self
            .bundles
            .iter()
            .map(|(name, authorities)| (name.as_str(), json!(text(authorities))))
            .collect();
        json!({
            "id": self.id,
            "chain": text(&self.chain),
            "bundles": bundles,
            "at": self.at.to_string(),
        })
        .to_string()
    }
}

/// All cases, in the same order in every run.
#[must_use]
pub fn x509_svids() -> Vec<Case> {
    let mut suite = Suite { keys: Keys::new(), cases: Vec::new() };
    identifier::add(&mut suite);
    leaf::add(&mut suite);
    chain::add(&mut suite);
    constraint::add(&mut suite);
    time::add(&mut suite);
    suite.cases
}

/// The cases so far, and the keys that they are made with.
struct Suite {
    keys: Keys,
    cases: Vec<Case>,
}

impl Suite {
    fn accept(&mut self, id: impl Into<String>, draft: &Draft) {
        let expected = Expected::Accept { spiffe_id: draft.id.clone() };
        self.add(id.into(), draft, draft.chain(), expected);
    }

    fn refuse(&mut self, id: impl Into<String>, draft: &Draft, reason: &'static str) {
        self.refuse_chain(id, draft, draft.chain(), reason);
    }

    /// A chain that is no longer the draft's own.
    fn refuse_chain(
        &mut self,
        id: impl Into<String>,
        draft: &Draft,
        chain: Vec<Vec<u8>>,
        reason: &'static str,
    ) {
        self.add(id.into(), draft, chain, Expected::Refuse { reason });
    }

    fn add(&mut self, id: String, draft: &Draft, chain: Vec<Vec<u8>>, expected: Expected) {
        self.cases.push(Case { id, chain, bundles: draft.bundles(), at: draft.at, expected });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn cases_have_names_of_their_own_and_are_the_same_in_every_run() {
        let names = || x509_svids().into_iter().map(|case| case.id).collect::<Vec<_>>();
        let (first, again) = (names(), names());
        assert_eq!(first, again);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len(), "an id twice");
        assert!(first.len() >= 200);
    }

    #[test]
    fn a_case_is_one_line_of_json() {
        let cases = x509_svids();
        let case = cases.iter().find(|case| case.chain.len() == 2 && case.bundles.len() == 1).unwrap();
        let line = case.to_json();
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        let leaf = value["chain"][0].as_str().unwrap();
        assert_eq!(STANDARD.decode(leaf).unwrap(), case.chain[0]);
        assert_eq!(value["bundles"].as_object().unwrap().len(), 1);
        assert_eq!(value["at"], "2026-06-01T00:00:00.000Z");
        assert_eq!(value.as_object().unwrap().len(), 4);
    }
}
