//! Refusals as gRPC statuses (AIP-193): a code, a text for people, and an `ErrorInfo` with a stable reason.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::broker::{Kind, Refusal};

/// The domain of every reason.
const DOMAIN: &str = "brevet";

/// What anyone is told who is not known: always the same.
pub(super) fn unauthenticated() -> Status {
    status(Code::Unauthenticated, "UNAUTHENTICATED", "the caller is not known")
}

/// The status of a refusal.
pub(super) fn of(refusal: &Refusal) -> Status {
    let code = match refusal.kind {
        Kind::Unauthenticated => return unauthenticated(),
        // Unknown and foreign objects are the same; the audit knows the difference.
        Kind::NotFound => return status(Code::NotFound, "NOT_FOUND", "no such object"),
        Kind::Denied => Code::PermissionDenied,
        Kind::Invalid => Code::InvalidArgument,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable | Kind::Conflict => Code::Unavailable,
    };
    status(code, &refusal.reason.as_str().to_uppercase(), &refusal.text)
}

/// A refusal with a code and a reason of its own.
pub(super) fn status(code: Code, reason: &str, text: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, text, details)
}

/// There is too much at once, and when it may be less (`google.rpc.RetryInfo`).
pub(super) fn exhausted(reason: &str, text: &str, retry: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(retry));
    Status::with_error_details(Code::ResourceExhausted, text, details)
}
