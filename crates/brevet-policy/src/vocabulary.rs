//! The vocabulary that policies are written in, and how a request is said in it.
//!
//! A request is not validated against the schema each time: it is built here, from types, and a test validates
//! what is built. It is built of Cedar's values, not of Cedar's expressions, because evaluating the expressions
//! costs more than deciding; the values are reached through `cedar-policy-core`, in the very version that
//! `cedar-policy` itself pins.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use brevet_core::request::{
    CallerFacts, CredentialFacts, Operation, PromptOrigin, Request, Resource, Sensitivity, TaskFacts,
};
use brevet_core::time::Timestamp;
use cedar_policy::{Entities, EntityId, EntityTypeName, EntityUid, Schema};
use cedar_policy_core::ast::{self, Context, EntityUIDEntry, Value};
use cedar_policy_core::entities::TCComputation;
use cedar_policy_core::extensions::Extensions;

use crate::{DenialCause, LoadError};

/// The schema, in Cedar's own notation.
pub(crate) const SCHEMA: &str = include_str!("schema.cedarschema");

/// A request as Cedar takes it.
#[derive(Debug)]
pub(crate) struct Query {
    /// Who wants to do what with which resource, and the context.
    pub(crate) request: cedar_policy::Request,
    /// The principal and the resource with their attributes.
    pub(crate) entities: Entities,
    /// The id of the principal.
    pub(crate) principal: EntityUid,
    /// The id of the resource.
    pub(crate) resource: EntityUid,
}

/// The names of the entity types.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    action: EntityTypeName,
    workload: EntityTypeName,
    task_type: EntityTypeName,
    audience: EntityTypeName,
}

/// The schema, parsed.
pub(crate) fn schema() -> Result<Schema, LoadError> {
    let refused = |error: cedar_policy::CedarSchemaError| LoadError::Engine(error.to_string());
    Schema::from_cedarschema_str(SCHEMA).map(|(schema, _)| schema).map_err(refused)
}

impl Vocabulary {
    /// The names, parsed.
    pub(crate) fn parse() -> Result<Self, LoadError> {
        let name = |text: &str| {
            text.parse().map_err(|error: cedar_policy::ParseErrors| LoadError::Engine(error.to_string()))
        };
        Ok(Self {
            action: name("Brevet::Action")?,
            workload: name("Brevet::Workload")?,
            task_type: name("Brevet::TaskType")?,
            audience: name("Brevet::Audience")?,
        })
    }

    /// Says a request.
    ///
    /// # Errors
    /// [`DenialCause::Inconsistent`] if the request is not whole, [`DenialCause::EvaluationError`] if Cedar
    /// does not take it.
    pub(crate) fn query(&self, request: &Request) -> Result<Query, DenialCause> {
        let action = uid(&self.action, request.operation.as_str());
        let principal = uid(&self.workload, request.caller.spiffe_id.as_str());
        let mut context = vec![
            ("caller", caller(&request.caller)),
            ("task", task(&request.task)),
            ("scope", scope(request)),
            ("prompt_origin", prompt_origin(request.prompt_origin)),
            ("time", time(request.time)),
        ];
        let mut entities = vec![entity(&principal, workload(&request.caller))];
        let resource = match (request.operation, &request.resource, &request.credential) {
            (Operation::CreateTask, Resource::TaskType(task_type), None)
                if *task_type == request.task.task_type =>
            {
                uid(&self.task_type, task_type.as_str())
            }
            (Operation::IssueCredential, Resource::Audience(name), Some(facts))
                if *name == facts.audience =>
            {
                let resource = uid(&self.audience, name.as_str());
                context.push(("credential", credential(facts)));
                entities.push(entity(&resource, audience(facts)));
                resource
            }
            (Operation::CreateTask | Operation::IssueCredential, _, _) => {
                return Err(DenialCause::Inconsistent);
            }
        };
        let context = context.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Ok(Query {
            request: ast::Request::new_unchecked(
                EntityUIDEntry::known(principal.clone().into(), None),
                EntityUIDEntry::known(action.into(), None),
                EntityUIDEntry::known(resource.clone().into(), None),
                Some(Context::Value(Arc::new(context))),
            )
            .into(),
            entities: cedar_policy_core::entities::Entities::from_entities(
                entities,
                None::<&cedar_policy_core::entities::NoEntitiesSchema>,
                TCComputation::AssumeAlreadyComputed,
                Extensions::all_available(),
            )
            .map_err(|_| DenialCause::EvaluationError)?
            .into(),
            principal,
            resource,
        })
    }
}

