//! Notices: what resource servers learn of endings, and no more: which lease or task, why, and how long it matters.
//!
//! Only early endings are noticed; that a credential's own end has come, every verifier sees by itself. A notice says
//! for which audiences there are credentials that it ends, so that an enforcer learns of its own alone (T7).

use std::collections::BTreeSet;

use crate::fact::ReasonCode;
use crate::id::{LeaseId, TaskId};
use crate::name::{AudienceName, TenantName};
use crate::revision::Revision;
use crate::time::Timestamp;

/// The early endings that one commit brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The commit.
    pub revision: Revision,
    /// The tenant that it belongs to.
    pub tenant: TenantName,
    /// The endings.
    pub endings: Vec<EarlyEnding>,
}

/// One ending before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlyEnding {
    /// What ended.
    pub ended: Ended,
    /// Why.
    pub reason: ReasonCode,
    /// When the last credential ends by itself that this one ended: from then on the notice is of no use.
    pub until: Timestamp,
    /// Whom it concerns.
    pub reach: Reach,
}

/// The endings of one commit, or a part of them, as a verifier is told of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endings {
    /// The commit.
    pub revision: Revision,
    /// The endings.
    pub endings: Vec<ToldEnding>,
    /// Whether more of the same commit come next: it is not told before the last of them.
    pub more: bool,
}

impl Endings {
    /// Everything up to here was told, if everything before the commit was.
    #[must_use]
    pub const fn told(&self) -> Revision {
        if self.more { Revision(self.revision.0.saturating_sub(1)) } else { self.revision }
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldEnding {
    /// What ended.
    pub ended: Ended,
    /// Why.
    pub reason: ReasonCode,
    /// From when on it may be forgotten: whatever it ended has ended by itself then.
    pub until: Timestamp,
}

/// What ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// A task, with everything below it.
    Task(TaskId),
    /// One lease.
    Lease(LeaseId),
}

/// Whom an ending concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The enforcers of these audiences.
    Audiences(BTreeSet<AudienceName>),
    /// Every enforcer of the tenant: an X.509-SVID is for no audience in particular.
    Tenant,
}

impl Reach {
    /// Whether it concerns an enforcer of these audiences.
    #[must_use]
    pub fn concerns(&self, enforced: &BTreeSet<AudienceName>) -> bool {
        match self {
            Self::Audiences(audiences) => !audiences.is_disjoint(enforced),
            Self::Tenant => !enforced.is_empty(),
        }
    }

    /// Widens it by the audience of one more credential; none means an X.509-SVID.
    pub(crate) fn add(&mut self, audience: Option<&AudienceName>) {
        match (self, audience) {
            (Self::Audiences(audiences), Some(audience)) => {
                if !audiences.contains(audience) {
                    audiences.insert(audience.clone());
                }
            }
            (reach, None) => *reach = Self::Tenant,
            (Self::Tenant, Some(_)) => {}
        }
    }
}
