//! What a fuzzer feeds to whatever reads bytes that an attacker may have chosen.
//!
//! A target takes any bytes. Beyond not panicking, what it reads must hold more: what is read is written as it was, what
//! is accepted is accepted by a second reading that shares no code with the first, and nothing outlives its end. A
//! signature is not found by chance, so what lies behind one is signed by the target itself, with keys that live as long
//! as the process.
//!
//! `tests/corpora.rs` includes this file: there the committed seeds and fresh ones are read by the stable compiler.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a target that finds something panics"
)]

mod certificate;
mod configuration;
mod headers;
mod identifier;
mod journal;
mod jwk;
mod request;
mod token;

pub use certificate::{csr, x509_svid};
pub use configuration::{config, policy};
pub use identifier::spiffe_id;
pub use journal::record;
pub use jwk::jwk_set;
pub use request::{LEASE, METHODS, PEERS, TASK, WITH_HEADERS, request};
pub use token::{claims, jws};

/// Takes any bytes, and panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder of seeds.
pub const TARGETS: [(&str, Target); 10] = [
    ("claims", claims),
    ("config", config),
    ("csr", csr),
    ("jwk_set", jwk_set),
    ("jws", jws),
    ("policy", policy),
    ("record", record),
    ("request", request),
    ("spiffe_id", spiffe_id),
    ("x509_svid", x509_svid),
];
