//! What is asked of the daemon, the same by whoever measures.

use brevet_api::v1;

use crate::world;

/// A task of the agent's, whose credentials are its holder's.
pub(crate) fn task(request_id: String, holder: &str) -> v1::CreateTaskRequest {
    v1::CreateTaskRequest {
        request_id,
        agent: world::AGENT_ID.to_owned(),
        task_type: "summarise".to_owned(),
        purpose: "measuring".to_owned(),
        sensitivity_max: v1::Sensitivity::Moderate.into(),
        prompt_origin: v1::PromptOrigin::User.into(),
        scope: vec![permission("reports/**")],
        holder_key_thumbprint: Some(holder.to_owned()),
        ..v1::CreateTaskRequest::default()
    }
}

/// A task token for one resource.
pub(crate) fn token(task: String, request_id: String, resource: &str) -> v1::IssueCredentialRequest {
    v1::IssueCredentialRequest {
        task,
        request_id,
        profile: v1::Profile::TaskToken.into(),
        audience: world::AUDIENCE.to_owned(),
        scope: vec![permission(resource)],
        ..v1::IssueCredentialRequest::default()
    }
}

fn permission(resource: &str) -> v1::Permission {
    v1::Permission {
        audience: world::AUDIENCE.to_owned(),
        resource: resource.to_owned(),
        actions: vec!["read".to_owned()],
        ..v1::Permission::default()
    }
}

/// One of many, in turn.
pub(crate) fn turn<T>(of: &[T], number: u64) -> Option<&T> {
    let length = u64::try_from(of.len()).ok()?;
    of.get(usize::try_from(number.checked_rem(length)?).ok()?)
}
