//! Between the wire and the domain. A message becomes a value that cannot be wrong, or an error that names the field.

use std::collections::BTreeMap;
use std::time::Duration;

use brevet_api::v1;
use brevet_core::fact::{Outcome, ReasonCode};
use brevet_core::id::TaskId;
use brevet_core::name::{ActionName, ArgumentName, AudienceName, PurposeCode, RequestId, TaskType};
use brevet_core::request::{PromptOrigin, Sensitivity};
use brevet_core::scope::{Constraint, Permission, Scope, Value};
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::terms::{Content, Profile, Terms};
use brevet_core::time::Timestamp;
use prost::Message;

use crate::broker::{
    CredentialAsk, Ended, Introspection, Issued, Opened, Refusal, TaskAsk, TaskFilter, TaskView,
};

/// The most bytes of tasks on one page: a page fits an answer, and so does a page of one task of any size.
const PAGE_BYTES_MAX: usize = 128 * 1024;

type Parsed<T> = Result<T, Refusal>;

pub(super) fn task_name(name: &str) -> Parsed<TaskId> {
    TaskId::from_name(name).map_err(|error| Refusal::invalid("name", error))
}

pub(super) fn reason(text: &str, default: &'static str) -> Parsed<ReasonCode> {
    if text.is_empty() {
        return Ok(ReasonCode::of(default));
    }
    ReasonCode::parse(text).map_err(|error| Refusal::invalid("reason", error))
}

pub(super) fn task_ask(request: v1::CreateTaskRequest) -> Parsed<TaskAsk> {
    Ok(TaskAsk {
        request_id: request_id(&request.request_id)?,
        agent: spiffe_id("agent", &request.agent)?,
        task_type: TaskType::parse(&request.task_type)
            .map_err(|error| Refusal::invalid("task_type", error))?,
        purpose: PurposeCode::parse(&request.purpose).map_err(|error| Refusal::invalid("purpose", error))?,
        sensitivity_max: sensitivity(request.sensitivity_max)?,
        prompt_origin: prompt_origin(request.prompt_origin)?,
        scope: scope(request.scope)?,
        lifetime: lifetime(request.lifetime)?,
        holder_key: request
            .holder_key_thumbprint
            .map(|text| text.parse().map_err(|error| Refusal::invalid("holder_key_thumbprint", error)))
            .transpose()?,
    })
}

pub(super) fn credential_ask(request: &v1::IssueCredentialRequest) -> Parsed<CredentialAsk> {
    let audience =
        AudienceName::parse(&request.audience).map_err(|error| Refusal::invalid("audience", error))?;
    let scope = scope(request.scope.clone())?;
    if scope.is_empty() {
        return Err(Refusal::invalid("scope", "an empty scope permits nothing"));
    }
    if scope.audiences().into_iter().any(|named| *named != audience) {
        return Err(Refusal::invalid("scope", "a permission names another audience"));
    }
    Ok(CredentialAsk {
        task: TaskId::from_name(&request.task).map_err(|error| Refusal::invalid("task", error))?,
        request_id: request_id(&request.request_id)?,
        profile: match v1::Profile::try_from(request.profile) {
            Ok(v1::Profile::TaskToken) => Profile::TaskToken,
            Ok(v1::Profile::Unspecified) | Err(_) => {
                return Err(Refusal::invalid("profile", "not a known profile"));
            }
        },
        audience,
        scope,
        lifetime: lifetime(request.lifetime)?,
        bind_certificate: request.bind_certificate,
        prompt_origin: prompt_origin(request.prompt_origin)?,
    })
}

pub(super) fn task_filter(request: &v1::ListTasksRequest, page_size_max: usize) -> Parsed<TaskFilter> {
    let state = match v1::task::State::try_from(request.state) {
        Ok(v1::task::State::Unspecified) => None,
        Ok(v1::task::State::Active) => Some(None),
        Ok(v1::task::State::Completed) => Some(Some(Outcome::Completed)),
        Ok(v1::task::State::Failed) => Some(Some(Outcome::Failed)),
        Ok(v1::task::State::Cancelled) => Some(Some(Outcome::Cancelled)),
        Ok(v1::task::State::Revoked) => Some(Some(Outcome::Revoked)),
        Ok(v1::task::State::Expired) => Some(Some(Outcome::Expired)),
        Err(_) => return Err(Refusal::invalid("state", "not a known state")),
    };
    let page_size = usize::try_from(request.page_size)
        .map_err(|_| Refusal::invalid("page_size", "must not be negative"))?;
    Ok(TaskFilter {
        agent: match request.agent.as_str() {
            "" => None,
            text => Some(spiffe_id("agent", text)?),
        },
        state,
        after: match request.page_token.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| Refusal::invalid("page_token", "not one of this list's"))?),
        },
        limit: if page_size == 0 { page_size_max } else { page_size.min(page_size_max) },
    })
}

