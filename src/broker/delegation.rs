//! Delegation: an agent opens a task below its own, for another agent. Every hop is a decision of its own, and
//! privileges only shrink.

use std::time::Duration;

use brevet_core::control::Control;
use brevet_core::digest::{RequestDigest, Thumbprint};
use brevet_core::fact::Holder;
use brevet_core::id::TaskId;
use brevet_core::ledger::{DelegateRefusal, Ledger, Opening};
use brevet_core::name::{RequestId, TaskType};
use brevet_core::proof::Caller;
use brevet_core::registry::Registry;
use brevet_core::request::{
    Ask, CallerFacts, DelegateFacts, PromptOrigin, Request, Sensitivity, TaskContext, TaskFacts,
};
use brevet_core::revision::{Basis, Revision};
use brevet_core::sabotage;
use brevet_core::scope::Scope;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::{Now, Timestamp};
use serde::Serialize;

use super::credential::{holds, permitted};
use super::lock::killer;
use super::task::below_ceiling;
use super::{Broker, Kind, Opened, Possession, Refusal, belongs, body_of};
use crate::metrics::DecisionOutcome;

/// What is asked for when a task is delegated. Its JSON form is the request's body.
#[derive(Debug, Clone, Serialize)]
pub struct DelegationAsk {
    /// The caller's own task.
    pub parent: TaskId,
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// The agent that will work on the new task.
    pub agent: SpiffeId,
    /// Its type; the parent's if it is not said.
    pub task_type: Option<TaskType>,
    /// The most sensitive thing it may touch; what the parent may if it is not said.
    pub sensitivity_max: Option<Sensitivity>,
    /// Its ceiling.
    pub scope: Scope,
    /// How long it may live.
    pub lifetime: Option<Duration>,
    /// The agent instance it is bound to; none for a one-time claim.
    pub holder_key: Option<Thumbprint>,
    /// Where the caller says that its instruction came from.
    pub prompt_origin: Option<PromptOrigin>,
}

/// The child as it would be opened, and what that was read from.
struct Drawn {
    facts: TaskFacts,
    parents_type: TaskType,
    deadline: Timestamp,
    prompt_origin: Option<PromptOrigin>,
    version: Revision,
}

impl Broker {
    /// Opens a task below one of the caller's own.
    ///
    /// # Errors
    /// [`Refusal`]; no task was opened then.
    pub async fn delegate_task(
        &self,
        caller: &Caller,
        ask: DelegationAsk,
        possession: Possession,
    ) -> Result<Opened, Refusal> {
        let body = body_of("DelegateTask", &ask);
        let task = match self.decide(|| self.try_delegate(caller, &ask, body, &possession)) {
            Ok(task) => task,
            Err(refusal) => {
                if refusal.kind != Kind::NotFound {
                    self.settle(ask.parent.root()).await?;
                }
                return Err(refusal);
            }
        };
        let view = self.task_view(task).await?.ok_or_else(Refusal::not_found)?;
        let claim = match view.opened.holder {
            Holder::Key(_) => None,
            Holder::Claim(_) => Some(self.state_key.claim(task)),
        };
        Ok(Opened { task: view, claim })
    }

    fn try_delegate(
        &self,
        caller: &Caller,
        ask: &DelegationAsk,
        body: RequestDigest,
        possession: &Possession,
    ) -> Result<TaskId, Refusal> {
        // 1. Who asks, and under what.
        let now = self.minting_clock()?;
        let in_force = self.table.in_force();
        let (control, registry) = (&in_force.control, in_force.registry());
        let who = self.facts_of(caller, &in_force, now)?;

        // 2. The parent is the caller's, and bound to the key it proved. A retry finds its task by the id that the
        //    same request always gets.
        let root = ask.parent.root();
        let task = self
            .state_key
            .child_task_id(ask.parent, &ask.request_id)
            .ok_or_else(Refusal::request_id_reused)?;
        let drawn = self.table.view(root, |ledger| {
            holds(ledger, ask.parent, &who, possession)?;
            match ledger.task(task) {
                Some(before) if before.opened().body == body => Ok(None),
                Some(_) => Err(Refusal::request_id_reused()),
                None => self.draw_child(ledger, ask, task, control, now).map(Some),
            }
        });
        let Some(drawn) = drawn.ok_or_else(Refusal::not_found)?? else { return Ok(task) };

        // 3. The registry lets the caller hand this on, and the other agent have it.
        registered(registry, &who, ask, &drawn)?;

        // 4. Policy decides.
        let context = TaskContext {
            task: drawn.facts,
            scope: ask.scope.clone(),
            prompt_origin: PromptOrigin::judged(drawn.prompt_origin, ask.prompt_origin),
        };
        let delegate = DelegateFacts { tenant: who.tenant.clone(), roles: registry.roles(&ask.agent) };
        let request = Request {
            caller: who.clone(),
            ask: Ask::DelegateTask { context, parent: ask.parent, delegate },
            time: now.judge,
            basis: Basis { tree: drawn.version, control: control.revision() },
        };
        let permit = permitted(&in_force, request)?;

        // 5. The ledger opens it below its parent, if it is smaller in every dimension.
        let reserved = self.table.openers().task(&who.spiffe_id)?;
        let opening = Opening {
            deadline: drawn.deadline,
            holder: self.holder(ask.holder_key, task),
            prompt_origin: ask.prompt_origin,
            body,
        };
        let envelope = self.envelope(now, Some(&who), Some(root), Some(&ask.request_id));
        let limits = self.limits.tree_limits();
        let opened = self.table.commit(root, &envelope, Some(permit.evidence()), |ledger, in_force| {
            let fact = ledger.delegate(&permit, opening, &in_force.control, now, limits);
            fact.map(|fact| (Some(fact), ()))
                .map_err(|refusal| Refusal::from(refusal).with_message(&in_force.control))
        });
        let _waited_for_at_reading = opened?;
        reserved.keep();
        self.metrics.decided(DecisionOutcome::Permitted);
        Ok(task)
    }

