//! `brevet credential`: what an agent is issued for its task, renews and gives back, and whether it lives.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_api::v1;
use brevet_core::id::{LeaseId, TaskId};
use brevet_core::name::{AudienceName, RequestId};
use brevet_core::scope::Scope;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::connection::{Client, Session};
use super::exit::Failure;
use super::holder::Holder;
use super::output::{self, Row};
use super::wire::{self, NotUnderstood, ScopeOptions};
use super::{Exit, request_id, secret};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    client: Client,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Issue a credential for a task of the caller's: a task token, an X.509-SVID or a JWT-SVID.
    Issue(Box<Issue>),
    /// Issue a credential in place of one that still lives.
    Renew(Box<Renew>),
    /// Give a credential back before its end.
    Return(Return),
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
    /// An X.509-SVID for the task over the holder key: it says who works on which task and permits nothing.
    #[arg(long, conflicts_with_all = ["permit", "scope", "bind_certificate", "token_file"])]
    svid: bool,
    /// A JWT-SVID for the task and this audience: it says who works on which task, and a verifier may take it from whoever
    /// bears it.
    #[arg(long, value_name = "AUDIENCE", value_parser = AudienceName::parse, conflicts_with_all = ["permit", "scope", "svid"])]
    jwt_svid: Option<AudienceName>,
    /// The file with the one-time claim of a task that has no holder key yet; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    claim_file: Option<PathBuf>,
    #[command(flatten)]
    wish: Wish,
}

#[derive(Debug, Args)]
struct Renew {
    /// The lease's resource name, tasks/{id}/leases/{id}.
    lease: LeaseId,
    #[command(flatten)]
    scope: ScopeOptions,
    #[command(flatten)]
    wish: Wish,
}

/// What is asked for of any credential, and where it goes.
#[derive(Debug, Args)]
struct Wish {
    /// Seconds that it is to live.
    #[arg(long, value_name = "SECONDS")]
    lifetime_seconds: Option<u64>,
    #[command(flatten)]
    holder: Holder,
    /// Name the connection's certificate in the credential besides the key (RFC 8705).
    #[arg(long, conflicts_with = "holder_key")]
    bind_certificate: bool,
    /// Where the instruction came from that is followed here; it only makes the task's worse.
    #[arg(long, value_name = "ORIGIN", value_parser = wire::PROMPT_ORIGINS.parser())]
    prompt_origin: Option<v1::PromptOrigin>,
    /// Put the token into this file, for its owner alone, and not into the answer.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Put the certificates of an X.509-SVID into this file, in PEM, the leaf first.
    #[arg(long, value_name = "FILE")]
    certificate_file: Option<PathBuf>,
    /// The name by which a repetition is recognised; a random one if not given.
    #[arg(long, value_name = "ID", value_parser = RequestId::parse)]
    request_id: Option<RequestId>,
}

#[derive(Debug, Args)]
struct Return {
    /// The lease's resource name, tasks/{id}/leases/{id}.
    lease: LeaseId,
    #[command(flatten)]
    holder: Holder,
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
        Command::Renew(renew) => renew.run(session).await,
        Command::Return(lease) => lease.run(session).await,
        Command::Introspect(introspect) => introspect.run(session).await,
    })
}

impl Issue {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let scope = self.scope.read()?;
        let wish = &self.wish;
        let request_id = wish.request_id()?;
        let claim = self.claim_file.as_deref().map(secret::read).transpose()?;
        let (profile, audience, csr) = if self.svid {
            (
                v1::Profile::X509Svid,
                String::new(),
                Some(wish.holder.certification_request(session.key.as_deref())?),
            )
        } else if let Some(audience) = &self.jwt_svid {
            (v1::Profile::JwtSvid, audience.to_string(), None)
        } else {
            (v1::Profile::TaskToken, wire::audience(&scope)?.to_string(), None)
        };
        let dpop_proof = wish.holder.proof(&session.endpoint, "IssueCredential")?;
        let request = v1::IssueCredentialRequest {
            task: self.task.name(),
            request_id: request_id.to_string(),
            profile: profile.into(),
            audience,
            scope: wire::permissions(&scope),
            lifetime: wish.lifetime_seconds.map(wire::seconds),
            claim: claim.map(|claim| claim.as_str().to_owned()),
            dpop_proof,
            bind_certificate: wish.bind_certificate,
            prompt_origin: wish.prompt_origin.unwrap_or_default().into(),
            csr,
        };
        let issued = async {
            let answer = session.broker.credentials().issue_credential(request).await?.into_inner();
            wish.take(&request_id, answer.credential)
        };
        shown(&session, &request_id, issued.await)
    }
}

