//! `CredentialService`: agents get what they need for a task, and no more.

use brevet_api::v1;
use brevet_api::v1::credential_service_server::CredentialService;
use tonic::{Request, Response, Status};

use super::convert;
use super::door::{Asked, Door};
use super::peer::Peer;
use super::possession::Proof;

pub(super) struct Credentials(pub(super) Door);

#[tonic::async_trait]
impl CredentialService for Credentials {
    async fn issue_credential(
        &self,
        request: Request<v1::IssueCredentialRequest>,
    ) -> Result<Response<v1::IssueCredentialResponse>, Status> {
        let caller = self.0.caller(&request, "IssueCredential")?;
        let peer = request.extensions().get::<Peer>().cloned();
        let message = request.into_inner();
        let asked = Asked::method("IssueCredential").of(&message.task).by(&message.request_id);
        let proof = Proof {
            dpop: message.dpop_proof.as_deref(),
            csr: message.csr.as_deref(),
            claim: message.claim.as_deref(),
        };
        let asking = || {
            let key = proof.key_of_csr()?;
            let ask = convert::credential::credential_ask(&message, key.as_ref())?;
            let possession = self.0.possession(peer.as_ref(), &caller, proof, key.as_ref(), asked.method)?;
            Ok((ask, possession))
        };
        let outcome = match asking() {
            Ok((ask, possession)) => self.0.broker.issue(&caller, ask, possession).await,
            Err(refusal) => Err(refusal),
        };
        let answer = outcome.map(|issued| v1::IssueCredentialResponse {
            credential: Some(convert::credential::credential(issued)),
        });
        self.0.answer(&caller, &asked, answer)
    }

    async fn renew_credential(
        &self,
        request: Request<v1::RenewCredentialRequest>,
    ) -> Result<Response<v1::RenewCredentialResponse>, Status> {
        let caller = self.0.caller(&request, "RenewCredential")?;
        let peer = request.extensions().get::<Peer>().cloned();
        let message = request.into_inner();
        let asked = Asked::method("RenewCredential").of_lease(&message.lease).by(&message.request_id);
        let proof = Proof::dpop(message.dpop_proof.as_deref());
        let asking = || {
            let ask = convert::credential::renewal_ask(&message)?;
            Ok((ask, self.0.possession(peer.as_ref(), &caller, proof, None, asked.method)?))
        };
        let outcome = match asking() {
            Ok((ask, possession)) => self.0.broker.issue(&caller, ask, possession).await,
            Err(refusal) => Err(refusal),
        };
        let answer = outcome.map(|issued| v1::RenewCredentialResponse {
            credential: Some(convert::credential::credential(issued)),
        });
        self.0.answer(&caller, &asked, answer)
    }

    async fn return_credential(
        &self,
        request: Request<v1::ReturnCredentialRequest>,
    ) -> Result<Response<v1::ReturnCredentialResponse>, Status> {
        let caller = self.0.caller(&request, "ReturnCredential")?;
        let peer = request.extensions().get::<Peer>().cloned();
        let message = request.into_inner();
        let asked = Asked::method("ReturnCredential").of_lease(&message.lease);
        let proof = Proof::dpop(message.dpop_proof.as_deref());
        let asking = || {
            let lease = convert::lease_name("lease", &message.lease)?;
            Ok((lease, self.0.possession(peer.as_ref(), &caller, proof, None, asked.method)?))
        };
        let outcome = match asking() {
            Ok((lease, possession)) => self.0.broker.return_credential(&caller, lease, &possession).await,
            Err(refusal) => Err(refusal),
        };
        let answer = outcome.map(|revision| v1::ReturnCredentialResponse { revision: revision.0 });
        self.0.answer(&caller, &asked, answer)
    }

    async fn delegate_task(
        &self,
        request: Request<v1::DelegateTaskRequest>,
    ) -> Result<Response<v1::DelegateTaskResponse>, Status> {
        let caller = self.0.caller(&request, "DelegateTask")?;
        let peer = request.extensions().get::<Peer>().cloned();
        let message = request.into_inner();
        let asked = Asked::method("DelegateTask").of(&message.parent).by(&message.request_id);
        let proof = Proof::dpop(message.dpop_proof.as_deref());
        let asking = || {
            let ask = convert::task::delegation_ask(&message)?;
            Ok((ask, self.0.possession(peer.as_ref(), &caller, proof, None, asked.method)?))
        };
        let outcome = match asking() {
            Ok((ask, possession)) => self.0.broker.delegate_task(&caller, ask, possession).await,
            Err(refusal) => Err(refusal),
        };
        self.0.answer(&caller, &asked, outcome.map(convert::task::delegated))
    }
}
