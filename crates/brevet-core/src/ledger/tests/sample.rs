//! Valid values of every kind, short to write and each told apart by a number or a word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseResult, TestError, TestRunner};

use super::super::*;
use crate::digest::{ClaimDigest, HopDigest, PolicyDigest, RequestDigest, Thumbprint};
use crate::id::{LeaseKey, LockId};
use crate::lock::{Lock, Selector};
use crate::name::{ActionName, AudienceName, KeyId, PurposeCode, RequestId, TaskType};
use crate::proof::Evidence;
use crate::public_key::PublicKey;
use crate::registry::Enforcement;
use crate::request::{
    CallerFacts, CredentialFacts, DelegateFacts, FormFacts, Obligations, PromptOrigin, Request, Sensitivity,
    TaskContext, Verification,
};
use crate::revision::{Basis, Incarnation};
use crate::scope::{Permission, Scope};
use crate::terms::{Content, JwtSvid, TaskToken, Terms, X509Svid};

/// Checks a property; a failure names the seed that brings it back.
pub(crate) fn holds<S: Strategy>(
    name: &str,
    cases: u32,
    strategy: S,
    property: impl Fn(S::Value) -> TestCaseResult,
) where
    S::Value: Debug,
{
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(name),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let cases = config.cases;
    match TestRunner::new(config).run(&strategy, property) {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("{name}: {reason}"),
        Err(TestError::Fail(reason, input)) => panic!(
            "{reason}\nby {input:#?}\nagain: PROPTEST_RNG_SEED={seed} PROPTEST_CASES={cases} \
             cargo test -p brevet-core {name}"
        ),
    }
}

pub(crate) fn id(number: u128) -> Id {
    Id::from_bytes(number.to_be_bytes())
}

pub(crate) fn root(number: u128) -> TaskId {
    TaskId::root_of(RootTaskId(id(number)))
}

pub(crate) fn child(root: u128, number: u128) -> TaskId {
    TaskId::child_of(RootTaskId(id(root)), id(number)).unwrap()
}

pub(crate) fn lock_id(number: u128) -> LockId {
    LockId(id(number))
}

pub(crate) fn lease_key(number: u128) -> LeaseKey {
    LeaseKey(id(number))
}

/// `td/agents/a` is `spiffe://td/agents/a`.
pub(crate) fn workload(text: &str) -> SpiffeId {
    format!("spiffe://{text}").parse().unwrap()
}

pub(crate) fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).unwrap()
}

pub(crate) fn audience(name: &str) -> AudienceName {
    AudienceName::parse(name).unwrap()
}

pub(crate) fn action(name: &str) -> ActionName {
    ActionName::parse(name).unwrap()
}

pub(crate) fn key_id(name: &str) -> KeyId {
    KeyId::parse(name).unwrap()
}

pub(crate) fn request_id(name: &str) -> RequestId {
    RequestId::parse(name).unwrap()
}

pub(crate) fn instance(number: u8) -> Thumbprint {
    Thumbprint::of(&[&[number]])
}

pub(crate) fn claim(number: u8) -> ClaimDigest {
    ClaimDigest::of(&[&[number]])
}

pub(crate) fn policy(number: u8) -> PolicyDigest {
    PolicyDigest::of(&[&[number]])
}

pub(crate) fn body(number: u8) -> RequestDigest {
    RequestDigest::of(&[&[number]])
}

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn now(millis: u64) -> Now {
    Now::at(at(millis))
}

/// `x a/b r,w` permits the actions `r` and `w` on `a/b` of the audience `x`.
pub(crate) fn permission(text: &str) -> Permission {
    let [name, resource, actions] = text.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let actions: BTreeSet<ActionName> = actions.split(',').map(action).collect();
    Permission::new(audience(name), resource.parse().unwrap(), actions, BTreeMap::new()).unwrap()
}

pub(crate) fn scope(permissions: &[&str]) -> Scope {
    Scope::new(permissions.iter().map(|text| permission(text))).unwrap()
}

