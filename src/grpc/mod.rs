//! The gRPC services: each method takes the caller and the message, has both parsed, lets the broker tell the story,
//! and answers. Nothing is decided here.

mod convert;
mod credential;
mod door;
mod peer;
mod revocation;
mod status;
mod task;
mod unread;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use brevet_api::v1::credential_service_server::CredentialServiceServer;
use brevet_api::v1::revocation_service_server::RevocationServiceServer;
use brevet_api::v1::task_service_server::TaskServiceServer;
use tonic::Status;
use tonic::service::Routes;

pub use self::door::{Door, ProofMemory};
pub use self::peer::Peer;
use crate::broker::Broker;
use crate::config::GrpcConfig;

/// The most bytes in one answer: a token carries its scope once more than the largest request does.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The services of the network listener, with their limits.
///
/// # Errors
/// If the description of the services, which is compiled in, does not read.
pub fn routes(
    broker: &Arc<Broker>,
    config: &GrpcConfig,
    proofs: ProofMemory,
    url: &str,
) -> Result<Router, tonic_reflection::server::Error> {
    let door = Door::new(Arc::clone(broker), proofs, url.to_owned());
    let bytes_max = usize::try_from(config.message_bytes_max.get()).unwrap_or(usize::MAX);
    let tasks = TaskServiceServer::new(task::Tasks(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let credentials = CredentialServiceServer::new(credential::Credentials(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let revocations = RevocationServiceServer::new(revocation::Revocations(door.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    // The daemon listens only while it serves, so whoever gets through to ask is told that it does.
    let (_reporter, health) = tonic_health::server::health_reporter();
    let mut services = Routes::new(tasks)
        .add_service(credentials)
        .add_service(revocations)
        .add_service(health.max_decoding_message_size(bytes_max));
    if config.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(brevet_api::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        services = services.add_service(reflection);
    }
    let call_max = Duration::from_secs(config.call_seconds_max.get().into());
    let deadline = move |request: Request, next: Next| within(call_max, request, next);
    let answered = move |request: Request, next: Next| unread::answered(door.clone(), request, next);
    Ok(services.prepare().into_axum_router().layer(from_fn(deadline)).layer(from_fn(answered)))
}

/// Answers in time, whatever the caller sends or fails to send.
async fn within(max: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(max, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the call took too long").into_http(),
    }
}
