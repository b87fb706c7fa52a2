//! A daemon of its own for each test, the identities that call it, and the journal that it leaves behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brevet::clock::Clock;
use brevet::dev;
use brevet_api::v1;
use brevet_client::connect::ConnectError;
use brevet_client::{Broker, Endpoints, Identity, Refusal, ServerTrust, Settings, connect};
use brevet_core::fact::{DeniedOperation, Envelope, Fact};
use brevet_core::record::{self, InvalidRecord};
use brevet_core::time::Timestamp;
use brevet_journal::sqlite::{Options, Sqlite};
use brevet_testkit::ca::{TestCa, TestSvid};
use brevet_testkit::daemon::Daemon;
use ring::rand::SystemRandom;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::documented::assert_documented;

pub(crate) const ORCHESTRATOR: &str = "orchestrator";
pub(crate) const AGENT: &str = "agent-a";
pub(crate) const OTHER_AGENT: &str = "agent-b";
pub(crate) const RESOURCE_SERVER: &str = "resource-server";
pub(crate) const OPERATOR: &str = "operator";

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_brevet"))
}

pub(crate) fn now() -> Timestamp {
    Clock::system(Timestamp::EPOCH, Duration::ZERO).unwrap().now().issue
}

/// Waits for the next whole second. A proof is dated in whole seconds, and none that was made before the daemon started
/// is accepted.
pub(crate) async fn next_second() {
    let left = 1_000 - now().millis() % 1_000;
    tokio::time::sleep(Duration::from_millis(left)).await;
}

/// Waits until a proof that is made now is taken after a restart, whatever clocks were ahead before it.
pub(crate) async fn proofs_are_taken_again() {
    for _ in 0..6 {
        next_second().await;
    }
}

/// What a refusal must have left in the journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Denial {
    pub(crate) method: String,
    /// None for a stranger.
    pub(crate) caller: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) reason: String,
}

type Denials = Arc<Mutex<Vec<Denial>>>;

