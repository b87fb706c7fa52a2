//! Clients that no one here wrote accept what is minted.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use brevet_testkit::jose;
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::jwt_svid::{jwt_svid, permit_for_files};
use crate::svid::{bound, pem, svid};
use crate::world::{AGENT, FILES, World, binary, next_second};

/// Says that the Python packages are there, and so the test can run. One that is missing is a failure then.
const VARIABLE: &str = "BREVET_STOCK_CLIENTS";

/// The libraries that every token is shown to.
const JOSE: [&str; 3] = ["PyJWT", "jwcrypto", "Authlib"];

/// What each script cannot do without.
const SCRIPTS: [(&str, &[&str]); 4] = [
    ("stock_clients.py", &["jwt", "jwcrypto", "authlib"]),
    ("stock_differential.py", &["jwt", "jwcrypto", "authlib"]),
    ("stock_jwt_svid.py", &["jwt", "jwcrypto", "authlib", "spiffe"]),
    ("stock_spiffe.py", &["cryptography", "spiffe"]),
];

fn may_run() -> bool {
    let may = std::env::var(VARIABLE).as_deref() == Ok("1");
    if !may {
        println!("not run: {VARIABLE}=1 runs it, where python3 has what `.ci/run` installs");
    }
    may
}

/// No variable of whoever runs the tests switches assertions off, and nothing is written beside the scripts.
fn python() -> Command {
    let mut python = Command::new("python3");
    python.args(["-E", "-B"]);
    python
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Runs one of the scripts beside this folder, which is to agree with us.
fn agrees(script: &str, arguments: &[&OsStr]) -> String {
    agrees_on(Stdio::null(), script, arguments)
}

/// The same, with something to read.
fn agrees_on(input: impl Into<Stdio>, script: &str, arguments: &[&OsStr]) -> String {
    let output = python().arg(folder().join(script)).args(arguments).stdin(input).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn i6_stock_clients_verify_a_task_token_by_the_published_keys() {
    if !may_run() {
        return;
    }
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let token = world.client(AGENT).await.issued(&task, "one").await.token;
    let file = world.path("token.jwt");
    fs::write(&file, &token).unwrap();
    let http = world.endpoints().http;
    let (keys, bundle) = (format!("{http}/oauth/jwks"), format!("{http}/spiffe/bundle"));
    let issuer = "https://broker.dev.example";
    let agent = "spiffe://workloads.dev.example/agent/a";
    let arguments =
        [file.as_os_str(), keys.as_ref(), bundle.as_ref(), issuer.as_ref(), FILES.as_ref(), agent.as_ref()];
    let said = agrees("stock_clients.py", &arguments);
    assert!(JOSE.iter().all(|library| said.contains(library)), "{said}");
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn i6_stock_libraries_take_the_jwt_svid_of_a_task_for_one_and_a_task_token_for_none() {
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
    assert!(JOSE.iter().all(|library| said.contains(library)) && said.contains("spiffe "), "{said}");
    drop(agent);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn i6_the_stock_library_takes_the_svid_of_a_task_for_one() {
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
fn i6_what_brevet_accepts_stock_libraries_accept_too() {
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
        assert_eq!(answers.lines().count(), cases.len(), "{kind}");
        let before = accepted.len();
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
        assert!(accepted.len() > before, "nothing is accepted as {kind}");
    }
    assert!(accepted.len() >= 40, "{}", accepted.len());
    let file = folder.path().join("accepted");
    fs::write(&file, accepted.concat()).unwrap();
    let said = agrees_on(fs::File::open(file).unwrap(), "stock_differential.py", &[]);
    assert!(said.contains("accept them too") && JOSE.iter().all(|library| said.contains(library)), "{said}");
}

/// Whoever lacks a library has verified nothing with it, whatever the others say.
#[test]
fn i6_a_script_that_lacks_a_library_agrees_with_nothing() {
    if !may_run() {
        return;
    }
    let all: BTreeSet<&str> = SCRIPTS.iter().flat_map(|(_, libraries)| *libraries).copied().collect();
    let import = format!("import {}", Vec::from_iter(all).join(", "));
    assert!(python().args(["-c", &import]).status().unwrap().success(), "a library is missing");
    // A module that is `None` cannot be imported.
    let run = "import runpy, sys\nsys.path.insert(0, sys.argv[1])\nsys.modules[sys.argv[3]] = None\n\
               runpy.run_path(sys.argv[1] + '/' + sys.argv[2], run_name='__main__')";
    for (script, libraries) in SCRIPTS {
        for library in libraries {
            let mut without = python();
            without.args(["-c", run]).arg(folder()).args([script, library]).stdin(Stdio::null());
            let output = without.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{script} without {library}");
            let missed = |line: &str| line.starts_with("ModuleNotFoundError") && line.contains(library);
            assert!(said.lines().any(missed), "{script} without {library}: {said}");
        }
    }
}
