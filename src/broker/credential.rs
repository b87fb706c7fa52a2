//! Issuing credentials, first ones and renewed ones, and taking them back from their holders.

use std::sync::Arc;
use std::time::Duration;

use brevet_core::control::Control;
use brevet_core::digest::{CertificateDigest, ClaimDigest, RequestDigest, Thumbprint};
use brevet_core::fact::{Holder, LeaseOutcome, ReasonCode};
use brevet_core::id::{Id, LeaseId, LeaseKey, TaskId};
use brevet_core::ledger::{IssueRefusal, Ledger, Recall};
use brevet_core::name::{AudienceName, RequestId};
use brevet_core::proof::{Caller, Permit};
use brevet_core::public_key::PublicKey;
use brevet_core::registry::{Audience, Registry};
use brevet_core::request::{
    Ask, CallerFacts, CredentialFacts, FormFacts, PromptOrigin, Request, TaskContext, TaskFacts,
};
use brevet_core::revision::{Basis, Revision};
use brevet_core::sabotage;
use brevet_core::scope::Scope;
use brevet_core::terms::{Content, Terms};
use brevet_core::time::{Now, Timestamp};
use brevet_mint::plan::{Draft, lease_key};
use brevet_policy::Decision;
use serde::Serialize;

use super::lock::killer;
use super::task::below_ceiling;
use super::{Broker, Issued, Kind, Refusal, body_of, denied, may_see};
use crate::metrics::DecisionOutcome;
use crate::openers::LEASES_LIMIT;
use crate::reaper;
use crate::table::InForce;

/// What is asked for when a credential is issued or renewed. Its JSON form is the request's body.
#[derive(Debug, Clone, Serialize)]
pub struct CredentialAsk {
    /// The task.
    pub task: TaskId,
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// Which credential.
    pub wanted: Wanted,
    /// How long it is to live.
    pub lifetime: Option<Duration>,
    /// Whether to name the connection's certificate besides the key.
    pub bind_certificate: bool,
    /// Where the agent says that its instruction came from.
    pub prompt_origin: Option<PromptOrigin>,
}

/// Which credential is asked for.
#[derive(Debug, Clone, Serialize)]
pub enum Wanted {
    /// A task token.
    TaskToken {
        /// The audience.
        audience: AudienceName,
        /// What is to be permitted, all of it the audience's.
        scope: Scope,
    },
    /// An X.509-SVID.
    X509Svid {
        /// The public half of the holder key, as the certification request names it.
        public_key: PublicKey,
        /// Whether the certification request asked for more. It makes no other request of it, so that it is no part of
        /// the body.
        #[serde(skip)]
        ignored_attributes: bool,
    },
    /// A JWT-SVID.
    JwtSvid {
        /// The audience.
        audience: AudienceName,
    },
    /// One in place of another.
    Renewal {
        /// The lease of the other.
        of: LeaseKey,
        /// What is to be permitted; the same if it is not said.
        scope: Option<Scope>,
    },
}

/// What the caller proved of its key.
#[derive(Debug, Clone)]
pub struct Possession {
    /// The key that it offers: by a proof with the request, else the connection's own.
    pub offered: Thumbprint,
    /// The other keys that the connection has proven.
    pub proven: Vec<Thumbprint>,
    /// The connection's own key and certificate, if these prove the caller.
    pub certificate: Option<(Thumbprint, CertificateDigest)>,
    /// The one-time claim that it redeems.
    pub claim: Option<ClaimDigest>,
}

impl Possession {
    /// The key to bind to: the task's own if the caller has proven it, or what it offers with the task's claim if the
    /// task has none yet. Whoever brings neither is another instance of the agent, for whatever it asks.
    pub(super) fn of(&self, holder: Holder) -> Option<Thumbprint> {
        match holder {
            _ if sabotage::on("any_holder") => Some(self.offered),
            Holder::Key(key) => (self.offered == key || self.proven.contains(&key)).then_some(key),
            Holder::Claim(claim) => (self.claim == Some(claim)).then_some(self.offered),
        }
    }

    fn certificate_of(&self, holder: Thumbprint) -> Option<CertificateDigest> {
        self.certificate.filter(|(key, _)| *key == holder).map(|(_, certificate)| certificate)
    }
}

