//! An agent without a certificate: a token says who it is, and is its own because it was shown with its key first.

use std::ffi::OsStr;
use std::time::Duration;

use brevet_core::request::Sensitivity;
use brevet_core::time::Timestamp;
use brevet_identity::dpop;

use super::parties::{Party, figures, issue, permission, unexpected};
use super::{Live, Step, Story};
use crate::clock::Clock;
use crate::demo::message::{Answer, Command, Denial, Permission};
use crate::demo::report::Shown;
use crate::demo::{Problem, STATUS, process};

/// From when on a daemon that has just started takes proofs of keys: those of the next second, and after a restart, when
/// it has forgotten which it took, those that no client's clock could have dated before.
pub(super) fn proofs_from(is_new: bool) -> Result<Timestamp, Problem> {
    let now = clock()?.now().judge;
    let ahead = if is_new { Duration::ZERO } else { dpop::Limits::default().skew_max };
    Ok(now.after(ahead).after(Duration::from_secs(1)))
}

fn clock() -> Result<Clock, Problem> {
    Ok(Clock::system(Timestamp::EPOCH, Duration::ZERO)?)
}

fn health() -> Permission {
    permission(STATUS, "health", "read")
}

impl Story {
    /// Yields the agent's task and a lease of it.
    pub(super) async fn bearer_admitted(&mut self) -> Step<Live> {
        // 1. Its platform gives the agent a JWT-SVID, with which it proves who it is and that the key is its own.
        clock()?.sleep_until(self.proofs_from).await;
        let arguments = ["dev-token", "--as", Party::AgentC.name(), "--dir"].map(OsStr::new);
        process::output(arguments, [self.dir.as_os_str()]).await?;
        match self.ask(Party::AgentC, &Command::Prove).await? {
            Answer::Proven { spiffe_id, key_thumbprint } => {
                self.agent_c = super::Workload { spiffe_id, key_thumbprint };
            }
            other => return Err(unexpected("a token with a proof of its key", &other)),
        }

        // 2. It gets a token for its task, which is bound to that key as well.
        let task =
            self.open(Party::AgentC, "open-c", Sensitivity::Moderate, vec![health(), figures()]).await?;
        let issued = self.issue(Party::AgentC, issue("issue-c", &task, health())).await?;
        let token = self.leaked(Party::AgentC, &issued.lease).await?;
        self.refused(Party::AgentB, token, health(), "cnf_mismatch").await?;
        let detail = format!(
            "agent-c, without a certificate: a JWT-SVID of a minute, bound to its key, gets it a token for {} s",
            issued.seconds
        );
        Ok(Shown::new(Live { task, lease: issued.lease }, detail))
    }

    pub(super) async fn bearer_copy_refused(&mut self) -> Step {
        // 1. Whoever has a copy and another key is nobody, and learns nothing more.
        let copy = match self.ask(Party::AgentC, &Command::LeakOwn).await? {
            Answer::Leaked { token } => Command::ProveByCopy(token),
            other => return Err(unexpected("letting a token out", &other)),
        };
        match self.ask(Party::AgentB, &copy).await? {
            Answer::Refused { reason: Some(reason), .. } if reason == "UNAUTHENTICATED" => {}
            other => return Err(unexpected("a copy of a token with another key", &other)),
        }
        // The record says more than the thief is told.
        let reason = "bearer_bound_elsewhere".to_owned();
        self.denied.push(Denial { caller: None, reason, cause: None, policies: Vec::new() });

        // 2. To its owner it is as good as before.
        match self.ask(Party::AgentC, &Command::Prove).await? {
            Answer::Proven { .. } => {}
            other => return Err(unexpected("a token of which there is a copy", &other)),
        }
        let detail = "agent-b shows a copy of it with a key of its own; agent-c goes on, the auditor is told";
        Ok(Shown::new((), detail))
    }

    /// Ends the agent's task as well.
    pub(super) async fn bearer_low_only(&mut self, live: &Live) -> Step {
        let above = Command::Issue(issue("issue-c-above", &live.task, figures()));
        self.denied(Party::AgentC, &above, "POLICY_DENIED").await?;
        if self.complete(&live.task).await? != 1 {
            return Err("the agent without a certificate had another lease than one".into());
        }
        Ok(Shown::new(
            (),
            "nothing above low sensitivity for whoever shows a token, although its task allows it",
        ))
    }
}
