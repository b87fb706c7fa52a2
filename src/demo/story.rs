//! The steps, in order. Each does what its name says with real processes and holds, or ends the demo.

use std::path::{Path, PathBuf};
use std::time::Duration;

use brevet_core::request::{PromptOrigin, Sensitivity};
use brevet_core::time::Timestamp;

use super::audit::{self, Journal};
use super::message::{Answer, Call, Command, CreateTask, Decided, Issue, Notice, Permission, Token, micros};
use super::process::{Daemon, Process};
use super::report::{Halt, Report, Shown};
use super::{FILES, LEDGER, METRICS, Problem, STATUS};
use crate::clock::{Clock, since_boot};

type Step<T = ()> = Result<Shown<T>, Problem>;

/// How long credentials are asked to live where policy is to shorten it.
const LONG_SECONDS: i64 = 600;

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Party {
    AgentA,
    AgentB,
    Orchestrator,
}

impl Party {
    const ALL: [Self; 3] = [Self::AgentA, Self::AgentB, Self::Orchestrator];

    const fn name(self) -> &'static str {
        match self {
            Self::AgentA => "agent-a",
            Self::AgentB => "agent-b",
            Self::Orchestrator => "orchestrator",
        }
    }
}

/// The processes of the parties, in their order.
struct Actors([Process; 3]);

impl Actors {
    const fn of(&mut self, party: Party) -> &mut Process {
        let [agent_a, agent_b, orchestrator] = &mut self.0;
        match party {
            Party::AgentA => agent_a,
            Party::AgentB => agent_b,
            Party::Orchestrator => orchestrator,
        }
    }
}

/// The processes of a demo, and what its steps share.
pub(super) struct Story {
    dir: PathBuf,
    /// None while it is down.
    daemon: Option<Daemon>,
    actors: Actors,
    resource_server: Process,
    /// Where the resource server listens.
    address: String,
    /// The agent that tasks are opened for, and its key.
    agent: String,
    holder: String,
}

impl Story {
    /// Shows every step; says whether all of them held.
    pub(super) async fn tell(dir: &Path, report: &Report) -> Result<bool, Problem> {
        match Self::steps(dir, report).await {
            Ok(()) => Ok(true),
            Err(Halt::Failed) => Ok(false),
            Err(Halt::Unread(error)) => Err(error.into()),
        }
    }

    async fn steps(dir: &Path, report: &Report) -> Result<(), Halt> {
        let mut story = report.step("start", Self::start(dir).await)?;
        report.step("identity", story.identity().await)?;

        // One task, from its opening to its end.
        let task = report.step("task_opened", story.task_opened().await)?;
        let lease = report.step("token_issued", story.token_issued(&task).await)?;
        report.step("token_accepted", story.token_accepted(&lease).await)?;
        report.step("stolen_copy_refused", story.stolen_copy_refused(&lease).await)?;
        report.step("outside_scope_denied", story.outside_scope_denied(&task, &lease).await)?;
        report.step("ceiling_held", story.ceiling_held(&task).await)?;
        report.step("signature_only_short", story.signature_only_short(&task).await)?;
        report.step("signature_only_refused", story.signature_only_refused(&task).await)?;
        report.step("task_completed", story.task_completed(&task, &lease).await)?;
        report.step("ended_is_final", story.ended_is_final(&task).await)?;

        // Another, of higher sensitivity, across the daemon's death.
        let ledger = report.step("high_sensitivity_short", story.high_sensitivity_short().await)?;
        report.step("injected_prompt_denied", story.injected_prompt_denied(&ledger.task).await)?;
        report.step("killed_and_restarted", story.killed_and_restarted(&lease, &ledger).await)?;

        // What is left.
        let state = report.step("stopped", story.stopped(&ledger.task).await)?;
        report.step("audit_chain_verified", audit_chain_verified(dir, &state).await)?;
        let journal = report.step("denials_explained", denials_explained(&state))?;
        let left = report.step("nothing_left", nothing_left(&journal))?;
        report.close(&left).map_err(Halt::Unread)
    }

