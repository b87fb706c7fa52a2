//! Randomness that a failed test can be given again.

use std::hash::{BuildHasher, RandomState};

/// The environment variable that gives a test its seed.
pub const SEED_VARIABLE: &str = "BREVET_SEED";

/// A stream of numbers that its seed determines (splitmix64). It is no source of secrets.
#[derive(Debug, Clone)]
pub struct Seed(u64);

impl Seed {
    /// The seed of a test: the one in `BREVET_SEED`, or else a new one. Prints the line that runs the test again
    /// with the same seed; `command` is what runs the test.
    #[must_use]
    pub fn of(command: &str) -> Self {
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(command));
        println!("to reproduce: {SEED_VARIABLE}={seed} {command}");
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`; zero if that is zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        match self.number().checked_rem(bound) {
            Some(number) => number,
            None => 0,
        }
    }

    /// A stream of its own, for a thread whose turns no seed determines.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_its_numbers() {
        let draw = |mut seed: Seed| (seed.number(), seed.below(7), seed.fork().number());
        assert_eq!(draw(Seed(1)), draw(Seed(1)));
        assert_ne!(draw(Seed(1)), draw(Seed(2)));
        assert!((0..100).all(|_| Seed(3).below(7) < 7));
        assert_eq!(Seed(4).below(0), 0);
    }
}
