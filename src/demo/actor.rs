//! An agent or an orchestrator: a process that holds one identity, does what it is told and says what came of it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use brevet_api::v1;
use brevet_client::endpoints::Endpoints;
use brevet_client::{Broker, Refusal};
use brevet_core::request::{PromptOrigin, Sensitivity};
use brevet_core::time::Timestamp;
use brevet_identity::tls;
use brevet_identity::trust::ServerTrust;
use http::{Request, StatusCode, header};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tonic::Status;

use super::Problem;
use super::identity::{self, Svid};
use super::message::{Answer, Call, Command, CreateTask, Issue, Permission, Token, micros};
use crate::clock::{Clock, since_boot};

/// The most calls of one [`Command::CallUntilRefused`].
const CALLS_MAX: u64 = 10_000;

/// Does what standard input says until that ends.
///
/// # Errors
/// If the identity cannot be used, or nobody hears the answers.
pub fn run(dir: &Path, name: &str) -> Result<(), Problem> {
    let runtime = Runtime::new()?;
    let mut actor = Actor::new(dir, name)?;
    for line in io::stdin().lock().lines() {
        let command = serde_json::from_str(&line?)?;
        let answer = runtime
            .block_on(actor.obey(command))
            .unwrap_or_else(|problem| Answer::Failed(super::causes(&*problem)));
        writeln!(io::stdout(), "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

struct Actor {
    dir: PathBuf,
    name: String,
    endpoints: Endpoints,
    clock: Clock,
    /// The tokens that it was issued, by lease.
    tokens: BTreeMap<String, String>,
}

impl Actor {
    fn new(dir: &Path, name: &str) -> Result<Self, Problem> {
        Ok(Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            endpoints: Endpoints::read(dir)?,
            clock: Clock::system(Timestamp::EPOCH, Duration::ZERO)?,
            tokens: BTreeMap::new(),
        })
    }

    async fn obey(&mut self, command: Command) -> Result<Answer, Problem> {
        match command {
            Command::Prove => self.prove().await,
            Command::Impersonate(spiffe_id) => self.impersonate(&spiffe_id).await,
            Command::CreateTask(wanted) => self.create_task(wanted).await,
            Command::Complete { task } => self.complete(task).await,
            Command::Issue(wanted) => self.issue(wanted).await,
            Command::Leak { lease } => Ok(Answer::Leaked { token: self.token(&Token::Own(lease))? }),
            Command::Call(call) => self.call(&call, 1).await,
            Command::CallUntilRefused(call) => self.call(&call, CALLS_MAX).await,
        }
    }

    async fn broker(&self) -> Result<Broker, Problem> {
        Ok(self.endpoints.connect(&self.name).await?)
    }

    async fn prove(&self) -> Result<Answer, Problem> {
        let files = self.endpoints.identity(&self.name)?;
        let answer = self.broker().await?.tasks().list_tasks(v1::ListTasksRequest::default()).await;
        Ok(match answer {
            Ok(_) => Answer::Proven {
                spiffe_id: files.spiffe_id.to_string(),
                key_thumbprint: identity::thumbprint(files)?.to_string(),
            },
            Err(status) => refused(&status),
        })
    }

    async fn impersonate(&self, spiffe_id: &str) -> Result<Answer, Problem> {
        let mut endpoints = self.endpoints.clone();
        let own = endpoints.identity(&self.name)?;
        let forged = identity::forge(&self.dir, &spiffe_id.parse()?, &own.bundle)?;
        let key_thumbprint = identity::thumbprint(&forged)?.to_string();
        endpoints.identities.insert(self.name.clone(), forged);
        // Whether the connection or its first call shows the refusal is a matter of timing (RFC 8446 §4.4.2.4).
        let unknown = || Answer::Refused { code: "connection refused".to_owned(), reason: None };
        let Ok(broker) = endpoints.connect(&self.name).await else { return Ok(unknown()) };
        Ok(match broker.tasks().list_tasks(v1::ListTasksRequest::default()).await {
            Ok(_) => Answer::Proven { spiffe_id: spiffe_id.to_owned(), key_thumbprint },
            Err(_) => unknown(),
        })
    }

    async fn create_task(&self, wanted: CreateTask) -> Result<Answer, Problem> {
        let request = v1::CreateTaskRequest {
            request_id: wanted.request_id,
            agent: wanted.agent,
            task_type: wanted.task_type,
            purpose: "demo".to_owned(),
            sensitivity_max: sensitivity(wanted.sensitivity_max).into(),
            prompt_origin: v1::PromptOrigin::User.into(),
            scope: wanted.scope.into_iter().map(permission).collect(),
            lifetime: None,
            holder_key_thumbprint: Some(wanted.holder_key_thumbprint),
        };
        Ok(match self.broker().await?.tasks().create_task(request).await {
            Ok(answer) => {
                Answer::Opened { task: answer.into_inner().task.ok_or("the answer holds no task")?.name }
            }
            Err(status) => refused(&status),
        })
    }

    async fn complete(&self, task: String) -> Result<Answer, Problem> {
        let mut tasks = self.broker().await?.tasks();
        let request = v1::CompleteTaskRequest { name: task, reason: String::new() };
        let called_at_micros = micros(since_boot());
        Ok(match tasks.complete_task(request).await {
            Ok(answer) => Answer::Ended { called_at_micros, leases_ended: answer.into_inner().leases_ended },
            Err(status) => refused(&status),
        })
    }

    async fn issue(&mut self, wanted: Issue) -> Result<Answer, Problem> {
        let origin = wanted.prompt_origin.map_or(v1::PromptOrigin::Unspecified, prompt_origin);
        let request = v1::IssueCredentialRequest {
            task: wanted.task,
            request_id: wanted.request_id,
            profile: v1::Profile::TaskToken.into(),
            audience: wanted.permission.audience.clone(),
            scope: vec![permission(wanted.permission)],
            lifetime: wanted.lifetime_seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            claim: None,
            dpop_proof: None,
            bind_certificate: true,
            prompt_origin: origin.into(),
        };
        let answer = match self.broker().await?.credentials().issue_credential(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(refused(&status)),
        };
        let credential = answer.credential.ok_or("the answer holds no credential")?;
        let (Some(issued), Some(end)) = (credential.issue_time, credential.expire_time) else {
            return Err("the credential has no times".into());
        };
        self.tokens.insert(credential.lease.clone(), credential.token);
        Ok(Answer::Issued { lease: credential.lease, lifetime_seconds: end.seconds - issued.seconds })
    }

    fn token(&self, token: &Token) -> Result<String, Problem> {
        match token {
            Token::Own(lease) => {
                Ok(self.tokens.get(lease).ok_or("no token was issued under this lease")?.clone())
            }
            Token::Copy(token) => Ok(token.clone()),
        }
    }

    /// Makes one call after the other until one is refused, at most so many.
    async fn call(&self, call: &Call, calls_max: u64) -> Result<Answer, Problem> {
        let token = self.token(&call.token)?;
        let mut server = self.resource_server(&call.address).await?;
        let Permission { audience, resource, action } = &call.permission;
        let mut accepted = 0;
        loop {
            let request = Request::get(format!("{audience}/{resource}?action={action}"))
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .body(Body::empty())?;
            let status = server.send_request(request).await?.status();
            if status == StatusCode::OK {
                accepted += 1;
            }
            if status != StatusCode::OK || accepted == calls_max {
                return Ok(Answer::Called { status: status.as_u16(), accepted });
            }
        }
    }

    /// A connection to the resource server, which is known by its SPIFFE ID and by nothing else.
    async fn resource_server(&self, address: &str) -> Result<SendRequest<Body>, Problem> {
        let own = Svid::load(self.endpoints.identity(&self.name)?)?;
        let expected = self.endpoints.identity("resource-server")?.spiffe_id.clone();
        let trust = Arc::new(ServerTrust::new([(expected.trust_domain(), identity::workloads(&self.dir)?)])?);
        let source: tls::TrustSource<_> = Arc::new(move || Arc::clone(&trust));
        let config = tls::client_config(own.chain, own.key, source, expected, self.clock.time_provider())?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // A name has to be sent; that nothing depends on it is the point of SPIFFE IDs.
        let stream =
            TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, stream).await?;
        let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(requests)
    }
}

fn refused(status: &Status) -> Answer {
    let refusal = Refusal::from_status(status);
    Answer::Refused { code: format!("{:?}", refusal.code), reason: refusal.reason }
}

fn permission(permission: Permission) -> v1::Permission {
    let Permission { audience, resource, action } = permission;
    v1::Permission { audience, resource, actions: vec![action], ..v1::Permission::default() }
}

const fn sensitivity(sensitivity: Sensitivity) -> v1::Sensitivity {
    match sensitivity {
        Sensitivity::Low => v1::Sensitivity::Low,
        Sensitivity::Moderate => v1::Sensitivity::Moderate,
        Sensitivity::High => v1::Sensitivity::High,
        Sensitivity::Critical => v1::Sensitivity::Critical,
    }
}

const fn prompt_origin(origin: PromptOrigin) -> v1::PromptOrigin {
    match origin {
        PromptOrigin::System => v1::PromptOrigin::System,
        PromptOrigin::User => v1::PromptOrigin::User,
        PromptOrigin::Retrieved => v1::PromptOrigin::Retrieved,
        PromptOrigin::ToolOutput => v1::PromptOrigin::ToolOutput,
        PromptOrigin::Untrusted => v1::PromptOrigin::Untrusted,
    }
}
