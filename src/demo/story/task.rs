//! A task and its credentials: what is given, to whom, for how long, and what is not.

use brevet_core::id::TaskId;
use brevet_core::request::{PromptOrigin, Sensitivity};
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::task_svid::TaskSvidId;

use super::parties::{Party, entry, figures, issue, other_figures, permission, report, unexpected};
use super::{Live, Step, Story};
use crate::demo::message::{Answer, Command, Issue, Token};
use crate::demo::report::Shown;
use crate::demo::{FILES, LEDGER, METRICS, Problem, STATUS};
use crate::dev::BROKER;

/// How long credentials are asked to live where policy is to shorten it.
const LONG_SECONDS: i64 = 600;

impl Story {
    pub(super) async fn task_opened(&mut self) -> Step<String> {
        let scope = vec![
            report(),
            permission(LEDGER, "entries/**", "read"),
            permission(STATUS, "health", "read"),
            permission(METRICS, "cpu", "read"),
        ];
        let task = self.open(Party::AgentA, "open-1", Sensitivity::Moderate, scope).await?;
        let detail = format!("{task}, bound to agent-a's key");
        Ok(Shown::new(task, detail))
    }

    pub(super) async fn token_issued(&mut self, task: &str) -> Step<String> {
        let issued = self.issue(Party::AgentA, issue("issue-1", task, report())).await?;
        let detail = format!("to agent-a, for {FILES}, for {} s", issued.seconds);
        Ok(Shown::new(issued.lease, detail))
    }

    pub(super) async fn svid_issued(&mut self, task: &str) -> Step {
        let wanted = Command::IssueSvid { request_id: "issue-svid".to_owned(), task: task.to_owned() };
        let (lease, svid, seconds) = match self.ask(Party::AgentA, &wanted).await? {
            Answer::SvidIssued { lease, spiffe_id, lifetime_seconds } => (lease, spiffe_id, lifetime_seconds),
            other => return Err(unexpected("issuing an X.509-SVID", &other)),
        };
        at_most(seconds, 300)?;

        // 1. Another service learns from it who works on which task, and serves nothing for it.
        let introduce =
            Command::Introduce { lease: lease.clone(), address: self.address.clone(), permission: figures() };
        let called = self.ask(Party::AgentA, &introduce).await?;
        let Answer::Called { status: 401, .. } = called else {
            return Err(unexpected("an X.509-SVID without a token", &called));
        };
        let decided = self.decided().await?;
        let caller: SpiffeId =
            decided.caller.ok_or("the resource server does not know the caller")?.parse()?;
        let broker: TrustDomain = BROKER.parse()?;
        let of_task = TaskSvidId::parse(&caller, &broker).ok_or("the X.509-SVID names no task")?;
        let path = [TaskId::from_name(task)?.root().0];
        if caller.as_str() != svid
            || of_task.agent().as_str() != self.agent_a.spiffe_id
            || of_task.path() != path.as_slice()
            || decided.refused.as_deref() != Some("no_token")
        {
            return Err(format!("the resource server saw {caller}, {:?}", decided.refused).into());
        }

        // 2. To the broker it is nobody's.
        let proven = self.ask(Party::AgentA, &Command::ProveBySvid { lease }).await?;
        if !matches!(proven, Answer::Refused { .. }) {
            return Err(unexpected("an X.509-SVID of a task as a caller of the broker", &proven));
        }
        let detail =
            format!("the resource server sees agent and task for {seconds} s; the broker sees nobody");
        Ok(Shown::new((), detail).within(decided.took_micros))
    }

    pub(super) async fn token_accepted(&mut self, lease: &str) -> Step {
        let decided = self.accepted(Party::AgentA, lease, figures()).await?;
        Ok(Shown::new((), "from its holder, by the resource server").within(decided.took_micros))
    }

    pub(super) async fn stolen_copy_refused(&mut self, lease: &str) -> Step {
        let token = self.leaked(Party::AgentA, lease).await?;
        let decided = self.refused(Party::AgentB, token, figures(), "cnf_mismatch").await?;
        Ok(Shown::new((), "agent-b has the token and not the key").within(decided.took_micros))
    }

    /// A copy of a token that got out.
    pub(super) async fn leaked(&mut self, agent: Party, lease: &str) -> Result<Token, Problem> {
        match self.ask(agent, &Command::Leak { lease: lease.to_owned() }).await? {
            Answer::Leaked { token } => Ok(Token::Copy(token)),
            other => Err(unexpected("letting a token out", &other)),
        }
    }

