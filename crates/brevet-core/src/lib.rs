//! The domain of Brevet, pure: no I/O, no async, no clock, no randomness.
//!
//! A command and the time come in, facts come out. [`ledger::Ledger`] holds one task tree, [`control::Control`]
//! holds what binds all of them (locks, registry, policy revision), and both are nothing but the fold of the
//! facts that the journal recorded: `replay(facts) == state`.
//!
//! Proofs are types. Bytes become a [`request::Request`], a verified connection becomes a [`proof::Caller`],
//! a policy decision becomes a [`proof::Permit`], a permit becomes a [`proof::Plan`], and only a plan that the
//! journal holds becomes [`proof::Recorded`], which is what a signer takes. None of them is `Clone`, each has one
//! constructor, and each step consumes the one before.

pub mod bookmark;
pub mod control;
pub mod digest;
pub mod fact;
pub mod id;
pub mod ledger;
pub mod lock;
pub mod merkle;
pub mod name;
pub mod notice;
pub mod proof;
pub mod public_key;
pub mod record;
pub mod registry;
pub mod request;
pub mod revision;
pub mod sabotage;
pub mod scope;
pub mod spiffe_id;
pub mod state;
pub mod task_svid;
pub mod terms;
pub mod time;
