//! Which key each token that callers have shown was bound to at first use.
//!
//! Whoever shows a token first, with a proof of a key, has it; shown with another key it is refused. The journal has each
//! binding before its caller is let in, so that it holds across a crash.

use std::sync::{Mutex, PoisonError};

use brevet_core::digest::{BearerDigest, Thumbprint};
use brevet_core::fact::BearerBound;
use brevet_core::name::TenantName;
use brevet_core::revision::Revision;
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use brevet_journal::AppendError;
use thiserror::Error;

use crate::remembered::{Full, Remembered, RememberedLimits};

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BindError {
    /// It is bound to another key: one of the two is a thief.
    #[error("the token is bound to another key")]
    Other,
    /// Too many are remembered, of the tenant or of this workload.
    #[error("too many tokens are remembered")]
    Full(#[from] Full),
    /// The journal does not take it now.
    #[error("the journal does not take it")]
    Journal(#[from] AppendError),
}

/// The tokens that could still be shown.
#[derive(Debug)]
pub struct TokenBindings(Mutex<Bound>);

/// The key of each, and the revision that has it.
type Bound = Remembered<BearerDigest, (Thumbprint, Revision), SpiffeId>;

impl TokenBindings {
    /// Those that the journal has, and room for so many.
    #[must_use]
    pub fn restored<'a>(
        bearers: impl IntoIterator<Item = &'a BearerBound>,
        tenant_of: impl Fn(&SpiffeId) -> Option<TenantName>,
        limits: RememberedLimits,
    ) -> Self {
        let mut bound = Bound::new(limits);
        for BearerBound { token, workload, key, until } in bearers {
            bound.insert(*token, (*key, Revision::ZERO), (tenant_of(workload), workload.clone()), *until);
        }
        Self(Mutex::new(bound))
    }

    /// Whether a token is bound to another key.
    #[must_use]
    pub fn is_of_another(&self, token: &BearerDigest, key: Thumbprint, now: Timestamp) -> bool {
        let mut bound = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bound.forget_until(now);
        bound.get(token).is_some_and(|(bound_to, _)| *bound_to != key) && !sabotage::on("any_key_binds")
    }

    /// Binds a token of a tenant's workload to a key, or finds it bound to it. Yields the revision that has it, which is to
    /// be waited for.
    ///
    /// # Errors
    /// [`BindError`]; a token that was not bound before is not bound then either.
    pub fn bind(
        &self,
        tenant: &TenantName,
        bearer: BearerBound,
        now: Timestamp,
        record: impl FnOnce(&BearerBound) -> Result<Revision, AppendError>,
    ) -> Result<Revision, BindError> {
        // The journal only queues under this lock, and waits for nothing.
        let mut bound = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bound.forget_until(now);
        if let Some((key, revision)) = bound.get(&bearer.token) {
            let same = *key == bearer.key || sabotage::on("any_key_binds");
            return if same { Ok(*revision) } else { Err(BindError::Other) };
        }
        bound.has_room(Some(tenant), &bearer.workload)?;
        let revision = if sabotage::on("bindings_unrecorded") { Revision::ZERO } else { record(&bearer)? };
        let BearerBound { token, workload, key, until } = bearer;
        bound.insert(token, (key, revision), (Some(tenant.clone()), workload), until);
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RememberedLimits = RememberedLimits { per_tenant: 3, per_owner: 2 };

    fn bearer(token: u8, workload: &str, key: u8, until: u64) -> BearerBound {
        BearerBound {
            token: BearerDigest::from_bytes([token; 32]),
            workload: format!("spiffe://td/{workload}").parse().unwrap(),
            key: Thumbprint::from_bytes([key; 32]),
            until: Timestamp::from_seconds(until),
        }
    }

    fn tenant(name: &str) -> TenantName {
        TenantName::parse(name).unwrap()
    }

    #[test]
    fn i3_a_token_is_the_first_key_s_as_long_as_it_could_be_shown() {
        let bindings = TokenBindings::restored([&bearer(9, "a", 1, 100)], |_| Some(tenant("t")), LIMITS);
        let bind = |bearer, now| {
            bindings.bind(&tenant("t"), bearer, Timestamp::from_seconds(now), |_| Ok(Revision(7)))
        };
        assert_eq!(bind(bearer(1, "a", 1, 100), 0), Ok(Revision(7)));
        assert_eq!(bind(bearer(1, "a", 2, 100), 1), Err(BindError::Other));
        assert_eq!(bind(bearer(9, "a", 2, 100), 1), Err(BindError::Other), "what the journal had counts");
        assert_eq!(bind(bearer(9, "a", 1, 100), 1), Ok(Revision::ZERO));
        assert_eq!(bind(bearer(1, "a", 1, 100), 99), Ok(Revision(7)));
        assert_eq!(
            bind(bearer(2, "a", 1, 100), 99),
            Err(BindError::Full(Full)),
            "what the journal had is counted"
        );
        assert_eq!(bind(bearer(1, "a", 2, 200), 100), Ok(Revision(7)), "by now it could not be shown");
    }

    #[test]
    fn i3_a_binding_that_is_not_recorded_is_none() {
        let bindings = TokenBindings::restored([], |_| None, LIMITS);
        let (now, tenant) = (Timestamp::EPOCH, tenant("t"));
        let failed = bindings.bind(&tenant, bearer(1, "a", 1, 9), now, |_| Err(AppendError::Busy));
        assert_eq!(failed, Err(BindError::Journal(AppendError::Busy)));
        assert_eq!(bindings.bind(&tenant, bearer(1, "a", 2, 9), now, |_| Ok(Revision(3))), Ok(Revision(3)));
    }
}
