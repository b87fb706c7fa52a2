//! Issuing credentials.

use std::sync::Arc;
use std::time::Duration;

use brevet_core::digest::{CertificateDigest, ClaimDigest, Thumbprint};
use brevet_core::fact::{Envelope, Holder, LeaseOutcome, ReasonCode};
use brevet_core::id::{Id, LeaseId};
use brevet_core::ledger::{End, EndRefusal, IssueRefusal, Recall};
use brevet_core::name::{AudienceName, RequestId};
use brevet_core::proof::Caller;
use brevet_core::request::{CredentialFacts, Operation, PromptOrigin, Request, Resource, TaskFacts};
use brevet_core::revision::{Basis, Revision};
use brevet_core::scope::Scope;
use brevet_core::terms::Profile;
use brevet_core::time::Timestamp;
use brevet_mint::plan::{Draft, lease_key};
use brevet_mint::signer::Credential;
use brevet_policy::Decision;
use serde::Serialize;

use super::{Broker, Kind, Refusal, body_of, denied, may_see};
use crate::metrics::DecisionOutcome;

/// What is asked for when a credential is issued. Its JSON form is the request's body.
#[derive(Debug, Clone, Serialize)]
pub struct CredentialAsk {
    /// The task.
    pub task: brevet_core::id::TaskId,
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// The form.
    pub profile: Profile,
    /// The audience.
    pub audience: AudienceName,
    /// What is to be permitted, all of it the audience's.
    pub scope: Scope,
    /// How long it is to live.
    pub lifetime: Option<Duration>,
    /// Whether to name the connection's certificate besides the key.
    pub bind_certificate: bool,
    /// Where the agent says that its instruction came from.
    pub prompt_origin: Option<PromptOrigin>,
}

/// What the caller proved of its key.
#[derive(Debug, Clone)]
pub struct Possession {
    /// The key that it offers: by a proof with the request, else the connection's own.
    pub offered: Thumbprint,
    /// The other keys that the connection has proven.
    pub proven: Vec<Thumbprint>,
    /// The connection's own key and certificate.
    pub certificate: (Thumbprint, CertificateDigest),
    /// The one-time claim that it redeems.
    pub claim: Option<ClaimDigest>,
}

impl Possession {
    /// The key to bind to: the task's own if the caller has proven it, or what it offers if the task has none yet.
    fn of(&self, holder: Holder) -> Option<Thumbprint> {
        match holder {
            Holder::Key(key) => (self.offered == key || self.proven.contains(&key)).then_some(key),
            Holder::Claim(_) => Some(self.offered),
        }
    }

    fn certificate_of(&self, holder: Thumbprint) -> Option<CertificateDigest> {
        let (key, certificate) = self.certificate;
        (key == holder).then_some(certificate)
    }
}

/// A credential, ready to be handed to its holder.
#[derive(Debug)]
pub struct Issued(pub Credential);

/// What is known of the task before policy is asked.
struct Drawn {
    facts: TaskFacts,
    holder: Thumbprint,
    scope: Scope,
    path: Vec<Id>,
    deadline: Timestamp,
    prompt_origin: Option<PromptOrigin>,
    version: Revision,
}

impl Broker {
    /// Issues a credential for a task.
    ///
    /// # Errors
    /// [`Refusal`]; no credential of this request will ever be accepted by anyone then (invariant L10).
    pub async fn issue(
        self: &Arc<Self>,
        caller: &Caller,
        ask: CredentialAsk,
        possession: Possession,
    ) -> Result<Issued, Refusal> {
        let lease = match self.decide(|| self.try_issue(caller, &ask, &possession)) {
            Ok(lease) => lease,
            Err(refusal) => {
                // Who may not see the task is told nothing of it, and waits for nothing of it: a foreign task answers
                // like one that never was, in time and when the journal fails too.
                if refusal.kind != Kind::NotFound {
                    self.settle(ask.task.root()).await?;
                }
                return Err(refusal);
            }
        };
        // From here on the lease exists. Whether or not the client is still there, the rest is done.
        let broker = Arc::clone(self);
        let delivery = tokio::spawn(async move { broker.deliver(lease).await });
        delivery.await.map_err(|_| Refusal::unavailable("delivery_failed"))?
    }

