//! The load generator: calls with so many in flight, spread over a few connections that outlive the run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brevet::clock::since_boot;
use brevet_api::v1;
use brevet_client::Broker;
use brevet_client::dpop::HolderKey;
use http::uri::PathAndQuery;
use prost::Message;
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic::client::Grpc;

use tonic_prost::ProstCodec;

use crate::process::obey;
use crate::{Failure, floor, requests, world};

/// The file with the name of every lease that was handed over.
pub(crate) const LEASES: &str = "leases";

/// Calls on a task at most; a task may have 64 live leases by default.
const CALLS_PER_TASK: u64 = 32;
/// Orders that are not measured are carried out with this many calls in flight.
const IN_FLIGHT: u64 = 32;

/// What the generator is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Connect everybody, over so many connections each.
    Connect { floor: String, connections: u32 },
    /// Open tasks for so many mints.
    Open { mints: u64 },
    /// Mint.
    Mint { form: Form, calls: u64, in_flight: u64 },
    /// End the tasks.
    Complete,
    /// Mint tokens that outlive the run, to be introspected.
    Keep { tokens: u64 },
    /// Introspect kept tokens, or tokens that nobody signed.
    Introspect { calls: u64, in_flight: u64, known: bool },
    /// Call the floor server.
    Echo { calls: u64, in_flight: u64, request_bytes: usize, answer_bytes: usize },
}

/// What is minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Form {
    /// Task tokens.
    Token,
    /// X.509-SVIDs, all by the same certification request.
    Svid,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Calls answered, all of them as they should be.
    pub(crate) calls: u64,
    /// The median time from call to answer, in nanoseconds.
    pub(crate) p50: u64,
    /// The longest request, in bytes.
    pub(crate) request_bytes: usize,
    /// The longest answer, in bytes.
    pub(crate) answer_bytes: usize,
    /// The longest token, in bytes.
    pub(crate) token_bytes: usize,
    /// The certification request, in bytes.
    pub(crate) csr_bytes: usize,
}

/// Carries out orders until standard input closes.
pub(crate) fn generate(dir: &Path) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut generator: Option<Generator> = None;
    obey(|order| {
        runtime.block_on(async {
            if let Order::Connect { floor, connections } = order {
                generator = Some(Generator::connect(dir, &floor, connections).await?);
                return Ok(Outcome::default());
            }
            generator.as_mut().ok_or("not connected")?.carry_out(order).await
        })
    })
}

struct Generator {
    agents: Arc<[Broker]>,
    enforcers: Arc<[Broker]>,
    floor: Arc<[Broker]>,
    orchestrator: Broker,
    holder: String,
    csr: Arc<[u8]>,
    tasks: Arc<[String]>,
    tokens: Arc<[String]>,
    /// Requests named so far, so that each has a name of its own in this process.
    named: u64,
    leases: PathBuf,
}

/// One answered call.
struct Answered {
    request_bytes: usize,
    answer_bytes: usize,
    credential: Option<v1::Credential>,
}

impl Answered {
    fn new(request: &impl Message, answer: &impl Message) -> Self {
        Self { request_bytes: request.encoded_len(), answer_bytes: answer.encoded_len(), credential: None }
    }
}

impl Generator {
    async fn connect(dir: &Path, floor: &str, connections: u32) -> Result<Self, Failure> {
        let (mut agents, mut enforcers, mut floors) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..connections {
            agents.push(world::connect_to_daemon(dir, world::AGENT).await?);
            enforcers.push(world::connect_to_daemon(dir, world::ENFORCER).await?);
            floors.push(world::connect_to_floor(dir, floor).await?);
        }
        let key = fs::read_to_string(dir.join(format!("{}.key", world::AGENT)))?;
        let holder = HolderKey::from_pem(key.as_bytes())?;
        let csr = CertificateParams::default().serialize_request(&KeyPair::from_pem(&key)?)?;
        Ok(Self {
            agents: agents.into(),
            enforcers: enforcers.into(),
            floor: floors.into(),
            orchestrator: world::connect_to_daemon(dir, world::ORCHESTRATOR).await?,
            holder: holder.thumbprint().to_string(),
            csr: csr.der().as_ref().into(),
            tasks: Arc::default(),
            tokens: Arc::default(),
            named: 0,
            leases: dir.join(LEASES),
        })
    }

