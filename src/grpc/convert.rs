//! Between the wire and the domain. A message becomes a value that cannot be wrong, or an error that names the field.

pub(super) mod audit;
pub(super) mod credential;
pub(super) mod lease;
pub(super) mod lock;
pub(super) mod revocation;
pub(super) mod task;

use std::collections::BTreeMap;
use std::time::Duration;

use brevet_api::v1;
use brevet_core::digest::{PolicyDigest, Thumbprint};
use brevet_core::fact::ReasonCode;
use brevet_core::id::{LeaseId, LockId, TaskId};
use brevet_core::lock::Selector;
use brevet_core::name::{ActionName, ArgumentName, AudienceName, KeyId, RequestId};
use brevet_core::request::{PromptOrigin, Sensitivity};
use brevet_core::scope::{Constraint, Permission, Scope, Value};
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::time::Timestamp;
use prost::Message;

use crate::broker::Refusal;

type Parsed<T> = Result<T, Refusal>;

pub(super) fn task_name(field: &str, name: &str) -> Parsed<TaskId> {
    TaskId::from_name(name).map_err(|error| Refusal::invalid(field, error))
}

pub(super) fn lease_name(field: &str, name: &str) -> Parsed<LeaseId> {
    name.parse().map_err(|error| Refusal::invalid(field, error))
}

pub(super) fn reason(text: &str, default: &'static str) -> Parsed<ReasonCode> {
    if text.is_empty() {
        return Ok(ReasonCode::of(default));
    }
    ReasonCode::parse(text).map_err(|error| Refusal::invalid("reason", error))
}

pub(super) fn lock_name(field: &str, name: &str) -> Parsed<LockId> {
    LockId::from_name(name).map_err(|error| Refusal::invalid(field, error))
}

fn request_id(text: &str) -> Parsed<RequestId> {
    RequestId::parse(text).map_err(|error| Refusal::invalid("request_id", error))
}

fn spiffe_id(field: &str, text: &str) -> Parsed<SpiffeId> {
    text.parse().map_err(|error| Refusal::invalid(field, error))
}

fn thumbprint(text: Option<&str>) -> Parsed<Option<Thumbprint>> {
    text.map(|text| text.parse().map_err(|error| Refusal::invalid("holder_key_thumbprint", error)))
        .transpose()
}

fn sensitivity(value: i32) -> Parsed<Sensitivity> {
    match v1::Sensitivity::try_from(value) {
        Ok(v1::Sensitivity::Low) => Ok(Sensitivity::Low),
        Ok(v1::Sensitivity::Moderate) => Ok(Sensitivity::Moderate),
        Ok(v1::Sensitivity::High) => Ok(Sensitivity::High),
        Ok(v1::Sensitivity::Critical) => Ok(Sensitivity::Critical),
        Ok(v1::Sensitivity::Unspecified) | Err(_) => {
            Err(Refusal::invalid("sensitivity_max", "not a known sensitivity"))
        }
    }
}

const fn wire_sensitivity(value: Sensitivity) -> v1::Sensitivity {
    match value {
        Sensitivity::Low => v1::Sensitivity::Low,
        Sensitivity::Moderate => v1::Sensitivity::Moderate,
        Sensitivity::High => v1::Sensitivity::High,
        Sensitivity::Critical => v1::Sensitivity::Critical,
    }
}

fn prompt_origin(value: i32) -> Parsed<Option<PromptOrigin>> {
    match v1::PromptOrigin::try_from(value) {
        Ok(v1::PromptOrigin::Unspecified) => Ok(None),
        Ok(v1::PromptOrigin::System) => Ok(Some(PromptOrigin::System)),
        Ok(v1::PromptOrigin::User) => Ok(Some(PromptOrigin::User)),
        Ok(v1::PromptOrigin::Retrieved) => Ok(Some(PromptOrigin::Retrieved)),
        Ok(v1::PromptOrigin::ToolOutput) => Ok(Some(PromptOrigin::ToolOutput)),
        Ok(v1::PromptOrigin::Untrusted) => Ok(Some(PromptOrigin::Untrusted)),
        Err(_) => Err(Refusal::invalid("prompt_origin", "not a known origin")),
    }
}

