//! Streams that a caller reads for as long as it may: one pattern for whatever is told.
//!
//! A task of its own tells. Before each message, and at least once a second, it looks whether the caller may be told
//! (invariant W8); a reader that is too slow is cut off and told where it was (W7). What ends a stream is a refusal like
//! any other, with its record and as its last word, except that a stop is none.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use brevet_core::proof::Caller;
use brevet_core::revision::Revision;
use brevet_core::sabotage;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Status};

use super::door::{Asked, Door};
use super::peer::Peer;
use super::status;
use crate::broker::{Broker, Kind, Refusal};
use crate::net::Answers;

/// How long a stream goes on without a look whether its caller still may. It is a promise and no limit on what somebody
/// costs, so that nobody can configure it away.
const AUTHORITY_MAX: Duration = Duration::from_secs(1);

/// Messages that wait for a reader. There is but one, so that hardly anything is read that was let out under an authority
/// which is gone since.
const UNREAD_MAX: usize = 1;

/// How many times as long as it may hold up its stream a reader has for the last word, by which it knows where to go on.
const LAST_WORD_STALLS: u32 = 10;

/// What a stream tells.
pub(super) trait Source: Send + 'static {
    /// What its caller sends meanwhile.
    type Asked: Send;
    /// A message of it.
    type Told: Send;

    /// The control revision by which its caller may be told.
    fn control(&self) -> Revision;

    /// Looks again whether the caller may be told, by what is in force now.
    fn authorise(&mut self, broker: &Broker, caller: &Caller) -> Result<(), Refusal>;

    /// Takes what the caller sent.
    fn asked(&mut self, message: Self::Asked) -> Result<(), Refusal>;

    /// Waits until there is something to tell. May be dropped and begun again.
    fn ready(&mut self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// What is to be told next with the revision that it is of, if the caller may be told of it.
    fn take(&mut self) -> Option<(Revision, Self::Told)>;
}

/// What of a stream is yet to be read, and its share of all streams.
pub(super) struct Outgoing<T> {
    unread: mpsc::Receiver<Result<T, Status>>,
    _share: Box<dyn Send>,
    /// Closed when the answer is gone, whether or not all of it was read.
    _is_there: oneshot::Sender<Infallible>,
}

impl<T> Stream for Outgoing<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.unread.poll_recv(context)
    }
}

/// The other end of a stream: who is there, and the connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Reader {
    pub(super) peer: Option<Peer>,
    pub(super) answers: Answers,
}

impl Reader {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let extensions = request.extensions();
        let answers = extensions.get().cloned().unwrap_or_default();
        Self { peer: extensions.get().cloned(), answers }
    }
}

/// One stream being told.
pub(super) struct Telling<S> {
    door: Door,
    reader: Reader,
    caller: Arc<Caller>,
    method: &'static str,
    stall_max: Duration,
    source: S,
    /// When it was looked at whether the caller may be told, as time since boot.
    authorised: Duration,
    /// Everything up to here was told.
    told: Revision,
}

/// Why a stream ends.
#[derive(Debug)]
enum End {
    /// Nobody is there any more.
    Gone,
    /// The daemon stops, which is no denial.
    Stopping,
    /// The caller is refused.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<S: Source> Telling<S> {
    /// A stream that was just permitted to whoever is at the other end of a connection.
    pub(super) fn new(
        door: &Door,
        (caller, reader): (&Arc<Caller>, Reader),
        method: &'static str,
        stall_max: Duration,
        source: S,
    ) -> Self {
        let authorised = door.broker.clock.since_boot();
        let (door, caller) = (door.clone(), Arc::clone(caller));
        Self { door, reader, caller, method, stall_max, source, authorised, told: Revision::ZERO }
    }

    /// Tells, from now on and until something ends it.
    pub(super) fn begin(
        self,
        incoming: impl Stream<Item = Result<S::Asked, Status>> + Send + Unpin + 'static,
        share: impl Send + 'static,
    ) -> Outgoing<S::Told> {
        // One place more, and kept free: whatever waits, the last word is heard.
        let (outgoing, unread) = mpsc::channel(UNREAD_MAX + 1);
        let (is_there, gone) = oneshot::channel();
        tokio::spawn(self.until_it_ends(incoming, outgoing, gone));
        Outgoing { unread, _share: Box::new(share), _is_there: is_there }
    }

