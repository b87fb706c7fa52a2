//! Who watches: how many streams there are, in all and of each caller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brevet_core::spiffe_id::SpiffeId;
use thiserror::Error;

/// There are as many streams as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there are {max} streams, which is the limit")]
pub struct Full {
    /// The limit's name.
    pub limit: &'static str,
    /// The limit.
    pub max: usize,
}

/// The most streams, each limit under the name that the configuration has for it.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// In all.
    pub all: (&'static str, usize),
    /// Of one caller.
    pub per_caller: (&'static str, usize),
}

/// The streams that are open.
#[derive(Debug)]
pub struct Streams {
    limits: StreamLimits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_caller: BTreeMap<SpiffeId, usize>,
}

/// The place of one stream, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    streams: Arc<Streams>,
    caller: SpiffeId,
}

impl Streams {
    /// No streams, and room for so many.
    #[must_use]
    pub fn new(limits: StreamLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// A place for one more stream of a caller.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub fn open(self: &Arc<Self>, caller: &SpiffeId) -> Result<Place, Full> {
        let mut counts = self.lock();
        let own = counts.by_caller.get(caller).copied().unwrap_or(0);
        for ((limit, max), held) in [(self.limits.per_caller, own), (self.limits.all, counts.all)] {
            if held >= max {
                return Err(Full { limit, max });
            }
        }
        counts.all = counts.all.saturating_add(1);
        counts.by_caller.insert(caller.clone(), own.saturating_add(1));
        Ok(Place { streams: Arc::clone(self), caller: caller.clone() })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().all
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.streams.lock();
        counts.all = counts.all.saturating_sub(1);
        let Some(own) = counts.by_caller.get_mut(&self.caller) else { return };
        *own = own.saturating_sub(1);
        if *own == 0 {
            counts.by_caller.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_streams_than_its_share_nor_all_together_more_than_there_may_be() {
        let streams = Streams::new(StreamLimits { all: ("all", 3), per_caller: ("own", 2) });
        let [a, b] = ["spiffe://td/a", "spiffe://td/b"].map(|id| id.parse::<SpiffeId>().unwrap());
        let first = streams.open(&a).unwrap();
        let _second = streams.open(&a).unwrap();
        assert_eq!(streams.open(&a).unwrap_err(), Full { limit: "own", max: 2 });
        let _third = streams.open(&b).unwrap();
        assert_eq!(streams.open(&b).unwrap_err(), Full { limit: "all", max: 3 });
        drop(first);
        let _fourth = streams.open(&b).unwrap();
        assert_eq!(streams.open(&a).unwrap_err(), Full { limit: "all", max: 3 });
        drop((_second, _third, _fourth));
        assert!(streams.is_empty() && streams.lock().by_caller.is_empty());
    }
}
