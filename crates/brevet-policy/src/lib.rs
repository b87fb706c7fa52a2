//! Decides requests with Cedar policies.
