//! The full context of a request: everything that policy sees, typed, with who asserted it.
//!
//! It is built by the broker from what was verified (the caller), what was recorded (the task), what is registered
//! (audience, agent) and what was asked. What the requesting agent asserts about itself, and what is absent, enters
//! at its worst value: it can turn a permit into a deny, never the reverse. Free text is never part of it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Thumbprint;
use crate::id::{LeaseKey, TaskId};
use crate::lock::Selector;
use crate::name::{AudienceName, PurposeCode, TaskType, TenantName};
use crate::public_key::PublicKey;
use crate::registry::{Enforcement, Role};
use crate::revision::Basis;
use crate::scope::Scope;
use crate::spiffe_id::{SpiffeId, TrustDomain};
use crate::terms::Profile;
use crate::time::Timestamp;

/// What is asked for; one policy action each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// Open a root task.
    CreateTask,
    /// Open a task below another, for another agent.
    DelegateTask,
    /// Issue a credential for a task.
    IssueCredential,
    /// Issue a credential in place of one that is about to end.
    RenewCredential,
    /// See leases.
    ListLeases,
    /// End leases while their tasks go on.
    RevokeLeases,
    /// See locks.
    ListLocks,
    /// Pull the emergency stop.
    CreateLock,
    /// Lift an emergency stop.
    LiftLock,
    /// Read the audit log.
    ListEvents,
}

impl Operation {
    /// The name, the same in policy, wire and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateTask => "CreateTask",
            Self::DelegateTask => "DelegateTask",
            Self::IssueCredential => "IssueCredential",
            Self::RenewCredential => "RenewCredential",
            Self::ListLeases => "ListLeases",
            Self::RevokeLeases => "RevokeLeases",
            Self::ListLocks => "ListLocks",
            Self::CreateLock => "CreateLock",
            Self::LiftLock => "LiftLock",
            Self::ListEvents => "ListEvents",
        }
    }
}

/// What operators ask for: it is about a tenant and no task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorCall {
    /// [`Operation::ListLeases`].
    ListLeases,
    /// [`Operation::RevokeLeases`].
    RevokeLeases,
    /// [`Operation::ListLocks`].
    ListLocks,
    /// [`Operation::CreateLock`].
    CreateLock,
    /// [`Operation::LiftLock`].
    LiftLock,
    /// [`Operation::ListEvents`].
    ListEvents,
}

impl OperatorCall {
    /// The policy action.
    #[must_use]
    pub const fn operation(self) -> Operation {
        match self {
            Self::ListLeases => Operation::ListLeases,
            Self::RevokeLeases => Operation::RevokeLeases,
            Self::ListLocks => Operation::ListLocks,
            Self::CreateLock => Operation::CreateLock,
            Self::LiftLock => Operation::LiftLock,
            Self::ListEvents => Operation::ListEvents,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How sensitive data or an effect is, from harmless to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sensitivity {
    /// Public or trivial.
    Low,
    /// Internal.
    Moderate,
    /// Confidential.
    High,
    /// Loss would be grave.
    Critical,
}

impl Sensitivity {
    /// 0 for low to 3 for critical.
    #[must_use]
    pub const fn level(self) -> i64 {
        self as i64
    }

    /// The name, the same in configuration, policy and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Moderate => "moderate",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Where the instruction came from that the agent acts on, from most to least trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptOrigin {
    /// The operator's own system prompt.
    System,
    /// The delegating user.
    User,
    /// A retrieved document.
    Retrieved,
    /// The output of a tool.
    ToolOutput,
    /// Unknown, or known to be hostile.
    Untrusted,
}

impl PromptOrigin {
    /// 0 for system to 4 for untrusted.
    #[must_use]
    pub const fn level(self) -> i64 {
        self as i64
    }

    /// The name, the same in policy, wire and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Retrieved => "retrieved",
            Self::ToolOutput => "tool_output",
            Self::Untrusted => "untrusted",
        }
    }

    /// What policy sees: the worse of what the orchestrator said of the task and what the agent says of the
    /// request. An agent that says nothing adds nothing; an orchestrator that said nothing means untrusted.
    #[must_use]
    pub fn judged(by_orchestrator: Option<Self>, by_agent: Option<Self>) -> Self {
        let task = by_orchestrator.unwrap_or(Self::Untrusted);
        by_agent.map_or(task, |agent| agent.max(task))
    }
}

/// How a caller's identity was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// An X.509-SVID, with its key proven by the TLS handshake.
    X509Svid,
    /// A JWT-SVID or an OIDC token, which anyone who has a copy could have shown first, bound since then to the key that
    /// was proven with it.
    BearerBootstrap,
}

impl Verification {
    /// The name, the same in policy, wire and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X509Svid => "x509_svid",
            Self::BearerBootstrap => "bearer_bootstrap",
        }
    }
}

/// Who asks: verified by Brevet, roles by the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerFacts {
    /// The workload.
    pub spiffe_id: SpiffeId,
    /// Its tenant.
    pub tenant: TenantName,
    /// What the registry says it may be.
    pub roles: BTreeSet<Role>,
    /// How its identity was verified.
    pub verified: Verification,
    /// How long ago that was, in whole seconds.
    pub verified_age_seconds: u64,
}

