//! Clients that no one here wrote accept what is minted.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::world::{AGENT, FILES, World, issue};

/// Says that the Python packages are there, and so the test can run.
const VARIABLE: &str = "BREVET_STOCK_CLIENTS";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn stock_clients_verify_a_task_token_by_the_published_keys() {
    if std::env::var(VARIABLE).as_deref() != Ok("1") {
        println!("not run: {VARIABLE}=1 runs it, where python3 has PyJWT and cryptography");
        return;
    }
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let token = world.client(AGENT).await.issue(issue(&task, "one")).await.ok().credential.unwrap().token;
    let file = world.path("token.jwt");
    fs::write(&file, &token).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock_clients.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(&file)
        .arg(format!("{}/oauth/jwks", world.endpoints().http))
        .args(["https://broker.dev.example", FILES, "spiffe://workloads.dev.example/agent/a"])
        .output()
        .unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("PyJWT"), "{said}");
    println!("{said}");
    world.finish();
}
