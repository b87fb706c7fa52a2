//! Attacks on the running daemon, as one numbered list: `docs/attacks.md` says of each what is tried and what must come of
//! it, `table.rs` by which cases or tests that is held.

#[cfg(test)]
mod chains;
#[cfg(test)]
#[path = "../e2e/documented.rs"]
mod documented;
#[cfg(test)]
mod forge;
#[cfg(test)]
mod issuer;
#[cfg(test)]
mod proofs;
#[cfg(test)]
mod races;
#[cfg(test)]
mod shown;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod table;
#[cfg(test)]
#[path = "../e2e/tokens.rs"]
mod tokens;
#[cfg(test)]
#[path = "../e2e/world.rs"]
#[expect(dead_code, reason = "the tests that it was made for use all of it")]
mod world;