/// The task: recorded at opening, or about to be. Everything here was asserted by the orchestrator and then fixed,
/// but for the ages, which are computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// The task's id.
    pub id: TaskId,
    /// Its type.
    pub task_type: TaskType,
    /// Why it is done.
    pub purpose: PurposeCode,
    /// The most sensitive thing it may touch.
    pub sensitivity_max: Sensitivity,
    /// The agent that works on it.
    pub agent: SpiffeId,
    /// On whose behalf.
    pub delegator: SpiffeId,
    /// The workload that opened it.
    pub opener: SpiffeId,
    /// The agents from the root task's to this task's.
    pub chain: Vec<SpiffeId>,
    /// Zero for a root task.
    pub depth: u8,
    /// Seconds since it was opened.
    pub age_seconds: u64,
    /// Seconds until its deadline.
    pub remaining_seconds: u64,
    /// Leases of it that live.
    pub leases_live: u32,
}

/// The credential asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialFacts {
    /// How long it is to live, in whole seconds.
    pub lifetime_seconds: u64,
    /// The key it will be bound to.
    pub holder: Thumbprint,
    /// The form, and what depends on it.
    pub form: FormFacts,
}

/// What is asked for of one form of credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormFacts {
    /// A task token.
    TaskToken {
        /// The audience, registered.
        audience: AudienceName,
        /// How the audience enforces (registry).
        enforcement: Enforcement,
        /// The audience's sensitivity (registry).
        sensitivity: Sensitivity,
        /// What is asked for, already known to lie within the task's scope.
        scope: Scope,
    },
    /// An X.509-SVID, which is good wherever the broker's own trust domain is trusted.
    X509Svid {
        /// The broker's own trust domain.
        trust_domain: TrustDomain,
        /// The public half of the holder key.
        public_key: PublicKey,
        /// Whether the certification request asked for more than its key, for extensions or a password. All of that
        /// was passed over; policy does not see it, and the record does.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ignored_attributes: bool,
    },
    /// A JWT-SVID, which its audience may take from whoever bears it.
    JwtSvid {
        /// The audience, registered.
        audience: AudienceName,
        /// How the audience enforces (registry).
        enforcement: Enforcement,
        /// The audience's sensitivity (registry).
        sensitivity: Sensitivity,
    },
}

impl CredentialFacts {
    /// The form.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        match self.form {
            FormFacts::TaskToken { .. } => Profile::TaskToken,
            FormFacts::X509Svid { .. } => Profile::X509Svid,
            FormFacts::JwtSvid { .. } => Profile::JwtSvid,
        }
    }
}

/// The agent that a task is delegated to, as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegateFacts {
    /// Its tenant.
    pub tenant: TenantName,
    /// What the registry says it may be.
    pub roles: BTreeSet<Role>,
}

/// A task and what it opens or draws on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskContext {
    /// The task: the one to be opened, or the one that a credential is for.
    pub task: TaskFacts,
    /// The task's scope.
    pub scope: Scope,
    /// The worse of what orchestrator and agent said; see [`PromptOrigin::judged`].
    pub prompt_origin: PromptOrigin,
}

/// What is asked for, with all that belongs to it and nothing that does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Open a root task.
    CreateTask(TaskContext),
    /// Open a task below another.
    DelegateTask {
        /// The task to be opened.
        context: TaskContext,
        /// The task it is opened below.
        parent: TaskId,
        /// The agent it is for.
        delegate: DelegateFacts,
    },
    /// Issue a credential for a task.
    IssueCredential {
        /// The task.
        context: TaskContext,
        /// The credential.
        credential: CredentialFacts,
    },
    /// Issue a credential in place of another.
    RenewCredential {
        /// The task.
        context: TaskContext,
        /// The credential.
        credential: CredentialFacts,
        /// The lease of the other.
        renews: LeaseKey,
    },
    /// See or stop what a tenant has.
    Operate {
        /// What an operator wants to do.
        call: OperatorCall,
        /// The tenant.
        tenant: TenantName,
        /// What is to be stopped, where something is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        selector: Option<Selector>,
    },
}

impl Ask {
    /// The policy action.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::CreateTask(_) => Operation::CreateTask,
            Self::DelegateTask { .. } => Operation::DelegateTask,
            Self::IssueCredential { .. } => Operation::IssueCredential,
            Self::RenewCredential { .. } => Operation::RenewCredential,
            Self::Operate { call, .. } => call.operation(),
        }
    }

    /// The task it is about, where it is about one.
    #[must_use]
    pub const fn context(&self) -> Option<&TaskContext> {
        match self {
            Self::CreateTask(context)
            | Self::DelegateTask { context, .. }
            | Self::IssueCredential { context, .. }
            | Self::RenewCredential { context, .. } => Some(context),
            Self::Operate { .. } => None,
        }
    }

    /// The credential it is for, where it is for one.
    #[must_use]
    pub const fn credential(&self) -> Option<(&TaskContext, &CredentialFacts)> {
        match self {
            Self::IssueCredential { context, credential }
            | Self::RenewCredential { context, credential, .. } => Some((context, credential)),
            Self::CreateTask(_) | Self::DelegateTask { .. } | Self::Operate { .. } => None,
        }
    }
}

/// The full context of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks.
    pub caller: CallerFacts,
    /// For what.
    pub ask: Ask,
    /// When it is decided.
    pub time: Timestamp,
    /// What the facts above were read from.
    pub basis: Basis,
}

/// The policies that determined a decision, each with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeterminingPolicy {
    /// The policy's id.
    pub id: String,
    /// The file it is in, relative to the policy directory.
    pub file: String,
    /// The line it begins at, counted from one.
    pub line: u32,
}

/// What a permit demands besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Obligations {
    /// The credential may live no longer than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_max: Option<Duration>,
}

#[cfg(test)]
mod tests;