    async fn start(dir: &Path) -> Step<Self> {
        let daemon = Some(Daemon::start(dir).await?);
        let actor = |party: Party| Process::start(dir, party.name(), &["demo-actor", "--as", party.name()]);
        let [a, b, o] = Party::ALL.map(actor);
        let actors = Actors([a?, b?, o?]);
        let mut resource_server = Process::start(dir, "resource-server", &["demo-resource-server"])?;
        let Notice::Listening(address) = resource_server.hear().await? else {
            return Err("the resource server decided before it listened".into());
        };
        let (agent, holder) = (String::new(), String::new());
        let dir = dir.to_owned();
        let story = Self { dir, daemon, actors, resource_server, address, agent, holder };
        Ok(Shown::new(story, "five processes: daemon, resource server, two agents, orchestrator"))
    }

    async fn identity(&mut self) -> Step {
        for party in Party::ALL {
            let Answer::Proven { spiffe_id, key_thumbprint } = self.ask(party, &Command::Prove).await? else {
                return Err(format!("{} could not prove who it is", party.name()).into());
            };
            if party == Party::AgentA {
                (self.agent, self.holder) = (spiffe_id, key_thumbprint);
            }
        }
        let forgery = self.ask(Party::AgentB, &Command::Impersonate(self.agent.clone())).await?;
        if !matches!(forgery, Answer::Refused { .. }) {
            return Err(unexpected("a self-made certificate", &forgery));
        }
        Ok(Shown::new((), "each by its X.509-SVID; a self-made certificate is refused"))
    }

    async fn task_opened(&mut self) -> Step<String> {
        let scope = vec![
            permission(FILES, "reports/q3", "read"),
            permission(LEDGER, "entries/**", "read"),
            permission(STATUS, "health", "read"),
            permission(METRICS, "cpu", "read"),
        ];
        let task = self.open("open-1", Sensitivity::Moderate, scope).await?;
        let detail = format!("{task}, bound to agent-a's key");
        Ok(Shown::new(task, detail))
    }

    async fn token_issued(&mut self, task: &str) -> Step<String> {
        let (lease, seconds) = self.issue(issue("issue-1", task, q3())).await?;
        Ok(Shown::new(lease, format!("to agent-a, for {FILES}, for {seconds} s")))
    }

    async fn token_accepted(&mut self, lease: &str) -> Step {
        let decided = self.accepted(lease, q3()).await?;
        Ok(Shown::new((), "from its holder, by the resource server").within(decided.took_micros))
    }

    async fn stolen_copy_refused(&mut self, lease: &str) -> Step {
        let leak = Command::Leak { lease: lease.to_owned() };
        let Answer::Leaked { token } = self.ask(Party::AgentA, &leak).await? else {
            return Err("there is nothing to steal".into());
        };
        let decided = self.refused(Party::AgentB, Token::Copy(token), q3(), "cnf_mismatch").await?;
        Ok(Shown::new((), "agent-b has the token and not the key").within(decided.took_micros))
    }

    async fn outside_scope_denied(&mut self, task: &str, lease: &str) -> Step {
        let wider = issue("issue-wider", task, permission(FILES, "reports/q3", "write"));
        self.denied(wider, "SCOPE_WIDENS").await?;
        let own = || Token::Own(lease.to_owned());
        let other = permission(FILES, "reports/q4", "read");
        let decided = self.refused(Party::AgentA, own(), other, "out_of_scope").await?;
        let detail = "the broker issues no token to write, the server shows no other report";
        Ok(Shown::new((), detail).within(decided.took_micros))
    }

    async fn ceiling_held(&mut self, task: &str) -> Step {
        let above = issue("issue-above", task, permission(LEDGER, "entries/7", "read"));
        self.denied(above, "POLICY_DENIED").await?;
        Ok(Shown::new((), "no token for an audience more sensitive than the task may touch"))
    }

    async fn signature_only_short(&mut self, task: &str) -> Step {
        let health = permission(STATUS, "health", "read");
        let wanted =
            Issue { lifetime_seconds: Some(LONG_SECONDS), ..issue("issue-status", task, health.clone()) };
        let (lease, seconds) = self.issue(wanted).await?;
        at_most(seconds, 60)?;
        let decided = self.accepted(&lease, health).await?;
        let detail =
            format!("where only signatures are checked: {LONG_SECONDS} s asked for, {seconds} s given");
        Ok(Shown::new((), detail).within(decided.took_micros))
    }

