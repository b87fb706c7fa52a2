//! Requests that no method gets to see: too large, malformed, cut off, too late, or for a method that is not there.
//! To a known caller such an answer is a refusal like any other, with a reason and a record (invariant U1); a
//! stranger learns from it nothing but that it is one.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use brevet_core::fact::DeniedOperation;
use tonic::{Code, Status};

use super::door::Door;
use super::peer::Peer;
use super::status;
use crate::broker::{Broker, Kind, Refusal};
use crate::net::LocalPeer;

/// What the record says where the caller's text names no method.
const NO_METHOD: &str = "unknown";

/// Answers in time, whatever the caller sends or fails to send.
pub(super) async fn within(max: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(max, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the call took too long").into_http(),
    }
}

/// Answers in time, and for the methods where none of them did.
pub(super) async fn answered(door: Arc<Door>, max: Duration, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let path = request.uri().path().to_owned();
    let response = within(max, request, next).await;
    match refused_unread(&response) {
        Some(refused) => refuse(&door, peer.as_ref(), &path, &refused).into_http(),
        None => response,
    }
}

/// The same over the local root socket, where everybody is known by the user.
pub(super) async fn answered_to_root(
    broker: Arc<Broker>,
    max: Duration,
    request: Request,
    next: Next,
) -> Response {
    let uid = request.extensions().get::<LocalPeer>().map(|peer| peer.uid);
    let path = request.uri().path().to_owned();
    let response = within(max, request, next).await;
    let Some((uid, unread)) = uid.zip(refused_unread(&response)) else { return response };
    let refusal = Refusal::new(Kind::Invalid, unread.reason, unread.text);
    let answer = match broker.refuse_root(uid, method_of(&path, &unread), &refusal) {
        Ok(()) => status::status(unread.code, &unread.reason.to_uppercase(), unread.text),
        Err(unrecorded) => status::of(&unrecorded),
    };
    answer.into_http()
}

struct Unread {
    code: Code,
    reason: &'static str,
    text: &'static str,
}

/// Why the request was refused, if that was not by a method: the refusals of those carry details.
fn refused_unread(response: &Response) -> Option<Unread> {
    let status = Status::from_header_map(response.headers())?;
    if !status.details().is_empty() {
        return None;
    }
    let unread = |code, reason, text| Some(Unread { code, reason, text });
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            unread(Code::ResourceExhausted, "message_too_large", "the message is too large")
        }
        Code::Internal | Code::Unknown | Code::InvalidArgument => {
            unread(Code::InvalidArgument, "message_malformed", "the message cannot be read")
        }
        Code::DeadlineExceeded => {
            unread(Code::DeadlineExceeded, "deadline_exceeded", "the call took too long")
        }
        Code::Unimplemented => unread(Code::Unimplemented, "unimplemented", "there is no such method"),
        _ => None,
    }
}

fn refuse(door: &Door, peer: Option<&Peer>, path: &str, unread: &Unread) -> Status {
    let method = method_of(path, unread);
    let caller = match door.known(peer, method) {
        Ok(caller) => caller,
        Err(stranger) => return stranger,
    };
    let refusal = Refusal::new(Kind::Invalid, unread.reason, unread.text);
    let operation = DeniedOperation::Method(method.to_owned());
    if let Err(unrecorded) = door.broker.refuse(&caller, operation, None, None, &refusal) {
        return status::of(&unrecorded);
    }
    status::status(unread.code, &unread.reason.to_uppercase(), unread.text)
}

/// The path is the caller's text until a method was found by it.
fn method_of<'a>(path: &'a str, unread: &Unread) -> &'a str {
    match unread.code {
        Code::Unimplemented => NO_METHOD,
        _ => path.rsplit('/').next().unwrap_or(NO_METHOD),
    }
}
