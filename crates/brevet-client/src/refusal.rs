//! Why a call was refused, taken out of a gRPC status.

use std::collections::BTreeMap;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The domain of the broker's reasons (`google.rpc.ErrorInfo.domain`).
pub const REASON_DOMAIN: &str = "brevet";

/// A refused or failed call (AIP-193).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of refusal, for generic handling.
    pub code: Code,
    /// The broker's stable reason, such as `APPROVAL_PENDING`. None if the status is not of the broker's making: a
    /// lost connection, a proxy.
    pub reason: Option<String>,
    /// What the reason is about, by name; empty without a reason.
    pub metadata: BTreeMap<String, String>,
    /// The text for people. No program should read it.
    pub message: String,
}

impl Refusal {
    /// Takes a status apart. Details that are malformed or of another domain count as none.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == REASON_DOMAIN);
        let (reason, metadata) = info
            .map_or_else(Default::default, |info| (Some(info.reason), info.metadata.into_iter().collect()));
        Self { code: status.code(), reason, metadata, message: status.message().to_owned() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{} ({reason})", self.message),
            None if self.message.is_empty() => f.write_str(self.code.description()),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        Self::from_status(status)
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(domain: &str) -> Status {
        let details =
            ErrorDetails::with_error_info("OUT_OF_SCOPE", domain, [("policy".to_owned(), "p:7".to_owned())]);
        Status::with_error_details(Code::PermissionDenied, "not permitted", details)
    }

    #[test]
    fn the_brokers_reason_is_read() {
        let refusal = Refusal::from_status(&status("brevet"));
        assert_eq!(refusal.code, Code::PermissionDenied);
        assert_eq!(refusal.reason.as_deref(), Some("OUT_OF_SCOPE"));
        assert_eq!(refusal.metadata.get("policy").map(String::as_str), Some("p:7"));
        assert_eq!(refusal.to_string(), "not permitted (OUT_OF_SCOPE)");
    }

    #[test]
    fn a_foreign_or_malformed_reason_is_none() {
        let foreign = status("proxy.example");
        let malformed = Status::with_details(Code::PermissionDenied, "not permitted", vec![0xff; 9].into());
        for status in [foreign, malformed, Status::permission_denied("not permitted")] {
            let refusal = Refusal::from_status(&status);
            assert_eq!((refusal.reason.as_ref(), refusal.metadata.len()), (None, 0));
            assert_eq!(refusal.to_string(), "not permitted");
        }
    }
}
