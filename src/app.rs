//! The composition root: builds every part once, in order, and runs them until told to stop.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use brevet_core::fact::{Envelope, Fact};
use brevet_core::record::{self, InvalidRecord};
use brevet_core::revision::Revision;
use brevet_core::state::State;
use brevet_core::time::Now;
use brevet_identity::jwk_set::{InvalidJwkSet, JwkSet};
use brevet_identity::tls::TrustSource;
use brevet_identity::trust::CallerTrust;
use brevet_journal::checkpoint::{CheckpointSigner, Signature, SigningFailed};
use brevet_journal::sqlite::{OpenError, Options, Sqlite};
use brevet_journal::{Entry, Journal, Kind, Sealed, SnapshotError};
use brevet_mint::ca::{CaError, CaFiles, CaKey, ServerCertificateError, ServerNames};
use brevet_mint::jwks;
use brevet_mint::key::{Checkpoints, SigningKey, TaskTokens};
use brevet_mint::key_file::KeyError;
use brevet_mint::plan::Planner;
use brevet_mint::signer::LocalSigner;
use brevet_mint::state_key::StateKey;
use ring::rand::SystemRandom;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::sync::{Semaphore, watch};
use tracing::{error, info, warn};

use crate::broker::{Broker, MinuteBudget};
use crate::clock::{Clock, ClockError, ClockState};
use crate::config::{Config, ConfigError};
use crate::configuration::{Configuration, ConfigurationError};
use crate::grpc::{self, Peer, ProofMemory};
use crate::http::{HttpListener, ListenError, PublicDocuments, Readiness, Site};
use crate::metrics::Metrics;
use crate::net::{Admitted, Counters, Endpoint, TlsConfig, TlsPeer};
use crate::reaper;
use crate::reload::{self, Reloader};
use crate::table::Table;

