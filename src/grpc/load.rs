//! Overload: what is refused first, and what never has to wait behind it.
//!
//! The signal is how many calls are in flight, the calls that are here as a whole and are not answered yet. By Little's law that
//! is their rate times the time that each takes, so it rises alike with too many calls, too little CPU and a slow disk; it
//! needs no clock and no average, and one atomic addition measures it. Each kind of call has a bound of its own on *all*
//! that is in flight, so that what matters more keeps a reserve that what matters less cannot reach (invariant R5).
//!
//! Of what makes new credentials only so much is worked on at once, and the rest waits in order. It would not be done
//! sooner otherwise, and a revocation would wait behind all of it for the CPU. Likewise with the tokens of callers, whose
//! verification costs anybody no more than a request: they have places of their own, so that strangers who call for the
//! emergency stop take none of those that it has.

use std::sync::atomic::{AtomicUsize, Ordering};

use brevet_core::sabotage;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::class::Class;

/// The calls in flight.
#[derive(Debug)]
pub(super) struct Load {
    in_flight: AtomicUsize,
    max: usize,
    issues: Semaphore,
    /// Calls whose token is being looked at or waits for it.
    with_token: Semaphore,
    /// As many of those as may come over connections whose caller was never known.
    of_strangers: Semaphore,
    tokens: Semaphore,
}

/// A call whose token is looked at.
#[derive(Debug)]
pub(super) struct WithToken<'a>(#[expect(dead_code, reason = "it is held")] [Option<SemaphorePermit<'a>>; 2]);

/// A call that was let in, and is in flight until this is dropped.
#[derive(Debug)]
pub(super) struct InFlight<'a>(&'a Load);

/// As much is in flight as may be for a call of this kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overloaded;

impl Load {
    /// None, and room for so many, of which so many may be work on new credentials; and so many tokens that are verified
    /// at once, with so many calls that have one.
    pub(super) const fn new(
        max: usize,
        issues_at_once_max: usize,
        (tokens_at_once_max, with_token_max): (usize, usize),
    ) -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            max,
            issues: Semaphore::const_new(issues_at_once_max),
            with_token: Semaphore::const_new(with_token_max),
            of_strangers: Semaphore::const_new(with_token_max.div_ceil(2)),
            tokens: Semaphore::const_new(tokens_at_once_max),
        }
    }

    /// Lets a call in, or says at once that there is too much.
    pub(super) fn admit(&self, class: Class) -> Result<InFlight<'_>, Overloaded> {
        // What is added for a call that is then refused is gone again when its guard is.
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let call = InFlight(self);
        let sixteenths = if sabotage::on("all_are_shed_alike") { 16 } else { class.sixteenths() };
        if before < self.max.saturating_mul(sixteenths) / 16 { Ok(call) } else { Err(Overloaded) }
    }

    /// Lets a call in whose token is to be looked at, or says at once that there are too many. Those over connections whose
    /// caller was never known wait instead, so that of the few that each may have none is passed over.
    pub(super) async fn admit_token(&self, is_on_probation: bool) -> Result<WithToken<'_>, Overloaded> {
        let of_strangers = if is_on_probation { self.of_strangers.acquire().await.ok() } else { None };
        let place = self.with_token.try_acquire().map_err(|_| Overloaded)?;
        Ok(WithToken([of_strangers, Some(place)]))
    }

    /// Waits until it is the turn of a token to be verified.
    pub(super) async fn token_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.tokens.acquire().await.ok()
    }

    /// Waits until it is the turn of a call of this kind to be worked on.
    pub(super) async fn turn(&self, class: Class) -> Option<SemaphorePermit<'_>> {
        match class {
            // What is closed gives no turns; nobody closes these.
            Class::Issue => self.issues.acquire().await.ok(),
            _ => None,
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const ORDER: [Class; Class::COUNT] =
        [Class::Read, Class::Issue, Class::Complete, Class::Introspect, Class::Revoke];

    #[test]
    fn r5_what_matters_least_is_refused_first_and_each_kind_keeps_a_reserve() {
        let load = Load::new(32, 32, (1, 1));
        let mut held = Vec::new();
        for (class, most) in ORDER.into_iter().zip([16, 24, 28, 30, 32]) {
            while let Ok(call) = load.admit(class) {
                held.push(call);
            }
            assert_eq!(held.len(), most, "{}", class.as_str());
        }
        for class in ORDER {
            assert_eq!(load.admit(class).unwrap_err(), Overloaded);
        }
        held.truncate(29);
        assert!(load.admit(Class::Introspect).is_ok());
        assert_eq!(load.admit(Class::Complete).unwrap_err(), Overloaded);
        held.clear();
        assert_eq!(load.in_flight.load(Ordering::Relaxed), 0, "each place came back");
    }

    #[tokio::test]
    async fn r5_only_so_much_is_issued_at_once_and_nothing_else_waits_for_it() {
        let load = Load::new(32, 2, (1, 1));
        let first = load.turn(Class::Issue).await;
        let second = load.turn(Class::Issue).await;
        assert!(first.is_some() && second.is_some());
        let mut third = pin!(load.turn(Class::Issue));
        tokio::select! {
            biased;
            _ = &mut third => panic!("it was not its turn"),
            () = async {
                for class in ORDER.into_iter().filter(|class| *class != Class::Issue) {
                    assert!(load.turn(class).await.is_none());
                }
            } => {}
        }
        drop(first);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn r5_calls_with_a_token_take_no_place_of_others_and_are_looked_at_in_turn() {
        let load = Load::new(1, 1, (1, 2));
        let first = load.admit_token(true).await.unwrap();
        let mut stranger = pin!(load.admit_token(true));
        tokio::select! {
            biased;
            _ = &mut stranger => panic!("strangers have no more than half of the places"),
            () = std::future::ready(()) => {}
        }
        let second = load.admit_token(false).await.unwrap();
        assert_eq!(load.admit_token(false).await.unwrap_err(), Overloaded);
        assert!(load.admit(Class::Revoke).is_ok(), "they take no place of another");
        let turn = load.token_turn().await;
        let mut next = pin!(load.token_turn());
        tokio::select! {
            biased;
            _ = &mut next => panic!("it was not its turn"),
            () = std::future::ready(()) => {}
        }
        drop(turn);
        assert!(next.await.is_some());
        drop(first);
        assert!(stranger.await.is_ok());
        drop(second);
    }
}
