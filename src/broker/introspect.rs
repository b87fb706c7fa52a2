//! Introspection: whether a credential is live, exactly, for the workloads that enforce its audience.

use std::sync::Arc;

use brevet_core::id::LeaseId;
use brevet_core::proof::Caller;
use brevet_core::revision::Revision;
use brevet_core::sabotage;
use brevet_core::terms::{Content, Terms};
use brevet_identity::{task_jwt_svid, task_token};

use super::{Broker, Refusal};

/// What introspection answers.
#[derive(Debug)]
pub struct Introspection {
    /// The terms and the issuing revision of a live credential; none for everything else.
    pub active: Option<(Arc<Terms>, Revision)>,
    /// The revision that the answer was computed from, at least.
    pub revision: Revision,
}

impl Broker {
    /// Tells an enforcer whether a token or a JWT-SVID is live. Of another's tokens, and of what is no token of ours, it learns the
    /// same: inactive (invariant T7).
    ///
    /// # Errors
    /// [`Refusal`] if the broker has not reached `min_revision`, or the journal is sealed.
    pub async fn introspect(
        &self,
        caller: &Caller,
        token: &str,
        min_revision: Option<Revision>,
    ) -> Result<Introspection, Refusal> {
        // 1. Who asks, and whether this broker knows at least what the caller knows.
        let now = self.clock.now();
        let who = self.facts_of(caller, &self.table.in_force(), now)?;
        // INVARIANT: read before the tree is, so that the answer contains it.
        let known = self.table.journal().progress().durable();
        if min_revision.is_some_and(|wanted| wanted > known) && !sabotage::on("min_revision_ignored") {
            return Err(Refusal::unavailable("revision_not_reached"));
        }
        let inactive = Introspection { active: None, revision: known };

        // 2. The token is ours: one that was signed here, byte for byte, or one with our signature.
        let lease = self.known_tokens.lease_of(token).or_else(|| self.lease_of_signed(token));
        let Some(lease) = lease else { return Ok(inactive) };

        // 3. Its lease lives, and the caller enforces its audience.
        let live = self.table.read(lease.task.root(), |ledger, in_force| {
            let found = ledger.lease(lease)?;
            let audience = match &found.terms().content {
                Content::TaskToken(token) => &token.audience,
                Content::JwtSvid(svid) => &svid.audience,
                Content::X509Svid(_) => return None,
            };
            let visible = *ledger.tenant() == who.tenant
                && (in_force.registry().enforces(&who.spiffe_id, audience)
                    || sabotage::on("introspect_for_anyone"));
            let dead = ledger.lease_ending(lease, &in_force.control, now.judge).is_some()
                && !sabotage::on("introspect_ignores_endings");
            visible.then(|| (!dead).then(|| (Arc::clone(found.terms()), found.revision())))
        });

        // 4. The answer waits until what it was computed from cannot be lost, nor what has run out come back.
        let Some(live) = live else { return Ok(inactive) };
        match self.table.durable(live).await? {
            None => Ok(inactive),
            Some(active) => {
                if active.is_none() {
                    self.settle(lease.task.root()).await?;
                }
                // What was durable before the look is contained in it.
                Ok(Introspection { active, revision: known })
            }
        }
    }

    /// The lease of a token or a JWT-SVID with our signature. What is of one type is never tried as the other.
    fn lease_of_signed(&self, token: &str) -> Option<LeaseId> {
        let of_task_token = task_token::authenticate(token, &self.keys, &self.issuer).ok();
        of_task_token
            .map(|token| token.lease_id())
            .or_else(|| task_jwt_svid::authenticate(token, &self.jwt_svid_keys, &self.trust_domain).ok())
    }
}
