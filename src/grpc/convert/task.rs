//! Tasks on the wire.

use brevet_api::v1;
use brevet_core::fact::Outcome;
use brevet_core::name::{PurposeCode, TaskType};
use brevet_core::request::PromptOrigin;

use super::{
    Parsed, lifetime, page_size, page_token, permissions, prompt_origin, request_id, scope, sensitivity,
    spiffe_id, thumbprint, timestamp, wire_sensitivity,
};
use crate::broker::{DelegationAsk, Ended, Opened, Refusal, TaskAsk, TaskFilter, TaskView};

pub(in crate::grpc) fn task_ask(request: v1::CreateTaskRequest) -> Parsed<TaskAsk> {
    Ok(TaskAsk {
        request_id: request_id(&request.request_id)?,
        agent: spiffe_id("agent", &request.agent)?,
        task_type: TaskType::parse(&request.task_type)
            .map_err(|error| Refusal::invalid("task_type", error))?,
        purpose: PurposeCode::parse(&request.purpose).map_err(|error| Refusal::invalid("purpose", error))?,
        sensitivity_max: sensitivity(request.sensitivity_max)?,
        prompt_origin: prompt_origin(request.prompt_origin)?,
        scope: scope(&request.scope)?,
        lifetime: lifetime(request.lifetime)?,
        holder_key: thumbprint(request.holder_key_thumbprint.as_deref())?,
    })
}

pub(in crate::grpc) fn delegation_ask(request: &v1::DelegateTaskRequest) -> Parsed<DelegationAsk> {
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Ok(DelegationAsk {
        parent: super::task_name("parent", &request.parent)?,
        request_id: request_id(&request.request_id)?,
        agent: spiffe_id("agent", &request.agent)?,
        task_type: named(&request.task_type)
            .map(|text| TaskType::parse(&text).map_err(|error| Refusal::invalid("task_type", error)))
            .transpose()?,
        sensitivity_max: match v1::Sensitivity::try_from(request.sensitivity_max) {
            Ok(v1::Sensitivity::Unspecified) => None,
            _ => Some(sensitivity(request.sensitivity_max)?),
        },
        scope: scope(&request.scope)?,
        lifetime: lifetime(request.lifetime)?,
        holder_key: thumbprint(request.holder_key_thumbprint.as_deref())?,
        prompt_origin: prompt_origin(request.prompt_origin)?,
    })
}

pub(in crate::grpc) fn task_filter(
    request: &v1::ListTasksRequest,
    page_size_max: usize,
) -> Parsed<TaskFilter> {
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
    Ok(TaskFilter {
        agent: match request.agent.as_str() {
            "" => None,
            text => Some(spiffe_id("agent", text)?),
        },
        state,
        after: page_token(&request.page_token)?,
        limit: page_size(request.page_size, page_size_max)?,
    })
}

pub(in crate::grpc) fn page(views: &[TaskView], limit: usize) -> v1::ListTasksResponse {
    let id = |task: &v1::Task| task.name.trim_start_matches("tasks/").to_owned();
    let (tasks, next_page_token) = super::page(views.iter().map(task), limit, id);
    v1::ListTasksResponse { tasks, next_page_token }
}

pub(in crate::grpc) fn opened(opened: Opened) -> v1::CreateTaskResponse {
    v1::CreateTaskResponse { task: Some(task(&opened.task)), claim: opened.claim }
}

pub(in crate::grpc) fn delegated(opened: Opened) -> v1::DelegateTaskResponse {
    v1::DelegateTaskResponse { task: Some(task(&opened.task)), claim: opened.claim }
}

pub(in crate::grpc) fn complete(ended: &Ended) -> v1::CompleteTaskResponse {
    v1::CompleteTaskResponse {
        task: Some(task(&ended.task)),
        leases_ended: ended.leases_ended,
        revision: ended.task.revision.0,
    }
}

pub(in crate::grpc) fn fail(ended: &Ended) -> v1::FailTaskResponse {
    v1::FailTaskResponse {
        task: Some(task(&ended.task)),
        leases_ended: ended.leases_ended,
        revision: ended.task.revision.0,
    }
}

pub(in crate::grpc) fn cancel(ended: &Ended) -> v1::CancelTaskResponse {
    v1::CancelTaskResponse {
        task: Some(task(&ended.task)),
        leases_ended: ended.leases_ended,
        revision: ended.task.revision.0,
    }
}

pub(in crate::grpc) fn task(view: &TaskView) -> v1::Task {
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
        sensitivity_max: wire_sensitivity(opened.sensitivity_max).into(),
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
