//! `LockService`: operators pull the emergency stop over the network, and whoever is the daemon's own user or root over
//! the local socket.

use brevet_api::v1;
use brevet_api::v1::lock_service_server::LockService;
use tonic::{Request, Response, Status};

use super::convert;
use super::door::{Asked, Door};
use super::status;
use crate::broker::{LockCaller, Refusal};
use crate::net::LocalPeer;

pub(super) struct Locks(pub(super) Door);

#[tonic::async_trait]
impl LockService for Locks {
    async fn create_lock(
        &self,
        request: Request<v1::CreateLockRequest>,
    ) -> Result<Response<v1::Lock>, Status> {
        let by = self.caller(&request, "CreateLock")?;
        let message = request.into_inner();
        let asked = Asked::method("CreateLock").by(&message.request_id);
        let outcome = match convert::lock::lock_ask(message) {
            Ok(ask) => self.0.broker.create_lock(&by, ask).await.map(|view| convert::lock::lock(&view)),
            Err(refusal) => Err(refusal),
        };
        self.answer(&by, &asked, outcome)
    }

    async fn get_lock(&self, request: Request<v1::GetLockRequest>) -> Result<Response<v1::Lock>, Status> {
        let by = self.caller(&request, "GetLock")?;
        let outcome = match convert::lock_name("name", &request.into_inner().name) {
            Ok(lock) => self.0.broker.get_lock(&by, lock).await.map(|view| convert::lock::lock(&view)),
            Err(refusal) => Err(refusal),
        };
        self.answer(&by, &Asked::method("GetLock"), outcome)
    }

    async fn list_locks(
        &self,
        request: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        let by = self.caller(&request, "ListLocks")?;
        let outcome = match convert::lock::lock_filter(&request.into_inner(), self.0.page_size_max()) {
            Ok(filter) => {
                let listed = self.0.broker.list_locks(&by, filter).await;
                listed.map(|views| convert::lock::page(&views, filter.limit))
            }
            Err(refusal) => Err(refusal),
        };
        self.answer(&by, &Asked::method("ListLocks"), outcome)
    }

    async fn lift_lock(&self, request: Request<v1::LiftLockRequest>) -> Result<Response<v1::Lock>, Status> {
        let by = self.caller(&request, "LiftLock")?;
        let outcome = match convert::lock_name("name", &request.into_inner().name) {
            Ok(lock) => self.0.broker.lift_lock(&by, lock).await.map(|view| convert::lock::lock(&view)),
            Err(refusal) => Err(refusal),
        };
        self.answer(&by, &Asked::method("LiftLock"), outcome)
    }
}

impl Locks {
    /// Who asks. The local listener alone gives a request its `LocalPeer`, and admits none but the daemon's own user and
    /// root.
    fn caller<T>(&self, request: &Request<T>, method: &'static str) -> Result<LockCaller, Status> {
        match request.extensions().get::<LocalPeer>() {
            Some(LocalPeer { uid, .. }) => Ok(LockCaller::Root { uid: *uid }),
            None => self.0.caller(request, method).map(LockCaller::Operator),
        }
    }

    fn answer<T>(
        &self,
        by: &LockCaller,
        asked: &Asked,
        outcome: Result<T, Refusal>,
    ) -> Result<Response<T>, Status> {
        match by {
            LockCaller::Operator(caller) => self.0.answer(caller, asked, outcome),
            LockCaller::Root { .. } => outcome.map(Response::new).map_err(|refusal| {
                match self.0.refused_root(asked.method, &refusal) {
                    Ok(()) => status::of(&refusal),
                    Err(unrecorded) => status::of(&unrecorded),
                }
            }),
        }
    }
}
