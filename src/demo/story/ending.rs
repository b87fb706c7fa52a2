//! Endings: by the orchestrator's word, or by time alone.

use std::time::Duration;

use brevet_core::request::Sensitivity;
use brevet_core::time::Timestamp;

use super::calls::Calling;
use super::parties::{Party, figures, issue, report, unexpected};
use super::{Live, Step, Story};
use crate::clock::Clock;
use crate::demo::message::{Answer, Command, Issue, Token};
use crate::demo::report::Shown;

/// How long the lease of the agent lives that is killed.
const KILLED_SECONDS: i64 = 3;
/// How long before the end of that lease its successor begins to call.
const BEFORE_END: Duration = Duration::from_millis(500);

impl Story {
    pub(super) async fn task_completed(&mut self, task: &str, lease: &str, part: &Live) -> Step {
        // 1. Both agents call and call, and the orchestrator completes the task of the first.
        let calling = |agent, lease: &str| Calling {
            agent,
            token: Token::Own(lease.to_owned()),
            permission: figures(),
        };
        let callings = [calling(Party::AgentA, lease), calling(Party::AgentB, &part.lease)];
        let complete = Command::Complete { task: task.to_owned() };
        let stopped = self.call_until(&callings, Party::Orchestrator, &complete).await?;
        let Answer::Ended { called_at_micros, leases_ended } = stopped.answer else {
            return Err(unexpected("completing the task", &stopped.answer));
        };
        let micros = stopped.micros_since(called_at_micros, &["inactive", "inactive"])?;

        // 2. From then on they are refused for ever.
        for Calling { agent, token, permission } in callings {
            self.refused(agent, token, permission, "inactive").await?;
        }
        let detail = format!(
            "from the call until agent-a's token and agent-b's delegated one were refused; {leases_ended} leases \
             ended, {} calls passed before",
            stopped.accepted
        );
        Ok(Shown::new((), detail).within(micros.into_iter().max().unwrap_or_default()))
    }

    pub(super) async fn ended_is_final(&mut self, task: &str) -> Step {
        let again = Command::Issue(issue("issue-1", task, report()));
        self.denied(Party::AgentA, &again, "LEASE_ENDED").await?;
        let after = Command::Issue(issue("issue-after", task, report()));
        self.denied(Party::AgentA, &after, "TASK_CLOSED").await?;
        if self.complete(task).await? != 0 {
            return Err("leases ended twice".into());
        }
        Ok(Shown::new((), "no token for the request once more, none for a new one"))
    }

    /// Yields the task that goes on without a lease.
    pub(super) async fn killed_agent_lease_ends(&mut self) -> Step<String> {
        // 1. An agent has a token that it never gives back, for it is killed. A copy is in its core dump.
        let task = self.open(Party::AgentB, "open-3", Sensitivity::Moderate, vec![report()]).await?;
        let wanted = Issue { lifetime_seconds: Some(KILLED_SECONDS), ..issue("issue-3", &task, figures()) };
        let issued = self.issue(Party::AgentB, wanted).await?;
        self.accepted(Party::AgentB, &issued.lease, figures()).await?;
        let token = self.leaked(Party::AgentB, &issued.lease).await?;
        let successor = Party::AgentB.start(&self.dir)?;
        std::mem::replace(self.actors.of(Party::AgentB), successor).kill().await?;

        // 2. Its successor, who has the key as well, calls with the copy until that is refused.
        let end = Timestamp::from_millis(issued.end_millis);
        let clock = Clock::system(Timestamp::EPOCH, Duration::ZERO)?;
        clock
            .sleep_until(Timestamp::EPOCH.after(end.since(Timestamp::EPOCH).saturating_sub(BEFORE_END)))
            .await;
        let callings = [Calling { agent: Party::AgentB, token, permission: figures() }];
        self.begin_calling(&callings).await?;
        let refusals = self.first_refusals(&callings).await?;
        let accepted = self.calls_refused(&callings).await?;

        // 3. Nobody did anything: its end came, by the resource server's clock or, a moment later, by the broker's.
        let refusal = refusals.first().ok_or("nobody was refused")?;
        let end_micros = issued.end_millis.saturating_mul(1000);
        let refused_at = refusal.judged_at_millis.saturating_mul(1000).saturating_add(refusal.took_micros);
        // What it was judged by is a whole millisecond.
        let is_due = refused_at.saturating_add(1000) >= end_micros;
        if !is_due || !["expired", "inactive"].contains(&refusal.reason.as_str()) {
            return Err(format!("refused as {} before its end had come", refusal.reason).into());
        }
        let detail = format!(
            "from the end of a {KILLED_SECONDS} s lease to the first refusal, its agent killed; {accepted} calls \
             passed before"
        );
        Ok(Shown::new(task, detail).within(refused_at.saturating_sub(end_micros)))
    }
}
