//! `RevocationService`: resource servers learn what lives.

use std::time::Duration;

use brevet_api::v1;
use brevet_api::v1::revocation_service_server::RevocationService;
use brevet_core::proof::Caller;
use brevet_core::revision::Revision;
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use super::door::{Asked, Door};
use super::stream::{Outgoing, Reader, Source, Telling};
use crate::broker::{Broker, Refusal, Watch};

pub(super) const WATCH: &str = "WatchRevocations";

pub(super) struct Revocations(pub(super) Door);

#[tonic::async_trait]
impl RevocationService for Revocations {
    type WatchRevocationsStream = Outgoing<v1::WatchRevocationsResponse>;

    async fn watch_revocations(
        &self,
        request: Request<Streaming<v1::WatchRevocationsRequest>>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let caller = self.0.caller(&request, WATCH)?;
        let reader = Reader::of(&request);
        let mut incoming = request.into_inner();
        let ask = convert::revocation::begin(incoming.message().await?);
        let stall_max = Duration::from_secs(self.0.broker.limits.watch_stall_seconds_max.get().into());
        let outcome = ask.and_then(|ask| self.0.broker.watch(&caller, ask)).map(|(watch, share)| {
            Telling::new(&self.0, (&caller, reader), WATCH, stall_max, watch).begin(incoming, share)
        });
        self.0.answer(&caller, &Asked::method(WATCH), outcome)
    }

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
        self.0.answer(&caller, &asked, outcome.map(|answer| convert::credential::introspection(&answer)))
    }
}

impl Source for Watch {
    type Asked = v1::WatchRevocationsRequest;
    type Told = v1::WatchRevocationsResponse;

    fn control(&self) -> Revision {
        self.control()
    }

    fn authorise(&mut self, _: &Broker, caller: &Caller) -> Result<(), Refusal> {
        self.authorise(caller)
    }

    fn asked(&mut self, message: v1::WatchRevocationsRequest) -> Result<(), Refusal> {
        self.ask(convert::revocation::nonce(message)?);
        Ok(())
    }

    async fn ready(&mut self) -> Result<(), Refusal> {
        self.ready().await
    }

    fn take(&mut self) -> Option<(Revision, v1::WatchRevocationsResponse)> {
        let told = self.take()?;
        Some((told.revision(), convert::revocation::told(told)))
    }
}
