//! X.509-SVIDs of tasks: who works on which task, and nothing more.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_api::v1;
use brevet_client::dpop::{HolderKey, Proof, prove};
use brevet_core::fact::Fact;
use brevet_core::proof::Caller;
use brevet_core::time::Timestamp;
use brevet_identity::trust::{Bundle, CallerTrust};
use brevet_identity::x509_svid::verify_chain;
use brevet_testkit::ca::TestSvid;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use tonic::Code;

use crate::identity::assert_nobody;
use crate::world::{
    AGENT, FILES, ORCHESTRATOR, OTHER_AGENT, RESOURCE_SERVER, World, next_second, now, permission, renew,
    seconds,
};

const OF_AGENT_A: &str = "spiffe://broker.dev.example/agent/workloads.dev.example/agent/a/task";

/// A certification request that asks for everything it must not get.
pub(crate) fn greedy_csr(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.subject_alt_names = vec![
        SanType::URI("spiffe://broker.dev.example/brevet".try_into().unwrap()),
        SanType::DnsName("broker.dev.example".try_into().unwrap()),
    ];
    params.serialize_request(key).unwrap().der().to_vec()
}

/// A request for an X.509-SVID over a key, with a proof of that key made now.
pub(crate) fn svid(world: &World, task: &str, request_id: &str, key: &KeyPair) -> v1::IssueCredentialRequest {
    let holder = HolderKey::from_pem(key.serialize_pem().as_bytes()).unwrap();
    let url = format!("{}/brevet.v1.CredentialService/IssueCredential", world.endpoints().grpc);
    let id = format!("{task}-{request_id}");
    let proof = Proof { method: "POST", url: &url, issued_at: now(), id: &id, access_token: None };
    v1::IssueCredentialRequest {
        task: task.to_owned(),
        request_id: request_id.to_owned(),
        profile: v1::Profile::X509Svid.into(),
        csr: Some(greedy_csr(key)),
        dpop_proof: Some(prove(&holder, &proof).unwrap()),
        ..v1::IssueCredentialRequest::default()
    }
}

fn thumbprint(key: &KeyPair) -> String {
    HolderKey::from_pem(key.serialize_pem().as_bytes()).unwrap().thumbprint().to_string()
}

pub(crate) fn pem(chain: &[Vec<u8>]) -> String {
    let lines = |der: &Vec<u8>| {
        let text = STANDARD.encode(der).into_bytes();
        text.chunks(64).map(|line| String::from_utf8_lossy(line) + "\n").collect::<String>()
    };
    let block = |der| format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines(der));
    chain.iter().map(block).collect()
}

/// What somebody else makes of the certificate, who trusts the broker's authority.
fn judged(world: &World, chain: &[Vec<u8>], at: Timestamp) -> Result<Caller, &'static str> {
    let authority = Bundle::from_pem(&fs::read(world.path("state/ca.pem")).unwrap()).unwrap();
    let bundles = [("broker.dev.example".parse().unwrap(), authority)];
    let trust = CallerTrust::new("partner.example".parse().unwrap(), bundles).unwrap();
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    verify_chain(&chain, &trust, at).map_err(|problem| problem.reason())
}

