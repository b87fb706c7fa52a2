//! Following a broker's stream of revocations: one stream after another, each from where the one before had come.
//!
//! What is told goes to a function of the caller's, which draws a picture of it (`brevet-verify` has one). The driver
//! says what it is about to send, hands on what came, and knows nothing of whether a credential lives. It goes on for
//! as long as it is polled: a connection that breaks, or that the broker closes for its age, costs nothing but what the
//! picture's bound on staleness allows.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use brevet_api::v1;
use brevet_api::v1::watch_revocations_request::{Begin, Kind as Asked};
use brevet_api::v1::watch_revocations_response::Kind as Told;
use brevet_core::bookmark::{Bookmark, Nonce};
use brevet_core::fact::ReasonCode;
use brevet_core::id::TaskId;
use brevet_core::name::{AudienceName, KeyId};
use brevet_core::notice::{Ended, Endings, ToldEnding};
use brevet_core::revision::{Cursor, Incarnation, Revision};
use brevet_core::time::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::connect::{Broker, ConnectError};
use crate::refusal::Refusal;

/// The bytes of a nonce.
const NONCE_BYTES: usize = 16;
/// Messages that may wait to be sent; a nonce that finds no room is not missed, for another follows.
const UNSENT_MAX: usize = 8;

/// What is watched, and how eagerly.
#[derive(Debug, Clone)]
pub struct Watching {
    /// The audiences; none means all that the caller enforces.
    pub audiences: Vec<AudienceName>,
    /// How often a nonce is sent. The broker answers once a second: at half of that, the newest nonce that it answers
    /// is never much older than half a second, and a bound of 2 s holds with a second to spare.
    pub nonce_interval: Duration,
    /// How long it waits before it connects again, at first.
    pub retry_min: Duration,
    /// How long it waits at most, after doubling each time.
    pub retry_max: Duration,
}

