//! Nothing that the daemon says has a secret in it, but for the one answer that hands it over.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use brevet_api::v1;
use brevet_client::dpop::{HolderKey, Proof, prove};
use prost::Message;
use serde_json::json;
use tonic::{Code, Request};

use crate::jwt_svid::{jwt_svid, permit_for_files};
use crate::tokens::{AGENT as WORKLOAD, CREATE, ISSUER, ROBOT, Tokens};
use crate::watch::fetch;
use crate::world::{
    AGENT, Client, OPERATOR, ORCHESTRATOR, RESOURCE_SERVER, World, issue, next_second, now, renew,
};

/// What stands in fields that it has no business in.
pub(crate) const CANARY: &str = "canary in a coal mine";

/// Everything that the daemon has said to anyone, with where it was heard.
#[derive(Default)]
pub(crate) struct Heard(Vec<(String, Vec<u8>)>);

impl Heard {
    pub(crate) fn hear(&mut self, place: impl Into<String>, said: impl Into<Vec<u8>>) {
        self.0.push((place.into(), said.into()));
    }

    /// Every file of a folder but those with keys.
    pub(crate) fn read(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && path.extension().is_none_or(|ending| ending != "key") {
                self.hear(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }

    pub(crate) fn assert_without(&self, what: &str, secret: &[u8]) {
        assert!(secret.len() >= 16, "{what} is no secret");
        for (place, said) in &self.0 {
            let found = said.windows(secret.len()).position(|window| window == secret);
            let around = found.map(|at| {
                let line = said[..at].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                String::from_utf8_lossy(line).into_owned()
            });
            assert_eq!(around, None, "{what} is in {place}");
        }
    }
}

/// The forms in which the private keys of a folder could be said.
pub(crate) fn private_keys(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "key") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let name = path.display().to_string();
        // The scalar stands in PKCS #8 as an octet string of 32 bytes (RFC 5915). What is behind it is public.
        let der = STANDARD.decode(&body).unwrap_or_default();
        let Some(at) = der.windows(5).position(|head| head == [2, 1, 1, 4, 32]) else {
            found.extend([(name.clone(), body.into()), (name, der)]);
            continue;
        };
        let scalar = &der[at + 5..at + 37];
        let hex: String = scalar.iter().map(|byte| format!("{byte:02x}")).collect();
        // Of the file's own form, what lies on its first line.
        let line = STANDARD.encode(&scalar[..12]);
        let forms = [scalar.to_vec(), URL_SAFE_NO_PAD.encode(scalar).into(), hex.into(), line.into()];
        found.extend(forms.map(|form| (name.clone(), form)));
    }
    assert!(found.len() >= 8, "{found:?}");
    found
}

