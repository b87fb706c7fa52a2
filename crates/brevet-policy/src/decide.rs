//! Decides. The only file of the workspace that grants a permit.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use brevet_core::digest::PolicyDigest;
use brevet_core::fact::DenialCause;
use brevet_core::proof::{Evidence, Permit};
use brevet_core::request::{Obligations, Request};
use brevet_core::sabotage;
use brevet_core::terms::Profile;
use cedar_policy::Effect;
use cedar_policy_core::ast::{Literal, Value, ValueKind};
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;

use crate::load::{self, LoadError};
use crate::slice::{Candidate, Candidates, Slices};
use crate::verdict::{Verdict, Verdicts};
use crate::vocabulary::{Facts, Sentence, Words};

/// A set of policies, ready to decide. It never changes: a reload makes another, which remembers no verdict of this one.
pub struct Policies {
    digest: PolicyDigest,
    slices: Slices,
    verdicts: Verdicts,
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
        let slices = Slices::index(&loaded)?;
        Ok(Self { digest: loaded.digest, slices, verdicts: Verdicts::default() })
    }

    /// The digest of schema, file names and files.
    #[must_use]
    pub const fn digest(&self) -> PolicyDigest {
        self.digest
    }

    /// Decides a request. Whatever is not permitted, or in doubt, is denied.
    #[must_use]
    pub fn decide(&self, request: Request) -> Decision {
        let verdict = self.verdict(&request);
        let determining = Arc::clone(&verdict.determining);
        let evidence = Evidence { request, determining, policy: self.digest };
        match verdict.outcome {
            Ok(obligations) => Decision::Permit(Permit::granted(evidence, obligations)),
            Err(cause) => Decision::Deny(Denial { evidence, cause }),
        }
    }

    /// What the policies say of a request. If they cannot tell it from an earlier one, that is what they said then.
    fn verdict(&self, request: &Request) -> Arc<Verdict> {
        let Some(question) = Question::of(&self.slices, request) else {
            return Arc::new(Verdict::denied(DenialCause::EvaluationError, &[]));
        };
        let Some(words) = question.words else { return Arc::new(question.verdict()) };
        self.verdicts.recall(question.facts.key(words), || question.verdict())
    }
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

/// A request before the policies that can concern it.
pub(crate) struct Question<'a> {
    facts: Facts<'a>,
    sentence: &'a Sentence,
    candidates: Vec<&'a Candidates>,
    /// What their conditions read, if each of them could be written again: then the answer depends on nothing else.
    words: Option<Words>,
}

impl<'a> Question<'a> {
    /// None if the request is not whole.
    pub(crate) fn of(slices: &'a Slices, request: &'a Request) -> Option<Self> {
        let facts = Facts::of(request)?;
        let (sentence, candidates) = slices.candidates(&facts)?;
        let words = candidates.iter().try_fold(Words::default(), |words, list| Some(words.and(list.words?)));
        Some(Self { facts, sentence, candidates, words })
    }

    /// Evaluates the condition of each policy whose head matches. None if Cedar does not take the request.
    pub(crate) fn answer(&self) -> Option<Answer<'a>> {
        let query = match self.words {
            Some(words) => self.sentence.quick_query(&self.facts, words),
            None => self.sentence.query(&self.facts)?,
        };
        let evaluator = Evaluator::new(query.request, &query.entities, Extensions::all_available());
        let no_slots = HashMap::new();
        let mut answer = Answer::default();
        for policy in self.candidates.iter().flat_map(|list| &list.policies) {
            let condition = match (self.words, &policy.quick) {
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

    /// What the answer comes to.
    fn verdict(&self) -> Verdict {
        let Some(mut answer) = self.answer() else {
            return Verdict::denied(DenialCause::EvaluationError, &[]);
        };
        // A verifier may take a JWT-SVID from whoever bears it. So it is permitted by policies that name the form, and
        // never by one that was written for what has a holder.
        if self.facts.form() == Some(Profile::JwtSvid) && !sabotage::on("jwt_svids_need_no_name") {
            answer.permits.retain(|policy| policy.names_jwt_svids);
        }
        if !answer.errors.is_empty() && !sabotage::on("failing_policies_are_skipped") {
            Verdict::denied(DenialCause::EvaluationError, &answer.errors)
        } else if !answer.forbids.is_empty() {
            Verdict::denied(DenialCause::Forbidden, &answer.forbids)
        } else if answer.permits.is_empty() {
            Verdict::denied(DenialCause::NoPermit, &[])
        } else {
            Verdict::permitted(obligations(&answer.permits), &answer.permits)
        }
    }
}

/// What a condition comes to. None if it fails, or is no condition.
fn truth(value: Option<Value>) -> Option<bool> {
    match value?.value {
        ValueKind::Lit(Literal::Bool(truth)) => Some(truth),
        _ => None,
    }
}
