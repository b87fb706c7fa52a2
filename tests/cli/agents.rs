//! What agents and auditors do: renew and return, delegate, get X.509-SVIDs, and read the log.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use brevet::clock::Clock;
use brevet_client::dpop::HolderKey;
use brevet_core::time::Timestamp;
use serde_json::Value;

use crate::{BINARY, READ, World, brevet, mode};

const AGENT_A: &str = "spiffe://workloads.dev.example/agent/a";
const AGENT_B: &str = "spiffe://workloads.dev.example/agent/b";
const AGENT_C: &str = "spiffe://functions.dev.example/agent/c";

/// A key of its own for an instance of an agent: the file and the thumbprint.
fn holder_key(world: &World, name: &str) -> (String, String) {
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let thumbprint = HolderKey::from_pem(pem.as_bytes()).unwrap().thumbprint().to_string();
    let file = world.text(name);
    fs::write(&file, pem).unwrap();
    (file, thumbprint)
}

/// Waits for the next whole second: no proof is accepted that was made before the daemon started.
fn next_second() {
    let clock = Clock::system(Timestamp::EPOCH, Duration::ZERO).unwrap();
    std::thread::sleep(Duration::from_millis(1_000 - clock.now().issue.millis() % 1_000));
}

#[test]
fn an_agent_without_a_certificate_is_somebody_by_the_token_that_it_was_given() {
    let world = World::start();
    next_second();
    let list = || world.call("agent-c", &["task", "list", "-o", "json"]);
    list().refused(4, "the token cannot be shown");
    world.call("agent-a", &["dev-token"]).refused(1, "no identity named agent-a");
    assert_eq!(world.call("agent-c", &["dev-token"]).done(), "");
    assert_eq!(mode(&world.path("agent-c.token")), 0o600);
    list().done();

    let (claim, health) = (world.text("c.claim"), "https://status.dev.example health read");
    let create = ["task", "create", "--agent", AGENT_C, "--type", "summarise", "--purpose", "tests"];
    let within = ["--sensitivity-max", "low", "--permit", health, "--claim-file", &claim, "-o", "name"];
    let task = world.call("orchestrator", &[create, within].concat()).done();
    let issue =
        ["credential", "issue", task.trim(), "--claim-file", &claim, "--permit", health, "-o", "json"];
    let issued = world.call("agent-c", &issue).json();
    assert_eq!(issued["audience"], "https://status.dev.example");
    // Another token of its own is as good, with the same key.
    world.call("agent-c", &["dev-token"]).done();
    list().done();
    // With another key the token is worth nothing.
    fs::copy(world.path("agent-b.key"), world.path("agent-c.key")).unwrap();
    list().refused(4, "UNAUTHENTICATED");
}

#[test]
fn a_credential_is_renewed_and_returned() {
    let world = World::start();
    let (task, claim) = world.task("t");
    let issued = world.issue(&task, &["--claim-file", &claim, "-o", "json"]).json();
    let lease = issued["lease"].as_str().unwrap();
    let token_file = world.text("renewed");
    let renew = |more: &[&str]| world.call("agent-a", &[&["credential", "renew", lease][..], more].concat());
    let renewed = renew(&["--token-file", &token_file, "--request-id", "r-1", "-o", "json"]).json();
    assert_ne!(renewed["lease"], issued["lease"]);
    assert_eq!((&renewed["scope"], &renewed["audience"]), (&issued["scope"], &issued["audience"]));
    assert_eq!((&renewed["token"], mode(Path::new(&token_file))), (&Value::Null, 0o600));
    let renewed_token = fs::read_to_string(&token_file).unwrap();
    let shown = renew(&["--request-id", "r-1"]).done();
    assert!(shown.contains(renewed["lease"].as_str().unwrap()) && !shown.contains(renewed_token.trim()));
    renew(&["--permit", "https://files.dev.example reports/q3 write"]).refused(3, "SCOPE_WIDENS");
    renew(&["--permit", "https://files.dev.example reports/** read"]).refused(3, "SCOPE_WIDENS");

    let give_back = |identity: &str| world.call(identity, &["credential", "return", lease, "-o", "json"]);
    give_back("agent-b").refused(7, "NOT_FOUND");
    let returned = give_back("agent-a").json();
    assert_eq!(returned["lease"], lease);
    assert_eq!(world.introspect(issued["token"].as_str().unwrap())["active"], false);
    assert_eq!(world.introspect(&renewed_token)["active"], true);
    give_back("agent-a").json();
    renew(&[]).refused(1, "LEASE_ENDED");
}

