//! The vocabulary that policies are written in, and how a request is said in it.
//!
//! A request is not validated against the schema each time: it is built here, from types, and a test validates
//! what is built. It is built of Cedar's values, not of Cedar's expressions, because evaluating the expressions
//! costs more than deciding; the values are reached through `cedar-policy-core`, in the very version that
//! `cedar-policy` itself pins. Only words that the policies in question read are said at all.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::iter;
use std::sync::Arc;

use brevet_core::registry::Role;
use brevet_core::request::{
    Ask, CallerFacts, CredentialFacts, DelegateFacts, FormFacts, Operation, OperatorCall, Request,
    Sensitivity, TaskContext,
};
use brevet_core::sabotage;
use brevet_core::scope::Permission;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::terms::Profile;
use brevet_core::time::Timestamp;
use cedar_policy::Schema;
use cedar_policy_core::ast::{
    self, Context, Eid, Entity, EntityType, EntityUID, EntityUIDEntry, PartialValue, Value,
};
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;

use crate::LoadError;

/// The schema, in Cedar's own notation.
pub(crate) const SCHEMA: &str = include_str!("schema.cedarschema");

/// Every action of the schema.
pub(crate) const OPERATIONS: [Operation; 10] = [
    Operation::CreateTask,
    Operation::DelegateTask,
    Operation::IssueCredential,
    Operation::RenewCredential,
    Operation::ListLeases,
    Operation::RevokeLeases,
    Operation::ListLocks,
    Operation::CreateLock,
    Operation::LiftLock,
    Operation::ListEvents,
];

/// The schema, parsed.
pub(crate) fn schema() -> Result<Schema, LoadError> {
    let refused = |error: cedar_policy::CedarSchemaError| LoadError::Engine(error.to_string());
    Schema::from_cedarschema_str(SCHEMA).map(|(schema, _)| schema).map_err(refused)
}

/// A type of entity. The principal is always a [`Self::Workload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Workload,
    TaskType,
    Audience,
    TrustDomain,
    Tenant,
}

impl Kind {
    /// Every type of the schema.
    pub(crate) const ALL: [Self; 5] =
        [Self::Workload, Self::TaskType, Self::Audience, Self::TrustDomain, Self::Tenant];

    /// The name in policies.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "Brevet::Workload",
            Self::TaskType => "Brevet::TaskType",
            Self::Audience => "Brevet::Audience",
            Self::TrustDomain => "Brevet::TrustDomain",
            Self::Tenant => "Brevet::Tenant",
        }
    }
}

/// A request, taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) operation: Operation,
    pub(crate) caller: &'a CallerFacts,
    /// The type and the id of the resource.
    pub(crate) resource: (Kind, &'a str),
    time: Timestamp,
    task: Option<&'a TaskContext>,
    /// What is delegated: the agent of the task above, and what the registry says of the task's own.
    delegation: Option<(&'a SpiffeId, &'a DelegateFacts)>,
    credential: Option<&'a CredentialFacts>,
    selector: Option<&'static str>,
}

impl<'a> Facts<'a> {
    /// None if something is absent that its action has in every request.
    pub(crate) fn of(request: &'a Request) -> Option<Self> {
        let ask = &request.ask;
        let (mut delegation, mut selector_kind) = (None, None);
        let resource = match ask {
            Ask::CreateTask(context) => (Kind::TaskType, context.task.task_type.as_str()),
            Ask::DelegateTask { context, delegate, .. } => {
                delegation = Some((context.task.chain.iter().rev().nth(1)?, delegate));
                (Kind::Workload, context.task.agent.as_str())
            }
            Ask::IssueCredential { credential, .. } | Ask::RenewCredential { credential, .. } => {
                match &credential.form {
                    FormFacts::TaskToken { audience, .. } | FormFacts::JwtSvid { audience, .. } => {
                        (Kind::Audience, audience.as_str())
                    }
                    FormFacts::X509Svid { trust_domain, .. } => (Kind::TrustDomain, trust_domain.as_str()),
                }
            }
            Ask::Operate { call, tenant, selector } => {
                selector_kind = match call {
                    OperatorCall::ListLeases | OperatorCall::ListLocks | OperatorCall::ListEvents => None,
                    OperatorCall::RevokeLeases | OperatorCall::CreateLock | OperatorCall::LiftLock => {
                        Some(selector.as_ref()?.kind())
                    }
                };
                (Kind::Tenant, tenant.as_str())
            }
        };
        Some(Self {
            operation: ask.operation(),
            caller: &request.caller,
            resource,
            time: request.time,
            task: ask.context(),
            delegation,
            credential: ask.credential().map(|(_, credential)| credential),
            selector: selector_kind,
        })
    }

