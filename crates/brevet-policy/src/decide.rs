//! Decides. The only file of the workspace that grants a permit.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use brevet_core::digest::PolicyDigest;
use brevet_core::proof::{Evidence, Permit};
use brevet_core::request::{DeterminingPolicy, Obligations, Request};
use cedar_policy::{Authorizer, PolicyId, PolicySet};

use crate::load::{self, LoadError, Provenance};
use crate::slice::Slices;
use crate::vocabulary::{Query, Vocabulary};

/// A set of policies, ready to decide. It never changes: a reload makes another.
pub struct Policies {
    digest: PolicyDigest,
    vocabulary: Vocabulary,
    slices: Slices,
    provenance: HashMap<PolicyId, Provenance>,
}

/// Policy's answer to one request.
#[derive(Debug)]
pub enum Decision {
    /// Yes.
    Permit(Permit),
    /// No.
    Deny(Denial),
}

/// Policy's no, with what the journal keeps of it.
#[derive(Debug)]
pub struct Denial {
    /// The request and the policies that denied it: those that forbid, or those whose evaluation failed. None if
    /// nothing permitted it.
    pub evidence: Evidence,
    /// Why.
    pub cause: DenialCause,
}

/// Why a request is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialCause {
    /// A policy forbids it.
    Forbidden,
    /// No policy permits it.
    NoPermit,
    /// The evaluation of a policy failed.
    EvaluationError,
    /// The request contradicts itself: its resource or credential is not what its operation is about.
    Inconsistent,
}

impl DenialCause {
    /// The name, the same in wire and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::NoPermit => "no_permit",
            Self::EvaluationError => "evaluation_error",
            Self::Inconsistent => "inconsistent",
        }
    }
}

impl fmt::Display for DenialCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Policies {
    /// Loads every file of a directory whose name ends in `.cedar`.
    ///
    /// # Errors
    /// [`LoadError`] at the first thing that is wrong; nothing is loaded then.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        Self::from_sources(&load::read(directory)?)
    }

    /// Loads policies from texts, by file name.
    ///
    /// # Errors
    /// [`LoadError`] at the first thing that is wrong; nothing is loaded then.
    pub fn from_sources(sources: &BTreeMap<String, String>) -> Result<Self, LoadError> {
        let loaded = load::parse(sources)?;
        Ok(Self {
            digest: loaded.digest,
            vocabulary: Vocabulary::parse()?,
            slices: Slices::index(&loaded.schema, loaded.whole.policies())?,
            provenance: loaded.provenance,
        })
    }

    /// The digest of schema, file names and files.
    #[must_use]
    pub const fn digest(&self) -> PolicyDigest {
        self.digest
    }

    /// Decides a request. Whatever is not permitted, or in doubt, is denied.
    #[must_use]
    pub fn decide(&self, request: Request) -> Decision {
        let query = match self.vocabulary.query(&request) {
            Ok(query) => query,
            Err(cause) => return self.deny(request, &[], cause),
        };
        let answer = Answer::of(&query, self.slices.candidates(&query));
        let (determining, cause) = if !answer.errors.is_empty() {
            (&answer.errors, DenialCause::EvaluationError)
        } else if !answer.forbids.is_empty() {
            (&answer.forbids, DenialCause::Forbidden)
        } else if answer.permits.is_empty() {
            (&answer.permits, DenialCause::NoPermit)
        } else {
            let obligations = self.obligations(&answer.permits);
            return Decision::Permit(Permit::granted(self.evidence(request, &answer.permits), obligations));
        };
        self.deny(request, determining, cause)
    }

    /// All obligations bind, so the shortest life does.
    fn obligations(&self, permits: &[PolicyId]) -> Obligations {
        let lifetime_max = permits
            .iter()
            .filter_map(|id| self.provenance.get(id))
            .filter_map(|place| place.lifetime_max)
            .min();
        Obligations { lifetime_max }
    }

    fn deny(&self, request: Request, determining: &[PolicyId], cause: DenialCause) -> Decision {
        Decision::Deny(Denial { evidence: self.evidence(request, determining), cause })
    }

    fn evidence(&self, request: Request, determining: &[PolicyId]) -> Evidence {
        let mut determining: Vec<DeterminingPolicy> = determining
            .iter()
            .filter_map(|id| {
                let place = self.provenance.get(id)?;
                let file = place.file.to_string();
                Some(DeterminingPolicy { id: id.to_string(), file, line: place.line })
            })
            .collect();
        // The policy engine answers in no particular order; the same decision leaves the same evidence.
        determining.sort_by(|a, b| a.id.cmp(&b.id));
        Evidence { request, determining, policy: self.digest }
    }
}

/// What the policies said, put together from any number of sets: no policy may be in two of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Satisfied policies that permit; not all of them if one of the same set forbids.
    pub(crate) permits: Vec<PolicyId>,
    /// Satisfied policies that forbid.
    pub(crate) forbids: Vec<PolicyId>,
    /// Policies whose evaluation failed.
    pub(crate) errors: Vec<PolicyId>,
}

impl Answer {
    /// Asks each set.
    pub(crate) fn of<'a>(query: &Query, sets: impl IntoIterator<Item = &'a PolicySet>) -> Self {
        let authorizer = Authorizer::new();
        let mut answer = Self::default();
        for set in sets {
            let response = authorizer.is_authorized(&query.request, set, &query.entities);
            let diagnostics = response.diagnostics();
            answer.errors.extend(diagnostics.errors().map(|error| {
                let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
                error.policy_id().clone()
            }));
            let satisfied = match response.decision() {
                cedar_policy::Decision::Allow => &mut answer.permits,
                cedar_policy::Decision::Deny => &mut answer.forbids,
            };
            satisfied.extend(diagnostics.reason().cloned());
        }
        answer
    }
}