/// One page: as many tasks as were asked for and fit an answer. A page that is not the last one says where the next
/// begins.
pub(super) fn page(views: &[TaskView], limit: usize) -> v1::ListTasksResponse {
    let mut page = v1::ListTasksResponse::default();
    let mut bytes: usize = 0;
    for view in views {
        let task = task(view);
        bytes = bytes.saturating_add(task.encoded_len());
        if bytes > PAGE_BYTES_MAX && !page.tasks.is_empty() {
            break;
        }
        page.tasks.push(task);
    }
    if page.tasks.len() < views.len() || views.len() == limit {
        page.next_page_token = views
            .get(page.tasks.len().saturating_sub(1))
            .map(|last| last.opened.id.to_string())
            .unwrap_or_default();
    }
    page
}

pub(super) fn opened(opened: Opened) -> v1::CreateTaskResponse {
    v1::CreateTaskResponse { task: Some(task(&opened.task)), claim: opened.claim }
}

pub(super) fn complete(ended: &Ended) -> v1::CompleteTaskResponse {
    v1::CompleteTaskResponse {
        task: Some(task(&ended.task)),
        leases_ended: ended.leases_ended,
        revision: ended.task.revision.0,
    }
}

pub(super) fn fail(ended: &Ended) -> v1::FailTaskResponse {
    v1::FailTaskResponse {
        task: Some(task(&ended.task)),
        leases_ended: ended.leases_ended,
        revision: ended.task.revision.0,
    }
}

pub(super) fn cancel(ended: &Ended) -> v1::CancelTaskResponse {
    v1::CancelTaskResponse {
        task: Some(task(&ended.task)),
        leases_ended: ended.leases_ended,
        revision: ended.task.revision.0,
    }
}

pub(super) fn task(view: &TaskView) -> v1::Task {
    let opened = &view.opened;
    let state = match view.ending.as_ref().map(|ending| ending.outcome) {
        None => v1::task::State::Active,
        Some(Outcome::Completed) => v1::task::State::Completed,
        Some(Outcome::Failed) => v1::task::State::Failed,
        Some(Outcome::Cancelled) => v1::task::State::Cancelled,
        Some(Outcome::Revoked) => v1::task::State::Revoked,
        Some(Outcome::Expired) => v1::task::State::Expired,
    };
    v1::Task {
        name: opened.id.name(),
        tenant: view.tenant.to_string(),
        parent: view.parent.map(|parent| parent.name()).unwrap_or_default(),
        agent: opened.agent.to_string(),
        delegator: opened.delegator.to_string(),
        opener: opened.opener.to_string(),
        task_type: opened.task_type.to_string(),
        purpose: opened.purpose.to_string(),
        sensitivity_max: match opened.sensitivity_max {
            Sensitivity::Low => v1::Sensitivity::Low,
            Sensitivity::Moderate => v1::Sensitivity::Moderate,
            Sensitivity::High => v1::Sensitivity::High,
            Sensitivity::Critical => v1::Sensitivity::Critical,
        }
        .into(),
        prompt_origin: match opened.prompt_origin {
            None => v1::PromptOrigin::Unspecified,
            Some(PromptOrigin::System) => v1::PromptOrigin::System,
            Some(PromptOrigin::User) => v1::PromptOrigin::User,
            Some(PromptOrigin::Retrieved) => v1::PromptOrigin::Retrieved,
            Some(PromptOrigin::ToolOutput) => v1::PromptOrigin::ToolOutput,
            Some(PromptOrigin::Untrusted) => v1::PromptOrigin::Untrusted,
        }
        .into(),
        scope: permissions(&opened.scope),
        create_time: Some(timestamp(opened.opened_at)),
        deadline: Some(timestamp(opened.deadline)),
        state: state.into(),
        end_time: view.ending.as_ref().map(|ending| timestamp(ending.at)),
        end_reason: view.ending.as_ref().map(|ending| ending.reason.as_str().to_owned()).unwrap_or_default(),
        live_leases: view.leases_live,
        revision: view.revision.0,
    }
}

