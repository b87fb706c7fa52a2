//! The gRPC services: each method takes the caller and the message, has both parsed, lets the broker tell the story,
//! and answers. Nothing is decided here.

mod audit;
mod body;
mod class;
mod comebacks;
mod convert;
mod credential;
mod deadline;
mod door;
mod edge;
mod health;
mod lease;
mod load;
mod lock;
mod peer;
mod possession;
mod rates;
mod revocation;
mod status;
mod stream;
mod task;
mod token_caller;
mod unread;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use brevet_api::v1::audit_service_server::AuditServiceServer;
use brevet_api::v1::credential_service_server::CredentialServiceServer;
use brevet_api::v1::lease_service_server::LeaseServiceServer;
use brevet_api::v1::lock_service_server::LockServiceServer;
use brevet_api::v1::revocation_service_server::RevocationServiceServer;
use brevet_api::v1::task_service_server::TaskServiceServer;
use tokio::runtime::Handle;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

pub use self::door::{CallerCredentials, Door};
use self::edge::Edge;
use self::health::Serving;
pub use self::peer::Peer;
pub use self::possession::ProofMemory;
use crate::broker::{Broker, ENDINGS_TOLD_MAX};
use crate::config::GrpcConfig;

/// The most bytes in one answer for each byte of the largest request: a token carries its scope once more than that does.
const ANSWER_BYTES_PER_REQUEST_BYTE: usize = 4;
/// But no fewer than these, so that a page of a list fits. It is no configuration: what is kept of an answer for its caller
/// is bounded by `grpc.send_buffer_bytes_max`.
const ANSWER_BYTES: usize = 256 * 1024;

/// The most bytes that one ending takes on the wire. As many as a message has are a mebibyte, which any client takes.
const ENDING_BYTES_MAX: usize = 256;
/// A record repeats what was asked for in the facts, in the terms and in the evidence, and a character may take the
/// room of several there.
const EVENT_BYTES_PER_REQUEST_BYTE: usize = 16;

/// The services of the network listener, with their limits. What is no stop is done by `everybody`, whichever threads serve
/// the connection.
///
/// # Errors
/// If the description of the services, which is compiled in, does not read.
pub fn routes(
    broker: &Arc<Broker>,
    config: &GrpcConfig,
    credentials: CallerCredentials,
    url: &str,
    everybody: &Handle,
) -> Result<Router, tonic_reflection::server::Error> {
    let door = Door::new(Arc::clone(broker), credentials, url.to_owned());
    let bytes_max = config.call_limits().message_bytes_max;
    let answer_bytes_max = answer_bytes_max(bytes_max);
    let tasks = TaskServiceServer::new(task::Tasks(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(answer_bytes_max);
    let credentials = CredentialServiceServer::new(credential::Credentials(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(answer_bytes_max);
    let revocations = RevocationServiceServer::new(revocation::Revocations(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(ENDINGS_TOLD_MAX * ENDING_BYTES_MAX);
    let leases = LeaseServiceServer::new(lease::Leases(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(answer_bytes_max);
    let locks = LockServiceServer::new(lock::Locks(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(answer_bytes_max);
    let audit = AuditServiceServer::new(audit::Audit(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(bytes_max.saturating_mul(EVENT_BYTES_PER_REQUEST_BYTE).max(ANSWER_BYTES));
    let health = HealthServer::new(Serving);
    let mut services = Routes::new(tasks)
        .add_service(credentials)
        .add_service(revocations)
        .add_service(leases)
        .add_service(locks)
        .add_service(audit)
        .add_service(health.max_decoding_message_size(bytes_max));
    if config.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(brevet_api::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        services = services.add_service(reflection.max_decoding_message_size(bytes_max));
    }
    Ok(answered(services, door, config, everybody))
}

/// Services whose callers are answered in time, whatever they send.
fn answered(services: Routes, door: Door, config: &GrpcConfig, everybody: &Handle) -> Router {
    let edge = Arc::new(Edge::new(door, config.call_limits(), everybody));
    // One layer does all of it: each costs every call some microseconds.
    let layer = move |request: Request, next: Next| Arc::clone(&edge).answer(request, next);
    services.prepare().into_axum_router().layer(from_fn(layer))
}

/// What the local root socket serves: locks, and nothing that could be issued or read by it.
pub fn root_routes(broker: &Arc<Broker>, config: &GrpcConfig, everybody: &Handle) -> Router {
    let bytes_max = config.call_limits().message_bytes_max;
    let answer_bytes_max = answer_bytes_max(bytes_max);
    let door = Door::new(Arc::clone(broker), CallerCredentials::none(), String::new());
    let locks = LockServiceServer::new(lock::Locks(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(answer_bytes_max);
    answered(Routes::new(locks), door, config, everybody)
}

fn answer_bytes_max(request_bytes_max: usize) -> usize {
    request_bytes_max.saturating_mul(ANSWER_BYTES_PER_REQUEST_BYTE).max(ANSWER_BYTES)
}
