//! JWT-SVIDs of tasks: who works on which task, said to one audience, where a policy names them.

use std::fs;
use std::path::Path;

use brevet_api::v1;
use brevet_core::fact::Fact;
use brevet_core::spiffe_id::TrustDomain;
use brevet_identity::bearer::{BearerError, Limits, Rules};
use brevet_identity::jwk_set::JwkSet;
use brevet_identity::{jwt_svid as identity, task_token};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tonic::Code;

use crate::operator::stop;
use crate::svid::{bound, greedy_csr, svid};
use crate::watch::fetch;
use crate::world::{
    AGENT, FILES, OPERATOR, ORCHESTRATOR, OTHER_AGENT, RESOURCE_SERVER, STATUS, World, claims, eventually,
    issue, next_second, now, permission, renew, seconds,
};

const OF_AGENT_A: &str = "spiffe://broker.dev.example/agent/workloads.dev.example/agent/a/task";

/// Permits JWT-SVIDs for the files, as `docs/policy.md` shows it.
pub(crate) fn permit_for_files(folder: &Path) {
    let rule = format!(
        "@id(\"jwt-svids-for-files\") @lifetime_seconds_max(\"120\")
         permit (
           principal,
           action in [Brevet::Action::\"IssueCredential\", Brevet::Action::\"RenewCredential\"],
           resource == Brevet::Audience::\"{FILES}\"
         )
         when {{ context.credential.profile == \"jwt_svid\" }};\n"
    );
    fs::write(folder.join("policies/jwt-svids.cedar"), rule).unwrap();
}

fn world() -> World {
    World::with(|_, folder| permit_for_files(folder))
}

/// A request for a JWT-SVID for the files.
pub(crate) fn jwt_svid(task: &str, request_id: &str) -> v1::IssueCredentialRequest {
    v1::IssueCredentialRequest {
        profile: v1::Profile::JwtSvid.into(),
        scope: Vec::new(),
        ..issue(task, request_id)
    }
}

/// The published keys of one use.
fn published(world: &World, r#use: &str) -> Vec<Value> {
    let bundle: Value = serde_json::from_str(&fetch(world, "/spiffe/bundle")).unwrap();
    let keys = bundle["keys"].as_array().unwrap().iter();
    keys.filter(|key| key["use"] == r#use).cloned().collect()
}

/// What somebody makes of it who knows the SPIFFE standards and the bundle, and may be of the trust domain `own`.
fn judged(world: &World, token: &str, own: Option<&str>) -> Result<identity::JwtSvid, BearerError> {
    let bundle = JwkSet::parse_bundle(fetch(world, "/spiffe/bundle").as_bytes()).unwrap();
    let bundles = [("broker.dev.example".parse().unwrap(), bundle)].into();
    let own: Option<TrustDomain> = own.map(|own| own.parse().unwrap());
    identity::verify(token, &bundles, own.as_ref(), FILES, now(), Rules::Strict(Limits::default()))
}

/// What it says to whoever takes it.
fn verified(world: &World, token: &str) -> Value {
    let svid = judged(world, token, Some("files.example")).unwrap();
    let said = claims(token);
    assert_eq!(said["sub"], svid.spiffe_id.as_str());
    assert_eq!(said["cnf"]["jkt"], svid.bearer.confirmation.unwrap().jkt.to_string());
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn jw_07_jw_08_jw_10_jw_14_it_says_who_works_on_which_task_to_one_audience() {
    let mut world = world();
    next_second().await;
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await.name;
    let request = v1::IssueCredentialRequest {
        bind_certificate: true,
        lifetime: seconds(3_600),
        ..jwt_svid(&task, "one")
    };
    let issued = agent.issue(request.clone()).await.ok().credential.unwrap();
    let id = task.strip_prefix("tasks/").unwrap();
    assert_eq!(issued.spiffe_id, format!("{OF_AGENT_A}/{id}"));
    assert_eq!((issued.profile(), issued.audience.as_str()), (v1::Profile::JwtSvid, FILES));
    assert_eq!((issued.scope.len(), issued.certificate_chain.len()), (0, 0));

    // It says this and nothing else, under a key that only the bundle has.
    let [begin, end] = [issued.issue_time, issued.expire_time].map(|time| time.unwrap().seconds);
    assert_eq!(end - begin, 120, "policy has a limit of its own");
    let said = verified(&world, &issued.token);
    let certificate = said["cnf"]["x5t#S256"].clone();
    assert!(certificate.is_string());
    let expected = json!({
        "sub": issued.spiffe_id, "aud": FILES, "iat": begin, "exp": end,
        "jti": issued.lease.rsplit_once('/').unwrap().1,
        "cnf": {"jkt": world.thumbprint(AGENT), "x5t#S256": certificate},
        "task": [id],
    });
    assert_eq!(said, expected);
    let kid = published(&world, "jwt-svid")[0]["kid"].as_str().unwrap().to_owned();
    assert!(!fetch(&world, "/oauth/jwks").contains(&kid));
    assert!(published(&world, "x509-svid").iter().all(|key| key.get("kid").is_none()));
    let sequence = |world: &World| {
        let bundle: Value = serde_json::from_str(&fetch(world, "/spiffe/bundle")).unwrap();
        bundle["spiffe_sequence"].as_u64().unwrap()
    };
    let published_as = sequence(&world);

    // A retry gets the same of the same lease, after a restart too, and is known again by whoever asks.
    let again = agent.issue(request.clone()).await.ok().credential.unwrap();
    assert_eq!((&again.lease, claims(&again.token)), (&issued.lease, said.clone()));
    drop(agent);
    world.daemon.stop();
    world.daemon.restart();
    let again = world.client(AGENT).await.issue(request).await.ok().credential.unwrap();
    assert_eq!((&again.lease, claims(&again.token)), (&issued.lease, said));
    assert_eq!(
        (sequence(&world), published(&world, "jwt-svid")[0]["kid"].as_str()),
        (published_as, Some(&*kid))
    );
    let server = world.client(RESOURCE_SERVER).await;
    let answer = server.introspect(&issued.token).await.ok();
    assert!(answer.active);
    assert_eq!((answer.lease, answer.task, answer.audience.as_str()), (issued.lease, task, FILES));
    assert_eq!((answer.agent.as_str(), answer.scope.len()), ("spiffe://workloads.dev.example/agent/a", 0));
    assert_eq!(answer.holder_key_thumbprint, world.thumbprint(AGENT));
    drop(server);
    let journal = world.finish();
    let issued = journal.iter().filter(|written| matches!(written.fact, Fact::LeaseIssued { .. }));
    assert_eq!(issued.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn jw_07_the_name_is_that_of_the_tasks_x509_svid_however_deep_it_was_delegated() {
    let world = world();
    next_second().await;
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let parent = world.open_task(world.create("open")).await.name;
    let key = KeyPair::from_pem(&fs::read_to_string(world.path("agent-b.key")).unwrap()).unwrap();
    let part = v1::DelegateTaskRequest {
        parent: parent.clone(),
        request_id: "part".to_owned(),
        agent: "spiffe://workloads.dev.example/agent/b".to_owned(),
        holder_key_thumbprint: Some(world.thumbprint(OTHER_AGENT)),
        scope: vec![permission(FILES, "reports/q3", &["read"])],
        ..v1::DelegateTaskRequest::default()
    };
    let child = a.delegate(part).await.ok().task.unwrap().name;
    let identity = b.issue(svid(&world, &child, "x509", &key)).await.ok().credential.unwrap();
    let issued = b.issue(jwt_svid(&child, "jwt")).await.ok().credential.unwrap();
    assert_eq!(issued.spiffe_id, identity.spiffe_id);
    let said = verified(&world, &issued.token);
    let path: Vec<&str> = child.strip_prefix("tasks/").unwrap().split('-').collect();
    assert_eq!((&said["sub"], &said["task"]), (&json!(identity.spiffe_id), &json!(path)));
    // What ends above it ends it.
    let server = world.client(RESOURCE_SERVER).await;
    assert!(server.is_active(&issued.token).await);
    world.client(ORCHESTRATOR).await.complete(&parent).await.ok();
    assert!(!server.is_active(&issued.token).await);
    drop((a, b, server));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p4_without_a_policy_that_names_it_there_is_none() {
    let denied = Code::PermissionDenied;
    let shipped = World::start();
    let task = shipped.open_task(shipped.create("open")).await.name;
    let agent = shipped.client(AGENT).await;
    agent.issue(jwt_svid(&task, "unnamed")).await.refused(denied, "policy_denied");
    agent.issue(issue(&task, "token")).await.ok();
    drop(agent);
    shipped.finish();

    // A policy for one audience is for no other, whatever else the set permits.
    let world = World::with(|_, folder| {
        permit_for_files(folder);
        let all = "@id(\"all\") permit (principal, action, resource);";
        fs::write(folder.join("policies/all.cedar"), all).unwrap();
    });
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    let for_audience = |request_id: &str, audience: &str| v1::IssueCredentialRequest {
        audience: audience.to_owned(),
        ..jwt_svid(&task, request_id)
    };
    agent.issue(for_audience("status", STATUS)).await.refused(denied, "policy_denied");
    let unknown = "https://unknown.example";
    agent.issue(for_audience("unknown", unknown)).await.refused(denied, "scope_widens");
    agent.issue(for_audience("files", FILES)).await.ok();

    // It is for an audience that the task may do something at.
    let elsewhere = v1::CreateTaskRequest {
        scope: vec![permission(STATUS, "health", &["read"])],
        ..world.create("elsewhere")
    };
    let elsewhere = world.open_task(elsewhere).await.name;
    agent.issue(jwt_svid(&elsewhere, "outside")).await.refused(denied, "scope_widens");
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_jwt_svid_cannot_have_is_not_asked_for() {
    let world = world();
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    for (request_id, change) in [
        ("audience", (|it| it.audience.clear()) as fn(&mut v1::IssueCredentialRequest)),
        ("spelling", |it| it.audience = "Files".to_owned()),
        ("scope", |it| it.scope = vec![permission(FILES, "reports/q3", &["read"])]),
        ("csr", |it| it.csr = Some(greedy_csr(&KeyPair::generate().unwrap()))),
    ] {
        let mut request = jwt_svid(&task, request_id);
        change(&mut request);
        agent.issue(request).await.refused(Code::InvalidArgument, "invalid_argument");
    }
    assert_eq!(agent.get(&task).await.ok().live_leases, 0);
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l8_it_is_issued_for_the_holder_key_of_its_task_and_names_it() {
    let world = world();
    next_second().await;
    let key = KeyPair::generate().unwrap();
    let task = bound(&world, "open", &key).await.name;
    let agent = world.client(AGENT).await;
    let answer = agent.issue(jwt_svid(&task, "connection")).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    let proof = svid(&world, &task, "holder", &key).dpop_proof;
    let proven = v1::IssueCredentialRequest { dpop_proof: proof, ..jwt_svid(&task, "holder") };
    let issued = agent.issue(proven).await.ok().credential.unwrap();
    let holder = brevet_client::dpop::HolderKey::from_pem(key.serialize_pem().as_bytes()).unwrap();
    assert_eq!(claims(&issued.token)["cnf"], json!({"jkt": holder.thumbprint().to_string()}));
    let other = world.client(OTHER_AGENT).await;
    other.issue(jwt_svid(&task, "other")).await.refused(Code::NotFound, "not_found");
    let orchestrator = world.client(ORCHESTRATOR).await;
    orchestrator.issue(jwt_svid(&task, "opener")).await.refused(Code::PermissionDenied, "not_agent");
    drop((agent, other, orchestrator));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l5_a_renewed_one_is_for_the_same_task_audience_and_key() {
    let world = world();
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await.name;
    let first = agent.issue(jwt_svid(&task, "first")).await.ok().credential.unwrap();
    let renewed = agent.renew(renew(&first.lease, "again")).await.ok().credential.unwrap();
    assert_ne!(renewed.lease, first.lease);
    let (old, new) = (claims(&first.token), claims(&renewed.token));
    for same in ["sub", "aud", "cnf", "task"] {
        assert_eq!(new[same], old[same], "{same}");
    }
    assert_ne!(new["jti"], old["jti"]);
    let scoped = v1::RenewCredentialRequest {
        scope: vec![permission(FILES, "reports/q3", &["read"])],
        ..renew(&first.lease, "scoped")
    };
    agent.renew(scoped).await.refused(Code::InvalidArgument, "invalid_argument");
    agent.give_back(&first.lease).await.ok();
    agent.renew(renew(&first.lease, "returned")).await.refused(Code::FailedPrecondition, "lease_ended");
    let server = world.client(RESOURCE_SERVER).await;
    assert!(!server.is_active(&first.token).await && server.is_active(&renewed.token).await);
    drop((agent, server));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t1_t7_its_audience_alone_learns_whether_it_lives_and_it_ends_with_its_task() {
    let world = World::with(|config, folder| {
        permit_for_files(folder);
        let audiences = config["audiences"].as_array_mut().unwrap();
        audiences[1]["enforcers"] = toml::Value::from(vec!["spiffe://workloads.dev.example/status-server"]);
    });
    let agent = world.client(AGENT).await;
    let server = world.client(RESOURCE_SERVER).await;
    let task = world.open_task(world.create("open")).await.name;
    let token = agent.issue(jwt_svid(&task, "one")).await.ok().credential.unwrap().token;
    assert!(server.is_active(&token).await);
    for stranger in [
        world.workload("spiffe://workloads.dev.example/status-server").await,
        world.client(AGENT).await,
        world.client(OPERATOR).await,
    ] {
        let answer = stranger.introspect(&token).await.ok();
        let revision = answer.revision;
        let inactive = v1::IntrospectCredentialResponse { active: false, revision, ..Default::default() };
        assert_eq!(answer, inactive);
    }
    // A signature of another, or of the other key.
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let task_token = agent.issued(&task, "token").await.token;
    let other = task_token.rsplit_once('.').unwrap().1;
    let altered: String = signature.chars().rev().collect();
    for signature in [other, altered.as_str()] {
        assert!(!server.is_active(&format!("{signed}.{signature}")).await);
    }
    world.client(ORCHESTRATOR).await.complete(&task).await.ok();
    assert!(!server.is_active(&token).await);
    agent.issue(jwt_svid(&task, "late")).await.refused(Code::FailedPrecondition, "task_closed");
    drop((agent, server));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l3_it_dies_at_its_end_by_itself() {
    let world = world();
    let task = world.open_task(world.create("open")).await.name;
    let (agent, server) = (world.client(AGENT).await, world.client(RESOURCE_SERVER).await);
    let request = v1::IssueCredentialRequest { lifetime: seconds(2), ..jwt_svid(&task, "one") };
    let issued = agent.issue(request.clone()).await.ok().credential.unwrap();
    let end = u64::try_from(issued.expire_time.unwrap().seconds).unwrap();
    eventually("the lease is dead", || async {
        let before = now().seconds();
        let active = server.is_active(&issued.token).await;
        // Live before its end, dead from it on; in between the answer may be either.
        assert!(if now().seconds() < end { active } else { before < end || !active });
        !active
    })
    .await;
    agent.issue(request).await.refused(Code::FailedPrecondition, "lease_ended");
    drop((agent, server));
    world.finish();
}

/// What it opens is its audience's to say, so a lock on anything there stops it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t6_a_lock_on_a_tool_ends_it_and_forbids_another() {
    let world = world();
    let (agent, server) = (world.client(AGENT).await, world.client(RESOURCE_SERVER).await);
    let task = world.open_task(world.create("open")).await.name;
    let token = agent.issue(jwt_svid(&task, "one")).await.ok().credential.unwrap().token;
    let reading = agent.issued(&task, "token").await.token;
    let write = v1::selector::Kind::Tool("write".to_owned());
    world.client(OPERATOR).await.create_lock(stop("stop", write)).await.ok();
    assert!(!server.is_active(&token).await);
    assert!(server.is_active(&reading).await, "a token that does not name it lives on");
    agent.issue(jwt_svid(&task, "two")).await.refused(Code::FailedPrecondition, "locked");
    drop((agent, server));
    world.finish();
}

/// It has another key and another type than a task token, so that neither is ever taken for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t8_it_is_no_task_token_and_no_callers_identity() {
    let world = world();
    let task = world.open_task(world.create("open")).await.name;
    let agent = world.client(AGENT).await;
    let token = agent.issue(jwt_svid(&task, "one")).await.ok().credential.unwrap().token;
    let nobody = world.nobody().await;
    for scheme in ["Bearer", "DPoP"] {
        let mut request = tonic::Request::new(v1::GetTaskRequest { name: task.clone() });
        request.metadata_mut().insert("authorization", format!("{scheme} {token}").parse().unwrap());
        let result = nobody.broker.tasks().get_task(request).await.map(tonic::Response::into_inner);
        let answer = nobody.answer("GetTask", None, result);
        answer.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "ambiguous_credentials");
    }
    let keys = JwkSet::parse(fetch(&world, "/oauth/jwks").as_bytes()).unwrap();
    let issuer = "https://broker.dev.example";
    let read = |token: &str| task_token::authenticate(token, &keys, issuer).map(drop);
    assert_eq!(read(&token).unwrap_err().reason(), "typ_mismatch");
    let task_token = agent.issued(&task, "token").await.token;
    read(&task_token).unwrap();
    assert_eq!(judged(&world, &task_token, None).unwrap_err().reason(), "typ_mismatch");
    // Whoever judges callers' tokens as the broker would finds that it minted this one.
    judged(&world, &token, None).unwrap();
    let own = judged(&world, &token, Some("broker.dev.example"));
    assert_eq!(own.unwrap_err(), BearerError::OwnCredential);
    drop((agent, nobody));
    world.finish();
}