/// What is known of the task before policy is asked.
struct Drawn {
    facts: TaskFacts,
    holder: Thumbprint,
    scope: Scope,
    path: Vec<Id>,
    deadline: Timestamp,
    prompt_origin: Option<PromptOrigin>,
    version: Revision,
    wanted: Wanted,
    renews: Option<LeaseKey>,
}

impl Broker {
    /// Issues a credential for a task, or one in place of another.
    ///
    /// # Errors
    /// [`Refusal`]; no credential of this request will ever be accepted by anyone then (invariant L10).
    pub async fn issue(
        self: &Arc<Self>,
        caller: &Caller,
        ask: CredentialAsk,
        possession: Possession,
    ) -> Result<Issued, Refusal> {
        let method = match ask.wanted {
            Wanted::Renewal { .. } => "RenewCredential",
            Wanted::TaskToken { .. } | Wanted::X509Svid { .. } | Wanted::JwtSvid { .. } => "IssueCredential",
        };
        let body = body_of(method, &ask);
        let mut decided = self.decide(|| self.try_issue(caller, &ask, body, &possession));
        if matches!(&decided, Err(refusal) if refusal.reason.as_str() == LEASES_LIMIT) {
            // What has run out takes no room from what is to come.
            reaper::run_apart(self).await;
            decided = self.decide(|| self.try_issue(caller, &ask, body, &possession));
        }
        match decided {
            Ok(lease) => self.hand_over(lease).await,
            Err(refusal) => {
                // Who may not see the task is told nothing of it, and waits for nothing of it: a foreign task answers
                // like one that never was, in time and when the journal fails too.
                if refusal.kind != Kind::NotFound {
                    self.settle(ask.task.root()).await?;
                }
                Err(refusal)
            }
        }
    }

    /// Decides and records; no key is used yet. The call is then counted among those that wait for the lease.
    fn try_issue(
        &self,
        caller: &Caller,
        ask: &CredentialAsk,
        body: RequestDigest,
        possession: &Possession,
    ) -> Result<LeaseId, Refusal> {
        // 1. Who asks, and under what.
        let now = self.minting_clock()?;
        let in_force = self.table.in_force();
        let control = &in_force.control;
        let who = self.facts_of(caller, &in_force, now)?;

        // 2. The task is the caller's, and bound to the key it proved. A retry gets the lease that it got before.
        let drawn = self.table.view(ask.task.root(), |ledger| {
            let holder = holds(ledger, ask.task, &who, possession)?;
            match ledger.recall(ask.task, &ask.request_id, &body) {
                Recall::Same(key) => {
                    let lease = LeaseId { task: ask.task, key };
                    self.undelivered.again(lease);
                    Ok(Err(lease))
                }
                Recall::Other => Err(Refusal::request_id_reused()),
                Recall::New => draw(ledger, ask, holder, control, now).map(Ok),
            }
        });
        let drawn = match drawn.ok_or_else(Refusal::not_found)?? {
            Ok(drawn) => drawn,
            Err(lease) => return Ok(lease),
        };
        let Drawn { facts, holder, scope, path, deadline, prompt_origin, version, wanted, renews } = drawn;
        let opener = facts.opener.clone();

        // 3. What is asked for lies within the task and, whatever it was when the task was opened, within the agent's
        //    ceiling of today; and it belongs to a registered audience.
        let form = self.form(wanted, &scope, &facts, &who, &in_force)?;
        let understands_act = understands_act(in_force.registry(), &who, &form);

        // 4. Policy decides.
        let context = TaskContext {
            task: facts,
            scope,
            prompt_origin: PromptOrigin::judged(prompt_origin, ask.prompt_origin),
        };
        let basis = Basis { tree: version, control: control.revision() };
        let credential =
            CredentialFacts { lifetime_seconds: self.lease_lifetime(ask).as_secs(), holder, form };
        let ask_policy = match renews {
            Some(renews) => Ask::RenewCredential { context, credential, renews },
            None => Ask::IssueCredential { context, credential },
        };
        let permit =
            permitted(&in_force, Request { caller: who.clone(), ask: ask_policy, time: now.judge, basis })?;

        // 5. The plan holds everything that will be signed.
        let lease = lease_key(&self.rng).map_err(|_| Refusal::unavailable("no_randomness"))?;
        let certificate = possession.certificate_of(holder).filter(|_| ask.bind_certificate);
        if ask.bind_certificate && certificate.is_none() {
            return Err(Refusal::invalid("bind_certificate", "the holder key is not the connection's"));
        }
        let plan =
            self.planner.draw(permit, Draft { lease, path, deadline, understands_act, certificate }, now)?;

        // 6. The ledger issues the lease, and the journal will have it before the key is used.
        let reserved = self.table.openers().lease(&opener)?;
        let envelope = self.envelope(now, Some(&who), Some(ask.task.root()), Some(&ask.request_id));
        let evidence = plan.permit().evidence();
        let (lease, limits) = (plan.terms().id, self.limits.lease_limits());
        let issued = self.table.commit(ask.task.root(), &envelope, Some(evidence), |ledger, in_force| {
            ledger
                .issue(&plan, body, possession.claim, &in_force.control, now, limits)
                .map(|fact| (Some(fact), self.undelivered.first(lease)))
                .map_err(|refusal| Refusal::from(refusal).with_message(&in_force.control))
        });
        let _waited_for_at_delivery = issued.inspect_err(|_| self.undelivered.answered(lease))?;
        reserved.keep();
        self.metrics.decided(DecisionOutcome::Permitted);
        Ok(lease)
    }

