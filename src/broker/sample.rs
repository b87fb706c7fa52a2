//! A broker in memory for tests: its journal is, its clock stands still, and its trees were made without asking.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use brevet_core::digest::{HopDigest, Thumbprint};
use brevet_core::fact::{Fact, Holder, LeaseOutcome, Outcome, ReasonCode, TaskOpened};
use brevet_core::id::{Id, LeaseId, LeaseKey, LockId, RootTaskId, TaskId};
use brevet_core::lock::Lock;
use brevet_core::name::{ActionName, AudienceName, TenantName};
use brevet_core::registry::{Audience, Enforcement, RegistrySource};
use brevet_core::request::Sensitivity;
use brevet_core::revision::{Incarnation, Revision};
use brevet_core::scope::{Permission, Scope};
use brevet_core::state::State;
use brevet_core::terms::{Content, TaskToken, Terms};
use brevet_identity::trust::{Bundle, CallerTrust};
use brevet_identity::x509_svid;
use brevet_journal::{Entry, Journal as _, Kind, Precedence};
use brevet_mint::ca::CaKey;
use brevet_mint::jwks;
use brevet_mint::key::{JwtSvids, SigningKey, TaskTokens};
use brevet_mint::signer::LocalSigner;
use brevet_policy::Policies;
use brevet_testkit::ca::TestCa;
use brevet_testkit::journal::Memory;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::clock::ManualSource;
use crate::grpc::Peer;

pub(crate) const X: &str = "https://x.example";
pub(crate) const Y: &str = "https://y.example";
/// Enforces `X`.
pub(crate) const X_SERVER: &str = "spiffe://td.example/x";
/// Enforces `X` and `Y`.
pub(crate) const XY_SERVER: &str = "spiffe://td.example/xy";
/// When everything began.
pub(crate) const BEGAN: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// What a broker in memory is made of, besides keys that live as long as it does.
pub(crate) struct InMemory {
    pub(crate) journal: Arc<Memory>,
    pub(crate) state: State,
    pub(crate) configuration: Configuration,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) trust_domain: TrustDomain,
}

impl InMemory {
    /// The broker, whose signer may have been tampered with.
    pub(crate) fn broker(self, tampered: impl FnOnce(LocalSigner) -> Arc<dyn Signer>) -> Broker {
        let Self { journal, state, configuration, limits, clock, trust_domain } = self;
        let (rng, issuer) = (SystemRandom::new(), "https://broker.example".to_owned());
        let life = Duration::from_secs(86_400 * 365);
        let authority = Arc::new(CaKey::ephemeral(&trust_domain, BEGAN, life, &rng).unwrap());
        let token_key: SigningKey<TaskTokens> = SigningKey::ephemeral(&rng).unwrap();
        let published = jwks::task_tokens([token_key.public_jwk()]);
        let svid_key: SigningKey<JwtSvids> = SigningKey::ephemeral(&rng).unwrap();
        let bundle = jwks::jwt_svids([svid_key.public_jwk()]);
        let (kid, svid_kid) = (token_key.kid().clone(), svid_key.kid().clone());
        let folder = tempfile::tempdir().unwrap();
        Broker::new(Parts {
            table: Table::restored(state, configuration, limits.capacity(), journal),
            clock,
            metrics: Arc::new(Metrics::new(Vec::new())),
            planner: Planner::new(issuer.clone(), kid, svid_kid, &authority, limits.lease_lifetime_max()),
            signer: tampered(LocalSigner::new(token_key, issuer.clone(), svid_key, authority, rng.clone())),
            keys: JwkSet::parse(published.as_bytes()).unwrap(),
            jwt_svid_keys: JwkSet::parse_bundle(bundle.as_bytes()).unwrap(),
            state_key: StateKey::load_or_create(&folder.path().join("state.key"), &rng).unwrap(),
            bookmarks: Bookmarks::new(SigningKey::ephemeral(&rng).unwrap(), rng.clone()),
            issuer,
            trust_domain,
            limits,
            rng,
        })
    }
}

/// The broker and what moves it. Its trees are numbered from 1; each has one task with a lease for `X` and one for `Y`.
pub(crate) struct Sample {
    pub(crate) broker: Arc<Broker>,
    pub(crate) journal: Arc<Memory>,
    pub(crate) time: ManualSource,
    ca: TestCa,
}

pub(crate) fn id(number: u64) -> Id {
    Id::from_bytes(u128::from(number).to_be_bytes())
}

pub(crate) fn task(number: u64) -> TaskId {
    TaskId::root_of(RootTaskId(id(number)))
}

