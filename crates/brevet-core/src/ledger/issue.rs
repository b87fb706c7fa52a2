//! What grows a tree: leases, first and renewed, and tasks below tasks.

use std::sync::Arc;

use super::{DelegateRefusal, IssueRefusal, LeaseLimits, Ledger, Opening, Recall, Task, TreeLimits, hop_of};
use crate::control::Control;
use crate::digest::{ClaimDigest, HopDigest, RequestDigest};
use crate::fact::{Fact, TaskOpened};
use crate::id::{LeaseId, LeaseKey, TaskId};
use crate::name::RequestId;
use crate::proof::{Permit, Plan};
use crate::request::{Ask, FormFacts, PromptOrigin, TaskContext};
use crate::sabotage;
use crate::terms::{Content, Terms};
use crate::time::{Now, Timestamp};

impl Ledger {
    /// The fact that issues the plan's lease, be it the first of its kind or in place of another.
    ///
    /// # Errors
    /// [`IssueRefusal`]: nothing is issued unless the task lives, the key is its own, the terms lie within it, no
    /// lock forbids it and its quota has room; and nothing is renewed unless it lives and would not be widened.
    pub fn issue(
        &self,
        plan: &Plan,
        body: RequestDigest,
        claim: Option<ClaimDigest>,
        control: &Control,
        now: Now,
        limits: LeaseLimits,
    ) -> Result<Fact, IssueRefusal> {
        let (permit, terms) = (plan.permit(), plan.terms());
        let id = terms.id.task;
        let renews = renewed_by(permit, terms)?;
        let task = self.task(id).ok_or(IssueRefusal::NoTask)?;
        if self.is_stale(permit, control) {
            return Err(IssueRefusal::Conflict);
        }
        if task.lease(terms.id.key).is_some() {
            return Err(IssueRefusal::NotPermitted);
        }
        if let Some(ending) = self.task_ending(id, control, now.judge)
            && !sabotage::on("ended_tasks_are_issued_to")
        {
            return Err(IssueRefusal::TaskClosed(ending));
        }
        if !task.admits(terms, claim) {
            return Err(IssueRefusal::WrongHolder);
        }
        if terms.end <= now.issue
            || terms.end <= now.judge
            || (self.deadline(id).is_none_or(|deadline| terms.end > deadline)
                && !sabotage::on("leases_outlive_their_task"))
        {
            return Err(IssueRefusal::NoTime);
        }
        if !terms.is_within(&task.opened.scope) {
            return Err(IssueRefusal::Widens);
        }
        if let Some(key) = renews {
            self.may_renew(task, key, terms, control, now)?;
        }
        let tenant = &self.tenant;
        if let Some(lock) = control
            .lock_on_opening(tenant, id, now.judge, || self.path(id))
            .or_else(|| control.lock_on_issue(tenant, terms, now.judge))
        {
            return Err(IssueRefusal::Locked(lock.lock.id));
        }
        // No more live than are open, so they are seldom counted.
        let may_be_full = task.open.len() >= usize::try_from(limits.live_max).unwrap_or(usize::MAX);
        if may_be_full
            && self.leases_live(id, control, now.judge) >= limits.live_max
            && !sabotage::on("ignore_quota")
        {
            return Err(IssueRefusal::Quota(limits.live_max));
        }
        if task.leases_issued() >= limits.issued_max {
            return Err(IssueRefusal::IssuedQuota(limits.issued_max));
        }
        Ok(Fact::LeaseIssued { terms: Arc::clone(terms), body, renews })
    }

    /// Whether anything that a permit was computed from has changed since (invariants T4, T6, P3).
    fn is_stale(&self, permit: &Permit, control: &Control) -> bool {
        let basis = permit.basis();
        (basis.tree != self.version || basis.control != control.revision())
            && !sabotage::on("stale_permits_commit")
    }

