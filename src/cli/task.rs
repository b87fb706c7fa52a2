//! `brevet task`: opens tasks, delegates them, reads them and ends them.

use std::path::{Path, PathBuf};

use brevet_api::v1;
use brevet_core::digest::Thumbprint;
use brevet_core::fact::ReasonCode;
use brevet_core::id::TaskId;
use brevet_core::name::{PurposeCode, RequestId, TaskType};
use brevet_core::scope::Scope;
use brevet_core::spiffe_id::SpiffeId;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::connection::{Client, Session};
use super::exit::Failure;
use super::holder::Holder;
use super::output::{self, Row};
use super::wire::{self, NotUnderstood, ScopeOptions};
use super::{Exit, request_id, secret};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    client: Client,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Open a task.
    Create(Box<Create>),
    /// Open a task below one of the caller's own, for another agent.
    Delegate(Box<Delegate>),
    /// Read a task.
    Get {
        /// Its resource name, tasks/{id}.
        #[arg(value_parser = TaskId::from_name)]
        task: TaskId,
    },
    /// List the tasks that the caller may see.
    List(List),
    /// End a task whose objective was reached.
    Complete(End),
    /// End a task whose objective was not reached.
    Fail(End),
    /// End a task that is no longer wanted.
    Cancel(End),
}

#[derive(Debug, Args)]
struct Create {
    /// The SPIFFE ID of the agent that will work on it.
    #[arg(long, value_name = "SPIFFEID")]
    agent: SpiffeId,
    /// Its type, as the registry knows it.
    #[arg(id = "type", long = "type", value_name = "TYPE", value_parser = TaskType::parse)]
    task_type: TaskType,
    /// A code for why it is done.
    #[arg(long, value_name = "CODE", value_parser = PurposeCode::parse)]
    purpose: PurposeCode,
    /// The most sensitive thing it may touch.
    #[arg(long, value_name = "LEVEL", value_parser = wire::SENSITIVITIES.parser())]
    sensitivity_max: v1::Sensitivity,
    /// Where its instruction came from; not said means untrusted.
    #[arg(long, value_name = "ORIGIN", value_parser = wire::PROMPT_ORIGINS.parser())]
    prompt_origin: Option<v1::PromptOrigin>,
    #[command(flatten)]
    scope: ScopeOptions,
    /// Seconds that it may last.
    #[arg(long, value_name = "SECONDS")]
    lifetime_seconds: Option<u64>,
    /// The RFC 7638 thumbprint of the agent's key. Without it a one-time claim is answered with, for the agent.
    #[arg(long, value_name = "THUMBPRINT", allow_hyphen_values = true)]
    holder_key_thumbprint: Option<Thumbprint>,
    /// Put the claim into this file, for its owner alone, and not into the answer.
    #[arg(long, value_name = "FILE", conflicts_with = "holder_key_thumbprint")]
    claim_file: Option<PathBuf>,
    /// The name by which a repetition is recognised; a random one if not given.
    #[arg(long, value_name = "ID", value_parser = RequestId::parse)]
    request_id: Option<RequestId>,
}

#[derive(Debug, Args)]
struct Delegate {
    /// The caller's own task, tasks/{id}.
    #[arg(value_parser = TaskId::from_name)]
    parent: TaskId,
    /// The SPIFFE ID of the agent that will work on the new one.
    #[arg(long, value_name = "SPIFFEID")]
    agent: SpiffeId,
    /// Its type; the parent's if not given. For another the registry must let the caller hand it on.
    #[arg(id = "type", long = "type", value_name = "TYPE", value_parser = TaskType::parse)]
    task_type: Option<TaskType>,
    /// The most sensitive thing it may touch; what the parent may if not given.
    #[arg(long, value_name = "LEVEL", value_parser = wire::SENSITIVITIES.parser())]
    sensitivity_max: Option<v1::Sensitivity>,
    /// Where the instruction came from that is followed here; it only makes the parent's worse.
    #[arg(long, value_name = "ORIGIN", value_parser = wire::PROMPT_ORIGINS.parser())]
    prompt_origin: Option<v1::PromptOrigin>,
    #[command(flatten)]
    scope: ScopeOptions,
    /// Seconds that it may last; it ends with its parent at the latest.
    #[arg(long, value_name = "SECONDS")]
    lifetime_seconds: Option<u64>,
    #[command(flatten)]
    holder: Holder,
    /// The RFC 7638 thumbprint of the other agent's key. Without it a one-time claim is answered with, for that agent.
    #[arg(long, value_name = "THUMBPRINT", allow_hyphen_values = true)]
    holder_key_thumbprint: Option<Thumbprint>,
    /// Put the claim into this file, for its owner alone, and not into the answer.
    #[arg(long, value_name = "FILE", conflicts_with = "holder_key_thumbprint")]
    claim_file: Option<PathBuf>,
    /// The name by which a repetition is recognised; a random one if not given.
    #[arg(long, value_name = "ID", value_parser = RequestId::parse)]
    request_id: Option<RequestId>,
}

