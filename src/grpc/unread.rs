//! Requests that no method gets to see: no gRPC, compressed, too large, malformed, cut off, too late, or for a method
//! that is not there; and requests that are too many. To a known caller such an answer is a refusal like any other, with a reason and a record
//! (invariant U1); a stranger learns from it nothing but that it is one.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use brevet_core::fact::DeniedOperation;
use brevet_core::sabotage;
use tonic::{Code, Status};

use super::bearer::Shown;
use super::class::{self, Class};
use super::deadline;
use super::door::Door;
use super::load::Load;
use super::peer::Peer;
use super::rates::Rates;
use super::status;
use crate::broker::{Kind, Refusal};
use crate::net::{Endless, LocalPeer};

/// When whoever is refused for overload is asked to try again, at the earliest, and how far that is spread, in
/// milliseconds. A refusal is not free for either side, and all who come at once would come back at
/// once.
const OVERLOAD_RETRY_MILLIS: (u64, u64) = (500, 1_000);

/// The bytes before a message that say how long it is (gRPC over HTTP/2, Length-Prefixed-Message).
const FRAME_HEAD: usize = 5;

/// What the record says where the caller's text names no method.
const NO_METHOD: &str = "unknown";

/// What stands before every method.
pub(super) struct Edge {
    door: Door,
    call_max: Duration,
    request_bytes_max: usize,
    load: Load,
    rates: Rates,
}

impl Edge {
    pub(super) fn new(door: Door, call_max: Duration, message_bytes_max: usize) -> Self {
        let limits = &door.broker.limits;
        let load = Load::new(limits.calls_in_flight_max(), limits.issues_at_once_max());
        let rates = Rates::new(limits.calls_of_callers(), limits.callers_remembered_max());
        Self { door, call_max, request_bytes_max: message_bytes_max.saturating_add(FRAME_HEAD), load, rates }
    }

    /// Answers in time, in its turn, and for the methods where none of them did. What is too much is refused before
    /// anything is done for it.
    pub(super) async fn answer(self: Arc<Self>, mut request: Request, next: Next) -> Response {
        let path = request.uri().path().to_owned();
        let (class, method) = Class::of(&path).unwrap_or((Class::Read, NO_METHOD));
        if sabotage::on("secrets_are_logged") {
            tracing::debug!(headers = ?request.headers(), path, "a request");
        }
        if let Some(shown) = Shown::by(&request) {
            // To look at a token costs signatures, so that it needs room like what is asked with it.
            let Ok(_in_flight) = self.load.admit(class) else {
                return Excess::Overload.refuse(&self.door, &Who::Peer(None), class, method).into_http();
            };
            // What is no deadline is told below, to whoever is known.
            let asked = deadline::of(request.headers()).ok().flatten();
            let max = asked.map_or(self.call_max, |asked| asked.min(self.call_max));
            let peer = self.door.peer_of(shown, max).await;
            request.extensions_mut().insert(peer);
        }
        let who = Who::of(&request);
        // 1. Whether the caller has not called too often.
        if let Err(excess) = self.in_its_rate(&who, class) {
            return excess.refuse(&self.door, &who, class, method).into_http();
        }
        // 2. Whether it is a request of gRPC.
        if let Some((http, unread)) = not_understood(&request) {
            let mut response = refuse(&self.door, &who, NO_METHOD, &unread).into_http();
            *response.status_mut() = http;
            response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
            return response;
        }
        // 3. Nothing is kept of whoever is nobody, nor does it take a place. Health is for everybody.
        if let Who::Peer(peer) = &who
            && !is_for_everybody(&path)
            && let Err(stranger) = self.door.known(peer.as_ref(), method)
        {
            // Whoever is answered before it has sent all is reset, and too many resets end the connection of a client
            // that did nothing worse than to come with an old certificate.
            let passed_over = pass_over(request.into_body(), self.request_bytes_max);
            let _in_time = tokio::time::timeout(self.call_max, passed_over).await;
            return stranger.into_http();
        }
        // 4. In time, whatever the caller sends or fails to send; and no longer than the caller waits.
        let answered = match deadline::of(request.headers()) {
            Err(deadline::Malformed) => Err(TIMEOUT_MALFORMED),
            Ok(Some(Duration::ZERO)) => Err(TOO_LATE),
            Ok(asked) => {
                let max = asked.map_or(self.call_max, |asked| asked.min(self.call_max));
                let answering = self.in_turn(&who, (class, method), request, next);
                tokio::time::timeout(max, answering).await.map_err(|_| TOO_LATE)
            }
        };
        let response = match answered {
            Ok(response) => response,
            Err(unread) => return refuse(&self.door, &who, method, &unread).into_http(),
        };
        // 5. What no method has answered is refused here.
        let Some(unread) = refused_unread(&response) else { return response };
        // It has the name of a method that is not there, or not on this listener.
        let method = if unread.code == Code::Unimplemented { NO_METHOD } else { method };
        refuse(&self.door, &who, method, &unread).into_http()
    }