/// What an operator means to stop.
pub(super) fn selector(wire: v1::Selector) -> Parsed<Selector> {
    use v1::selector::Kind;
    let invalid = |field: &str, error: &dyn std::fmt::Display| Refusal::invalid(field, error);
    let kind = wire.kind.ok_or_else(|| Refusal::invalid("selector", "is required"))?;
    Ok(match kind {
        Kind::Task(name) => Selector::Task(task_name("selector.task", &name)?),
        Kind::Agent(id) => Selector::Agent(spiffe_id("selector.agent", &id)?),
        Kind::PathPrefix(id) => Selector::PathPrefix(spiffe_id("selector.path_prefix", &id)?),
        Kind::Delegator(id) => Selector::Delegator(spiffe_id("selector.delegator", &id)?),
        Kind::Tool(name) => {
            Selector::Tool(ActionName::parse(&name).map_err(|error| invalid("selector.tool", &error))?)
        }
        Kind::Resource(v1::selector::Resource { audience, resource }) => Selector::Resource {
            audience: AudienceName::parse(&audience)
                .map_err(|error| invalid("selector.resource.audience", &error))?,
            resource: resource.parse().map_err(|error| invalid("selector.resource.resource", &error))?,
        },
        Kind::Audience(name) => Selector::Audience(
            AudienceName::parse(&name).map_err(|error| invalid("selector.audience", &error))?,
        ),
        Kind::TrustDomain(name) => Selector::TrustDomain(
            name.parse::<TrustDomain>().map_err(|error| invalid("selector.trust_domain", &error))?,
        ),
        Kind::Key(id) => Selector::Key(KeyId::parse(&id).map_err(|error| invalid("selector.key", &error))?),
        Kind::Policy(digest) => Selector::Policy(
            digest.parse::<PolicyDigest>().map_err(|error| invalid("selector.policy", &error))?,
        ),
        Kind::Everything(true) => Selector::Everything,
        Kind::Everything(false) => return Err(Refusal::invalid("selector.everything", "must be true")),
    })
}

pub(super) fn wire_selector(selector: &Selector) -> v1::Selector {
    use v1::selector::Kind;
    let kind = match selector {
        Selector::Task(task) => Kind::Task(task.name()),
        Selector::Agent(id) => Kind::Agent(id.to_string()),
        Selector::PathPrefix(id) => Kind::PathPrefix(id.to_string()),
        Selector::Delegator(id) => Kind::Delegator(id.to_string()),
        Selector::Tool(name) => Kind::Tool(name.to_string()),
        Selector::Resource { audience, resource } => Kind::Resource(v1::selector::Resource {
            audience: audience.to_string(),
            resource: resource.to_string(),
        }),
        Selector::Audience(name) => Kind::Audience(name.to_string()),
        Selector::TrustDomain(domain) => Kind::TrustDomain(domain.to_string()),
        Selector::Key(id) => Kind::Key(id.to_string()),
        Selector::Policy(digest) => Kind::Policy(digest.to_string()),
        Selector::Everything => Kind::Everything(true),
    };
    v1::Selector { kind: Some(kind) }
}

/// How much goes on a page: as much as is asked for, and no more than any page may have.
fn page_size(asked: i32, max: usize) -> Parsed<usize> {
    match usize::try_from(asked).map_err(|_| Refusal::invalid("page_size", "must not be negative"))? {
        0 => Ok(max),
        asked => Ok(asked.min(max)),
    }
}

/// Behind what a page begins.
fn page_token<T: std::str::FromStr>(text: &str) -> Parsed<Option<T>> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Refusal::invalid("page_token", "not one of this list's")),
    }
}

/// The most bytes of anything on one page: a page fits an answer, and so does a page of one thing of any size.
const PAGE_BYTES_MAX: usize = 128 * 1024;

/// One page: as much as was asked for and fits an answer. If it is not the last one, where the next begins is said by
/// its last.
fn page<T: Message>(
    all: impl ExactSizeIterator<Item = T>,
    limit: usize,
    token: impl Fn(&T) -> String,
) -> (Vec<T>, String) {
    let found = all.len();
    let mut page: Vec<T> = Vec::with_capacity(found);
    let mut bytes: usize = 0;
    for it in all {
        bytes = bytes.saturating_add(it.encoded_len());
        if bytes > PAGE_BYTES_MAX && !page.is_empty() {
            break;
        }
        page.push(it);
    }
    let is_last = page.len() == found && found < limit;
    let next = page.last().filter(|_| !is_last).map(token);
    (page, next.unwrap_or_default())
}

