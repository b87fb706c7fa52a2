//! `CredentialService`: agents get what they need for a task, and no more.

use brevet_api::v1;
use brevet_api::v1::credential_service_server::CredentialService;
use tonic::{Request, Response, Status};

use super::convert;
use super::door::{Asked, Door};
use super::peer::Peer;

/// The path that a DPoP proof for issuing names behind the broker's URL.
const ISSUE_PATH: &str = "brevet.v1.CredentialService/IssueCredential";

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
        let asking = convert::credential_ask(&message).and_then(|ask| {
            let (proof, claim) = (message.dpop_proof.as_deref(), message.claim.as_deref());
            let possession = self.0.possession(peer.as_ref(), &caller, proof, claim, ISSUE_PATH)?;
            Ok((ask, possession))
        });
        let outcome = match asking {
            Ok((ask, possession)) => self.0.broker.issue(&caller, ask, possession).await.map(convert::issued),
            Err(refusal) => Err(refusal),
        };
        self.0.answer(&caller, &asked, outcome)
    }
}
