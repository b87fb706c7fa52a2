//! Parses and verifies hostile identity documents.
