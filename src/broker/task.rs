//! Opening, showing and ending tasks.

use std::time::Duration;

use brevet_core::digest::{ClaimDigest, RequestDigest, Thumbprint};
use brevet_core::fact::{Holder, Outcome, ReasonCode, TaskOpened};
use brevet_core::id::{RootTaskId, TaskId};
use brevet_core::ledger::{End, EndRefusal, Ending, Ledger, Opening};
use brevet_core::name::{PurposeCode, RequestId, TaskType, TenantName};
use brevet_core::proof::Caller;
use brevet_core::registry::{Agent, Registry};
use brevet_core::request::{Ask, CallerFacts, PromptOrigin, Request, Sensitivity, TaskContext, TaskFacts};
use brevet_core::revision::{Basis, Revision};
use brevet_core::scope::Scope;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::{Now, Timestamp};
use brevet_policy::Decision;
use serde::Serialize;
use std::sync::Arc;

use super::{Broker, Kind, Refusal, belongs, body_of, denied, may_see};
use crate::metrics::DecisionOutcome;
use crate::table::InForce;

/// What is asked for when a task is opened. Its JSON form is the request's body.
#[derive(Debug, Clone, Serialize)]
pub struct TaskAsk {
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// The agent that will work on it.
    pub agent: SpiffeId,
    /// Its type.
    pub task_type: TaskType,
    /// Why it is done.
    pub purpose: PurposeCode,
    /// The most sensitive thing it may touch.
    pub sensitivity_max: Sensitivity,
    /// Where the caller says that the instruction came from.
    pub prompt_origin: Option<PromptOrigin>,
    /// Its ceiling.
    pub scope: Scope,
    /// How long it may live.
    pub lifetime: Option<Duration>,
    /// The agent instance it is bound to; none for a one-time claim.
    pub holder_key: Option<Thumbprint>,
}

/// A task as it is shown.
#[derive(Debug, Clone)]
pub struct TaskView {
    /// How it was opened.
    pub opened: Arc<TaskOpened>,
    /// Its tenant.
    pub tenant: TenantName,
    /// The parent task, if it has one.
    pub parent: Option<TaskId>,
    /// How it ended; none while it lives.
    pub ending: Option<Ending<Outcome>>,
    /// Its live leases.
    pub leases_live: u32,
    /// The last change of its tree.
    pub revision: Revision,
}

/// A task that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The task.
    pub task: TaskView,
    /// The one-time claim, where the task is not bound to a key yet.
    pub claim: Option<String>,
}

/// A task that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The task.
    pub task: TaskView,
    /// How many live leases ended with it.
    pub leases_ended: u32,
}

/// Which tasks are listed.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Of this agent only.
    pub agent: Option<SpiffeId>,
    /// In this state only: the inner none is live.
    pub state: Option<Option<Outcome>>,
    /// Behind this task.
    pub after: Option<TaskId>,
    /// At most so many.
    pub limit: usize,
}

impl Broker {
    /// Opens a root task.
    ///
    /// # Errors
    /// [`Refusal`]; no task was opened then.
    pub async fn create_task(&self, caller: &Caller, ask: TaskAsk) -> Result<Opened, Refusal> {
        let body = body_of("CreateTask", &ask);
        let root = match self.decide(|| self.try_create_task(caller, &ask, body)) {
            Ok(root) => root,
            Err(refusal) => {
                // A refusal tells of the task that has the request's id already.
                let now = self.clock.now();
                let who = self.facts_of(caller, &self.table.in_force(), now)?;
                if let Some(root) = self.opened_before(&who, &ask.request_id, now) {
                    self.settle(root).await?;
                }
                return Err(refusal);
            }
        };
        let task = self.task_view(TaskId::root_of(root)).await?.ok_or_else(Refusal::not_found)?;
        let claim = match task.opened.holder {
            Holder::Key(_) => None,
            Holder::Claim(_) => Some(self.state_key.claim(task.opened.id)),
        };
        Ok(Opened { task, claim })
    }

