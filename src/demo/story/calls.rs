//! Calls of the resource server, and what it says of them.

use std::time::Duration;

use tokio::time::sleep;

use super::Story;
use super::parties::{Party, unexpected};
use crate::demo::Problem;
use crate::demo::message::{Answer, Call, Command, Decided, Notice, Permission, Token};
use crate::demo::process::Process;

/// How often, and how many times, a server is called again that does not know what lives.
const TRY_EVERY: Duration = Duration::from_millis(50);
const TRIES_MAX: u32 = 100;

/// What an agent goes on calling with.
#[derive(Debug, Clone)]
pub(super) struct Calling {
    pub(super) agent: Party,
    pub(super) token: Token,
    pub(super) permission: Permission,
}

/// What ended calls that were made one after the other.
#[derive(Debug)]
pub(super) struct Stopped {
    /// What came of the command that ended them.
    pub(super) answer: Answer,
    /// The first refusal of each, in their order.
    pub(super) refusals: Vec<Refusal>,
    /// How many calls passed before.
    pub(super) accepted: u64,
}

/// A refusal of the resource server.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) at_micros: u64,
    /// The time by which it was decided, and how long that took.
    pub(super) judged_at_millis: u64,
    pub(super) took_micros: u64,
    pub(super) reason: String,
}

impl Stopped {
    /// How long each was still accepted after a time since boot, as its reason says it; they must be these.
    pub(super) fn micros_since(&self, called_at: u64, reasons: &[&str]) -> Result<Vec<u64>, Problem> {
        let found: Vec<&str> = self.refusals.iter().map(|refusal| refusal.reason.as_str()).collect();
        if found != reasons {
            return Err(format!("refused as {found:?}, not as {reasons:?}").into());
        }
        Ok(self.refusals.iter().map(|refusal| refusal.at_micros.saturating_sub(called_at)).collect())
    }
}

impl Story {
    fn call_of(&self, token: Token, permission: Permission) -> Call {
        Call { address: self.address.clone(), token, permission }
    }

    pub(super) async fn call(
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

    /// A call of an agent that the resource server serves, at once or when it knows again what lives.
    pub(super) async fn accepted(
        &mut self,
        agent: Party,
        lease: &str,
        permission: Permission,
    ) -> Result<Decided, Problem> {
        let token = || Token::Own(lease.to_owned());
        let (mut answer, mut decided) = self.call(agent, token(), permission.clone()).await?;
        for _ in 0..TRIES_MAX {
            if !decided.is_open() {
                break;
            }
            sleep(TRY_EVERY).await;
            (answer, decided) = self.call(agent, token(), permission.clone()).await?;
        }
        let expected = self.workload(agent).map(|workload| &workload.spiffe_id);
        match (&answer, &decided.refused) {
            (Answer::Called { status: 200, .. }, None) if decided.caller.as_ref() == expected => Ok(decided),
            (_, Some(reason)) => Err(format!("the resource server refused: {reason}").into()),
            _ => Err(unexpected("the resource server", &answer)),
        }
    }

    /// A call that the resource server refuses for this reason.
    pub(super) async fn refused(
        &mut self,
        party: Party,
        token: Token,
        permission: Permission,
        expected: &str,
    ) -> Result<Decided, Problem> {
        let (_, decided) = self.call(party, token, permission).await?;
        match &decided.refused {
            Some(reason) if reason == expected => Ok(decided),
            Some(reason) => Err(format!("the resource server refused as {reason}, not as {expected}").into()),
            None => Err(format!("the resource server accepted what is {expected}").into()),
        }
    }

    /// The resource server's next decision.
    pub(super) async fn decided(&mut self) -> Result<Decided, Problem> {
        decision_of(&mut self.resource_server).await
    }

    /// Has agents call and call until each is refused.
    pub(super) async fn begin_calling(&mut self, callings: &[Calling]) -> Result<(), Problem> {
        for Calling { agent, token, permission } in callings {
            let call = self.call_of(token.clone(), permission.clone());
            self.actors.of(*agent).tell(&Command::CallUntilRefused(call)).await?;
        }
        Ok(())
    }

    /// Has agents call and call, someone do what ends that, and waits until each was refused.
    pub(super) async fn call_until(
        &mut self,
        callings: &[Calling],
        by: Party,
        command: &Command,
    ) -> Result<Stopped, Problem> {
        // 1. Every one of them is served.
        self.begin_calling(callings).await?;
        let mut served = Vec::new();
        while served.len() < callings.len() {
            let decided = self.decided().await?;
            if decided.is_open() {
                continue;
            }
            let Decided { caller, refused, .. } = decided;
            if let Some(reason) = refused {
                return Err(format!("a token was refused too early: {reason}").into());
            }
            if !served.contains(&caller) {
                served.push(caller);
            }
        }

        // 2. What ends that is called, and meanwhile the resource server says when it first refuses each.
        let callers = self.callers(callings);
        let Self { actors, resource_server, .. } = self;
        actors.of(by).tell(command).await?;
        let answer = async {
            match actors.of(by).hear().await? {
                no @ (Answer::Refused { .. } | Answer::Failed(_)) => Err(unexpected("ending the calls", &no)),
                answer => Ok(answer),
            }
        };
        let (answer, refusals) = tokio::try_join!(answer, refusals_of(resource_server, &callers))?;

        // 3. The callers were told the same.
        let accepted = self.calls_refused(callings).await?;
        Ok(Stopped { answer, refusals, accepted })
    }

    /// The first refusal of each, in their order.
    pub(super) async fn first_refusals(&mut self, callings: &[Calling]) -> Result<Vec<Refusal>, Problem> {
        let callers = self.callers(callings);
        refusals_of(&mut self.resource_server, &callers).await
    }

    fn callers(&self, callings: &[Calling]) -> Vec<Option<String>> {
        let spiffe_id = |calling: &Calling| Some(self.workload(calling.agent)?.spiffe_id.clone());
        callings.iter().map(spiffe_id).collect()
    }

    /// What each of them says after it was refused: how many calls passed before in all.
    pub(super) async fn calls_refused(&mut self, callings: &[Calling]) -> Result<u64, Problem> {
        let mut passed = 0;
        for Calling { agent, .. } in callings {
            match self.actors.of(*agent).hear().await? {
                Answer::Called { status: 401, accepted } => passed += accepted,
                other => return Err(unexpected("calling until refused", &other)),
            }
        }
        Ok(passed)
    }
}

async fn decision_of(server: &mut Process) -> Result<Decided, Problem> {
    match server.hear().await? {
        Notice::Decided(decided) => Ok(decided),
        Notice::Listening(_) => Err("the resource server has started again".into()),
        Notice::Anew => Err("the resource server has lost what it was told of endings".into()),
    }
}

/// The first refusal of each caller, in their order; each stops at it.
async fn refusals_of(server: &mut Process, callers: &[Option<String>]) -> Result<Vec<Refusal>, Problem> {
    let mut refusals: Vec<Option<Refusal>> = callers.iter().map(|_| None).collect();
    while refusals.iter().any(Option::is_none) {
        let decided = decision_of(server).await?;
        if decided.is_open() {
            continue;
        }
        let Decided { at_micros, judged_at_millis, took_micros, caller, refused, .. } = decided;
        let Some(reason) = refused else { continue };
        let of_caller = callers.iter().position(|known| *known == caller);
        let of_caller = of_caller.and_then(|position| refusals.get_mut(position));
        *of_caller.ok_or("the resource server refused a stranger")? =
            Some(Refusal { at_micros, judged_at_millis, took_micros, reason });
    }
    Ok(refusals.into_iter().flatten().collect())
}
