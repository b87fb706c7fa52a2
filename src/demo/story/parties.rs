//! Who acts, and what the steps are made of: what each is told, and what came of it.

use std::path::Path;

use brevet_core::request::Sensitivity;

use super::Story;
use crate::demo::message::{Answer, Command, CreateTask, Delegate, Denial, Issue, Permission};
use crate::demo::process::Process;
use crate::demo::{FILES, LEDGER, Problem};

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Party {
    AgentA,
    AgentB,
    /// An agent without a certificate.
    AgentC,
    Orchestrator,
    Operator,
}

impl Party {
    const ALL: [Self; 5] = [Self::AgentA, Self::AgentB, Self::AgentC, Self::Orchestrator, Self::Operator];

    pub(super) const WITH_CERTIFICATE: [Self; 4] =
        [Self::AgentA, Self::AgentB, Self::Orchestrator, Self::Operator];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AgentA => "agent-a",
            Self::AgentB => "agent-b",
            Self::AgentC => "agent-c",
            Self::Orchestrator => "orchestrator",
            Self::Operator => "operator",
        }
    }

    /// A process that acts as this party.
    pub(super) fn start(self, dir: &Path) -> Result<Process, Problem> {
        Process::start(dir, self.name(), &["demo-actor", "--as", self.name()])
    }
}

/// The processes of the parties, in their order.
pub(super) struct Actors([Process; 5]);

impl Actors {
    pub(super) fn start(dir: &Path) -> Result<Self, Problem> {
        let [a, b, c, orchestrator, operator] = Party::ALL.map(|party| party.start(dir));
        Ok(Self([a?, b?, c?, orchestrator?, operator?]))
    }

    pub(super) const fn of(&mut self, party: Party) -> &mut Process {
        let [agent_a, agent_b, agent_c, orchestrator, operator] = &mut self.0;
        match party {
            Party::AgentA => agent_a,
            Party::AgentB => agent_b,
            Party::AgentC => agent_c,
            Party::Orchestrator => orchestrator,
            Party::Operator => operator,
        }
    }
}

/// An agent as the broker knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Workload {
    pub(super) spiffe_id: String,
    pub(super) key_thumbprint: String,
}

/// A token that was issued.
pub(super) struct Issued {
    pub(super) lease: String,
    pub(super) seconds: i64,
    /// When it ends, in milliseconds since the epoch.
    pub(super) end_millis: u64,
}

impl Story {
    pub(super) const fn workload(&self, party: Party) -> Option<&Workload> {
        match party {
            Party::AgentA => Some(&self.agent_a),
            Party::AgentB => Some(&self.agent_b),
            Party::AgentC => Some(&self.agent_c),
            Party::Orchestrator | Party::Operator => None,
        }
    }

    pub(super) async fn ask(&mut self, party: Party, command: &Command) -> Result<Answer, Problem> {
        let actor = self.actors.of(party);
        actor.tell(command).await?;
        actor.hear().await
    }

    /// A task of an agent, bound to its key.
    pub(super) fn task_of(
        &self,
        agent: Party,
        request_id: &str,
        sensitivity_max: Sensitivity,
        scope: Vec<Permission>,
    ) -> Result<Command, Problem> {
        let agent = self.workload(agent).ok_or("only an agent works on a task")?.clone();
        Ok(Command::CreateTask(CreateTask {
            request_id: request_id.to_owned(),
            agent: agent.spiffe_id,
            holder_key_thumbprint: agent.key_thumbprint,
            task_type: "summarise".to_owned(),
            sensitivity_max,
            scope,
        }))
    }

    /// The orchestrator opens a task: its resource name.
    pub(super) async fn open(
        &mut self,
        agent: Party,
        request_id: &str,
        sensitivity_max: Sensitivity,
        scope: Vec<Permission>,
    ) -> Result<String, Problem> {
        let command = self.task_of(agent, request_id, sensitivity_max, scope)?;
        self.opened(Party::Orchestrator, &command).await
    }

    pub(super) async fn opened(&mut self, by: Party, command: &Command) -> Result<String, Problem> {
        match self.ask(by, command).await? {
            Answer::Opened { task } => Ok(task),
            other => Err(unexpected("opening a task", &other)),
        }
    }