    fn try_create_task(
        &self,
        caller: &Caller,
        ask: &TaskAsk,
        body: RequestDigest,
    ) -> Result<RootTaskId, Refusal> {
        // 1. Who asks, and under what.
        let now = self.minting_clock()?;
        let in_force = self.table.in_force();
        let who = self.facts_of(caller, &in_force, now)?;

        // 2. A retry finds its task by the id that the same request gets on the same day.
        if let Some(root) = self.opened_before(&who, &ask.request_id, now) {
            let same = |ledger: &Ledger| {
                ledger.task(TaskId::root_of(root)).is_some_and(|task| task.opened().body == body)
            };
            let same = self.table.view(root, same).ok_or_else(Refusal::conflict)?;
            return if same { Ok(root) } else { Err(Refusal::request_id_reused()) };
        }
        let root = self.state_key.root_task_id(&who.tenant, &who.spiffe_id, &ask.request_id, now.issue.day());
        let task = TaskId::root_of(root);

        // 3. The registry knows the agent, and the caller may open such tasks for it.
        registered(in_force.registry(), &who, ask)?;

        // 4. Policy decides.
        let lifetime = super::lifetime(
            ask.lifetime,
            self.limits.task_lifetime_default(),
            self.limits.task_lifetime_max(),
        );
        let deadline = now.issue.after(lifetime).floor_to_second();
        let request = request_to_open(&in_force, who.clone(), ask, task, deadline, now);
        let permit = match in_force.policies().decide(request) {
            Decision::Permit(permit) => permit,
            Decision::Deny(denial) => return Err(denied(denial)),
        };

        // 5. The ledger opens it, and the journal has it before anything else can happen in it.
        let reserved = self.table.openers().task(&who.spiffe_id)?;
        let holder = self.holder(ask.holder_key, task);
        let opening = Opening { deadline, holder, prompt_origin: ask.prompt_origin, body };
        let envelope = self.envelope(now, Some(&who), Some(root), Some(&ask.request_id));
        let opened = self.table.open(root, &envelope, permit.evidence(), |in_force| {
            let fact = Ledger::open(&permit, opening, &in_force.control, now);
            fact.map_err(|refusal| Refusal::from(refusal).with_message(&in_force.control))
        });
        let _waited_for_at_reading = opened?;
        reserved.keep();
        self.metrics.decided(DecisionOutcome::Permitted);
        Ok(root)
    }

    /// The task that a caller opened under a request id, on whichever day, if it is still kept.
    fn opened_before(&self, who: &CallerFacts, request_id: &RequestId, now: Now) -> Option<RootTaskId> {
        let today = now.issue.day();
        (today.saturating_sub(self.limits.days_kept())..=today)
            .rev()
            .map(|day| self.state_key.root_task_id(&who.tenant, &who.spiffe_id, request_id, day))
            .find(|root| self.table.view(*root, |_| ()).is_some())
    }

    /// The agent instance that a task is opened for: the one with the key, or the first to redeem the claim.
    pub(super) fn holder(&self, key: Option<Thumbprint>, task: TaskId) -> Holder {
        let claim = || ClaimDigest::of(&[self.state_key.claim(task).as_bytes()]);
        key.map_or_else(|| Holder::Claim(claim()), Holder::Key)
    }

    /// Shows a task to whoever may see it.
    ///
    /// # Errors
    /// [`Refusal`]; unknown and foreign are the same.
    pub async fn get_task(&self, caller: &Caller, task: TaskId) -> Result<TaskView, Refusal> {
        self.seen(caller, task)?;
        self.task_view(task).await?.ok_or_else(Refusal::not_found)
    }

