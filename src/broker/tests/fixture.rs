//! A broker with a clock that stands still, a journal in memory and the throw-away trust domain's configuration.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use brevet_core::digest::{CertificateDigest, Thumbprint};
use brevet_core::fact::{Fact, Outcome, ReasonCode};
use brevet_core::id::TaskId;
use brevet_core::name::{AudienceName, KeyId, PurposeCode, RequestId, TaskType};
use brevet_core::proof::{Caller, Recorded};
use brevet_core::record;
use brevet_core::request::Sensitivity;
use brevet_core::revision::{Incarnation, Revision};
use brevet_core::scope::Scope;
use brevet_core::state::State;
use brevet_core::terms::Profile;
use brevet_core::time::Timestamp;
use brevet_journal::Journal;
use brevet_mint::signer::{LocalSigner, Product, SignError, Signer, Signing};
use brevet_testkit::journal::Memory;
use ring::rand::SystemRandom;

use crate::broker::sample::InMemory;
use crate::broker::{Broker, CredentialAsk, Introspection, Possession, Refusal, TaskAsk, TaskView, Wanted};
use crate::clock::{Clock, ManualSource};
use crate::config::{Config, Limits};
use crate::configuration::Configuration;
use crate::dev;
use crate::discovery::Discovered;

pub(super) const AGENT_A: &str = "spiffe://workloads.dev.example/agent/a";
pub(super) const OPERATOR: &str = "spiffe://workloads.dev.example/operator/olivia";
pub(super) const ORCHESTRATOR: &str = "spiffe://workloads.dev.example/orchestrator";
const RESOURCE_SERVER: &str = "spiffe://workloads.dev.example/resource-server";
const FILES: &str = "https://files.dev.example";

/// How long an ended tree is kept.
pub(super) const KEPT: Duration = Duration::from_secs(600);
/// Live leases of one opener.
pub(super) const LEASES_MAX: u32 = 3;
/// What one tenant may have of locks in force.
pub(super) const LOCKS_MAX: u32 = 2;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Signer,
}

/// Counts what is signed, and fails if it is to.
struct Signed {
    signer: LocalSigner,
    count: Arc<AtomicUsize>,
    fault: Fault,
}

impl Signer for Signed {
    fn key_id(&self, profile: Profile) -> &KeyId {
        self.signer.key_id(profile)
    }

    fn sign(&self, recorded: Recorded) -> Signing<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.fault == Fault::Signer {
            return Box::pin(async { Err(SignError::Signature) });
        }
        self.signer.sign(recorded)
    }
}

pub(super) struct World {
    pub(super) broker: Arc<Broker>,
    pub(super) journal: Arc<Memory>,
    pub(super) source: ManualSource,
    signed: Arc<AtomicUsize>,
}

/// The noon that these tests begin at.
pub(super) const fn at_noon() -> Timestamp {
    Timestamp::from_seconds(1_800_014_400 / 86_400 * 86_400 + 43_200)
}

impl World {
    pub(super) fn new(fault: Fault) -> Self {
        let (clock, source) = Clock::manual(at_noon());
        let folder = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let made = dev::make(folder.path(), any, any, at_noon(), &SystemRandom::new()).unwrap();
        let config = Config::load(&made.config).unwrap();
        let limits = Limits {
            ended_kept_seconds: NonZeroU64::new(KEPT.as_secs()).unwrap(),
            leases_live_per_opener_max: NonZeroU32::new(LEASES_MAX).unwrap(),
            locks_max: NonZeroU32::new(LOCKS_MAX).unwrap(),
            ..config.limits.clone()
        };
        let (journal, signed) = (Arc::new(Memory::new(Incarnation(1))), Arc::new(AtomicUsize::new(0)));
        let memory = InMemory {
            journal: Arc::clone(&journal),
            state: State::default(),
            configuration: Configuration::load(&config, &Discovered::default()).unwrap(),
            limits,
            clock,
            trust_domain: config.trust_domain,
        };
        let count = Arc::clone(&signed);
        let broker = Arc::new(memory.broker(|signer| Arc::new(Signed { signer, count, fault })));
        Self { broker, journal, source, signed }
    }

