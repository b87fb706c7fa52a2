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
use crate::broker::{Kind, Refusal};

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
    // The path is the caller's text until a method was found by it.
    let method = match unread.code {
        Code::Unimplemented => NO_METHOD,
        _ => path.rsplit('/').next().unwrap_or(NO_METHOD),
    };
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