/// Asks for what is refused, with the canary wherever a text can be.
async fn refused(client: &Client, heard: &mut Heard, task: &str) {
    let canary = || CANARY.to_owned();
    let asked = v1::IssueCredentialRequest {
        claim: Some(canary()),
        dpop_proof: Some(format!("{CANARY}.{CANARY}.{CANARY}")),
        csr: Some(CANARY.into()),
        ..issue(task, "canary")
    };
    let (credentials, tasks) = (client.broker.credentials(), client.broker.tasks());
    let mut statuses = vec![
        credentials.clone().issue_credential(asked.clone()).await.unwrap_err(),
        credentials
            .clone()
            .issue_credential(v1::IssueCredentialRequest { csr: None, ..asked.clone() })
            .await
            .unwrap_err(),
        credentials
            .clone()
            .issue_credential(v1::IssueCredentialRequest {
                csr: None,
                dpop_proof: None,
                request_id: canary(),
                ..asked
            })
            .await
            .unwrap_err(),
        credentials.clone().renew_credential(renew(CANARY, CANARY)).await.unwrap_err(),
        tasks.clone().get_task(v1::GetTaskRequest { name: canary() }).await.unwrap_err(),
        tasks
            .clone()
            .complete_task(v1::CompleteTaskRequest { name: task.to_owned(), reason: canary() })
            .await
            .unwrap_err(),
        tasks
            .clone()
            .list_tasks(v1::ListTasksRequest { page_token: canary(), agent: canary(), ..Default::default() })
            .await
            .unwrap_err(),
    ];
    // In metadata nobody looks for anything, and its names are written nowhere.
    let mut request =
        Request::new(v1::GetTaskRequest { name: "tasks/7zzzzzzzzzzzzzzzzzzzzzzzzz".to_owned() });
    request.metadata_mut().insert("authorization", format!("DPoP {CANARY}").parse().unwrap());
    request.metadata_mut().insert("x-canary", CANARY.parse().unwrap());
    statuses.push(tasks.clone().get_task(request).await.unwrap_err());
    for status in statuses {
        heard.hear("a status", format!("{} {:?}", status.message(), status.metadata()));
        heard.hear("the details of a status", status.details());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l12_u5_no_secret_is_in_anything_that_the_daemon_says() {
    let world = World::with(|config, folder| {
        config.insert("log".to_owned(), toml::toml! { filter = "trace" }.into());
        permit_for_files(folder);
    });
    let mut heard = Heard::default();
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    next_second().await;

    // A task that is bound by its claim to a key which a proof shows.
    let open = v1::CreateTaskRequest { holder_key_thumbprint: None, ..world.create("open") };
    let opened = orchestrator.create(open).await.ok();
    let (task, claim) = (opened.task.unwrap().name, opened.claim.unwrap());
    let key = HolderKey::generate().unwrap();
    let url = format!("{}/brevet.v1.CredentialService/IssueCredential", world.endpoints().grpc);
    let proof = |id: &str| {
        let proof = Proof { method: "POST", url: &url, issued_at: now(), id, access_token: None };
        prove(&key, &proof).unwrap()
    };
    let proofs = [proof("good"), proof("replayed")];
    let with = |request_id: &str, proof: &str| v1::IssueCredentialRequest {
        claim: Some(claim.clone()),
        dpop_proof: Some(proof.to_owned()),
        ..issue(&task, request_id)
    };
    let issued = agent.issue(with("one", &proofs[0])).await.ok().credential.unwrap();
    agent.issue(with("two", &proofs[1])).await.ok();
    let replayed = world.client(AGENT).await.issue(with("three", &proofs[1])).await;
    let replayed = replayed.refused_for(Code::Unauthenticated, "UNAUTHENTICATED", "proof_replayed");
    heard.hear("a replay's status", format!("{replayed:?}"));
    let renewed = agent.renew(renew(&issued.lease, "renewed")).await.ok().credential.unwrap();
    let identity = agent.issue(jwt_svid(&task, "identity")).await.ok().credential.unwrap();
    refused(&agent, &mut heard, &task).await;

    // What others are answered about it.
    let (server, operator) = (world.client(RESOURCE_SERVER).await, world.client(OPERATOR).await);
    for token in [&issued.token, &identity.token] {
        heard.hear("introspection", server.introspect(token).await.ok().encode_to_vec());
    }
    let forged = format!("{}x", issued.token);
    heard.hear("introspection of nothing", server.introspect(&forged).await.ok().encode_to_vec());
    heard.hear("a task", orchestrator.get(&task).await.ok().encode_to_vec());
    heard.hear("a lease", operator.get_lease(&issued.lease).await.ok().encode_to_vec());
    let list = v1::ListLeasesRequest::default();
    heard.hear("the leases", operator.list_leases(list).await.ok().encode_to_vec());
    heard.hear("the log", operator.events(v1::ListEventsRequest::default()).await.ok().encode_to_vec());
    agent.give_back(&renewed.lease).await.ok();
    orchestrator.complete(&task).await.ok();
    for path in [
        "/oauth/jwks",
        "/revocation/jwks",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/spiffe/bundle",
        "/metrics",
        "/livez",
        "/readyz",
        &format!("/{}", claim),
    ] {
        let said = fetch(&world, path);
        heard.hear(if path.contains(&claim) { "no page" } else { path }, said);
    }
    drop((orchestrator, agent, server, operator));

    let folder = world.folder.path().to_owned();
    let World { mut daemon, folder: kept, .. } = world;
    assert!(daemon.stop().success());
    heard.read(&folder);
    heard.read(&folder.join("state"));
    assert!(heard.0.iter().map(|(_, said)| said.len()).sum::<usize>() > 50_000);
    heard.assert_without("the canary", CANARY.as_bytes());
    heard.assert_without("a claim", claim.as_bytes());
    let issued =
        [("a token", &issued.token), ("a renewed token", &renewed.token), ("a JWT-SVID", &identity.token)];
    for (what, secret) in issued.into_iter().chain(proofs.iter().map(|proof| ("a proof", proof))) {
        // Without its signature, or without what was signed, it is none.
        let (signed, signature) = secret.rsplit_once('.').unwrap();
        heard.assert_without(what, signature.as_bytes());
        heard.assert_without(what, signed.as_bytes());
    }
    for (key, form) in private_keys(&folder).into_iter().chain(private_keys(&folder.join("state"))) {
        heard.assert_without(&key, &form);
    }
    drop(kept);
}

/// Of whoever is let in by a token, of whoever shows the same proof again, of a thief, and of whoever comes too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l12_u5_no_token_and_no_proof_that_a_caller_shows_is_in_anything_that_the_daemon_says() {
    let tokens = Tokens::configured(|config| {
        config.insert("log".to_owned(), toml::toml! { filter = "trace" }.into());
    });
    next_second().await;
    let mut heard = Heard::default();
    let url = tokens.world.endpoints().grpc + CREATE;
    let channel = tokens.client(None, "", &tokens.holder).await.broker.channel();
    let (owner, thief) = (Tokens::key(&tokens.holder), HolderKey::generate().unwrap());
    let mut shown = Vec::new();
    for (workload, subject) in [(WORKLOAD, WORKLOAD), (ROBOT, "robot")] {
        let mut claims = Tokens::claims(subject);
        if workload == ROBOT {
            claims["iss"] = json!(ISSUER);
        }
        let token = |claims: &_| if workload == ROBOT { tokens.token(claims) } else { tokens.svid(claims) };
        let good = token(&claims);
        claims["exp"] = json!(now().seconds() - 1);
        let late = token(&claims);
        let proof = |key: &HolderKey, id: &str, token: &str| {
            let id = &format!("{subject}-{id}");
            let access_token = Some(token);
            prove(key, &Proof { method: "POST", url: &url, issued_at: now(), id, access_token }).unwrap()
        };
        let one = proof(&owner, "one", &good);
        for (token, proof, expected) in [
            (&good, one.clone(), Code::Ok),
            (&good, one, Code::Unauthenticated),
            (&good, proof(&thief, "stolen", &good), Code::Unauthenticated),
            (&late, proof(&owner, "late", &late), Code::Unauthenticated),
        ] {
            let mut request = Request::new(tokens.create(workload, "open", v1::Sensitivity::Low));
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            request.metadata_mut().insert("dpop", proof.parse().unwrap());
            let mut stub = v1::task_service_client::TaskServiceClient::new(channel.clone());
            match stub.create_task(request).await {
                Ok(answer) => {
                    assert_eq!(expected, Code::Ok);
                    heard.hear("an answer", answer.into_inner().encode_to_vec());
                }
                Err(status) => {
                    assert_eq!(status.code(), expected, "{status:?}");
                    heard.hear("a status", format!("{} {:?}", status.message(), status.metadata()));
                    heard.hear("the details of a status", status.details());
                }
            }
            shown.extend([("a token", token.clone()), ("a proof", proof)]);
        }
    }
    heard.hear("the metrics", tokens.world.metrics().await);
    drop(channel);
    let folder = tokens.world.folder.path().to_owned();
    let World { mut daemon, folder: kept, .. } = tokens.world;
    assert!(daemon.stop().success());
    fs::remove_file(folder.join("shown.token")).unwrap();
    heard.read(&folder);
    heard.read(&folder.join("state"));
    assert!(heard.0.iter().map(|(_, said)| said.len()).sum::<usize>() > 50_000);
    for (what, secret) in shown {
        let (signed, signature) = secret.rsplit_once('.').unwrap();
        heard.assert_without(what, signature.as_bytes());
        heard.assert_without(what, signed.as_bytes());
    }
    drop(kept);
}