    fn in_its_rate(&self, who: &Who, class: Class) -> Result<(), Excess> {
        let Who::Peer(Some(peer)) = who else { return Ok(()) };
        let clock = &self.door.broker.clock;
        // A stranger is told that it is one, which costs less than to count its calls.
        let Ok(caller) = peer.caller(clock.now().judge) else { return Ok(()) };
        let now = clock.since_boot();
        let allowance = peer.allowance(|| self.rates.of(caller.spiffe_id(), now));
        self.rates.take(allowance, class, now).map_err(Excess::Rate)
    }

    /// Has it answered when it is here as a whole, there is room for it and it is its turn.
    async fn in_turn(
        &self,
        who: &Who,
        (class, method): (Class, &str),
        request: Request,
        next: Next,
    ) -> Response {
        // Streams have limits of their own and no end. Whoever is at the local root socket pulls the emergency brake,
        // which no load keeps out.
        if class::is_endless(method) {
            let mut response = next.run(request).await;
            response.extensions_mut().insert(Endless);
            return response;
        }
        if let Who::Root { .. } = who {
            return next.run(request).await;
        }
        // INVARIANT: whoever waits for its caller holds no place and no turn, or callers that send nothing would keep
        // out the others, and messages that wait for their turn would fill the window of those that have it.
        let (head, body) = request.into_parts();
        let Some(body) = whole(body, self.request_bytes_max).await else {
            return Status::cancelled("the caller has gone").into_http();
        };
        let Ok(_in_flight) = self.load.admit(class) else {
            return Excess::Overload.refuse(&self.door, who, class, method).into_http();
        };
        let _turn = self.load.turn(class).await;
        next.run(Request::from_parts(head, Body::from(body))).await
    }
}

/// The body of a request, or as much of it as shows that it is too large; none if its caller has gone.
async fn whole(mut body: Body, bytes_max: usize) -> Option<Bytes> {
    let mut whole = Bytes::new();
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(frame) = frame else { return Some(whole) };
        let Ok(data) = frame.ok()?.into_data() else { continue };
        // Nearly always it comes in one piece.
        whole = if whole.is_empty() { data } else { [whole, data].concat().into() };
        if whole.len() > bytes_max {
            return Some(whole);
        }
    }
}