#[derive(Debug, Args)]
struct List {
    /// Only those in this state.
    #[arg(long, value_parser = wire::STATES.parser())]
    state: Option<v1::task::State>,
    /// Only those of this agent.
    #[arg(long, value_name = "SPIFFEID")]
    agent: Option<SpiffeId>,
}

#[derive(Debug, Args)]
struct End {
    /// Its resource name, tasks/{id}.
    #[arg(value_parser = TaskId::from_name)]
    task: TaskId,
    /// A code for why.
    #[arg(long, value_name = "CODE", value_parser = ReasonCode::parse)]
    reason: Option<ReasonCode>,
}

impl End {
    fn parts(self) -> (String, String) {
        (self.task.name(), self.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default())
    }
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let Arguments { client, command } = arguments;
    client.run(async |session| match command {
        Command::Create(create) => create.run(session).await,
        Command::Delegate(delegate) => delegate.run(session).await,
        Command::Get { task } => {
            let request = v1::GetTaskRequest { name: task.name() };
            let task = session.broker.tasks().get_task(request).await?.into_inner();
            output::one(session.output, &Task::try_from(task)?)
        }
        Command::List(list) => list.run(session).await,
        Command::Complete(end) => {
            let (name, reason) = end.parts();
            let request = v1::CompleteTaskRequest { name, reason };
            let answer = session.broker.tasks().complete_task(request).await?.into_inner();
            ended(&session, answer.task, answer.leases_ended, answer.revision)
        }
        Command::Fail(end) => {
            let (name, reason) = end.parts();
            let request = v1::FailTaskRequest { name, reason };
            let answer = session.broker.tasks().fail_task(request).await?.into_inner();
            ended(&session, answer.task, answer.leases_ended, answer.revision)
        }
        Command::Cancel(end) => {
            let (name, reason) = end.parts();
            let request = v1::CancelTaskRequest { name, reason };
            let answer = session.broker.tasks().cancel_task(request).await?.into_inner();
            ended(&session, answer.task, answer.leases_ended, answer.revision)
        }
    })
}

impl Create {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let request_id = self.request_id.clone().map_or_else(request_id, Ok)?;
        let request = v1::CreateTaskRequest {
            request_id: request_id.to_string(),
            agent: self.agent.to_string(),
            task_type: self.task_type.to_string(),
            purpose: self.purpose.to_string(),
            sensitivity_max: self.sensitivity_max.into(),
            prompt_origin: self.prompt_origin.unwrap_or_default().into(),
            scope: wire::permissions(&self.scope.read()?),
            lifetime: self.lifetime_seconds.map(wire::seconds),
            holder_key_thumbprint: self.holder_key_thumbprint.map(|it| it.to_string()),
        };
        let opened = async {
            let answer = session.broker.tasks().create_task(request).await?.into_inner();
            Opened::take(&request_id, answer.task, answer.claim, self.claim_file.as_deref())
        };
        shown(&session, &request_id, opened.await)
    }
}

impl Delegate {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let request_id = self.request_id.clone().map_or_else(request_id, Ok)?;
        let request = v1::DelegateTaskRequest {
            parent: self.parent.name(),
            request_id: request_id.to_string(),
            agent: self.agent.to_string(),
            task_type: self.task_type.as_ref().map(ToString::to_string).unwrap_or_default(),
            sensitivity_max: self.sensitivity_max.unwrap_or_default().into(),
            scope: wire::permissions(&self.scope.read()?),
            lifetime: self.lifetime_seconds.map(wire::seconds),
            holder_key_thumbprint: self.holder_key_thumbprint.map(|it| it.to_string()),
            dpop_proof: self.holder.proof(&session.endpoint, "DelegateTask")?,
            prompt_origin: self.prompt_origin.unwrap_or_default().into(),
        };
        let opened = async {
            let answer = session.broker.credentials().delegate_task(request).await?.into_inner();
            Opened::take(&request_id, answer.task, answer.claim, self.claim_file.as_deref())
        };
        shown(&session, &request_id, opened.await)
    }
}

/// Shows what was opened. With the request id, a repetition gets the same task.
fn shown(session: &Session, request_id: &RequestId, opened: Result<Opened, Failure>) -> Result<(), Failure> {
    let opened = opened.map_err(|failure| failure.about(&format!("request {request_id}")))?;
    output::one(session.output, &opened)
}