    /// A part of a task for another agent, bound to its key.
    pub(super) fn delegation(
        &self,
        parent: &str,
        to: Party,
        request_id: &str,
        part: Permission,
    ) -> Result<Command, Problem> {
        let agent = self.workload(to).ok_or("only an agent works on a task")?.clone();
        Ok(Command::Delegate(Delegate {
            request_id: request_id.to_owned(),
            parent: parent.to_owned(),
            agent: agent.spiffe_id,
            holder_key_thumbprint: agent.key_thumbprint,
            sensitivity_max: Sensitivity::Moderate,
            scope: vec![part],
        }))
    }

    pub(super) async fn complete(&mut self, task: &str) -> Result<u32, Problem> {
        match self.ask(Party::Orchestrator, &Command::Complete { task: task.to_owned() }).await? {
            Answer::Ended { leases_ended, .. } => Ok(leases_ended),
            other => Err(unexpected("completing the task", &other)),
        }
    }

    /// A token for an agent.
    pub(super) async fn issue(&mut self, agent: Party, wanted: Issue) -> Result<Issued, Problem> {
        self.issued(agent, &Command::Issue(wanted)).await
    }

    pub(super) async fn issued(&mut self, agent: Party, command: &Command) -> Result<Issued, Problem> {
        match self.ask(agent, command).await? {
            Answer::Issued { lease, lifetime_seconds, end_seconds } => {
                let end_millis = u64::try_from(end_seconds)?.saturating_mul(1000);
                Ok(Issued { lease, seconds: lifetime_seconds, end_millis })
            }
            other => Err(unexpected("issuing a token", &other)),
        }
    }

    /// What is asked for is refused for this reason; what people are told of it.
    pub(super) async fn denied(
        &mut self,
        party: Party,
        command: &Command,
        expected: &str,
    ) -> Result<String, Problem> {
        match self.ask(party, command).await? {
            Answer::Refused { reason: Some(reason), text, .. } if reason == expected => {
                let caller = self.workload(party).map(|workload| workload.spiffe_id.clone());
                let reason = reason.to_lowercase();
                self.denied.push(Denial { caller, reason, cause: None, policies: Vec::new() });
                Ok(text)
            }
            other => Err(unexpected(&format!("a request to be refused as {expected}"), &other)),
        }
    }
}

/// What went otherwise than it should. A token is never part of it.
pub(super) fn unexpected(what: &str, answer: &Answer) -> Problem {
    let outcome = match answer {
        Answer::Refused { code, reason, text } => {
            format!(
                "refused ({code}{}): {text}",
                reason.as_ref().map_or_else(String::new, |reason| format!(", {reason}"))
            )
        }
        Answer::Failed(problem) => format!("failed: {problem}"),
        Answer::Called { status, .. } => format!("status {status}"),
        Answer::Proven { .. }
        | Answer::Opened { .. }
        | Answer::Ended { .. }
        | Answer::Issued { .. }
        | Answer::SvidIssued { .. }
        | Answer::Locked { .. }
        | Answer::Lifted
        | Answer::Denials(_)
        | Answer::Leaked { .. } => "granted".to_owned(),
    };
    format!("{what}: {outcome}").into()
}

pub(super) fn permission(audience: &str, resource: &str, action: &str) -> Permission {
    Permission { audience: audience.to_owned(), resource: resource.to_owned(), action: action.to_owned() }
}

/// Everything of the report that the first task is about.
pub(super) fn report() -> Permission {
    permission(FILES, "reports/q3/**", "read")
}

/// A part of that report.
pub(super) fn figures() -> Permission {
    permission(FILES, "reports/q3/figures", "read")
}

/// A part of another report.
pub(super) fn other_figures() -> Permission {
    permission(FILES, "reports/q4/figures", "read")
}

pub(super) fn entry() -> Permission {
    permission(LEDGER, "entries/7", "read")
}

pub(super) fn issue(request_id: &str, task: &str, permission: Permission) -> Issue {
    Issue {
        request_id: request_id.to_owned(),
        task: task.to_owned(),
        permission,
        lifetime_seconds: None,
        prompt_origin: None,
    }
}