/// A task for the first agent that is bound to a key of its own.
pub(crate) async fn bound(world: &World, request_id: &str, key: &KeyPair) -> v1::Task {
    let holder_key_thumbprint = Some(thumbprint(key));
    world.open_task(v1::CreateTaskRequest { holder_key_thumbprint, ..world.create(request_id) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_svid_says_who_works_on_which_task_while_its_lease_lives() {
    let world = World::start();
    next_second().await;
    let agent = world.client(AGENT).await;
    let key = KeyPair::generate().unwrap();
    let task = bound(&world, "open", &key).await;
    let id = task.name.strip_prefix("tasks/").unwrap();

    let request =
        v1::IssueCredentialRequest { lifetime: seconds(120), ..svid(&world, &task.name, "one", &key) };
    let issued = agent.issue(request.clone()).await.ok().credential.unwrap();
    assert_eq!(issued.spiffe_id, format!("{OF_AGENT_A}/{id}"));
    assert_eq!(issued.profile(), v1::Profile::X509Svid);
    assert_eq!((issued.token.as_str(), issued.audience.as_str(), issued.scope.len()), ("", "", 0));
    assert_eq!(issued.certificate_chain.len(), 1);

    // The certificate has the task's name and the holder's key, and of what the request asked for nothing.
    let at = now();
    let caller = judged(&world, &issued.certificate_chain, at).unwrap();
    assert_eq!(caller.spiffe_id().as_str(), issued.spiffe_id);
    assert_eq!(caller.key().to_string(), thumbprint(&key));
    for smuggled in [&b"admin"[..], b"broker.dev.example/brevet"] {
        let leaf = &issued.certificate_chain[0];
        assert!(!leaf.windows(smuggled.len()).any(|window| window == smuggled));
    }
    // It lives within its lease, the lease within its task, and policy has a limit of its own.
    let end = Timestamp::from_seconds(u64::try_from(issued.expire_time.unwrap().seconds).unwrap());
    assert!(caller.valid_until() <= end && end.since(at).as_secs() <= 120);
    assert_eq!(judged(&world, &issued.certificate_chain, end).unwrap_err(), "cert_time");
    let long =
        v1::IssueCredentialRequest { lifetime: seconds(3_600), ..svid(&world, &task.name, "long", &key) };
    let long = agent.issue(long).await.ok().credential.unwrap();
    assert!(long.expire_time.unwrap().seconds - long.issue_time.unwrap().seconds <= 300);

    // A retry gets the same name, key and serial number until the same end; a request made anew is another.
    let again = agent.issue(request.clone()).await.ok().credential.unwrap();
    assert_eq!((&again.lease, again.expire_time), (&issued.lease, issued.expire_time));
    let other = KeyPair::generate().unwrap();
    let other = v1::IssueCredentialRequest { csr: Some(greedy_csr(&other)), ..request };
    agent.issue(other).await.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    assert_eq!(agent.get(&task.name).await.ok().live_leases, 2);
    drop(agent);

    // The record has the whole of what was signed, and no key that signs.
    let journal = world.finish();
    let issued: Vec<_> =
        journal.iter().filter(|written| matches!(written.fact, Fact::LeaseIssued { .. })).collect();
    assert_eq!(issued.len(), 2);
    // What else the certification requests asked for is passed over, and that they did is recorded.
    for written in issued {
        let evidence = written.evidence.as_ref().unwrap().to_string();
        assert!(evidence.contains(r#""ignored_attributes":true"#), "{evidence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l8_an_svid_is_for_the_holder_key_and_no_other() {
    let world = World::start();
    next_second().await;
    let agent = world.client(AGENT).await;
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let task = bound(&world, "open", &key).await.name;
    let answer = agent.issue(svid(&world, &task, "other", &other)).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    agent.issue(svid(&world, &task, "own", &key)).await.ok();
    // A copy of a certification request proves nothing: it says which key is meant, and no more.
    let copier = world.client(AGENT).await;
    let copied = v1::IssueCredentialRequest { dpop_proof: None, ..svid(&world, &task, "copied", &key) };
    let answer = copier.issue(copied.clone()).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    // Over the connection that has proven the key, it needs no further proof.
    agent.issue(copied).await.ok();

    // A request redeems a claim with the key that it proves.
    let orchestrator = world.client(ORCHESTRATOR).await;
    let request = v1::CreateTaskRequest { holder_key_thumbprint: None, ..world.create("claim") };
    let opened = orchestrator.create(request).await.ok();
    let (task, claim) = (opened.task.unwrap().name, opened.claim);
    let with = |request_id: &str, key: &KeyPair, claim: Option<String>| v1::IssueCredentialRequest {
        claim,
        ..svid(&world, &task, request_id, key)
    };
    let answer = agent.issue(with("without", &key, None)).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");
    agent.issue(with("first", &key, claim.clone())).await.ok();
    let answer = agent.issue(with("second", &other, claim)).await;
    answer.refused_for(Code::NotFound, "NOT_FOUND", "holder_mismatch");

    // Another agent, and the opener.
    let b = world.client(OTHER_AGENT).await;
    b.issue(svid(&world, &task, "b", &key)).await.refused(Code::NotFound, "not_found");
    let answer = orchestrator.issue(svid(&world, &task, "opener", &key)).await;
    answer.refused(Code::PermissionDenied, "not_agent");
    drop((agent, copier, orchestrator, b));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certification_request_that_is_not_whole_is_refused() {
    let world = World::start();
    next_second().await;
    let agent = world.client(AGENT).await;
    let key = KeyPair::generate().unwrap();
    let task = bound(&world, "open", &key).await.name;
    let good = greedy_csr(&key);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    for (request_id, csr, reason) in [
        ("empty", vec![], "csr_malformed"),
        ("garbage", b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(), "csr_malformed"),
        ("cut", good[..good.len() - 1].to_vec(), "csr_malformed"),
        ("longer", [&good[..], &[0]].concat(), "csr_malformed"),
        ("forged", forged, "csr_signature"),
        ("kind", greedy_csr(&ed25519), "csr_key"),
        ("long", vec![0x30; 9 * 1024], "csr_size"),
    ] {
        let request = v1::IssueCredentialRequest { csr: Some(csr), ..svid(&world, &task, request_id, &key) };
        agent.issue(request).await.refused(Code::InvalidArgument, reason);
    }
    let invalid = "invalid_argument";
    for (request_id, change) in [
        ("none", (|it| it.csr = None) as fn(&mut v1::IssueCredentialRequest)),
        ("audience", |it| it.audience = FILES.to_owned()),
        ("scope", |it| it.scope = vec![permission(FILES, "reports/q3", &["read"])]),
        ("certificate", |it| it.bind_certificate = true),
        ("token", |it| it.profile = v1::Profile::TaskToken.into()),
    ] {
        let mut request = svid(&world, &task, request_id, &key);
        change(&mut request);
        agent.issue(request).await.refused(Code::InvalidArgument, invalid);
    }
    assert_eq!(agent.get(&task).await.ok().live_leases, 0);
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn none_of_the_brokers_own_keys_is_certified() {
    let world = World::start();
    next_second().await;
    let agent = world.client(AGENT).await;
    // Whoever can prove one of them has robbed the broker, and shall not have a name for it.
    for file in ["ca.key", "task-token.key", "jwt-svid.key", "bookmark.key", "checkpoint.key"] {
        let key = fs::read_to_string(world.path(&format!("state/{file}"))).unwrap();
        let key = KeyPair::from_pem(&key).unwrap();
        let task = bound(&world, file, &key).await.name;
        let answer = agent.issue(svid(&world, &task, file, &key)).await;
        answer.refused(Code::InvalidArgument, "csr_key");
        assert_eq!(agent.get(&task).await.ok().live_leases, 0, "{file}");
    }
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l5_a_renewed_svid_is_for_the_same_task_and_key() {
    let world = World::start();
    next_second().await;
    let agent = world.client(AGENT).await;
    // The connection's own key is the task's here, so a renewal needs no other proof.
    let key = KeyPair::from_pem(&fs::read_to_string(world.path("agent-a.key")).unwrap()).unwrap();
    let task = bound(&world, "open", &key).await;
    let first = agent.issue(svid(&world, &task.name, "first", &key)).await.ok().credential.unwrap();
    let renewed = agent.renew(renew(&first.lease, "again")).await.ok().credential.unwrap();
    assert_ne!(renewed.lease, first.lease);
    assert_eq!((renewed.profile(), &renewed.spiffe_id), (v1::Profile::X509Svid, &first.spiffe_id));
    let caller = judged(&world, &renewed.certificate_chain, now()).unwrap();
    assert_eq!(caller.key().to_string(), thumbprint(&key));
    assert_ne!(renewed.certificate_chain, first.certificate_chain);
    let scoped = v1::RenewCredentialRequest {
        scope: vec![permission(FILES, "reports/q3", &["read"])],
        ..renew(&first.lease, "scoped")
    };
    agent.renew(scoped).await.refused(Code::InvalidArgument, "invalid_argument");
    agent.give_back(&first.lease).await.ok();
    agent.renew(renew(&first.lease, "returned")).await.refused(Code::FailedPrecondition, "lease_ended");
    // It is no token: nobody learns anything of it by introspection.
    assert!(!world.client(RESOURCE_SERVER).await.is_active(&pem(&renewed.certificate_chain)).await);
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_svid_of_a_delegated_task_names_the_whole_path() {
    let world = World::start();
    next_second().await;
    let (a, b) = (world.client(AGENT).await, world.client(OTHER_AGENT).await);
    let parent = world.open_task(world.create("open")).await.name;
    let key = KeyPair::generate().unwrap();
    let part = v1::DelegateTaskRequest {
        parent,
        request_id: "part".to_owned(),
        agent: "spiffe://workloads.dev.example/agent/b".to_owned(),
        holder_key_thumbprint: Some(thumbprint(&key)),
        ..v1::DelegateTaskRequest::default()
    };
    let child = a.delegate(part).await.ok().task.unwrap().name;
    let issued = b.issue(svid(&world, &child, "one", &key)).await.ok().credential.unwrap();
    let path = child.strip_prefix("tasks/").unwrap().replace('-', "/");
    let of_agent_b = OF_AGENT_A.replace("/agent/a/", "/agent/b/");
    assert_eq!(issued.spiffe_id, format!("{of_agent_b}/{path}"));
    assert_eq!(
        judged(&world, &issued.certificate_chain, now()).unwrap().spiffe_id().as_str(),
        issued.spiffe_id
    );
    drop((a, b));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t8_the_svid_of_a_task_authenticates_no_caller() {
    // The worst case: the broker's own authority stands in the bundle of the workloads' trust domain too.
    for trusted in [false, true] {
        let mut world = World::start();
        next_second().await;
        let key = KeyPair::generate().unwrap();
        let task = bound(&world, "open", &key).await.name;
        let issued =
            world.client(AGENT).await.issue(svid(&world, &task, "one", &key)).await.ok().credential.unwrap();
        let own = TestSvid { certificate: pem(&issued.certificate_chain), key: key.serialize_pem() };
        if trusted {
            let bundle = world.path("workloads.pem");
            let text = fs::read_to_string(&bundle).unwrap()
                + &fs::read_to_string(world.path("state/ca.pem")).unwrap();
            crate::world::replace(&bundle, &text);
            world.daemon.stop();
            world.daemon.restart();
        }
        assert_nobody(&world, &own, trusted).await;
        // How often a client tries again is its own business.
        let strangers: BTreeSet<_> = world
            .stop()
            .into_iter()
            .filter_map(|written| match written.fact {
                Fact::Denied { reason, .. } => Some((reason.as_str().to_owned(), written.envelope.caller)),
                _ => None,
            })
            .collect();
        let reason = if trusted { "own_credential" } else { "chain_invalid" };
        assert_eq!(strangers, [(reason.to_owned(), None)].into());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn openssl_finds_a_path_to_the_published_authority() {
    let world = World::start();
    next_second().await;
    let key = KeyPair::generate().unwrap();
    let task = bound(&world, "open", &key).await.name;
    let issued =
        world.client(AGENT).await.issue(svid(&world, &task, "one", &key)).await.ok().credential.unwrap();
    let file = world.path("svid.pem");
    fs::write(&file, pem(&issued.certificate_chain)).unwrap();
    for purpose in ["sslclient", "sslserver"] {
        let verified = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .arg(world.path("state/ca.pem"))
            .arg(&file)
            .output();
        let Ok(verified) = verified else {
            println!("not run: there is no openssl");
            break;
        };
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(verified.status.success(), "{said}{}", String::from_utf8_lossy(&verified.stderr));
    }
    world.finish();
}
