//! The registry: which tenants, audiences, agents, orchestrators and operators exist, and what each may be.
//!
//! It is a value that is checked as a whole when it is loaded and then never changes; a new one replaces it by a
//! control change that names its digest. Whoever is not in it is nobody.

mod tenancy;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::RegistryDigest;
use crate::name::{ActionName, AudienceName, PersonName, TaskType, TenantName};
use crate::request::Sensitivity;
use crate::scope::Scope;
use crate::spiffe_id::{SpiffeId, TrustDomain};

/// The longest life of a credential for an audience that only verifies signatures.
pub const SIGNATURE_LIFETIME_MAX: Duration = Duration::from_secs(60);

/// Why a registry is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidRegistry {
    /// The same name stands twice.
    #[error("{kind} {name} is registered twice")]
    Duplicate {
        /// The table.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// An audience names a tenant that is not registered.
    #[error("audience {audience} names the unknown tenant {tenant}")]
    UnknownTenant {
        /// The audience.
        audience: AudienceName,
        /// The tenant it names.
        tenant: TenantName,
    },
    /// A trust domain is not assigned to any tenant.
    #[error("the trust domain of {0} belongs to no tenant")]
    UnassignedTrustDomain(SpiffeId),
    /// A scope names an audience that is not registered, or one of another tenant.
    #[error("the scope of {name} names the audience {audience}, which is not registered in its tenant")]
    UnknownAudience {
        /// The entry.
        name: SpiffeId,
        /// The audience it names.
        audience: AudienceName,
    },
    /// A scope names an action that the audience does not have.
    #[error("the scope of {name} names the action {action}, which {audience} does not have")]
    UnknownAction {
        /// The entry.
        name: SpiffeId,
        /// The audience.
        audience: AudienceName,
        /// The action it names.
        action: ActionName,
    },
    /// An audience is enforced by a workload of another tenant.
    #[error("audience {audience} names the enforcer {enforcer}, which is of another tenant")]
    ForeignEnforcer {
        /// The audience.
        audience: AudienceName,
        /// The workload it names.
        enforcer: SpiffeId,
    },
    /// An orchestrator names an agent that is not registered in its tenant.
    #[error("orchestrator {orchestrator} names the agent {agent}, which is not registered in its tenant")]
    UnknownAgent {
        /// The orchestrator.
        orchestrator: SpiffeId,
        /// The agent it names.
        agent: SpiffeId,
    },
    /// A workload has two places that must be kept apart.
    #[error("{0} is the identity of two operators")]
    SharedIdentity(SpiffeId),
}

/// A part that a workload may play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Works on tasks.
    Agent,
    /// Opens tasks and signals their end.
    Orchestrator,
    /// Enforces an audience's access.
    Enforcer,
    /// Person: writes policy.
    Author,
    /// Person: approves high-risk actions.
    Approver,
    /// Person: pulls and lifts the emergency stop.
    Stopper,
    /// Person: reads the audit log.
    Auditor,
    /// Person: rotates keys.
    KeyOfficer,
}

impl Role {
    /// The name, the same in configuration, policy and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Orchestrator => "orchestrator",
            Self::Enforcer => "enforcer",
            Self::Author => "author",
            Self::Approver => "approver",
            Self::Stopper => "stopper",
            Self::Auditor => "auditor",
            Self::KeyOfficer => "key_officer",
        }
    }

    /// Whether a person plays it.
    #[must_use]
    pub const fn is_operator(self) -> bool {
        !matches!(self, Self::Agent | Self::Orchestrator | Self::Enforcer)
    }
}

/// How an audience enforces what a credential permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Asks before each action.
    Action,
    /// Verifies offline and watches revocations.
    Lease,
    /// Verifies signatures only: credentials live at most a minute.
    Signature,
}