#[test]
fn a_task_is_delegated_and_drawn_on_by_another_agent() {
    let world = World::start();
    let (key, thumbprint) = holder_key(&world, "holder.key");
    let task = world.create("orchestrator", &["-o", "name", "--holder-key-thumbprint", &thumbprint]).done();
    let task = task.trim();
    next_second();
    let claim = world.text("child.claim");
    let delegate = |more: &[&str]| {
        let delegate = ["task", "delegate", task, "--agent", AGENT_B, "--permit", READ];
        world.call("agent-a", &[&delegate[..], more].concat())
    };
    // The parent is bound to a key of its own.
    delegate(&[]).refused(7, "NOT_FOUND");
    let own = ["--holder-key", &key, "--request-id", "d-1"];
    let child = delegate(&[&own[..], &["--claim-file", &claim, "-o", "json"]].concat()).json();
    let name = child["task"]["name"].as_str().unwrap();
    assert_eq!((&child["task"]["parent"], &child["claim"]), (&task.into(), &Value::Null));
    assert_eq!((&child["task"]["agent"], mode(Path::new(&claim))), (&AGENT_B.into(), 0o600));
    assert!(delegate(&own).done().contains(name));
    delegate(&["--holder-key", &key, "--permit", "https://status.dev.example health read"])
        .refused(3, "SCOPE_WIDENS");

    let issue = ["credential", "issue", name, "--claim-file", &claim, "--permit", READ, "-o", "json"];
    let token = world.call("agent-b", &issue).json()["token"].as_str().unwrap().to_owned();
    assert_eq!(world.introspect(&token)["agent"], AGENT_B);
    world.call("orchestrator", &["task", "complete", task]).done();
    assert_eq!(world.introspect(&token)["active"], false);
}