impl Default for Watching {
    fn default() -> Self {
        Self {
            audiences: Vec::new(),
            nonce_interval: Duration::from_millis(500),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// What happens on the way.
#[derive(Debug)]
pub enum Event {
    /// What was told so far counts no more: begin with an empty picture.
    Anew,
    /// A nonce is about to be sent: note the time.
    Asking(Nonce),
    /// The endings of one commit, or a part of them.
    Endings(Endings),
    /// Everything up to a revision was told.
    Bookmark(Bookmark),
    /// The stream has ended, and another is begun after a while. It is told for the log.
    Lost(Lost),
}

/// The bookmark does not count: whoever sent it is not trusted to go on from where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the bookmark does not count")]
pub struct Distrusted;

/// Why a stream ended.
#[derive(Debug, Error)]
pub enum Lost {
    /// There was no connection.
    #[error("no connection")]
    Connect(#[from] ConnectError),
    /// The broker refused, or the connection broke.
    #[error("the stream was refused or broke")]
    Refused(#[from] Refusal),
    /// The broker ended it.
    #[error("the stream has ended")]
    Ended,
    /// What came cannot be understood, so that nothing after it can be relied on.
    #[error("{0} cannot be understood")]
    Malformed(&'static str),
    /// A bookmark does not count.
    #[error(transparent)]
    Distrusted(#[from] Distrusted),
    /// There is no randomness.
    #[error("no nonce could be drawn")]
    Random,
}

impl From<Status> for Lost {
    fn from(status: Status) -> Self {
        Refusal::from_status(&status).into()
    }
}

impl Lost {
    /// Whether the next stream has to begin from nothing: the broker's journal is another one, or the caller enforces
    /// other audiences. A cursor from the future is not among it: a broker that has lost what it had once said is not
    /// to be believed before people have looked.
    fn begins_anew(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.code == Code::FailedPrecondition,
            Self::Distrusted(_) => true,
            Self::Connect(_) | Self::Ended | Self::Malformed(_) | Self::Random => false,
        }
    }
}

/// Follows the streams of a broker. `connect` is asked for each, so that it may bring a newer identity. `tell` hears of
/// everything, in order; what it answers to anything but a bookmark is not looked at.
pub async fn watch<C, F>(
    watching: &Watching,
    mut connect: C,
    mut tell: impl FnMut(Event) -> Result<(), Distrusted>,
) -> Infallible
where
    C: FnMut() -> F,
    F: Future<Output = Result<Broker, ConnectError>>,
{
    let mut place = Place::default();
    let mut retry = watching.retry_min;
    loop {
        if place.cursor.is_none() {
            place = Place::default();
            let _empty_by_now = tell(Event::Anew);
        }
        place.progressed = false;
        let lost = match connect().await {
            Ok(broker) => match follow(&broker, watching, &mut place, &mut tell).await {
                Err(lost) => lost,
            },
            Err(problem) => problem.into(),
        };
        if lost.begins_anew() {
            place.cursor = None;
        }
        let _logged = tell(Event::Lost(lost));
        retry = if place.progressed { watching.retry_min } else { (retry * 2).min(watching.retry_max) };
        sleep(jittered(retry)).await;
    }
}

/// How far it has come.
#[derive(Debug, Default)]
struct Place {
    /// None before the first bookmark.
    cursor: Option<Cursor>,
    told: Revision,
    progressed: bool,
}

impl Place {
    fn told(&mut self, revision: Revision) {
        self.told = self.told.max(revision);
        if let Some(cursor) = &mut self.cursor {
            cursor.revision = cursor.revision.max(revision);
        }
    }

    fn bookmarked(&mut self, cursor: Cursor) {
        self.cursor = Some(Cursor { revision: cursor.revision.max(self.told), ..cursor });
        self.progressed = true;
    }
}

/// Follows one stream until it ends.
async fn follow(
    broker: &Broker,
    watching: &Watching,
    place: &mut Place,
    tell: &mut impl FnMut(Event) -> Result<(), Distrusted>,
) -> Result<Infallible, Lost> {
    let (ask, asked) = mpsc::channel(UNSENT_MAX);
    let begin = Begin {
        audiences: watching.audiences.iter().map(ToString::to_string).collect(),
        cursor: place
            .cursor
            .map(|cursor| v1::Cursor { incarnation: cursor.incarnation.0, revision: cursor.revision.0 }),
    };
    // There is room: nothing was sent before.
    let _room = ask.try_send(message(Asked::Begin(begin)));
    let mut stub = broker.revocations();
    let mut stream = stub.watch_revocations(ReceiverStream::new(asked)).await?.into_inner();

    let rng = SystemRandom::new();
    let mut ticks = interval(watching.nonce_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _tick = ticks.tick() => {
                let nonce = nonce(&rng)?;
                let bytes = nonce.as_bytes().to_vec();
                let _noted = tell(Event::Asking(nonce));
                let _another_follows = ask.try_send(message(Asked::Nonce(bytes)));
            }
            told = stream.message() => match told?.ok_or(Lost::Ended)?.kind {
                Some(Told::Endings(wire)) => {
                    let endings = endings(wire).ok_or(Lost::Malformed("an ending"))?;
                    let told = endings.told();
                    let _applied = tell(Event::Endings(endings));
                    place.told(told);
                }
                Some(Told::Bookmark(wire)) => {
                    let bookmark = bookmark(wire).ok_or(Lost::Malformed("a bookmark"))?;
                    let cursor = bookmark.cursor;
                    tell(Event::Bookmark(bookmark))?;
                    place.bookmarked(cursor);
                }
                None => return Err(Lost::Malformed("a message")),
            },
        }
    }
}

fn message(kind: Asked) -> v1::WatchRevocationsRequest {
    v1::WatchRevocationsRequest { kind: Some(kind) }
}

fn nonce(rng: &SystemRandom) -> Result<Nonce, Lost> {
    let mut bytes = [0; NONCE_BYTES];
    rng.fill(&mut bytes).map_err(|_| Lost::Random)?;
    Nonce::new(&bytes).ok_or(Lost::Random)
}

/// Between half of it and all, so that those who lost the same broker do not come back together.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    match SystemRandom::new().fill(&mut byte) {
        Ok(()) => (wait / 2).saturating_add(wait / 512 * u32::from(byte[0])),
        Err(_) => wait,
    }
}

/// Endings as they are on the wire. None if they cannot be understood.
#[must_use]
pub fn endings(wire: v1::Endings) -> Option<Endings> {
    let ending = |wire: v1::endings::Ending| {
        let ended = match wire.ended? {
            v1::endings::ending::Ended::Task(name) => Ended::Task(TaskId::from_name(&name).ok()?),
            v1::endings::ending::Ended::Lease(name) => Ended::Lease(name.parse().ok()?),
        };
        let reason = ReasonCode::parse(&wire.reason).ok()?;
        let until = wire.until?;
        Some(ToldEnding { ended, reason, until: time(until.seconds, until.nanos)? })
    };
    let endings = wire.endings.into_iter().map(ending).collect::<Option<_>>()?;
    Some(Endings { revision: Revision(wire.revision), endings, more: wire.more })
}

/// A bookmark as it is on the wire. None if it cannot be one.
#[must_use]
pub fn bookmark(wire: v1::Bookmark) -> Option<Bookmark> {
    let cursor = wire.cursor?;
    let judge_time = wire.judge_time?;
    Some(Bookmark {
        cursor: Cursor { incarnation: Incarnation(cursor.incarnation), revision: Revision(cursor.revision) },
        chain: wire.chain.try_into().ok()?,
        judge_time: time(judge_time.seconds, judge_time.nanos)?,
        nonce: Nonce::new(&wire.nonce)?,
        nonce_index: wire.nonce_index,
        nonce_count: wire.nonce_count,
        nonce_path: wire.nonce_path.into_iter().map(|hash| hash.try_into().ok()).collect::<Option<_>>()?,
        key_id: KeyId::parse(&wire.key_id).ok()?,
        signature: wire.signature.try_into().ok()?,
    })
}

fn time(seconds: i64, nanos: i32) -> Option<Timestamp> {
    let (seconds, nanos) = (u64::try_from(seconds).ok()?, u64::try_from(nanos).ok()?);
    (nanos < 1_000_000_000)
        .then(|| Timestamp::from_millis(seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(revision: u64) -> Cursor {
        Cursor { incarnation: Incarnation(7), revision: Revision(revision) }
    }

    #[test]
    fn w5_the_next_stream_goes_on_behind_all_that_was_told_once_a_bookmark_says_where_that_is() {
        let mut place = Place::default();
        place.told(Revision(9));
        assert_eq!(place.cursor, None);
        place.bookmarked(cursor(5));
        assert_eq!(place.cursor, Some(cursor(9)));
        place.told(Revision(12));
        place.bookmarked(cursor(11));
        assert_eq!(place.cursor, Some(cursor(12)));
        place.bookmarked(cursor(20));
        assert_eq!(place.cursor, Some(cursor(20)));
    }

    #[test]
    fn a_broker_that_is_another_one_is_followed_from_nothing_and_one_that_broke_from_where_it_was() {
        let lost = |code| Lost::from(Status::new(code, "")).begins_anew();
        assert!(lost(Code::FailedPrecondition));
        for code in
            [Code::Unavailable, Code::ResourceExhausted, Code::InvalidArgument, Code::PermissionDenied]
        {
            assert!(!lost(code), "{code:?}");
        }
        assert!(Lost::from(Distrusted).begins_anew());
        assert!(!Lost::Ended.begins_anew());
    }

    #[test]
    fn what_cannot_be_understood_is_not_guessed_at() {
        let ending = |name: &str, seconds, nanos| v1::endings::Ending {
            ended: Some(v1::endings::ending::Ended::Task(name.to_owned())),
            reason: "done".to_owned(),
            until: Some(prost_types::Timestamp { seconds, nanos }),
        };
        let of = |ending| endings(v1::Endings { revision: 5, endings: vec![ending], more: false });
        let good = "tasks/0000000000000000000000000g";
        assert!(of(ending(good, 1, 0)).is_some());
        for (name, seconds, nanos) in
            [("tasks/x", 1, 0), (good, -1, 0), (good, 1, -1), (good, 1, 1_000_000_000)]
        {
            assert_eq!(of(ending(name, seconds, nanos)), None, "{name} {seconds} {nanos}");
        }
        assert_eq!(of(v1::endings::Ending { ended: None, ..ending(good, 1, 0) }), None);
        assert_eq!(of(v1::endings::Ending { reason: "Free text".to_owned(), ..ending(good, 1, 0) }), None);
        assert_eq!(bookmark(v1::Bookmark::default()), None);
    }
}