impl Enforcement {
    /// The name, the same in configuration, policy and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Lease => "lease",
            Self::Signature => "signature",
        }
    }

    /// The longest life of a credential for such an audience, where it has one of its own.
    #[must_use]
    pub const fn lifetime_max(self) -> Option<Duration> {
        match self {
            Self::Action | Self::Lease => None,
            Self::Signature => Some(SIGNATURE_LIFETIME_MAX),
        }
    }
}

/// A tenant and the trust domains whose workloads are its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Its trust domains; no two tenants share one.
    pub trust_domains: BTreeSet<TrustDomain>,
}

/// A resource server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audience {
    /// Its name: the `aud` of its tokens.
    pub name: AudienceName,
    /// Its tenant.
    #[serde(default)]
    pub tenant: TenantName,
    /// The workloads that enforce it. Only they may introspect its tokens.
    pub enforcers: BTreeSet<SpiffeId>,
    /// How it enforces.
    pub enforcement: Enforcement,
    /// The worst of what it holds.
    pub sensitivity: Sensitivity,
    /// Whether it understands `act` (RFC 8693 §4.1), so that a token may name the delegator as its subject.
    #[serde(default)]
    pub understands_act: bool,
    /// The actions it has.
    pub actions: BTreeSet<ActionName>,
}

/// An agent and the most it may ever be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// The workload.
    pub spiffe_id: SpiffeId,
    /// The ceiling: every task's scope lies within it. Empty means nothing.
    pub scope: Scope,
    /// The most sensitive thing it may touch.
    pub sensitivity_max: Sensitivity,
    /// The types of task that it may delegate besides that of the task which it works on.
    #[serde(default)]
    pub delegates: BTreeSet<TaskType>,
}

/// A workload that opens tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orchestrator {
    /// The workload.
    pub spiffe_id: SpiffeId,
    /// The task types it may open.
    pub task_types: BTreeSet<TaskType>,
    /// The agents it may open tasks for.
    pub agents: BTreeSet<SpiffeId>,
}

/// A person, with all of their identities, so that nobody counts twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// The person.
    pub name: PersonName,
    /// Their identities.
    pub identities: BTreeSet<SpiffeId>,
    /// What they may do.
    pub roles: BTreeSet<Role>,
}

/// The registry as a configuration states it, not yet checked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySource {
    /// Tenants; with none there is one, `default`, of every trust domain.
    pub tenants: Vec<Tenant>,
    /// Audiences.
    pub audiences: Vec<Audience>,
    /// Agents.
    pub agents: Vec<Agent>,
    /// Orchestrators.
    pub orchestrators: Vec<Orchestrator>,
    /// Operators.
    pub operators: Vec<Operator>,
}

/// The registry, checked.
#[derive(Debug, Clone)]
pub struct Registry {
    digest: RegistryDigest,
    default_tenant: Option<TenantName>,
    tenants: BTreeMap<TrustDomain, TenantName>,
    audiences: BTreeMap<AudienceName, Audience>,
    agents: BTreeMap<SpiffeId, Agent>,
    orchestrators: BTreeMap<SpiffeId, Orchestrator>,
    operators: BTreeMap<SpiffeId, Operator>,
    enforcers: BTreeSet<SpiffeId>,
}

impl Registry {
    /// Checks a registry as a whole.
    ///
    /// # Errors
    /// [`InvalidRegistry`] for the first entry that does not fit the others.
    pub fn new(source: RegistrySource) -> Result<Self, InvalidRegistry> {
        let canonical = serde_json::to_vec(&source).unwrap_or_default();
        let mut registry = Self {
            digest: RegistryDigest::of(&[&canonical]),
            default_tenant: source.tenants.is_empty().then(TenantName::default),
            tenants: BTreeMap::new(),
            audiences: BTreeMap::new(),
            agents: BTreeMap::new(),
            orchestrators: BTreeMap::new(),
            operators: BTreeMap::new(),
            enforcers: BTreeSet::new(),
        };
        let tenant_names = registry.take_tenants(source.tenants)?;
        registry.take_audiences(source.audiences, &tenant_names)?;
        registry.take_agents(source.agents)?;
        registry.take_orchestrators(source.orchestrators)?;
        registry.take_operators(source.operators)?;
        Ok(registry)
    }