#[test]
fn a_jwt_svid_is_for_the_audience_that_is_named() {
    let world = World::start();
    let (task, claim) = world.task("t");
    let files = "https://files.dev.example";
    let issue = |more: &[&str]| {
        world.call("agent-a", &[&["credential", "issue", &task, "--claim-file", &claim][..], more].concat())
    };
    issue(&["--jwt-svid", files]).refused(3, "POLICY_DENIED");
    let rule = format!(
        "@id(\"jwt-svids\") permit (principal, action, resource == Brevet::Audience::\"{files}\")
         when {{ context.credential.profile == \"jwt_svid\" }};"
    );
    fs::write(world.path("policies/jwt-svids.cedar"), rule).unwrap();
    // The daemon looks at its files now and then.
    let issued =
        std::iter::repeat_with(|| issue(&["--jwt-svid", files, "-o", "json"])).take(100).find(|answer| {
            std::thread::sleep(Duration::from_millis(100));
            answer.exit == Some(0)
        });
    let issued = issued.unwrap().json();
    assert_eq!((&issued["profile"], &issued["audience"]), (&"jwt_svid".into(), &files.into()));
    let id = task.strip_prefix("tasks/").unwrap();
    let expected = format!("spiffe://broker.dev.example/agent/workloads.dev.example/agent/a/task/{id}");
    assert_eq!((&issued["spiffe_id"], &issued["scope"]), (&expected.into(), &Value::Null));
    assert_eq!(world.introspect(issued["token"].as_str().unwrap())["agent"], AGENT_A);
    let token_file = world.text("identity.jwt");
    let renew = ["credential", "renew", issued["lease"].as_str().unwrap(), "--token-file", &token_file];
    let renewed = world.call("agent-a", &[&renew[..], &["-o", "json"]].concat()).json();
    assert_eq!((&renewed["token"], mode(Path::new(&token_file))), (&Value::Null, 0o600));
    for wrong in
        [&["--jwt-svid", files, "--permit", READ][..], &["--jwt-svid", files, "--svid"], &["--jwt-svid", "A"]]
    {
        assert_eq!(issue(wrong).exit, Some(2), "{wrong:?}");
    }
}

#[test]
fn an_x509_svid_is_made_for_the_key_in_a_file() {
    let world = World::start();
    let (key, thumbprint) = holder_key(&world, "holder.key");
    let task = world.create("orchestrator", &["-o", "name", "--holder-key-thumbprint", &thumbprint]).done();
    let task = task.trim();
    let certificate = world.text("svid.pem");
    next_second();
    let svid =
        |more: &[&str]| world.call("agent-a", &[&["credential", "issue", task, "--svid"][..], more].concat());
    let issued = svid(&["--holder-key", &key, "--certificate-file", &certificate, "-o", "json"]).json();
    let id = task.strip_prefix("tasks/").unwrap();
    let expected = format!("spiffe://broker.dev.example/agent/workloads.dev.example/agent/a/task/{id}");
    assert_eq!((&issued["spiffe_id"], &issued["profile"]), (&expected.into(), &"x509_svid".into()));
    assert_eq!((&issued["token"], &issued["certificates"]), (&Value::Null, &Value::Null));
    let written = fs::read_to_string(&certificate).unwrap();
    assert!(written.starts_with("-----BEGIN CERTIFICATE-----\n"), "{written}");
    // The same request gets a certificate of the same, and without a file it is in the answer.
    let again = ["--holder-key", &key, "--request-id", "s-1", "-o", "json"];
    let (first, second) = (svid(&again).json(), svid(&again).json());
    assert_eq!(first["lease"], second["lease"]);
    assert!(first["certificates"].as_str().unwrap().ends_with("-----END CERTIFICATE-----\n"));

    let (other, _) = holder_key(&world, "other.key");
    svid(&["--holder-key", &other]).refused(7, "NOT_FOUND");
    // The caller's own, which is not the task's.
    svid(&[]).refused(7, "NOT_FOUND");
    for wrong in
        [&["--permit", READ, "--holder-key", &key][..], &["--token-file", &certificate, "--holder-key", &key]]
    {
        assert_eq!(svid(wrong).exit, Some(2), "{wrong:?}");
    }
}

#[test]
fn an_auditor_lists_the_log_and_follows_it() {
    let mut world = World::start();
    let (task, _) = world.task("t");
    world.call("agent-b", &["task", "get", &task]).refused(7, "NOT_FOUND");
    world.call("agent-a", &["audit", "list"]).refused(3, "POLICY_DENIED");
    world.call("agent-a", &["audit", "tail"]).refused(3, "POLICY_DENIED");
    // A refusal is durable within a second, or with what is acknowledged after it.
    world.create("orchestrator", &[]).done();
    let list = |more: &[&str]| world.call("operator", &[&["audit", "list"][..], more].concat());
    let lines = |text: String| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let everything = lines(list(&["-o", "jsonl"]).done());
    let document = list(&["-o", "json"]).json();
    assert!(document.as_array().unwrap().starts_with(&everything[..4]));
    let revisions: Vec<u64> = everything.iter().map(|event| event["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, (1..=u64::try_from(everything.len()).unwrap()).collect::<Vec<_>>());

    let opened = lines(list(&["-o", "jsonl", "--type", "task_opened", "--task", &task]).done());
    assert_eq!(opened.len(), 1);
    assert_eq!(
        (&opened[0]["tree"], &opened[0]["record"]["fact"]["type"]),
        (&task.clone().into(), &"task_opened".into())
    );
    assert_eq!(opened[0]["chain"].as_str().unwrap().len(), 64);
    let denied = lines(list(&["-o", "jsonl", "--caller", AGENT_B, "--type", "denied"]).done());
    assert_eq!(denied.len(), 1);
    assert_eq!(lines(list(&["-o", "jsonl", "--limit", "2", "--after-revision", "1"]).done()).len(), 2);
    let table = list(&["--limit", "3"]).done();
    assert!(table.starts_with("CURSOR  TIME  TYPE") && table.lines().count() == 4, "{table}");
    let table = list(&["--type", "denied"]).done();
    assert!(table.contains("policy_denied: no_permit"), "{table}");

    let tail =
        |more: &[&str]| world.call("operator", &[&["audit", "tail", "-o", "jsonl"][..], more].concat());
    let from_start = lines(tail(&["--from-start", "--limit", &everything.len().to_string()]).done());
    assert_eq!(from_start, everything);
    let cursor = everything[1]["cursor"].as_str().unwrap();
    assert_eq!(lines(tail(&["--cursor", cursor, "--limit", "1"]).done()), [everything[2].clone()]);
    let other_life = format!("1{cursor}");
    tail(&["--cursor", &other_life]).refused(1, "INCARNATION_CHANGED");

    // It shows what happens while it happens, and ends when the broker does.
    let folder = world.folder.path().to_str().unwrap().to_owned();
    let mut following = Command::new(BINARY)
        .args(["audit", "tail", "-o", "jsonl", "--dir", &folder, "--as", "operator", "--from-start"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    let known: Vec<String> = shown.by_ref().take(everything.len()).collect();
    assert_eq!(lines(known.join("\n")), everything);
    let (second, _) = world.task("u");
    let opened = shown.by_ref().find(|line| line.contains("task_opened")).unwrap();
    assert!(opened.contains(second.strip_prefix("tasks/").unwrap()), "{opened}");
    world.daemon.stop();
    assert_eq!(following.wait().unwrap().code(), Some(8));

    for wrong in [
        &["audit", "list", "--type", "task_exploded"][..],
        &["audit", "tail", "--cursor", "1"],
        &["audit", "tail", "--cursor", "1:2", "--from-start"],
    ] {
        assert_eq!(brevet(&[wrong, &["--dir", &folder, "--as", "operator"]].concat(), &[], "").exit, Some(2));
    }
}
