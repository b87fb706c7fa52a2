//! Two tenants in one daemon: what is one's is to the other as if it were not, by whatever method it asks.

use std::fs;

use brevet_api::v1;
use brevet_api::v1::selector::Kind;
use brevet_client::dpop::HolderKey;
use brevet_core::fact::Fact;
use brevet_testkit::ca::TestCa;
use tonic::{Code, Status};

use crate::operator::selector;
use crate::watch::{Stream, begin};
use crate::world::{
    AGENT, Answer, Client, FILES, OPERATOR, ORCHESTRATOR, RESOURCE_SERVER, World, issue, now, permission,
    renew,
};

const GUEST: &str = "other.example";
const GUEST_FILES: &str = "https://files.other.example";
const NO_TASK: &str = "tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz";
const NO_LEASE: &str = "tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz/leases/7zzzzzzzzzzzzzzzzzzzzzzzzz";
const NO_LOCK: &str = "locks/7zzzzzzzzzzzzzzzzzzzzzzzzz";

/// Everybody of a tenant, and what is theirs.
struct Tenant {
    orchestrator: Client,
    agent: Client,
    server: Client,
    operator: Client,
    agent_id: &'static str,
    audience: &'static str,
    task: String,
    credential: v1::Credential,
    lock: String,
}

impl Tenant {
    /// Gives a tenant's people a task, a credential and a lock that stops nothing of it.
    async fn at_work(
        [orchestrator, agent, server, operator]: [Client; 4],
        (agent_id, audience): (&'static str, &'static str),
        holder: String,
        create: v1::CreateTaskRequest,
    ) -> Self {
        let scope = vec![permission(audience, "reports/**", &["read"])];
        let create = v1::CreateTaskRequest {
            agent: agent_id.to_owned(),
            holder_key_thumbprint: Some(holder),
            scope,
            ..create
        };
        let task = orchestrator.create(create).await.ok().task.unwrap().name;
        let asked = credential_of(&task, audience, "one");
        let credential = agent.issue(asked).await.ok().credential.unwrap();
        let lock = operator.stop("lock", Kind::Tool("delete".to_owned())).await.ok().name;
        Self { orchestrator, agent, server, operator, agent_id, audience, task, credential, lock }
    }
}

fn credential_of(task: &str, audience: &str, request_id: &str) -> v1::IssueCredentialRequest {
    v1::IssueCredentialRequest {
        audience: audience.to_owned(),
        scope: vec![permission(audience, "reports/q3", &["read"])],
        ..issue(task, request_id)
    }
}

fn part(parent: &str, agent: &str, request_id: &str) -> v1::DelegateTaskRequest {
    v1::DelegateTaskRequest {
        parent: parent.to_owned(),
        request_id: request_id.to_owned(),
        agent: agent.to_owned(),
        ..v1::DelegateTaskRequest::default()
    }
}

/// A daemon that two tenants share, and the guest's authority.
fn shared() -> (World, TestCa) {
    let guest = TestCa::new(&GUEST.parse().unwrap(), now());
    let world = World::with(|config, folder| {
        fs::write(folder.join("guest.pem"), guest.pem()).unwrap();
        let mut add = |table: &str, entry: toml::Table| {
            config.get_mut(table).unwrap().as_array_mut().unwrap().push(entry.into());
        };
        add("trust", toml::toml! { trust_domain = "other.example" bundle = "guest.pem" });
        add(
            "audiences",
            toml::toml! {
                name = "https://files.other.example"
                tenant = "guest"
                enforcers = ["spiffe://other.example/server"]
                enforcement = "lease"
                sensitivity = "low"
                actions = ["read"]
            },
        );
        add(
            "agents",
            toml::toml! {
                spiffe_id = "spiffe://other.example/agent"
                sensitivity_max = "moderate"
                scope = [{ audience = "https://files.other.example", resource = "reports/**", actions = ["read"] }]
            },
        );
        add(
            "orchestrators",
            toml::toml! {
                spiffe_id = "spiffe://other.example/orchestrator"
                task_types = ["summarise"]
                agents = ["spiffe://other.example/agent"]
            },
        );
        add(
            "operators",
            toml::toml! {
                name = "omar"
                identities = ["spiffe://other.example/omar"]
                roles = ["stopper", "auditor"]
            },
        );
        let house = toml::toml! { name = "default" trust_domains = ["workloads.dev.example", "functions.dev.example"] };
        let guest = toml::toml! { name = "guest" trust_domains = ["other.example"] };
        config.insert("tenants".to_owned(), toml::Value::Array(vec![house.into(), guest.into()]));
        config.insert("limits".to_owned(), toml::toml! { audit_streams_per_tenant_max = 1 }.into());
    });
    (world, guest)
}

