//! Requests that no method gets to see: no gRPC, compressed, too large, malformed, cut off, too late, or for a method
//! that is not there. To a known caller such an answer is a refusal like any other, with a reason and a record
//! (invariant U1).

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use tonic::{Code, Status};

use super::status;
use crate::broker::Kind;

/// A refusal by no method.
pub(super) struct Unread {
    pub(super) kind: Kind,
    pub(super) code: Code,
    pub(super) reason: &'static str,
    pub(super) text: &'static str,
}

impl Unread {
    /// What a known caller is told.
    pub(super) fn status(&self) -> Status {
        if self.code == Code::Unauthenticated {
            return status::unauthenticated();
        }
        status::status(self.code, &self.reason.to_uppercase(), self.text)
    }
}

/// That is the broker's slowness or the caller's haste, and no rubbish.
pub(super) const TOO_LATE: Unread = Unread {
    kind: Kind::Unavailable,
    code: Code::DeadlineExceeded,
    reason: "deadline_exceeded",
    text: "the call took too long",
};

/// Two proofs of who calls.
pub(super) const AMBIGUOUS: Unread = Unread {
    kind: Kind::Unauthenticated,
    code: Code::Unauthenticated,
    reason: "ambiguous_credentials",
    text: "who calls is shown twice",
};

pub(super) const NO_SUCH_METHOD: Unread = Unread {
    kind: Kind::Invalid,
    code: Code::Unimplemented,
    reason: "unimplemented",
    text: "there is no such method",
};

pub(super) const TOO_LARGE: Unread = Unread {
    kind: Kind::Invalid,
    code: Code::ResourceExhausted,
    reason: "message_too_large",
    text: "the message is too large",
};

pub(super) const TIMEOUT_MALFORMED: Unread = Unread {
    kind: Kind::Invalid,
    code: Code::InvalidArgument,
    reason: "timeout_malformed",
    text: "grpc-timeout is not one value of at most eight digits and a unit",
};

/// Why a request is none of gRPC's, or none that is understood here, by its headers alone; and the HTTP status, by which
/// a client that speaks no gRPC does not take the refusal for a success.
pub(super) fn not_understood(request: &Request) -> Option<(StatusCode, Unread)> {
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

/// Leaves of the header fields what is read when the message has come.
pub(super) fn retain_what_is_read(headers: &mut HeaderMap) {
    let mut kept = HeaderMap::with_capacity(1);
    kept.extend(headers.remove(CONTENT_TYPE).map(|value| (CONTENT_TYPE, value)));
    *headers = kept;
}

/// Whether a content type is that of gRPC with Protocol Buffers. gRPC-Web and JSON begin like it.
fn is_grpc(content_type: &[u8]) -> bool {
    let form = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    [&b"application/grpc"[..], b"application/grpc+proto"].iter().any(|grpc| form.eq_ignore_ascii_case(grpc))
}

/// Why the request was refused, if that was not by a method: the refusals of those carry details.
pub(super) fn refused_unread(response: &Response) -> Option<Unread> {
    let status = Status::from_header_map(response.headers())?;
    if !status.details().is_empty() {
        return None;
    }
    let unread = |kind, code, reason, text| Some(Unread { kind, code, reason, text });
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Some(TOO_LARGE),
        Code::Internal | Code::Unknown | Code::InvalidArgument => {
            unread(Kind::Invalid, Code::InvalidArgument, "message_malformed", "the message cannot be read")
        }
        Code::Unimplemented => Some(NO_SUCH_METHOD),
        _ => None,
    }
}
