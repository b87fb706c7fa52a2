//! What operators call, and the local root socket.

use brevet_api::v1;
use brevet_api::v1::selector::Kind;
use brevet_client::{Settings, connect_local};

use crate::world::{Answer, Client, World};

macro_rules! methods {
    ($($name:ident, $method:literal, $service:ident.$stub:ident, $request:ident => $response:ident;)*) => {
        $(pub(crate) async fn $name(&self, request: v1::$request) -> Answer<v1::$response> {
            let result = self.broker.$service().$stub(request).await.map(tonic::Response::into_inner);
            self.answer($method, None, result)
        })*
    };
}

impl Client {
    methods! {
        list_locks, "ListLocks", locks.list_locks, ListLocksRequest => ListLocksResponse;
        list_leases, "ListLeases", leases.list_leases, ListLeasesRequest => ListLeasesResponse;
        revoke_with, "RevokeLease", leases.revoke_lease, RevokeLeaseRequest => RevokeLeaseResponse;
        revoke_leases, "RevokeLeases", leases.revoke_leases, RevokeLeasesRequest => RevokeLeasesResponse;
    }

    pub(crate) async fn create_lock(&self, request: v1::CreateLockRequest) -> Answer<v1::Lock> {
        let request_id = brevet_core::name::RequestId::parse(&request.request_id).ok();
        let result = self.broker.locks().create_lock(request).await.map(tonic::Response::into_inner);
        self.answer("CreateLock", request_id.map(|id| id.to_string()), result)
    }

    /// Pulls the emergency stop under a request id.
    pub(crate) async fn stop(&self, request_id: &str, kind: Kind) -> Answer<v1::Lock> {
        self.create_lock(stop(request_id, kind)).await
    }

    pub(crate) async fn get_lock(&self, name: &str) -> Answer<v1::Lock> {
        let request = v1::GetLockRequest { name: name.to_owned() };
        let result = self.broker.locks().get_lock(request).await.map(tonic::Response::into_inner);
        self.answer("GetLock", None, result)
    }

    pub(crate) async fn lift(&self, name: &str) -> Answer<v1::Lock> {
        let request = v1::LiftLockRequest { name: name.to_owned() };
        let result = self.broker.locks().lift_lock(request).await.map(tonic::Response::into_inner);
        self.answer("LiftLock", None, result)
    }

    pub(crate) async fn get_lease(&self, name: &str) -> Answer<v1::Lease> {
        let request = v1::GetLeaseRequest { name: name.to_owned() };
        let result = self.broker.leases().get_lease(request).await.map(tonic::Response::into_inner);
        self.answer("GetLease", None, result)
    }

    pub(crate) async fn revoke(&self, name: &str) -> Answer<v1::RevokeLeaseResponse> {
        self.revoke_with(v1::RevokeLeaseRequest { name: name.to_owned(), reason: String::new() }).await
    }
}

impl World {
    /// Connects over the local root socket, as the daemon's own user.
    pub(crate) async fn root(&self) -> Client {
        let socket = self.endpoints().root_socket.unwrap();
        self.stranger(connect_local(&socket, &Settings::default()).await.unwrap())
    }
}

pub(crate) const fn selector(kind: Kind) -> Option<v1::Selector> {
    Some(v1::Selector { kind: Some(kind) })
}

/// A request for an emergency stop.
pub(crate) fn stop(request_id: &str, kind: Kind) -> v1::CreateLockRequest {
    v1::CreateLockRequest {
        request_id: request_id.to_owned(),
        selector: selector(kind),
        message: String::new(),
        lifetime: None,
    }
}
