//! The planner: fills the terms of a credential from a permit, before any key is used.
//!
//! The end it sets is the earliest of everything that bounds it, in whole seconds rounded down: what was asked for,
//! what policy, configuration and the audience's way of enforcing allow, what the signer would sign at all, the end of
//! the authority that certifies, and the deadline of the task (invariant L3). Terms that would be dead on arrival are
//! not drawn up.

use std::io;
use std::time::Duration;

use brevet_core::digest::CertificateDigest;
use brevet_core::id::{Id, LeaseId, LeaseKey};
use brevet_core::name::KeyId;
use brevet_core::proof::{Permit, Plan};
use brevet_core::request::{CredentialFacts, FormFacts, TaskFacts};
use brevet_core::spiffe_id::TrustDomain;
use brevet_core::task_svid::{InvalidTaskSvidId, TaskSvidId};
use brevet_core::terms::{Content, JwtSvid, LIFETIME_MAX, TaskToken, Terms, X509Svid};
use brevet_core::time::{Now, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

use crate::ca::CaKey;
use crate::key::Point;

/// The most bytes of terms as JSON. The claims repeat them with some 40 bytes more for each permission and actor, so
/// that the token stays below the 16 KiB that verifiers read.
const TERMS_BYTES_MAX: usize = 6 * 1024;

/// Why no terms could be drawn up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The permit is for no credential.
    #[error("the permit is not for a credential")]
    Operation,
    /// The scope is empty or names another audience than the credential's.
    #[error("the scope does not belong to the credential's audience")]
    Scope,
    /// The path does not lead from the root task to the task with one agent for each step.
    #[error("the path does not fit the task")]
    Path,
    /// The permit is for an SVID of another trust domain than the broker's own.
    #[error("the permit is for another trust domain")]
    TrustDomain,
    /// The agent is one that has no SVIDs for its tasks.
    #[error("the agent has no spiffe id for a task")]
    Agent,
    /// The public key is not the holder's, not of a kind that is certified, or one of the broker's own.
    #[error("the public key is not one to certify for this holder")]
    HolderKey,
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
    /// For a token: whether the audience is registered as understanding `act`, so that a delegator may be named as
    /// subject.
    pub understands_act: bool,
    /// For a token or a JWT-SVID: the certificate of the holder key, where one was named.
    pub certificate: Option<CertificateDigest>,
}

/// Draws up plans for one issuer and one authority.
#[derive(Debug, Clone)]
pub struct Planner {
    issuer: String,
    token_key: KeyId,
    jwt_svid_key: KeyId,
    authority: Authority,
    lifetime_max: Duration,
    /// The keys that the broker itself signs with. None of them is certified for a holder.
    own_keys: Vec<KeyId>,
}

/// What the terms of an SVID need to know of the authority.
#[derive(Debug, Clone)]
struct Authority {
    key_id: KeyId,
    trust_domain: TrustDomain,
    end: Timestamp,
}

impl Planner {
    /// A planner for tokens of `issuer`, signed by the key `token_key`, and for SVIDs of the trust domain of
    /// `authority`, which signs those in X.509 as the key `jwt_svid_key` signs the others. None lives longer than
    /// `lifetime_max`.
    #[must_use]
    pub fn new(
        issuer: String,
        token_key: KeyId,
        jwt_svid_key: KeyId,
        authority: &CaKey,
        lifetime_max: Duration,
    ) -> Self {
        let authority = Authority {
            key_id: authority.key_id().clone(),
            trust_domain: authority.trust_domain().clone(),
            end: authority.end(),
        };
        let own_keys = vec![token_key.clone(), jwt_svid_key.clone(), authority.key_id.clone()];
        Self { issuer, token_key, jwt_svid_key, authority, lifetime_max, own_keys }
    }

    /// The same planner, told of further keys that the broker signs with.
    #[must_use]
    pub fn knowing_own_keys(mut self, keys: impl IntoIterator<Item = KeyId>) -> Self {
        self.own_keys.extend(keys);
        self
    }

