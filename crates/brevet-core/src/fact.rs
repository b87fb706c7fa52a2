//! Facts: everything that ever changed state or was answered to a known caller. A fact is the audit record, the
//! journal entry and the source of the revocation notice in one. It never holds a secret.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{
    BearerDigest, ClaimDigest, HopDigest, PolicyDigest, RegistryDigest, RequestDigest, StateDigest,
    Thumbprint, TrustDigest,
};
use crate::id::{Id, LeaseKey, LockId, RootTaskId, TaskId};
use crate::lock::Lock;
use crate::name::{PersonName, PurposeCode, RequestId, TaskType, TenantName};
use crate::request::{Operation, PromptOrigin, Sensitivity};
use crate::revision::{Incarnation, Revision};
use crate::scope::Scope;
use crate::spiffe_id::SpiffeId;
use crate::terms::Terms;
use crate::time::{Now, Timestamp};

/// What every record says besides its fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The life of the journal that it belongs to.
    pub incarnation: Incarnation,
    /// Both clocks when it was decided.
    pub at: Now,
    /// The tenant it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// The task tree it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<RootTaskId>,
    /// The authenticated caller it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<SpiffeId>,
    /// The caller's name for the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Fact {
    /// A task was opened: the root of a new tree, or a child below its parent.
    TaskOpened(Arc<TaskOpened>),
    /// A task ended, and with it everything below it.
    TaskEnded {
        /// The task.
        task: TaskId,
        /// How.
        outcome: Outcome,
        /// Why, as a short code.
        reason: ReasonCode,
        /// When it had taken effect, where that was before it was recorded: a lock's time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// A lease was issued. Durable before the key is used.
    LeaseIssued {
        /// Everything that will be signed, but for this record's revision.
        terms: Arc<Terms>,
        /// The request's body, by which a retry is recognised.
        body: RequestDigest,
        /// The lease of the same task that this one was asked for in place of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        renews: Option<LeaseKey>,
    },
    /// Leases of one task ended while the task went on.
    LeasesEnded {
        /// The task.
        task: TaskId,
        /// The leases.
        leases: Vec<LeaseKey>,
        /// How.
        outcome: LeaseOutcome,
        /// Why, as a short code.
        reason: ReasonCode,
        /// When it had taken effect, where that was before it was recorded: a lock's time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// Policies, registry and trust were put in force.
    ConfigurationLoaded {
        /// The policies.
        policy: PolicyDigest,
        /// The registry.
        registry: RegistryDigest,
        /// The bundles that callers are verified by.
        trust: TrustDigest,
        /// Who proposed the change, where a person did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proposer: Option<PersonName>,
        /// Who confirmed it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        confirmers: Vec<PersonName>,
    },
    /// An emergency stop was pulled.
    LockCreated(Lock),
    /// An emergency stop was lifted.
    LockLifted {
        /// The lock.
        lock: LockId,
        /// Who proposed it, where a person did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proposer: Option<PersonName>,
        /// Who confirmed it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        confirmers: Vec<PersonName>,
    },
    /// Everything that a lock had killed has its ending recorded.
    LockSwept {
        /// The lock.
        lock: LockId,
        /// How many tasks it ended, those below others not counted.
        tasks: u64,
        /// How many leases it ended while their tasks went on.
        leases: u64,
    },
    /// Somebody acted over the local root socket, which no lock binds. Recorded before the effect.
    RootSocketUsed {
        /// The user of the process at the other end.
        uid: u32,
        /// The method.
        method: String,
    },
    /// A caller was refused. Conflicts with nothing.
    Denied {
        /// What was asked for, or the method where no operation was reached.
        operation: DeniedOperation,
        /// The stable reason.
        reason: ReasonCode,
        /// Why policy denied it, where policy did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<DenialCause>,
        /// The user of whoever asked over the local root socket.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
    },
    /// Refusals of one caller that have no record of their own, for there were too many in a minute or too much waited
    /// for the disk. Since the last such record, or the start.
    DenialsUnrecorded {
        /// What they were.
        class: DenialClass,
        /// How many.
        count: u64,
    },
    /// A bearer's token was shown for the first time, and is bound to the key that was proven with it: shown with
    /// another, it is refused.
    BearerBound(BearerBound),
    /// A daemon started on this journal.
    Started {
        /// The daemon's version.
        version: String,
        /// What was replayed.
        replayed: Revision,
        /// Whether the wall clock was behind the highest time ever recorded, so that minting is sealed.
        clock_behind: bool,
    },
    /// A daemon stopped in order.
    Stopped,
    /// A snapshot of the state was stored.
    SnapshotTaken {
        /// The revision it holds everything up to.
        revision: Revision,
        /// Its digest.
        digest: StateDigest,
    },
}

impl Fact {
    /// The name of every kind, the same in records, wire and filters.
    pub const KINDS: [&str; 15] = [
        "task_opened",
        "task_ended",
        "lease_issued",
        "leases_ended",
        "configuration_loaded",
        "lock_created",
        "lock_lifted",
        "lock_swept",
        "root_socket_used",
        "denied",
        "denials_unrecorded",
        "bearer_bound",
        "started",
        "stopped",
        "snapshot_taken",
    ];

    /// The name of its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TaskOpened(_) => "task_opened",
            Self::TaskEnded { .. } => "task_ended",
            Self::LeaseIssued { .. } => "lease_issued",
            Self::LeasesEnded { .. } => "leases_ended",
            Self::ConfigurationLoaded { .. } => "configuration_loaded",
            Self::LockCreated(_) => "lock_created",
            Self::LockLifted { .. } => "lock_lifted",
            Self::LockSwept { .. } => "lock_swept",
            Self::RootSocketUsed { .. } => "root_socket_used",
            Self::Denied { .. } => "denied",
            Self::DenialsUnrecorded { .. } => "denials_unrecorded",
            Self::BearerBound(_) => "bearer_bound",
            Self::Started { .. } => "started",
            Self::Stopped => "stopped",
            Self::SnapshotTaken { .. } => "snapshot_taken",
        }
    }
}

