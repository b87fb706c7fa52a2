//! Policy as code: decides requests with Cedar policies, and doubt is denial.
//!
//! [`Policies`] is an immutable value, loaded and checked as a whole: every policy has an id and a place, is valid
//! against the schema, and its obligations are understood, or nothing is loaded. A decision uses exactly one such
//! value, so a reload is the exchange of one pointer.
//!
//! Cedar skips a policy whose evaluation fails, so a failing `forbid` would vanish. Here any failure denies.
//!
//! The vocabulary of policies is `schema.cedarschema`; `docs/policy.md` explains it.

mod condition;
mod decide;
mod load;
mod slice;
mod source;
mod verdict;
mod vocabulary;

pub use decide::{Decision, Denial, Policies};
pub use load::{
    FILE_BYTES_MAX, FILES_MAX, LoadError, NESTING_MAX, POLICIES_MAX, POLICY_BYTES_MAX, Problem,
    TOTAL_BYTES_MAX,
};

#[cfg(test)]
mod tests;
