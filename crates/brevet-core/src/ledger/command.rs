//! What goes into a ledger's commands and what comes out of them, beside facts.

use thiserror::Error;

use super::Ending;
use crate::digest::RequestDigest;
use crate::fact::{Fact, Holder, Outcome};
use crate::id::{LeaseKey, LockId};
use crate::request::PromptOrigin;
use crate::time::Timestamp;

/// What opening a task fixes besides what policy was asked about.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Its hard end.
    pub deadline: Timestamp,
    /// The agent instance it is bound to.
    pub holder: Holder,
    /// Where the orchestrator says that the instruction came from.
    pub prompt_origin: Option<PromptOrigin>,
    /// The request's body.
    pub body: RequestDigest,
}

/// Why a task is not opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenRefusal {
    /// What the decision was computed from has changed: decide again.
    #[error("the basis of the decision has changed")]
    Conflict,
    /// The permit is for something else.
    #[error("the permit does not permit this")]
    NotPermitted,
    /// The deadline is not after its opening.
    #[error("the deadline is not in the future")]
    NoTime,
    /// A lock forbids it.
    #[error("locked by {0}")]
    Locked(LockId),
}

/// How many leases one task may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLimits {
    /// At once.
    pub live_max: u32,
    /// In all its life: what is dead is remembered too, as long as the task.
    pub issued_max: usize,
}

/// Why a lease is not issued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IssueRefusal {
    /// What the decision was computed from has changed: decide again.
    #[error("the basis of the decision has changed")]
    Conflict,
    /// The permit or the terms are for something else.
    #[error("the permit does not permit these terms")]
    NotPermitted,
    /// There is no such task.
    #[error("no such task")]
    NoTask,
    /// The task is not live.
    #[error("the task has ended")]
    TaskClosed(Ending<Outcome>),
    /// The task is bound to another agent instance, or the claim is not its own.
    #[error("the holder key is not the task's")]
    WrongHolder,
    /// The terms end before they begin, or after the task.
    #[error("the lease's time does not lie within the task's")]
    NoTime,
    /// The terms are wider than the task, or than the lease to be renewed.
    #[error("wider than the task or the lease to be renewed")]
    Widens,
    /// A lock forbids it.
    #[error("locked by {0}")]
    Locked(LockId),
    /// The lease to be renewed is not one of the task's.
    #[error("no such lease")]
    NoLease,
    /// The lease to be renewed has ended.
    #[error("the lease has ended")]
    LeaseEnded,
    /// The task has as many live leases as it may.
    #[error("the task has {0} live leases, which is its limit")]
    Quota(u32),
    /// The task was given as many leases as it may ever have.
    #[error("the task was given {0} leases, which is its limit")]
    IssuedQuota(usize),
}

/// How far a tree may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLimits {
    /// Delegations between the root task and the last task below it.
    pub depth_max: u8,
    /// Tasks in all its life: what has ended is remembered too, as long as the tree.
    pub tasks_max: usize,
}

/// Why a task is not delegated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DelegateRefusal {
    /// What the decision was computed from has changed: decide again.
    #[error("the basis of the decision has changed")]
    Conflict,
    /// The permit is for something else.
    #[error("the permit does not permit this")]
    NotPermitted,
    /// There is no such parent.
    #[error("no such task")]
    NoTask,
    /// The parent is not live.
    #[error("the task has ended")]
    TaskClosed(Ending<Outcome>),
    /// It would be too far from the root.
    #[error("more than {0} delegations deep")]
    Depth(u8),
    /// The tree has as many tasks as it may.
    #[error("the tree has {0} tasks, which is its limit")]
    TreeFull(usize),
    /// The deadline is not after its opening.
    #[error("the deadline is not in the future")]
    NoTime,
    /// It is later, more sensitive or wider than its parent, or done for something else.
    #[error("wider than the parent task")]
    Widens,
    /// A lock forbids it.
    #[error("locked by {0}")]
    Locked(LockId),
}

/// Why a task or lease is not ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndRefusal {
    /// There is no such task or lease.
    #[error("no such task or lease")]
    NotFound,
    /// It had already ended in another way.
    #[error("the task has ended otherwise")]
    EndedOtherwise(Ending<Outcome>),
}

/// The answer to a request to end something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// This fact ends it, and with it so many live leases.
    Now(Fact, u32),
    /// It had already ended just so.
    Already,
}

/// What the ledger remembers of a request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recall {
    /// Nothing.
    New,
    /// The same request was answered by this lease.
    Same(LeaseKey),
    /// Another request had this id.
    Other,
}
