//! Requests that the tests decide, and the tests by subject.

mod decision;
mod documentation;
mod load;
mod slice;
mod starter;

use std::collections::{BTreeMap, BTreeSet};

use brevet_core::digest::Thumbprint;
use brevet_core::id::{Id, LeaseKey, RootTaskId, TaskId};
use brevet_core::lock::Selector;
use brevet_core::name::{ActionName, AudienceName, PurposeCode, TaskType, TenantName};
use brevet_core::public_key::PublicKey;
use brevet_core::registry::{Enforcement, Role};
use brevet_core::request::{
    Ask, CallerFacts, CredentialFacts, DelegateFacts, FormFacts, OperatorCall, PromptOrigin, Request,
    Sensitivity, TaskContext, TaskFacts, Verification,
};
use brevet_core::revision::{Basis, Revision};
use brevet_core::scope::{Permission, Scope};
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;

use crate::{Decision, Denial, LoadError, Policies};

pub(crate) const AGENT: &str = "spiffe://example.org/agent/researcher";
pub(crate) const DELEGATE: &str = "spiffe://example.org/agent/reader";
pub(crate) const ORCHESTRATOR: &str = "spiffe://example.org/orchestrator";
pub(crate) const OPERATOR: &str = "spiffe://example.org/people/grace";
pub(crate) const TRUST_DOMAIN: &str = "brevet.example.org";

/// An orchestrator opens a task of moderate sensitivity.
pub(crate) fn create_task() -> Request {
    request(caller(ORCHESTRATOR, Role::Orchestrator), Ask::CreateTask(context("files")))
}

/// The agent of that task delegates a part of it.
pub(crate) fn delegate_task() -> Request {
    delegate_to(DELEGATE)
}

/// The agent of that task delegates a part of it to an agent.
pub(crate) fn delegate_to(agent: &str) -> Request {
    let mut context = context("files");
    context.task.agent = agent.parse().unwrap();
    context.task.opener = AGENT.parse().unwrap();
    context.task.chain.push(context.task.agent.clone());
    context.task.depth = 1;
    let delegate = DelegateFacts { tenant: TenantName::default(), roles: BTreeSet::from([Role::Agent]) };
    let parent = context.task.id;
    request(caller(AGENT, Role::Agent), Ask::DelegateTask { context, parent, delegate })
}

/// The agent of that task asks for a token for an ordinary audience.
pub(crate) fn issue_credential() -> Request {
    issue_for("files", Enforcement::Lease, Sensitivity::Moderate)
}

/// The agent of that task asks for a token for an audience.
pub(crate) fn issue_for(audience: &str, enforcement: Enforcement, sensitivity: Sensitivity) -> Request {
    let name = AudienceName::parse(audience).unwrap();
    let form = FormFacts::TaskToken { audience: name, enforcement, sensitivity, scope: scope(audience) };
    let ask = Ask::IssueCredential { context: context(audience), credential: credential(form) };
    request(caller(AGENT, Role::Agent), ask)
}

/// The agent of that task asks for an X.509-SVID.
pub(crate) fn issue_svid() -> Request {
    let form = FormFacts::X509Svid {
        trust_domain: TRUST_DOMAIN.parse().unwrap(),
        public_key: PublicKey::from_der(&[7; 91]).unwrap(),
        ignored_attributes: false,
    };
    let ask = Ask::IssueCredential { context: context("files"), credential: credential(form) };
    request(caller(AGENT, Role::Agent), ask)
}

/// The agent of that task asks for a JWT-SVID for an audience.
pub(crate) fn issue_jwt_svid(audience: &str, enforcement: Enforcement, sensitivity: Sensitivity) -> Request {
    let name = AudienceName::parse(audience).unwrap();
    let form = FormFacts::JwtSvid { audience: name, enforcement, sensitivity };
    let ask = Ask::IssueCredential { context: context(audience), credential: credential(form) };
    request(caller(AGENT, Role::Agent), ask)
}

/// The same as a renewal.
pub(crate) fn renewal(mut request: Request) -> Request {
    request.ask = match request.ask {
        Ask::IssueCredential { context, credential } => {
            Ask::RenewCredential { context, credential, renews: LeaseKey(Id::from_bytes([9; 16])) }
        }
        other => panic!("nothing that could be renewed: {other:?}"),
    };
    request
}

/// An operator does something in its tenant, to everything there is if it stops anything.
pub(crate) fn operate(call: OperatorCall, role: Role) -> Request {
    let selector = match call {
        OperatorCall::ListLeases | OperatorCall::ListLocks | OperatorCall::ListEvents => None,
        OperatorCall::RevokeLeases | OperatorCall::CreateLock | OperatorCall::LiftLock => {
            Some(Selector::Everything)
        }
    };
    request(caller(OPERATOR, role), Ask::Operate { call, tenant: TenantName::default(), selector })
}

pub(crate) const CALLS: [OperatorCall; 6] = [
    OperatorCall::ListLeases,
    OperatorCall::RevokeLeases,
    OperatorCall::ListLocks,
    OperatorCall::CreateLock,
    OperatorCall::LiftLock,
    OperatorCall::ListEvents,
];

/// One request of each action, and of each type of resource and form of credential that it has.
pub(crate) fn one_of_each() -> Vec<Request> {
    let jwt_svid = || issue_jwt_svid("files", Enforcement::Lease, Sensitivity::Moderate);
    let credentials = || [issue_credential(), issue_svid(), jwt_svid()];
    let mut requests = vec![create_task(), delegate_task()];
    requests.extend(credentials().into_iter().chain(credentials().map(renewal)));
    requests.extend(CALLS.map(|call| operate(call, Role::Stopper)));
    requests
}

/// The task that a request is about.
pub(crate) fn about(request: &mut Request) -> &mut TaskContext {
    match &mut request.ask {
        Ask::CreateTask(context)
        | Ask::DelegateTask { context, .. }
        | Ask::IssueCredential { context, .. }
        | Ask::RenewCredential { context, .. } => context,
        Ask::Operate { .. } => panic!("about no task"),
    }
}

fn request(caller: CallerFacts, ask: Ask) -> Request {
    // A Sunday, 12:34:56 UTC.
    let time = Timestamp::from_seconds(1_795_350_896);
    Request { caller, ask, time, basis: Basis { tree: Revision::ZERO, control: Revision(7) } }
}

fn context(audience: &str) -> TaskContext {
    TaskContext { task: task(), scope: scope(audience), prompt_origin: PromptOrigin::User }
}

fn credential(form: FormFacts) -> CredentialFacts {
    CredentialFacts { lifetime_seconds: 600, holder: Thumbprint::of(&[b"holder"]), form }
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
