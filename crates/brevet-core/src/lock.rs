//! Locks: the emergency stop.
//!
//! A lock is permanent for what existed. A task or lease that it matches, and that was issued before the lock's
//! revision, is dead for ever; lifting the lock, or its end, only permits new issue. It works by matching, so it
//! takes effect at once however many leases it stops; the sweep that writes endings afterwards is bookkeeping.

use serde::{Deserialize, Serialize};

use crate::digest::PolicyDigest;
use crate::id::{Id, LockId, TaskId};
use crate::name::{ActionName, AudienceName, KeyId, TenantName};
use crate::revision::Revision;
use crate::sabotage;
use crate::scope::{ResourcePattern, Scope};
use crate::spiffe_id::{SpiffeId, TrustDomain};
use crate::terms::{Profile, Terms};
use crate::time::Timestamp;

/// What a lock stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// A task and everything delegated from it.
    Task(TaskId),
    /// Every task that the agent works on, and everything delegated from them.
    Agent(SpiffeId),
    /// As `Agent`, for every SPIFFE ID that is this one or lies below it.
    PathPrefix(SpiffeId),
    /// Every task on this one's behalf, and everything delegated from them.
    Delegator(SpiffeId),
    /// Every lease whose scope names the tool, and every JWT-SVID.
    Tool(ActionName),
    /// Every lease whose scope overlaps the resource, and every JWT-SVID for the audience.
    Resource {
        /// The audience that the resource belongs to.
        audience: AudienceName,
        /// The resource.
        resource: ResourcePattern,
    },
    /// Every lease for the audience.
    Audience(AudienceName),
    /// Every task that an agent, delegator or opener of the trust domain has a part in.
    TrustDomain(TrustDomain),
    /// Every lease signed with the key.
    Key(KeyId),
    /// Every lease that these policies permitted.
    Policy(PolicyDigest),
    /// Everything.
    Everything,
}

/// One task on the path from the root of its tree, as far as a selector looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The task's own part of its id.
    pub node: Id,
    /// The agent that works on it.
    pub agent: &'a SpiffeId,
    /// On whose behalf.
    pub delegator: &'a SpiffeId,
    /// The workload that opened it.
    pub opener: &'a SpiffeId,
}

impl Selector {
    /// Whether it stops a task, given the hops from the root of its tree to the task itself.
    #[must_use]
    pub fn stops_task<'a>(&self, task: TaskId, mut path: impl Iterator<Item = Hop<'a>>) -> bool {
        match self {
            Self::Task(stopped) => {
                stopped.root() == task.root() && path.any(|hop| hop.node == stopped.node())
            }
            Self::Agent(agent) => path.any(|hop| hop.agent == agent),
            Self::PathPrefix(prefix) => path.any(|hop| is_at_or_below(hop.agent, prefix)),
            Self::Delegator(delegator) => path.any(|hop| hop.delegator == delegator),
            Self::TrustDomain(domain) => path.any(|hop| {
                [hop.agent, hop.delegator, hop.opener]
                    .iter()
                    .any(|party| party.trust_domain_name() == domain.as_str())
            }),
            Self::Everything => true,
            Self::Tool(_) | Self::Resource { .. } | Self::Audience(_) | Self::Key(_) | Self::Policy(_) => {
                false
            }
        }
    }

    /// Whether it stops a lease by what the lease says; whether it stops the lease's task is asked besides.
    #[must_use]
    pub fn stops_terms(&self, terms: &Terms) -> bool {
        let permissions = terms.scope().map_or(&[][..], Scope::permissions);
        // What a JWT-SVID opens is its audience's to say: it may be any tool and any resource there.
        let opens_anything = terms.profile() == Profile::JwtSvid;
        match self {
            Self::Tool(tool) => {
                opens_anything || permissions.iter().any(|permission| permission.actions().contains(tool))
            }
            Self::Resource { audience, resource } => {
                (opens_anything && terms.audience() == Some(audience))
                    || permissions.iter().any(|permission| {
                        permission.audience() == audience && permission.resource().overlaps(resource)
                    })
            }
            Self::Audience(audience) => terms.audience() == Some(audience),
            Self::Key(key) => terms.key_id == *key,
            Self::Policy(policy) => terms.policy == *policy,
            Self::Task(_)
            | Self::Agent(_)
            | Self::PathPrefix(_)
            | Self::Delegator(_)
            | Self::TrustDomain(_)
            | Self::Everything => false,
        }
    }
}

