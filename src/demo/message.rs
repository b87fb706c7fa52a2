//! What the processes of the demo tell each other: one JSON object a line, commands one way and answers the other.
//! Nothing else passes between them but what `brevet dev` wrote and the calls that they make.

use std::time::Duration;

use brevet_core::fact::DenialCause;
use brevet_core::request::{PromptOrigin, Sensitivity};
use serde::{Deserialize, Serialize};

/// What an agent, an orchestrator or an operator is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    /// Calls the broker under its own identity.
    Prove,
    /// Calls the broker with a certificate that it made itself, for another's SPIFFE ID.
    Impersonate(String),
    /// Opens a task.
    CreateTask(CreateTask),
    /// Ends a task.
    Complete {
        /// Its resource name.
        task: String,
    },
    /// Opens a task below one of its own, for another agent.
    Delegate(Delegate),
    /// Has a task token issued and keeps it.
    Issue(Issue),
    /// Has a task token issued in place of another and keeps both.
    Renew {
        request_id: String,
        /// The lease of the other.
        lease: String,
    },
    /// Has an X.509-SVID for a task issued and keeps it.
    IssueSvid {
        request_id: String,
        /// The resource name of the task.
        task: String,
    },
    /// Calls the resource server by the X.509-SVID of a task, without a token.
    Introduce {
        /// The lease that it was issued under.
        lease: String,
        /// Where the resource server listens.
        address: String,
        /// What is wanted.
        permission: Permission,
    },
    /// Calls the broker by the X.509-SVID of a task.
    ProveBySvid {
        /// The lease that it was issued under.
        lease: String,
    },
    /// Has a JWT-SVID for a task issued and keeps it.
    IssueJwtSvid {
        request_id: String,
        /// The resource name of the task.
        task: String,
        /// Whom it is for.
        audience: String,
    },
    /// Lets a copy of a credential get out, as a log or a crash dump would.
    Leak {
        /// The lease that it was issued under.
        lease: String,
    },
    /// Lets a copy of the token get out that it calls the broker by.
    LeakOwn,
    /// Calls the broker by a copy of another's token, with its own key.
    ProveByCopy(String),
    /// Calls the resource server.
    Call(Call),
    /// Calls the resource server until that refuses.
    CallUntilRefused(Call),
    /// Stops an agent and everything of it.
    Lock {
        request_id: String,
        /// Its SPIFFE ID.
        agent: String,
        /// What it is told.
        message: String,
    },
    /// Lets new work of whatever a lock stops begin.
    Lift {
        /// The resource name of the lock.
        lock: String,
    },
    /// Lists the denials of the audit log.
    ListDenials,
}

/// Opens a task of an agent, bound to that agent's key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CreateTask {
    pub(super) request_id: String,
    pub(super) agent: String,
    pub(super) holder_key_thumbprint: String,
    pub(super) task_type: String,
    pub(super) sensitivity_max: Sensitivity,
    pub(super) scope: Vec<Permission>,
}

/// Opens a task of another agent below an agent's own, bound to the other's key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Delegate {
    pub(super) request_id: String,
    pub(super) parent: String,
    pub(super) agent: String,
    pub(super) holder_key_thumbprint: String,
    pub(super) sensitivity_max: Sensitivity,
    pub(super) scope: Vec<Permission>,
}

/// One permission without constraints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Permission {
    pub(super) audience: String,
    pub(super) resource: String,
    pub(super) action: String,
}

/// Has a credential issued for one permission of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Issue {
    pub(super) request_id: String,
    pub(super) task: String,
    pub(super) permission: Permission,
    pub(super) lifetime_seconds: Option<i64>,
    pub(super) prompt_origin: Option<PromptOrigin>,
}

/// A call of the resource server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Call {
    /// Where it listens.
    pub(super) address: String,
    /// What is presented.
    pub(super) token: Token,
    /// What is wanted.
    pub(super) permission: Permission,
}

/// The token that is presented.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Token {
    /// The one that the process itself was issued, by its lease.
    Own(String),
    /// A copy that got out.
    Copy(String),
}

/// What came of a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The broker answered.
    Proven {
        /// Who the process is.
        spiffe_id: String,
        /// Its key.
        key_thumbprint: String,
    },
    /// A task was opened.
    Opened {
        /// Its resource name.
        task: String,
    },
    /// A task has ended.
    Ended {
        /// The time since boot just before the call.
        called_at_micros: u64,
        /// How many leases ended with it.
        leases_ended: u32,
    },
    /// A task token was issued.
    Issued {
        /// The resource name of its lease.
        lease: String,
        /// How long it lives.
        lifetime_seconds: i64,
        /// When it ends, in seconds since the epoch.
        end_seconds: i64,
    },
    /// An X.509-SVID or a JWT-SVID was issued.
    SvidIssued {
        /// The resource name of its lease.
        lease: String,
        /// Its SPIFFE ID.
        spiffe_id: String,
        /// How long it lives.
        lifetime_seconds: i64,
    },
    /// A credential got out.
    Leaked {
        /// The credential.
        token: String,
    },
    /// The resource server answered.
    Called {
        /// The status of its last answer.
        status: u16,
        /// How many calls it answered with success.
        accepted: u64,
    },
    /// A lock was pulled.
    Locked {
        /// Its resource name.
        lock: String,
        /// The time since boot just before the call.
        called_at_micros: u64,
    },
    /// A lock was lifted.
    Lifted,
    /// What the audit log says of denials.
    Denials(Vec<Denial>),
    /// The broker refused.
    Refused {
        /// The gRPC code.
        code: String,
        /// The broker's stable reason, where it gave one.
        reason: Option<String>,
        /// What it said to people.
        text: String,
    },
    /// It could not be done at all.
    Failed(String),
}

/// A denial in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Denial {
    /// Who was denied, where that was known.
    pub(super) caller: Option<String>,
    /// The stable reason.
    pub(super) reason: String,
    /// Why policy denied it, where policy did.
    pub(super) cause: Option<DenialCause>,
    /// The policies that determined it, each with file and line.
    pub(super) policies: Vec<String>,
}

/// What the resource server says of itself and of each call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Notice {
    /// It listens here.
    Listening(String),
    /// It has decided about a call.
    Decided(Decided),
    /// It begins its picture of endings anew: what it was told so far counts no more.
    Anew,
}

/// A decision of the resource server about one call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Decided {
    /// The time since boot when it was decided.
    pub(super) at_micros: u64,
    /// The time by which it was decided, in milliseconds since the epoch.
    pub(super) judged_at_millis: u64,
    /// How long that took, from the call's head being read.
    pub(super) took_micros: u64,
    /// Who called, once that was proven.
    pub(super) caller: Option<String>,
    /// Who acts by the token, outermost first, if it was accepted: the caller, and whoever delegated to it.
    pub(super) actors: Vec<String>,
    /// Whom a JWT-SVID names that was verified.
    pub(super) named: Option<String>,
    /// Why it was refused; none if it was accepted.
    pub(super) refused: Option<String>,
}

impl Decided {
    /// Whether it could not be decided: what lives was not known.
    pub(super) fn is_open(&self) -> bool {
        self.refused.as_deref() == Some(LIVENESS_UNKNOWN)
    }
}

/// The reason where a lease's liveness could not be learnt.
pub(super) const LIVENESS_UNKNOWN: &str = "liveness_unknown";

/// The reason where a JWT-SVID was verified and no more is shown than that.
pub(super) const NAMES_ALONE: &str = "names_alone";

/// A duration in whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
