//! Requests: any method with any message, to a broker that keeps everything in memory.

use std::cell::RefCell;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use brevet::bookmarks::Bookmarks;
use brevet::broker::{Broker, Parts};
use brevet::clock::Clock;
use brevet::config::{Config, Limits};
use brevet::configuration::Configuration;
use brevet::dev;
use brevet::discovery::Discovered;
use brevet::grpc::{self, CallerCredentials, Peer, ProofMemory};
use brevet::metrics::Metrics;
use brevet::remembered::RememberedLimits;
use brevet::table::Table;
use brevet::token_bindings::TokenBindings;
use brevet_api::v1;
use brevet_core::revision::Incarnation;
use brevet_core::state::State;
use brevet_core::time::Timestamp;
use brevet_identity::bearer;
use brevet_identity::jwk_set::JwkSet;
use brevet_identity::key::PublicKey;
use brevet_identity::trust::CallerTrust;
use brevet_mint::ca::CaKey;
use brevet_mint::jwks;
use brevet_mint::key::{JwtSvids, SigningKey, TaskTokens};
use brevet_mint::plan::Planner;
use brevet_mint::signer::LocalSigner;
use brevet_mint::state_key::StateKey;
use brevet_testkit::journal::Memory;
use prost::Message;
use ring::rand::SystemRandom;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};
use tower::ServiceExt;

use super::headers::{Bearer, Headers};

/// The methods that answer once, each with its service.
pub const METHODS: [(&str, &str); 20] = [
    ("TaskService", "CreateTask"),
    ("TaskService", "GetTask"),
    ("TaskService", "ListTasks"),
    ("TaskService", "CompleteTask"),
    ("TaskService", "FailTask"),
    ("TaskService", "CancelTask"),
    ("CredentialService", "IssueCredential"),
    ("CredentialService", "RenewCredential"),
    ("CredentialService", "ReturnCredential"),
    ("CredentialService", "DelegateTask"),
    ("LeaseService", "GetLease"),
    ("LeaseService", "ListLeases"),
    ("LeaseService", "RevokeLease"),
    ("LeaseService", "RevokeLeases"),
    ("LockService", "CreateLock"),
    ("LockService", "GetLock"),
    ("LockService", "ListLocks"),
    ("LockService", "LiftLock"),
    ("RevocationService", "IntrospectCredential"),
    ("AuditService", "ListEvents"),
];

/// Who calls: the throw-away identities, the last of which has no certificate.
pub const PEERS: [&str; 6] =
    ["agent-a", "agent-b", "orchestrator", "operator", "resource-server", dev::BEARERS[0].0];

/// What is added to a caller's place if the message stands behind headers.
pub const WITH_HEADERS: u8 = 0x80;

/// The URL of the broker, which proofs name.
const URL: &str = "https://broker.example";

/// What stands in a message for the name of a task that is open. It is as long as any root task's.
pub const TASK: &str = "tasks/TTTTTTTTTTTTTTTTTTTTTTTTTT";

/// What stands in a message for the name of a lease of that task.
pub const LEASE: &str = "tasks/TTTTTTTTTTTTTTTTTTTTTTTTTT/leases/LLLLLLLLLLLLLLLLLLLLLLLLLL";

/// After so many requests the broker is another, so that it does not grow for ever.
const REQUESTS_MAX: u32 = 2_000;