    /// The digest of the whole.
    #[must_use]
    pub const fn digest(&self) -> RegistryDigest {
        self.digest
    }

    /// The tenant of a workload: that of its trust domain. None means that nobody may speak for it here.
    #[must_use]
    pub fn tenant_of(&self, spiffe_id: &SpiffeId) -> Option<&TenantName> {
        self.default_tenant.as_ref().or_else(|| self.tenants.get(&spiffe_id.trust_domain()))
    }

    /// An audience of a tenant.
    #[must_use]
    pub fn audience(&self, tenant: &TenantName, name: &AudienceName) -> Option<&Audience> {
        self.audiences.get(name).filter(|audience| audience.tenant == *tenant)
    }

    /// An agent.
    #[must_use]
    pub fn agent(&self, spiffe_id: &SpiffeId) -> Option<&Agent> {
        self.agents.get(spiffe_id)
    }

    /// An orchestrator.
    #[must_use]
    pub fn orchestrator(&self, spiffe_id: &SpiffeId) -> Option<&Orchestrator> {
        self.orchestrators.get(spiffe_id)
    }

    /// The person behind an identity.
    #[must_use]
    pub fn operator(&self, spiffe_id: &SpiffeId) -> Option<&Operator> {
        self.operators.get(spiffe_id)
    }

    /// Whether a workload enforces an audience.
    #[must_use]
    pub fn enforces(&self, spiffe_id: &SpiffeId, audience: &AudienceName) -> bool {
        self.audiences.get(audience).is_some_and(|audience| audience.enforcers.contains(spiffe_id))
    }

    /// The audiences that a workload enforces, all of its own tenant.
    #[must_use]
    pub fn enforced_by(&self, spiffe_id: &SpiffeId) -> BTreeSet<AudienceName> {
        let Some(tenant) = self.tenant_of(spiffe_id) else { return BTreeSet::new() };
        let enforced = self
            .audiences
            .iter()
            .filter(|(_, audience)| audience.tenant == *tenant && audience.enforcers.contains(spiffe_id));
        enforced.map(|(name, _)| name.clone()).collect()
    }

    /// Every part that a workload may play.
    #[must_use]
    pub fn roles(&self, spiffe_id: &SpiffeId) -> BTreeSet<Role> {
        let mut roles = BTreeSet::new();
        if self.agents.contains_key(spiffe_id) {
            roles.insert(Role::Agent);
        }
        if self.orchestrators.contains_key(spiffe_id) {
            roles.insert(Role::Orchestrator);
        }
        if self.enforcers.contains(spiffe_id) {
            roles.insert(Role::Enforcer);
        }
        if let Some(operator) = self.operators.get(spiffe_id) {
            roles.extend(operator.roles.iter().filter(|role| role.is_operator()));
        }
        roles
    }

    fn take_tenants(&mut self, tenants: Vec<Tenant>) -> Result<BTreeSet<TenantName>, InvalidRegistry> {
        let mut names: BTreeSet<TenantName> = self.default_tenant.iter().cloned().collect();
        for tenant in tenants {
            if !names.insert(tenant.name.clone()) {
                return Err(duplicate("tenant", &tenant.name));
            }
            for trust_domain in tenant.trust_domains {
                if self.tenants.contains_key(&trust_domain) {
                    return Err(duplicate("trust domain", &trust_domain));
                }
                self.tenants.insert(trust_domain, tenant.name.clone());
            }
        }
        Ok(names)
    }

