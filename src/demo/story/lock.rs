//! The emergency stop: an operator locks an agent, and lifts the lock.

use brevet_core::request::Sensitivity;

use super::calls::Calling;
use super::parties::{Party, entry, issue, other_figures, permission, unexpected};
use super::task::ledger_issue;
use super::{Live, Step, Story};
use crate::demo::message::{Answer, Command, Permission, Token};
use crate::demo::report::Shown;
use crate::demo::{FILES, LEDGER};

/// What the agent is told.
const MESSAGE: &str = "agent-a is under investigation";

/// What a lock has stopped.
pub(super) struct Locked {
    lock: String,
    /// The task that was delegated from the agent's.
    pub(super) part: Live,
}

/// What is left to lose when the daemon is killed.
pub(super) struct Recovered {
    pub(super) task: String,
    /// A lease that the broker is asked about.
    pub(super) asked: String,
    /// A lease that the stream of revocations tells about.
    pub(super) watched: String,
}

impl Story {
    pub(super) async fn agent_locked(&mut self, ledger: &Live) -> Step<Locked> {
        // 1. A token of the agent's, at a server that watches, and one delegated from it, at one that asks.
        let delegation = self.delegation(&ledger.task, Party::AgentB, "delegate-2", other_figures())?;
        let part = self.delegated(&delegation).await?;
        let callings = [
            Calling { agent: Party::AgentA, token: Token::Own(ledger.lease.clone()), permission: entry() },
            Calling {
                agent: Party::AgentB,
                token: Token::Own(part.lease.clone()),
                permission: other_figures(),
            },
        ];

        // 2. The operator locks the agent, and both are refused.
        let command = Command::Lock {
            request_id: "lock-1".to_owned(),
            agent: self.agent_a.spiffe_id.clone(),
            message: MESSAGE.to_owned(),
        };
        let stopped = self.call_until(&callings, Party::Operator, &command).await?;
        let Answer::Locked { lock, called_at_micros } = &stopped.answer else {
            return Err(unexpected("locking the agent", &stopped.answer));
        };
        let (lock, called_at_micros) = (lock.clone(), *called_at_micros);
        let micros = stopped.micros_since(called_at_micros, &["ended", "inactive"])?;

        // 3. Nothing new begins, and whoever asks learns why.
        let more = Command::Issue(issue("issue-locked", &ledger.task, entry()));
        let why = self.denied(Party::AgentA, &more, "TASK_CLOSED").await?;
        let task =
            self.task_of(Party::AgentA, "open-locked", Sensitivity::Moderate, vec![other_figures()])?;
        let told = self.denied(Party::Orchestrator, &task, "LOCKED").await?;
        if !why.contains(MESSAGE) || !told.contains(MESSAGE) || !told.contains(&lock) {
            return Err(format!("what is said of the lock is {why:?} and {told:?}").into());
        }
        let [watched, asked] = micros.as_slice() else { return Err("two were not refused".into()) };
        let detail = format!(
            "from the call until all of its tokens were refused, by the stream of revocations ({} ms) and by asking \
             ({} ms); told: {MESSAGE}",
            millis(*watched),
            millis(*asked)
        );
        Ok(Shown::new(Locked { lock, part }, detail).within(*watched.max(asked)))
    }

    pub(super) async fn lock_lifted(&mut self, ledger: &Live, locked: &Locked) -> Step<Recovered> {
        let lifted = self.ask(Party::Operator, &Command::Lift { lock: locked.lock.clone() }).await?;
        let Answer::Lifted = lifted else {
            return Err(unexpected("lifting the lock", &lifted));
        };

        // 1. What was stopped stays dead.
        let own = |lease: &str| Token::Own(lease.to_owned());
        self.refused(Party::AgentA, own(&ledger.lease), entry(), "ended").await?;
        self.refused(Party::AgentB, own(&locked.part.lease), other_figures(), "inactive").await?;
        self.denied(Party::AgentA, &Command::Issue(ledger_issue(&ledger.task)), "LEASE_ENDED").await?;

        // 2. New work begins.
        let scope: Vec<Permission> =
            vec![permission(LEDGER, "entries/**", "read"), permission(FILES, "reports/q4/**", "read")];
        let task = self.open(Party::AgentA, "open-4", Sensitivity::High, scope).await?;
        let asked = self.issue(Party::AgentA, issue("issue-4", &task, other_figures())).await?.lease;
        let watched = self.issue(Party::AgentA, ledger_issue(&task)).await?.lease;
        self.accepted(Party::AgentA, &asked, other_figures()).await?;
        self.accepted(Party::AgentA, &watched, entry()).await?;
        Ok(Shown::new(Recovered { task, asked, watched }, "what was stopped stays dead; new work begins"))
    }
}

/// Microseconds in milliseconds, with one place.
fn millis(micros: u64) -> String {
    format!("{}.{}", micros / 1000, micros % 1000 / 100)
}
