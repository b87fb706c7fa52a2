//! Credentials on the wire.

use brevet_api::v1;
use brevet_core::id::{LeaseId, TaskId};
use brevet_core::name::AudienceName;
use brevet_core::task_svid::TaskSvidId;
use brevet_core::terms::{Content, Profile, Terms};
use brevet_identity::csr::ProvenKey;
use brevet_mint::signer::Product;

use super::{Parsed, lease_name, lifetime, permissions, prompt_origin, request_id, scope, timestamp};
use crate::broker::{CredentialAsk, Introspection, Issued, Refusal, Wanted};

/// What IssueCredential asks for. The key of a certification request has been read from it before.
pub(in crate::grpc) fn credential_ask(
    request: &v1::IssueCredentialRequest,
    requested: Option<&ProvenKey>,
) -> Parsed<CredentialAsk> {
    let wanted = match (v1::Profile::try_from(request.profile), requested) {
        (Ok(v1::Profile::TaskToken), None) => task_token(request)?,
        (Ok(v1::Profile::TaskToken), Some(_)) => {
            return Err(Refusal::invalid("csr", "a task token has none"));
        }
        (Ok(v1::Profile::X509Svid), Some(key)) => {
            if !request.audience.is_empty() || !request.scope.is_empty() || request.bind_certificate {
                return Err(Refusal::invalid(
                    "profile",
                    "an X.509-SVID has no audience, scope or certificate",
                ));
            }
            Wanted::X509Svid {
                public_key: key.public_key().clone(),
                ignored_attributes: key.ignored_attributes(),
            }
        }
        (Ok(v1::Profile::JwtSvid), None) => jwt_svid(request)?,
        (Ok(v1::Profile::JwtSvid), Some(_)) => {
            return Err(Refusal::invalid("csr", "a JWT-SVID has none"));
        }
        (Ok(v1::Profile::X509Svid), None) => return Err(Refusal::invalid("csr", "is required")),
        (Ok(v1::Profile::Unspecified) | Err(_), _) => {
            return Err(Refusal::invalid("profile", "not a known profile"));
        }
    };
    Ok(CredentialAsk {
        task: TaskId::from_name(&request.task).map_err(|error| Refusal::invalid("task", error))?,
        request_id: request_id(&request.request_id)?,
        wanted,
        lifetime: lifetime(request.lifetime)?,
        bind_certificate: request.bind_certificate,
        prompt_origin: prompt_origin(request.prompt_origin)?,
    })
}

fn task_token(request: &v1::IssueCredentialRequest) -> Parsed<Wanted> {
    let audience =
        AudienceName::parse(&request.audience).map_err(|error| Refusal::invalid("audience", error))?;
    let scope = scope(&request.scope)?;
    if scope.is_empty() {
        return Err(Refusal::invalid("scope", "an empty scope permits nothing"));
    }
    if scope.audiences().into_iter().any(|named| *named != audience) {
        return Err(Refusal::invalid("scope", "a permission names another audience"));
    }
    Ok(Wanted::TaskToken { audience, scope })
}

fn jwt_svid(request: &v1::IssueCredentialRequest) -> Parsed<Wanted> {
    let audience =
        AudienceName::parse(&request.audience).map_err(|error| Refusal::invalid("audience", error))?;
    if !request.scope.is_empty() {
        return Err(Refusal::invalid("scope", "a JWT-SVID has none"));
    }
    Ok(Wanted::JwtSvid { audience })
}

pub(in crate::grpc) fn renewal_ask(request: &v1::RenewCredentialRequest) -> Parsed<CredentialAsk> {
    let LeaseId { task, key } = lease_name("lease", &request.lease)?;
    let scope = scope(&request.scope)?;
    Ok(CredentialAsk {
        task,
        request_id: request_id(&request.request_id)?,
        wanted: Wanted::Renewal { of: key, scope: (!scope.is_empty()).then_some(scope) },
        lifetime: lifetime(request.lifetime)?,
        bind_certificate: request.bind_certificate,
        prompt_origin: prompt_origin(request.prompt_origin)?,
    })
}

pub(in crate::grpc) fn credential(Issued(credential): Issued) -> v1::Credential {
    let recorded = credential.recorded();
    let terms = recorded.terms();
    let mut wire = v1::Credential {
        lease: terms.id.to_string(),
        profile: profile(terms.profile()).into(),
        audience: terms.audience().map(|audience| audience.as_str().to_owned()).unwrap_or_default(),
        scope: terms.scope().map(permissions).unwrap_or_default(),
        issue_time: Some(timestamp(terms.issued_at)),
        expire_time: Some(timestamp(terms.end)),
        revision: recorded.revision().0,
        ..v1::Credential::default()
    };
    wire.spiffe_id = match &terms.content {
        Content::TaskToken(_) => String::new(),
        Content::X509Svid(svid) => svid.spiffe_id.to_string(),
        Content::JwtSvid(svid) => svid.spiffe_id.to_string(),
    };
    match credential.into_product() {
        // It is moved out, so that there is one of it.
        Product::TaskToken(mut token) | Product::JwtSvid(mut token) => {
            wire.token = std::mem::take(&mut *token)
        }
        Product::X509Svid(chain) => wire.certificate_chain = chain,
    }
    wire
}

pub(in crate::grpc) const fn profile(profile: Profile) -> v1::Profile {
    match profile {
        Profile::TaskToken => v1::Profile::TaskToken,
        Profile::X509Svid => v1::Profile::X509Svid,
        Profile::JwtSvid => v1::Profile::JwtSvid,
    }
}

pub(in crate::grpc) fn introspection(introspection: &Introspection) -> v1::IntrospectCredentialResponse {
    let revision = introspection.revision.0;
    match &introspection.active {
        None => v1::IntrospectCredentialResponse { active: false, revision, ..Default::default() },
        Some((terms, issued_at)) => active(terms, revision.max(issued_at.0)),
    }
}

fn active(terms: &Terms, revision: u64) -> v1::IntrospectCredentialResponse {
    let agent = match &terms.content {
        Content::TaskToken(token) => token.actors.first().map(ToString::to_string).unwrap_or_default(),
        Content::JwtSvid(svid) => TaskSvidId::parse(&svid.spiffe_id, &svid.spiffe_id.trust_domain())
            .map(|named| named.agent().to_string())
            .unwrap_or_default(),
        Content::X509Svid(_) => String::new(),
    };
    v1::IntrospectCredentialResponse {
        active: true,
        revision,
        lease: terms.id.to_string(),
        task: terms.id.task.name(),
        agent,
        audience: terms.audience().map(ToString::to_string).unwrap_or_default(),
        scope: terms.scope().map(permissions).unwrap_or_default(),
        expire_time: Some(timestamp(terms.end)),
        holder_key_thumbprint: terms.holder.to_string(),
    }
}
