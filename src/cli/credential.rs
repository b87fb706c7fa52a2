//! `brevet credential`: what an agent is issued for its task, and whether it lives.

use std::path::PathBuf;
use std::time::Duration;

use brevet_api::v1;
use brevet_client::dpop::{HolderKey, Proof, prove};
use brevet_core::id::TaskId;
use brevet_core::name::RequestId;
use brevet_core::scope::Scope;
use brevet_core::time::Timestamp;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::connection::{Client, Session};
use super::exit::Failure;
use super::output::{self, Row};
use super::wire::{self, NotUnderstood, ScopeOptions};
use super::{Exit, request_id, secret};
use crate::clock::Clock;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    client: Client,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Issue a task token for a task of the caller's.
    Issue(Box<Issue>),
    /// Ask whether a credential lives, as a resource server that enforces its audience.
    Introspect(Introspect),
}

#[derive(Debug, Args)]
struct Issue {
    /// The task's resource name, tasks/{id}.
    #[arg(value_parser = TaskId::from_name)]
    task: TaskId,
    #[command(flatten)]
    scope: ScopeOptions,
    /// Seconds that it is to live.
    #[arg(long, value_name = "SECONDS")]
    lifetime_seconds: Option<u64>,
    /// The file with the one-time claim of a task that has no holder key yet; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    claim_file: Option<PathBuf>,
    /// The file with the agent's own holder key, P-256 in PEM; without it that is the key of the X.509-SVID.
    #[arg(long, value_name = "FILE")]
    holder_key: Option<PathBuf>,
    /// Name the connection's certificate in the credential besides the key (RFC 8705).
    #[arg(long, conflicts_with = "holder_key")]
    bind_certificate: bool,
    /// Where the instruction came from that is followed here; it only makes the task's worse.
    #[arg(long, value_name = "ORIGIN", value_parser = wire::PROMPT_ORIGINS.parser())]
    prompt_origin: Option<v1::PromptOrigin>,
    /// Put the token into this file, for its owner alone, and not into the answer.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The name by which a repetition is recognised; a random one if not given.
    #[arg(long, value_name = "ID", value_parser = RequestId::parse)]
    request_id: Option<RequestId>,
}

#[derive(Debug, Args)]
struct Introspect {
    /// The file with the token; `-` is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    token_file: PathBuf,
    /// The revision that the answer is to contain at least.
    #[arg(long, value_name = "REVISION")]
    min_revision: Option<u64>,
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let Arguments { client, command } = arguments;
    client.run(async |session| match command {
        Command::Issue(issue) => issue.run(session).await,
        Command::Introspect(introspect) => introspect.run(session).await,
    })
}

impl Issue {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let scope = self.scope.read()?;
        let request_id = self.request_id.clone().map_or_else(request_id, Ok)?;
        let claim = self.claim_file.as_deref().map(secret::read).transpose()?;
        let holder_key = self.holder_key.as_deref().map(secret::read).transpose()?;
        let dpop_proof = holder_key.map(|pem| proof(&session.endpoint, pem.as_bytes())).transpose()?;
        let request = v1::IssueCredentialRequest {
            task: self.task.name(),
            request_id: request_id.to_string(),
            profile: v1::Profile::TaskToken.into(),
            audience: wire::audience(&scope)?.to_string(),
            scope: wire::permissions(&scope),
            lifetime: self.lifetime_seconds.map(wire::seconds),
            claim: claim.map(|claim| claim.as_str().to_owned()),
            dpop_proof,
            bind_certificate: self.bind_certificate,
            prompt_origin: self.prompt_origin.unwrap_or_default().into(),
        };
        let issued = async {
            let answer = session.broker.credentials().issue_credential(request).await?.into_inner();
            let wire = answer.credential.ok_or(NotUnderstood)?;
            let token = match &self.token_file {
                Some(path) => secret::write(path, &wire.token).map(|()| None)?,
                None => Some(wire.token),
            };
            Ok(Credential {
                request_id: request_id.to_string(),
                profile: wire::PROFILES.word(wire.profile).ok_or(NotUnderstood)?,
                lease: wire.lease,
                audience: wire.audience,
                scope: wire::scope(wire.scope)?,
                issue_time: wire::time(wire.issue_time.as_ref()),
                expire_time: wire::time(wire.expire_time.as_ref()),
                revision: wire.revision,
                token,
            })
        };
        // With the request id, a repetition gets the same credential.
        let issued =
            issued.await.map_err(|failure: Failure| failure.about(&format!("request {request_id}")))?;
        output::one(session.output, &issued)
    }
}

/// A proof of possession for this one call.
fn proof(endpoint: &str, pem: &[u8]) -> Result<String, Failure> {
    let key = HolderKey::from_pem(pem)?;
    let issued_at = Clock::system(Timestamp::EPOCH, Duration::ZERO)?.now().issue;
    let url = format!("{endpoint}/brevet.v1.CredentialService/IssueCredential");
    let id = request_id()?;
    Ok(prove(&key, &Proof { method: "POST", url: &url, issued_at, id: id.as_str(), access_token: None })?)
}

impl Introspect {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let token = secret::read(&self.token_file)?;
        let request = v1::IntrospectCredentialRequest {
            token: token.as_str().to_owned(),
            min_revision: self.min_revision,
        };
        let wire = session.broker.revocations().introspect_credential(request).await?.into_inner();
        let row = Introspection {
            active: wire.active,
            revision: wire.revision,
            lease: wire.lease,
            task: wire.task,
            agent: wire.agent,
            audience: wire.audience,
            scope: wire::scope(wire.scope)?,
            expire_time: wire::time(wire.expire_time.as_ref()),
            holder_key_thumbprint: wire.holder_key_thumbprint,
        };
        output::one(session.output, &row)
    }
}

#[derive(Serialize)]
struct Credential {
    request_id: String,
    lease: String,
    profile: &'static str,
    audience: String,
    scope: Scope,
    issue_time: String,
    expire_time: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Row for Credential {
    const COLUMNS: &'static [&'static str] = &["LEASE", "AUDIENCE", "EXPIRES", "REQUEST ID"];

    fn cells(&self) -> Vec<String> {
        let Self { lease, audience, expire_time, request_id, .. } = self;
        [lease, audience, expire_time, request_id].map(String::clone).into()
    }

    fn name(&self) -> Option<&str> {
        Some(&self.lease)
    }
}

#[derive(Serialize)]
struct Introspection {
    active: bool,
    revision: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    lease: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    task: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    agent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    audience: String,
    #[serde(skip_serializing_if = "Scope::is_empty")]
    scope: Scope,
    #[serde(skip_serializing_if = "String::is_empty")]
    expire_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    holder_key_thumbprint: String,
}

impl Row for Introspection {
    const COLUMNS: &'static [&'static str] = &["ACTIVE", "REVISION", "LEASE", "AGENT", "AUDIENCE", "EXPIRES"];

    fn cells(&self) -> Vec<String> {
        let Self { lease, agent, audience, expire_time, .. } = self;
        let [lease, agent, audience, expire_time] = [lease, agent, audience, expire_time].map(String::clone);
        vec![self.active.to_string(), self.revision.to_string(), lease, agent, audience, expire_time]
    }

    fn name(&self) -> Option<&str> {
        Some(self.lease.as_str()).filter(|lease| !lease.is_empty())
    }
}
