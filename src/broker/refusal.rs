//! Refusals: what a caller is told, and what the audit keeps.
//!
//! Each step of a use case has its own small error; here they become one of a few kinds, with a reason that is
//! stable and a text that tells a stranger nothing. `src/grpc/status.rs` maps the kinds to statuses.

use brevet_core::control::Control;
use brevet_core::fact::{DenialCause, Outcome, ReasonCode};
use brevet_core::id::LockId;
use brevet_core::ledger::{DelegateRefusal, EndRefusal, Ending, IssueRefusal, OpenRefusal};
use brevet_core::proof::Evidence;
use brevet_core::scope::Widening;
use brevet_journal::{AppendError, Sealed};
use brevet_mint::plan::PlanError;
use brevet_mint::signer::SignError;

use crate::openers::Full;
use crate::shares;
use crate::table::CommitError;

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
    /// Why policy denied it, where policy did, for the audit's eyes.
    pub cause: Option<DenialCause>,
    /// What it was decided by, for the audit's eyes.
    pub evidence: Option<Box<Evidence>>,
    /// The lock that stopped the caller, where one did.
    pub lock: Option<LockId>,
}

impl Refusal {
    /// A refusal with a reason of its own.
    #[must_use]
    pub fn new(kind: Kind, reason: &'static str, text: impl Into<String>) -> Self {
        let (reason, text) = (ReasonCode::of(reason), text.into());
        Self { kind, reason, text, cause: None, evidence: None, lock: None }
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

    /// The broker cannot do it now, and has done nothing.
    #[must_use]
    pub fn unavailable(reason: &'static str) -> Self {
        Self::new(Kind::Unavailable, reason, "nothing was done; try again later")
    }

    /// The broker cannot tell what became of it.
    #[must_use]
    pub fn outcome_unknown(reason: &'static str) -> Self {
        Self::new(
            Kind::Unavailable,
            reason,
            "it may have been done; ask again, with the same request_id if it had one",
        )
    }

    /// What it was decided from has changed meanwhile.
    #[must_use]
    pub fn conflict() -> Self {
        Self { kind: Kind::Conflict, ..Self::unavailable("conflict") }
    }

    /// The lease is dead.
    #[must_use]
    pub fn lease_ended() -> Self {
        Self::new(Kind::Precondition, "lease_ended", "the lease has ended")
    }

    /// A lock forbids it.
    #[must_use]
    pub fn locked(lock: LockId) -> Self {
        let refusal = Self::new(Kind::Precondition, "locked", format!("stopped by {}", lock.name()));
        Self { lock: Some(lock), ..refusal }
    }

    /// With what whoever pulled the lock wants the stopped party to know, if a lock stopped it.
    #[must_use]
    pub fn with_message(mut self, control: &Control) -> Self {
        if let Some(record) = self.lock.and_then(|lock| control.locks().get(&lock))
            && !record.lock.message.is_empty()
        {
            self.text = format!("{}: {}", self.text, record.lock.message);
        }
        self
    }

    fn task_closed(ending: &Ending<Outcome>) -> Self {
        Self::new(Kind::Precondition, "task_closed", format!("the task is {}", ending.outcome.as_str()))
    }
}

/// What was queued is not known to be durable.
impl From<Sealed> for Refusal {
    fn from(_: Sealed) -> Self {
        Self::outcome_unknown("journal_sealed")
    }
}

/// Nothing was queued.
impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict => Self::conflict(),
            AppendError::NoSpace => Self::unavailable("no_space"),
            AppendError::Busy => Self::new(Kind::Exhausted, "journal_busy", "too much waits for the disk"),
            AppendError::Sealed => Self::unavailable("journal_sealed"),
        }
    }
}

impl<E: Into<Self>> From<CommitError<E>> for Refusal {
    fn from(error: CommitError<E>) -> Self {
        match error {
            CommitError::Refused(refusal) => refusal.into(),
            CommitError::Conflict | CommitError::Exists => Self::conflict(),
            CommitError::NoTree => Self::not_found(),
            CommitError::NoSpace => AppendError::NoSpace.into(),
            CommitError::Busy => AppendError::Busy.into(),
            CommitError::Sealed => AppendError::Sealed.into(),
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
            IssueRefusal::Widens => {
                Self::new(Kind::Denied, "scope_widens", "wider than the task or the lease to be renewed")
            }
            IssueRefusal::Locked(lock) => Self::locked(lock),
            IssueRefusal::NoLease => Self::not_found(),
            IssueRefusal::LeaseEnded => Self::lease_ended(),
            IssueRefusal::IssuedQuota(max) => Self::new(
                Kind::Exhausted,
                "leases_issued_per_task_max",
                format!("the task was given {max} leases, which is its limit"),
            ),
            IssueRefusal::Quota(max) => Self::new(
                Kind::Exhausted,
                "leases_live_per_task_max",
                format!("the task has {max} live leases, which is its limit"),
            ),
        }
    }
}

impl From<DelegateRefusal> for Refusal {
    fn from(refusal: DelegateRefusal) -> Self {
        match refusal {
            DelegateRefusal::Conflict => Self::conflict(),
            DelegateRefusal::NotPermitted => Self::new(Kind::Denied, "not_permitted", "not permitted"),
            DelegateRefusal::NoTask => Self::not_found(),
            DelegateRefusal::TaskClosed(ending) => Self::task_closed(&ending),
            DelegateRefusal::Depth(max) => Self::new(
                Kind::Denied,
                "delegation_depth_max",
                format!("more than {max} delegations below the root task"),
            ),
            DelegateRefusal::TreeFull(max) => Self::new(
                Kind::Exhausted,
                "tasks_per_tree_max",
                format!("the tree has {max} tasks, which is its limit"),
            ),
            DelegateRefusal::NoTime => Self::new(Kind::Precondition, "no_time", "the task has no time left"),
            DelegateRefusal::Widens => {
                Self::new(Kind::Denied, "delegation_widens", "wider than the parent task")
            }
            DelegateRefusal::Locked(lock) => Self::locked(lock),
        }
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        Self::new(Kind::Exhausted, full.limit(), full.to_string())
    }
}

impl From<shares::Full> for Refusal {
    fn from(full: shares::Full) -> Self {
        Self::new(Kind::Exhausted, full.limit, full.to_string())
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
        let text = error.to_string();
        match error {
            PlanError::Size => Self::invalid("scope", error),
            PlanError::HolderKey => Self { reason: ReasonCode::of("csr_key"), ..Self::invalid("csr", error) },
            PlanError::Agent => Self::new(Kind::Precondition, "no_task_spiffe_id", text),
            PlanError::Lifetime => Self::new(Kind::Precondition, "no_time", text),
            PlanError::Operation | PlanError::Scope | PlanError::Path | PlanError::TrustDomain => {
                Self::new(Kind::Denied, "not_permitted", text)
            }
        }
    }
}

impl From<SignError> for Refusal {
    fn from(_: SignError) -> Self {
        Self::unavailable("signer_failed")
    }
}
