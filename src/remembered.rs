//! What is remembered until a time, so that it is known again: at most so much of each tenant, and of each owner there.
//!
//! There is no bound on all of it, for whoever could use that up would have others forgotten or refused. Tenants are as
//! many as the registry has.

use std::collections::{BTreeMap, BTreeSet};

use brevet_core::name::TenantName;
use brevet_core::time::Timestamp;
use thiserror::Error;

/// As much is remembered of the tenant, or of the owner, as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("as much is remembered as may be")]
pub struct Full;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedLimits {
    /// Of one tenant. Those who are of none are counted together.
    pub per_tenant: usize,
    /// Of one owner.
    pub per_owner: usize,
}

/// Values by their keys, each until its end.
#[derive(Debug)]
pub struct Remembered<K, V, O> {
    limits: RememberedLimits,
    by_key: BTreeMap<K, Entry<V, O>>,
    by_end: BTreeSet<(Timestamp, K)>,
    tenants: BTreeMap<Option<TenantName>, usize>,
    owners: BTreeMap<O, usize>,
}

#[derive(Debug)]
struct Entry<V, O> {
    value: V,
    tenant: Option<TenantName>,
    owner: O,
}

impl<K: Ord + Clone, V, O: Ord + Clone> Remembered<K, V, O> {
    /// Nothing yet.
    #[must_use]
    pub const fn new(limits: RememberedLimits) -> Self {
        Self {
            limits,
            by_key: BTreeMap::new(),
            by_end: BTreeSet::new(),
            tenants: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    /// What is remembered under a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.by_key.get(key).map(|entry| &entry.value)
    }

    /// Whether there is room for one more.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub fn has_room(&self, tenant: Option<&TenantName>, owner: &O) -> Result<(), Full> {
        let of_tenant = self.tenants.get(&tenant.cloned()).copied().unwrap_or(0);
        let own = self.owners.get(owner).copied().unwrap_or(0);
        let is_full = of_tenant >= self.limits.per_tenant || own >= self.limits.per_owner;
        if is_full { Err(Full) } else { Ok(()) }
    }

    /// Remembers a value, whether or not there is room for it. What has the key already stays.
    pub fn insert(&mut self, key: K, value: V, (tenant, owner): (Option<TenantName>, O), end: Timestamp) {
        if self.by_key.contains_key(&key) {
            return;
        }
        add(&mut self.tenants, tenant.clone());
        add(&mut self.owners, owner.clone());
        self.by_end.insert((end, key.clone()));
        self.by_key.insert(key, Entry { value, tenant, owner });
    }

    /// Forgets what has ended by now.
    pub fn forget_until(&mut self, now: Timestamp) {
        while let Some((end, _)) = self.by_end.first()
            && *end <= now
            && let Some((_, key)) = self.by_end.pop_first()
        {
            let Some(Entry { tenant, owner, .. }) = self.by_key.remove(&key) else { continue };
            subtract(&mut self.tenants, &tenant);
            subtract(&mut self.owners, &owner);
        }
    }
}

fn add<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}

fn subtract<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count = count.saturating_sub(1),
        _ => drop(counts.remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Memory = Remembered<u8, &'static str, &'static str>;

    fn remember(memory: &mut Memory, key: u8, of: (&str, &'static str), end: u64) -> Result<(), Full> {
        let (tenant, owner) = (TenantName::parse(of.0).unwrap(), of.1);
        memory.has_room(Some(&tenant), &owner)?;
        memory.insert(key, "it", (Some(tenant), owner), Timestamp::from_seconds(end));
        Ok(())
    }

    #[test]
    fn what_is_remembered_is_known_until_its_end_and_takes_no_room_after() {
        let mut memory = Memory::new(RememberedLimits { per_tenant: 9, per_owner: 1 });
        assert_eq!(remember(&mut memory, 1, ("t", "a"), 10), Ok(()));
        assert_eq!(remember(&mut memory, 2, ("t", "a"), 10), Err(Full));
        memory.forget_until(Timestamp::from_seconds(9));
        assert_eq!(memory.get(&1), Some(&"it"));
        memory.forget_until(Timestamp::from_seconds(10));
        assert_eq!(memory.get(&1), None);
        assert!(memory.by_end.is_empty() && memory.tenants.is_empty() && memory.owners.is_empty());
        assert_eq!(remember(&mut memory, 2, ("t", "a"), 20), Ok(()));
    }

    #[test]
    fn no_owner_and_no_tenant_takes_the_room_of_another() {
        let mut memory = Memory::new(RememberedLimits { per_tenant: 3, per_owner: 2 });
        assert_eq!(remember(&mut memory, 1, ("t", "a"), 10), Ok(()));
        assert_eq!(remember(&mut memory, 2, ("t", "a"), 20), Ok(()));
        assert_eq!(remember(&mut memory, 3, ("t", "a"), 20), Err(Full));
        assert_eq!(remember(&mut memory, 3, ("t", "b"), 20), Ok(()));
        assert_eq!(remember(&mut memory, 4, ("t", "c"), 20), Err(Full), "the tenant has no room left");
        assert_eq!(remember(&mut memory, 5, ("u", "d"), 20), Ok(()), "another tenant has");
        assert_eq!(memory.has_room(None, &"e"), Ok(()), "and so has who is of none");
        memory.forget_until(Timestamp::from_seconds(10));
        assert_eq!(remember(&mut memory, 4, ("t", "c"), 20), Ok(()));
    }
}
