//! The durable, hash-chained journal.
