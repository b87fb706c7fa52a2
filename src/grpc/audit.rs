//! `AuditService`: auditors read the log and follow it.

use std::convert::Infallible;
use std::time::Duration;

use brevet_api::v1;
use brevet_api::v1::audit_service_server::AuditService;
use brevet_core::proof::Caller;
use brevet_core::revision::Revision;
use tonic::{Request, Response, Status};

use super::convert;
use super::door::{Asked, Door};
use super::stream::{Outgoing, Reader, Source, Telling};
use crate::broker::{Broker, EventTail, Refusal};

const TAIL: &str = "TailEvents";

pub(super) struct Audit(pub(super) Door);

#[tonic::async_trait]
impl AuditService for Audit {
    type TailEventsStream = Outgoing<v1::Event>;

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let caller = self.0.caller(&request, "ListEvents")?;
        let message = request.into_inner();
        let page_size_max = usize::try_from(self.0.broker.limits.page_size_max.get()).unwrap_or(usize::MAX);
        let outcome = match convert::audit::event_filter(&message, page_size_max) {
            Ok(filter) => {
                let page = self.0.broker.list_events(&caller, filter).await;
                page.map(|page| convert::audit::events(&page))
            }
            Err(refusal) => Err(refusal),
        };
        self.0.answer(&caller, &Asked::method("ListEvents").of(&message.task), outcome)
    }

    async fn tail_events(
        &self,
        request: Request<v1::TailEventsRequest>,
    ) -> Result<Response<Self::TailEventsStream>, Status> {
        let caller = self.0.caller(&request, TAIL)?;
        let reader = Reader::of(&request);
        let cursor = request.into_inner().cursor.map(convert::audit::cursor);
        let stall_max = Duration::from_secs(self.0.broker.limits.audit_stall_seconds_max.get().into());
        let outcome = self.0.broker.tail_events(&caller, cursor).map(|(tail, shares)| {
            Telling::new(&self.0, (&caller, reader), TAIL, stall_max, tail)
                .begin(tokio_stream::pending(), shares)
        });
        self.0.answer(&caller, &Asked::method(TAIL), outcome)
    }
}

impl Source for EventTail {
    /// The request was all that there is of it.
    type Asked = Infallible;
    type Told = v1::Event;

    fn control(&self) -> Revision {
        self.control()
    }

    fn authorise(&mut self, broker: &Broker, caller: &Caller) -> Result<(), Refusal> {
        self.authorise(broker, caller)
    }

    fn asked(&mut self, message: Infallible) -> Result<(), Refusal> {
        match message {}
    }

    async fn ready(&mut self) -> Result<(), Refusal> {
        self.ready().await
    }

    fn take(&mut self) -> Option<(Revision, v1::Event)> {
        let event = self.take()?;
        Some((event.record.revision, convert::audit::event(&event)))
    }
}