/// A record of the stopped daemon's journal.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) envelope: Envelope,
    pub(crate) fact: Fact,
    pub(crate) evidence: Option<serde_json::Value>,
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    /// A second authority of the workloads' trust domain, whose key is at hand.
    pub(crate) ca: TestCa,
    pub(crate) daemon: Daemon,
    expected: Denials,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::with(|_, _| {})
    }

    /// Starts a daemon whose configuration and folder were changed.
    pub(crate) fn with(change: impl FnOnce(&mut toml::Table, &Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        dev::make(folder.path(), any, any, now(), &SystemRandom::new()).unwrap();
        let ca = TestCa::new(&dev::WORKLOADS.parse().unwrap(), now());
        let bundle = folder.path().join("workloads.pem");
        let authorities = fs::read_to_string(&bundle).unwrap() + &ca.pem();
        fs::write(bundle, authorities).unwrap();
        configure(folder.path(), |config| {
            config.insert("issuer".to_owned(), "https://broker.dev.example".into());
            config.insert("journal".to_owned(), toml::toml! { reserve_bytes = 65536 }.into());
            // As a broker has it where nobody says otherwise.
            let grpc = config.get_mut("grpc").unwrap().as_table_mut().unwrap();
            grpc.remove("client_certificate");
            change(config, folder.path());
        });
        let daemon = Daemon::start(binary(), folder.path());
        Self { folder, ca, daemon, expected: Denials::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        Endpoints::read(self.folder.path()).unwrap()
    }

    /// Connects as one of the identities that `brevet dev` made.
    pub(crate) async fn client(&self, name: &str) -> Client {
        let endpoints = self.endpoints();
        let files = endpoints.identity(name).unwrap();
        let identity = Identity::load(&files.cert, &files.key).unwrap();
        let broker = self.connect(&identity).await.unwrap();
        self.known(broker, files.spiffe_id.as_str())
    }

    /// Connects as a workload of the test's own authority.
    pub(crate) async fn workload(&self, spiffe_id: &str) -> Client {
        let broker = self.connect(&self.identity(&self.ca.svid(spiffe_id))).await.unwrap();
        self.known(broker, spiffe_id)
    }

    /// Connects as an instance of an agent with a key of its own, and gives that key's thumbprint.
    pub(crate) async fn instance(&self, spiffe_id: &str) -> (Client, String) {
        let svid = self.ca.svid(spiffe_id);
        let key = brevet_client::dpop::HolderKey::from_pem(svid.key.as_bytes()).unwrap();
        let broker = self.connect(&self.identity(&svid)).await.unwrap();
        (self.known(broker, spiffe_id), key.thumbprint().to_string())
    }

    /// A client of which the journal is to say that its caller is this one.
    pub(crate) fn known(&self, broker: Broker, spiffe_id: &str) -> Client {
        Client { broker, caller: Some(spiffe_id.to_owned()), expected: Arc::clone(&self.expected) }
    }

    /// What the daemon measures now.
    pub(crate) async fn metrics(&self) -> String {
        let mut stream =
            TcpStream::connect(self.endpoints().http.trim_start_matches("http://")).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A client of which the journal is to know no caller.
    pub(crate) fn stranger(&self, broker: Broker) -> Client {
        Client { broker, caller: None, expected: Arc::clone(&self.expected) }
    }

    /// Connects as a workload of a trust domain that the authority of another signed for: a stranger.
    pub(crate) async fn nobody(&self) -> Client {
        let svid = self.ca.svid("spiffe://other.example/agent/a");
        self.stranger(self.connect(&self.identity(&svid)).await.unwrap())
    }

    pub(crate) fn identity(&self, svid: &TestSvid) -> Identity {
        let (certificate, key) = (self.path("test-svid.pem"), self.path("test-svid.key"));
        fs::write(&certificate, &svid.certificate).unwrap();
        fs::write(&key, &svid.key).unwrap();
        Identity::load(&certificate, &key).unwrap()
    }

    pub(crate) async fn connect(&self, identity: &Identity) -> Result<Broker, ConnectError> {
        let endpoints = self.endpoints();
        connect(&endpoints.grpc, identity, &self.server_trust(), &Settings::default()).await
    }

    pub(crate) fn server_trust(&self) -> ServerTrust {
        ServerTrust::load(&self.path("state/ca.pem"), self.endpoints().server_spiffe_id).unwrap()
    }

    /// Changes the configuration file; the daemon is not told.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut toml::Table)) {
        configure(self.folder.path(), change);
    }

    /// A task for the agent that `holder` is the key of.
    pub(crate) async fn open_task(&self, request: v1::CreateTaskRequest) -> v1::Task {
        self.client(ORCHESTRATOR).await.create(request).await.ok().task.unwrap()
    }

    /// The thumbprint of an identity's key.
    pub(crate) fn thumbprint(&self, name: &str) -> String {
        self.holder_key(name).thumbprint().to_string()
    }

    pub(crate) fn holder_key(&self, name: &str) -> brevet_client::dpop::HolderKey {
        let pem = fs::read(self.path(&format!("{name}.key"))).unwrap();
        brevet_client::dpop::HolderKey::from_pem(&pem).unwrap()
    }

    /// A request to open a task for the first agent.
    pub(crate) fn create(&self, request_id: &str) -> v1::CreateTaskRequest {
        v1::CreateTaskRequest {
            request_id: request_id.to_owned(),
            agent: "spiffe://workloads.dev.example/agent/a".to_owned(),
            task_type: "summarise".to_owned(),
            purpose: "testing".to_owned(),
            sensitivity_max: v1::Sensitivity::Moderate.into(),
            prompt_origin: v1::PromptOrigin::User.into(),
            scope: vec![permission(FILES, "reports/**", &["read"]), permission(STATUS, "health", &["read"])],
            lifetime: None,
            holder_key_thumbprint: Some(self.thumbprint(AGENT)),
        }
    }

    /// Stops the daemon and holds its journal against what was answered: one record for each refusal and for each
    /// effect (invariant U1).
    pub(crate) fn finish(self) -> Vec<Written> {
        let mut expected = self.expected.lock().unwrap().clone();
        let journal = self.stop();
        let mut denials = denials(&journal);
        expected.sort();
        denials.sort();
        assert_eq!(denials, expected, "what the journal says was refused");
        journal
    }

    /// Stops the daemon and reads its journal, where it is not known how often something was refused.
    pub(crate) fn stop(mut self) -> Vec<Written> {
        if self.daemon.runs() {
            assert!(self.daemon.stop().success());
        }
        let journal = read_journal(self.folder.path());
        let mut effects: Vec<_> = journal.iter().filter_map(effect).collect();
        let all = effects.len();
        effects.sort();
        effects.dedup();
        assert_eq!(effects.len(), all, "an effect is recorded once");
        journal
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap()
    }
}

/// What makes an effect the same effect: who asked, by which name, of which task, and what came of it. Names of
/// requests are a task's: the one that was drawn on or delegated from, and the tree's where one was opened.
fn effect(written: &Written) -> Option<(String, String, String, &'static str)> {
    let envelope = &written.envelope;
    let text = |value: Option<String>| value.expect("an effect says who asked for what, and by which name");
    let (of, kind) = match &written.fact {
        Fact::TaskOpened(opened) => (opened.parent.map(|parent| parent.to_string()), "opened"),
        Fact::LeaseIssued { terms, .. } => (Some(terms.id.task.to_string()), "issued"),
        _ => return None,
    };
    let of = text(of.or_else(|| envelope.tree.map(|tree| tree.to_string())));
    let caller = text(envelope.caller.as_ref().map(ToString::to_string));
    Some((caller, text(envelope.request_id.as_ref().map(ToString::to_string)), of, kind))
}

fn configure(folder: &Path, change: impl FnOnce(&mut toml::Table)) {
    let path = folder.join("brevet.toml");
    let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    change(&mut config);
    replace(&path, &toml::to_string(&config).unwrap());
}

/// Changes a file as a whole, so that nobody reads half of it.
pub(crate) fn replace(path: &Path, text: &str) {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text).unwrap();
    fs::rename(&unfinished, path).unwrap();
}

