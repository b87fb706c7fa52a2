//! What only tests use: clocks, seeds, a test CA, an in-memory journal.

pub mod journal;
