//! The composition root: builds every part once, in order, and runs them until told to stop.

mod descriptors;
mod error;
mod gauges;
mod ground;
mod keys;
mod lanes;
mod recovery;
mod root_socket;
mod server_tls;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use brevet_core::fact::Fact;
use brevet_core::revision::Revision;
use brevet_core::sabotage;
use brevet_identity::jwk_set::JwkSet;
use brevet_journal::Journal;
use brevet_journal::sqlite::Sqlite;
use brevet_mint::ca::CaKey;
use brevet_mint::jwks;
use brevet_mint::key::{self, Checkpoints, JwtSvids, SigningKey, TaskTokens};
use brevet_mint::plan::Planner;
use brevet_mint::signer::LocalSigner;
use ring::rand::SystemRandom;
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tracing::{info, warn};

pub use self::error::{StartError, StopError};
use self::gauges::gauges;
use self::ground::Ground;
use self::keys::Keys;
pub use self::keys::{BOOKMARK_KEY_FILE, CHECKPOINT_KEY_FILE, JWT_SVID_KEY_FILE, TASK_TOKEN_KEY_FILE};
use self::lanes::Lanes;
use self::root_socket::RootSocket;
use self::server_tls::{renew_server_certificate, server_tls, trust_of};
use crate::bookmarks::{self, Bookmarks};
use crate::broker::{Broker, Parts, TENANT_CHANGED};
use crate::clock::ClockState;
use crate::config::Config;
use crate::configuration::Configuration;
use crate::discovery::Discovered;
use crate::grpc::{self, CallerCredentials, Peer, ProofMemory};
use crate::http::{HttpListener, PublicDocuments, Readiness, Site};
use crate::metrics::Metrics;
use crate::net::{Admitted, Counters, Endpoint, TlsConfig, TlsPeer, listen};
use crate::reaper;
use crate::reload::{self, Reloader};
use crate::table::Table;
use crate::threads::Handles;
use crate::token_bindings::TokenBindings;

/// How often a consumer of the SPIFFE bundle is asked to come back, in seconds.
const BUNDLE_REFRESH_HINT_SECONDS: u64 = 300;

/// Everything the daemon is made of, started but not serving yet.
pub struct App {
    config: Config,
    broker: Arc<Broker>,
    journal: Arc<Sqlite>,
    authority: Arc<CaKey>,
    reloader: Reloader,
    hangups: Option<Signal>,
    grpc: TcpListener,
    root: RootSocket,
    http: HttpListener,
    site: Site,
    stopping: Arc<AtomicBool>,
    endpoint: Endpoint,
    tls: TlsConfig,
    http_counters: Arc<Counters>,
    threads: Handles,
}

/// Checks a configuration with everything it names, and changes nothing.
///
/// # Errors
/// [`StartError`] as a start would.
pub fn check(path: &Path) -> Result<(), StartError> {
    let config = Config::load(path)?;
    descriptors::make_room(&config)?;
    Configuration::load(&config, &Discovered::default())?;
    let (directory, rng) = (&config.state_directory, SystemRandom::new());
    SigningKey::<Checkpoints>::load(&directory.join(CHECKPOINT_KEY_FILE), &rng)?;
    SigningKey::<TaskTokens>::load(&directory.join(TASK_TOKEN_KEY_FILE), &rng)?;
    SigningKey::<JwtSvids>::load(&directory.join(JWT_SVID_KEY_FILE), &rng)?;
    SigningKey::<key::Bookmarks>::load(&directory.join(BOOKMARK_KEY_FILE), &rng)?;
    Ok(())
}

impl App {
    /// Builds every part: replays the journal, puts the configuration in force, and binds the sockets last.
    ///
    /// # Errors
    /// [`StartError`]; nothing was served then.
    pub async fn build(path: &Path, threads: Handles) -> Result<Self, StartError> {
        // 1. What the broker stands on: files, journal, clock and keys.
        let Ground { config, configuration, reloader, clock, journal, state, replayed, keys, rng } =
            Ground::lay(path).await?;
        let Keys { tokens, jwt_svids, bookmarks, state: state_key, authority, bundle_sequence, checkpoints } =
            keys;
        let bookmarks = Bookmarks::new(bookmarks, rng.clone());

        // 2. The broker.
        let published = jwks::task_tokens([tokens.public_jwk()]);
        let bundle = jwks::spiffe_bundle(
            [&*authority],
            [jwt_svids.public_jwk()],
            bundle_sequence,
            BUNDLE_REFRESH_HINT_SECONDS,
        );
        let jwt_svid_keys = JwkSet::parse_bundle(bundle.as_bytes())?;
        let documents = PublicDocuments::new(
            &config.issuer,
            published.clone(),
            bundle,
            Duration::from_secs(config.http.document_age_seconds_max.get().into()),
        )
        .with_bookmark_keys(jwks::bookmarks([bookmarks.public_jwk()]));
        let grpc_counters = Arc::new(Counters::new("grpc"));
        let http_counters = Arc::new(Counters::new("http"));
        let root_counters = Arc::new(Counters::new("root"));
        let listeners = [&grpc_counters, &http_counters, &root_counters];
        let metrics = Arc::new(Metrics::new(listeners.map(Arc::clone).into()));
        let planner = Planner::new(
            config.issuer.clone(),
            tokens.kid().clone(),
            jwt_svids.kid().clone(),
            &authority,
            config.limits.lease_lifetime_max(),
        )
        .knowing_own_keys([checkpoints, bookmarks.public_jwk().kid().clone()]);
        let issuer = config.issuer.clone();
        let signer = LocalSigner::new(tokens, issuer, jwt_svids, Arc::clone(&authority), rng.clone());
        let capacity = config.limits.capacity();
        let held = Arc::clone(&journal) as Arc<dyn Journal>;
        let bindings = TokenBindings::restored(
            state.bearers.values(),
            |workload| configuration.registry.tenant_of(workload).cloned(),
            config.bearers.bound(),
        );
        let is_first_start = journal.durable_head().revision == Revision::ZERO;
        let proofs = ProofMemory::new(clock.now().judge, is_first_start, config.limits.proofs_remembered());
        let credentials = CallerCredentials { bindings, proofs, token_limits: config.bearers.limits() };
        let table = Table::restored(state, configuration.clone(), capacity, held);
        let broker = Arc::new(Broker::new(Parts {
            table,
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            keys: JwkSet::parse(published.as_bytes())?,
            jwt_svid_keys,
            signer: Arc::new(signer),
            planner,
            state_key,
            bookmarks,
            issuer: config.issuer.clone(),
            trust_domain: config.trust_domain.clone(),
            limits: config.limits.clone(),
            rng,
        }));
        if !broker.keeps_tenants(&configuration.registry) {
            return Err(StartError::Configure(TENANT_CHANGED.to_owned()));
        }
        broker.configure(configuration).await.map_err(|refusal| StartError::Configure(refusal.text))?;
        let started = Fact::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replayed,
            clock_behind: matches!(clock.state(), ClockState::BehindMark(_)),
        };
        let noted = broker.note(&started)?;
        broker.table.durable(noted).await?;