/// Every record of a journal whose daemon does not run.
pub(crate) fn read_journal(folder: &Path) -> Vec<Written> {
    let mut written = Vec::new();
    let recovery = Sqlite::open(Options { reserve_bytes: 0, ..Options::new(folder.join("state")) }).unwrap();
    recovery
        .replay(|replayed| {
            let record = record::decode(replayed.body)?;
            let evidence = record.evidence.map(|json| serde_json::from_str(json.get()).unwrap());
            written.push(Written { envelope: record.envelope, fact: record.fact, evidence });
            Ok::<_, InvalidRecord>(())
        })
        .unwrap();
    written
}

fn denials(journal: &[Written]) -> Vec<Denial> {
    let denial = |written: &Written| {
        let Fact::Denied { operation, reason, .. } = &written.fact else { return None };
        let method = match operation {
            DeniedOperation::Method(method) => method.clone(),
            DeniedOperation::Operation(operation) => format!("{operation:?}"),
        };
        Some(Denial {
            method,
            caller: written.envelope.caller.as_ref().map(ToString::to_string),
            request_id: written.envelope.request_id.as_ref().map(ToString::to_string),
            reason: reason.as_str().to_owned(),
        })
    };
    journal.iter().filter_map(denial).collect()
}

pub(crate) const FILES: &str = "https://files.dev.example";
pub(crate) const STATUS: &str = "https://status.dev.example";

pub(crate) fn permission(audience: &str, resource: &str, actions: &[&str]) -> v1::Permission {
    v1::Permission {
        audience: audience.to_owned(),
        resource: resource.to_owned(),
        actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        constraints: std::collections::BTreeMap::new(),
    }
}

/// A request for a credential that may read one report.
pub(crate) fn issue(task: &str, request_id: &str) -> v1::IssueCredentialRequest {
    v1::IssueCredentialRequest {
        task: task.to_owned(),
        request_id: request_id.to_owned(),
        profile: v1::Profile::TaskToken.into(),
        audience: FILES.to_owned(),
        scope: vec![permission(FILES, "reports/q3", &["read"])],
        lifetime: None,
        claim: None,
        dpop_proof: None,
        csr: None,
        bind_certificate: false,
        prompt_origin: v1::PromptOrigin::Unspecified.into(),
    }
}

