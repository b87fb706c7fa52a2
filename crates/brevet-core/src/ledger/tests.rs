//! What holds of a tree: each rule at its boundary in `rules`, all of them at once in `sequences`, where random
//! commands run against the definitions of `model`.

mod chain;
mod model;
mod rules;
pub(crate) mod sample;
mod sequences;
mod system;
