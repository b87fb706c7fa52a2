//! Clients that no one here wrote accept what is minted.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use brevet_testkit::jose;
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::jwt_svid::{jwt_svid, permit_for_files};
use crate::svid::{bound, pem, svid};
use crate::world::{AGENT, FILES, World, binary, next_second};

/// Says that the Python packages are there, and so the test can run.
const VARIABLE: &str = "BREVET_STOCK_CLIENTS";

fn may_run() -> bool {
    let may = std::env::var(VARIABLE).as_deref() == Ok("1");
    if !may {
        println!("not run: {VARIABLE}=1 runs it, where python3 has what `.ci/run` installs");
    }
    may
}

/// Runs one of the scripts beside this folder, which is to agree with us.
fn agrees(script: &str, arguments: &[&OsStr]) -> String {
    agrees_on(Stdio::null(), script, arguments)
}

/// The same, with something to read.
fn agrees_on(input: impl Into<Stdio>, script: &str, arguments: &[&OsStr]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let output = Command::new("python3").arg(script).args(arguments).stdin(input).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn stock_clients_verify_a_task_token_by_the_published_keys() {
    if !may_run() {
        return;
    }
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let token = world.client(AGENT).await.issued(&task, "one").await.token;
    let file = world.path("token.jwt");
    fs::write(&file, &token).unwrap();
    let keys = format!("{}/oauth/jwks", world.endpoints().http);
    let issuer = "https://broker.dev.example";
    let agent = "spiffe://workloads.dev.example/agent/a";
    let arguments = [file.as_os_str(), keys.as_ref(), issuer.as_ref(), FILES.as_ref(), agent.as_ref()];
    assert!(agrees("stock_clients.py", &arguments).contains("PyJWT"));
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn stock_libraries_take_the_jwt_svid_of_a_task_for_one_and_a_task_token_for_none() {
    if !may_run() {
        return;
    }
    let world = World::with(|_, folder| permit_for_files(folder));
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await.name;
    let issued = agent.issue(jwt_svid(&task, "one")).await.ok().credential.unwrap();
    let task_token = agent.issued(&task, "token").await.token;
    let (svid, token) = (world.path("svid.jwt"), world.path("token.jwt"));
    fs::write(&svid, &issued.token).unwrap();
    fs::write(&token, task_token).unwrap();
    let http = world.endpoints().http;
    let (bundle, keys) = (format!("{http}/spiffe/bundle"), format!("{http}/oauth/jwks"));
    let arguments = [
        svid.as_os_str(),
        token.as_os_str(),
        bundle.as_ref(),
        keys.as_ref(),
        FILES.as_ref(),
        issued.spiffe_id.as_ref(),
    ];
    let said = agrees("stock_jwt_svid.py", &arguments);
    assert!(said.contains("PyJWT") && said.contains("spiffe "), "{said}");
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_stock_library_takes_the_svid_of_a_task_for_one() {
    if !may_run() {
        return;
    }
    let world = World::start();
    next_second().await;
    let key = KeyPair::generate().unwrap();
    let task = bound(&world, "open", &key).await.name;
    let request = svid(&world, &task, "one", &key);
    let issued = world.client(AGENT).await.issue(request).await.ok().credential.unwrap();
    let (chain, secret) = (world.path("svid.pem"), world.path("svid.key"));
    fs::write(&chain, pem(&issued.certificate_chain)).unwrap();
    fs::write(&secret, key.serialize_pem()).unwrap();
    let bundle = format!("{}/spiffe/bundle", world.endpoints().http);
    let arguments = [chain.as_os_str(), secret.as_os_str(), bundle.as_ref(), issued.spiffe_id.as_ref()];
    assert!(agrees("stock_spiffe.py", &arguments).contains("accepted"));

    // By the letter of RFC 5280, for both sides of a connection, and under no other authority.
    let verify = |authority: &Path, purpose: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]).arg(authority).arg(&chain);
        openssl.output().unwrap().status.success()
    };
    let (own, foreign) = (world.path("state/ca.pem"), world.path("workloads.pem"));
    assert!(verify(&own, "sslclient") && verify(&own, "sslserver"));
    assert!(!verify(&foreign, "sslclient"));
    world.finish();
}

/// What is accepted here and by nobody else is accepted wrongly.
#[test]
fn what_brevet_accepts_stock_libraries_accept_too() {
    if !may_run() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut accepted = Vec::new();
    for kind in ["jws", "jwt-svid", "token"] {
        let cases: Vec<jose::Case> =
            jose::cases().into_iter().filter(|case| case.kind == kind && !case.by_the_letter).collect();
        let file = folder.path().join(kind);
        fs::write(&file, cases.iter().map(|case| case.to_json() + "\n").collect::<String>()).unwrap();
        let verify =
            Command::new(binary()).args(["verify", kind]).stdin(fs::File::open(file).unwrap()).output();
        let answers = String::from_utf8(verify.unwrap().stdout).unwrap();
        for (case, answer) in cases.iter().zip(answers.lines()) {
            let answer: Value = serde_json::from_str(answer).unwrap();
            if answer["accept"] != true {
                continue;
            }
            // The bundle of the workload that was proven, or the one set there is.
            let td = answer["spiffe_id"].as_str().and_then(|id| id.split('/').nth(2)).unwrap_or_default();
            let keys = case.body.get("jwks").unwrap_or_else(|| &case.body["bundles"][td])["keys"].clone();
            let audience = (kind != "jws").then(|| case.body["audience"].clone());
            let one = json!({"id": case.id, "token": case.body["token"], "keys": keys, "audience": audience,
                "at": jose::AT.seconds()});
            accepted.push(one.to_string() + "\n");
        }
    }
    assert!(accepted.len() >= 40, "{}", accepted.len());
    let file = folder.path().join("accepted");
    fs::write(&file, accepted.concat()).unwrap();
    let said = agrees_on(fs::File::open(file).unwrap(), "stock_differential.py", &[]);
    assert!(said.contains("accept them too"));
}