    async fn signature_only_refused(&mut self, task: &str) -> Step {
        let above = issue("issue-metrics", task, permission(METRICS, "cpu", "read"));
        self.denied(above, "POLICY_DENIED").await?;
        Ok(Shown::new((), "nothing above low sensitivity where only signatures are checked"))
    }

    async fn task_completed(&mut self, task: &str, lease: &str) -> Step {
        // 1. The agent calls and calls.
        let call = self.call_of(Token::Own(lease.to_owned()), q3());
        self.actors.of(Party::AgentA).tell(&Command::CallUntilRefused(call)).await?;
        let before = self.decided().await?;
        if let Some(reason) = before.refused {
            return Err(format!("the token was refused before the task was completed: {reason}").into());
        }

        // 2. The orchestrator completes the task, and the resource server says when it first refuses.
        let complete = Command::Complete { task: task.to_owned() };
        self.actors.of(Party::Orchestrator).tell(&complete).await?;
        let server = &mut self.resource_server;
        let first_refusal = async {
            loop {
                if let Notice::Decided(Decided { at_micros, refused: Some(reason), .. }) =
                    server.hear().await?
                {
                    return Ok::<_, Problem>((at_micros, reason));
                }
            }
        };
        let (ended, refusal) = tokio::join!(self.actors.of(Party::Orchestrator).hear(), first_refusal);
        let (ended, (refused_at_micros, reason)) = (ended?, refusal?);
        let Answer::Ended { called_at_micros, leases_ended } = ended else {
            return Err(unexpected("completing the task", &ended));
        };
        let Answer::Called { status: 401, accepted } = self.actors.of(Party::AgentA).hear().await? else {
            return Err("the agent was not refused".into());
        };
        if reason != "inactive" {
            return Err(format!("the token was refused as {reason}, not as inactive").into());
        }

        // 3. From then on it is refused for ever.
        self.refused(Party::AgentA, Token::Own(lease.to_owned()), q3(), "inactive").await?;
        let detail = format!(
            "from the call to the first refusal; {leases_ended} leases ended, {accepted} calls passed before"
        );
        Ok(Shown::new((), detail).within(refused_at_micros.saturating_sub(called_at_micros)))
    }

    async fn ended_is_final(&mut self, task: &str) -> Step {
        self.denied(issue("issue-1", task, q3()), "LEASE_ENDED").await?;
        self.denied(issue("issue-after", task, q3()), "TASK_CLOSED").await?;
        if self.complete(task).await? != 0 {
            return Err("leases ended twice".into());
        }
        Ok(Shown::new((), "no token for the request once more, none for a new one"))
    }

    async fn high_sensitivity_short(&mut self) -> Step<Live> {
        let entries = permission(LEDGER, "entries/**", "read");
        let task = self.open("open-2", Sensitivity::High, vec![entries]).await?;
        let (lease, seconds) = self.issue(ledger_issue(&task)).await?;
        at_most(seconds, 300)?;
        let decided = self.accepted(&lease, entry()).await?;
        let detail = format!("for data of high sensitivity: {LONG_SECONDS} s asked for, {seconds} s given");
        Ok(Shown::new(Live { task, lease }, detail).within(decided.took_micros))
    }

    async fn injected_prompt_denied(&mut self, task: &str) -> Step {
        let origin = Some(PromptOrigin::ToolOutput);
        let injected = Issue { prompt_origin: origin, ..issue("issue-injected", task, entry()) };
        self.denied(injected, "POLICY_DENIED").await?;
        Ok(Shown::new((), "no token of high sensitivity on the word of a tool's output"))
    }

