//! Health: whether the daemon serves (gRPC Health Checking Protocol). It listens only while it does, so that whoever gets
//! through to ask is told that it does.

use tokio_stream::Pending;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The daemon as a whole. Of no service by name is anything told.
pub(super) struct Serving;

#[tonic::async_trait]
impl Health for Serving {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("no such service"));
        }
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    type WatchStream = Pending<Result<HealthCheckResponse, Status>>;

    /// Is not offered, as the protocol allows: it would be a stream for everybody, and whoever has the connection sees it
    /// end with the daemon.
    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("no such method"))
    }
}
