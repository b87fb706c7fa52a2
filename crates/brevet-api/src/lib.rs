//! The wire: the gRPC messages and services of `proto/brevet/v1`, generated.
//!
//! This crate knows no domain type. What a message means is said in the `.proto` files, which are the reference for
//! clients in every language; turning messages into the domain is the daemon's work.

mod redacted;

/// Package `brevet.v1`.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("brevet.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of every file, imports and comments included, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
mod tests;