    async fn carry_out(&mut self, order: Order) -> Result<Outcome, Failure> {
        match order {
            Order::Connect { .. } => Err("connected already".into()),
            Order::Open { mints } => {
                self.tasks = self.open(mints).await?;
                Ok(Outcome::default())
            }
            Order::Mint { form, calls, in_flight } => {
                let tasks = Arc::clone(&self.tasks);
                let outcome = self.mint(tasks, form, calls, in_flight, None).await?.0;
                Ok(Outcome { csr_bytes: self.csr.len(), ..outcome })
            }
            Order::Complete => self.complete().await,
            Order::Keep { tokens } => {
                let tasks = self.open(tokens).await?;
                let (outcome, tokens) = self.mint(tasks, Form::Token, tokens, IN_FLIGHT, Some(3_600)).await?;
                self.tokens = tokens.into();
                Ok(outcome)
            }
            Order::Introspect { calls, in_flight, known } => self.introspect(calls, in_flight, known).await,
            Order::Echo { calls, in_flight, request_bytes, answer_bytes } => {
                self.echo(calls, in_flight, request_bytes, answer_bytes).await
            }
        }
    }

    fn name(&mut self, count: u64) -> u64 {
        let first = self.named;
        self.named += count;
        first
    }

    async fn open(&mut self, mints: u64) -> Result<Arc<[String]>, Failure> {
        let count = mints.div_ceil(CALLS_PER_TASK);
        let (run, first) = (std::process::id(), self.name(count));
        let (orchestrator, holder) = (self.orchestrator.clone(), self.holder.clone());
        let (_, tasks) = drive(count, IN_FLIGHT, move |number| {
            let (orchestrator, holder) = (orchestrator.clone(), holder.clone());
            async move {
                let request = requests::task(format!("task-{run}-{}", first + number), &holder);
                let answer = orchestrator.tasks().create_task(request).await?.into_inner();
                answer.task.map(|task| task.name).ok_or_else(|| Status::internal("no task"))
            }
        })
        .await?;
        Ok(tasks.into())
    }

    async fn complete(&mut self) -> Result<Outcome, Failure> {
        let tasks = std::mem::take(&mut self.tasks);
        let orchestrator = self.orchestrator.clone();
        let (p50, done) = drive(u64::try_from(tasks.len())?, IN_FLIGHT, move |number| {
            let (orchestrator, name) = (orchestrator.clone(), requests::turn(&tasks, number).cloned());
            async move {
                let name = name.ok_or_else(|| Status::internal("no task"))?;
                let request = v1::CompleteTaskRequest { name, ..v1::CompleteTaskRequest::default() };
                orchestrator.tasks().complete_task(request).await.map(drop)
            }
        })
        .await?;
        Ok(Outcome { calls: u64::try_from(done.len())?, p50, ..Outcome::default() })
    }

    /// Mints, and notes the leases; gives the tokens.
    async fn mint(
        &mut self,
        tasks: Arc<[String]>,
        form: Form,
        calls: u64,
        in_flight: u64,
        lifetime: Option<i64>,
    ) -> Result<(Outcome, Vec<String>), Failure> {
        let (run, first) = (std::process::id(), self.name(calls));
        let (agents, csr) = (Arc::clone(&self.agents), Arc::clone(&self.csr));
        let (p50, answered) = drive(calls, in_flight, move |number| {
            let (agent, task) =
                (requests::turn(&agents, number).cloned(), requests::turn(&tasks, number).cloned());
            let csr = (form == Form::Svid).then(|| Arc::clone(&csr));
            async move {
                let task = task.ok_or_else(|| Status::internal("no task"))?;
                let request_id = format!("mint-{run}-{}", first + number);
                let lifetime = lifetime.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
                let request = match form {
                    Form::Token => v1::IssueCredentialRequest {
                        lifetime,
                        ..requests::token(task, request_id, &format!("reports/{}", number % 100))
                    },
                    Form::Svid => v1::IssueCredentialRequest {
                        task,
                        request_id,
                        lifetime,
                        profile: v1::Profile::X509Svid.into(),
                        csr: csr.map(|csr| csr.to_vec()),
                        ..v1::IssueCredentialRequest::default()
                    },
                };
                let agent = agent.ok_or_else(|| Status::internal("no connection"))?;
                let answer = agent.credentials().issue_credential(request.clone()).await?.into_inner();
                let answered = Answered::new(&request, &answer);
                Ok(Answered { credential: answer.credential, ..answered })
            }
        })
        .await?;
        let outcome = outcome(p50, &answered)?;
        let mut leases = fs::File::options().create(true).append(true).open(&self.leases)?;
        let mut tokens = Vec::with_capacity(answered.len());
        let mut names = String::new();
        for answered in answered {
            let credential = answered.credential.ok_or("an answer without a credential")?;
            names.push_str(&credential.lease);
            names.push('\n');
            tokens.push(credential.token);
        }
        leases.write_all(names.as_bytes())?;
        Ok((outcome, tokens))
    }

