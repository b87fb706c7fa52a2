//! What holds of a tree: each rule at its boundary in `rules`, all of them at once in `sequences`, where random
//! commands run against the definitions of `model`.

mod chain;
mod commands;
mod delegation;
mod ending;
mod growing;
mod model;
mod notices;
mod renewal;
mod rules;
mod run;
pub(crate) mod sample;
mod sequences;
mod sweeps;
mod system;