/// A life of whole seconds, at least one: a credential ends on a whole one.
fn lifetime(duration: Option<prost_types::Duration>) -> Parsed<Option<Duration>> {
    let Some(duration) = duration else { return Ok(None) };
    let invalid = || Refusal::invalid("lifetime", "must be a whole number of seconds, at least one");
    let seconds = u64::try_from(duration.seconds).map_err(|_| invalid())?;
    if seconds == 0 || duration.nanos != 0 {
        return Err(invalid());
    }
    Ok(Some(Duration::from_secs(seconds)))
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(time.seconds()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.millis() % 1_000 * 1_000_000).unwrap_or(0),
    }
}

fn scope(permissions: &[v1::Permission]) -> Parsed<Scope> {
    let permissions = permissions.iter().map(permission).collect::<Parsed<Vec<_>>>()?;
    Scope::new(permissions).map_err(|error| Refusal::invalid("scope", error))
}

fn permission(wire: &v1::Permission) -> Parsed<Permission> {
    let audience =
        AudienceName::parse(&wire.audience).map_err(|error| Refusal::invalid("scope.audience", error))?;
    let resource = wire.resource.parse().map_err(|error| Refusal::invalid("scope.resource", error))?;
    let actions = wire
        .actions
        .iter()
        .map(|action| ActionName::parse(action).map_err(|error| Refusal::invalid("scope.actions", error)))
        .collect::<Parsed<_>>()?;
    let constraints = wire
        .constraints
        .iter()
        .map(|(argument, wire)| {
            let argument = ArgumentName::parse(argument)
                .map_err(|error| Refusal::invalid("scope.constraints", error))?;
            Ok((argument, constraint(wire)?))
        })
        .collect::<Parsed<BTreeMap<_, _>>>()?;
    Permission::new(audience, resource, actions, constraints)
        .map_err(|error| Refusal::invalid("scope", error))
}

fn constraint(wire: &v1::Constraint) -> Parsed<Constraint> {
    let unset = || Refusal::invalid("scope.constraints", "a constraint or value is not set");
    Ok(match wire.kind.as_ref().ok_or_else(unset)? {
        v1::constraint::Kind::OneOf(set) => {
            let values = set.values.iter().map(|value| match &value.kind {
                Some(v1::value::Kind::Text(text)) => Ok(Value::Text(text.clone())),
                Some(v1::value::Kind::Integer(integer)) => Ok(Value::Integer(*integer)),
                None => Err(unset()),
            });
            Constraint::OneOf(values.collect::<Parsed<_>>()?)
        }
        v1::constraint::Kind::Between(range) => Constraint::Between { min: range.min, max: range.max },
        v1::constraint::Kind::Prefix(prefix) => Constraint::Prefix(prefix.clone()),
    })
}

fn permissions(scope: &Scope) -> Vec<v1::Permission> {
    let wire = |permission: &Permission| v1::Permission {
        audience: permission.audience().as_str().to_owned(),
        resource: permission.resource().as_str().to_owned(),
        actions: permission.actions().iter().map(|action| action.as_str().to_owned()).collect(),
        constraints: permission
            .constraints()
            .iter()
            .map(|(argument, constraint)| (argument.to_string(), wire_constraint(constraint)))
            .collect(),
    };
    scope.permissions().iter().map(wire).collect()
}

fn wire_constraint(constraint: &Constraint) -> v1::Constraint {
    let value = |value: &Value| v1::Value {
        kind: Some(match value {
            Value::Text(text) => v1::value::Kind::Text(text.clone()),
            Value::Integer(integer) => v1::value::Kind::Integer(*integer),
        }),
    };
    let kind = match constraint {
        Constraint::OneOf(set) => {
            v1::constraint::Kind::OneOf(v1::constraint::OneOf { values: set.iter().map(value).collect() })
        }
        Constraint::Between { min, max } => {
            v1::constraint::Kind::Between(v1::constraint::Between { min: *min, max: *max })
        }
        Constraint::Prefix(prefix) => v1::constraint::Kind::Prefix(prefix.clone()),
    };
    v1::Constraint { kind: Some(kind) }
}