    /// Decides and records; no key is used yet.
    fn try_issue(
        &self,
        caller: &Caller,
        ask: &CredentialAsk,
        possession: &Possession,
    ) -> Result<LeaseId, Refusal> {
        // 1. Who asks, and under what.
        let now = self.minting_clock()?;
        let in_force = self.table.in_force();
        let control = &in_force.control;
        let who = self.facts_of(caller, &in_force, now)?;

        // 2. The task is the caller's, and bound to the key it proved.
        let body = body_of("IssueCredential", ask);
        let drawn = self.table.view(ask.task.root(), |ledger| {
            let task = ledger.task(ask.task).filter(|_| may_see(ledger, ask.task, &who))?;
            if task.opened().agent != who.spiffe_id {
                return Some(Err(Refusal::new(Kind::Denied, "not_agent", "only the task's agent may ask")));
            }
            let Some(holder) = possession.of(task.holder()) else {
                return Some(Err(IssueRefusal::WrongHolder.into()));
            };
            // 3. A retry gets the lease that it got before.
            match ledger.recall(ask.task, &ask.request_id, &body) {
                Recall::Same(key) => return Some(Ok(Err(LeaseId { task: ask.task, key }))),
                Recall::Other => return Some(Err(Refusal::request_id_reused())),
                Recall::New => {}
            }
            if let Some(ending) = ledger.task_ending(ask.task, control, now.judge) {
                return Some(Err(IssueRefusal::TaskClosed(ending).into()));
            }
            Some(Ok(Ok(Drawn {
                facts: ledger.facts(ask.task, control, now)?,
                scope: task.opened().scope.clone(),
                holder,
                path: ledger.path(ask.task).map(|hop| hop.node).collect(),
                deadline: ledger.deadline(ask.task)?,
                prompt_origin: task.opened().prompt_origin.filter(|_| task.opened().opener != who.spiffe_id),
                version: ledger.version(),
            })))
        });
        let drawn = match drawn.flatten().ok_or_else(Refusal::not_found)?? {
            Ok(drawn) => drawn,
            Err(lease) => return Ok(lease),
        };

        // 4. What is asked for lies within the task and, whatever it was when the task was opened, within the agent's
        //    ceiling of today; and it belongs to a registered audience.
        let scope = drawn.scope.narrow(ask.scope.clone())?;
        let agent = in_force
            .registry()
            .agent(&who.spiffe_id)
            .ok_or_else(|| Refusal::new(Kind::Denied, "not_registered", "the agent is not registered"))?;
        let scope = agent.scope.narrow(scope)?;
        if drawn.facts.sensitivity_max > agent.sensitivity_max {
            return Err(Refusal::new(
                Kind::Denied,
                "sensitivity_widens",
                "more sensitive than the agent's ceiling",
            ));
        }
        let audience = in_force.registry().audience(&who.tenant, &ask.audience).ok_or_else(|| {
            Refusal::new(Kind::Denied, "audience_unknown", "the audience is not registered")
        })?;

        // 5. Policy decides.
        let lifetime = super::lifetime(
            ask.lifetime,
            self.limits.lease_lifetime_default(),
            self.limits.lease_lifetime_max(),
        );
        let request = Request {
            operation: Operation::IssueCredential,
            caller: who.clone(),
            resource: Resource::Audience(ask.audience.clone()),
            task: drawn.facts,
            scope: drawn.scope,
            prompt_origin: PromptOrigin::judged(drawn.prompt_origin, ask.prompt_origin),
            credential: Some(CredentialFacts {
                profile: ask.profile,
                audience: ask.audience.clone(),
                enforcement: audience.enforcement,
                sensitivity: audience.sensitivity,
                scope,
                lifetime_seconds: lifetime.as_secs(),
                holder: drawn.holder,
            }),
            time: now.judge,
            basis: Basis { tree: drawn.version, control: control.revision() },
        };
        let permit = match in_force.policies().decide(request) {
            Decision::Permit(permit) => permit,
            Decision::Deny(denial) => return Err(denied(denial)),
        };

        // 6. The plan holds everything that will be signed.
        let lease = lease_key(&self.rng).map_err(|_| Refusal::unavailable("no_randomness"))?;
        let draft = Draft {
            lease,
            path: drawn.path,
            deadline: drawn.deadline,
            understands_act: audience.understands_act,
            certificate: possession.certificate_of(drawn.holder).filter(|_| ask.bind_certificate),
        };
        let plan = self.planner.draw(permit, draft, now)?;

        // 7. The ledger issues the lease, and the journal will have it before the key is used.
        let envelope = self.envelope(now, Some(&who), Some(ask.task.root()), Some(&ask.request_id));
        let evidence = plan.permit().evidence();
        let leases_max = self.limits.leases_live_per_task_max.get();
        let issued = self.table.commit(ask.task.root(), &envelope, Some(evidence), |ledger, in_force| {
            ledger
                .issue(&plan, body, possession.claim, &in_force.control, now, leases_max)
                .map(|fact| (Some(fact), ()))
        });
        let _waited_for_at_delivery = issued?;
        self.metrics.decided(DecisionOutcome::Permitted);
        Ok(plan.terms().id)
    }

    /// Signs what the journal holds, and hands it over only if it still lives.
    async fn deliver(&self, lease: LeaseId) -> Result<Issued, Refusal> {
        // 8. Durable before disclosed (invariant L1).
        let recorded = self.table.recorded(lease).await?.ok_or_else(Refusal::not_found)?;

        // 9. The key is used, and the product compared with its plan.
        let credential = match self.signer.sign(recorded).await {
            Ok(credential) => credential,
            Err(problem) => {
                self.give_up(lease).await?;
                return Err(problem.into());
            }
        };

        // 10. What ended meanwhile is dropped unseen.
        let judge = self.clock.now().judge;
        let ending = self.table.view(lease.task.root(), |ledger| {
            ledger.lease_ending(lease, &self.table.in_force().control, judge)
        });
        match ending {
            Some(None) => {
                self.metrics.minted(credential.recorded().terms().profile().as_str());
                Ok(Issued(credential))
            }
            Some(Some(_)) | None => {
                self.settle(lease.task.root()).await?;
                Err(Refusal::new(Kind::Precondition, "lease_ended", "the lease has ended"))
            }
        }
    }

    /// Ends a lease whose credential nobody has seen, so that an error leaves nothing behind (invariant L10).
    async fn give_up(&self, lease: LeaseId) -> Result<(), Refusal> {
        let root = lease.task.root();
        let tenant = self.table.view(root, |ledger| ledger.tenant().clone());
        let ended = self.decide(|| {
            let now = self.clock.now();
            let envelope =
                Envelope { tenant: tenant.clone(), tree: Some(root), ..self.envelope(now, None, None, None) };
            let ended = self.table.commit(root, &envelope, None, |ledger, in_force| {
                let (outcome, reason) = (LeaseOutcome::Undelivered, ReasonCode::of("signer_failed"));
                match ledger.end_lease(lease, outcome, reason, &in_force.control, now.judge)? {
                    End::Now(fact, _) => Ok((Some(fact), ())),
                    End::Already => Ok::<_, EndRefusal>((None, ())),
                }
            });
            Ok(ended?)
        })?;
        Ok(self.table.durable(ended).await?)
    }
}
