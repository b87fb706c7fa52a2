//! The wire: generated gRPC types and services.