pub(crate) fn lease(number: u64, audience: &str) -> LeaseId {
    LeaseId { task: task(number), key: LeaseKey(id(if audience == X { 1 } else { 2 })) }
}

pub(crate) fn audience(name: &str) -> AudienceName {
    AudienceName::parse(name).unwrap()
}

fn workload(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn opened(number: u64) -> TaskOpened {
    TaskOpened {
        id: task(number),
        parent: None,
        agent: workload("spiffe://td.example/agent"),
        delegator: workload("spiffe://td.example/person"),
        opener: workload("spiffe://td.example/orchestrator"),
        task_type: brevet_core::name::TaskType::parse("report").unwrap(),
        purpose: brevet_core::name::PurposeCode::parse("testing").unwrap(),
        sensitivity_max: Sensitivity::High,
        prompt_origin: None,
        scope: Scope::new([]).unwrap(),
        opened_at: BEGAN,
        deadline: BEGAN.after(Duration::from_secs(3_600)),
        depth: 0,
        holder: Holder::Key(Thumbprint::of(&[b"agent"])),
        hop: HopDigest::from_bytes([0; 32]),
        body: RequestDigest::of(&[]),
    }
}

fn terms(number: u64, name: &str) -> Terms {
    let agent = workload("spiffe://td.example/agent");
    let read = BTreeSet::from([ActionName::parse("read").unwrap()]);
    let permission = Permission::new(audience(name), "a/b".parse().unwrap(), read, BTreeMap::new()).unwrap();
    Terms {
        id: lease(number, name),
        key_id: brevet_core::name::KeyId::parse("k").unwrap(),
        issued_at: BEGAN,
        end: BEGAN.after(Duration::from_secs(300)),
        holder: Thumbprint::of(&[b"agent"]),
        policy: brevet_core::digest::PolicyDigest::of(&[]),
        content: Content::TaskToken(TaskToken {
            issuer: "https://broker.example".to_owned(),
            subject: agent.clone(),
            actors: vec![agent],
            audience: audience(name),
            scope: Scope::new([permission]).unwrap(),
            certificate: None,
            path: vec![id(number)],
        }),
    }
}

pub(crate) fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).unwrap()
}

/// A lock on everything of a tenant, or of all.
pub(crate) fn lock(number: u64, tenant: Option<&str>) -> Lock {
    let (id, tenant) = (LockId(id(number)), tenant.map(self::tenant));
    Lock { id, tenant, selector: Selector::Everything, message: "stop".to_owned(), until: None }
}

fn envelope(number: u64, now: Now) -> Envelope {
    Envelope {
        incarnation: Incarnation(7),
        at: now,
        tenant: Some(TenantName::default()),
        tree: Some(task(number).root()),
        caller: None,
        request_id: None,
    }
}

impl Sample {
    /// A broker with so many trees, whose ring holds so many notices.
    pub(crate) async fn with(trees: u64, notices_max: u32) -> Self {
        let tenants = (0..trees).map(|_| TenantName::default()).collect();
        Self::of_tenants(tenants, notices_max).await
    }

    /// The same with a tree for each of these.
    pub(crate) async fn of_tenants(tenants: Vec<TenantName>, notices_max: u32) -> Self {
        let (journal, mut state) = (Arc::new(Memory::new(Incarnation(7))), State::default());
        let mut fold = |number, tenant: &TenantName, fact: &Fact| {
            let entry = Entry { kind: Kind::Note, precedence: Precedence::Ending, body: b"{}".to_vec() };
            let envelope = Envelope { tenant: Some(tenant.clone()), ..envelope(number, Now::at(BEGAN)) };
            let folded = &mut |revision| state.apply(&envelope, fact, revision);
            drop(journal.append(entry, folded).unwrap());
        };
        for (number, tenant) in (1..).zip(tenants) {
            fold(number, &tenant, &Fact::TaskOpened(Arc::new(opened(number))));
            for name in [X, Y] {
                let (terms, body) = (Arc::new(terms(number, name)), RequestDigest::of(&[]));
                fold(number, &tenant, &Fact::LeaseIssued { terms, body, renews: None });
            }
        }

        let ca = TestCa::new(&"td.example".parse().unwrap(), BEGAN);
        let (clock, time) = Clock::manual(BEGAN);
        let trust_domain: TrustDomain = "broker.example".parse().unwrap();
        let limits = Limits {
            notices_held_max: NonZeroU32::new(notices_max).unwrap(),
            watch_streams_per_caller_max: NonZeroU32::new(2).unwrap(),
            ..Limits::default()
        };
        let configuration =
            configuration(&ca, &trust_domain, &[(X, &[X_SERVER, XY_SERVER]), (Y, &[XY_SERVER])]);
        let (held, in_force) = (Arc::clone(&journal), configuration.clone());
        let memory = InMemory { journal: held, state, configuration: in_force, limits, clock, trust_domain };
        let broker = memory.broker(|signer| Arc::new(signer));
        broker.configure(configuration).await.unwrap();
        Self { broker: Arc::new(broker), journal, time, ca }
    }

