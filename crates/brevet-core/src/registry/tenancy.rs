//! That nothing which exists changes its tenant.
//!
//! A tree and a lock have for ever the tenant that they began with, and whoever asks has that of today. If a trust domain
//! or an audience went to another tenant, its locks would bind nobody any more, its tasks would be nobody's to end, and
//! what its verifiers are told would leave out what they must know.

use super::Registry;
use crate::ledger::Ledger;
use crate::lock::{Lock, Selector};
use crate::name::{AudienceName, TenantName};
use crate::spiffe_id::{SpiffeId, TrustDomain};

impl Registry {
    /// Whether everyone and every audience that a tree names is of its tenant, or of none any more.
    #[must_use]
    pub fn keeps_tree(&self, tree: &Ledger) -> bool {
        tree.tasks().all(|task| {
            let opened = task.opened();
            [&opened.agent, &opened.delegator, &opened.opener].iter().all(|id| self.keeps(tree.tenant(), id))
                && opened.scope.audiences().iter().all(|name| self.keeps_audience(tree.tenant(), name))
        })
    }

    /// Whether the tenant that a lock is confined to is still there, and what the lock names is of it, or of none any more.
    #[must_use]
    pub fn keeps_lock(&self, lock: &Lock) -> bool {
        let Some(tenant) = &lock.tenant else { return true };
        self.has_tenant(tenant)
            && match &lock.selector {
                Selector::Agent(id) | Selector::PathPrefix(id) | Selector::Delegator(id) => {
                    self.keeps(tenant, id)
                }
                Selector::TrustDomain(trust_domain) => self.keeps_trust_domain(tenant, trust_domain),
                Selector::Audience(audience) | Selector::Resource { audience, .. } => {
                    self.keeps_audience(tenant, audience)
                }
                Selector::Task(_)
                | Selector::Tool(_)
                | Selector::Key(_)
                | Selector::Policy(_)
                | Selector::Everything => true,
            }
    }

    fn has_tenant(&self, tenant: &TenantName) -> bool {
        self.default_tenant.iter().chain(self.tenants.values()).any(|known| known == tenant)
    }

    fn keeps(&self, tenant: &TenantName, id: &SpiffeId) -> bool {
        self.keeps_trust_domain(tenant, &id.trust_domain())
    }

    fn keeps_trust_domain(&self, tenant: &TenantName, trust_domain: &TrustDomain) -> bool {
        let now = self.default_tenant.as_ref().or_else(|| self.tenants.get(trust_domain));
        now.is_none_or(|now| now == tenant)
    }

    fn keeps_audience(&self, tenant: &TenantName, name: &AudienceName) -> bool {
        self.audiences.get(name).is_none_or(|audience| audience.tenant == *tenant)
    }
}