    async fn killed_and_restarted(&mut self, ended: &str, live: &Live) -> Step {
        // 1. Killed: what cannot be asked about is not served.
        let killed_at_micros = micros(since_boot());
        self.daemon.take().ok_or("the daemon is down")?.kill().await?;
        let own = |lease: &str| Token::Own(lease.to_owned());
        self.refused(Party::AgentA, own(&live.lease), entry(), "liveness_unknown").await?;

        // 2. Restarted on the same folder: nothing is lost.
        self.daemon = Some(Daemon::start(&self.dir).await?);
        let accepted = self.accepted(&live.lease, entry()).await?;
        let (same, _) = self.issue(ledger_issue(&live.task)).await?;
        if same != live.lease {
            return Err("a retry after the restart was given another credential".into());
        }

        // 3. And nothing is resurrected.
        self.refused(Party::AgentA, own(ended), q3(), "inactive").await?;
        self.denied(issue("issue-1-again", task_of(ended), q3()), "TASK_CLOSED").await?;
        let micros = accepted.at_micros.saturating_sub(killed_at_micros);
        let detail = "from SIGKILL to service; refused meanwhile, nothing lost or resurrected";
        Ok(Shown::new((), detail).within(micros))
    }

    /// Ends what is left and stops the daemon; yields the folder of its state.
    async fn stopped(mut self, task: &str) -> Step<PathBuf> {
        let leases = self.complete(task).await?;
        self.daemon.take().ok_or("the daemon is down")?.stop().await?;
        Ok(Shown::new(
            self.dir.join("state"),
            format!("the last task completed, {leases} lease ended, the daemon gone"),
        ))
    }

    // What the steps are made of.

    async fn ask(&mut self, party: Party, command: &Command) -> Result<Answer, Problem> {
        let actor = self.actors.of(party);
        actor.tell(command).await?;
        actor.hear().await
    }

    async fn open(
        &mut self,
        request_id: &str,
        sensitivity_max: Sensitivity,
        scope: Vec<Permission>,
    ) -> Result<String, Problem> {
        let command = Command::CreateTask(CreateTask {
            request_id: request_id.to_owned(),
            agent: self.agent.clone(),
            holder_key_thumbprint: self.holder.clone(),
            task_type: "summarise".to_owned(),
            sensitivity_max,
            scope,
        });
        match self.ask(Party::Orchestrator, &command).await? {
            Answer::Opened { task } => Ok(task),
            other => Err(unexpected("opening a task", &other)),
        }
    }

    async fn complete(&mut self, task: &str) -> Result<u32, Problem> {
        match self.ask(Party::Orchestrator, &Command::Complete { task: task.to_owned() }).await? {
            Answer::Ended { leases_ended, .. } => Ok(leases_ended),
            other => Err(unexpected("completing the task", &other)),
        }
    }

    /// A credential for agent-a: its lease and how many seconds it lives.
    async fn issue(&mut self, wanted: Issue) -> Result<(String, i64), Problem> {
        match self.ask(Party::AgentA, &Command::Issue(wanted)).await? {
            Answer::Issued { lease, lifetime_seconds } => Ok((lease, lifetime_seconds)),
            other => Err(unexpected("issuing a token", &other)),
        }
    }

    /// No credential for agent-a, for this reason.
    async fn denied(&mut self, wanted: Issue, expected: &str) -> Result<(), Problem> {
        match self.ask(Party::AgentA, &Command::Issue(wanted)).await? {
            Answer::Refused { reason: Some(reason), .. } if reason == expected => Ok(()),
            other => Err(unexpected(&format!("a request to be refused as {expected}"), &other)),
        }
    }

    fn call_of(&self, token: Token, permission: Permission) -> Call {
        Call { address: self.address.clone(), token, permission }
    }

    async fn call(
        &mut self,
        party: Party,
        token: Token,
        permission: Permission,
    ) -> Result<(Answer, Decided), Problem> {
        let command = Command::Call(self.call_of(token, permission));
        match self.ask(party, &command).await? {
            answer @ Answer::Called { .. } => Ok((answer, self.decided().await?)),
            other => Err(unexpected("calling the resource server", &other)),
        }
    }

    /// A call of agent-a that the resource server serves.
    async fn accepted(&mut self, lease: &str, permission: Permission) -> Result<Decided, Problem> {
        let (answer, decided) = self.call(Party::AgentA, Token::Own(lease.to_owned()), permission).await?;
        match (&answer, &decided.refused) {
            (Answer::Called { status: 200, .. }, None) if decided.caller.as_ref() == Some(&self.agent) => {
                Ok(decided)
            }
            (_, Some(reason)) => Err(format!("the resource server refused: {reason}").into()),
            _ => Err(unexpected("the resource server", &answer)),
        }
    }

