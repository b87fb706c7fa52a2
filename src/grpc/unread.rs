//! Requests that no method gets to see: no gRPC, compressed, too large, malformed, cut off, too late, or for a method
//! that is not there. To a known caller such an answer is a refusal like any other, with a reason and a record
//! (invariant U1); a stranger learns from it nothing but that it is one.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use brevet_core::fact::DeniedOperation;
use brevet_core::sabotage;
use tonic::{Code, Status};

use super::bearer::Shown;
use super::door::Door;
use super::peer::Peer;
use super::status;
use crate::broker::{Kind, Refusal};
use crate::net::LocalPeer;

/// What the record says where the caller's text names no method.
const NO_METHOD: &str = "unknown";

/// Answers in time, whatever the caller sends or fails to send.
async fn within(max: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(max, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the call took too long").into_http(),
    }
}

/// Answers in time, and for the methods where none of them did.
pub(super) async fn answered(door: Arc<Door>, max: Duration, mut request: Request, next: Next) -> Response {
    if let Some(shown) = Shown::by(&request) {
        let peer = door.peer_of(shown).await;
        request.extensions_mut().insert(peer);
    }
    let who = Who::of(&request);
    if sabotage::on("secrets_are_logged") {
        tracing::debug!(headers = ?request.headers(), path = request.uri().path(), "a request");
    }
    if let Some((http, unread)) = not_understood(&request) {
        let mut response = refuse(&door, &who, NO_METHOD, &unread).into_http();
        *response.status_mut() = http;
        response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        return response;
    }
    let path = request.uri().path().to_owned();
    let response = within(max, request, next).await;
    let Some(unread) = refused_unread(&response) else { return response };
    // The path is the caller's text until a method was found by it.
    let method = match unread.code {
        Code::Unimplemented => NO_METHOD,
        _ => path.rsplit('/').next().unwrap_or(NO_METHOD),
    };
    refuse(&door, &who, method, &unread).into_http()
}

struct Unread {
    kind: Kind,
    code: Code,
    reason: &'static str,
    text: &'static str,
}

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
        // That is the broker's slowness, and no rubbish of the caller's.
        Code::DeadlineExceeded => {
            unread(Kind::Unavailable, Code::DeadlineExceeded, "deadline_exceeded", "the call took too long")
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