    /// Lists the tasks that the caller may see, in the order of their ids.
    ///
    /// # Errors
    /// [`Refusal`] if the caller is nobody or the journal is sealed.
    pub async fn list_tasks(&self, caller: &Caller, filter: TaskFilter) -> Result<Vec<TaskView>, Refusal> {
        let now = self.clock.now();
        let who = self.facts_of(caller, &self.table.in_force(), now)?;

        // 1. Which tasks. That walks every tree, so only few do it at once, and none on a thread that serves calls.
        let turn = self.list_turn(caller, &who.tenant).await?;
        let found = tokio::task::block_in_place(|| {
            self.table.read_all(|ledger, in_force| {
                let found: Vec<TaskId> = ledger
                    .tasks()
                    .filter(|task| filter.after.is_none_or(|after| task.opened().id > after))
                    .filter(|task| filter.agent.as_ref().is_none_or(|agent| task.opened().agent == *agent))
                    .map(|task| task.opened().id)
                    .filter(|task| may_see(ledger, *task, &who))
                    .filter(|task| {
                        let ending = ledger.task_ending(*task, &in_force.control, now.judge);
                        filter.state.is_none_or(|wanted| ending.map(|ending| ending.outcome) == wanted)
                    })
                    .collect();
                (!found.is_empty()).then_some(found)
            })
        });
        drop(turn);

        // 2. The first of them, as they are now.
        let mut found: Vec<TaskId> = self.table.durable(found).await?.into_iter().flatten().collect();
        found.sort_unstable();
        found.truncate(filter.limit);
        let mut tasks = Vec::with_capacity(found.len());
        for task in found {
            tasks.extend(self.task_view(task).await?);
        }
        Ok(tasks)
    }

    /// Ends a task and everything below it. To end it twice in the same way is to end it once.
    ///
    /// # Errors
    /// [`Refusal`]; the task goes on, or had ended in another way.
    pub async fn end_task(
        &self,
        caller: &Caller,
        task: TaskId,
        outcome: Outcome,
        reason: ReasonCode,
    ) -> Result<Ended, Refusal> {
        // 1. The caller may see it, and is its owner or, to complete or fail it, its agent.
        let who = self.seen(caller, task)?;
        let may_end = self.table.view(task.root(), |ledger| {
            let agent = ledger.task(task).is_some_and(|task| task.opened().agent == who.spiffe_id);
            ledger.is_owner(task, &who.spiffe_id) || (agent && outcome != Outcome::Cancelled)
        });
        if may_end != Some(true) {
            return Err(Refusal::new(Kind::Denied, "not_owner", "only an owner may end the task so"));
        }

        // 2. One fact ends it, however large the tree below it is.
        let ended = self.decide(|| {
            let now = self.clock.now();
            let envelope = self.envelope(now, Some(&who), Some(task.root()), None);
            let ended = self.table.commit(task.root(), &envelope, None, |ledger, in_force| {
                match ledger.end(task, outcome, reason.clone(), &in_force.control, now.judge)? {
                    End::Now(fact, leases) => Ok((Some(fact), Some(leases))),
                    End::Already => Ok::<_, EndRefusal>((None, None)),
                }
            });
            Ok(ended?)
        });
        let ended = match ended {
            Ok(ended) => ended,
            Err(refusal) => {
                self.settle(task.root()).await?;
                return Err(refusal);
            }
        };

        // 3. The answer waits until the ending, this one or the one before, cannot be lost.
        let leases_ended = self.table.durable(ended).await?;
        if leases_ended.is_some() {
            self.metrics.ended("task", outcome.as_str(), 1);
        }
        let task = self.task_view(task).await?.ok_or_else(Refusal::not_found)?;
        Ok(Ended { task, leases_ended: leases_ended.unwrap_or(0) })
    }

    /// The caller, if it may see the task.
    pub(super) fn seen(&self, caller: &Caller, task: TaskId) -> Result<CallerFacts, Refusal> {
        let who = self.facts_of(caller, &self.table.in_force(), self.clock.now())?;
        match self.table.view(task.root(), |ledger| may_see(ledger, task, &who)) {
            Some(true) => Ok(who),
            Some(false) | None => Err(Refusal::not_found()),
        }
    }

