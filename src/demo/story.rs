//! The steps, in order. Each does what its name says with real processes and holds, or ends the demo.

mod audit;
mod bearer;
mod calls;
mod delegation;
mod ending;
mod jwt_svid;
mod lock;
mod parties;
mod restart;
mod task;

use std::path::{Path, PathBuf};

use brevet_core::time::Timestamp;

use self::parties::{Actors, Party, Workload, unexpected};
use super::Problem;
use super::message::{Answer, Command, Denial, Notice};
use super::process::{Daemon, Process};
use super::report::{Halt, Report, Shown};

type Step<T = ()> = Result<Shown<T>, Problem>;

/// The processes of a demo, and what its steps share.
pub(super) struct Story {
    dir: PathBuf,
    /// None while it is down.
    daemon: Option<Daemon>,
    actors: Actors,
    resource_server: Process,
    /// Where the resource server listens.
    address: String,
    agent_a: Workload,
    agent_b: Workload,
    agent_c: Workload,
    /// From when on the daemon takes proofs of keys.
    proofs_from: Timestamp,
    /// What the broker denied, as those were told who had asked.
    denied: Vec<Denial>,
}

/// A task that lives and a lease of it.
struct Live {
    task: String,
    lease: String,
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
        report.step("svid_issued", story.svid_issued(&task).await)?;
        report.step("token_accepted", story.token_accepted(&lease).await)?;
        report.step("stolen_copy_refused", story.stolen_copy_refused(&lease).await)?;
        report.step("outside_scope_denied", story.outside_scope_denied(&task, &lease).await)?;
        report.step("ceiling_held", story.ceiling_held(&task).await)?;
        report.step("signature_only_short", story.signature_only_short(&task).await)?;
        report.step("signature_only_refused", story.signature_only_refused(&task).await)?;
        report.step("renewed", story.renewed(&lease).await)?;
        let part = report.step("delegation_narrows", story.delegation_narrows(&task).await)?;
        report.step("widening_refused", story.widening_refused(&task, &part).await)?;
        report.step("cycle_denied", story.cycle_denied(&part).await)?;
        report.step("task_completed", story.task_completed(&task, &lease, &part).await)?;
        report.step("ended_is_final", story.ended_is_final(&task).await)?;

        // Another, of higher sensitivity, and what ends without anybody's leave.
        let ledger = report.step("high_sensitivity_short", story.high_sensitivity_short().await)?;
        report.step("injected_prompt_denied", story.injected_prompt_denied(&ledger.task).await)?;
        report.step("jwt_svid_denied", story.jwt_svid_denied(&ledger.task).await)?;
        report.step("jwt_svid_issued", story.jwt_svid_issued(&ledger.task).await)?;
        let last = report.step("killed_agent_lease_ends", story.killed_agent_lease_ends().await)?;

        // An agent without a certificate.
        let status = report.step("bearer_admitted", story.bearer_admitted().await)?;
        report.step("bearer_copy_refused", story.bearer_copy_refused().await)?;
        report.step("bearer_low_only", story.bearer_low_only(&status).await)?;

        // The emergency stop.
        let stopped = report.step("agent_locked", story.agent_locked(&ledger).await)?;
        let live = report.step("lock_lifted", story.lock_lifted(&ledger, &stopped).await)?;

        // A third, across the daemon's death.
        let locked = &stopped.part.lease;
        report.step("killed_and_restarted", story.killed_and_restarted(&lease, locked, &live).await)?;
        report.step("stream_resumed", story.stream_resumed(&ledger, &live).await)?;

        // What is left.
        let listed = report.step("denials_listed", story.denials_listed().await)?;
        let state = report.step("stopped", story.stopped(&last).await)?;
        report.step("audit_chain_verified", audit::chain_verified(dir, &state).await)?;
        let journal = report.step("denials_explained", audit::denials_explained(&state, &listed))?;
        let left = report.step("nothing_left", audit::nothing_left(&journal))?;
        report.close(&left).map_err(Halt::Unread)
    }

    async fn start(dir: &Path) -> Step<Self> {
        let is_new = !dir.join("state").exists();
        let daemon = Some(Daemon::start(dir).await?);
        let proofs_from = bearer::proofs_from(is_new)?;
        let actors = Actors::start(dir)?;
        let mut resource_server = Process::start(dir, "resource-server", &["demo-resource-server"])?;
        // It begins its picture of endings, and listens when it has one.
        let address = loop {
            match resource_server.hear().await? {
                Notice::Anew => {}
                Notice::Listening(address) => break address,
                Notice::Decided(_) => return Err("the resource server decided before it listened".into()),
            }
        };
        let story = Self {
            dir: dir.to_owned(),
            daemon,
            actors,
            resource_server,
            address,
            agent_a: Workload::default(),
            agent_b: Workload::default(),
            agent_c: Workload::default(),
            proofs_from,
            denied: Vec::new(),
        };
        Ok(Shown::new(
            story,
            "seven processes: daemon, resource server, three agents, orchestrator, operator",
        ))
    }

    async fn identity(&mut self) -> Step {
        for party in Party::WITH_CERTIFICATE {
            let Answer::Proven { spiffe_id, key_thumbprint } = self.ask(party, &Command::Prove).await? else {
                return Err(format!("{} could not prove who it is", party.name()).into());
            };
            let workload = Workload { spiffe_id, key_thumbprint };
            match party {
                Party::AgentA => self.agent_a = workload,
                Party::AgentB => self.agent_b = workload,
                Party::AgentC | Party::Orchestrator | Party::Operator => {}
            }
        }
        let impersonate = Command::Impersonate(self.agent_a.spiffe_id.clone());
        let forgery = self.ask(Party::AgentB, &impersonate).await?;
        if !matches!(forgery, Answer::Refused { .. }) {
            return Err(unexpected("a self-made certificate", &forgery));
        }
        Ok(Shown::new((), "each by its X.509-SVID; a self-made certificate is refused"))
    }
}