/// The key of the journal's checkpoints, in the state directory.
pub const CHECKPOINT_KEY_FILE: &str = "checkpoint.key";
/// The key of task tokens, in the state directory.
pub const TASK_TOKEN_KEY_FILE: &str = "task-token.key";
/// The key of root task ids and claims, in the state directory.
const STATE_KEY_FILE: &str = "state.key";
/// The key of the broker's own authority, in the state directory.
const CA_KEY_FILE: &str = "ca.key";
/// How long the broker's own authority lives.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long the broker's own certificate lives; it is renewed after half of that.
const SERVER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(86_400);
/// When a renewal that failed is tried again.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);
/// How often a consumer of the SPIFFE bundle is asked to come back, in seconds.
const BUNDLE_REFRESH_HINT_SECONDS: u64 = 300;

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The description of the services does not read.
    #[error("the description of the services does not read")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The registry, a policy or a bundle is refused.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path}")]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The journal is refused.
    #[error("the journal is refused: {0}")]
    Journal(#[from] OpenError),
    /// The snapshot is not one of this program's, or could not be made.
    #[error("the snapshot of the state is refused")]
    Snapshot(#[source] serde_json::Error),
    /// The snapshot is not the one that the chain of records names.
    #[error("no record names the snapshot of the state: somebody has put it there")]
    UnvouchedSnapshot,
    /// A snapshot could not be kept.
    #[error("a snapshot of the state could not be kept")]
    KeepSnapshot(#[from] SnapshotError),
    /// A private key is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The journal has records, and a key that belongs to them is gone.
    #[error("{0} is missing beside a journal that has records")]
    KeyMissing(PathBuf),
    /// The broker's own authority is refused.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The broker's own certificate could not be made.
    #[error(transparent)]
    ServerCertificate(#[from] ServerCertificateError),
    /// The published keys do not read back.
    #[error("the published keys do not read back")]
    PublishedKeys(#[from] InvalidJwkSet),
    /// There is no clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// TLS refuses the broker's own certificate.
    #[error("TLS refuses the broker's own certificate")]
    Tls(#[from] rustls::Error),
    /// A socket cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The HTTP socket cannot be bound.
    #[error(transparent)]
    Http(#[from] ListenError),
    /// The journal could not record that the configuration is in force.
    #[error("the configuration could not be put in force: {0}")]
    Configure(String),
    /// The journal could not record the start.
    #[error("the start could not be recorded")]
    Sealed(#[from] Sealed),
}

/// Everything the daemon is made of, started but not serving yet.
pub struct App {
    config: Config,
    broker: Arc<Broker>,
    journal: Arc<Sqlite>,
    authority: CaKey,
    reloader: Reloader,
    hangups: Option<Signal>,
    grpc: TcpListener,
    http: HttpListener,
    site: Site,
    stopping: Arc<AtomicBool>,
    endpoint: Endpoint,
    tls: TlsConfig,
    http_counters: Arc<Counters>,
}

/// Why the daemon stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StopError {
    /// The journal sealed itself: what was acknowledged is safe, and nothing more can be.
    #[error("the journal is sealed")]
    Sealed,
}

/// Checks a configuration with everything it names, and changes nothing.
///
/// # Errors
/// [`StartError`] as a start would.
pub fn check(path: &Path) -> Result<(), StartError> {
    let config = Config::load(path)?;
    Configuration::load(&config)?;
    let (directory, rng) = (&config.state_directory, SystemRandom::new());
    SigningKey::<Checkpoints>::load(&directory.join(CHECKPOINT_KEY_FILE), &rng)?;
    SigningKey::<TaskTokens>::load(&directory.join(TASK_TOKEN_KEY_FILE), &rng)?;
    Ok(())
}

impl App {
    /// Builds every part: replays the journal, puts the configuration in force, and binds the sockets last.
    ///
    /// # Errors
    /// [`StartError`]; nothing was served then.
    pub async fn build(path: &Path) -> Result<Self, StartError> {
        // 1. What was written by people is refused first.
        let config = Config::load(path)?;
        let reloader = Reloader::new(path, &config);
        let configuration = Configuration::load(&config)?;

        // 2. The journal is read, and the state is its fold.
        let directory = &config.state_directory;
        create_state_directory(directory)
            .map_err(|source| StartError::StateDirectory { path: directory.clone(), source })?;
        let recovery = Sqlite::open(Options {
            reserve_bytes: config.journal.reserve_bytes,
            checkpoint_records: config.journal.checkpoint_records.get(),
            ..Options::new(directory)
        })?;
        let (mut state, snapshot) = match recovery.snapshot() {
            None => (State::default(), None),
            Some(kept) => (
                State::from_snapshot(&kept.state).map_err(StartError::Snapshot)?,
                Some((kept.revision, kept.digest)),
            ),
        };
        let mut vouched = snapshot.is_none();
        let verified = recovery.replay(|replayed| {
            let record = record::decode(replayed.body)?;
            if let Fact::SnapshotTaken { revision, digest } = &record.fact {
                vouched |= snapshot == Some((*revision, *digest));
            }
            state.apply(&record.envelope, &record.fact, replayed.revision);
            Ok::<_, InvalidRecord>(())
        })?;
        if !vouched {
            return Err(StartError::UnvouchedSnapshot);
        }
        let replayed = verified.head();

        // 3. The clock starts where the journal's time stood.
        let tolerance = Duration::from_secs(config.clock.tolerance_seconds.get().into());
        let clock = Clock::system(state.judged, tolerance)?;

        // 4. The keys, made at the first start and never beside records that other keys vouch for.
        if replayed > Revision::ZERO {
            for name in [CHECKPOINT_KEY_FILE, TASK_TOKEN_KEY_FILE, STATE_KEY_FILE, CA_KEY_FILE] {
                let path = directory.join(name);
                if !path.exists() {
                    return Err(StartError::KeyMissing(path));
                }
            }
        }
        let rng = SystemRandom::new();
        let now = clock.now().issue;
        let checkpoint_key = SigningKey::load_or_create(&directory.join(CHECKPOINT_KEY_FILE), &rng)?;
        let token_key: SigningKey<TaskTokens> =
            SigningKey::load_or_create(&directory.join(TASK_TOKEN_KEY_FILE), &rng)?;
        let state_key = StateKey::load_or_create(&directory.join(STATE_KEY_FILE), &rng)?;
        let files = CaFiles { key: directory.join(CA_KEY_FILE), certificate: directory.join("ca.pem") };
        let authority = CaKey::load_or_create(&files, &config.trust_domain, now, AUTHORITY_LIFETIME, &rng)?;

        // 5. The journal writes from here on.
        let checkpoints = Arc::new(CheckpointWriter { key: checkpoint_key, rng: rng.clone() });
        let time = clock.clone();
        let journal = Arc::new(verified.start(
            state.control.revision(),
            checkpoints,
            Arc::new(move || time.now().judge),
        )?);

        let since_snapshot = replayed.0.saturating_sub(snapshot.map_or(0, |(revision, _)| revision.0));
        if since_snapshot >= config.journal.snapshot_records.get() {
            keep_snapshot(&journal, &state, clock.now()).await?;
        }

        // 6. The broker.
        let published = jwks::task_tokens([token_key.public_jwk()]);
        let documents = PublicDocuments::new(
            &config.issuer,
            published.clone(),
            jwks::spiffe_bundle([&authority], authority_sequence(&authority), BUNDLE_REFRESH_HINT_SECONDS),
            Duration::from_secs(config.http.document_age_seconds_max.get().into()),
        );
        let grpc_counters = Arc::new(Counters::new("grpc"));
        let http_counters = Arc::new(Counters::new("http"));
        let metrics = Arc::new(Metrics::new(vec![Arc::clone(&grpc_counters), Arc::clone(&http_counters)]));
        let planner =
            Planner::new(config.issuer.clone(), token_key.kid().clone(), config.limits.lease_lifetime_max());
        let table = Table::restored(state, configuration.clone(), Arc::clone(&journal) as Arc<dyn Journal>);
        let broker = Arc::new(Broker {
            table,
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            started_at: clock.now().judge,
            keys: JwkSet::parse(published.as_bytes())?,
            signer: Arc::new(LocalSigner::new(token_key, config.issuer.clone(), rng.clone())),
            planner,
            state_key,
            issuer: config.issuer.clone(),
            limits: config.limits.clone(),
            denials: MinuteBudget::new(config.limits.denials_recorded_per_minute_max),
            lists: Semaphore::new(usize::try_from(config.limits.lists_max.get()).unwrap_or(1)),
            rng,
        });
        broker.configure(configuration).await.map_err(|refusal| StartError::Configure(refusal.text))?;
        let started = Fact::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replayed,
            clock_behind: matches!(clock.state(), ClockState::BehindMark(_)),
        };
        let noted = broker.note(&started).map_err(|_| Sealed)?;
        broker.table.durable(noted).await.map_err(|_| Sealed)?;

        // 7. The sockets, last of all.
        let grpc = TcpListener::bind(config.grpc.listen)
            .await
            .map_err(|source| StartError::Listen { address: config.grpc.listen, source })?;
        let http = HttpListener::plain(config.http.listen).await?;
        let stopping = Arc::new(AtomicBool::new(false));
        // What ran out while nobody ran is recorded before anyone is answered.
        reaper::run_once(&broker);
        let gauges = {
            let broker = Arc::clone(&broker);
            move |metrics: &Metrics| {
                metrics.set_durable_revision(broker.table.journal().head().durable.0);
                metrics.set_live_leases(broker.leases_live());
            }
        };
        let site = Site {
            documents: Arc::new(ArcSwap::from_pointee(documents)),
            metrics,
            gauges: Arc::new(gauges),
            readiness: readiness(&broker, &journal, &stopping),
        };
        // Whoever sees that the daemon listens may tell it to reload.
        let hangups = reload::hangups();
        let address =
            grpc.local_addr().map_err(|source| StartError::Listen { address: config.grpc.listen, source })?;
        let url = config.grpc.url.clone().unwrap_or_else(|| format!("https://{address}"));
        let proofs = ProofMemory::new(
            config.limits.proofs_remembered_max,
            config.limits.proofs_remembered_per_caller_max,
        );
        let endpoint = Endpoint {
            routes: grpc::routes(&broker, &config.grpc, proofs, &url)?,
            limits: config.grpc.limits(),
            counters: grpc_counters,
        };
        let tls = server_tls(&config, &authority, &broker)?;
        let tls = Arc::new(ArcSwap::new(tls));
        Ok(Self {
            config,
            broker,
            journal,
            authority,
            reloader,
            hangups,
            grpc,
            http,
            site,
            stopping,
            endpoint,
            tls,
            http_counters,
        })
    }

    /// Where the gRPC listener is.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn grpc_address(&self) -> io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Where the HTTP listener is.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn http_address(&self) -> io::Result<SocketAddr> {
        self.http.local_address()
    }

    /// Serves until `shutdown` completes or the journal seals itself, then drains and closes.
    ///
    /// # Errors
    /// [`StopError`] if the daemon could not go on.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), StopError> {
        let Self {
            config,
            broker,
            journal,
            authority,
            reloader,
            hangups,
            grpc,
            http,
            site,
            stopping,
            endpoint,
            tls,
            http_counters,
        } = self;
        let (stop, stopped) = watch::channel(false);
        let until_stopped = || {
            let mut stopped = stopped.clone();
            async move {
                // The sender lives until the listeners have returned.
                let _closed = stopped.wait_for(|stop| *stop).await;
            }
        };

        let admit = {
            let (trust, clock, age_max) =
                (trust_of(&broker), broker.clock.clone(), config.grpc.limits().connection_age_max);
            move |peer: TlsPeer| {
                let extension = Peer::new(peer.certificates, Arc::clone(&trust));
                let now = clock.now().judge;
                let left = extension.caller(now).map(|caller| caller.valid_until().since(now));
                Admitted { extension, age_max: left.map_or(age_max, |left| left.min(age_max)) }
            }
        };
        let serving_grpc = tokio::spawn(endpoint.serve_tls(grpc, Arc::clone(&tls), admit, until_stopped()));
        let serving_http =
            tokio::spawn(http.serve(site.routes(), config.http.limits(), http_counters, until_stopped()));
        let renewing =
            tokio::spawn(renew_server_certificate(config.clone(), authority, Arc::clone(&broker), tls));
        let reaping = tokio::spawn(reaper::run(Arc::clone(&broker)));
        let reloading = tokio::spawn(reload::run(reloader, hangups, Arc::clone(&broker)));
        info!("ready");

        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            () = journal.sealed() => Err(StopError::Sealed),
        };
        stopping.store(true, Ordering::Relaxed);
        info!("stopping");
        renewing.abort();
        reaping.abort();
        reloading.abort();
        let _listeners_are_gone = stop.send(true);
        let _drained = (serving_grpc.await, serving_http.await);
        if outcome.is_ok()
            && let Err(problem) = broker.note(&Fact::Stopped)
        {
            warn!(%problem, "the stop could not be recorded");
        }
        let closed = tokio::task::spawn_blocking(move || journal.close()).await;
        match (outcome, closed) {
            (Ok(()), Ok(Ok(()))) => Ok(()),
            _ => Err(StopError::Sealed),
        }
    }
}

/// Keeps the replayed state, so that the next start replays only what comes after it. The chain names the digest
/// before there is a snapshot, so that a snapshot which no record names was put there by somebody else.
async fn keep_snapshot(journal: &Arc<Sqlite>, state: &State, now: Now) -> Result<(), StartError> {
    let snapshot = state.to_snapshot().map_err(StartError::Snapshot)?;
    let revision = state.revision;
    let fact = Fact::SnapshotTaken { revision, digest: State::digest(&snapshot) };
    let envelope = Envelope {
        incarnation: journal.head().incarnation,
        at: now,
        tenant: None,
        tree: None,
        caller: None,
        request_id: None,
    };
    let body = record::encode(&envelope, &fact, None::<&()>).map_err(StartError::Snapshot)?;
    let entry = Entry { kind: Kind::Note, grows: false, body };
    let noted = journal.append(entry, &mut |_| {}).map_err(|_| Sealed)?;
    journal.durable(noted.revision()).await.map_err(|_| Sealed)?;
    let journal = Arc::clone(journal);
    let kept = tokio::task::spawn_blocking(move || journal.store_snapshot(revision, &snapshot)).await;
    kept.map_err(|_| Sealed)??;
    Ok(())
}

fn create_state_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// The bundle's sequence number: it must change when the authority does, and grow (SPIFFE Bundle §4.1.1). An
/// authority made later ends later.
const fn authority_sequence(authority: &CaKey) -> u64 {
    authority.end().seconds()
}

fn readiness(
    broker: &Arc<Broker>,
    journal: &Arc<Sqlite>,
    stopping: &Arc<AtomicBool>,
) -> Arc<dyn Fn() -> Readiness + Send + Sync> {
    let (broker, journal, stopping) = (Arc::clone(broker), Arc::clone(journal), Arc::clone(stopping));
    Arc::new(move || {
        let mut readiness = Readiness::default();
        if stopping.load(Ordering::Relaxed) {
            readiness.reasons.push("stopping".to_owned());
        }
        if journal.progress().is_sealed() {
            readiness.reasons.push("journal sealed".to_owned());
        }
        let clock = broker.clock.state();
        match clock {
            ClockState::Steady => {}
            ClockState::WallBehind(_) => readiness.warnings.push(clock.to_string()),
            ClockState::Suspect(_) | ClockState::BehindMark(_) => readiness.reasons.push(clock.to_string()),
        }
        readiness
    })
}

fn server_tls(
    config: &Config,
    authority: &CaKey,
    broker: &Arc<Broker>,
) -> Result<Arc<rustls::ServerConfig>, StartError> {
    let names = ServerNames { dns: config.grpc.dns_names.clone(), ip: config.grpc.ip_addresses.clone() };
    let identity = authority.server_certificate(
        &names,
        broker.clock.now().issue,
        SERVER_CERTIFICATE_LIFETIME,
        &broker.rng,
    )?;
    let chain = identity.chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.to_vec()));
    let time = broker.clock.time_provider();
    Ok(Arc::new(brevet_identity::tls::server_config(chain, key, trust_of(broker), time)?))
}