    /// Everything that a verdict can depend on where conditions read these words, as bytes: equal for requests that it
    /// cannot tell apart and for no others.
    pub(crate) fn key(&self, words: Words) -> Vec<u8> {
        let mut key = Key(Vec::with_capacity(KEY_CAPACITY));
        // INVARIANT: the form is part of it even where no condition reads it: which permits count depends on it.
        let form = self.form().map_or(u8::MAX, |form| form as u8);
        key.0.extend([self.operation as u8, self.resource.0 as u8, form]);
        key.text(self.caller.spiffe_id.as_str());
        key.text(self.resource.1);
        if !sabotage::on("verdicts_forget_words") {
            words.iter().for_each(|(_, (_, say))| key.said(say(self)));
        }
        key.0
    }

    /// The form of the credential that is asked for.
    pub(crate) fn form(&self) -> Option<Profile> {
        self.credential.map(CredentialFacts::profile)
    }

    fn audience(&self) -> Option<(Sensitivity, &'static str)> {
        match &self.credential?.form {
            FormFacts::TaskToken { sensitivity, enforcement, .. }
            | FormFacts::JwtSvid { sensitivity, enforcement, .. } => {
                Some((*sensitivity, enforcement.as_str()))
            }
            FormFacts::X509Svid { .. } => None,
        }
    }

    fn permissions(&self) -> Option<&'a [Permission]> {
        match &self.credential?.form {
            FormFacts::TaskToken { scope, .. } => Some(scope.permissions()),
            FormFacts::X509Svid { .. } | FormFacts::JwtSvid { .. } => Some(&[]),
        }
    }

    fn delegate(&self) -> Option<(&'a SpiffeId, &'a DelegateFacts)> {
        Some((&self.task?.task.agent, self.delegation?.1))
    }
}

/// What a word says of a request.
#[derive(Debug)]
enum Said<'a> {
    Text(&'a str),
    Texts(Vec<&'a str>),
    Number(i64),
}

impl From<Said<'_>> for Value {
    fn from(said: Said<'_>) -> Self {
        match said {
            Said::Text(text) => text.into(),
            Said::Texts(texts) => Self::set_of_lits(texts.into_iter().map(Into::into), None),
            Said::Number(number) => number.into(),
        }
    }
}