const BEGAN: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// What is the same for every broker: making it takes long.
struct Ground {
    configuration: Configuration,
    config: Config,
    peers: Vec<Arc<[CertificateDer<'static>]>>,
    bearer: Bearer,
    state_key: PathBuf,
    _folder: TempDir,
}

static GROUND: LazyLock<Ground> = LazyLock::new(|| {
    let (folder, any) = (TempDir::new().unwrap(), "127.0.0.1:0".parse().unwrap());
    let made = dev::make(folder.path(), any, any, BEGAN, &SystemRandom::new()).unwrap();
    let config = Config::load(&made.config).unwrap();
    let chain = |name: &&str| {
        let pem = std::fs::read(folder.path().join(format!("{name}.pem"))).unwrap_or_default();
        CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().unwrap().into()
    };
    let bearer = Bearer::new(folder.path(), &config.issuer, BEGAN);
    Ground {
        configuration: Configuration::load(&config, &Discovered::default()).unwrap(),
        config,
        peers: PEERS.iter().map(chain).collect(),
        bearer,
        state_key: folder.path().join("state.key"),
        _folder: folder,
    }
});

struct World {
    router: Router,
    trust: Arc<CallerTrust>,
    task: String,
    lease: String,
    served: u32,
}

thread_local! {
    // Lists are made on threads that may block, which only this kind of runtime has.
    static RUNTIME: Runtime = {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    };
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// A method's place in [`METHODS`], a caller's in [`PEERS`], and the message, with headers before it where the caller's
/// place says so.
pub fn request(bytes: &[u8]) {
    let [method, peer, message @ ..] = bytes else { return };
    let mut message = message;
    let headers =
        if peer & WITH_HEADERS == 0 { Some(Headers::default()) } else { Headers::read(&mut message) };
    let peer = GROUND.peers.get(usize::from(peer & !WITH_HEADERS));
    let (Some(method), Some(peer), Some(headers)) = (METHODS.get(usize::from(*method)), peer, headers) else {
        return;
    };
    RUNTIME.with(|runtime| {
        WORLD.with_borrow_mut(|world| {
            runtime.block_on(async {
                if world.as_ref().is_none_or(|world| world.served >= REQUESTS_MAX) {
                    *world = Some(World::new().await);
                }
                world.as_mut().unwrap().serve(*method, peer, &headers, message).await;
            });
        });
    });
}

/// What came back: the status, and the message of an answer.
type Answer = (i32, Vec<u8>);

impl World {
    async fn new() -> Self {
        let ground = &*GROUND;
        let broker = Arc::new(broker(ground));
        let few = RememberedLimits { per_tenant: 1_000, per_owner: 1_000 };
        let credentials = CallerCredentials {
            bindings: TokenBindings::restored([], |_| None, few),
            token_limits: bearer::Limits::default(),
            proofs: ProofMemory::new(BEGAN, true, few),
        };
        let mut world = Self {
            router: grpc::routes(&broker, &ground.config.grpc, credentials, URL, &Handle::current()).unwrap(),
            trust: Arc::clone(&ground.configuration.trust),
            task: String::new(),
            lease: String::new(),
            served: 0,
        };
        world.open_task(ground).await;
        world
    }

    /// Opens the task and issues the lease that messages name.
    async fn open_task(&mut self, ground: &Ground) {
        let (audience, none) = ("https://files.dev.example".to_owned(), Headers::default());
        let permission = |resource: &str| v1::Permission {
            audience: audience.clone(),
            resource: resource.to_owned(),
            actions: vec!["read".to_owned()],
            ..Default::default()
        };
        // It is bound to the agent's own key, so the agent needs no claim.
        let holder = PublicKey::from_certificate(&ground.peers[0][0]).unwrap().thumbprint();
        let create = v1::CreateTaskRequest {
            request_id: "the-open-task".to_owned(),
            agent: format!("spiffe://{}/agent/a", dev::WORKLOADS),
            task_type: "summarise".to_owned(),
            purpose: "testing".to_owned(),
            sensitivity_max: v1::Sensitivity::Moderate.into(),
            scope: vec![permission("reports/**")],
            holder_key_thumbprint: Some(holder.to_string()),
            ..Default::default()
        };
        let (status, answer) = self.call(METHODS[0], &ground.peers[2], &none, &create.encode_to_vec()).await;
        assert_eq!(status, 0, "the task is opened");
        self.task = granted(METHODS[0].1, &answer).unwrap();
        assert_eq!(self.task.len(), TASK.len());
        let issue = v1::IssueCredentialRequest {
            task: self.task.clone(),
            request_id: "the-lease".to_owned(),
            profile: v1::Profile::TaskToken.into(),
            audience: audience.clone(),
            scope: vec![permission("reports/q3")],
            ..Default::default()
        };
        let (status, answer) = self.call(METHODS[6], &ground.peers[0], &none, &issue.encode_to_vec()).await;
        assert_eq!(status, 0, "the lease is issued");
        self.lease = granted(METHODS[6].1, &answer).unwrap();
        assert_eq!(self.lease.len(), LEASE.len());
    }

    async fn serve(
        &mut self,
        method: (&str, &str),
        peer: &Arc<[CertificateDer<'static>]>,
        headers: &Headers,
        message: &[u8],
    ) {
        let message = replaced(message, LEASE.as_bytes(), self.lease.as_bytes());
        let message = replaced(&message, TASK.as_bytes(), self.task.as_bytes());
        let (status, answer) = self.call(method, peer, headers, &message).await;
        // Neither unknown nor internal: every error is one that somebody thought of.
        assert!(![2, 13].contains(&status), "{method:?} answers {status}");
        // Nobody is somebody without a proof, and nobody by two.
        let is_nobody = if peer.is_empty() { !headers.may_prove() } else { headers.show() };
        assert!(!is_nobody || status == 16, "{method:?} answers {status} to nobody");
        if status != 0 {
            return;
        }
        // Whoever asks again with what was granted is granted the same: there is one such thing for a request.
        if let Some(granted) = granted(method.1, &answer) {
            let (status, answer) = self.call(method, peer, &headers.again(), &message).await;
            assert_eq!(status, 0, "{method:?} is not granted again");
            assert_eq!(self::granted(method.1, &answer), Some(granted));
        }
        // What ends or stops much leaves little for the next.
        if ["CompleteTask", "FailTask", "CancelTask", "RevokeLeases", "CreateLock"].contains(&method.1) {
            self.served = REQUESTS_MAX;
        }
    }

    async fn call(
        &mut self,
        (service, method): (&str, &str),
        peer: &Arc<[CertificateDer<'static>]>,
        headers: &Headers,
        message: &[u8],
    ) -> Answer {
        self.served += 1;
        let trust = Arc::clone(&self.trust);
        let peer = Peer::new(Arc::clone(peer), Arc::new(move || Arc::clone(&trust)), None);
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let path = format!("/brevet.v1.{service}/{method}");
        let request = Request::post(&path).header("content-type", "application/grpc").extension(peer);
        let request = GROUND.bearer.write(headers, &format!("{URL}{path}"), request);
        // What is no header field at all does not come so far.
        let Ok(request) = request.body(Body::from([&[0], length.as_slice(), message].concat())) else {
            return (16, Vec::new());
        };
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        // An answer's status comes behind it, a refusal's instead.
        let status = head.headers.get("grpc-status").map(|status| status.to_str().unwrap().parse().unwrap());
        (status.unwrap_or(0), body.get(5..).unwrap_or_default().to_vec())
    }
}

/// The name of what a method granted.
fn granted(method: &str, answer: &[u8]) -> Option<String> {
    let name = match method {
        "CreateTask" => v1::CreateTaskResponse::decode(answer).unwrap().task?.name,
        "DelegateTask" => v1::DelegateTaskResponse::decode(answer).unwrap().task?.name,
        "IssueCredential" => v1::IssueCredentialResponse::decode(answer).unwrap().credential?.lease,
        "RenewCredential" => v1::RenewCredentialResponse::decode(answer).unwrap().credential?.lease,
        "CreateLock" => v1::Lock::decode(answer).unwrap().name,
        _ => return None,
    };
    Some(name)
}

fn broker(ground: &Ground) -> Broker {
    let (clock, _source) = Clock::manual(BEGAN);
    let rng = SystemRandom::new();
    let limits = Limits {
        leases_live_per_opener_max: NonZeroU32::new(4_000).unwrap(),
        ended_kept_seconds: NonZeroU64::new(600).unwrap(),
        ..ground.config.limits.clone()
    };
    let issuer = ground.config.issuer.clone();
    let trust_domain = ground.config.trust_domain.clone();
    let life = Duration::from_secs(86_400 * 365);
    let authority = Arc::new(CaKey::ephemeral(&trust_domain, BEGAN, life, &rng).unwrap());
    let token_key: SigningKey<TaskTokens> = SigningKey::ephemeral(&rng).unwrap();
    let published = jwks::task_tokens([token_key.public_jwk()]);
    let svid_key: SigningKey<JwtSvids> = SigningKey::ephemeral(&rng).unwrap();
    let bundle = jwks::jwt_svids([svid_key.public_jwk()]);
    let (kid, svid_kid) = (token_key.kid().clone(), svid_key.kid().clone());
    let journal = Arc::new(Memory::new(Incarnation(1)));
    Broker::new(Parts {
        table: Table::restored(State::default(), ground.configuration.clone(), limits.capacity(), journal),
        clock,
        metrics: Arc::new(Metrics::new(Vec::new())),
        planner: Planner::new(issuer.clone(), kid, svid_kid, &authority, limits.lease_lifetime_max()),
        signer: Arc::new(LocalSigner::new(token_key, issuer.clone(), svid_key, authority, rng.clone())),
        keys: JwkSet::parse(published.as_bytes()).unwrap(),
        jwt_svid_keys: JwkSet::parse_bundle(bundle.as_bytes()).unwrap(),
        state_key: StateKey::load_or_create(&ground.state_key, &rng).unwrap(),
        bookmarks: Bookmarks::new(SigningKey::ephemeral(&rng).unwrap(), rng.clone()),
        issuer,
        trust_domain,
        limits,
        rng,
    })
}

/// The message with every occurrence of one text replaced by another of the same length.
fn replaced(message: &[u8], text: &[u8], by: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let mut at = 0;
    while let Some(window) = message.get_mut(at..at + text.len()) {
        if window == text {
            window.copy_from_slice(by);
        }
        at += 1;
    }
    message
}
