//! `LeaseService`: operators see what has been issued, and end it.

use brevet_api::v1;
use brevet_api::v1::lease_service_server::LeaseService;
use tonic::{Request, Response, Status};

use super::convert;
use super::door::{Asked, Door};
use crate::broker::{LeaseView, Refusal, Revoked};

pub(super) struct Leases(pub(super) Door);

#[tonic::async_trait]
impl LeaseService for Leases {
    async fn get_lease(&self, request: Request<v1::GetLeaseRequest>) -> Result<Response<v1::Lease>, Status> {
        let caller = self.0.caller(&request, "GetLease")?;
        let v1::GetLeaseRequest { name } = request.into_inner();
        let outcome = match convert::lease_name("name", &name) {
            Ok(lease) => {
                self.0.broker.get_lease(&caller, lease).await.map(|view| convert::lease::lease(&view))
            }
            Err(refusal) => Err(refusal),
        };
        self.0.answer(&caller, &Asked::method("GetLease").of_lease(&name), outcome)
    }

    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let caller = self.0.caller(&request, "ListLeases")?;
        let outcome = match convert::lease::lease_filter(request.into_inner(), self.0.page_size_max()) {
            Ok(filter) => {
                let limit = filter.limit;
                let listed = self.0.broker.list_leases(&caller, filter).await;
                listed.map(|views| convert::lease::page(&views, limit))
            }
            Err(refusal) => Err(refusal),
        };
        self.0.answer(&caller, &Asked::method("ListLeases"), outcome)
    }

    async fn revoke_lease(
        &self,
        request: Request<v1::RevokeLeaseRequest>,
    ) -> Result<Response<v1::RevokeLeaseResponse>, Status> {
        let caller = self.0.caller(&request, "RevokeLease")?;
        let message = request.into_inner();
        let outcome = self.revoke(&caller, &message).await;
        let outcome =
            outcome.map(|view| v1::RevokeLeaseResponse { lease: Some(convert::lease::lease(&view)) });
        self.0.answer(&caller, &Asked::method("RevokeLease").of_lease(&message.name), outcome)
    }

    async fn revoke_leases(
        &self,
        request: Request<v1::RevokeLeasesRequest>,
    ) -> Result<Response<v1::RevokeLeasesResponse>, Status> {
        let caller = self.0.caller(&request, "RevokeLeases")?;
        let outcome = self.revoke_matching(&caller, request.into_inner()).await;
        let outcome = outcome.map(|revoked| convert::lease::revoked(&revoked));
        self.0.answer(&caller, &Asked::method("RevokeLeases"), outcome)
    }
}

impl Leases {
    async fn revoke(
        &self,
        caller: &brevet_core::proof::Caller,
        message: &v1::RevokeLeaseRequest,
    ) -> Result<LeaseView, Refusal> {
        let lease = convert::lease_name("name", &message.name)?;
        let reason = convert::reason(&message.reason, "revoked")?;
        self.0.broker.revoke_lease(caller, lease, reason).await
    }

    async fn revoke_matching(
        &self,
        caller: &brevet_core::proof::Caller,
        message: v1::RevokeLeasesRequest,
    ) -> Result<Revoked, Refusal> {
        let v1::RevokeLeasesRequest { selector, reason, validate_only } = message;
        let selector = selector.ok_or_else(|| Refusal::invalid("selector", "is required"))?;
        let selector = convert::selector(selector)?;
        let reason = convert::reason(&reason, "revoked")?;
        if validate_only {
            self.0.broker.preview_revocation(caller, &selector).await
        } else {
            self.0.broker.revoke_leases(caller, selector, reason).await
        }
    }
}