impl Renew {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let wish = &self.wish;
        let request_id = wish.request_id()?;
        let request = v1::RenewCredentialRequest {
            lease: self.lease.to_string(),
            request_id: request_id.to_string(),
            scope: wire::permissions(&self.scope.read()?),
            lifetime: wish.lifetime_seconds.map(wire::seconds),
            dpop_proof: wish.holder.proof(&session.endpoint, "RenewCredential")?,
            bind_certificate: wish.bind_certificate,
            prompt_origin: wish.prompt_origin.unwrap_or_default().into(),
        };
        let renewed = async {
            let answer = session.broker.credentials().renew_credential(request).await?.into_inner();
            wish.take(&request_id, answer.credential)
        };
        shown(&session, &request_id, renewed.await)
    }
}

impl Wish {
    fn request_id(&self) -> Result<RequestId, Failure> {
        Ok(self.request_id.clone().map_or_else(request_id, Ok)?)
    }

    /// Takes what was issued, and puts into files what belongs there.
    fn take(&self, request_id: &RequestId, wire: Option<v1::Credential>) -> Result<Credential, Failure> {
        let wire = wire.ok_or(NotUnderstood)?;
        let given = |text: String| (!text.is_empty()).then_some(text);
        let mut token = given(wire.token);
        if let (Some(path), Some(secret)) = (&self.token_file, &token) {
            secret::write(path, secret)?;
            token = None;
        }
        let mut certificates = given(wire.certificate_chain.iter().map(|der| pem(der)).collect());
        if let (Some(path), Some(chain)) = (&self.certificate_file, &certificates) {
            secret::write(path, chain.trim_end())?;
            certificates = None;
        }
        Ok(Credential {
            request_id: request_id.to_string(),
            profile: wire::PROFILES.word(wire.profile).ok_or(NotUnderstood)?,
            lease: wire.lease,
            audience: wire.audience,
            spiffe_id: wire.spiffe_id,
            scope: wire::scope(wire.scope)?,
            issue_time: wire::time(wire.issue_time.as_ref()),
            expire_time: wire::time(wire.expire_time.as_ref()),
            revision: wire.revision,
            token,
            certificates,
        })
    }
}

/// Shows what was issued. With the request id, a repetition gets the same.
fn shown(
    session: &Session,
    request_id: &RequestId,
    issued: Result<Credential, Failure>,
) -> Result<(), Failure> {
    let issued = issued.map_err(|failure| failure.about(&format!("request {request_id}")))?;
    output::one(session.output, &issued)
}

/// One certificate in PEM (RFC 7468).
fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (position, character) in STANDARD.encode(der).chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text + "\n-----END CERTIFICATE-----\n"
}

impl Return {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let lease = self.lease.to_string();
        let dpop_proof = self.holder.proof(&session.endpoint, "ReturnCredential")?;
        let request = v1::ReturnCredentialRequest { lease: lease.clone(), dpop_proof };
        let answer = session.broker.credentials().return_credential(request).await?.into_inner();
        output::one(session.output, &Returned { lease, revision: answer.revision })
    }
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
    #[serde(skip_serializing_if = "String::is_empty")]
    audience: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    spiffe_id: String,
    #[serde(skip_serializing_if = "Scope::is_empty")]
    scope: Scope,
    issue_time: String,
    expire_time: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates: Option<String>,
}

impl Row for Credential {
    const COLUMNS: &'static [&'static str] = &["LEASE", "PROFILE", "AUDIENCE", "EXPIRES", "REQUEST ID"];

    fn cells(&self) -> Vec<String> {
        let Self { lease, profile, audience, expire_time, request_id, .. } = self;
        let [lease, audience, expires, request_id] =
            [lease, audience, expire_time, request_id].map(String::clone);
        vec![lease, (*profile).to_owned(), audience, expires, request_id]
    }

    fn name(&self) -> Option<&str> {
        Some(&self.lease)
    }
}

#[derive(Serialize)]
struct Returned {
    lease: String,
    revision: u64,
}

impl Row for Returned {
    const COLUMNS: &'static [&'static str] = &["LEASE", "REVISION"];

    fn cells(&self) -> Vec<String> {
        vec![self.lease.clone(), self.revision.to_string()]
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