    /// A call that the resource server refuses for this reason.
    async fn refused(
        &mut self,
        party: Party,
        token: Token,
        permission: Permission,
        expected: &str,
    ) -> Result<Decided, Problem> {
        expect_refusal(self.call(party, token, permission).await?, expected)
    }

    async fn decided(&mut self) -> Result<Decided, Problem> {
        match self.resource_server.hear().await? {
            Notice::Decided(decided) => Ok(decided),
            Notice::Listening(_) => Err("the resource server has started again".into()),
        }
    }
}

/// A task that lives and a lease of it.
struct Live {
    task: String,
    lease: String,
}

/// The chain and its checkpoints hold.
async fn audit_chain_verified(dir: &Path, state: &Path) -> Step {
    let report = audit::verify(dir, state).await?;
    let (records, vouched) = (report.records, report.vouched());
    if vouched != records {
        return Err(format!("{records} records, of which checkpoints vouch for {vouched}").into());
    }
    let detail = format!("{records} records, all vouched for by {} signed checkpoints", report.checkpoints);
    Ok(Shown::new((), detail))
}

/// The journal names for each denial of policy what determined it.
fn denials_explained(state: &Path) -> Step<Journal> {
    let now = Clock::system(Timestamp::EPOCH, Duration::ZERO)?.now().judge;
    let journal = audit::read(state, now)?;
    if journal.denied_by.is_empty() {
        return Err("no denial is explained".into());
    }
    let detail = format!("denied by {}", journal.denied_by.join(", "));
    Ok(Shown::new(journal, detail))
}

/// No lease lives, and none has outlived its end unrecorded.
fn nothing_left(journal: &Journal) -> Step<String> {
    let line = format!("live leases {}, overdue {}", journal.live, journal.overdue);
    if (journal.live, journal.overdue) == (0, 0) && journal.leases > 0 {
        Ok(Shown::new(line.clone(), line))
    } else {
        Err(format!("{line}, of {}", journal.leases).into())
    }
}

fn expect_refusal((_, decided): (Answer, Decided), expected: &str) -> Result<Decided, Problem> {
    match &decided.refused {
        Some(reason) if reason == expected => Ok(decided),
        Some(reason) => Err(format!("the resource server refused as {reason}, not as {expected}").into()),
        None => Err(format!("the resource server accepted what is {expected}").into()),
    }
}

fn at_most(seconds: i64, max: i64) -> Result<(), Problem> {
    if seconds <= max { Ok(()) } else { Err(format!("lives {seconds} s instead of at most {max} s").into()) }
}

/// What went otherwise than it should. A token is never part of it.
fn unexpected(what: &str, answer: &Answer) -> Problem {
    let outcome = match answer {
        Answer::Refused { code, reason } => {
            format!(
                "refused ({code}{})",
                reason.as_ref().map_or_else(String::new, |reason| format!(", {reason}"))
            )
        }
        Answer::Failed(problem) => format!("failed: {problem}"),
        Answer::Called { status, .. } => format!("status {status}"),
        Answer::Proven { .. }
        | Answer::Opened { .. }
        | Answer::Ended { .. }
        | Answer::Issued { .. }
        | Answer::Leaked { .. } => "granted".to_owned(),
    };
    format!("{what}: {outcome}").into()
}

fn permission(audience: &str, resource: &str, action: &str) -> Permission {
    Permission { audience: audience.to_owned(), resource: resource.to_owned(), action: action.to_owned() }
}

fn q3() -> Permission {
    permission(FILES, "reports/q3", "read")
}

fn entry() -> Permission {
    permission(LEDGER, "entries/7", "read")
}

fn issue(request_id: &str, task: &str, permission: Permission) -> Issue {
    Issue {
        request_id: request_id.to_owned(),
        task: task.to_owned(),
        permission,
        lifetime_seconds: None,
        prompt_origin: None,
    }
}

fn ledger_issue(task: &str) -> Issue {
    Issue { lifetime_seconds: Some(LONG_SECONDS), ..issue("issue-ledger", task, entry()) }
}

/// The task of a lease's resource name, `tasks/{id}/leases/{id}`.
fn task_of(lease: &str) -> &str {
    lease.split_once("/leases/").map_or(lease, |(task, _)| task)
}