        // 3. The sockets, last of all.
        let (grpc, http) = {
            let _registered_there = threads.strangers.enter();
            let grpc = listen(config.grpc.listen)
                .map_err(|source| StartError::Listen { address: config.grpc.listen, source })?;
            (grpc, HttpListener::bind(config.http.listen)?)
        };
        let root = RootSocket::bind(&config, &broker, root_counters, &threads)?;
        let stopping = Arc::new(AtomicBool::new(false));
        // What ran out while nobody ran is recorded before anyone is answered.
        reaper::run_once(&broker, clock.now()).await;
        let site = Site {
            documents: Arc::new(ArcSwap::from_pointee(documents)),
            metrics,
            gauges: gauges(&broker),
            readiness: readiness(&broker, &journal, &stopping),
        };
        // Whoever sees that the daemon listens may tell it to reload.
        let hangups = reload::hangups();
        let address =
            grpc.local_addr().map_err(|source| StartError::Listen { address: config.grpc.listen, source })?;
        let url = config.grpc.url.clone().unwrap_or_else(|| format!("https://{address}"));
        let endpoint = Endpoint {
            routes: grpc::routes(&broker, &config.grpc, credentials, &url, &threads.everybody)?,
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
            root,
            http,
            site,
            stopping,
            endpoint,
            tls,
            http_counters,
            threads,
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

    /// Where the local root socket is.
    #[must_use]
    pub fn root_socket(&self) -> &Path {
        self.root.path()
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
            root,
            http,
            site,
            stopping,
            endpoint,
            tls,
            http_counters,
            threads,
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
            let (trust, age_max) = (trust_of(&broker), config.grpc.limits().connection_age_max);
            let (broker, lanes) = (Arc::clone(&broker), Lanes::new(&threads, &config.grpc));
            move |peer: TlsPeer| {
                let now = broker.clock.now().judge;
                let TlsPeer { certificates, probation, .. } = peer;
                let extension = Peer::new(certificates, Arc::clone(&trust), Some(probation.clone()));
                let Ok(caller) = extension.caller(now) else {
                    return Admitted { extension, age_max, lane: Some(lanes.everybody()) };
                };
                probation.pass(Duration::MAX);
                Admitted {
                    extension,
                    age_max: caller.valid_until().since(now).min(age_max),
                    lane: Some(lanes.of(broker.table.in_force().registry(), caller.spiffe_id())),
                }
            }
        };
        let strangers =
            if sabotage::on("strangers_stand_in_line") { threads.everybody } else { threads.strangers };
        let serving_grpc =
            strangers.spawn(endpoint.serve_tls(grpc, Arc::clone(&tls), admit, until_stopped()));
        let serving_http =
            strangers.spawn(http.serve(site.routes(), config.http.limits(), http_counters, until_stopped()));
        let serving_root = threads.root.spawn(root.serve(until_stopped()));
        let renewing =
            tokio::spawn(renew_server_certificate(config.clone(), authority, Arc::clone(&broker), tls));
        let reaping = tokio::spawn(reaper::run(Arc::clone(&broker)));
        let sweeping = {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move { broker.sweep_locks().await })
        };
        let summing_up = {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move { broker.sum_up_denials().await })
        };
        let bookmarking = tokio::spawn(bookmarks::run(Arc::clone(&broker)));
        let reloading = tokio::spawn(reload::run(reloader, hangups, Arc::clone(&broker)));
        info!("ready");

        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            () = journal.sealed() => Err(StopError::Sealed),
        };
        stopping.store(true, Ordering::Relaxed);
        broker.stopping.send_replace(true);
        info!("stopping");
        renewing.abort();
        reaping.abort();
        sweeping.abort();
        summing_up.abort();
        reloading.abort();
        bookmarking.abort();
        let _listeners_are_gone = stop.send(true);
        let _drained = (serving_grpc.await, serving_root.await, serving_http.await);
        broker.record_unrecorded();
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