    /// Whoever that is, verified now.
    pub(super) fn caller(&self, spiffe_id: &str) -> Caller {
        let now = self.broker.clock.now().issue;
        let end = now.after(Duration::from_secs(86_400));
        let certificate = CertificateDigest::of(&[spiffe_id.as_bytes()]);
        Caller::verified_x509_svid(spiffe_id.parse().unwrap(), now, end, key(), certificate)
    }

    pub(super) fn possession(&self) -> Possession {
        let certificate = Some((key(), CertificateDigest::of(&[b"certificate"])));
        Possession { offered: key(), proven: Vec::new(), certificate, claim: None }
    }

    pub(super) async fn open(&self, request_id: &str) -> TaskId {
        let opened = self.broker.create_task(&self.caller(ORCHESTRATOR), task_ask(request_id)).await;
        opened.unwrap().task.opened.id
    }

    pub(super) async fn issue(&self, task: TaskId, request_id: &str) -> Result<String, Refusal> {
        let ask = token_ask(task, request_id);
        let issued = self.broker.issue(&self.caller(AGENT_A), ask, self.possession()).await?;
        match issued.0.into_product() {
            Product::TaskToken(token) => Ok(token.to_string()),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn end(&self, task: TaskId) {
        let reason = ReasonCode::of("completed");
        self.broker.end_task(&self.caller(ORCHESTRATOR), task, Outcome::Completed, reason).await.unwrap();
    }

    pub(super) async fn view(&self, task: TaskId) -> Result<TaskView, Refusal> {
        self.broker.get_task(&self.caller(ORCHESTRATOR), task).await
    }

    pub(super) async fn introspect(&self, token: &str) -> Result<Introspection, Refusal> {
        self.broker.introspect(&self.caller(RESOURCE_SERVER), token, None).await
    }

    pub(super) async fn is_active(&self, token: &str) -> bool {
        self.introspect(token).await.unwrap().active.is_some()
    }

    /// How often a key was used.
    pub(super) fn signed(&self) -> usize {
        self.signed.load(Ordering::SeqCst)
    }

    pub(super) fn journal_newest(&self) -> Revision {
        self.journal.head().newest
    }

    pub(super) fn journal_durable(&self) -> Revision {
        self.journal.head().durable
    }

    pub(super) fn facts(&self) -> Vec<Fact> {
        let read = |written: Arc<brevet_journal::Record>| record::decode(&written.body).unwrap().fact;
        self.journal.records().into_iter().map(read).collect()
    }
}

/// The agent's key.
fn key() -> Thumbprint {
    Thumbprint::from_bytes([7; 32])
}

pub(super) fn task_ask(request_id: &str) -> TaskAsk {
    TaskAsk {
        request_id: RequestId::parse(request_id).unwrap(),
        agent: AGENT_A.parse().unwrap(),
        task_type: TaskType::parse("summarise").unwrap(),
        purpose: PurposeCode::parse("testing").unwrap(),
        sensitivity_max: Sensitivity::Moderate,
        prompt_origin: None,
        scope: scope("reports/**"),
        lifetime: None,
        holder_key: Some(key()),
    }
}

pub(super) fn token_ask(task: TaskId, request_id: &str) -> CredentialAsk {
    CredentialAsk {
        task,
        request_id: RequestId::parse(request_id).unwrap(),
        wanted: Wanted::TaskToken {
            audience: AudienceName::parse(FILES).unwrap(),
            scope: scope("reports/q3"),
        },
        lifetime: None,
        bind_certificate: false,
        prompt_origin: None,
    }
}

fn scope(resource: &str) -> Scope {
    let json = format!(r#"[{{"audience":"{FILES}","resource":"{resource}","actions":["read"]}}]"#);
    serde_json::from_str(&json).unwrap()
}