    async fn introspect(&self, calls: u64, in_flight: u64, known: bool) -> Result<Outcome, Failure> {
        let tokens: Arc<[String]> =
            if known { Arc::clone(&self.tokens) } else { self.tokens.iter().map(|it| forged(it)).collect() };
        let enforcers = Arc::clone(&self.enforcers);
        let (p50, answered) = drive(calls, in_flight, move |number| {
            let (enforcer, token) =
                (requests::turn(&enforcers, number).cloned(), requests::turn(&tokens, number).cloned());
            async move {
                let token = token.ok_or_else(|| Status::internal("no token"))?;
                let request =
                    v1::IntrospectCredentialRequest { token, ..v1::IntrospectCredentialRequest::default() };
                let enforcer = enforcer.ok_or_else(|| Status::internal("no connection"))?;
                let mut stub = enforcer.revocations();
                let answer = stub.introspect_credential(request.clone()).await?.into_inner();
                if answer.active == known {
                    Ok(Answered::new(&request, &answer))
                } else {
                    Err(Status::internal("a token was taken for another"))
                }
            }
        })
        .await?;
        outcome(p50, &answered)
    }

    async fn echo(
        &self,
        calls: u64,
        in_flight: u64,
        request_bytes: usize,
        answer_bytes: usize,
    ) -> Result<Outcome, Failure> {
        let floor = Arc::clone(&self.floor);
        let (p50, answered) = drive(calls, in_flight, move |number| {
            let connection = requests::turn(&floor, number).cloned();
            async move {
                let channel = connection.ok_or_else(|| Status::internal("no connection"))?.channel();
                let payload = floor::payload(request_bytes, answer_bytes);
                let mut client = Grpc::new(channel);
                client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                let (path, codec) = (PathAndQuery::from_static(floor::ECHO), ProstCodec::default());
                let answer: Vec<u8> =
                    client.unary(tonic::Request::new(payload.clone()), path, codec).await?.into_inner();
                Ok(Answered::new(&payload, &answer))
            }
        })
        .await?;
        let outcome = outcome(p50, &answered)?;
        let found = (outcome.request_bytes, outcome.answer_bytes);
        // Where the length of the content begins to need another byte, no message has the very length.
        if found.0.abs_diff(request_bytes) <= 1 && found.1.abs_diff(answer_bytes) <= 1 {
            Ok(outcome)
        } else {
            Err(format!("an echo of {request_bytes} and {answer_bytes} bytes has {found:?}").into())
        }
    }
}

fn outcome(p50: u64, answered: &[Answered]) -> Result<Outcome, Failure> {
    let credentials = answered.iter().filter_map(|it| it.credential.as_ref());
    Ok(Outcome {
        calls: u64::try_from(answered.len())?,
        p50,
        request_bytes: answered.iter().map(|it| it.request_bytes).max().unwrap_or_default(),
        answer_bytes: answered.iter().map(|it| it.answer_bytes).max().unwrap_or_default(),
        token_bytes: credentials.map(|it| it.token.len()).max().unwrap_or_default(),
        csr_bytes: 0,
    })
}

/// The next of several, in turn.
/// The same token with another signature, which has to be verified in order to be refused.
fn forged(token: &str) -> String {
    let Some((signed, signature)) = token.rsplit_once('.') else { return String::new() };
    // A character in the midst of the second half: the number stays one that a signature may have.
    let swap = |(at, character)| match (at, character) {
        (60, 'A') => 'B',
        (60, _) => 'A',
        _ => character,
    };
    let signature: String = signature.chars().enumerate().map(swap).collect();
    format!("{signed}.{signature}")
}

/// Makes calls, so many at once, and gives the median time that one took, in nanoseconds, and what they answered.
async fn drive<T, F, C>(calls: u64, in_flight: u64, call: C) -> Result<(u64, Vec<T>), Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Status>> + Send,
    C: Fn(u64) -> F + Send + Sync + 'static,
{
    let (next, call) = (Arc::new(AtomicU64::new(0)), Arc::new(call));
    let callers: Vec<_> = (0..in_flight.min(calls))
        .map(|_| {
            let (next, call) = (Arc::clone(&next), Arc::clone(&call));
            tokio::spawn(async move {
                let mut done = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= calls {
                        return Ok(done);
                    }
                    let start = since_boot();
                    let answer = call(number).await?;
                    done.push((since_boot().saturating_sub(start), answer));
                }
            })
        })
        .collect();
    let (mut times, mut answers) = (Vec::new(), Vec::new());
    for caller in callers {
        let done: Result<_, Status> = caller.await?;
        for (time, answer) in done? {
            times.push(time);
            answers.push(answer);
        }
    }
    times.sort_unstable();
    let p50 = times.get(times.len() / 2).ok_or("nothing was called")?.as_nanos();
    Ok((u64::try_from(p50)?, answers))
}
