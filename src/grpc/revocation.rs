//! `RevocationService`: resource servers learn what lives.

use brevet_api::v1;
use brevet_api::v1::revocation_service_server::RevocationService;
use brevet_core::revision::Revision;
use tonic::{Request, Response, Status};

use super::convert;
use super::door::{Asked, Door};
use crate::broker::Refusal;

pub(super) struct Revocations(pub(super) Door);

#[tonic::async_trait]
impl RevocationService for Revocations {
    async fn introspect_credential(
        &self,
        request: Request<v1::IntrospectCredentialRequest>,
    ) -> Result<Response<v1::IntrospectCredentialResponse>, Status> {
        let caller = self.0.caller(&request, "IntrospectCredential")?;
        let message = request.into_inner();
        let min_revision = message.min_revision.map(Revision);
        let outcome = match message.token.as_str() {
            "" => Err(Refusal::invalid("token", "is required")),
            token => self.0.broker.introspect(&caller, token, min_revision).await,
        };
        let asked = Asked::method("IntrospectCredential");
        self.0.answer(&caller, &asked, outcome.map(|answer| convert::introspection(&answer)))
    }
}
