//! Parses and verifies hostile identity documents.
//!
//! Everything here takes bytes that an attacker may have chosen, a trust that was configured, and the time; it
//! answers with a typed proof or with one small error that has a stable `reason` for the audit. There is no I/O, no
//! clock and no state: trust is an immutable value that its owner replaces as a whole.
//!
//! * [`trust`] holds the trust bundles, [`x509_svid`] judges certificate chains by them, and [`tls`] makes the
//!   configurations under which such chains are presented.
//! * [`csr`] takes the key out of a certification request, and nothing else.
//! * [`jws`] reads signed tokens strictly. [`task_token`], [`task_jwt_svid`], [`dpop`], [`jwt_svid`] and [`oidc`] are the
//!   profiles of it; the last two share [`bearer`], and [`caller_token`] says which of them a caller's token is.
//! * [`key`] names public keys, [`jwk`] says what they are for, [`jwk_set`] finds them, and [`json`] reads the JSON that all of these are made of.
//!
//! Resource servers reuse this crate to judge task tokens exactly as the broker would.

pub mod authorization_details;
pub mod bearer;
pub mod caller_token;
mod certificate;
pub mod csr;
pub mod dpop;
pub mod json;
pub mod jwk;
pub mod jwk_set;
pub mod jws;
pub mod jwt_svid;
pub mod key;
pub mod oidc;
pub mod task_jwt_svid;
pub mod task_token;
pub mod tls;
pub mod trust;
pub mod x509_svid;

#[cfg(test)]
mod test_certificates;
#[cfg(test)]
mod test_keys;
#[cfg(test)]
mod wycheproof;