    /// Renewal never widens (invariant L5): the other lease lives, and has the same form, audience or identity, and
    /// holder.
    fn may_renew(
        &self,
        task: &Task,
        key: LeaseKey,
        terms: &Terms,
        control: &Control,
        now: Now,
    ) -> Result<(), IssueRefusal> {
        let renewed = task.lease(key).ok_or(IssueRefusal::NoLease)?;
        if self.lease_ending(LeaseId { task: terms.id.task, key }, control, now.judge).is_some() {
            return Err(IssueRefusal::LeaseEnded);
        }
        let before = &renewed.terms;
        let within = match (terms.scope(), before.scope()) {
            (Some(scope), Some(before)) => scope.is_within(before) || sabotage::on("renewal_widens"),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let same_for = match (&terms.content, &before.content) {
            (Content::TaskToken(token), Content::TaskToken(before)) => token.audience == before.audience,
            (Content::X509Svid(svid), Content::X509Svid(before)) => svid.spiffe_id == before.spiffe_id,
            (Content::JwtSvid(svid), Content::JwtSvid(before)) => {
                svid.audience == before.audience && svid.spiffe_id == before.spiffe_id
            }
            (Content::TaskToken(_) | Content::X509Svid(_) | Content::JwtSvid(_), _) => false,
        };
        let same = same_for && terms.holder == before.holder;
        if within && same { Ok(()) } else { Err(IssueRefusal::Widens) }
    }

    /// The fact that opens a task below another, from the permit for it.
    ///
    /// # Errors
    /// [`DelegateRefusal`]: nothing is delegated unless the parent lives, no lock forbids it, and the child is
    /// smaller in every dimension (invariants D1, D2, D4).
    pub fn delegate(
        &self,
        permit: &Permit,
        opening: Opening,
        control: &Control,
        now: Now,
        limits: TreeLimits,
    ) -> Result<Fact, DelegateRefusal> {
        let request = permit.request();
        let Ask::DelegateTask { context, parent, delegate } = &request.ask else {
            return Err(DelegateRefusal::NotPermitted);
        };
        let facts = &context.task;
        let above = self.task(*parent).ok_or(DelegateRefusal::NoTask)?;
        if self.is_stale(permit, control) {
            return Err(DelegateRefusal::Conflict);
        }
        if facts.id.root() != self.root
            || self.task(facts.id).is_some()
            || delegate.tenant != self.tenant
            || request.caller.spiffe_id != above.opened.agent
            || facts.delegator != above.opened.delegator
            || facts.depth != above.opened.depth.saturating_add(1)
        {
            return Err(DelegateRefusal::NotPermitted);
        }
        if let Some(ending) = self.task_ending(*parent, control, now.judge) {
            return Err(DelegateRefusal::TaskClosed(ending));
        }
        let within = |depth: &u8| *depth <= limits.depth_max || sabotage::on("any_depth");
        let Some(depth) = above.opened.depth.checked_add(1).filter(within) else {
            return Err(DelegateRefusal::Depth(limits.depth_max));
        };
        if self.tasks.len() >= limits.tasks_max && !sabotage::on("trees_grow") {
            return Err(DelegateRefusal::TreeFull(limits.tasks_max));
        }
        if opening.deadline <= now.issue || opening.deadline <= now.judge {
            return Err(DelegateRefusal::NoTime);
        }
        if !self.is_smaller(context, opening.deadline, above) {
            return Err(DelegateRefusal::Widens);
        }
        let mut opened = TaskOpened {
            id: facts.id,
            parent: Some(parent.node()),
            agent: facts.agent.clone(),
            // Whoever the parent acts for, the child acts for.
            delegator: above.opened.delegator.clone(),
            opener: request.caller.spiffe_id.clone(),
            task_type: facts.task_type.clone(),
            purpose: facts.purpose.clone(),
            sensitivity_max: facts.sensitivity_max,
            // What an agent says of its own delegation can only worsen what its task began with.
            prompt_origin: Some(PromptOrigin::judged(above.opened.prompt_origin, opening.prompt_origin)),
            scope: context.scope.clone(),
            opened_at: now.issue,
            deadline: opening.deadline,
            depth,
            holder: opening.holder,
            // Replaced at once: the digest covers all the other fields.
            hop: HopDigest::from_bytes([0; 32]),
            body: opening.body,
        };
        let before = Some(above.opened.hop).filter(|_| !sabotage::on("hops_unlinked"));
        opened.hop = opened.hop_upon(before);
        let path = || self.path(*parent).chain([hop_of(&opened)]).collect::<Vec<_>>().into_iter();
        if let Some(lock) = control.lock_on_opening(&self.tenant, opened.id, now.judge, path) {
            return Err(DelegateRefusal::Locked(lock.lock.id));
        }
        Ok(Fact::TaskOpened(Arc::new(opened)))
    }

    /// Whether a task is smaller than another in every dimension, or as large, and done for the same.
    fn is_smaller(&self, context: &TaskContext, deadline: Timestamp, above: &Task) -> bool {
        let (facts, parent) = (&context.task, &above.opened);
        let ends = self.deadline(parent.id).is_some_and(|latest| deadline <= latest);
        (ends || sabotage::on("children_outlive_parents"))
            && facts.sensitivity_max <= parent.sensitivity_max
            && (facts.purpose == parent.purpose || sabotage::on("purposes_change"))
            && (context.scope.is_within(&parent.scope) || sabotage::on("delegation_widens"))
    }

    /// Whether a request for a task's credential was answered before.
    #[must_use]
    pub fn recall(&self, task: TaskId, request_id: &RequestId, body: &RequestDigest) -> Recall {
        match self.task(task).and_then(|task| task.answered.get(request_id)) {
            None => Recall::New,
            Some(answered) if answered.body == *body || sabotage::on("any_body_is_the_same") => {
                Recall::Same(answered.lease)
            }
            Some(_) => Recall::Other,
        }
    }
}

/// The lease that a permit for exactly these terms renews, if it is for a renewal.
fn renewed_by(permit: &Permit, terms: &Terms) -> Result<Option<LeaseKey>, IssueRefusal> {
    let ask = &permit.request().ask;
    let renews = match ask {
        Ask::IssueCredential { .. } => None,
        Ask::RenewCredential { renews, .. } => Some(*renews),
        Ask::CreateTask(_) | Ask::DelegateTask { .. } | Ask::Operate { .. } => {
            return Err(IssueRefusal::NotPermitted);
        }
    };
    let meant = ask.credential().is_some_and(|(context, credential)| {
        let same = match (&credential.form, &terms.content) {
            (FormFacts::TaskToken { audience, scope, .. }, Content::TaskToken(token)) => {
                *audience == token.audience && *scope == token.scope
            }
            (FormFacts::X509Svid { public_key, .. }, Content::X509Svid(svid)) => {
                *public_key == svid.public_key
            }
            (FormFacts::JwtSvid { audience, .. }, Content::JwtSvid(svid)) => *audience == svid.audience,
            (FormFacts::TaskToken { .. } | FormFacts::X509Svid { .. } | FormFacts::JwtSvid { .. }, _) => {
                false
            }
        };
        same && context.task.id == terms.id.task && credential.holder == terms.holder
    });
    if meant && permit.policy() == terms.policy { Ok(renews) } else { Err(IssueRefusal::NotPermitted) }
}
