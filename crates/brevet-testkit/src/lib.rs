//! What only tests use: a running daemon, a test CA, certificates made by hand, seeds, a journal in memory.

pub mod ca;
pub mod daemon;
pub mod jose;
pub mod journal;
pub mod seed;
pub mod suite;
pub mod x509;
