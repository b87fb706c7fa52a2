//! A part of a task for another agent: it narrows, and never widens or comes back.

use super::parties::{Party, figures, issue, other_figures, permission};
use super::{Live, Step, Story};
use crate::demo::message::{Command, Token};
use crate::demo::report::Shown;
use crate::demo::{FILES, Problem};

impl Story {
    /// A part of a task for agent-b, with a token for it.
    pub(super) async fn delegated(&mut self, delegation: &Command) -> Result<Live, Problem> {
        let task = self.opened(Party::AgentA, delegation).await?;
        let Command::Delegate(delegate) = delegation else { return Err("that delegates nothing".into()) };
        let part = delegate.scope.first().ok_or("nothing is delegated")?.clone();
        let issued = self.issue(Party::AgentB, issue("issue-part", &task, part)).await?;
        Ok(Live { task, lease: issued.lease })
    }

    pub(super) async fn delegation_narrows(&mut self, task: &str) -> Step<Live> {
        // 1. The other agent works on its part, and the token says for whom.
        let delegation = self.delegation(task, Party::AgentB, "delegate-1", figures())?;
        let part = self.delegated(&delegation).await?;
        let decided = self.accepted(Party::AgentB, &part.lease, figures()).await?;
        let chain = [&self.agent_b.spiffe_id, &self.agent_a.spiffe_id];
        if decided.actors.iter().ne(chain) {
            return Err(format!("the token names {:?} as those who act", decided.actors).into());
        }

        // 2. And on nothing else of what the first may see.
        let outlook = permission(FILES, "reports/q3/outlook", "read");
        let own = Token::Own(part.lease.clone());
        self.refused(Party::AgentB, own, outlook.clone(), "out_of_scope").await?;
        let more = Command::Issue(issue("issue-more", &part.task, outlook));
        self.denied(Party::AgentB, &more, "SCOPE_WIDENS").await?;
        let detail = "agent-a gives agent-b a part; its token serves for that alone, and names both";
        Ok(Shown::new(part, detail).within(decided.took_micros))
    }

    pub(super) async fn widening_refused(&mut self, task: &str, part: &Live) -> Step {
        let wider = self.delegation(task, Party::AgentB, "delegate-wider", other_figures())?;
        self.denied(Party::AgentA, &wider, "SCOPE_WIDENS").await?;
        // Nobody delegates a task that is another's.
        let foreign = self.delegation(&part.task, Party::AgentB, "delegate-foreign", figures())?;
        self.denied(Party::AgentA, &foreign, "NOT_AGENT").await?;
        Ok(Shown::new((), "agent-a delegates no more than it has, and nothing of what is agent-b's"))
    }

    pub(super) async fn cycle_denied(&mut self, part: &Live) -> Step {
        let back = self.delegation(&part.task, Party::AgentA, "delegate-back", figures())?;
        self.denied(Party::AgentB, &back, "POLICY_DENIED").await?;
        Ok(Shown::new((), "agent-b gives nothing back to agent-a, who already works on it"))
    }
}