    /// Spends a permit on the terms of one credential.
    ///
    /// # Errors
    /// [`PlanError`] if the permit, the draft and the time don't make a credential that lives.
    pub fn draw(&self, permit: Permit, draft: Draft, now: Now) -> Result<Plan, PlanError> {
        // 1. The permit is for a credential.
        let (context, credential) = permit.request().ask.credential().ok_or(PlanError::Operation)?;
        let task = &context.task;

        // 2. The path leads from the root to the task, with one agent for each step.
        if draft.path.first() != Some(&task.id.root().0)
            || draft.path.last() != Some(&task.id.node())
            || draft.path.len() != usize::from(task.depth) + 1
            || task.chain.len() != draft.path.len()
            || task.chain.last() != Some(&task.agent)
        {
            return Err(PlanError::Path);
        }

        // 3. It ends at the earliest of all bounds, and it lives before that.
        let issued_at = now.issue.floor_to_second();
        let (key_id, form_lifetime_max) = match &credential.form {
            FormFacts::TaskToken { enforcement, .. } => (&self.token_key, enforcement.lifetime_max()),
            FormFacts::X509Svid { .. } => (&self.authority.key_id, Some(self.authority.end.since(issued_at))),
            FormFacts::JwtSvid { enforcement, .. } => (&self.jwt_svid_key, enforcement.lifetime_max()),
        };
        let lifetime = [permit.lifetime_max(), form_lifetime_max]
            .into_iter()
            .flatten()
            .chain([self.lifetime_max, LIFETIME_MAX])
            .fold(Duration::from_secs(credential.lifetime_seconds), Duration::min);
        let end = issued_at.after(lifetime).min(draft.deadline).floor_to_second();
        if end <= now.issue || end <= now.judge {
            return Err(PlanError::Lifetime);
        }

        // 4. The terms.
        let terms = Terms {
            id: LeaseId { task: task.id, key: draft.lease },
            key_id: key_id.clone(),
            issued_at,
            end,
            holder: credential.holder,
            policy: permit.policy(),
            content: self.content(task, credential, draft)?,
        };

        // 5. Whoever is given a credential can use it: no verifier refuses it for its length.
        let mut length = Length(0);
        match serde_json::to_writer(&mut length, &terms) {
            Ok(()) if length.0 <= TERMS_BYTES_MAX => Ok(Plan::drawn(permit, terms)),
            _ => Err(PlanError::Size),
        }
    }

    /// What depends on the form.
    fn content(
        &self,
        task: &TaskFacts,
        credential: &CredentialFacts,
        draft: Draft,
    ) -> Result<Content, PlanError> {
        match &credential.form {
            // What it permits is one audience's.
            FormFacts::TaskToken { audience, scope, .. } => {
                let permissions = scope.permissions();
                if permissions.is_empty() || permissions.iter().any(|p| p.audience() != audience) {
                    return Err(PlanError::Scope);
                }
                let subject = if draft.understands_act { &task.delegator } else { &task.agent };
                Ok(Content::TaskToken(TaskToken {
                    issuer: self.issuer.clone(),
                    subject: subject.clone(),
                    actors: task.chain.iter().rev().cloned().collect(),
                    audience: audience.clone(),
                    scope: scope.clone(),
                    certificate: draft.certificate,
                    path: draft.path,
                }))
            }
            // It permits nothing: it says who works on which task, and certifies the holder's key.
            FormFacts::X509Svid { trust_domain, public_key, .. } => {
                if *trust_domain != self.authority.trust_domain {
                    return Err(PlanError::TrustDomain);
                }
                let (point, _) = Point::of_spki(public_key.as_der()).ok_or(PlanError::HolderKey)?;
                let is_own = point.key_id().is_none_or(|key| self.own_keys.contains(&key));
                if point.thumbprint() != credential.holder || is_own {
                    return Err(PlanError::HolderKey);
                }
                let spiffe_id = TaskSvidId::write(&task.agent, &draft.path, trust_domain)?;
                Ok(Content::X509Svid(X509Svid { spiffe_id, public_key: public_key.clone() }))
            }
            // It permits nothing either, and is for one audience.
            FormFacts::JwtSvid { audience, .. } => {
                let spiffe_id = TaskSvidId::write(&task.agent, &draft.path, &self.authority.trust_domain)?;
                Ok(Content::JwtSvid(JwtSvid {
                    spiffe_id,
                    audience: audience.clone(),
                    certificate: draft.certificate,
                    path: draft.path,
                }))
            }
        }
    }
}

/// Counts what is written, and keeps none of it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<InvalidTaskSvidId> for PlanError {
    fn from(error: InvalidTaskSvidId) -> Self {
        match error {
            InvalidTaskSvidId::Agent => Self::Agent,
            InvalidTaskSvidId::Path => Self::Path,
            InvalidTaskSvidId::Length => Self::Size,
        }
    }
}

#[cfg(test)]
mod tests;