    fn take_audiences(
        &mut self,
        audiences: Vec<Audience>,
        tenants: &BTreeSet<TenantName>,
    ) -> Result<(), InvalidRegistry> {
        for audience in audiences {
            if !tenants.contains(&audience.tenant) {
                return Err(InvalidRegistry::UnknownTenant {
                    audience: audience.name,
                    tenant: audience.tenant,
                });
            }
            for enforcer in &audience.enforcers {
                let tenant = self
                    .tenant_of(enforcer)
                    .ok_or_else(|| InvalidRegistry::UnassignedTrustDomain(enforcer.clone()))?;
                if *tenant != audience.tenant {
                    return Err(InvalidRegistry::ForeignEnforcer {
                        audience: audience.name,
                        enforcer: enforcer.clone(),
                    });
                }
                self.enforcers.insert(enforcer.clone());
            }
            let name = audience.name.clone();
            if self.audiences.insert(name.clone(), audience).is_some() {
                return Err(duplicate("audience", &name));
            }
        }
        Ok(())
    }

    fn take_agents(&mut self, agents: Vec<Agent>) -> Result<(), InvalidRegistry> {
        for agent in agents {
            let tenant = self
                .tenant_of(&agent.spiffe_id)
                .ok_or_else(|| InvalidRegistry::UnassignedTrustDomain(agent.spiffe_id.clone()))?;
            for permission in agent.scope.permissions() {
                let audience = self.audience(tenant, permission.audience()).ok_or_else(|| {
                    InvalidRegistry::UnknownAudience {
                        name: agent.spiffe_id.clone(),
                        audience: permission.audience().clone(),
                    }
                })?;
                if let Some(action) = permission.actions().difference(&audience.actions).next() {
                    return Err(InvalidRegistry::UnknownAction {
                        name: agent.spiffe_id,
                        audience: audience.name.clone(),
                        action: action.clone(),
                    });
                }
            }
            let spiffe_id = agent.spiffe_id.clone();
            if self.agents.insert(spiffe_id.clone(), agent).is_some() {
                return Err(duplicate("agent", &spiffe_id));
            }
        }
        Ok(())
    }

    fn take_orchestrators(&mut self, orchestrators: Vec<Orchestrator>) -> Result<(), InvalidRegistry> {
        for orchestrator in orchestrators {
            self.tenant_of(&orchestrator.spiffe_id)
                .ok_or_else(|| InvalidRegistry::UnassignedTrustDomain(orchestrator.spiffe_id.clone()))?;
            let tenant = self.tenant_of(&orchestrator.spiffe_id);
            let is_own =
                |agent: &SpiffeId| self.agents.contains_key(agent) && self.tenant_of(agent) == tenant;
            if let Some(agent) = orchestrator.agents.iter().find(|agent| !is_own(agent)) {
                return Err(InvalidRegistry::UnknownAgent {
                    orchestrator: orchestrator.spiffe_id.clone(),
                    agent: agent.clone(),
                });
            }
            let spiffe_id = orchestrator.spiffe_id.clone();
            if self.orchestrators.insert(spiffe_id.clone(), orchestrator).is_some() {
                return Err(duplicate("orchestrator", &spiffe_id));
            }
        }
        Ok(())
    }

    fn take_operators(&mut self, operators: Vec<Operator>) -> Result<(), InvalidRegistry> {
        let mut names = BTreeSet::new();
        for operator in operators {
            if !names.insert(operator.name.clone()) {
                return Err(duplicate("operator", &operator.name));
            }
            for identity in &operator.identities {
                self.tenant_of(identity)
                    .ok_or_else(|| InvalidRegistry::UnassignedTrustDomain(identity.clone()))?;
                if self.operators.insert(identity.clone(), operator.clone()).is_some() {
                    return Err(InvalidRegistry::SharedIdentity(identity.clone()));
                }
            }
        }
        Ok(())
    }
}

fn duplicate(kind: &'static str, name: &impl ToString) -> InvalidRegistry {
    InvalidRegistry::Duplicate { kind, name: name.to_string() }
}

#[cfg(test)]
mod tests;