/// A request for the same credential once more.
pub(crate) fn renew(lease: &str, request_id: &str) -> v1::RenewCredentialRequest {
    v1::RenewCredentialRequest {
        lease: lease.to_owned(),
        request_id: request_id.to_owned(),
        ..v1::RenewCredentialRequest::default()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form in which a request carries it")]
pub(crate) const fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// One caller on one connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) broker: Broker,
    caller: Option<String>,
    expected: Denials,
}

/// What a call came to, and what it would leave in the journal if it was refused.
#[must_use]
pub(crate) struct Answer<T> {
    call: Denial,
    result: Result<T, Status>,
    expected: Denials,
}

impl<T: std::fmt::Debug> Answer<T> {
    #[track_caller]
    pub(crate) fn ok(self) -> T {
        let Denial { method, request_id, .. } = &self.call;
        self.result.unwrap_or_else(|status| panic!("{method} {request_id:?}: {status:?}"))
    }

    /// The call was refused with this code and this reason, and the journal will say the same.
    #[track_caller]
    pub(crate) fn refused(self, code: Code, reason: &str) -> Status {
        self.refused_for(code, &reason.to_uppercase(), reason)
    }

    /// It was refused before its message was read, so that its record has no name.
    pub(crate) fn unread(mut self) -> Self {
        self.call.request_id = None;
        self
    }

    /// The caller is told less than the journal.
    #[track_caller]
    pub(crate) fn refused_for(self, code: Code, told: &str, recorded: &str) -> Status {
        let Self { mut call, result, expected } = self;
        let status = match result {
            Ok(answer) => panic!("{} {:?} was answered: {answer:?}", call.method, call.request_id),
            Err(status) => status,
        };
        let refusal = Refusal::from_status(&status);
        assert_eq!(
            (status.code(), refusal.reason.as_deref()),
            (code, Some(told)),
            "{} {:?}: {status:?}",
            call.method,
            call.request_id
        );
        assert_documented(&call.method, code, told);
        recorded.clone_into(&mut call.reason);
        expected.lock().unwrap().push(call);
        status
    }

    /// The reason that the caller is told, if it is refused.
    pub(crate) fn reason(&self) -> Option<String> {
        self.result.as_ref().err().and_then(|status| Refusal::from_status(status).reason)
    }

    pub(crate) const fn is_ok(&self) -> bool {
        self.result.is_ok()
    }

    /// Whether the call was answered; if not, it was refused with this code and reason, and the journal will say the same.
    #[track_caller]
    pub(crate) fn answered_or_refused(self, code: Code, reason: &str) -> bool {
        let is_ok = self.is_ok();
        if !is_ok {
            self.refused(code, reason);
        }
        is_ok
    }

    /// The result, for calls that the journal need not know of.
    pub(crate) fn result(self) -> Result<T, Status> {
        self.result
    }
}

macro_rules! methods {
    ($($name:ident, $method:literal, $service:ident.$stub:ident, $request:ident => $response:ident, $id:expr;)*) => {
        $(pub(crate) async fn $name(&self, request: v1::$request) -> Answer<v1::$response> {
            let id: fn(&v1::$request) -> Option<&str> = $id;
            let request_id = id(&request).filter(|id| id.parse_request_id()).map(str::to_owned);
            let result = self.broker.$service().$stub(request).await.map(tonic::Response::into_inner);
            self.answer($method, request_id, result)
        })*
    };
}

trait RequestIdText {
    fn parse_request_id(&self) -> bool;
}

impl RequestIdText for &str {
    /// The journal holds a request's name only if it is one.
    fn parse_request_id(&self) -> bool {
        brevet_core::name::RequestId::parse(self).is_ok()
    }
}

impl Client {
    /// Whether the journal is to know the caller.
    pub(crate) const fn is_known(&self) -> bool {
        self.caller.is_some()
    }

    pub(crate) fn answer<T>(
        &self,
        method: &str,
        request_id: Option<String>,
        result: Result<T, Status>,
    ) -> Answer<T> {
        let caller = self.caller.clone();
        // A stranger's request is not read.
        let request_id = request_id.filter(|_| caller.is_some());
        let call = Denial { method: method.to_owned(), caller, request_id, reason: String::new() };
        Answer { call, result, expected: Arc::clone(&self.expected) }
    }

    methods! {
        create, "CreateTask", tasks.create_task, CreateTaskRequest => CreateTaskResponse, |it| Some(&it.request_id);
        list, "ListTasks", tasks.list_tasks, ListTasksRequest => ListTasksResponse, |_| None;
        issue, "IssueCredential", credentials.issue_credential,
            IssueCredentialRequest => IssueCredentialResponse, |it| Some(&it.request_id);
        renew, "RenewCredential", credentials.renew_credential,
            RenewCredentialRequest => RenewCredentialResponse, |it| Some(&it.request_id);
        give_back_with, "ReturnCredential", credentials.return_credential,
            ReturnCredentialRequest => ReturnCredentialResponse, |_| None;
        delegate, "DelegateTask", credentials.delegate_task,
            DelegateTaskRequest => DelegateTaskResponse, |it| Some(&it.request_id);
        events, "ListEvents", audit.list_events, ListEventsRequest => ListEventsResponse, |_| None;
        introspect_with, "IntrospectCredential", revocations.introspect_credential,
            IntrospectCredentialRequest => IntrospectCredentialResponse, |_| None;
        get_with, "GetTask", tasks.get_task, GetTaskRequest => Task, |_| None;
        complete_with, "CompleteTask", tasks.complete_task, CompleteTaskRequest => CompleteTaskResponse, |_| None;
        fail_with, "FailTask", tasks.fail_task, FailTaskRequest => FailTaskResponse, |_| None;
        cancel_with, "CancelTask", tasks.cancel_task, CancelTaskRequest => CancelTaskResponse, |_| None;
    }

    pub(crate) async fn get(&self, name: &str) -> Answer<v1::Task> {
        self.get_with(v1::GetTaskRequest { name: name.to_owned() }).await
    }

    pub(crate) async fn complete(&self, name: &str) -> Answer<v1::CompleteTaskResponse> {
        self.complete_with(v1::CompleteTaskRequest { name: name.to_owned(), reason: String::new() }).await
    }

    pub(crate) async fn fail(&self, name: &str) -> Answer<v1::FailTaskResponse> {
        self.fail_with(v1::FailTaskRequest { name: name.to_owned(), reason: String::new() }).await
    }

    pub(crate) async fn cancel(&self, name: &str) -> Answer<v1::CancelTaskResponse> {
        self.cancel_with(v1::CancelTaskRequest { name: name.to_owned(), reason: String::new() }).await
    }

    pub(crate) async fn introspect(&self, token: &str) -> Answer<v1::IntrospectCredentialResponse> {
        let request = v1::IntrospectCredentialRequest { token: token.to_owned(), min_revision: None };
        self.introspect_with(request).await
    }

    pub(crate) async fn give_back(&self, lease: &str) -> Answer<v1::ReturnCredentialResponse> {
        self.give_back_with(v1::ReturnCredentialRequest { lease: lease.to_owned(), dpop_proof: None }).await
    }

    /// What is issued for a task, which is to succeed.
    #[track_caller]
    pub(crate) fn issued(&self, task: &str, request_id: &str) -> impl Future<Output = v1::Credential> {
        let (client, request) = (self.clone(), issue(task, request_id));
        async move { client.issue(request).await.ok().credential.unwrap() }
    }

    /// Follows the audit log.
    pub(crate) async fn tail(&self, cursor: Option<v1::Cursor>) -> Answer<tonic::Streaming<v1::Event>> {
        let request = v1::TailEventsRequest { cursor };
        let result = self.broker.audit().tail_events(request).await.map(tonic::Response::into_inner);
        self.answer("TailEvents", None, result)
    }

    /// Whether a token is live, by the resource server that this client is.
    pub(crate) async fn is_active(&self, token: &str) -> bool {
        self.introspect(token).await.ok().active
    }
}

/// The claims of a token that was just minted; that its signature holds is shown elsewhere.
pub(crate) fn claims(token: &str) -> serde_json::Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// Waits until something is so, at most for a while.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 30 s: {what}");
}
