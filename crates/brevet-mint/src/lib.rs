//! The only code that touches private keys.
//!
//! [`plan::Planner`] turns a permit into the terms of a credential; the lease table has the journal hold them; a
//! [`signer::Signer`] takes nothing but terms that the journal holds, signs them, and compares its product with
//! them before anyone sees it. [`state_key`] makes the ids of root tasks and the one-time claims. [`key`] keeps the
//! keys of tokens and checkpoints, [`ca`] the key of the broker's own trust domain, and [`jwks`] publishes what
//! verifiers need of both.

pub mod ca;
pub mod jwks;
pub mod key;
pub mod key_file;
pub mod plan;
pub mod signer;
pub mod state_key;

mod check;
#[cfg(test)]
mod fixture;
mod jws;
mod jwt_svid;
mod pem;
mod task_token;
mod x509_svid;