/// A task that began at 0 and has until 100 s.
pub(crate) fn opened(task: TaskId, parent: Option<TaskId>) -> TaskOpened {
    TaskOpened {
        id: task,
        parent: parent.map(|parent| parent.node()),
        agent: workload("td/agents/a"),
        delegator: workload("td/people/ann"),
        opener: workload("td/orchestrator"),
        task_type: TaskType::parse("report").unwrap(),
        purpose: PurposeCode::parse("billing").unwrap(),
        sensitivity_max: Sensitivity::High,
        prompt_origin: Some(PromptOrigin::User),
        scope: scope(&["x a/** r,w", "y a/** r,w"]),
        opened_at: at(0),
        deadline: at(100_000),
        depth: u8::from(parent.is_some()),
        holder: Holder::Key(instance(1)),
        hop: HopDigest::from_bytes([0; 32]),
        body: body(1),
    }
}

/// A lease of 100 s, all of the task's time.
pub(crate) fn terms(task: TaskId, key: u128) -> Terms {
    Terms {
        id: LeaseId { task, key: lease_key(key) },
        key_id: key_id("k1"),
        issued_at: at(0),
        end: at(100_000),
        holder: instance(1),
        policy: policy(1),
        content: Content::TaskToken(TaskToken {
            issuer: "https://broker.example".into(),
            subject: workload("td/agents/a"),
            actors: vec![workload("td/agents/a")],
            audience: audience("x"),
            scope: scope(&["x a/b r"]),
            certificate: None,
            path: vec![task.node()],
        }),
    }
}

/// The same terms for other permissions; the audience of the first is the token's.
pub(crate) fn terms_for(task: TaskId, key: u128, permissions: &[&str]) -> Terms {
    let mut terms = terms(task, key);
    let Content::TaskToken(token) = &mut terms.content else { panic!() };
    token.scope = scope(permissions);
    token.audience = token.scope.permissions()[0].audience().clone();
    terms
}

/// An X.509-SVID in place of the token.
pub(crate) fn svid(terms: Terms) -> Terms {
    let spiffe_id = workload(&format!("broker/agent/td/agents/a/task/{}", terms.id.task.node()));
    let public_key = PublicKey::from_der(terms.holder.as_bytes()).unwrap();
    Terms { content: Content::X509Svid(X509Svid { spiffe_id, public_key }), ..terms }
}

/// A JWT-SVID for an audience in place of the token.
pub(crate) fn jwt_svid(terms: Terms, name: &str) -> Terms {
    let node = terms.id.task.node();
    let spiffe_id = workload(&format!("broker/agent/td/agents/a/task/{node}"));
    let svid = JwtSvid { spiffe_id, audience: audience(name), certificate: None, path: vec![node] };
    Terms { content: Content::JwtSvid(svid), ..terms }
}

pub(crate) fn lock(number: u128, selector: Selector) -> Lock {
    Lock { id: lock_id(number), tenant: None, selector, message: "stop".into(), until: None }
}

/// A configuration change; the digests don't matter to a tree.
pub(crate) fn configuration() -> Fact {
    Fact::ConfigurationLoaded {
        policy: policy(1),
        registry: crate::digest::RegistryDigest::of(&[]),
        trust: crate::digest::TrustDigest::of(&[]),
        proposer: None,
        confirmers: Vec::new(),
    }
}

pub(crate) fn envelope(tree: Option<(TaskId, &TenantName)>, now: Now) -> Envelope {
    Envelope {
        incarnation: Incarnation(1),
        at: now,
        tenant: tree.map(|(_, tenant)| tenant.clone()),
        tree: tree.map(|(task, _)| task.root()),
        caller: None,
        request_id: None,
    }
}

pub(crate) fn task_facts(opened: &TaskOpened) -> TaskFacts {
    TaskFacts {
        id: opened.id,
        task_type: opened.task_type.clone(),
        purpose: opened.purpose.clone(),
        sensitivity_max: opened.sensitivity_max,
        agent: opened.agent.clone(),
        delegator: opened.delegator.clone(),
        opener: opened.opener.clone(),
        chain: vec![opened.agent.clone()],
        depth: opened.depth,
        age_seconds: 0,
        remaining_seconds: opened.deadline.seconds(),
        leases_live: 0,
    }
}

