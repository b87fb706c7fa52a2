//! JWT-SVIDs of tasks: no shipped policy permits one, and what one says where the owner of the broker permits it.

use std::fs;

use brevet_core::id::TaskId;
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::task_svid::TaskSvidId;

use super::parties::{Party, other_figures, unexpected};
use super::task::at_most;
use super::{Step, Story};
use crate::demo::message::{Answer, Command, NAMES_ALONE, Token};
use crate::demo::report::Shown;
use crate::demo::{FILES, Problem};
use crate::dev::BROKER;

/// A policy as `docs/policy.md` shows it.
const POLICY: &str = "jwt-svids.cedar";
const SECONDS_MAX: i64 = 120;

fn policy() -> String {
    format!(
        "// For the owner of one audience that can take nothing else.\n\
         @id(\"jwt-svids-for-files\")\n\
         @lifetime_seconds_max(\"{SECONDS_MAX}\")\n\
         permit (\n  principal,\n  action == Brevet::Action::\"IssueCredential\",\n  \
         resource == Brevet::Audience::\"{FILES}\"\n)\n\
         when {{ context.credential.profile == \"jwt_svid\" }};\n"
    )
}

fn wanted(request_id: &str, task: &str) -> Command {
    Command::IssueJwtSvid {
        request_id: request_id.to_owned(),
        task: task.to_owned(),
        audience: FILES.to_owned(),
    }
}

impl Story {
    pub(super) async fn jwt_svid_denied(&mut self, task: &str) -> Step {
        self.denied(Party::AgentA, &wanted("issue-jwt-svid", task), "POLICY_DENIED").await?;
        Ok(Shown::new((), "no JWT-SVID, which anybody could bear: no shipped policy names that form"))
    }

    pub(super) async fn jwt_svid_issued(&mut self, task: &str) -> Step {
        // 1. The owner of the broker permits it for one audience, while the daemon runs.
        let policy_file = self.dir.join("policies").join(POLICY);
        fs::write(&policy_file, policy())?;
        self.reload().await?;
        let issued = self.ask(Party::AgentA, &wanted("issue-jwt-svid-permitted", task)).await?;
        let Answer::SvidIssued { lease, spiffe_id, lifetime_seconds: seconds } = issued else {
            return Err(unexpected("issuing a JWT-SVID", &issued));
        };
        at_most(seconds, SECONDS_MAX)?;

        // 2. By the bundle that the broker publishes, the resource server knows who works on which task.
        let (_, decided) = self.call(Party::AgentA, Token::Own(lease.clone()), other_figures()).await?;
        let refused = decided.refused.unwrap_or_default();
        let named: SpiffeId =
            decided.named.ok_or_else(|| format!("the JWT-SVID was refused as {refused}"))?.parse()?;
        let broker: TrustDomain = BROKER.parse()?;
        let of_task = TaskSvidId::parse(&named, &broker).ok_or("the JWT-SVID names no task")?;
        let path = [TaskId::from_name(task)?.root().0];
        if named.as_str() != spiffe_id
            || of_task.agent().as_str() != self.agent_a.spiffe_id
            || of_task.path() != path.as_slice()
            || refused != NAMES_ALONE
        {
            return Err(format!("the resource server saw {named}, {refused}").into());
        }

        // 3. From another, who does not hold the key, it takes no copy.
        let copy = self.leaked(Party::AgentA, &lease).await?;
        self.refused(Party::AgentB, copy, other_figures(), "cnf_mismatch").await?;

        // 4. The policies are the shipped ones again.
        fs::remove_file(&policy_file)?;
        self.reload().await?;
        let detail = format!(
            "with a policy of its own: for {seconds} s, verified by the published bundle, from its holder alone"
        );
        Ok(Shown::new((), detail).within(decided.took_micros))
    }

    async fn reload(&self) -> Result<(), Problem> {
        self.daemon.as_ref().ok_or("the daemon is down")?.reload(&self.dir).await
    }
}
