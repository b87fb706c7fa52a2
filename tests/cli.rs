//! The built `brevet` program as people and scripts use it: what each command prints, and what it exits with.

#![expect(clippy::unwrap_used, reason = "a test whose world cannot be made fails")]

#[cfg(test)]
#[path = "cli/agents.rs"]
mod agents;
#[cfg(test)]
#[path = "cli/readme.rs"]
mod readme;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use brevet::clock::Clock;
use brevet_client::Endpoints;
use brevet_client::dpop::HolderKey;
use brevet_core::time::Timestamp;
use brevet_testkit::ca::TestCa;
use brevet_testkit::daemon::{Daemon, refused_start};
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_brevet");
const AGENT_A: &str = "spiffe://workloads.dev.example/agent/a";
const READ: &str = "https://files.dev.example reports/q3 read";

/// What the program answered.
#[derive(Debug)]
struct Answer {
    exit: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    #[track_caller]
    fn done(self) -> String {
        assert_eq!((self.exit, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// Refused with this code, and one line about it that names the reason.
    #[track_caller]
    fn refused(self, exit: i32, reason: &str) {
        assert_eq!((self.exit, self.out.as_str()), (Some(exit), ""), "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.starts_with("brevet: ") && self.err.contains(reason), "{}", self.err);
    }
}

fn brevet(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Answer {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone already.
    let _taken = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { exit: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A daemon in a folder of its own.
struct World {
    folder: TempDir,
    daemon: Daemon,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(Path::new(BINARY), folder.path());
        Self { folder, daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn call(&self, identity: &str, arguments: &[&str]) -> Answer {
        self.call_with(identity, arguments, "")
    }

    fn call_with(&self, identity: &str, arguments: &[&str], input: &str) -> Answer {
        let folder = self.folder.path().to_str().unwrap();
        brevet(&[arguments, &["--dir", folder, "--as", identity]].concat(), &[], input)
    }

    /// Opens a task for agent A. The arguments of the caller's come last.
    fn create(&self, identity: &str, more: &[&str]) -> Answer {
        let create = ["task", "create", "--agent", AGENT_A, "--type", "summarise", "--purpose", "tests"];
        let within =
            ["--sensitivity-max", "moderate", "--permit", "https://files.dev.example reports/** read,write"];
        self.call(identity, &[&create[..], &within, more].concat())
    }

    /// A task, and the file with its claim.
    fn task(&self, name: &str) -> (String, String) {
        let claim = self.text(&format!("{name}.claim"));
        let task = self.create("orchestrator", &["-o", "name", "--claim-file", &claim]).done();
        (task.trim().to_owned(), claim)
    }

    fn issue(&self, task: &str, more: &[&str]) -> Answer {
        self.call("agent-a", &[&["credential", "issue", task, "--permit", READ][..], more].concat())
    }

    fn introspect(&self, token: &str) -> Value {
        self.call_with("resource-server", &["credential", "introspect", "-o", "json"], token).json()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_task_is_opened_used_and_completed_by_commands_alone() {
    let world = World::start();
    let opened = world.create("orchestrator", &["-o", "json", "--request-id", "r-1"]).json();
    let (task, claim) = (opened["task"]["name"].as_str().unwrap(), opened["claim"].as_str().unwrap());
    assert_eq!((&opened["request_id"], &opened["task"]["state"]), (&"r-1".into(), &"active".into()));

    let permit = world.call_with(
        "agent-a",
        &["credential", "issue", task, "--claim-file", "-", "-o", "json", "--permit", READ],
        claim,
    );
    let issued = permit.json();
    let token = issued["token"].as_str().unwrap();
    assert_eq!(token.split('.').count(), 3);
    let live = world.introspect(token);
    assert_eq!(
        (&live["active"], &live["lease"], &live["scope"]),
        (&true.into(), &issued["lease"], &issued["scope"])
    );
    assert_eq!(world.call("orchestrator", &["task", "get", task, "-o", "json"]).json()["live_leases"], 1);

    let ended =
        world.call("orchestrator", &["task", "complete", task, "--reason", "done", "-o", "json"]).json();
    assert_eq!((&ended["leases_ended"], &ended["task"]["state"]), (&1.into(), &"completed".into()));
    assert_eq!(world.introspect(token)["active"], false);

    let failed = world.task("failed").0;
    let cancelled = world.task("cancelled").0;
    assert!(world.call("orchestrator", &["task", "fail", &failed]).done().contains("failed"));
    assert!(world.call("orchestrator", &["task", "cancel", &cancelled]).done().contains("cancelled"));
    let listed = world.call("orchestrator", &["task", "list", "--state", "failed", "-o", "name"]).done();
    assert_eq!(listed.trim(), failed);
    let lines = world.call("orchestrator", &["task", "list", "-o", "jsonl"]).done();
    let tasks: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(tasks.len(), 3);
}

#[test]
fn no_table_shows_a_secret_and_a_secret_file_is_its_owners() {
    let world = World::start();
    let (task, claim_file) = world.task("t");
    let claim = fs::read_to_string(&claim_file).unwrap();
    assert_eq!(mode(Path::new(&claim_file)), 0o600);
    let table = world.issue(&task, &["--claim-file", &claim_file, "--request-id", "i-1"]).done();
    // The same request gets the same credential, signed again.
    let (token_file, again) = (world.text("token"), ["--claim-file", &claim_file, "--request-id", "i-1"]);
    let issued = world.issue(&task, &[&again[..], &["-o", "json"]].concat()).json();
    let token = issued["token"].as_str().unwrap();
    let to_file =
        world.issue(&task, &[&again[..], &["-o", "json", "--token-file", &token_file]].concat()).json();
    assert_eq!(to_file["token"], Value::Null);
    let written = fs::read_to_string(&token_file).unwrap();
    assert_eq!((&to_file["lease"], mode(Path::new(&token_file))), (&issued["lease"], 0o600));
    assert_eq!(world.introspect(&written)["lease"], issued["lease"]);

    let introspected =
        world.call("resource-server", &["credential", "introspect", "--token-file", &token_file]).done();
    let opened = world.create("orchestrator", &["--request-id", "o-1"]).done();
    let opened_claim =
        world.create("orchestrator", &["--request-id", "o-1", "-o", "json"]).json()["claim"].clone();
    let name = world.issue(&task, &[&again[..], &["-o", "name"]].concat()).done();
    assert_eq!(name.trim(), issued["lease"].as_str().unwrap());
    for shown in [&table, &introspected, &opened, &name] {
        let lease = issued["lease"].as_str().unwrap();
        assert!(shown.contains(lease) || shown.contains("o-1"), "{shown}");
        for secret in [token, written.trim(), claim.trim(), opened_claim.as_str().unwrap()] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    // Nor does an error that is about one.
    let refused = world.call_with("resource-server", &["credential", "introspect"], &"x".repeat(300_000));
    refused.refused(1, "too long");
    let malformed = world.issue(&task, &["--holder-key", &token_file]);
    assert!(!malformed.err.contains(written.trim()));
    malformed.refused(1, "no private key");
}

#[test]
fn an_agent_proves_a_holder_key_of_its_own() {
    let world = World::start();
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let thumbprint = HolderKey::from_pem(pem.as_bytes()).unwrap().thumbprint().to_string();
    let key = world.text("holder.key");
    fs::write(&key, pem).unwrap();
    let opened = world.create("orchestrator", &["-o", "json", "--holder-key-thumbprint", &thumbprint]).json();
    assert_eq!(opened["claim"], Value::Null);
    let task = opened["task"]["name"].as_str().unwrap();
    // A proof is dated in whole seconds, and none that was made before the daemon started is accepted.
    let clock = Clock::system(Timestamp::EPOCH, Duration::ZERO).unwrap();
    std::thread::sleep(Duration::from_millis(1_000 - clock.now().issue.millis() % 1_000));
    let issued = world.issue(task, &["--holder-key", &key, "-o", "json"]).json();
    let live = world.introspect(issued["token"].as_str().unwrap());
    assert_eq!(live["holder_key_thumbprint"], thumbprint.as_str());
    // Without the proof it is another instance, to which the task does not exist.
    world.issue(task, &[]).refused(7, "NOT_FOUND");
}

#[test]
fn every_kind_of_refusal_has_its_exit_code() {
    let mut world = World::start();
    let (task, claim) = world.task("t");
    world.create("agent-a", &[]).refused(3, "POLICY_DENIED");
    let wide = ["--permit", "https://files.dev.example reports/q3 delete", "--claim-file", &claim];
    world.issue(&task, &wide).refused(3, "SCOPE_WIDENS");
    let unknown = format!("tasks/{}", "0".repeat(26));
    world.call("orchestrator", &["task", "get", &unknown]).refused(7, "NOT_FOUND");
    world.call("agent-b", &["task", "get", &task]).refused(7, "NOT_FOUND");
    world.create("orchestrator", &["--request-id", "r", "--lifetime-seconds", "0"]).refused(2, "lifetime");
    world.create("orchestrator", &["--request-id", "r", "-o", "name"]).done();
    world
        .create("orchestrator", &["--request-id", "r", "--lifetime-seconds", "60"])
        .refused(1, "REQUEST_ID_REUSED");
    world.call("orchestrator", &["task", "complete", &task]).done();
    world.issue(&task, &["--claim-file", &claim]).refused(1, "TASK_CLOSED");

    let tasks = ["task", "list"];
    world.call("nobody", &tasks).refused(1, "no identity named nobody");
    world.daemon.stop();
    world.call("orchestrator", &tasks).refused(8, "no connection");
}

#[test]
fn a_caller_that_is_not_known_is_told_so_and_a_foreign_server_is_nobodys_refusal() {
    let mut world = World::start();
    let now = Clock::system(Timestamp::EPOCH, Duration::ZERO).unwrap().now().issue;
    // An authority of another trust domain that the broker trusts for that one alone.
    let partner = TestCa::new(&"partner.example".parse().unwrap(), now);
    fs::write(world.path("partner.pem"), partner.pem()).unwrap();
    world.daemon.stop();
    let config = world.path("brevet.toml");
    let text = fs::read_to_string(&config).unwrap();
    let trust = "[[trust]]\ntrust_domain = \"partner.example\"\nbundle = \"partner.pem\"\n\n[[audiences]]";
    fs::write(&config, text.replacen("[[audiences]]", trust, 1)).unwrap();
    world.daemon.restart();

    let endpoints = Endpoints::read(world.folder.path()).unwrap();
    let server = endpoints.server_spiffe_id.to_string();
    let bundle = world.text("state/ca.pem");
    let tasks = |cert: &str, key: &str, server: &str| {
        let options = ["--cert", cert, "--key", key, "--bundle", &bundle, "--server-id", server];
        brevet(&[&["task", "list", "--endpoint", &endpoints.grpc][..], &options].concat(), &[], "")
    };
    let forged = |authority: &TestCa| {
        let (cert, key) = (world.text("forged.pem"), world.text("forged.key"));
        let svid = authority.svid(AGENT_A);
        fs::write(&cert, svid.certificate).unwrap();
        fs::write(&key, svid.key).unwrap();
        tasks(&cert, &key, &server)
    };
    forged(&partner).refused(4, "UNAUTHENTICATED");
    // Whom no authority vouches for, TLS refuses. Whether its alert is read before the connection is gone is open.
    let stranger = forged(&TestCa::new(&"workloads.dev.example".parse().unwrap(), now));
    assert!(matches!(stranger.exit, Some(4 | 8)), "{stranger:?}");
    assert_eq!(stranger.out, "");

    let agent = endpoints.identity("agent-a").unwrap();
    let (cert, key) = (agent.cert.to_str().unwrap(), agent.key.to_str().unwrap());
    tasks(cert, key, &server).done();
    tasks(cert, key, "spiffe://broker.dev.example/other").refused(1, "");
}

#[test]
fn a_connection_may_be_described_by_the_environment() {
    let world = World::start();
    let folder = world.folder.path().to_str().unwrap();
    let tasks = ["task", "list", "-o", "jsonl"];
    brevet(&tasks, &[("BREVET_DIR", folder), ("BREVET_AS", "orchestrator")], "").done();
    let endpoint = ("BREVET_ENDPOINT", "https://127.0.0.1:1");
    for environment in
        [&[("BREVET_DIR", folder)][..], &[], &[("BREVET_DIR", folder), ("BREVET_AS", "operator"), endpoint]]
    {
        brevet(&tasks, environment, "").refused(2, "--endpoint");
    }
}

#[test]
fn what_does_not_parse_is_a_usage_error() {
    let options = ["--dir", "/nonexistent", "--as", "a"];
    for wrong in [
        &["task"][..],
        &["tusk"],
        &["task", "get", "task-1"],
        &["task", "list", "--state", "open"],
        &["task", "list", "-o", "yaml"],
        &["task", "complete", "tasks/00000000000000000000000000", "--reason", "free text"],
        &["credential", "issue", "tasks/00000000000000000000000000", "--permit", "two words"],
        &["credential", "introspect", "a.b.c"],
        &["audit", "verify", "/nonexistent"],
        &["completions", "csh"],
        &["lock", "create"],
        &["lock", "create", "--everything", "--tool", "read"],
        &["lock", "create", "--resource", "reports/q3"],
        &["lock", "lift", "00000000000000000000000000"],
        &["lease", "get", "tasks/00000000000000000000000000"],
        &["lease", "list", "--state", "open"],
        &["lease", "revoke-matching", "--preview"],
    ] {
        let answer = brevet(&[wrong, &options].concat(), &[], "");
        assert_eq!((answer.exit, answer.out.as_str()), (Some(2), ""), "{wrong:?}");
    }
    brevet(&["task", "list", "--dir", "/nonexistent", "--as", "a"], &[], "").refused(1, "/nonexistent");
}

#[test]
fn what_is_written_in_base64url_may_begin_with_a_hyphen() {
    let digest = format!("-{}A", "x".repeat(41));
    let agent = "spiffe://td/a";
    let create =
        ["task", "create", "--agent", agent, "--type", "t", "--purpose", "p", "--sensitivity-max", "low"];
    let create = [&create[..], &["--permit", "x a/b read", "--holder-key-thumbprint", &digest]].concat();
    let delegate =
        ["task", "delegate", "tasks/00000000000000000000000000", "--agent", agent, "--permit", "x a/b read"];
    let delegate = [&delegate[..], &["--holder-key-thumbprint", &digest]].concat();
    for right in [
        &create[..],
        &delegate,
        &["lock", "create", "--key-id", &digest],
        &["lease", "revoke-matching", "--policy", &digest, "--reason", "x"],
    ] {
        // It parses, and then there is nobody to ask.
        brevet(&[right, &["--dir", "/nonexistent", "--as", "a"]].concat(), &[], "")
            .refused(1, "/nonexistent");
    }
}

#[test]
fn the_emergency_stop_is_pulled_and_lifted_by_commands_alone() {
    let world = World::start();
    let (task, claim) = world.task("t");
    let first = world.issue(&task, &["--claim-file", &claim, "-o", "json"]).json();
    let token = first["token"].as_str().unwrap();
    let create = ["lock", "create", "--tool", "read", "--message", "see runbook 7", "--request-id", "l-1"];
    let created = world.call("operator", &[&create[..], &["-o", "json"]].concat()).json();
    let lock = created["lock"]["name"].as_str().unwrap();
    assert_eq!(created["lock"]["selector"], serde_json::json!({ "tool": "read" }));
    assert_eq!((&created["request_id"], &created["lock"]["in_force"]), (&"l-1".into(), &true.into()));
    assert_eq!(world.introspect(token)["active"], false);
    let stopped = world.issue(&task, &["--claim-file", &claim]);
    assert!(stopped.err.contains("see runbook 7"), "{}", stopped.err);
    stopped.refused(9, "LOCKED");
    // The same request gets the same lock, whatever the answer looks like.
    let table = world.call("operator", &create).done();
    assert!(
        table.contains(lock) && table.contains("tool read") && table.contains("see runbook 7"),
        "{table}"
    );
    assert_eq!(world.call("operator", &["lock", "list", "-o", "name"]).done().trim(), lock);
    world.call("agent-a", &["lock", "lift", lock]).refused(3, "POLICY_DENIED");
    let lifted = world.call("operator", &["lock", "lift", lock, "-o", "json"]).json();
    assert_eq!(lifted["in_force"], false);
    assert_eq!(world.introspect(token)["active"], false);
    let anew = world.issue(&task, &["--claim-file", &claim, "-o", "json"]).json();
    assert_eq!(world.introspect(anew["token"].as_str().unwrap())["active"], true);

    // What stops the operator too is lifted over the local root socket, by its path or by the folder that names it.
    let everything = ["lock", "create", "--everything", "-o", "name"];
    let lock = world.call("operator", &everything).done().trim().to_owned();
    world.call("operator", &["lock", "lift", &lock]).refused(9, "LOCKED");
    let socket = world.text("state/root@brevet.sock");
    let shown = brevet(&["lock", "get", &lock, "--root-socket", &socket, "-o", "json"], &[], "").json();
    assert_eq!((&shown["selector"]["everything"], &shown["tenant"]), (&true.into(), &"default".into()));
    world.call("root", &["lock", "lift", &lock]).done();
    let by_environment = [("BREVET_ROOT_SOCKET", socket.as_str())];
    let lock = brevet(&everything, &by_environment, "").done().trim().to_owned();
    world.call("operator", &["lock", "lift", &lock]).refused(9, "LOCKED");
    brevet(&["lock", "lift", &lock], &by_environment, "").done();
    brevet(&["lock", "list", "--root-socket", &world.text("nowhere")], &[], "").refused(8, "no connection");
    world.call("operator", &["lock", "get", &format!("locks/{}", "0".repeat(26))]).refused(7, "NOT_FOUND");
}

#[test]
fn leases_are_shown_and_revoked_by_commands_alone() {
    let world = World::start();
    let (task, claim) = world.task("t");
    let issue = || world.issue(&task, &["--claim-file", &claim, "-o", "json"]).json();
    let issued: Vec<Value> = (0..3).map(|_| issue()).collect();
    let lease = issued[0]["lease"].as_str().unwrap();
    let shown = world.call("operator", &["lease", "get", lease, "-o", "json"]).json();
    assert_eq!((&shown["state"], &shown["agent"]), (&"active".into(), &AGENT_A.into()));
    assert_eq!((&shown["scope"], &shown["audience"]), (&issued[0]["scope"], &issued[0]["audience"]));
    let revoked =
        world.call("operator", &["lease", "revoke", lease, "--reason", "key_leaked", "-o", "json"]).json();
    assert_eq!((&revoked["state"], &revoked["end_reason"]), (&"revoked".into(), &"key_leaked".into()));
    assert_eq!(world.introspect(issued[0]["token"].as_str().unwrap())["active"], false);
    let active =
        world.call("operator", &["lease", "list", "--state", "active", "--task", &task, "-o", "name"]).done();
    assert_eq!(active.lines().count(), 2);

    let matching = ["lease", "revoke-matching", "--agent", AGENT_A, "-o", "json"];
    let preview = world.call("operator", &[&matching[..], &["--preview"]].concat()).json();
    assert_eq!((&preview["preview"], &preview["leases_ended"]), (&true.into(), &2.into()));
    assert_eq!(world.introspect(issued[1]["token"].as_str().unwrap())["active"], true);
    let ended = world.call("operator", &matching).json();
    assert_eq!((&ended["preview"], &ended["leases"]), (&false.into(), &preview["leases"]));
    assert_eq!(world.introspect(issued[1]["token"].as_str().unwrap())["active"], false);
    assert_eq!(world.introspect(issue()["token"].as_str().unwrap())["active"], true);
    let table = world.call("operator", &["lease", "revoke-matching", "--everything", "--preview"]).done();
    assert!(table.contains("no, a preview"), "{table}");
    world.call("agent-a", &["lease", "list"]).refused(3, "POLICY_DENIED");
}

#[test]
fn serve_check_finds_what_a_start_would_and_changes_nothing() {
    let mut world = World::start();
    world.daemon.stop();
    let config = world.text("brevet.toml");
    let good = fs::read_to_string(&config).unwrap();
    let check = || brevet(&["serve", "--check", "--config", &config], &[], "");
    let state = || {
        let mut files: Vec<_> =
            fs::read_dir(world.path("state")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|file| (fs::read(&file).unwrap_or_default(), file)).collect::<Vec<_>>()
    };
    let before = state();
    assert_eq!(check().done(), "");
    assert!(state() == before, "a check changed the state directory");

    for (from, to, reason) in [
        ("[http]", "[htpp]", "unknown field, expected one of"),
        ("reflection = true", "reflections = true", "unknown field, expected one of"),
        ("\"policies\"", "\"polices\"", "polices"),
        ("\"workloads.pem\"", "\"nobody.pem\"", "nobody.pem"),
        ("\"workloads.pem\"", "\"orchestrator.key\"", "orchestrator.key"),
        ("enforcement = \"lease\"", "enforcement = \"hope\"", "unknown variant, expected one of"),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&config, good.replacen(from, to, 1)).unwrap();
        check().refused(1, reason);
    }
    fs::write(&config, good).unwrap();
    fs::write(world.path("policies/broken.cedar"), "permit (principal").unwrap();
    check().refused(1, "broken.cedar");
    brevet(&["serve", "--check", "--config", "/nonexistent"], &[], "").refused(1, "/nonexistent");
}

#[test]
fn a_daemon_refuses_a_store_in_use_and_a_key_that_others_can_read() {
    let mut world = World::start();
    let config = world.path("brevet.toml");
    let second = refused_start(Path::new(BINARY), &config);
    assert_eq!(second.status.code(), Some(1));
    // The first goes on.
    world.call("orchestrator", &["task", "list"]).done();
    assert!(world.daemon.stop().success());

    let key = world.path("state/task-token.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let refused = refused_start(Path::new(BINARY), &config);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("task-token.key") && said.contains("chmod 600"), "{said}");
    let config = config.to_str().unwrap();
    brevet(&["key", "show", "--config", config], &[], "").refused(1, "chmod 600");
}

#[test]
fn keys_are_shown_beside_a_running_daemon_and_never_made() {
    let world = World::start();
    let config = world.text("brevet.toml");
    let shown = brevet(&["key", "show", "--config", &config], &[], "").json();
    let pem = brevet(&["key", "show", "--config", &config, "-o", "pem"], &[], "").done();
    assert_eq!(shown["checkpoints"]["pem"], pem.as_str());
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"));
    for of in ["task_tokens", "jwt_svids", "bookmarks"] {
        assert_eq!(shown[of]["keys"].as_array().unwrap().len(), 1, "{of}");
    }
    let of_jwt_svids = &shown["jwt_svids"]["keys"][0];
    assert_eq!(of_jwt_svids["use"], "jwt-svid");
    assert_ne!(of_jwt_svids["kid"], shown["task_tokens"]["keys"][0]["kid"]);
    assert_ne!(shown["task_tokens"]["keys"][0]["kid"], shown["checkpoints"]["kid"]);
    for secret in ["checkpoint.key", "task-token.key", "jwt-svid.key"] {
        let secret = fs::read_to_string(world.path("state").join(secret)).unwrap();
        let line = secret.lines().nth(1).unwrap();
        assert!(!shown.to_string().contains(line) && !pem.contains(line));
    }

    let elsewhere = world.text("elsewhere.toml");
    fs::write(&elsewhere, fs::read_to_string(&config).unwrap().replace("\"state\"", "\"empty\"")).unwrap();
    fs::create_dir(world.path("empty")).unwrap();
    brevet(&["key", "show", "--config", &elsewhere], &[], "").refused(1, "no key");
    assert_eq!(fs::read_dir(world.path("empty")).unwrap().count(), 0);
}

/// Copies the files of a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn an_auditor_verifies_a_copy_and_sees_what_was_done_to_it() {
    let mut world = World::start();
    world.task("t");
    let key = world.text("checkpoints.pem");
    let config = world.text("brevet.toml");
    fs::write(&key, brevet(&["key", "show", "--config", &config, "-o", "pem"], &[], "").done()).unwrap();
    let verify = |path: &str, key: &str, more: &[&str]| {
        brevet(&[&["audit", "verify", path, "--key", key][..], more].concat(), &[], "")
    };
    let state = world.text("state");
    verify(&state, &key, &[]).refused(1, "open");
    world.daemon.stop();

    let (early, report) = (world.text("early"), world.text("report.json"));
    copy(Path::new(&state), Path::new(&early));
    let text = verify(&early, &key, &["-o", "json"]).done();
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["checkpoint"]["revision"], found["records"]);
    fs::write(&report, text).unwrap();
    assert!(verify(&early, &key, &[]).done().contains("VOUCHED UP TO"));

    // What grew since still holds what was vouched for then, and what was cut back does not hold what is now.
    world.daemon.restart();
    world.task("u");
    world.daemon.stop();
    verify(&state, &key, &["--checkpoint", &report]).done();
    fs::write(&report, verify(&state, &key, &["-o", "json"]).done()).unwrap();
    verify(&early, &key, &[]).done();
    verify(&early, &key, &["--checkpoint", &report]).refused(1, "ends at revision");

    let flipped = world.path("flipped");
    copy(Path::new(&state), &flipped);
    let database = flipped.join("journal.db");
    let mut bytes = fs::read(&database).unwrap();
    let at = bytes.windows(AGENT_A.len()).position(|window| window == AGENT_A.as_bytes()).unwrap();
    bytes[at] ^= 1;
    fs::write(&database, bytes).unwrap();
    verify(flipped.to_str().unwrap(), &key, &[]).refused(1, "damaged");

    let other = world.text("other.pem");
    fs::write(&other, rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap();
    verify(&state, &other, &[]).refused(1, "damaged");
    verify(&state, &world.text("state/checkpoint.key"), &[]).refused(1, "no public key");
    verify(&state, &key, &["--checkpoint", &key]).refused(1, "not a report");
    verify("/nonexistent", &key, &[]).refused(1, "cannot read");
}

#[test]
fn completions_are_there_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = brevet(&["completions", shell], &[], "").done();
        assert!(script.contains("introspect") && script.contains("token-file"), "{shell}");
    }
}
