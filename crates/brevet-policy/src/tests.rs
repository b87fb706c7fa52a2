//! Requests that the tests decide, and the tests by subject.

mod decision;
mod documentation;
mod load;
mod slice;
mod starter;

use std::collections::{BTreeMap, BTreeSet};

use brevet_core::digest::Thumbprint;
use brevet_core::id::{Id, RootTaskId, TaskId};
use brevet_core::name::{ActionName, AudienceName, PurposeCode, TaskType, TenantName};
use brevet_core::registry::{Enforcement, Role};
use brevet_core::request::{
    CallerFacts, CredentialFacts, Operation, PromptOrigin, Request, Resource, Sensitivity, TaskFacts,
    Verification,
};
use brevet_core::revision::{Basis, Revision};
use brevet_core::scope::{Permission, Scope};
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::terms::Profile;
use brevet_core::time::Timestamp;

use crate::{Decision, Denial, LoadError, Policies};

pub(crate) const AGENT: &str = "spiffe://example.org/agent/researcher";
pub(crate) const ORCHESTRATOR: &str = "spiffe://example.org/orchestrator";

/// An orchestrator opens a task of moderate sensitivity.
pub(crate) fn create_task() -> Request {
    let task = task();
    Request {
        operation: Operation::CreateTask,
        caller: caller(ORCHESTRATOR, Role::Orchestrator),
        resource: Resource::TaskType(task.task_type.clone()),
        scope: scope("files"),
        prompt_origin: PromptOrigin::User,
        credential: None,
        // A Sunday, 12:34:56 UTC.
        time: Timestamp::from_seconds(1_795_350_896),
        basis: Basis { tree: Revision::ZERO, control: Revision(7) },
        task,
    }
}

/// The agent of that task asks for a token for an ordinary audience.
pub(crate) fn issue_credential() -> Request {
    issue_for("files", Enforcement::Lease, Sensitivity::Moderate)
}

/// The agent of that task asks for a token for an audience.
pub(crate) fn issue_for(audience: &str, enforcement: Enforcement, sensitivity: Sensitivity) -> Request {
    let name = AudienceName::parse(audience).unwrap();
    Request {
        operation: Operation::IssueCredential,
        caller: caller(AGENT, Role::Agent),
        resource: Resource::Audience(name.clone()),
        credential: Some(CredentialFacts {
            profile: Profile::TaskToken,
            audience: name,
            enforcement,
            sensitivity,
            scope: scope(audience),
            lifetime_seconds: 600,
            holder: Thumbprint::of(&[b"holder"]),
        }),
        scope: scope(audience),
        ..create_task()
    }
}

pub(crate) fn caller(spiffe_id: &str, role: Role) -> CallerFacts {
    CallerFacts {
        spiffe_id: spiffe_id.parse().unwrap(),
        tenant: TenantName::default(),
        roles: BTreeSet::from([role]),
        verified: Verification::X509Svid,
        verified_age_seconds: 12,
    }
}

fn task() -> TaskFacts {
    let agent: SpiffeId = AGENT.parse().unwrap();
    TaskFacts {
        id: TaskId::root_of(RootTaskId(Id::from_bytes([7; 16]))),
        task_type: TaskType::parse("research").unwrap(),
        purpose: PurposeCode::parse("quarterly-report").unwrap(),
        sensitivity_max: Sensitivity::Moderate,
        agent: agent.clone(),
        delegator: "spiffe://example.org/people/ada".parse().unwrap(),
        opener: ORCHESTRATOR.parse().unwrap(),
        chain: vec![agent],
        depth: 0,
        age_seconds: 30,
        remaining_seconds: 3_570,
        leases_live: 1,
    }
}

fn scope(audience: &str) -> Scope {
    let actions = ["list", "read"].map(|name| ActionName::parse(name).unwrap());
    let audience = AudienceName::parse(audience).unwrap();
    let resource = "reports/**".parse().unwrap();
    Scope::new([Permission::new(audience, resource, BTreeSet::from(actions), BTreeMap::new()).unwrap()])
        .unwrap()
}

pub(crate) fn policies(text: &str) -> Policies {
    try_policies(text).unwrap()
}

pub(crate) fn try_policies(text: &str) -> Result<Policies, LoadError> {
    Policies::from_sources(&BTreeMap::from([("test.cedar".to_owned(), text.to_owned())]))
}

pub(crate) fn denial(policies: &Policies, request: Request) -> Denial {
    match policies.decide(request) {
        Decision::Deny(denial) => denial,
        Decision::Permit(permit) => panic!("permitted: {permit:?}"),
    }
}

/// The ids of the policies that determined a denial.
pub(crate) fn determining(denial: &Denial) -> Vec<&str> {
    denial.evidence.determining.iter().map(|policy| policy.id.as_str()).collect()
}