/// Whose token was bound to which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BearerBound {
    /// The token.
    pub token: BearerDigest,
    /// The workload that it proves.
    pub workload: SpiffeId,
    /// The key.
    pub key: Thumbprint,
    /// From when on the token proves nothing any more, so that it need not be remembered.
    pub until: Timestamp,
}

/// What a denial denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedOperation {
    /// An operation that policy knows.
    Operation(Operation),
    /// A method of a service, as `GetTask`.
    Method(String),
}

/// Why policy denies a request. The caller is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialCause {
    /// A policy forbids it.
    Forbidden,
    /// No policy permits it.
    NoPermit,
    /// The evaluation of a policy failed, or the request lacks what its action has in every request.
    EvaluationError,
}

/// What is denied, as far as a caller's budget of records goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialClass {
    /// Requests that could not be understood, or were no request at all.
    Malformed,
    /// Requests that were understood.
    Denied,
}

/// How a task was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOpened {
    /// Its id.
    pub id: TaskId,
    /// The parent's own part of its id; none for a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    /// The agent that works on it.
    pub agent: SpiffeId,
    /// On whose behalf.
    pub delegator: SpiffeId,
    /// The workload that opened it: its owner, and whom its quota is charged to.
    pub opener: SpiffeId,
    /// Its type.
    pub task_type: TaskType,
    /// Why it is done.
    pub purpose: PurposeCode,
    /// The most sensitive thing it may touch.
    pub sensitivity_max: Sensitivity,
    /// Where the orchestrator says that its instruction came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_origin: Option<PromptOrigin>,
    /// Its ceiling.
    pub scope: Scope,
    /// When it was opened, by the issuing clock.
    pub opened_at: Timestamp,
    /// Its hard end.
    pub deadline: Timestamp,
    /// Zero for a root.
    pub depth: u8,
    /// The agent instance it is bound to.
    pub holder: Holder,
    /// This hop of the delegation chain and, through it, every hop before.
    pub hop: HopDigest,
    /// The request's body, by which a retry is recognised.
    pub body: RequestDigest,
}

impl TaskOpened {
    /// The digest of this hop upon the one before: nothing of either can be changed, cut or put elsewhere. It
    /// covers the JSON of the whole opening, with 32 zero bytes in place of the hop itself.
    #[must_use]
    pub fn hop_upon(&self, before: Option<HopDigest>) -> HopDigest {
        let bare = Self { hop: HopDigest::from_bytes([0; 32]), ..self.clone() };
        let opening = serde_json::to_vec(&bare).unwrap_or_default();
        HopDigest::of(&[before.as_ref().map_or(&[], |hop| hop.as_bytes().as_slice()), &opening])
    }
}

/// The agent instance that a task is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// The instance that holds this key.
    Key(Thumbprint),
    /// The instance that first redeems the claim with this digest.
    Claim(ClaimDigest),
}

/// How a task ended. Terminal is terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It reached its objective.
    Completed,
    /// It did not.
    Failed,
    /// Its owner gave it up.
    Cancelled,
    /// An operator stopped it.
    Revoked,
    /// Its deadline passed.
    Expired,
}

impl Outcome {
    /// The name, the same in wire and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// How a lease ended while its task went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseOutcome {
    /// Its end passed.
    Expired,
    /// It was ended before.
    Revoked,
    /// The caller was gone before it could be handed over.
    Undelivered,
}

impl LeaseOutcome {
    /// The name, the same in wire and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Undelivered => "undelivered",
        }
    }
}

/// A short code, `[a-z0-9_]{1,64}`: never free text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReasonCode(std::borrow::Cow<'static, str>);

/// A text that is not a reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid reason code: expected [a-z0-9_]{{1,64}}")]
pub struct InvalidReasonCode;

impl ReasonCode {
    /// A code of Brevet's own.
    #[must_use]
    pub const fn of(code: &'static str) -> Self {
        Self(std::borrow::Cow::Borrowed(code))
    }

    /// A code that a caller gave.
    ///
    /// # Errors
    /// [`InvalidReasonCode`] if it does not fit the grammar.
    pub fn parse(text: &str) -> Result<Self, InvalidReasonCode> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(InvalidReasonCode);
        }
        Ok(Self(text.to_owned().into()))
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ReasonCode {
    type Error = InvalidReasonCode;
    fn try_from(text: String) -> Result<Self, InvalidReasonCode> {
        Self::parse(&text)
    }
}

impl From<ReasonCode> for String {
    fn from(code: ReasonCode) -> Self {
        code.0.into_owned()
    }
}

#[cfg(test)]
mod tests;