async fn house(world: &World) -> Tenant {
    let mut people = Vec::new();
    for name in [ORCHESTRATOR, AGENT, RESOURCE_SERVER, OPERATOR] {
        people.push(world.client(name).await);
    }
    let agent = "spiffe://workloads.dev.example/agent/a";
    let people = people.try_into().ok().unwrap();
    Tenant::at_work(people, (agent, FILES), world.thumbprint(AGENT), world.create("open")).await
}

async fn guest(world: &World, authority: &TestCa) -> Tenant {
    let (mut people, mut holder) = (Vec::new(), None);
    for name in ["orchestrator", "agent", "server", "omar"] {
        let id = format!("spiffe://{GUEST}/{name}");
        let svid = authority.svid(&id);
        people.push(world.known(world.connect(&world.identity(&svid)).await.unwrap(), &id));
        if name == "agent" {
            holder = Some(HolderKey::from_pem(svid.key.as_bytes()).unwrap().thumbprint().to_string());
        }
    }
    let people = people.try_into().ok().unwrap();
    let names = ("spiffe://other.example/agent", GUEST_FILES);
    Tenant::at_work(people, names, holder.unwrap(), world.create("open")).await
}

/// Both are refused, and nothing in the answers tells them apart.
#[track_caller]
fn alike<T: std::fmt::Debug>(foreign: Answer<T>, unknown: Answer<T>, code: Code, reason: &str) {
    let told = |status: Status| (status.code(), status.message().to_owned(), status.details().to_vec());
    assert_eq!(told(foreign.refused(code, reason)), told(unknown.refused(code, reason)));
}

/// Neither the people who open, draw on and check tasks see or change anything of the other tenant.
async fn workloads_learn_nothing(own: &Tenant, other: &Tenant, create: &v1::CreateTaskRequest) {
    let (nothing, lease) = ((Code::NotFound, "not_found"), &other.credential.lease);
    let who = &own.orchestrator;
    alike(who.get(&other.task).await, who.get(NO_TASK).await, nothing.0, nothing.1);
    alike(who.complete(&other.task).await, who.complete(NO_TASK).await, nothing.0, nothing.1);
    alike(who.fail(&other.task).await, who.fail(NO_TASK).await, nothing.0, nothing.1);
    alike(who.cancel(&other.task).await, who.cancel(NO_TASK).await, nothing.0, nothing.1);
    let of_other = v1::ListTasksRequest { agent: other.agent_id.to_owned(), ..Default::default() };
    assert_eq!(who.list(of_other).await.ok().tasks, []);
    let all = who.list(v1::ListTasksRequest::default()).await.ok().tasks;
    assert_eq!(all.iter().map(|task| &task.name).collect::<Vec<_>>(), [&own.task]);
    let open = |agent: &str| v1::CreateTaskRequest {
        agent: agent.to_owned(),
        request_id: "foreign".to_owned(),
        scope: vec![],
        ..create.clone()
    };
    let (foreign, unknown) = (open(other.agent_id), open("spiffe://nowhere.example/agent"));
    let denied = Code::PermissionDenied;
    alike(who.create(foreign).await, who.create(unknown).await, denied, "not_registered");

    let who = &own.agent;
    let ask = |task: &str| credential_of(task, other.audience, "foreign");
    alike(who.issue(ask(&other.task)).await, who.issue(ask(NO_TASK)).await, nothing.0, nothing.1);
    let (foreign, unknown) = (renew(lease, "foreign"), renew(NO_LEASE, "foreign"));
    alike(who.renew(foreign).await, who.renew(unknown).await, nothing.0, nothing.1);
    alike(who.give_back(lease).await, who.give_back(NO_LEASE).await, nothing.0, nothing.1);
    let below = |parent: &str| part(parent, own.agent_id, "foreign");
    let (foreign, unknown) = (who.delegate(below(&other.task)).await, who.delegate(below(NO_TASK)).await);
    alike(foreign, unknown, nothing.0, nothing.1);
    let to = |agent: &str| part(&own.task, agent, "foreign");
    let unknown = who.delegate(to("spiffe://nowhere.example/agent")).await;
    alike(who.delegate(to(other.agent_id)).await, unknown, denied, "not_registered");
    // Its own task gives it nothing at the other's audience.
    let unknown = who.issue(credential_of(&own.task, "https://nowhere.example", "foreign")).await;
    let foreign = who.issue(credential_of(&own.task, other.audience, "foreign")).await;
    for answer in [foreign, unknown] {
        answer.refused(denied, "scope_widens");
    }

    let who = &own.server;
    assert!(who.is_active(&own.credential.token).await);
    let told = who.introspect(&other.credential.token).await.ok();
    let nothing_told = v1::IntrospectCredentialResponse { revision: told.revision, ..Default::default() };
    assert_eq!(told, nothing_told);
    let watch = async |audience: &str| {
        let opened = Stream::open(who, begin(&[audience], None)).await.map(drop);
        who.answer("WatchRevocations", None, opened)
    };
    alike(watch(other.audience).await, watch("https://nowhere.example").await, denied, "not_enforcer");
}

