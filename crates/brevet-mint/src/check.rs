//! Reads what was signed back and compares it with the terms, field by field: one file for each form.
//!
//! Nothing here is shared with the code that wrote it, but for how keys are named. So an error in writing gives no
//! credential instead of a wrong one. Signatures are not verified here; that would cost more than the whole mint.

pub(crate) mod jwt_svid;
pub(crate) mod task_token;
pub(crate) mod x509_svid;

/// What differs.
pub(crate) type Mismatch = &'static str;

const fn same(what: Mismatch, equal: bool) -> Result<(), Mismatch> {
    if equal { Ok(()) } else { Err(what) }
}