    pub(super) async fn outside_scope_denied(&mut self, task: &str, lease: &str) -> Step {
        let wider = issue("issue-wider", task, permission(FILES, "reports/q3/figures", "write"));
        self.denied(Party::AgentA, &Command::Issue(wider), "SCOPE_WIDENS").await?;
        let own = Token::Own(lease.to_owned());
        let decided = self.refused(Party::AgentA, own, other_figures(), "out_of_scope").await?;
        let detail = "the broker issues no token to write, the server shows no other report";
        Ok(Shown::new((), detail).within(decided.took_micros))
    }

    pub(super) async fn ceiling_held(&mut self, task: &str) -> Step {
        let above = Command::Issue(issue("issue-above", task, entry()));
        self.denied(Party::AgentA, &above, "POLICY_DENIED").await?;
        Ok(Shown::new((), "no token for an audience more sensitive than the task may touch"))
    }

    pub(super) async fn signature_only_short(&mut self, task: &str) -> Step {
        let health = permission(STATUS, "health", "read");
        let wanted = long(issue("issue-status", task, health.clone()));
        let issued = self.issue(Party::AgentA, wanted).await?;
        at_most(issued.seconds, 60)?;
        let decided = self.accepted(Party::AgentA, &issued.lease, health).await?;
        let seconds = issued.seconds;
        let detail =
            format!("where only signatures are checked: {LONG_SECONDS} s asked for, {seconds} s given");
        Ok(Shown::new((), detail).within(decided.took_micros))
    }

    pub(super) async fn signature_only_refused(&mut self, task: &str) -> Step {
        let above = Command::Issue(issue("issue-metrics", task, permission(METRICS, "cpu", "read")));
        self.denied(Party::AgentA, &above, "POLICY_DENIED").await?;
        Ok(Shown::new((), "nothing above low sensitivity where only signatures are checked"))
    }

    pub(super) async fn renewed(&mut self, lease: &str) -> Step {
        let renew = Command::Renew { request_id: "renew-1".to_owned(), lease: lease.to_owned() };
        let renewed = self.issued(Party::AgentA, &renew).await?;
        if renewed.lease == lease {
            return Err("the renewed token has the lease of the old one".into());
        }
        let decided = self.accepted(Party::AgentA, &renewed.lease, figures()).await?;
        self.accepted(Party::AgentA, lease, figures()).await?;
        let detail = format!("a new lease for {} s, by a new decision; the old one goes on", renewed.seconds);
        Ok(Shown::new((), detail).within(decided.took_micros))
    }

    pub(super) async fn high_sensitivity_short(&mut self) -> Step<Live> {
        let scope = vec![permission(LEDGER, "entries/**", "read"), other_figures()];
        let task = self.open(Party::AgentA, "open-2", Sensitivity::High, scope).await?;
        let issued = self.issue(Party::AgentA, ledger_issue(&task)).await?;
        at_most(issued.seconds, 300)?;
        let decided = self.accepted(Party::AgentA, &issued.lease, entry()).await?;
        let seconds = issued.seconds;
        let detail = format!("for data of high sensitivity: {LONG_SECONDS} s asked for, {seconds} s given");
        Ok(Shown::new(Live { task, lease: issued.lease }, detail).within(decided.took_micros))
    }

    pub(super) async fn injected_prompt_denied(&mut self, task: &str) -> Step {
        let origin = Some(PromptOrigin::ToolOutput);
        let injected = Issue { prompt_origin: origin, ..issue("issue-injected", task, entry()) };
        self.denied(Party::AgentA, &Command::Issue(injected), "POLICY_DENIED").await?;
        Ok(Shown::new((), "no token of high sensitivity on the word of a tool's output"))
    }
}

/// The request for a token of the ledger, which a task repeats.
pub(super) fn ledger_issue(task: &str) -> Issue {
    long(issue("issue-ledger", task, entry()))
}

fn long(wanted: Issue) -> Issue {
    Issue { lifetime_seconds: Some(LONG_SECONDS), ..wanted }
}

pub(super) fn at_most(seconds: i64, max: i64) -> Result<(), Problem> {
    if seconds <= max { Ok(()) } else { Err(format!("lives {seconds} s instead of at most {max} s").into()) }
}