/// What callers are verified by, as it is in force at each look.
fn trust_of(broker: &Arc<Broker>) -> TrustSource<CallerTrust> {
    let broker = Arc::clone(broker);
    Arc::new(move || Arc::clone(&broker.table.in_force().configuration.trust))
}

async fn renew_server_certificate(
    config: Config,
    authority: CaKey,
    broker: Arc<Broker>,
    tls: TlsConfig,
) -> Infallible {
    loop {
        let next = broker.clock.now().judge.after(SERVER_CERTIFICATE_LIFETIME / 2);
        broker.clock.sleep_until(next).await;
        while let Err(problem) = server_tls(&config, &authority, &broker).map(|renewed| tls.store(renewed)) {
            error!(%problem, "the server certificate could not be renewed");
            broker.clock.sleep_until(broker.clock.now().judge.after(RENEWAL_RETRY)).await;
        }
    }
}

/// Signs the journal's checkpoints with a key that signs nothing else.
struct CheckpointWriter {
    key: SigningKey<Checkpoints>,
    rng: SystemRandom,
}

impl CheckpointSigner for CheckpointWriter {
    fn key_id(&self) -> &str {
        self.key.kid().as_str()
    }

    fn sign(&self, bytes: &[u8]) -> Result<Signature, SigningFailed> {
        self.key.sign(bytes, &self.rng).map_err(|_| SigningFailed)
    }
}