impl Selector {
    /// Whether it stops a workload whatever task it works on.
    #[must_use]
    pub fn stops_workload(&self, workload: &SpiffeId) -> bool {
        match self {
            Self::Agent(agent) => agent == workload,
            Self::PathPrefix(prefix) => is_at_or_below(workload, prefix),
            Self::TrustDomain(domain) => workload.trust_domain_name() == domain.as_str(),
            Self::Everything => true,
            Self::Task(_)
            | Self::Delegator(_)
            | Self::Tool(_)
            | Self::Resource { .. }
            | Self::Audience(_)
            | Self::Key(_)
            | Self::Policy(_) => false,
        }
    }

    /// The kind, the same in policy, wire and log.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Task(_) => "task",
            Self::Agent(_) => "agent",
            Self::PathPrefix(_) => "path_prefix",
            Self::Delegator(_) => "delegator",
            Self::Tool(_) => "tool",
            Self::Resource { .. } => "resource",
            Self::Audience(_) => "audience",
            Self::TrustDomain(_) => "trust_domain",
            Self::Key(_) => "key",
            Self::Policy(_) => "policy",
            Self::Everything => "everything",
        }
    }
}

fn is_at_or_below(id: &SpiffeId, prefix: &SpiffeId) -> bool {
    id.as_str().strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An emergency stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Its id.
    pub id: LockId,
    /// The tenant it is confined to; none stops all tenants.
    pub tenant: Option<TenantName>,
    /// What it stops.
    pub selector: Selector,
    /// What the stopped party is told.
    pub message: String,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// A lock with its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRecord {
    /// The lock.
    pub lock: Lock,
    /// The revision it was recorded at: what was issued before is dead.
    pub created: Revision,
    /// When it was recorded, by the judging clock.
    pub created_at: Timestamp,
    /// When it was lifted.
    pub lifted: Option<Timestamp>,
    /// What it ended, once all of that is recorded.
    pub swept: Option<Swept>,
}

/// What a lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Swept {
    /// Tasks, those below others not counted.
    pub tasks: u64,
    /// Leases whose tasks went on.
    pub leases: u64,
}

impl Swept {
    /// This and more.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self { tasks: self.tasks.saturating_add(more.tasks), leases: self.leases.saturating_add(more.leases) }
    }
}

impl LockRecord {
    /// Whether it forbids new issue.
    #[must_use]
    pub fn forbids_issue(&self, judge: Timestamp) -> bool {
        self.lifted.is_none() && self.lock.until.is_none_or(|until| judge < until)
    }

    /// Since when it forbids nothing any more, or will not if nobody lifts it before.
    #[must_use]
    pub(crate) fn over_since(&self) -> Option<Timestamp> {
        self.lifted.into_iter().chain(self.lock.until).min()
    }

    /// Whether it kills what it matches and was recorded at a revision: whatever came before it, for ever.
    #[must_use]
    pub(crate) fn kills(&self, recorded: Revision) -> bool {
        self.created > recorded && !sabotage::on("locks_spare_what_lives")
    }

    /// Whether it binds the tenant's objects at all.
    #[must_use]
    pub fn binds(&self, tenant: &TenantName) -> bool {
        self.lock.tenant.as_ref().is_none_or(|bound| bound == tenant)
    }
}

#[cfg(test)]
mod tests;