    async fn until_it_ends(
        mut self,
        incoming: impl Stream<Item = Result<S::Asked, Status>> + Send + Unpin,
        outgoing: mpsc::Sender<Result<S::Told, Status>>,
        gone: oneshot::Receiver<Infallible>,
    ) {
        let Ok(last) = outgoing.clone().reserve_owned().await else { return };
        let status = match self.tell(incoming, &outgoing).await {
            End::Gone => return,
            End::Stopping => status::of(&Refusal::unavailable("stopping")),
            End::Refused(refusal) => self.door.refused(&self.caller, &Asked::method(self.method), &refusal),
        };
        last.send(Err(status));
        drop(outgoing);
        // A reader that does not even take the last word holds its place for nothing.
        tokio::select! {
            _ = gone => {}
            () = self.door.broker.clock.sleep(self.stall_max.saturating_mul(LAST_WORD_STALLS)) => self.reader.answers.cut(),
        }
    }

    async fn tell(
        &mut self,
        mut incoming: impl Stream<Item = Result<S::Asked, Status>> + Send + Unpin,
        outgoing: &mpsc::Sender<Result<S::Told, Status>>,
    ) -> End {
        let broker = Arc::clone(&self.door.broker);
        let stopped = broker.stopped();
        tokio::pin!(stopped);
        let mut asks = true;
        loop {
            let step = tokio::select! {
                () = outgoing.closed() => return End::Gone,
                () = &mut stopped => return End::Stopping,
                message = incoming.next(), if asks => match message {
                    Some(Ok(message)) => self.source.asked(message).map_err(End::from),
                    Some(Err(broken)) => Err(unread(&broken)),
                    None => {
                        asks = false;
                        Ok(())
                    }
                },
                () = broker.clock.sleep(self.authorised_for()) => self.authorise().map_err(End::from),
                ready = self.source.ready() => match ready {
                    Ok(()) => self.send(outgoing).await,
                    Err(refusal) => Err(refusal.into()),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Tells what is next, unless the reader is too slow.
    async fn send(&mut self, outgoing: &mpsc::Sender<Result<S::Told, Status>>) -> Result<(), End> {
        let clock = &self.door.broker.clock;
        let stall_max = if sabotage::on("readers_may_stall") { Duration::MAX } else { self.stall_max };
        let room = tokio::select! {
            biased;
            room = outgoing.reserve() => room.map_err(|_| End::Gone)?,
            () = clock.sleep(stall_max) => return Err(self.too_slow().into()),
        };
        // INVARIANT: looked at last of all, so that nothing is told to whoever may not be told any more.
        if self.needs_authority() {
            self.authorise()?;
        }
        if let Some((revision, told)) = self.source.take() {
            self.told = self.told.max(revision);
            room.send(Ok(told));
        }
        Ok(())
    }

    /// In what time it has to be looked at again whether the caller may be told.
    fn authorised_for(&self) -> Duration {
        let passed = self.door.broker.clock.since_boot().saturating_sub(self.authorised);
        AUTHORITY_MAX.saturating_sub(passed)
    }

    /// Whether it has to be looked at before anything more is told.
    fn needs_authority(&self) -> bool {
        let control = self.door.broker.table.in_force().control.revision();
        self.source.control() != control || self.authorised_for().is_zero()
    }

    /// Whether the caller is still who it was, and may still be told.
    fn authorise(&mut self) -> Result<(), Refusal> {
        let broker = &self.door.broker;
        if !sabotage::on("streams_outlive_their_authorisation") {
            let known = self
                .reader
                .peer
                .as_ref()
                .map_or(Err("no_connection"), |peer| peer.caller(broker.clock.now().judge));
            let nobody = |reason| Refusal::new(Kind::Unauthenticated, reason, "the caller is not known");
            let caller = known.map_err(nobody)?;
            self.source.authorise(broker, &caller)?;
            self.caller = caller;
        }
        self.authorised = broker.clock.since_boot();
        Ok(())
    }

    /// What the reader has not read yet was told all the same: it stands before this.
    fn too_slow(&self) -> Refusal {
        let (incarnation, told) = (self.door.broker.table.journal().incarnation(), self.told);
        let text = format!("the reader is too slow: it was told up to {}:{told}", incarnation.0);
        Refusal::new(Kind::Exhausted, "reader_too_slow", text)
    }
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
mod tests;