pub(super) fn issued(Issued(credential): Issued) -> v1::IssueCredentialResponse {
    let recorded = credential.recorded();
    let terms = recorded.terms();
    let Content::TaskToken(token) = &terms.content;
    let answer = v1::Credential {
        lease: terms.id.to_string(),
        profile: v1::Profile::TaskToken.into(),
        token: credential.as_str().to_owned(),
        audience: token.audience.to_string(),
        scope: permissions(&token.scope),
        issue_time: Some(timestamp(terms.issued_at)),
        expire_time: Some(timestamp(terms.end)),
        revision: recorded.revision().0,
    };
    v1::IssueCredentialResponse { credential: Some(answer) }
}

pub(super) fn introspection(introspection: &Introspection) -> v1::IntrospectCredentialResponse {
    let revision = introspection.revision.0;
    match &introspection.active {
        None => v1::IntrospectCredentialResponse { active: false, revision, ..Default::default() },
        Some((terms, issued_at)) => active(terms, revision.max(issued_at.0)),
    }
}

fn active(terms: &Terms, revision: u64) -> v1::IntrospectCredentialResponse {
    let Content::TaskToken(token) = &terms.content;
    v1::IntrospectCredentialResponse {
        active: true,
        revision,
        lease: terms.id.to_string(),
        task: terms.id.task.name(),
        agent: token.actors.first().map(ToString::to_string).unwrap_or_default(),
        audience: token.audience.to_string(),
        scope: permissions(&token.scope),
        expire_time: Some(timestamp(terms.end)),
        holder_key_thumbprint: terms.holder.to_string(),
    }
}

fn request_id(text: &str) -> Parsed<RequestId> {
    RequestId::parse(text).map_err(|error| Refusal::invalid("request_id", error))
}

fn spiffe_id(field: &str, text: &str) -> Parsed<SpiffeId> {
    text.parse().map_err(|error| Refusal::invalid(field, error))
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

fn scope(permissions: Vec<v1::Permission>) -> Parsed<Scope> {
    let permissions = permissions.into_iter().map(permission).collect::<Parsed<Vec<_>>>()?;
    Scope::new(permissions).map_err(|error| Refusal::invalid("scope", error))
}

fn permission(wire: v1::Permission) -> Parsed<Permission> {
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
        .into_iter()
        .map(|(argument, wire)| {
            let argument = ArgumentName::parse(&argument)
                .map_err(|error| Refusal::invalid("scope.constraints", error))?;
            Ok((argument, constraint(wire)?))
        })
        .collect::<Parsed<BTreeMap<_, _>>>()?;
    Permission::new(audience, resource, actions, constraints)
        .map_err(|error| Refusal::invalid("scope", error))
}

fn constraint(wire: v1::Constraint) -> Parsed<Constraint> {
    let unset = || Refusal::invalid("scope.constraints", "a constraint or value is not set");
    Ok(match wire.kind.ok_or_else(unset)? {
        v1::constraint::Kind::OneOf(set) => {
            let values = set.values.into_iter().map(|value| match value.kind {
                Some(v1::value::Kind::Text(text)) => Ok(Value::Text(text)),
                Some(v1::value::Kind::Integer(integer)) => Ok(Value::Integer(integer)),
                None => Err(unset()),
            });
            Constraint::OneOf(values.collect::<Parsed<_>>()?)
        }
        v1::constraint::Kind::Between(range) => Constraint::Between { min: range.min, max: range.max },
        v1::constraint::Kind::Prefix(prefix) => Constraint::Prefix(prefix),
    })
}

fn permissions(scope: &Scope) -> Vec<v1::Permission> {
    let wire = |permission: &Permission| v1::Permission {
        audience: permission.audience().to_string(),
        resource: permission.resource().to_string(),
        actions: permission.actions().iter().map(ToString::to_string).collect(),
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