fn workload(facts: &CallerFacts) -> [(&'static str, Value); 5] {
    [
        ("spiffe_id", facts.spiffe_id.as_str().into()),
        ("trust_domain", facts.spiffe_id.trust_domain_name().into()),
        ("path", facts.spiffe_id.path().into()),
        ("tenant", facts.tenant.as_str().into()),
        ("roles", texts(facts.roles.iter().map(|role| role.as_str()))),
    ]
}

fn audience(facts: &CredentialFacts) -> [(&'static str, Value); 2] {
    [("sensitivity", sensitivity(facts.sensitivity)), ("enforcement", facts.enforcement.as_str().into())]
}

fn caller(facts: &CallerFacts) -> Value {
    record([
        ("verified", facts.verified.as_str().into()),
        ("verified_age_seconds", long(facts.verified_age_seconds)),
    ])
}

fn task(facts: &TaskFacts) -> Value {
    record([
        ("type", facts.task_type.as_str().into()),
        ("purpose", facts.purpose.as_str().into()),
        ("sensitivity_max", sensitivity(facts.sensitivity_max)),
        ("agent", facts.agent.as_str().into()),
        ("delegator", facts.delegator.as_str().into()),
        ("opener", facts.opener.as_str().into()),
        ("chain", texts(facts.chain.iter().map(|agent| agent.as_str()))),
        ("depth", long(facts.depth.into())),
        ("age_seconds", long(facts.age_seconds)),
        ("remaining_seconds", long(facts.remaining_seconds)),
        ("leases_live", long(facts.leases_live.into())),
    ])
}

fn scope(request: &Request) -> Value {
    record([("audiences", texts(request.scope.audiences().into_iter().map(|audience| audience.as_str())))])
}

fn credential(facts: &CredentialFacts) -> Value {
    let permissions = facts.scope.permissions();
    let actions: BTreeSet<&str> = permissions
        .iter()
        .flat_map(|permission| permission.actions())
        .map(|action| action.as_str())
        .collect();
    record([
        ("profile", facts.profile.as_str().into()),
        ("lifetime_seconds", long(facts.lifetime_seconds)),
        ("actions", texts(actions)),
        ("resources", texts(permissions.iter().map(|permission| permission.resource().as_str()))),
    ])
}

fn sensitivity(value: Sensitivity) -> Value {
    record([("level", value.level().into()), ("name", value.as_str().into())])
}

fn prompt_origin(value: PromptOrigin) -> Value {
    record([("level", value.level().into()), ("name", value.as_str().into())])
}

fn time(now: Timestamp) -> Value {
    let civil = now.civil();
    record([
        ("unix_seconds", long(now.seconds())),
        ("weekday", long(civil.weekday.into())),
        ("hour", long(civil.hour.into())),
    ])
}

fn uid(entity_type: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(entity_type.clone(), EntityId::new(id))
}

fn entity<const N: usize>(uid: &EntityUid, attributes: [(&'static str, Value); N]) -> ast::Entity {
    let attributes = attributes.into_iter().map(|(name, value)| (name.into(), value.into()));
    ast::Entity::new_with_attr_partial_value(
        uid.clone().into(),
        attributes,
        HashSet::new(),
        HashSet::new(),
        [],
    )
}

fn record<const N: usize>(fields: [(&'static str, Value); N]) -> Value {
    Value::record(fields, None)
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Value {
    Value::set_of_lits(values.into_iter().map(Into::into), None)
}

/// Cedar's only number has a sign; what it can't hold is its largest.
fn long(value: u64) -> Value {
    i64::try_from(value).unwrap_or(i64::MAX).into()
}
