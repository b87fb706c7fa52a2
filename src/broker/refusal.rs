//! Refusals: what a caller is told, and what the audit keeps.
//!
//! Each step of a use case has its own small error; here they become one of a few kinds, with a reason that is
//! stable and a text that tells a stranger nothing. `src/grpc/status.rs` maps the kinds to statuses.

use brevet_core::fact::{Outcome, ReasonCode};
use brevet_core::id::LockId;
use brevet_core::ledger::{EndRefusal, Ending, IssueRefusal, OpenRefusal};
use brevet_core::proof::Evidence;
use brevet_core::scope::Widening;
use brevet_mint::plan::PlanError;
use brevet_mint::signer::SignError;

use crate::table::{CommitError, Sealed};

/// The kinds of refusal; each is one gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who asks is not known.
    Unauthenticated,
    /// Policy or registration says no.
    Denied,
    /// The request does not fit its shape.
    Invalid,
    /// There is no such object, or it is not the caller's to see.
    NotFound,
    /// The request id was used for another request.
    AlreadyExists,
    /// The object's state does not allow it.
    Precondition,
    /// A quota is used up.
    Exhausted,
    /// The broker cannot do it now, and nothing was done.
    Unavailable,
    /// What it was decided from has changed meanwhile: it is decided again, and only then is it unavailable.
    Conflict,
}

/// A refusal.
#[derive(Debug)]
pub struct Refusal {
    /// What kind it is.
    pub kind: Kind,
    /// Why, stable.
    pub reason: ReasonCode,
    /// Why, for the caller's eyes.
    pub text: String,
    /// What it was decided by, for the audit's eyes.
    pub evidence: Option<Box<Evidence>>,
}

impl Refusal {
    /// A refusal with a reason of its own.
    #[must_use]
    pub fn new(kind: Kind, reason: &'static str, text: impl Into<String>) -> Self {
        Self { kind, reason: ReasonCode::of(reason), text: text.into(), evidence: None }
    }

    /// Unknown and foreign are the same, word for word.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Kind::NotFound, "not_found", "no such object")
    }

    /// A field of the request that does not parse.
    #[must_use]
    pub fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(Kind::Invalid, "invalid_argument", format!("{field}: {problem}"))
    }

    /// The request id belongs to another request.
    #[must_use]
    pub fn request_id_reused() -> Self {
        Self::new(Kind::AlreadyExists, "request_id_reused", "another request had this request_id")
    }

    /// The caller is known and everything else about it is not for the caller to know.
    #[must_use]
    pub fn unavailable(reason: &'static str) -> Self {
        Self::new(Kind::Unavailable, reason, "nothing was done; try again later")
    }

    /// What it was decided from has changed meanwhile.
    #[must_use]
    pub fn conflict() -> Self {
        Self { kind: Kind::Conflict, ..Self::unavailable("conflict") }
    }

    fn locked(lock: LockId) -> Self {
        Self::new(Kind::Precondition, "locked", format!("stopped by locks/{lock}"))
    }

    fn task_closed(ending: &Ending<Outcome>) -> Self {
        Self::new(Kind::Precondition, "task_closed", format!("the task is {}", ending.outcome.as_str()))
    }
}

impl From<Sealed> for Refusal {
    fn from(_: Sealed) -> Self {
        Self::unavailable("journal_sealed")
    }
}

impl<E: Into<Self>> From<CommitError<E>> for Refusal {
    fn from(error: CommitError<E>) -> Self {
        match error {
            CommitError::Refused(refusal) => refusal.into(),
            CommitError::Conflict | CommitError::Exists => Self::conflict(),
            CommitError::NoTree => Self::not_found(),
            CommitError::NoSpace => Self::unavailable("no_space"),
            CommitError::Busy => Self::new(Kind::Exhausted, "journal_busy", "too much waits for the disk"),
            CommitError::Sealed => Sealed.into(),
        }
    }
}

impl From<OpenRefusal> for Refusal {
    fn from(refusal: OpenRefusal) -> Self {
        match refusal {
            OpenRefusal::Conflict => Self::conflict(),
            OpenRefusal::NotPermitted => Self::new(Kind::Denied, "not_permitted", "not permitted"),
            OpenRefusal::NoTime => Self::invalid("lifetime", "leaves the task no time"),
            OpenRefusal::Locked(lock) => Self::locked(lock),
        }
    }
}

impl From<IssueRefusal> for Refusal {
    fn from(refusal: IssueRefusal) -> Self {
        match refusal {
            IssueRefusal::Conflict => Self::conflict(),
            IssueRefusal::NotPermitted => Self::new(Kind::Denied, "not_permitted", "not permitted"),
            // Another instance of the agent learns nothing, not even that the task exists.
            IssueRefusal::NoTask => Self::not_found(),
            IssueRefusal::WrongHolder => {
                Self { reason: ReasonCode::of("holder_mismatch"), ..Self::not_found() }
            }
            IssueRefusal::TaskClosed(ending) => Self::task_closed(&ending),
            IssueRefusal::NoTime => Self::new(Kind::Precondition, "no_time", "the task has no time left"),
            IssueRefusal::Widens => Self::new(Kind::Denied, "scope_widens", "wider than the task's scope"),
            IssueRefusal::Locked(lock) => Self::locked(lock),
            IssueRefusal::Quota(max) => Self::new(
                Kind::Exhausted,
                "leases_live_per_task_max",
                format!("the task has {max} live leases, which is its limit"),
            ),
        }
    }
}

impl From<std::convert::Infallible> for Refusal {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<EndRefusal> for Refusal {
    fn from(refusal: EndRefusal) -> Self {
        match refusal {
            EndRefusal::NotFound => Self::not_found(),
            EndRefusal::EndedOtherwise(ending) => Self::task_closed(&ending),
        }
    }
}

impl From<Widening> for Refusal {
    fn from(widening: Widening) -> Self {
        Self::new(Kind::Denied, "scope_widens", format!("scope: {widening}"))
    }
}

impl From<PlanError> for Refusal {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Size => Self::invalid("scope", error),
            _ => Self::new(Kind::Precondition, "no_time", error.to_string()),
        }
    }
}

impl From<SignError> for Refusal {
    fn from(_: SignError) -> Self {
        Self::unavailable("signer_failed")
    }
}
