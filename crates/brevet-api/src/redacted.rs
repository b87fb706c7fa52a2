//! `Debug` of the messages that carry a secret: they show that it is there, and nothing of it.

use std::fmt;

use crate::v1::{
    CreateTaskResponse, Credential, DelegateTaskRequest, DelegateTaskResponse, IntrospectCredentialRequest,
    IssueCredentialRequest, RenewCredentialRequest, ReturnCredentialRequest,
};

/// Stands for a secret.
struct Redacted;

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

const fn present(secret: Option<&String>) -> Option<Redacted> {
    if secret.is_some() { Some(Redacted) } else { None }
}

// Each message is taken apart in full, so that a new field must be shown or redacted before this compiles.

impl fmt::Debug for CreateTaskResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, claim } = self;
        f.debug_struct("CreateTaskResponse")
            .field("task", task)
            .field("claim", &present(claim.as_ref()))
            .finish()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lease,
            profile: _,
            token: _,
            audience,
            scope,
            issue_time,
            expire_time,
            revision,
            certificate_chain,
            spiffe_id,
        } = self;
        f.debug_struct("Credential")
            .field("lease", lease)
            .field("profile", &self.profile())
            .field("token", &Redacted)
            .field("audience", audience)
            .field("scope", scope)
            .field("issue_time", issue_time)
            .field("expire_time", expire_time)
            .field("revision", revision)
            .field("certificates", &certificate_chain.len())
            .field("spiffe_id", spiffe_id)
            .finish()
    }
}

impl fmt::Debug for IssueCredentialRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            task,
            request_id,
            profile: _,
            audience,
            scope,
            lifetime,
            claim,
            dpop_proof,
            bind_certificate,
            prompt_origin: _,
            csr,
        } = self;
        f.debug_struct("IssueCredentialRequest")
            .field("task", task)
            .field("request_id", request_id)
            .field("profile", &self.profile())
            .field("audience", audience)
            .field("scope", scope)
            .field("lifetime", lifetime)
            .field("claim", &present(claim.as_ref()))
            .field("dpop_proof", &present(dpop_proof.as_ref()))
            .field("bind_certificate", bind_certificate)
            .field("prompt_origin", &self.prompt_origin())
            .field("csr_bytes", &csr.as_ref().map(Vec::len))
            .finish()
    }
}

impl fmt::Debug for IntrospectCredentialRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, min_revision } = self;
        f.debug_struct("IntrospectCredentialRequest")
            .field("token", &Redacted)
            .field("min_revision", min_revision)
            .finish()
    }
}

impl fmt::Debug for RenewCredentialRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lease, request_id, scope, lifetime, dpop_proof, bind_certificate, prompt_origin: _ } =
            self;
        f.debug_struct("RenewCredentialRequest")
            .field("lease", lease)
            .field("request_id", request_id)
            .field("scope", scope)
            .field("lifetime", lifetime)
            .field("dpop_proof", &present(dpop_proof.as_ref()))
            .field("bind_certificate", bind_certificate)
            .field("prompt_origin", &self.prompt_origin())
            .finish()
    }
}

impl fmt::Debug for ReturnCredentialRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lease, dpop_proof } = self;
        f.debug_struct("ReturnCredentialRequest")
            .field("lease", lease)
            .field("dpop_proof", &present(dpop_proof.as_ref()))
            .finish()
    }
}

impl fmt::Debug for DelegateTaskRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parent,
            request_id,
            agent,
            task_type,
            sensitivity_max: _,
            scope,
            lifetime,
            holder_key_thumbprint,
            dpop_proof,
            prompt_origin: _,
        } = self;
        f.debug_struct("DelegateTaskRequest")
            .field("parent", parent)
            .field("request_id", request_id)
            .field("agent", agent)
            .field("task_type", task_type)
            .field("sensitivity_max", &self.sensitivity_max())
            .field("scope", scope)
            .field("lifetime", lifetime)
            .field("holder_key_thumbprint", holder_key_thumbprint)
            .field("dpop_proof", &present(dpop_proof.as_ref()))
            .field("prompt_origin", &self.prompt_origin())
            .finish()
    }
}

impl fmt::Debug for DelegateTaskResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, claim } = self;
        f.debug_struct("DelegateTaskResponse")
            .field("task", task)
            .field("claim", &present(claim.as_ref()))
            .finish()
    }
}