impl List {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let mut request = v1::ListTasksRequest {
            page_size: 0,
            page_token: String::new(),
            state: self.state.unwrap_or_default().into(),
            agent: self.agent.map(|agent| agent.to_string()).unwrap_or_default(),
        };
        let mut tasks = Vec::new();
        loop {
            let page = session.broker.tasks().list_tasks(request.clone()).await?.into_inner();
            for task in page.tasks {
                tasks.push(Task::try_from(task)?);
            }
            if page.next_page_token.is_empty() {
                return output::many(session.output, &tasks);
            }
            request.page_token = page.next_page_token;
        }
    }
}

fn ended(session: &Session, task: Option<v1::Task>, leases_ended: u32, revision: u64) -> Result<(), Failure> {
    let task = Task::try_from(task.ok_or(NotUnderstood)?)?;
    output::one(session.output, &Ended { task, leases_ended, revision })
}

#[derive(Serialize)]
struct Task {
    name: String,
    tenant: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent: String,
    agent: String,
    delegator: String,
    opener: String,
    task_type: String,
    purpose: String,
    sensitivity_max: Option<&'static str>,
    prompt_origin: Option<&'static str>,
    scope: Scope,
    create_time: String,
    deadline: String,
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    end_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    end_reason: String,
    live_leases: u32,
    revision: u64,
}

impl TryFrom<v1::Task> for Task {
    type Error = NotUnderstood;
    fn try_from(wire: v1::Task) -> Result<Self, NotUnderstood> {
        Ok(Self {
            sensitivity_max: wire::SENSITIVITIES.word(wire.sensitivity_max),
            prompt_origin: wire::PROMPT_ORIGINS.word(wire.prompt_origin),
            scope: wire::scope(wire.scope)?,
            create_time: wire::time(wire.create_time.as_ref()),
            deadline: wire::time(wire.deadline.as_ref()),
            state: wire::STATES.word(wire.state).ok_or(NotUnderstood)?,
            end_time: wire::time(wire.end_time.as_ref()),
            name: wire.name,
            tenant: wire.tenant,
            parent: wire.parent,
            agent: wire.agent,
            delegator: wire.delegator,
            opener: wire.opener,
            task_type: wire.task_type,
            purpose: wire.purpose,
            end_reason: wire.end_reason,
            live_leases: wire.live_leases,
            revision: wire.revision,
        })
    }
}

impl Row for Task {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STATE", "AGENT", "TYPE", "LEASES", "DEADLINE", "ENDED", "REASON"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.to_owned(),
            self.agent.clone(),
            self.task_type.clone(),
            self.live_leases.to_string(),
            self.deadline.clone(),
            self.end_time.clone(),
            self.end_reason.clone(),
        ]
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

#[derive(Serialize)]
struct Opened {
    request_id: String,
    task: Task,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
}

impl Opened {
    /// Takes what was opened, and puts the claim into a file if it belongs there.
    fn take(
        request_id: &RequestId,
        task: Option<v1::Task>,
        mut claim: Option<String>,
        claim_file: Option<&Path>,
    ) -> Result<Self, Failure> {
        if let (Some(path), Some(secret)) = (claim_file, &claim) {
            secret::write(path, secret)?;
            claim = None;
        }
        Ok(Self {
            request_id: request_id.to_string(),
            task: Task::try_from(task.ok_or(NotUnderstood)?)?,
            claim,
        })
    }
}

impl Row for Opened {
    const COLUMNS: &'static [&'static str] = &["NAME", "STATE", "AGENT", "TYPE", "DEADLINE", "REQUEST ID"];

    fn cells(&self) -> Vec<String> {
        let Task { name, state, agent, task_type, deadline, .. } = &self.task;
        let [name, agent, task_type, deadline] = [name, agent, task_type, deadline].map(String::clone);
        vec![name, (*state).to_owned(), agent, task_type, deadline, self.request_id.clone()]
    }

    fn name(&self) -> Option<&str> {
        Some(&self.task.name)
    }
}

#[derive(Serialize)]
struct Ended {
    task: Task,
    leases_ended: u32,
    revision: u64,
}

impl Row for Ended {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STATE", "ENDED", "REASON", "LEASES ENDED", "REVISION"];

    fn cells(&self) -> Vec<String> {
        let Task { name, state, end_time, end_reason, .. } = &self.task;
        let (leases_ended, revision) = (self.leases_ended.to_string(), self.revision.to_string());
        vec![name.clone(), (*state).to_owned(), end_time.clone(), end_reason.clone(), leases_ended, revision]
    }

    fn name(&self) -> Option<&str> {
        Some(&self.task.name)
    }
}