    /// Takes a credential back from its holder, before its end.
    ///
    /// # Errors
    /// [`Refusal`]; the credential lives on then.
    pub async fn return_credential(
        &self,
        caller: &Caller,
        lease: LeaseId,
        possession: &Possession,
    ) -> Result<Revision, Refusal> {
        // 1. The caller holds it.
        let who = self.facts_of(caller, &self.table.in_force(), self.clock.now())?;
        let held = self.table.view(lease.task.root(), |ledger| {
            holds(ledger, lease.task, &who, possession)?;
            ledger.lease(lease).map(|_| ()).ok_or_else(Refusal::not_found)
        });
        held.ok_or_else(Refusal::not_found)??;

        // 2. One fact ends it, and the answer waits for it.
        self.end_lease(lease, LeaseOutcome::Revoked, ReasonCode::of("returned"), Some(&who)).await
    }

    /// The form that is asked for, with what the registry says of it.
    fn form(
        &self,
        wanted: Wanted,
        task_scope: &Scope,
        task: &TaskFacts,
        who: &CallerFacts,
        in_force: &InForce,
    ) -> Result<FormFacts, Refusal> {
        let denied = |reason, text: &str| Refusal::new(Kind::Denied, reason, text);
        let agent = in_force
            .registry()
            .agent(&who.spiffe_id)
            .ok_or_else(|| denied("not_registered", "the agent is not registered"))?;
        let registered = |audience: &AudienceName| {
            let found = in_force.registry().audience(&who.tenant, audience);
            found.ok_or_else(|| denied("audience_unknown", "the audience is not registered"))
        };
        match wanted {
            Wanted::X509Svid { public_key, ignored_attributes } => {
                below_ceiling(agent, task.sensitivity_max, &Scope::default())?;
                let trust_domain = self.trust_domain.clone();
                Ok(FormFacts::X509Svid { trust_domain, public_key, ignored_attributes })
            }
            Wanted::TaskToken { audience, scope } => {
                let scope = task_scope.narrow(scope)?;
                below_ceiling(agent, task.sensitivity_max, &scope)?;
                let Audience { enforcement, sensitivity, .. } = *registered(&audience)?;
                Ok(FormFacts::TaskToken { audience, enforcement, sensitivity, scope })
            }
            // What it opens is the audience's to say: it must be all that the task may do there.
            Wanted::JwtSvid { audience } => {
                let part = task_scope.part_of(&audience).ok_or(IssueRefusal::Widens)?;
                below_ceiling(agent, task.sensitivity_max, &part)?;
                let Audience { enforcement, sensitivity, .. } = *registered(&audience)?;
                Ok(FormFacts::JwtSvid { audience, enforcement, sensitivity })
            }
            // It was read as what it renews when the task was looked at.
            Wanted::Renewal { .. } => Err(Refusal::conflict()),
        }
    }

