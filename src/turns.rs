//! Turns at work of which only so much goes on at once, in all and for each tenant, so that what one tenant asks for does
//! not keep the others waiting.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use brevet_core::name::TenantName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// The turns there are.
#[derive(Debug)]
pub struct Turns {
    all: Semaphore,
    per_tenant_max: usize,
    /// Of each tenant that ever came: there are no more than the registry had.
    of_tenants: Mutex<BTreeMap<TenantName, Arc<Semaphore>>>,
}

/// A turn, given back when it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    _of_all: SemaphorePermit<'a>,
    _of_tenant: OwnedSemaphorePermit,
}

impl Turns {
    /// So many at once, and so many of each tenant.
    #[must_use]
    pub const fn new(max: usize, per_tenant_max: usize) -> Self {
        Self { all: Semaphore::const_new(max), per_tenant_max, of_tenants: Mutex::new(BTreeMap::new()) }
    }

    /// Waits for a turn of the tenant's, and only then for one of all.
    pub async fn take(&self, tenant: &TenantName) -> Turn<'_> {
        // What is closed gives no turns; nobody closes these.
        let Ok(of_tenant) = self.of_tenant(tenant).acquire_owned().await else { return pending().await };
        let Ok(of_all) = self.all.acquire().await else { return pending().await };
        Turn { _of_all: of_all, _of_tenant: of_tenant }
    }

    fn of_tenant(&self, tenant: &TenantName) -> Arc<Semaphore> {
        let mut of_tenants = self.of_tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let own = || Arc::new(Semaphore::new(self.per_tenant_max));
        Arc::clone(of_tenants.entry(tenant.clone()).or_insert_with(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn at_once<'a>(turns: &'a Turns, tenant: &TenantName) -> Option<Turn<'a>> {
        tokio::select! {
            biased;
            turn = turns.take(tenant) => Some(turn),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn no_tenant_has_more_turns_than_its_own_nor_all_together_more_than_there_are() {
        let turns = Turns::new(3, 2);
        let [north, south] = ["north", "south"].map(|name| TenantName::parse(name).unwrap());
        let first = at_once(&turns, &north).await.unwrap();
        let _second = at_once(&turns, &north).await.unwrap();
        assert!(at_once(&turns, &north).await.is_none());
        let third = at_once(&turns, &south).await.unwrap();
        assert!(at_once(&turns, &south).await.is_none(), "there are no more");
        drop(first);
        let _fourth = at_once(&turns, &south).await.unwrap();
        drop(third);
        assert!(at_once(&turns, &north).await.is_some());
    }
}