    /// A workload as a connection of it would be verified.
    pub(crate) fn caller(&self, spiffe_id: &str) -> Caller {
        let certificate = self.ca.svid(spiffe_id).certificate;
        let chain = [CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let trust = Arc::clone(&self.broker.table.in_force().configuration.trust);
        x509_svid::verify_chain(&chain, &trust, BEGAN).unwrap()
    }

    /// A connection of a workload.
    pub(crate) fn peer(&self, spiffe_id: &str) -> Peer {
        let certificate = self.ca.svid(spiffe_id).certificate;
        let chain = [CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let broker = Arc::clone(&self.broker);
        Peer::new(
            chain.into(),
            Arc::new(move || Arc::clone(&broker.table.in_force().configuration.trust)),
            None,
        )
    }

    /// Puts other enforcers in force.
    pub(crate) async fn enforcers(&self, audiences: &[(&str, &[&str])]) {
        let configuration = configuration(&self.ca, &self.broker.trust_domain, audiences);
        assert!(self.broker.configure(configuration).await.unwrap());
    }

    /// Ends a tree's task.
    pub(crate) fn end(&self, number: u64) -> Revision {
        let (outcome, reason) = (Outcome::Completed, ReasonCode::of("done"));
        self.commit(number, &Fact::TaskEnded { task: task(number), outcome, reason, since: None })
    }

    /// Ends leases of a tree's task, and not the task.
    pub(crate) fn end_leases(&self, number: u64, audiences: &[&str]) -> Revision {
        let leases = audiences.iter().map(|name| lease(number, name).key).collect();
        let (outcome, reason) = (LeaseOutcome::Revoked, ReasonCode::of("revoked"));
        self.commit(number, &Fact::LeasesEnded { task: task(number), leases, outcome, reason, since: None })
    }

    /// Issues so many leases for `X` besides. They come in the order of their ids.
    pub(crate) fn issue_many(&self, number: u64, count: usize) -> Vec<LeaseId> {
        let mut leases = Vec::new();
        for key in (1_000..).take(count) {
            let lease = LeaseId { task: task(number), key: LeaseKey(id(key)) };
            let (terms, body) = (Arc::new(Terms { id: lease, ..terms(number, X) }), RequestDigest::of(&[]));
            self.commit(number, &Fact::LeaseIssued { terms, body, renews: None });
            leases.push(lease);
        }
        leases
    }

    pub(crate) fn commit(&self, number: u64, fact: &Fact) -> Revision {
        let envelope = envelope(number, self.broker.clock.now());
        let committed = self.broker.table.commit(task(number).root(), &envelope, None, |_, _| {
            Ok::<_, Infallible>((Some(fact.clone()), ()))
        });
        committed.unwrap().revision()
    }

    /// Changes what binds every tree.
    pub(crate) fn control(&self, fact: &Fact) -> Revision {
        let basis = self.broker.table.in_force().control.revision();
        let envelope = Envelope { tenant: None, tree: None, ..envelope(1, self.broker.clock.now()) };
        self.broker.table.control(&envelope, None, basis, fact, None).unwrap().revision()
    }
}

fn configuration(ca: &TestCa, own: &TrustDomain, audiences: &[(&str, &[&str])]) -> Configuration {
    let audience = |(name, enforcers): &(&str, &[&str])| Audience {
        name: audience(name),
        tenant: TenantName::default(),
        enforcers: enforcers.iter().map(|id| workload(id)).collect(),
        enforcement: Enforcement::Lease,
        sensitivity: Sensitivity::Low,
        understands_act: false,
        actions: [ActionName::parse("read").unwrap()].into(),
    };
    let registry = Registry::new(RegistrySource {
        tenants: Vec::new(),
        audiences: audiences.iter().map(audience).collect(),
        agents: Vec::new(),
        orchestrators: Vec::new(),
        operators: Vec::new(),
    });
    let bundle = Bundle::from_pem(ca.pem().as_bytes()).unwrap();
    let trust = CallerTrust::new(own.clone(), [("td.example".parse().unwrap(), bundle)]).unwrap();
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/policies");
    Configuration {
        registry: Arc::new(registry.unwrap()),
        policies: Arc::new(Policies::load(&policies).unwrap()),
        trust: Arc::new(trust),
    }
}
