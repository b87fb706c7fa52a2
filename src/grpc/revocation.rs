//! `RevocationService`: resource servers learn what lives.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use brevet_api::v1;
use brevet_api::v1::revocation_service_server::RevocationService;
use brevet_core::proof::Caller;
use brevet_core::revision::Revision;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::convert;
use super::door::{Asked, Door};
use super::peer::Peer;
use super::status;
use crate::broker::{Kind, Refusal, Watch};
use crate::shares::Share;
use crate::table::Table;

const WATCH: &str = "WatchRevocations";

/// Messages that wait for a reader. A slow one holds up the stream, and one that is too slow ends it.
const UNREAD_MAX: usize = 64;

pub(super) struct Revocations(pub(super) Door);

type Told = Result<v1::WatchRevocationsResponse, Status>;

#[tonic::async_trait]
impl RevocationService for Revocations {
    type WatchRevocationsStream = Outgoing;

    async fn watch_revocations(
        &self,
        request: Request<Streaming<v1::WatchRevocationsRequest>>,
    ) -> Result<Response<Outgoing>, Status> {
        let caller = self.0.caller(&request, WATCH)?;
        let peer = request.extensions().get::<Peer>().cloned();
        let mut incoming = request.into_inner();
        let ask = convert::revocation::begin(incoming.message().await?);
        let outcome = ask.and_then(|ask| self.0.broker.watch(&caller, ask));
        let outcome = outcome.map(|(watch, place)| {
            // One place more, and kept free: whatever waits, the last word is heard.
            let (outgoing, unread) = mpsc::channel(UNREAD_MAX + 1);
            let telling = Telling { door: self.0.clone(), caller: Arc::clone(&caller), peer, watch };
            tokio::spawn(telling.until_it_ends(incoming, outgoing));
            Outgoing { unread, _place: place }
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

/// What of a stream is yet to be read, and its place among the streams.
pub(super) struct Outgoing {
    unread: mpsc::Receiver<Told>,
    _place: Share,
}

impl Stream for Outgoing {
    type Item = Told;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Told>> {
        self.unread.poll_recv(context)
    }
}

/// One stream being told.
struct Telling {
    door: Door,
    caller: Arc<Caller>,
    peer: Option<Peer>,
    watch: Watch,
}

/// Why a stream ends.
enum End {
    /// Nobody is there any more.
    Gone,
    /// The caller is refused.
    Refused(Refusal),
    /// The caller is nobody any more, which is recorded, or the daemon stops, which is no denial.
    Told(Status),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Telling {
    async fn until_it_ends(
        mut self,
        incoming: Streaming<v1::WatchRevocationsRequest>,
        outgoing: mpsc::Sender<Told>,
    ) {
        let Ok(last) = outgoing.clone().reserve_owned().await else { return };
        let status = match self.tell(incoming, &outgoing).await {
            End::Gone => return,
            End::Told(status) => status,
            End::Refused(refusal) => {
                let refused = self.door.answer::<()>(&self.caller, &Asked::method(WATCH), Err(refusal));
                match refused {
                    Err(status) => status,
                    Ok(_) => return,
                }
            }
        };
        last.send(Err(status));
    }

    async fn tell(
        &mut self,
        mut incoming: Streaming<v1::WatchRevocationsRequest>,
        outgoing: &mpsc::Sender<Told>,
    ) -> End {
        let broker = Arc::clone(&self.door.broker);
        let (clock, stopped) = (broker.clock.clone(), broker.stopped());
        tokio::pin!(stopped);
        let (mut told, mut asks) = (None, true);
        loop {
            let step = tokio::select! {
                () = outgoing.closed() => return End::Gone,
                () = &mut stopped => Err(End::Told(status::of(&Refusal::unavailable("stopping")))),
                message = incoming.message(), if asks => match message {
                    Ok(Some(message)) => self.asked(message),
                    Ok(None) => {
                        asks = false;
                        Ok(())
                    }
                    Err(broken) => Err(unread(&broken)),
                },
                () = clock.sleep(self.watch.authorised_for()) => self.authorise(),
                ready = self.watch.ready() => match ready {
                    Ok(()) => self.send(outgoing, &mut told).await,
                    Err(refusal) => Err(refusal.into()),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn asked(&self, message: v1::WatchRevocationsRequest) -> Result<(), End> {
        self.watch.ask(convert::revocation::nonce(message)?);
        Ok(())
    }

    /// Whether the caller is still who it was and may still be told (invariant W8).
    fn authorise(&mut self) -> Result<(), End> {
        self.caller = self.door.known(self.peer.as_ref(), WATCH).map_err(End::Told)?;
        Ok(self.watch.authorise(&self.caller)?)
    }

    /// Tells what is next, unless the reader is too slow (invariant W7).
    async fn send(&mut self, outgoing: &mpsc::Sender<Told>, told: &mut Option<Revision>) -> Result<(), End> {
        let broker = Arc::clone(&self.door.broker);
        let patience = Duration::from_secs(broker.limits.watch_stall_seconds_max.get().into());
        let room = tokio::select! {
            biased;
            room = outgoing.reserve() => room.map_err(|_| End::Gone)?,
            () = broker.clock.sleep(patience) => return Err(too_slow(&broker.table, *told).into()),
        };
        // Looked at last of all, so that nothing is told to whoever may not be told any more.
        if self.watch.needs_authority() {
            self.authorise()?;
        }
        if let Some(next) = self.watch.take() {
            *told = (*told).max(Some(next.revision()));
            room.send(Ok(convert::revocation::told(next)));
        }
        Ok(())
    }
}

/// What the reader has not read yet was told all the same: it stands before this.
fn too_slow(table: &Table, told: Option<Revision>) -> Refusal {
    let (incarnation, revision) = (table.journal().head().incarnation, told.unwrap_or(Revision::ZERO));
    let text = format!("the reader is too slow: it was told up to {}:{revision}", incarnation.0);
    Refusal::new(Kind::Exhausted, "reader_too_slow", text)
}

/// Why a message could not be read. That the caller went away is no refusal.
fn unread(broken: &Status) -> End {
    match broken.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            End::Refused(Refusal::new(Kind::Invalid, "message_too_large", "the message is too large"))
        }
        Code::Internal if broken.message().starts_with("failed to decode") => {
            End::Refused(Refusal::new(Kind::Invalid, "message_malformed", "the message cannot be read"))
        }
        _ => End::Gone,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::broker::WatchAsk;
    use crate::broker::sample::{Sample, XY_SERVER};
    use crate::grpc::ProofMemory;

    async fn telling(sample: &Sample) -> (Telling, Share) {
        let caller = Arc::new(sample.caller(XY_SERVER));
        let (watch, place) = sample.broker.watch(&caller, WatchAsk::default()).unwrap();
        let proofs = ProofMemory::new(NonZeroU32::MIN, NonZeroU32::MIN);
        let door = Door::new(Arc::clone(&sample.broker), proofs, "https://broker.example".to_owned());
        (Telling { door, caller, peer: None, watch }, place)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn w7_a_reader_that_is_too_slow_is_told_where_it_was_cut_and_nothing_is_skipped() {
        let sample = Sample::with(3, 100).await;
        let ended = [1, 2, 3].map(|number| sample.end(number));
        let (mut telling, _place) = telling(&sample).await;
        let (outgoing, mut unread) = mpsc::channel(3);
        let last = outgoing.clone().reserve_owned().await.unwrap();
        let mut told = None;
        for _ in 0..2 {
            telling.watch.ready().await.unwrap();
            assert!(telling.send(&outgoing, &mut told).await.is_ok());
        }
        // Nobody reads, and there is no room for the third: it waits as long as the clock stands still.
        telling.watch.ready().await.unwrap();
        let patience = sample.broker.limits.watch_stall_seconds_max.get();
        let end = {
            let mut sending = Box::pin(telling.send(&outgoing, &mut told));
            let still_waits = tokio::select! {
                biased;
                _sent = &mut sending => false,
                () = std::future::ready(()) => true,
            };
            assert!(still_waits);
            sample.time.elapse(Duration::from_secs(patience.into()));
            sending.await.unwrap_err()
        };
        let End::Refused(refusal) = end else { panic!("not a refusal") };
        assert_eq!((refusal.kind, refusal.reason.as_str()), (Kind::Exhausted, "reader_too_slow"));
        assert!(refusal.text.ends_with(&format!("7:{}", ended[1])), "{}", refusal.text);
        last.send(Err(Status::resource_exhausted("")));
        drop(outgoing);
        // What was told before stands before the last word.
        let mut revisions = Vec::new();
        while let Some(Ok(message)) = unread.recv().await {
            let Some(v1::watch_revocations_response::Kind::Endings(endings)) = message.kind else { panic!() };
            revisions.push(Revision(endings.revision));
        }
        assert_eq!(revisions, ended[..2]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn w8_nothing_is_told_to_whoever_is_nobody_any_more() {
        let sample = Sample::with(1, 100).await;
        let (mut telling, _place) = telling(&sample).await;
        let (outgoing, mut unread) = mpsc::channel(1);
        sample.end(1);
        telling.watch.ready().await.unwrap();
        // A second has passed, and at the other end of the connection is nobody.
        sample.time.elapse(Duration::from_secs(1));
        let End::Told(status) = telling.send(&outgoing, &mut None).await.unwrap_err() else { panic!() };
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(unread.try_recv().is_err());
    }
}
