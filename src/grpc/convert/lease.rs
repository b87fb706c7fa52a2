//! Leases on the wire.

use brevet_api::v1;
use brevet_api::v1::lease::State;
use brevet_core::fact::LeaseOutcome;
use brevet_core::id::LeaseId;

use super::credential::profile;
use super::{Parsed, page_size, page_token, permissions, selector, timestamp};
use crate::broker::{LeaseFilter, LeaseView, Refusal, Revoked};

pub(in crate::grpc) fn lease_filter(
    request: v1::ListLeasesRequest,
    page_size_max: usize,
) -> Parsed<LeaseFilter> {
    let state = match State::try_from(request.state) {
        Ok(State::Unspecified) => None,
        Ok(State::Active) => Some(None),
        Ok(State::Expired) => Some(Some(LeaseOutcome::Expired)),
        Ok(State::Revoked) => Some(Some(LeaseOutcome::Revoked)),
        Ok(State::Undelivered) => Some(Some(LeaseOutcome::Undelivered)),
        Err(_) => return Err(Refusal::invalid("state", "not a known state")),
    };
    Ok(LeaseFilter {
        state,
        selector: request.selector.map(selector).transpose()?,
        after: page_token(&request.page_token)?,
        limit: page_size(request.page_size, page_size_max)?,
    })
}

pub(in crate::grpc) fn page(views: &[LeaseView], limit: usize) -> v1::ListLeasesResponse {
    let (leases, next_page_token) =
        super::page(views.iter().map(lease), limit, |lease: &v1::Lease| lease.name.clone());
    v1::ListLeasesResponse { leases, next_page_token }
}

pub(in crate::grpc) fn lease(view: &LeaseView) -> v1::Lease {
    let terms = &view.terms;
    let state = match view.ending.as_ref().map(|ending| ending.outcome) {
        None => State::Active,
        Some(LeaseOutcome::Expired) => State::Expired,
        Some(LeaseOutcome::Revoked) => State::Revoked,
        Some(LeaseOutcome::Undelivered) => State::Undelivered,
    };
    let renews = view.renews.map(|key| LeaseId { task: terms.id.task, key }.to_string());
    v1::Lease {
        name: terms.id.to_string(),
        agent: view.agent.to_string(),
        profile: profile(terms.profile()).into(),
        audience: terms.audience().map(ToString::to_string).unwrap_or_default(),
        scope: terms.scope().map(permissions).unwrap_or_default(),
        holder_key_thumbprint: terms.holder.to_string(),
        issue_time: Some(timestamp(terms.issued_at)),
        expire_time: Some(timestamp(terms.end)),
        state: state.into(),
        end_time: view.ending.as_ref().map(|ending| timestamp(ending.at)),
        end_reason: view.ending.as_ref().map(|ending| ending.reason.as_str().to_owned()).unwrap_or_default(),
        renews: renews.unwrap_or_default(),
        key_id: terms.key_id.to_string(),
        policy: terms.policy.to_string(),
        issue_revision: view.issued.0,
        revision: view.revision.0,
    }
}

pub(in crate::grpc) fn revoked(revoked: &Revoked) -> v1::RevokeLeasesResponse {
    v1::RevokeLeasesResponse {
        leases_ended: revoked.count,
        leases: revoked.first.iter().map(ToString::to_string).collect(),
        revision: revoked.revision.0,
    }
}
