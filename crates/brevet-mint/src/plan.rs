//! The planner: fills the terms of a credential from a permit, before any key is used.
//!
//! The end it sets is the earliest of everything that bounds it, in whole seconds rounded down: what was asked for,
//! what policy, configuration and the audience's way of enforcing allow, what the signer would sign at all, and the
//! deadline of the task (invariant L3). Terms that would be dead on arrival are not drawn up.

use std::time::Duration;

use brevet_core::digest::CertificateDigest;
use brevet_core::id::{Id, LeaseId, LeaseKey};
use brevet_core::name::KeyId;
use brevet_core::proof::{Permit, Plan};
use brevet_core::request::Operation;
use brevet_core::terms::{Content, Profile, TaskToken, Terms};
use brevet_core::time::{Now, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

use crate::signer::LIFETIME_MAX;

/// The most bytes of terms as JSON. The claims repeat them with some 40 bytes more for each permission and actor, so
/// that the token stays below the 16 KiB that verifiers read.
const TERMS_BYTES_MAX: usize = 6 * 1024;

/// Why no terms could be drawn up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The permit is for another operation than issuing a credential.
    #[error("the permit is not for issuing a credential")]
    Operation,
    /// The scope is empty or names another audience than the credential's.
    #[error("the scope does not belong to the credential's audience")]
    Scope,
    /// The path does not lead from the root task to the task with one agent for each step.
    #[error("the path does not fit the task")]
    Path,
    /// It would be longer than verifiers read.
    #[error("the credential would be longer than verifiers read")]
    Size,
    /// Nothing is left of its life when it is issued.
    #[error("the credential would not live")]
    Lifetime,
}

/// The random number generator failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the random number generator failed")]
pub struct NoRandomness;

/// Draws a lease's own part of its id: 128 random bits, never used before (invariant L4).
///
/// # Errors
/// [`NoRandomness`] if the operating system gives none.
pub fn lease_key(rng: &SystemRandom) -> Result<LeaseKey, NoRandomness> {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(LeaseKey(Id::from_bytes(bytes)))
}

/// What the terms need besides the permit: from the ledger, the registry and the random number generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Drawn by [`lease_key`].
    pub lease: LeaseKey,
    /// The ids from the root task to this one.
    pub path: Vec<Id>,
    /// The earliest deadline of the task and its ancestors.
    pub deadline: Timestamp,
    /// Whether the audience is registered as understanding `act`, so that a delegator may be named as subject.
    pub understands_act: bool,
    /// The certificate of the holder key, where one was named.
    pub certificate: Option<CertificateDigest>,
}

/// Draws up plans for one issuer and one key.
#[derive(Debug, Clone)]
pub struct Planner {
    issuer: String,
    key_id: KeyId,
    lifetime_max: Duration,
}

impl Planner {
    /// A planner for tokens of `issuer`, signed by the key `key_id`, that live no longer than `lifetime_max`.
    #[must_use]
    pub const fn new(issuer: String, key_id: KeyId, lifetime_max: Duration) -> Self {
        Self { issuer, key_id, lifetime_max }
    }

    /// Spends a permit on the terms of one credential.
    ///
    /// # Errors
    /// [`PlanError`] if the permit, the draft and the time don't make a credential that lives.
    pub fn draw(&self, permit: Permit, draft: Draft, now: Now) -> Result<Plan, PlanError> {
        // 1. The permit is for a credential.
        let request = permit.request();
        let credential = match (permit.operation(), &request.credential) {
            (Operation::IssueCredential, Some(credential)) => credential,
            _ => return Err(PlanError::Operation),
        };
        let Profile::TaskToken = credential.profile;

        // 2. What it permits is one audience's.
        let permissions = credential.scope.permissions();
        if permissions.is_empty() || permissions.iter().any(|p| *p.audience() != credential.audience) {
            return Err(PlanError::Scope);
        }

        // 3. The path leads from the root to the task, with one agent for each step.
        let task = &request.task;
        if draft.path.first() != Some(&task.id.root().0)
            || draft.path.last() != Some(&task.id.node())
            || draft.path.len() != usize::from(task.depth) + 1
            || task.chain.len() != draft.path.len()
            || task.chain.last() != Some(&task.agent)
        {
            return Err(PlanError::Path);
        }

        // 4. It ends at the earliest of all bounds, and it lives before that.
        let issued_at = now.issue.floor_to_second();
        let lifetime = [permit.lifetime_max(), credential.enforcement.lifetime_max()]
            .into_iter()
            .flatten()
            .chain([self.lifetime_max, LIFETIME_MAX])
            .fold(Duration::from_secs(credential.lifetime_seconds), Duration::min);
        let end = issued_at.after(lifetime).min(draft.deadline).floor_to_second();
        if end <= now.issue || end <= now.judge {
            return Err(PlanError::Lifetime);
        }

        // 5. The terms.
        let subject = if draft.understands_act { &task.delegator } else { &task.agent };
        let terms = Terms {
            id: LeaseId { task: task.id, key: draft.lease },
            key_id: self.key_id.clone(),
            issued_at,
            end,
            holder: credential.holder,
            policy: permit.policy(),
            content: Content::TaskToken(TaskToken {
                issuer: self.issuer.clone(),
                subject: subject.clone(),
                actors: task.chain.iter().rev().cloned().collect(),
                audience: credential.audience.clone(),
                scope: credential.scope.clone(),
                certificate: draft.certificate,
                path: draft.path,
            }),
        };

        // 6. Whoever is given a token can use it: no verifier refuses it for its length.
        match serde_json::to_vec(&terms) {
            Ok(bytes) if bytes.len() <= TERMS_BYTES_MAX => Ok(Plan::drawn(permit, terms)),
            _ => Err(PlanError::Size),
        }
    }
}

#[cfg(test)]
mod tests;
