//! The gRPC services: each method takes the caller and the message, has both parsed, lets the broker tell the story,
//! and answers. Nothing is decided here.

mod convert;
mod credential;
mod door;
mod peer;
mod revocation;
mod status;
mod task;

use std::sync::Arc;

use axum::Router;
use brevet_api::v1::credential_service_server::CredentialServiceServer;
use brevet_api::v1::revocation_service_server::RevocationServiceServer;
use brevet_api::v1::task_service_server::TaskServiceServer;
use tonic::service::Routes;

pub use self::door::{Door, ProofMemory};
pub use self::peer::Peer;
use crate::broker::Broker;

/// The services of the network listener, with their limits.
#[must_use]
pub fn routes(broker: &Arc<Broker>, proofs: ProofMemory, message_bytes_max: usize, url: &str) -> Router {
    let door = Door::new(Arc::clone(broker), proofs, url.to_owned());
    let tasks = TaskServiceServer::new(task::Tasks(door.clone()))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    let credentials = CredentialServiceServer::new(credential::Credentials(door.clone()))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    let revocations = RevocationServiceServer::new(revocation::Revocations(door))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    Routes::new(tasks).add_service(credentials).add_service(revocations).prepare().into_axum_router()
}
