//! The demo, as it is run from the command line, and that each step can fail.

#![expect(clippy::unwrap_used, reason = "a test whose world cannot be made fails")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use brevet_client::endpoints::Endpoints;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const STEPS: [&str; 34] = [
    "start",
    "identity",
    "task_opened",
    "token_issued",
    "svid_issued",
    "token_accepted",
    "stolen_copy_refused",
    "outside_scope_denied",
    "ceiling_held",
    "signature_only_short",
    "signature_only_refused",
    "renewed",
    "delegation_narrows",
    "widening_refused",
    "cycle_denied",
    "task_completed",
    "ended_is_final",
    "high_sensitivity_short",
    "injected_prompt_denied",
    "jwt_svid_denied",
    "jwt_svid_issued",
    "killed_agent_lease_ends",
    "bearer_admitted",
    "bearer_copy_refused",
    "bearer_low_only",
    "agent_locked",
    "lock_lifted",
    "killed_and_restarted",
    "stream_resumed",
    "denials_listed",
    "stopped",
    "audit_chain_verified",
    "denials_explained",
    "nothing_left",
];

/// Each shipped policy, and the step that does not hold without it.
const POLICIES: [(&str, &str, &str); 12] = [
    ("create-task.cedar", "orchestrators-create-tasks", "task_opened"),
    ("issue-credential.cedar", "task-tokens", "token_issued"),
    ("issue-credential.cedar", "task-tokens-signature-only", "signature_only_short"),
    ("issue-credential.cedar", "task-tokens-high-sensitivity", "high_sensitivity_short"),
    ("issue-credential.cedar", "task-svids", "svid_issued"),
    ("delegate-task.cedar", "agents-delegate-tasks", "delegation_narrows"),
    ("guards.cedar", "guard-agent-and-ceiling", "ceiling_held"),
    ("guards.cedar", "guard-signature-only", "signature_only_refused"),
    ("guards.cedar", "guard-prompt-origin", "injected_prompt_denied"),
    ("guards.cedar", "guard-delegation-cycle", "cycle_denied"),
    ("operate.cedar", "stoppers-stop", "agent_locked"),
    ("operate.cedar", "auditors-read", "denials_listed"),
];

fn brevet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_brevet"))
}

/// Runs the demo once in a folder: whether it exited with success, and its steps.
fn demo(dir: &Path) -> (bool, Vec<Value>) {
    let output = brevet().args(["demo", "--once", "-o", "json", "--dir"]).arg(dir).output().unwrap();
    let steps = output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    (output.status.success(), steps)
}

/// Where the daemon of a folder listens, or would.
fn address(dir: &Path) -> String {
    Endpoints::read(dir).unwrap().grpc.strip_prefix("https://").unwrap().to_owned()
}

/// Waits for a line that satisfies the predicate.
fn wait_for(lines: impl BufRead, wanted: impl Fn(&str) -> bool) {
    assert!(lines.lines().any(|line| wanted(&line.unwrap())), "the process ended before it said so");
}

#[test]
fn every_step_holds_and_nothing_stays_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (success, steps) = demo(dir.path());
    let text = |step: &Value, name: &str| step[name].as_str().unwrap().to_owned();
    for step in &steps {
        assert_eq!(step["ok"], true, "{step}");
        let members: BTreeSet<&str> = step.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, BTreeSet::from(["step", "ok", "detail", "ms"]));
    }
    assert!(success);
    assert_eq!(steps.iter().map(|step| text(step, "step")).collect::<Vec<_>>(), STEPS);
    assert_eq!(text(steps.last().unwrap(), "detail"), "live leases 0, overdue 0");
    let completed = steps.iter().find(|step| step["step"] == "task_completed").unwrap();
    assert!(completed["ms"].as_f64().unwrap() > 0.0);
    assert!(TcpStream::connect(address(dir.path())).is_err(), "the daemon is still there");
}

#[test]
fn each_shipped_policy_makes_a_step_hold() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/policies");
    let texts = fs::read_dir(&shipped).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    assert_eq!(texts.map(|text| text.matches("@id(").count()).sum::<usize>(), POLICIES.len());
    thread::scope(|scope| {
        let (first, second) = POLICIES.split_at(POLICIES.len() / 2);
        for half in [first, second] {
            scope.spawn(|| half.iter().for_each(|(file, id, step)| fails_without(file, id, step)));
        }
    });
}

fn fails_without(file: &str, id: &str, step: &str) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let path = dir.path().join("policies").join(file);
    let policies = fs::read_to_string(&path).unwrap();
    fs::write(&path, without(&policies, id)).unwrap();
    let (success, steps) = demo(dir.path());
    let failed = steps.last().unwrap();
    assert!(!success, "{id} makes no difference");
    assert_eq!((&failed["step"], &failed["ok"]), (&Value::from(step), &Value::from(false)), "{id}: {failed}");
    assert!(TcpStream::connect(address(dir.path())).is_err(), "{id}: the daemon is still there");
}

/// Has `brevet dev` write its folder, which a later start leaves as it is.
fn prepare(dir: &Path) {
    let mut daemon = brevet().args(["dev", "--dir"]).arg(dir).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(daemon.stderr.take().unwrap());
    wait_for(log, |line| line.contains("ready"));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// The policies but one: from its id to the only semicolon that a policy has, at its end.
fn without(policies: &str, id: &str) -> String {
    let mut removing = false;
    let mut rest = String::new();
    for line in policies.lines() {
        removing |= line == format!("@id(\"{id}\")");
        if !removing {
            rest.push_str(line);
            rest.push('\n');
        }
        removing &= !line.ends_with(';');
    }
    rest
}

#[test]
fn without_once_it_stays_up_and_what_it_says_to_try_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = brevet();
    command.args(["demo", "--dir"]).arg(dir.path()).env("NO_COLOR", "1").stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut lines, |line| line == "live leases 0, overdue 0");
    wait_for(&mut lines, |line| line.contains("Ctrl-C"));
    let to_try = (&mut lines).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let script: String = to_try.flat_map(|line| [line, "\n".to_owned()]).collect();
    assert!(script.matches("brevet ").count() > 5, "{script}");
    let programs = Path::new(env!("CARGO_BIN_EXE_brevet")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap());
    let tried = Command::new("sh").args(["-euc", &script]).env("PATH", path).output().unwrap();
    assert!(tried.status.success(), "{script}\n{tried:?}");
    let address = address(dir.path());
    TcpStream::connect(&address).unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(TcpStream::connect(&address).is_err(), "the daemon is still there");
}