    pub(super) async fn task_view(&self, task: TaskId) -> Result<Option<TaskView>, Refusal> {
        let now = self.clock.now();
        let Some(view) =
            self.table.read(task.root(), |ledger, in_force| view_of(ledger, task, in_force, now))
        else {
            return Ok(None);
        };
        let view = self.table.durable(view).await?;
        if view.as_ref().is_some_and(|view| view.ending.is_some()) {
            self.settle(task.root()).await?;
        }
        Ok(view)
    }
}

fn view_of(ledger: &Ledger, id: TaskId, in_force: &InForce, now: Now) -> Option<TaskView> {
    let task = ledger.task(id)?;
    let parent = task
        .opened()
        .parent
        .map(|node| TaskId::child_of(id.root(), node).unwrap_or_else(|_| TaskId::root_of(id.root())));
    Some(TaskView {
        opened: Arc::clone(task.opened()),
        tenant: ledger.tenant().clone(),
        parent,
        ending: ledger.task_ending(id, &in_force.control, now.judge),
        leases_live: ledger.leases_live(id, &in_force.control, now.judge),
        revision: ledger.version().max(in_force.control.revision()),
    })
}

/// An agent opens tasks for itself alone, an orchestrator what it is registered for; both stay below the agent's
/// ceiling.
fn registered(registry: &Registry, who: &CallerFacts, ask: &TaskAsk) -> Result<(), Refusal> {
    let not_registered =
        || Refusal::new(Kind::Denied, "not_registered", "the caller may not open such a task for the agent");
    let agent = registry
        .agent(&ask.agent)
        .filter(|_| belongs(registry, &ask.agent, &who.tenant))
        .ok_or_else(not_registered)?;
    let may_open = registry.orchestrator(&who.spiffe_id).map_or(who.spiffe_id == ask.agent, |orchestrator| {
        orchestrator.task_types.contains(&ask.task_type) && orchestrator.agents.contains(&ask.agent)
    });
    if !may_open {
        return Err(not_registered());
    }
    below_ceiling(agent, ask.sensitivity_max, &ask.scope)
}

/// Whatever an agent gets lies below what the registry would ever give it.
pub(super) fn below_ceiling(
    agent: &Agent,
    sensitivity_max: Sensitivity,
    scope: &Scope,
) -> Result<(), Refusal> {
    if sensitivity_max > agent.sensitivity_max {
        let text = "more sensitive than the agent's ceiling";
        return Err(Refusal::new(Kind::Denied, "sensitivity_widens", text));
    }
    agent.scope.narrow(scope.clone())?;
    Ok(())
}

fn request_to_open(
    in_force: &InForce,
    who: CallerFacts,
    ask: &TaskAsk,
    id: TaskId,
    deadline: Timestamp,
    now: Now,
) -> Request {
    // What an agent says of a task that it opens for itself counts as the agent's word, not as an orchestrator's.
    let by_orchestrator = ask.prompt_origin.filter(|_| who.spiffe_id != ask.agent);
    let task = TaskFacts {
        id,
        task_type: ask.task_type.clone(),
        purpose: ask.purpose.clone(),
        sensitivity_max: ask.sensitivity_max,
        agent: ask.agent.clone(),
        // With no grant, a task is done on behalf of the workload that opens it.
        delegator: who.spiffe_id.clone(),
        opener: who.spiffe_id.clone(),
        chain: vec![ask.agent.clone()],
        depth: 0,
        age_seconds: 0,
        remaining_seconds: deadline.since(now.judge).as_secs(),
        leases_live: 0,
    };
    Request {
        caller: who,
        ask: Ask::CreateTask(TaskContext {
            task,
            scope: ask.scope.clone(),
            prompt_origin: PromptOrigin::judged(by_orchestrator, ask.prompt_origin),
        }),
        time: now.judge,
        basis: Basis { tree: Revision::ZERO, control: in_force.control.revision() },
    }
}
