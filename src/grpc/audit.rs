//! `AuditService`: auditors read the log and follow it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use brevet_api::v1;
use brevet_api::v1::audit_service_server::AuditService;
use brevet_core::proof::Caller;
use brevet_core::sabotage;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::convert;
use super::door::{Asked, Door};
use super::peer::Peer;
use super::status;
use crate::broker::{Event, EventTail, Kind, Refusal};
use crate::shares::Share;

/// Records that wait for a reader.
const BUFFER: usize = 64;
/// How often a stream's authorisation is looked at where nothing else gives reason to.
const AUTHORISED_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Audit(pub(super) Door);

#[tonic::async_trait]
impl AuditService for Audit {
    type TailEventsStream = Following;

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
    ) -> Result<Response<Following>, Status> {
        let caller = self.0.caller(&request, "TailEvents")?;
        let peer = request.extensions().get::<Peer>().cloned();
        let cursor = request.into_inner().cursor.map(convert::audit::cursor);
        let broker = &self.0.broker;
        let opened = broker
            .tail_events(&caller, cursor)
            .and_then(|tail| Ok((tail, broker.audit_streams.take(caller.spiffe_id())?)));
        let following = opened.map(|(tail, place)| {
            let (events, buffer) = mpsc::channel(BUFFER);
            let (end, ended) = oneshot::channel();
            let follower = Follower { door: self.0.clone(), peer, caller: Arc::clone(&caller) };
            tokio::spawn(async move {
                if let Some(status) = follower.run(tail, events).await {
                    // Whoever has gone meanwhile need not be told.
                    let _told = end.send(status);
                }
            });
            Following { buffer, ended: Some(ended), _place: place }
        });
        self.0.answer(&caller, &Asked::method("TailEvents"), following)
    }
}

/// One caller of a stream, and whether it still may have it.
struct Follower {
    door: Door,
    peer: Option<Peer>,
    caller: Arc<Caller>,
}

impl Follower {
    /// Feeds the stream until something ends it: the status to end it with, or none if its reader has gone.
    async fn run(self, mut tail: EventTail, events: mpsc::Sender<Event>) -> Option<Status> {
        let ended = tokio::select! {
            ended = self.authorised() => ended,
            ended = self.feed(&mut tail, &events) => ended,
            // That is no refusal, and so it leaves no record.
            () = self.door.broker.stopped() => return Some(status::of(&Refusal::unavailable("stopping"))),
            () = events.closed() => return None,
        };
        let Err(refusal) = ended;
        Some(self.door.refused(&self.caller, &Asked::method("TailEvents"), &refusal))
    }

    async fn feed(&self, tail: &mut EventTail, events: &mpsc::Sender<Event>) -> Result<Infallible, Refusal> {
        let broker = &self.door.broker;
        let stall_max = match sabotage::on("readers_may_stall") {
            true => Duration::MAX,
            false => Duration::from_secs(broker.limits.audit_stall_seconds_max.get().into()),
        };
        loop {
            let Some(event) = broker.next_event(&self.caller, tail).await? else { continue };
            match timeout(stall_max, events.send(event)).await {
                Ok(Ok(())) => {}
                Ok(Err(_gone)) => std::future::pending().await,
                Err(_) => {
                    let text = "the reader is too slow: go on behind the last record";
                    return Err(Refusal::new(Kind::Exhausted, "reader_too_slow", text));
                }
            }
        }
    }

    /// Looks again and again whether the caller is still somebody who may read the log.
    async fn authorised(&self) -> Result<Infallible, Refusal> {
        let mut again = interval(AUTHORISED_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            again.tick().await;
            if sabotage::on("streams_outlive_their_authorisation") {
                continue;
            }
            let now = self.door.broker.clock.now().judge;
            let known = self.peer.as_ref().map_or(Err("no_connection"), |peer| peer.caller(now));
            let nobody = |reason| Refusal::new(Kind::Unauthenticated, reason, "the caller is not known");
            self.door.broker.audit_view(&*known.map_err(nobody)?)?;
        }
    }
}

/// What a reader gets: the records that wait for it, and then why there are no more.
#[derive(Debug)]
pub(super) struct Following {
    buffer: mpsc::Receiver<Event>,
    ended: Option<oneshot::Receiver<Status>>,
    _place: Share,
}

impl Stream for Following {
    type Item = Result<v1::Event, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // What still waits when the stream is ended was not shown, and is not shown any more.
        let Some(ended) = &mut self.ended else { return Poll::Ready(None) };
        if let Poll::Ready(status) = Pin::new(ended).poll(context) {
            self.ended = None;
            return Poll::Ready(status.ok().map(Err));
        }
        let event = ready!(self.buffer.poll_recv(context));
        Poll::Ready(event.map(|event| Ok(convert::audit::event(&event))))
    }
}