/// Policy's yes, under the policies `policy`, to what a workload asked for, computed from `basis`.
pub(crate) fn permit(
    ask: Ask,
    caller: &SpiffeId,
    tenant: &TenantName,
    basis: Basis,
    policy: PolicyDigest,
) -> Permit {
    let caller = CallerFacts {
        spiffe_id: caller.clone(),
        tenant: tenant.clone(),
        roles: BTreeSet::new(),
        verified: Verification::X509Svid,
        verified_age_seconds: 0,
    };
    let request = Request { caller, ask, time: at(0), basis };
    let evidence = Evidence { request, determining: [].into(), policy };
    Permit::granted(evidence, Obligations::default())
}

pub(crate) fn context(task: TaskFacts, scope: Scope) -> TaskContext {
    TaskContext { task, scope, prompt_origin: PromptOrigin::User }
}

/// A permit to open exactly this root task.
pub(crate) fn permit_to_open(task: &TaskOpened, tenant: &TenantName, basis: Basis) -> Permit {
    let ask = Ask::CreateTask(context(task_facts(task), task.scope.clone()));
    permit(ask, &task.opener, tenant, basis, policy(1))
}

/// A permit to open exactly this task below another, for an agent of the tenant.
pub(crate) fn permit_to_delegate(
    task: &TaskOpened,
    parent: TaskId,
    tenant: &TenantName,
    basis: Basis,
) -> Permit {
    let delegate = DelegateFacts { tenant: tenant.clone(), roles: BTreeSet::new() };
    let context = context(task_facts(task), task.scope.clone());
    permit(Ask::DelegateTask { context, parent, delegate }, &task.opener, tenant, basis, policy(1))
}

/// A permit for exactly these terms, in place of the lease that is renewed, if one is.
pub(crate) fn permit_for(
    terms: &Terms,
    renews: Option<LeaseKey>,
    task: TaskFacts,
    tenant: &TenantName,
    basis: Basis,
) -> Permit {
    let (ask, caller) = (ask_for(terms, renews, task.clone()), task.agent);
    permit(ask, &caller, tenant, basis, terms.policy)
}

pub(crate) fn ask_for(terms: &Terms, renews: Option<LeaseKey>, task: TaskFacts) -> Ask {
    let form = match &terms.content {
        Content::TaskToken(token) => FormFacts::TaskToken {
            audience: token.audience.clone(),
            enforcement: Enforcement::Lease,
            sensitivity: Sensitivity::Low,
            scope: token.scope.clone(),
        },
        Content::X509Svid(svid) => FormFacts::X509Svid {
            trust_domain: "broker".parse().unwrap(),
            public_key: svid.public_key.clone(),
            ignored_attributes: false,
        },
        Content::JwtSvid(svid) => FormFacts::JwtSvid {
            audience: svid.audience.clone(),
            enforcement: Enforcement::Lease,
            sensitivity: Sensitivity::Low,
        },
    };
    let lifetime_seconds = terms.end.since(terms.issued_at).as_secs();
    let credential = CredentialFacts { lifetime_seconds, holder: terms.holder, form };
    let context = context(task, scope(&["x a/** r,w", "y a/** r,w"]));
    match renews {
        None => Ask::IssueCredential { context, credential },
        Some(renews) => Ask::RenewCredential { context, credential, renews },
    }
}

/// So many leases at once, and as good as any number in a life.
pub(crate) fn limits(live_max: u32) -> LeaseLimits {
    LeaseLimits { live_max, issued_max: 1_000 }
}

/// Three deep, and wide enough for all but one test.
pub(crate) const TREE_LIMITS: TreeLimits = TreeLimits { depth_max: 3, tasks_max: 20 };

pub(crate) fn opening(opened: &TaskOpened) -> Opening {
    Opening {
        deadline: opened.deadline,
        holder: opened.holder,
        prompt_origin: opened.prompt_origin,
        body: opened.body,
    }
}
