//! Verifies task tokens at a resource server.