    fn lease_lifetime(&self, ask: &CredentialAsk) -> Duration {
        let (default, max) = (self.limits.lease_lifetime_default(), self.limits.lease_lifetime_max());
        super::lifetime(ask.lifetime, default, max)
    }
}

/// The key of the task that a caller has proven, if the task is its own.
pub(super) fn holds(
    ledger: &Ledger,
    task: TaskId,
    who: &CallerFacts,
    possession: &Possession,
) -> Result<Thumbprint, Refusal> {
    let found = ledger.task(task).filter(|_| may_see(ledger, task, who)).ok_or_else(Refusal::not_found)?;
    if found.opened().agent != who.spiffe_id {
        return Err(Refusal::new(Kind::Denied, "not_agent", "only the task's agent may ask"));
    }
    possession.of(found.holder()).ok_or_else(|| IssueRefusal::WrongHolder.into())
}

/// What a live task says of what is asked for.
fn draw(
    ledger: &Ledger,
    ask: &CredentialAsk,
    holder: Thumbprint,
    control: &Control,
    now: Now,
) -> Result<Drawn, Refusal> {
    let found = ledger.task(ask.task).ok_or_else(Refusal::not_found)?;
    if let Some(ending) = ledger.task_ending(ask.task, control, now.judge)
        && !sabotage::on("ended_tasks_are_issued_to")
    {
        let closed = IssueRefusal::TaskClosed(ending).into();
        return Err(Refusal { lock: killer(ledger, ask.task, control), ..closed }.with_message(control));
    }
    let (wanted, renews) = match &ask.wanted {
        Wanted::Renewal { of, scope } => {
            let lease = LeaseId { task: ask.task, key: *of };
            let terms = ledger.lease(lease).ok_or_else(Refusal::not_found)?.terms();
            if ledger.lease_ending(lease, control, now.judge).is_some() {
                return Err(Refusal::lease_ended());
            }
            (renewed(terms, scope.as_ref())?, Some(*of))
        }
        first => (first.clone(), None),
    };
    Ok(Drawn {
        facts: ledger.facts(ask.task, control, now).ok_or_else(Refusal::not_found)?,
        holder,
        scope: found.opened().scope.clone(),
        path: ledger.path(ask.task).map(|hop| hop.node).collect(),
        deadline: ledger.deadline(ask.task).ok_or_else(Refusal::not_found)?,
        prompt_origin: found.opened().prompt_origin,
        version: ledger.version(),
        wanted,
        renews,
    })
}

/// The same once more, or less of it.
fn renewed(terms: &Terms, scope: Option<&Scope>) -> Result<Wanted, Refusal> {
    match &terms.content {
        Content::TaskToken(token) => {
            let wanted = scope.cloned().unwrap_or_else(|| token.scope.clone());
            let scope = match sabotage::on("renewal_widens") {
                true => wanted,
                false => token.scope.narrow(wanted)?,
            };
            Ok(Wanted::TaskToken { audience: token.audience.clone(), scope })
        }
        Content::X509Svid(svid) if scope.is_none() => {
            Ok(Wanted::X509Svid { public_key: svid.public_key.clone(), ignored_attributes: false })
        }
        Content::JwtSvid(svid) if scope.is_none() => Ok(Wanted::JwtSvid { audience: svid.audience.clone() }),
        Content::X509Svid(_) | Content::JwtSvid(_) => Err(Refusal::invalid("scope", "an SVID has none")),
    }
}

fn understands_act(registry: &Registry, who: &CallerFacts, form: &FormFacts) -> bool {
    match form {
        FormFacts::TaskToken { audience, .. } => {
            registry.audience(&who.tenant, audience).is_some_and(|audience| audience.understands_act)
        }
        FormFacts::X509Svid { .. } | FormFacts::JwtSvid { .. } => false,
    }
}

/// Policy's answer.
pub(super) fn permitted(in_force: &InForce, request: Request) -> Result<Permit, Refusal> {
    match in_force.policies().decide(request) {
        Decision::Permit(permit) => Ok(permit),
        Decision::Deny(denial) => Err(denied(denial)),
    }
}
