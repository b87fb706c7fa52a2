//! Decides. The only file of the workspace that grants a permit.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use brevet_core::digest::PolicyDigest;
use brevet_core::fact::DenialCause;
use brevet_core::proof::{Evidence, Permit};
use brevet_core::request::{DeterminingPolicy, Obligations, Request};
use brevet_core::sabotage;
use brevet_core::terms::Profile;
use cedar_policy::Effect;
use cedar_policy_core::ast::{Literal, Value, ValueKind};
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;

use crate::load::{self, LoadError};
use crate::slice::{Candidate, Slices};
use crate::vocabulary::{Facts, Words};

/// A set of policies, ready to decide. It never changes: a reload makes another.
pub struct Policies {
    digest: PolicyDigest,
    slices: Slices,
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
        Ok(Self { digest: loaded.digest, slices: Slices::index(&loaded)? })
    }

    /// The digest of schema, file names and files.
    #[must_use]
    pub const fn digest(&self) -> PolicyDigest {
        self.digest
    }

    /// Decides a request. Whatever is not permitted, or in doubt, is denied.
    #[must_use]
    pub fn decide(&self, request: Request) -> Decision {
        let Some(mut answer) = Answer::of(&self.slices, &request) else {
            return self.deny(request, &[], DenialCause::EvaluationError);
        };
        // A verifier may take a JWT-SVID from whoever bears it. So it is permitted by policies that name the form, and
        // never by one that was written for what has a holder.
        if asks_for_jwt_svid(&request) && !sabotage::on("jwt_svids_need_no_name") {
            answer.permits.retain(|policy| policy.names_jwt_svids);
        }
        if !answer.errors.is_empty() && !sabotage::on("failing_policies_are_skipped") {
            self.deny(request, &answer.errors, DenialCause::EvaluationError)
        } else if !answer.forbids.is_empty() {
            self.deny(request, &answer.forbids, DenialCause::Forbidden)
        } else if answer.permits.is_empty() {
            self.deny(request, &[], DenialCause::NoPermit)
        } else {
            let obligations = obligations(&answer.permits);
            Decision::Permit(Permit::granted(self.evidence(request, &answer.permits), obligations))
        }
    }

    fn deny(&self, request: Request, determining: &[&Candidate], cause: DenialCause) -> Decision {
        Decision::Deny(Denial { evidence: self.evidence(request, determining), cause })
    }

    fn evidence(&self, request: Request, determining: &[&Candidate]) -> Evidence {
        let mut determining: Vec<DeterminingPolicy> = determining
            .iter()
            .map(|policy| DeterminingPolicy {
                id: policy.id.clone(),
                file: policy.provenance.file.to_string(),
                line: policy.provenance.line,
            })
            .collect();
        // Policies are indexed in no particular order; the same decision leaves the same evidence.
        determining.sort_by(|a, b| a.id.cmp(&b.id));
        if sabotage::on("decisions_unexplained") {
            determining.clear();
        }
        Evidence { request, determining, policy: self.digest }
    }
}

fn asks_for_jwt_svid(request: &Request) -> bool {
    request.ask.credential().is_some_and(|(_, credential)| credential.profile() == Profile::JwtSvid)
}

/// All obligations bind, so the shortest life does.
fn obligations(permits: &[&Candidate]) -> Obligations {
    let lifetime_max = permits.iter().filter_map(|policy| policy.provenance.lifetime_max).min();
    Obligations { lifetime_max }
}

/// What the policies said that concern a request.
#[derive(Debug, Default)]
pub(crate) struct Answer<'a> {
    /// Satisfied policies that permit.
    pub(crate) permits: Vec<&'a Candidate>,
    /// Satisfied policies that forbid.
    pub(crate) forbids: Vec<&'a Candidate>,
    /// Policies whose evaluation failed.
    pub(crate) errors: Vec<&'a Candidate>,
}

impl<'a> Answer<'a> {
    /// Evaluates the condition of each policy whose head matches. None if the request is not whole.
    pub(crate) fn of(slices: &'a Slices, request: &Request) -> Option<Self> {
        let facts = Facts::of(request)?;
        let (sentence, candidates) = slices.candidates(&facts)?;
        let words = candidates.iter().try_fold(Words::default(), |words, list| Some(words.and(list.words?)));
        let query = match words {
            Some(words) => sentence.quick_query(&facts, words),
            None => sentence.query(&facts)?,
        };
        let evaluator = Evaluator::new(query.request, &query.entities, Extensions::all_available());
        let no_slots = HashMap::new();
        let mut answer = Self::default();
        for policy in candidates.into_iter().flat_map(|list| &list.policies) {
            let condition = match (words, &policy.quick) {
                (Some(_), Some(quick)) => Some(&quick.condition),
                _ => policy.condition.as_ref(),
            };
            let satisfied = match condition {
                None => Some(true),
                Some(condition) => truth(evaluator.interpret(condition, &no_slots).ok()),
            };
            match (satisfied, policy.effect) {
                (None, _) => answer.errors.push(policy),
                (Some(true), Effect::Permit) => answer.permits.push(policy),
                (Some(true), Effect::Forbid) => answer.forbids.push(policy),
                (Some(false), _) => {}
            }
        }
        Some(answer)
    }
}

/// What a condition comes to. None if it fails, or is no condition.
fn truth(value: Option<Value>) -> Option<bool> {
    match value?.value {
        ValueKind::Lit(Literal::Bool(truth)) => Some(truth),
        _ => None,
    }
}