    /// The child of a live parent.
    fn draw_child(
        &self,
        ledger: &Ledger,
        ask: &DelegationAsk,
        id: TaskId,
        control: &Control,
        now: Now,
    ) -> Result<Drawn, Refusal> {
        if let Some(ending) = ledger.task_ending(ask.parent, control, now.judge) {
            let closed = DelegateRefusal::TaskClosed(ending).into();
            return Err(Refusal { lock: killer(ledger, ask.parent, control), ..closed }.with_message(control));
        }
        let parent = ledger.facts(ask.parent, control, now).ok_or_else(Refusal::not_found)?;
        let opened = ledger.task(ask.parent).ok_or_else(Refusal::not_found)?.opened();
        if !sabotage::on("delegation_widens") {
            opened.scope.narrow(ask.scope.clone())?;
        }
        let (default, max) = (self.limits.task_lifetime_default(), self.limits.task_lifetime_max());
        let end = ledger.deadline(ask.parent).ok_or_else(Refusal::not_found)?;
        // Asked for or not, it ends with its parent at the latest.
        let own = now.issue.after(super::lifetime(ask.lifetime, default, max)).floor_to_second();
        let deadline = if sabotage::on("children_outlive_parents") { own } else { own.min(end) };
        Ok(Drawn {
            facts: TaskFacts {
                id,
                task_type: ask.task_type.clone().unwrap_or_else(|| parent.task_type.clone()),
                // A part is done for what the whole is done for.
                purpose: parent.purpose,
                sensitivity_max: ask.sensitivity_max.unwrap_or(parent.sensitivity_max),
                agent: ask.agent.clone(),
                delegator: parent.delegator,
                opener: parent.agent,
                chain: parent.chain.into_iter().chain([ask.agent.clone()]).collect(),
                depth: parent.depth.saturating_add(1),
                age_seconds: 0,
                remaining_seconds: deadline.since(now.judge).as_secs(),
                leases_live: 0,
            },
            deadline,
            parents_type: parent.task_type,
            prompt_origin: opened.prompt_origin,
            version: ledger.version(),
        })
    }
}

/// An agent hands on its task's own type, or one that it is registered for, to an agent of its tenant. The ceilings of today
/// hold for both, or what was taken from an agent it could still have done by another.
fn registered(
    registry: &Registry,
    who: &CallerFacts,
    ask: &DelegationAsk,
    drawn: &Drawn,
) -> Result<(), Refusal> {
    let text = "the caller is not registered as an agent";
    let own = registry.agent(&who.spiffe_id);
    let own = own.ok_or_else(|| Refusal::new(Kind::Denied, "not_registered", text))?;
    // Policies permit by the type of a task: if agents could choose it, they would choose what they are permitted.
    let wanted = &drawn.facts.task_type;
    if *wanted != drawn.parents_type && !own.delegates.contains(wanted) && !sabotage::on("types_change") {
        let text = "the caller may not delegate tasks of another type";
        return Err(Refusal::new(Kind::Denied, "task_type_widens", text));
    }
    let not_registered =
        || Refusal::new(Kind::Denied, "not_registered", "the caller may not delegate to the agent");
    let agent = registry
        .agent(&ask.agent)
        .filter(|_| belongs(registry, &ask.agent, &who.tenant))
        .ok_or_else(not_registered)?;
    if !sabotage::on("agents_hand_on_what_was_taken") {
        below_ceiling(own, drawn.facts.sensitivity_max, &ask.scope)?;
    }
    below_ceiling(agent, drawn.facts.sensitivity_max, &ask.scope)
}