/// Nor do those who look over everything in their tenant.
async fn operators_learn_nothing(own: &Tenant, other: &Tenant) {
    let (who, lease) = (&own.operator, &other.credential.lease);
    let (code, reason) = (Code::NotFound, "not_found");
    alike(who.get(&other.task).await, who.get(NO_TASK).await, code, reason);
    alike(who.get_lease(lease).await, who.get_lease(NO_LEASE).await, code, reason);
    alike(who.revoke(lease).await, who.revoke(NO_LEASE).await, code, reason);
    alike(who.get_lock(&other.lock).await, who.get_lock(NO_LOCK).await, code, reason);
    alike(who.lift(&other.lock).await, who.lift(NO_LOCK).await, code, reason);
    let leases = who.list_leases(v1::ListLeasesRequest::default()).await.ok().leases;
    assert_eq!(leases.iter().map(|it| &it.name).collect::<Vec<_>>(), [&own.credential.lease]);
    let locks = who.list_locks(v1::ListLocksRequest::default()).await.ok().locks;
    assert_eq!(locks.iter().map(|it| &it.name).collect::<Vec<_>>(), [&own.lock]);
    for kind in [
        Kind::Task(other.task.clone()),
        Kind::Agent(other.agent_id.to_owned()),
        Kind::Audience(other.audience.to_owned()),
        Kind::Key(other.operator_key()),
    ] {
        let kind = selector(kind);
        let list = v1::ListLeasesRequest { selector: kind.clone(), ..Default::default() };
        let found = who.list_leases(list).await.ok().leases;
        assert!(found.iter().all(|it| it.name == own.credential.lease), "{found:?}");
        let preview = v1::RevokeLeasesRequest { selector: kind, reason: String::new(), validate_only: true };
        assert!(!who.revoke_leases(preview).await.ok().leases.contains(lease));
    }
    let events = who.events(v1::ListEventsRequest::default()).await.ok().events;
    let of_own = v1::ListEventsRequest { task: other.task.clone(), ..Default::default() };
    for event in events.iter().chain(&who.events(of_own).await.ok().events) {
        assert_ne!(event.caller.split('/').nth(2), other.agent_id.split('/').nth(2), "{event:?}");
        assert!(!event.record.contains(other.credential.lease.rsplit('/').next().unwrap()), "{event:?}");
    }
}

impl Tenant {
    /// The key that signed its credential, which is the daemon's and so the other's as well.
    fn operator_key(&self) -> String {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let header = URL_SAFE_NO_PAD.decode(self.credential.token.split('.').next().unwrap()).unwrap();
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        header["kid"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn r5_the_auditors_of_one_tenant_leave_streams_to_anothers() {
    let (world, authority) = shared();
    let (own, other) = (house(&world).await, guest(&world, &authority).await);
    let first = own.operator.tail(None).await.ok();
    own.operator.tail(None).await.refused(Code::ResourceExhausted, "audit_streams_per_tenant_max");
    let second = other.operator.tail(None).await.ok();
    drop((first, second, own, other));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t7_a_tenant_sees_ends_and_stops_nothing_of_another_by_any_method() {
    let (world, authority) = shared();
    let (house, guest) = (house(&world).await, guest(&world, &authority).await);
    for (own, other) in [(&house, &guest), (&guest, &house)] {
        let create = v1::CreateTaskRequest { task_type: "summarise".to_owned(), ..world.create("foreign") };
        workloads_learn_nothing(own, other, &create).await;
        operators_learn_nothing(own, other).await;
    }

    // One stops everything that it has. The other goes on, and is told of nothing.
    let mut house_told = Stream::open(&house.server, begin(&[], None)).await.unwrap();
    let mut guest_told = Stream::open(&guest.server, begin(&[], None)).await.unwrap();
    house.operator.stop("all", Kind::Everything(true)).await.ok();
    assert!(!house.server.is_active(&house.credential.token).await);
    assert_eq!(house_told.endings().await.endings.len(), 1);
    guest_told.bookmark(1).await;
    assert!(guest.server.is_active(&guest.credential.token).await);
    guest.agent.issue(credential_of(&guest.task, GUEST_FILES, "goes-on")).await.ok();
    // Over the root socket both are stopped.
    let root = world.root().await;
    assert_eq!(root.list_locks(v1::ListLocksRequest::default()).await.ok().locks.len(), 3);
    root.stop("all", Kind::Everything(true)).await.ok();
    assert!(!guest.server.is_active(&guest.credential.token).await);
    drop((house, guest, house_told, guest_told, root));

    let ended = world.finish().into_iter().filter(|written| matches!(written.fact, Fact::TaskEnded { .. }));
    let ended: Vec<_> = ended.map(|written| written.envelope.tenant.unwrap().to_string()).collect();
    assert_eq!(ended.first().map(String::as_str), Some("default"));
}