/// A word: what a policy writes, and how it is said of a request. None where the request's action has no such word.
type Word = (&'static str, for<'a> fn(&Facts<'a>) -> Option<Said<'a>>);

/// Every word, those of one record together.
const WORDS: &[Word] = &[
    ("principal.spiffe_id", |f| Some(Said::Text(f.caller.spiffe_id.as_str()))),
    ("principal.trust_domain", |f| Some(Said::Text(f.caller.spiffe_id.trust_domain_name()))),
    ("principal.path", |f| Some(Said::Text(f.caller.spiffe_id.path()))),
    ("principal.tenant", |f| Some(Said::Text(f.caller.tenant.as_str()))),
    ("principal.roles", |f| Some(roles(&f.caller.roles))),
    ("resource.spiffe_id", |f| Some(Said::Text(f.delegate()?.0.as_str()))),
    ("resource.trust_domain", |f| Some(Said::Text(f.delegate()?.0.trust_domain_name()))),
    ("resource.path", |f| Some(Said::Text(f.delegate()?.0.path()))),
    ("resource.tenant", |f| Some(Said::Text(f.delegate()?.1.tenant.as_str()))),
    ("resource.roles", |f| Some(roles(&f.delegate()?.1.roles))),
    ("resource.sensitivity.level", |f| Some(Said::Number(f.audience()?.0.level()))),
    ("resource.sensitivity.name", |f| Some(Said::Text(f.audience()?.0.as_str()))),
    ("resource.enforcement", |f| Some(Said::Text(f.audience()?.1))),
    ("resource.name", |f| (f.resource.0 == Kind::Tenant).then_some(Said::Text(f.resource.1))),
    ("context.caller.verified", |f| Some(Said::Text(f.caller.verified.as_str()))),
    ("context.caller.verified_age_seconds", |f| Some(long(f.caller.verified_age_seconds))),
    ("context.task.type", |f| Some(Said::Text(f.task?.task.task_type.as_str()))),
    ("context.task.purpose", |f| Some(Said::Text(f.task?.task.purpose.as_str()))),
    ("context.task.sensitivity_max.level", |f| Some(Said::Number(f.task?.task.sensitivity_max.level()))),
    ("context.task.sensitivity_max.name", |f| Some(Said::Text(f.task?.task.sensitivity_max.as_str()))),
    ("context.task.agent", |f| Some(Said::Text(f.task?.task.agent.as_str()))),
    ("context.task.delegator", |f| Some(Said::Text(f.task?.task.delegator.as_str()))),
    ("context.task.opener", |f| Some(Said::Text(f.task?.task.opener.as_str()))),
    ("context.task.chain", |f| Some(ids(&f.task?.task.chain))),
    ("context.task.ancestors", |f| {
        Some(ids(f.task?.task.chain.split_last().map_or(&[][..], |(_, above)| above)))
    }),
    ("context.task.depth", |f| Some(long(f.task?.task.depth.into()))),
    ("context.task.age_seconds", |f| Some(long(f.task?.task.age_seconds))),
    ("context.task.remaining_seconds", |f| Some(long(f.task?.task.remaining_seconds))),
    ("context.task.leases_live", |f| Some(long(f.task?.task.leases_live.into()))),
    ("context.parent.agent", |f| Some(Said::Text(f.delegation?.0.as_str()))),
    ("context.scope.audiences", |f| {
        Some(texts(f.task?.scope.audiences().into_iter().map(|audience| audience.as_str())))
    }),
    ("context.prompt_origin.level", |f| Some(Said::Number(f.task?.prompt_origin.level()))),
    ("context.prompt_origin.name", |f| Some(Said::Text(f.task?.prompt_origin.as_str()))),
    ("context.credential.profile", |f| Some(Said::Text(f.credential?.profile().as_str()))),
    ("context.credential.lifetime_seconds", |f| Some(long(f.credential?.lifetime_seconds))),
    ("context.credential.actions", |f| {
        let actions = f.permissions()?.iter().flat_map(|permission| permission.actions());
        Some(texts(actions.map(|action| action.as_str())))
    }),
    ("context.credential.resources", |f| {
        Some(texts(f.permissions()?.iter().map(|permission| permission.resource().as_str())))
    }),
    ("context.selector.kind", |f| Some(Said::Text(f.selector?))),
    ("context.time.unix_seconds", |f| Some(long(f.time.seconds()))),
    ("context.time.weekday", |f| Some(long(f.time.civil().weekday.into()))),
    ("context.time.hour", |f| Some(long(f.time.civil().hour.into()))),
];

/// One letter for each word, in the order of letters.
const LETTERS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A set of words, as the bits of their places in [`WORDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Words(u64);

impl Words {
    /// The word that has this path, and its letter.
    pub(crate) fn at(path: &str) -> Option<(Self, &'static str)> {
        let at = WORDS.iter().position(|(word, _)| *word == path)?;
        Some((Self(1 << at), LETTERS.get(at..=at)?))
    }

    /// These and those.
    pub(crate) const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    fn iter(self) -> impl Iterator<Item = (&'static str, Word)> {
        let mut rest = self.0;
        iter::from_fn(move || {
            let at = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            Some((LETTERS.get(at..=at)?, *WORDS.get(at)?))
        })
    }
}

/// The key of a request is seldom longer.
const KEY_CAPACITY: usize = 512;

/// A key that is being written. Each part says how long it is, so that no two lists of parts are the same bytes.
struct Key(Vec<u8>);

impl Key {
    fn said(&mut self, said: Option<Said<'_>>) {
        match said {
            None => self.0.push(0),
            Some(Said::Text(text)) => {
                self.0.push(1);
                self.text(text);
            }
            Some(Said::Texts(texts)) => {
                self.0.push(2);
                self.0.extend(texts.len().to_be_bytes());
                texts.into_iter().for_each(|text| self.text(text));
            }
            Some(Said::Number(number)) => {
                self.0.push(3);
                self.0.extend(number.to_be_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.0.extend(text.len().to_be_bytes());
        self.0.extend(text.as_bytes());
    }
}

/// A request as Cedar takes it.
#[derive(Debug)]
pub(crate) struct Query {
    /// Who wants to do what with which resource, and the context.
    pub(crate) request: ast::Request,
    /// The principal and the resource with their attributes, if they have any.
    pub(crate) entities: Entities,
}

/// What the queries for one action on one type of resource have in common.
#[derive(Debug)]
pub(crate) struct Sentence {
    principal: EntityType,
    action: EntityUIDEntry,
    resource: EntityType,
}

impl Sentence {
    /// Parses the names.
    ///
    /// # Errors
    /// [`LoadError::Engine`] if Cedar refuses one.
    pub(crate) fn of(operation: Operation, resource: Kind) -> Result<Self, LoadError> {
        let named = |name: &str| {
            name.parse().map(EntityType::EntityType).map_err(|error| LoadError::Engine(format!("{error}")))
        };
        let action = uid(&named("Brevet::Action")?, operation.as_str());
        Ok(Self {
            principal: named(Kind::Workload.as_str())?,
            action: EntityUIDEntry::known(action, None),
            resource: named(resource.as_str())?,
        })
    }

    /// Says every word of a request. None if Cedar does not take it.
    pub(crate) fn query(&self, facts: &Facts<'_>) -> Option<Query> {
        let mut variables = BTreeMap::new();
        for (path, say) in WORDS {
            if let Some(value) = say(facts) {
                insert(&mut variables, path, value.into());
            }
        }
        let mut said = |variable| match variables.remove(variable) {
            Some(Node::Record(fields)) => fields,
            _ => BTreeMap::new(),
        };
        let (principal, resource) = self.parties(facts);
        let entities = Entities::from_entities(
            [(&principal, said("principal")), (&resource, said("resource"))]
                .into_iter()
                .filter(|(_, attributes)| !attributes.is_empty())
                .map(|(uid, attributes)| entity(uid.clone(), attributes)),
            None::<&NoEntitiesSchema>,
            TCComputation::AssumeAlreadyComputed,
            Extensions::all_available(),
        )
        .ok()?;
        let context = said("context").into_iter().map(|(name, node)| (name.into(), node.into())).collect();
        Some(Query {
            request: self.request(principal, resource, Context::Value(Arc::new(context))),
            entities,
        })
    }

    /// Says these words of a request, each in the context under its letter.
    pub(crate) fn quick_query(&self, facts: &Facts<'_>, words: Words) -> Query {
        let (principal, resource) = self.parties(facts);
        let context =
            words.iter().filter_map(|(letter, (_, say))| Some((letter.into(), say(facts)?.into()))).collect();
        let request = self.request(principal, resource, Context::Value(Arc::new(context)));
        Query { request, entities: Entities::new() }
    }

    fn parties(&self, facts: &Facts<'_>) -> (EntityUID, EntityUID) {
        let principal = uid(&self.principal, facts.caller.spiffe_id.as_str());
        (principal, uid(&self.resource, facts.resource.1))
    }

    fn request(&self, principal: EntityUID, resource: EntityUID, context: Context) -> ast::Request {
        ast::Request::new_unchecked(
            EntityUIDEntry::known(principal, None),
            self.action.clone(),
            EntityUIDEntry::known(resource, None),
            Some(context),
        )
    }
}

/// A value, or a record that is being put together.
enum Node {
    Value(Value),
    Record(BTreeMap<&'static str, Node>),
}

impl From<Node> for Value {
    fn from(node: Node) -> Self {
        match node {
            Node::Value(value) => value,
            Node::Record(fields) => Self::record(fields, None),
        }
    }
}

fn insert(record: &mut BTreeMap<&'static str, Node>, path: &'static str, value: Value) {
    match path.split_once('.') {
        None => {
            record.insert(path, Node::Value(value));
        }
        Some((name, rest)) => {
            if let Node::Record(inner) = record.entry(name).or_insert_with(|| Node::Record(BTreeMap::new())) {
                insert(inner, rest, value);
            }
        }
    }
}

fn uid(entity_type: &EntityType, id: &str) -> EntityUID {
    EntityUID::from_components(entity_type.clone(), Eid::new(id), None)
}

fn entity(uid: EntityUID, attributes: BTreeMap<&'static str, Node>) -> Entity {
    let attributes =
        attributes.into_iter().map(|(name, node)| (name.into(), PartialValue::Value(node.into())));
    Entity::new_with_attr_partial_value(uid, attributes, HashSet::new(), HashSet::new(), [])
}

fn roles(roles: &BTreeSet<Role>) -> Said<'static> {
    texts(roles.iter().map(|role| role.as_str()))
}

fn ids(ids: &[SpiffeId]) -> Said<'_> {
    texts(ids.iter().map(SpiffeId::as_str))
}

fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Said<'a> {
    Said::Texts(texts.into_iter().collect())
}

/// Cedar's only number has a sign; what it can't hold is its largest.
fn long(value: u64) -> Said<'static> {
    Said::Number(i64::try_from(value).unwrap_or(i64::MAX))
}
