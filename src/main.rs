//! The `brevet` program.

fn main() {}
