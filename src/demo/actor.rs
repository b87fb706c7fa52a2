//! An agent, an orchestrator or an operator: a process that holds one identity, does what it is told and says what came
//! of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use brevet_api::v1;
use brevet_client::dpop::HolderKey;
use brevet_client::endpoints::{Endpoints, IdentityFiles};
use brevet_client::{Broker, Identity, Refusal, ServerTrust, Settings, connect};
use brevet_core::request::{PromptOrigin, Sensitivity};
use brevet_core::time::Timestamp;
use brevet_identity::tls;
use brevet_identity::trust;
use http::{Request, StatusCode, header};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tonic::Status;
use zeroize::Zeroizing;

use super::Problem;
use super::identity::{self, Svid};
use super::message::{Answer, Call, Command, CreateTask, Delegate, Issue, Permission, Token, micros};
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
    /// The X.509-SVIDs that it was issued, by lease.
    svids: BTreeMap<String, IdentityFiles>,
}

impl Actor {
    fn new(dir: &Path, name: &str) -> Result<Self, Problem> {
        Ok(Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            endpoints: Endpoints::read(dir)?,
            clock: Clock::system(Timestamp::EPOCH, Duration::ZERO)?,
            tokens: BTreeMap::new(),
            svids: BTreeMap::new(),
        })
    }

    async fn obey(&mut self, command: Command) -> Result<Answer, Problem> {
        match command {
            Command::Prove => self.prove().await,
            Command::Impersonate(spiffe_id) => self.impersonate(&spiffe_id).await,
            Command::CreateTask(wanted) => self.create_task(wanted).await,
            Command::Complete { task } => self.complete(task).await,
            Command::Delegate(wanted) => self.delegate(wanted).await,
            Command::Issue(wanted) => self.issue(wanted).await,
            Command::Renew { request_id, lease } => self.renew(request_id, lease).await,
            Command::IssueSvid { request_id, task } => self.issue_svid(request_id, task).await,
            Command::Introduce { lease, address, permission } => {
                self.introduce(&lease, &address, &permission).await
            }
            Command::ProveBySvid { lease } => self.prove_as(self.svid(&lease)?.clone()).await,
            Command::IssueJwtSvid { request_id, task, audience } => {
                self.issue_jwt_svid(request_id, task, audience).await
            }
            Command::Leak { lease } => Ok(Answer::Leaked { token: self.token(&Token::Own(lease))? }),
            Command::LeakOwn => {
                let token = fs::read_to_string(&self.endpoints.bearer(&self.name)?.token)?;
                Ok(Answer::Leaked { token: token.trim_ascii().to_owned() })
            }
            Command::ProveByCopy(token) => self.prove_by_copy(&token).await,
            Command::Call(call) => self.call(&call, 1).await,
            Command::CallUntilRefused(call) => self.call(&call, CALLS_MAX).await,
            Command::Lock { request_id, agent, message } => self.lock(request_id, agent, message).await,
            Command::Lift { lock } => self.lift(lock).await,
            Command::ListDenials => self.list_denials().await,
        }
    }

    /// Whether it calls with a certificate, which its credentials are then bound to as well.
    fn has_certificate(&self) -> bool {
        !self.endpoints.bearers.contains_key(&self.name)
    }

    async fn broker(&self) -> Result<Broker, Problem> {
        Ok(self.endpoints.connect(&self.name).await?)
    }

    async fn prove(&self) -> Result<Answer, Problem> {
        let (spiffe_id, key) = match self.endpoints.bearers.get(&self.name) {
            Some(files) => (&files.spiffe_id, &files.key),
            None => {
                let files = self.endpoints.identity(&self.name)?;
                (&files.spiffe_id, &files.key)
            }
        };
        let answer = self.broker().await?.tasks().list_tasks(v1::ListTasksRequest::default()).await;
        Ok(match answer {
            Ok(_) => Answer::Proven {
                spiffe_id: spiffe_id.to_string(),
                key_thumbprint: identity::thumbprint(key)?.to_string(),
            },
            Err(status) => refused(&status),
        })
    }

    /// Calls the broker without a certificate, by a token that is another's.
    async fn prove_by_copy(&self, token: &str) -> Result<Answer, Problem> {
        let own = self.endpoints.identity(&self.name)?;
        let copy = self.dir.join(format!("{}-copy.token", self.name));
        fs::write(&copy, token)?;
        let identity = Identity::token(&copy, HolderKey::from_pem(&Zeroizing::new(fs::read(&own.key)?))?);
        let trust = ServerTrust::load(&own.bundle, self.endpoints.server_spiffe_id.clone())?;
        let broker = connect(&self.endpoints.grpc, &identity, &trust, &Settings::default()).await?;
        Ok(match broker.tasks().list_tasks(v1::ListTasksRequest::default()).await {
            Ok(_) => Answer::Proven {
                spiffe_id: own.spiffe_id.to_string(),
                key_thumbprint: identity::thumbprint(&own.key)?.to_string(),
            },
            Err(status) => refused(&status),
        })
    }

    async fn impersonate(&self, spiffe_id: &str) -> Result<Answer, Problem> {
        let own = self.endpoints.identity(&self.name)?;
        self.prove_as(identity::forge(&self.dir, &spiffe_id.parse()?, &own.bundle)?).await
    }

    /// Calls the broker under an identity that it should not accept.
    async fn prove_as(&self, other: IdentityFiles) -> Result<Answer, Problem> {
        let spiffe_id = other.spiffe_id.to_string();
        let key_thumbprint = identity::thumbprint(&other.key)?.to_string();
        let mut endpoints = self.endpoints.clone();
        endpoints.identities.insert(self.name.clone(), other);
        // Whether the connection or its first call shows the refusal is a matter of timing (RFC 8446 §4.4.2.4).
        let unknown =
            || Answer::Refused { code: "connection refused".to_owned(), reason: None, text: String::new() };
        let Ok(broker) = endpoints.connect(&self.name).await else { return Ok(unknown()) };
        Ok(match broker.tasks().list_tasks(v1::ListTasksRequest::default()).await {
            Ok(_) => Answer::Proven { spiffe_id, key_thumbprint },
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

    async fn delegate(&self, wanted: Delegate) -> Result<Answer, Problem> {
        let request = v1::DelegateTaskRequest {
            parent: wanted.parent,
            request_id: wanted.request_id,
            agent: wanted.agent,
            sensitivity_max: sensitivity(wanted.sensitivity_max).into(),
            scope: wanted.scope.into_iter().map(permission).collect(),
            holder_key_thumbprint: Some(wanted.holder_key_thumbprint),
            ..v1::DelegateTaskRequest::default()
        };
        Ok(match self.broker().await?.credentials().delegate_task(request).await {
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
            bind_certificate: self.has_certificate(),
            prompt_origin: origin.into(),
            csr: None,
        };
        match self.broker().await?.credentials().issue_credential(request).await {
            Ok(answer) => self.keep(answer.into_inner().credential),
            Err(status) => Ok(refused(&status)),
        }
    }

    async fn renew(&mut self, request_id: String, lease: String) -> Result<Answer, Problem> {
        let request = v1::RenewCredentialRequest {
            lease,
            request_id,
            bind_certificate: self.has_certificate(),
            ..v1::RenewCredentialRequest::default()
        };
        match self.broker().await?.credentials().renew_credential(request).await {
            Ok(answer) => self.keep(answer.into_inner().credential),
            Err(status) => Ok(refused(&status)),
        }
    }

    /// Keeps a token that was issued.
    fn keep(&mut self, credential: Option<v1::Credential>) -> Result<Answer, Problem> {
        let credential = credential.ok_or("the answer holds no credential")?;
        let (lifetime_seconds, end_seconds) = times(&credential)?;
        let v1::Credential { lease, token, .. } = credential;
        self.tokens.insert(lease.clone(), token);
        Ok(Answer::Issued { lease, lifetime_seconds, end_seconds })
    }

    async fn issue_svid(&mut self, request_id: String, task: String) -> Result<Answer, Problem> {
        let own = self.endpoints.identity(&self.name)?;
        let request = v1::IssueCredentialRequest {
            task,
            request_id,
            profile: v1::Profile::X509Svid.into(),
            csr: Some(identity::certification_request(own)?),
            ..v1::IssueCredentialRequest::default()
        };
        let credential = match self.broker().await?.credentials().issue_credential(request).await {
            Ok(answer) => answer.into_inner().credential.ok_or("the answer holds no credential")?,
            Err(status) => return Ok(refused(&status)),
        };
        let (lifetime_seconds, _) = times(&credential)?;
        let v1::Credential { lease, spiffe_id, certificate_chain, .. } = credential;
        let path = self.dir.join(format!("{}-task.pem", self.name));
        let files = identity::keep(path, own, spiffe_id.parse()?, &certificate_chain)?;
        self.svids.insert(lease.clone(), files);
        Ok(Answer::SvidIssued { lease, spiffe_id, lifetime_seconds })
    }

    async fn issue_jwt_svid(
        &mut self,
        request_id: String,
        task: String,
        audience: String,
    ) -> Result<Answer, Problem> {
        let request = v1::IssueCredentialRequest {
            task,
            request_id,
            profile: v1::Profile::JwtSvid.into(),
            audience,
            ..v1::IssueCredentialRequest::default()
        };
        let credential = match self.broker().await?.credentials().issue_credential(request).await {
            Ok(answer) => answer.into_inner().credential.ok_or("the answer holds no credential")?,
            Err(status) => return Ok(refused(&status)),
        };
        let (lifetime_seconds, _) = times(&credential)?;
        let v1::Credential { lease, spiffe_id, token, .. } = credential;
        self.tokens.insert(lease.clone(), token);
        Ok(Answer::SvidIssued { lease, spiffe_id, lifetime_seconds })
    }

    fn svid(&self, lease: &str) -> Result<&IdentityFiles, Problem> {
        Ok(self.svids.get(lease).ok_or("no X.509-SVID was issued under this lease")?)
    }

    async fn lock(&self, request_id: String, agent: String, message: String) -> Result<Answer, Problem> {
        let mut locks = self.broker().await?.locks();
        let selector = v1::Selector { kind: Some(v1::selector::Kind::Agent(agent)) };
        let request = v1::CreateLockRequest { request_id, selector: Some(selector), message, lifetime: None };
        let called_at_micros = micros(since_boot());
        Ok(match locks.create_lock(request).await {
            Ok(answer) => Answer::Locked { lock: answer.into_inner().name, called_at_micros },
            Err(status) => refused(&status),
        })
    }

    async fn lift(&self, lock: String) -> Result<Answer, Problem> {
        let request = v1::LiftLockRequest { name: lock };
        Ok(match self.broker().await?.locks().lift_lock(request).await {
            Ok(answer) => {
                if answer.into_inner().in_force {
                    return Err("the lock is in force although it was lifted".into());
                }
                Answer::Lifted
            }
            Err(status) => refused(&status),
        })
    }

    async fn list_denials(&self) -> Result<Answer, Problem> {
        let mut audit = self.broker().await?.audit();
        let mut request =
            v1::ListEventsRequest { r#type: "denied".to_owned(), ..v1::ListEventsRequest::default() };
        let mut denials = Vec::new();
        loop {
            let page = match audit.list_events(request.clone()).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => return Ok(refused(&status)),
            };
            for event in &page.events {
                denials
                    .push(super::audit::denial(event.record.as_bytes())?.ok_or("a record of another kind")?);
            }
            if page.next_page_token.is_empty() {
                return Ok(Answer::Denials(denials));
            }
            request.page_token = page.next_page_token;
        }
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
        let own = self.endpoints.identity(&self.name)?;
        let mut server = self.resource_server(&call.address, own).await?;
        let (mut accepted, mut calls) = (0, 0);
        loop {
            calls += 1;
            let request = Request::get(url(&call.permission))
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .body(Body::empty())?;
            let status = server.send_request(request).await?.status();
            if status == StatusCode::OK {
                accepted += 1;
            }
            // A server that does not know for the moment has refused nothing for good.
            let is_final = status != StatusCode::OK && status != StatusCode::SERVICE_UNAVAILABLE;
            if is_final || calls == calls_max {
                return Ok(Answer::Called { status: status.as_u16(), accepted });
            }
        }
    }

    /// Calls the resource server by the X.509-SVID of a task, which permits nothing.
    async fn introduce(&self, lease: &str, address: &str, wanted: &Permission) -> Result<Answer, Problem> {
        let mut server = self.resource_server(address, self.svid(lease)?).await?;
        let request = Request::get(url(wanted)).body(Body::empty())?;
        let status = server.send_request(request).await?.status().as_u16();
        Ok(Answer::Called { status, accepted: 0 })
    }

    /// A connection to the resource server, which is known by its SPIFFE ID and by nothing else.
    async fn resource_server(
        &self,
        address: &str,
        own: &IdentityFiles,
    ) -> Result<SendRequest<Body>, Problem> {
        let own = Svid::load(own)?;
        let expected = self.endpoints.identity("resource-server")?.spiffe_id.clone();
        let trust =
            Arc::new(trust::ServerTrust::new([(expected.trust_domain(), identity::workloads(&self.dir)?)])?);
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
    Answer::Refused { code: format!("{:?}", refusal.code), reason: refusal.reason, text: refusal.message }
}

/// How many seconds a credential lives, and when it ends.
fn times(credential: &v1::Credential) -> Result<(i64, i64), Problem> {
    let (Some(issued), Some(end)) = (&credential.issue_time, &credential.expire_time) else {
        return Err("the credential has no times".into());
    };
    Ok((end.seconds - issued.seconds, end.seconds))
}

fn url(permission: &Permission) -> String {
    let Permission { audience, resource, action } = permission;
    format!("{audience}/{resource}?action={action}")
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