/// Takes a body and keeps nothing of it, up to its end or until it is too large.
async fn pass_over(mut body: Body, bytes_max: usize) {
    let mut left = bytes_max;
    while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// What is too much.
enum Excess {
    /// Too many calls are in flight, of all callers.
    Overload,
    /// The caller calls too often, and may call again after this time.
    Rate(Duration),
}

impl Excess {
    /// Tells the caller, and leaves a record as far as there is a budget for it.
    fn refuse(&self, door: &Door, who: &Who, class: Class, method: &str) -> Status {
        let (reason, text, retry) = match self {
            Self::Overload => {
                let (least, spread) = OVERLOAD_RETRY_MILLIS;
                // The digits below a millisecond are as good as drawn.
                let drawn = u64::from(door.broker.clock.since_boot().subsec_nanos()) % spread;
                let retry = Duration::from_millis(least + drawn);
                ("calls_in_flight_max", "too much is going on: try again later", retry)
            }
            Self::Rate(retry) => ("calls_per_second_per_caller_max", "called too often", *retry),
        };
        door.broker.metrics.turned_away(class.as_str(), reason);
        if let Who::Peer(Some(peer)) = who {
            match door.known(Some(peer), method) {
                Ok(caller) => door.broker.turn_away(&caller, method, reason),
                Err(stranger) => return stranger,
            }
        }
        status::exhausted(&reason.to_uppercase(), text, retry)
    }
}

/// Services that tell nothing of anybody. Reflection is there where the configuration asks for it.
fn is_for_everybody(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.") || path.starts_with("/grpc.reflection.v1.")
}

struct Unread {
    kind: Kind,
    code: Code,
    reason: &'static str,
    text: &'static str,
}

/// That is the broker's slowness or the caller's haste, and no rubbish.
const TOO_LATE: Unread = Unread {
    kind: Kind::Unavailable,
    code: Code::DeadlineExceeded,
    reason: "deadline_exceeded",
    text: "the call took too long",
};

const TIMEOUT_MALFORMED: Unread = Unread {
    kind: Kind::Invalid,
    code: Code::InvalidArgument,
    reason: "timeout_malformed",
    text: "grpc-timeout is not one value of at most eight digits and a unit",
};

/// Why a request is none of gRPC's, or none that is understood here, by its headers alone; and the HTTP status, by which
/// a client that speaks no gRPC does not take the refusal for a success.
fn not_understood(request: &Request) -> Option<(StatusCode, Unread)> {
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let kind = Kind::Invalid;
    let refused = |http, code, reason, text| Some((http, Unread { kind, code, reason, text }));
    if request.method() != Method::POST {
        let (http, text) = (StatusCode::METHOD_NOT_ALLOWED, "every method of gRPC is a POST");
        return refused(http, Code::InvalidArgument, "http_method_unsupported", text);
    }
    if !header(CONTENT_TYPE.as_str()).is_some_and(is_grpc) {
        let (http, text) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type is not application/grpc");
        return refused(http, Code::InvalidArgument, "content_type_unsupported", text);
    }
    // What is small and unpacks to much costs more than it weighs: nothing is unpacked.
    if header("grpc-encoding").is_some_and(|encoding| encoding != b"identity") {
        let text = "messages are not to be compressed";
        return refused(StatusCode::OK, Code::Unimplemented, "compression_unsupported", text);
    }
    None
}

/// Whether a content type is that of gRPC with Protocol Buffers. gRPC-Web and JSON begin like it.
fn is_grpc(content_type: &[u8]) -> bool {
    let form = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    [&b"application/grpc"[..], b"application/grpc+proto"].iter().any(|grpc| form.eq_ignore_ascii_case(grpc))
}

/// Why the request was refused, if that was not by a method: the refusals of those carry details.
fn refused_unread(response: &Response) -> Option<Unread> {
    let status = Status::from_header_map(response.headers())?;
    if !status.details().is_empty() {
        return None;
    }
    let unread = |kind, code, reason, text| Some(Unread { kind, code, reason, text });
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            unread(Kind::Invalid, Code::ResourceExhausted, "message_too_large", "the message is too large")
        }
        Code::Internal | Code::Unknown | Code::InvalidArgument => {
            unread(Kind::Invalid, Code::InvalidArgument, "message_malformed", "the message cannot be read")
        }
        Code::Unimplemented => {
            unread(Kind::Invalid, Code::Unimplemented, "unimplemented", "there is no such method")
        }
        _ => None,
    }
}

/// Who is at the other end: of a connection over the network, or of one to the local root socket.
enum Who {
    Peer(Option<Peer>),
    Root { uid: u32 },
}

impl Who {
    fn of(request: &Request) -> Self {
        match request.extensions().get::<LocalPeer>() {
            Some(LocalPeer { uid, .. }) => Self::Root { uid: *uid },
            None => Self::Peer(request.extensions().get().cloned()),
        }
    }
}

fn refuse(door: &Door, who: &Who, method: &str, unread: &Unread) -> Status {
    let refusal = Refusal::new(unread.kind, unread.reason, unread.text);
    let recorded = match who {
        Who::Root { uid } => door.broker.refuse_root(*uid, method, &refusal),
        Who::Peer(peer) => {
            let caller = match door.known(peer.as_ref(), method) {
                Ok(caller) => caller,
                Err(stranger) => return stranger,
            };
            let operation = DeniedOperation::Method(method.to_owned());
            door.broker.refuse(&caller, operation, None, None, &refusal)
        }
    };
    match recorded {
        Ok(()) => status::status(unread.code, &unread.reason.to_uppercase(), unread.text),
        Err(unrecorded) => status::of(&unrecorded),
    }
}
