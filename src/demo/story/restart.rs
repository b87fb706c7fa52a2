//! The daemon's death by SIGKILL, and its return.

use super::lock::Recovered;
use super::parties::{Party, entry, figures, issue, other_figures, report, unexpected};
use super::task::ledger_issue;
use super::{Live, Step, Story};
use crate::clock::since_boot;
use crate::demo::Problem;
use crate::demo::message::{Answer, Command, LIVENESS_UNKNOWN, Token, micros};
use crate::demo::process::Daemon;
use crate::demo::report::Shown;

/// The most calls until an ending was told.
const CALLS_MAX: u32 = 1_000;

impl Story {
    /// Dead are a lease of agent-a's, by completion, and one of agent-b's, by a lock.
    pub(super) async fn killed_and_restarted(
        &mut self,
        completed: &str,
        locked: &str,
        live: &Recovered,
    ) -> Step {
        // 1. Killed: what cannot be asked about is not served.
        let killed_at_micros = micros(since_boot());
        self.daemon.take().ok_or("the daemon is down")?.kill().await?;
        let own = |lease: &str| Token::Own(lease.to_owned());
        self.refused(Party::AgentA, own(&live.asked), other_figures(), LIVENESS_UNKNOWN).await?;

        // 2. Restarted on the same folder: nothing is lost.
        self.daemon = Some(Daemon::start(&self.dir).await?);
        let accepted = self.accepted(Party::AgentA, &live.asked, other_figures()).await?;
        let same = self.issue(Party::AgentA, ledger_issue(&live.task)).await?;
        if same.lease != live.watched {
            return Err("a retry after the restart was given another credential".into());
        }

        // 3. And nothing is resurrected.
        self.refused(Party::AgentA, own(completed), figures(), "inactive").await?;
        let again = Command::Issue(issue("issue-1-again", task_of(completed), report()));
        self.denied(Party::AgentA, &again, "TASK_CLOSED").await?;
        self.refused(Party::AgentB, own(locked), other_figures(), "inactive").await?;
        let micros = accepted.at_micros.saturating_sub(killed_at_micros);
        let detail = "from SIGKILL to service; refused meanwhile, nothing lost or resurrected";
        Ok(Shown::new((), detail).within(micros))
    }

    pub(super) async fn stream_resumed(&mut self, ledger: &Live, live: &Recovered) -> Step {
        // 1. An ending, maybe before the resource server has connected again.
        let complete = Command::Complete { task: live.task.clone() };
        let answer = self.ask(Party::Orchestrator, &complete).await?;
        let Answer::Ended { called_at_micros, .. } = answer else {
            return Err(unexpected("completing the task", &answer));
        };

        // 2. It is told, and whatever was told before the daemon died still holds.
        let own = |lease: &str| Token::Own(lease.to_owned());
        let refused_at = self.told(&live.watched).await?;
        self.refused(Party::AgentA, own(&ledger.lease), entry(), "ended").await?;
        let detail = "the stream of revocations goes on where it was: from an ending to its refusal";
        Ok(Shown::new((), detail).within(refused_at.saturating_sub(called_at_micros)))
    }

    /// Calls until the resource server was told that the lease has ended, and says when it refused for that.
    async fn told(&mut self, lease: &str) -> Result<u64, Problem> {
        for _ in 0..CALLS_MAX {
            let (_, decided) = self.call(Party::AgentA, Token::Own(lease.to_owned()), entry()).await?;
            match decided.refused.as_deref() {
                Some("ended") => return Ok(decided.at_micros),
                // Neither is wrong before: it relies on what it was told for two seconds, and then refuses.
                None | Some(LIVENESS_UNKNOWN) => {}
                Some(other) => return Err(format!("the resource server refused as {other}").into()),
            }
        }
        Err(format!("the ending was not told within {CALLS_MAX} calls").into())
    }
}

/// The task of a lease's resource name, `tasks/{id}/leases/{id}`.
fn task_of(lease: &str) -> &str {
    lease.split_once("/leases/").map_or(lease, |(task, _)| task)
}
