//! Deliberate faults, by which a test proves that it can fail.
//!
//! A test of an invariant passes as the code stands and fails when the fault that its invariant forbids is switched
//! on. In a release build every switch is the constant `false` and leaves nothing in the binary.

/// Whether the environment variable `BREVET_SABOTAGE` names this fault.
#[cfg(debug_assertions)]
#[must_use]
pub fn on(fault: &str) -> bool {
    use std::sync::OnceLock;
    static NAMED: OnceLock<String> = OnceLock::new();
    NAMED.get_or_init(|| std::env::var("BREVET_SABOTAGE").unwrap_or_default()) == fault
}

/// No fault can be switched on in a release build.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn on(_fault: &str) -> bool {
    false
}
