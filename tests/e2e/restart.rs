//! Stopping, being killed and starting again; and the starts that are refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use brevet_api::v1;
use brevet_testkit::daemon::refused_start;
use tonic::Code;

use crate::jwt_svid::{jwt_svid, permit_for_files};
use crate::watch::fetch;
use crate::world::{AGENT, ORCHESTRATOR, RESOURCE_SERVER, World, binary, issue, next_second, now, seconds};

/// Starts on the folder as it is and gives what the daemon says of it.
fn refusal(folder: &Path) -> String {
    let output = refused_start(binary(), &folder.join("brevet.toml"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("brevet: "), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l6_a_restart_loses_nothing_and_revives_nothing() {
    let mut world = World::start();
    let (orchestrator, agent) = (world.client(ORCHESTRATOR).await, world.client(AGENT).await);
    let live = world.open_task(world.create("live")).await.name;
    let ended = world.open_task(world.create("ended")).await.name;
    let brief = v1::CreateTaskRequest { lifetime: seconds(2), ..world.create("brief") };
    let brief = world.open_task(brief).await;
    let live_token = agent.issue(issue(&live, "one")).await.ok().credential.unwrap().token;
    let ended_token = agent.issue(issue(&ended, "one")).await.ok().credential.unwrap().token;
    let brief_token = agent.issue(issue(&brief.name, "one")).await.ok().credential.unwrap().token;
    let completed = orchestrator.complete(&ended).await.ok();
    let before = orchestrator.get(&live).await.ok();
    drop((orchestrator, agent));

    for kill in [true, false, true] {
        if kill {
            world.daemon.kill();
        } else {
            assert!(world.daemon.stop().success());
        }
        world.daemon.restart();
        let (orchestrator, server) = (world.client(ORCHESTRATOR).await, world.client(RESOURCE_SERVER).await);
        assert_eq!(orchestrator.get(&live).await.ok(), before);
        assert_eq!(Some(orchestrator.get(&ended).await.ok()), completed.task);
        assert!(server.is_active(&live_token).await);
        assert!(!server.is_active(&ended_token).await);
        let over = now().seconds() >= u64::try_from(brief.deadline.unwrap().seconds).unwrap();
        assert!(!over || !server.is_active(&brief_token).await);
        orchestrator.fail(&ended).await.refused(Code::FailedPrecondition, "task_closed");
        // What comes after the refusal is durable, and so is the refusal.
        let request_id = format!(
            "after-{kill}-{}",
            orchestrator.list(v1::ListTasksRequest::default()).await.ok().tasks.len()
        );
        orchestrator.create(world.create(&request_id)).await.ok();
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_daemon_on_the_same_state_is_refused_and_harms_nothing() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let said = refusal(world.folder.path());
    assert!(said.contains("another process has the store"), "{said}");
    world.client(AGENT).await.issue(issue(&task, "one")).await.ok();
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_others_could_read_or_replace_is_refused() {
    let mut world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    assert!(world.daemon.stop().success());
    for name in [
        "ca.key",
        "task-token.key",
        "checkpoint.key",
        "bookmark.key",
        "jwt-svid.key",
        "state.key",
        "journal.db",
        "journal.mark",
    ] {
        let path = world.path("state").join(name);
        for mode in [0o644, 0o640, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = refusal(world.folder.path());
            assert!(said.contains(name), "{name}: {said}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let state = world.path("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    let said = refusal(world.folder.path());
    assert!(said.contains("may be written by others"), "{said}");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    world.daemon.restart();
    world.client(ORCHESTRATOR).await.get(&task).await.ok();
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_that_is_no_key_is_refused() {
    let mut world = World::start();
    assert!(world.daemon.stop().success());
    for name in ["ca.key", "task-token.key", "checkpoint.key", "bookmark.key", "jwt-svid.key", "state.key"] {
        let path = world.path("state").join(name);
        let good = fs::read(&path).unwrap();
        for bad in [&b""[..], b"-----BEGIN PRIVATE KEY-----\n", &good[..good.len() / 2]] {
            fs::write(&path, bad).unwrap();
            let said = refusal(world.folder.path());
            assert!(said.contains(name), "{name}: {said}");
        }
        fs::write(&path, good).unwrap();
    }
    world.daemon.restart();
    world.finish();
}

fn state_files(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder.join("state")).unwrap();
    entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn restore(folder: &Path, files: &BTreeMap<std::path::PathBuf, Vec<u8>>) {
    for path in state_files(folder).into_keys().filter(|path| !files.contains_key(path)) {
        fs::remove_file(path).unwrap();
    }
    for (path, content) in files {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn u3_a_damaged_or_older_database_is_refused_and_the_good_one_still_starts() {
    let mut world = World::start();
    let first = world.open_task(world.create("first")).await.name;
    assert!(world.daemon.stop().success());
    let older = state_files(world.folder.path());
    world.daemon.restart();
    let second = world.open_task(world.create("second")).await.name;
    assert!(world.daemon.stop().success());
    let good = state_files(world.folder.path());
    let database = world.path("state/journal.db");

    // A byte of a record is another.
    let mut flipped = good.clone();
    let bytes = flipped.get_mut(&database).unwrap();
    let record = b"task_opened";
    let at = bytes.windows(record.len()).position(|window| window == record).unwrap();
    bytes[at] ^= 1;
    // The end of the file is gone; all of it is; it never was there.
    let mut cut = good.clone();
    cut.get_mut(&database).unwrap().truncate(8_192);
    let mut empty = good.clone();
    empty.get_mut(&database).unwrap().clear();
    let mut gone = good.clone();
    gone.remove(&database);
    // The copy of yesterday, beside the mark of today; and the mark of another store.
    let mut yesterday = older.clone();
    for (path, content) in &good {
        if path.ends_with("journal.mark") {
            yesterday.insert(path.clone(), content.clone());
        }
    }
    let mut marked = good.clone();
    for (path, content) in &mut marked {
        if path.ends_with("journal.mark") {
            content.fill(0x5a);
        }
    }
    for (what, files) in [
        ("flipped", flipped),
        ("cut", cut),
        ("empty", empty),
        ("gone", gone),
        ("yesterday's", yesterday),
        ("another mark", marked),
    ] {
        restore(world.folder.path(), &files);
        let said = refusal(world.folder.path());
        assert!(said.contains("damaged"), "{what}: {said}");
    }
    restore(world.folder.path(), &good);
    world.daemon.restart();
    let orchestrator = world.client(ORCHESTRATOR).await;
    for task in [first, second] {
        orchestrator.get(&task).await.ok();
    }
    drop(orchestrator);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_configuration_with_a_fault_is_refused_with_its_place() {
    let mut world = World::start();
    assert!(world.daemon.stop().success());
    let good = fs::read_to_string(world.path("brevet.toml")).unwrap();
    let config = world.path("brevet.toml");
    let check = || {
        let output = std::process::Command::new(binary())
            .args(["serve", "--check", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(), (Some(0), String::new()));
    for (bad, told) in [
        (good.replace("policy_directory", "policy_folder"), "unknown field, expected one of"),
        (format!("{good}\n[limit]\nleases = 1\n"), "unknown field, expected one of"),
        (
            good.replace("enforcement = \"lease\"", "enforcement = \"none\""),
            "unknown variant, expected one of",
        ),
        (good.replace("policy_directory = \"policies\"", "policy_directory = \"no-such\""), "no-such"),
        (good.replace("workloads.pem", "no-such.pem"), "no-such.pem"),
        ("trust_domain = ".to_owned(), "brevet.toml"),
    ] {
        assert_ne!(bad, good, "{told}");
        fs::write(&config, bad).unwrap();
        let (code, said) = check();
        assert_eq!(code, Some(1), "{told}: {said}");
        assert!(said.contains(told), "{told}: {said}");
        assert!(refusal(world.folder.path()).contains(told), "{told}");
    }
    fs::write(&config, good).unwrap();
    world.daemon.restart();
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l9_a_key_that_is_gone_is_not_made_anew_beside_the_records_of_the_old_one() {
    for name in ["state.key", "task-token.key", "checkpoint.key", "ca.key"] {
        let mut world = World::start();
        world.open_task(world.create("open")).await;
        world.daemon.stop();
        let key = world.path("state").join(name);
        fs::remove_file(&key).unwrap();
        let said = refusal(&world.path(""));
        assert!(said.contains(name), "{said}");
        assert!(!key.exists());
    }
}

/// A journal from before there were JWT-SVIDs has a key made for them. The bundle that gets it has a later number.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn l9_the_key_of_jwt_svids_is_made_anew_only_where_there_are_none() {
    let mut world = World::with(|_, folder| permit_for_files(folder));
    let task = world.open_task(world.create("open")).await.name;
    let bundle = |world: &World| -> serde_json::Value {
        serde_json::from_str(&fetch(world, "/spiffe/bundle")).unwrap()
    };
    let first = bundle(&world);
    world.daemon.stop();
    let key = world.path("state/jwt-svid.key");
    fs::remove_file(&key).unwrap();
    next_second().await;
    world.daemon.restart();
    let second = bundle(&world);
    assert_ne!(second["keys"], first["keys"]);
    assert!(second["spiffe_sequence"].as_u64() > first["spiffe_sequence"].as_u64());
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    world.client(AGENT).await.issue(jwt_svid(&task, "one")).await.ok();
    world.daemon.stop();
    fs::remove_file(&key).unwrap();
    let said = refusal(&world.path(""));
    assert!(said.contains("jwt-svid.key"), "{said}");
    assert!(!key.exists());
}

#[test]
fn what_everybody_may_write_permits_nothing() {
    for exposed in ["brevet.toml", "policies", "policies/guards.cedar", "workloads.pem"] {
        let mut world = World::start();
        world.daemon.stop();
        let path = world.path(exposed);
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_mode(permissions.mode() | 0o002);
        fs::set_permissions(&path, permissions).unwrap();
        let said = refusal(&world.path(""));
        assert!(said.contains("may be written by everybody"), "{said}");
    }
}
